"""C-bar beyond 32 pixels: the ImageNet-only corruptions, for which there are no reference data, against their formulas pixel by pixel."""

import functools
import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from robustjax import corruptions
from robustjax.core import example_keys
from robustjax.corruptions.constants import CONSTANTS

N = 64
ONLY_IMAGENET = [name for name in corruptions.NAMES["imagenet_cbar"] if name not in corruptions.NAMES["cifar_cbar"]]
PIXELS = [(0, 0), (0, 63), (63, 17), (31, 32), (5, 40), (50, 11), (22, 22), (1, 62), (44, 45), (60, 60)]


def photograph():
    y, x = np.mgrid[:N, :N] / N
    return np.stack([(1 + np.sin(9 * x + 4 * y)) / 2, x * y, 0.5 + 0.5 * np.cos(20 * y * y)], axis=-1)


def run(images, draws=None, **arguments):
    arguments = {"severity": 3, "benchmark": "imagenet_cbar", "quantize": False} | arguments
    if draws is None:
        keys = example_keys(jax.random.key(0), jnp.arange(len(images)))
        return np.asarray(corruptions.corrupt(keys, images, **arguments))
    return np.asarray(corruptions.apply(images, draws, **arguments))


def single_frequency_greyscale(x, row, column, level, image, u):
    large = np.pi * (2 * u["frequency"][0] - 1)
    small = abs(large) * (2 * u["frequency"][1] - 1)
    first, second = (large, small) if u["order"] < 0.5 else (small, large)
    return x + 19.6 / 255 * level * np.sin(column * first + row * second + 2 * np.pi * u["phase"])


def cocentric_sine_waves(x, row, column, level, image, u):
    x0, y0 = N * u["centre"]
    ring = u["ring"] * N / 10
    radius = np.hypot(column - x0, row - y0)
    radius += u["amplitude"] * N / 10 * np.sin(10 * u["frequency"] * np.arctan2(column - x0, row - y0))
    return x + 12.8 / 255 * level * (radius % ring / ring - 0.5)


def plasma_noise(x, row, column, level, image, u):
    scale, time = N * (0.075 + 0.125 * u["scale"]), 6 * np.pi * u["time"]
    p = np.array([column, row]) / scale
    for i in range(4 + int(3 * u["rounds"])):
        move = np.array([np.cos(p[1] * 1.93**i + time / 1.15**i), np.sin(p[0] * 1.93**i + time / 1.15**i)])
        move /= (2.25 - (0.5 + 0.5 * u["sharpness"])) ** i
        p = p + move + 0.3 * np.array([-move[1], move[0]])
    noise = np.array([np.sin(p[0] - time), np.sin((p.sum() + np.sin(time)) / 2), np.sin(p[1] + time)])
    return (1 - 6.4 * level / 255) * x + 6.4 * level / 255 * noise


def perlin_noise(x, row, column, level, image, u):
    permutation = np.argsort(u["rank"])
    turbulence = 0
    for octave in (1, 2, 4, 8, 16):
        p = np.array([row, column]) / (32 * N / 224) * octave
        first = np.floor(p).astype(int)
        s = p % 1
        s = s * s * (3 - 2 * s)
        noise = 0
        for i in (0, 1):
            for j in (0, 1):
                corner = first + np.array([i, j])
                gradient = 2 * u["gradient"][permutation[(permutation[corner[0]] + corner[1]) % 256]] - 1
                weight = (s[0] if i else 1 - s[0]) * (s[1] if j else 1 - s[1])
                noise += weight * (p - corner) @ gradient / np.linalg.norm(gradient)
        turbulence += abs(1.5 * noise) / octave
    alpha = 0.05 * level
    return (1 - alpha) * x + alpha * min(0.5 + 0.5 * turbulence, 1)


@functools.cache
def caustic_light(time, size):
    light = np.empty((N, N))
    for row, column in np.ndindex(N, N):
        p = np.array([row, column]) / size % 1 * 6.28318530718 - 250
        q, total = p, 1.0
        for k in range(1, 6):
            t = time * (1 - 3.5 / k)
            q = p + np.array([np.cos(t - q[0]) + np.sin(t + q[1]), np.sin(t - q[1]) + np.cos(t + q[0])])
            total += 1 / np.hypot(p[0] / (np.sin(q[0] + t) / 0.005), p[1] / (np.cos(q[1] + t) / 0.005))
        light[row, column] = min(abs(1.17 - (total / 5) ** 1.4) ** 8, 1)
    return np.pad(scipy.ndimage.gaussian_filter(light, 1.0), 1)


def caustic_refraction(x, row, column, level, image, u):
    light = caustic_light(0.5 + 1.5 * float(u["time"]), N * (0.75 + 0.5 * float(u["size"])))[row : row + 3, column : column + 3]
    slope = np.array([light[2, 1] - light[0, 1], light[1, 2] - light[1, 0], 1])
    normal = slope / np.linalg.norm(slope)
    ray = np.array([0, 0, 1.0])
    if normal @ ray < 1 - 1e-3:
        axis = np.cross(ray, normal)
        turn = np.arcsin(np.linalg.norm(axis) / 4)  # Snell: from the normal, in the plane of both
        ray = np.cos(turn) * normal + np.sin(turn) * np.cross(normal, axis / np.linalg.norm(axis))
    y, x = np.array([row, column]) + (N / 20 * level * ray[:2]).round(3)
    corners = np.pad(image, ((N, N), (N, N), (0, 0)))[int(y // 1) + N :, int(x // 1) + N :][:2, :2]
    shown = np.einsum("i,j,ijc->c", [1 - y % 1, y % 1], [1 - x % 1, x % 1], corners)
    return shown + level / 5 * (slope[0] - slope[1])


FORMULAS = {f.__name__: f for f in (single_frequency_greyscale, cocentric_sine_waves, plasma_noise, perlin_noise, caustic_refraction)}


@pytest.mark.parametrize("name", ONLY_IMAGENET)
def test_formula_of_each_pixel(name):
    # Kills: rows for columns; a wrong constant, sign, octave or phase; a round too many; gradients of the wrong corner; the inverse of
    # a permutation; refraction to the wrong side; brightness of the wrong side; borders that are not black; no clip.
    images = photograph()[None].repeat(3, 0)
    keys = example_keys(jax.random.key(1), jnp.arange(3))
    draws = corruptions.draw(keys, images.shape, name=name, severity=1, benchmark="imagenet_cbar")
    draws = {key: np.asarray(value, np.float64) for key, value in draws.items()}
    with jax.enable_x64(True):
        for severity in (1, 4):
            level = CONSTANTS["imagenet_cbar"][name][severity - 1]
            got = run(images, draws, name=name, severity=severity)
            for i, (row, column) in itertools.product(range(3), PIXELS):
                u = {key: value[i] for key, value in draws.items()}
                expected = FORMULAS[name](images[i, row, column], row, column, level, images[i], u)
                np.testing.assert_allclose(got[i, row, column], np.clip(expected, 0, 1), atol=1e-9)


def at_33(name, **arguments):
    """Returns two images of side 33 in [0, 1], float64, the uniforms drawn for them, and what becomes of them."""
    images = np.random.default_rng(0).random((2, 33, 33, 3))
    keys = example_keys(jax.random.key(0), jnp.arange(2))
    draws = corruptions.draw(keys, images.shape, name=name, severity=4, benchmark="cifar_cbar")
    draws = {key: np.asarray(value, np.float64) for key, value in draws.items()}
    with jax.enable_x64(True):
        return images, draws, run(images, draws, name=name, severity=4, benchmark="cifar_cbar")


def odd_field(phase, middle, power):
    phase = np.concatenate([phase, np.concatenate([middle, [0], middle[::-1]])[:, None], phase[::-1, ::-1]], axis=1)
    noise = np.fft.ifft2(np.roll(power * np.exp(2j * np.pi * phase), 16, axis=(0, 1))).real
    return noise / noise.std()


def test_fields_of_odd_sides():
    # Kills: a middle column that is missing, random throughout or turned; a centre rounded to a pixel; one field for all channels.
    distance = np.hypot(*np.mgrid[:33, :33] - 16.5)
    images, draws, got = at_33("blue_noise_sample")
    fields = [odd_field(phase, middle, distance) for phase, middle in zip(draws["phase"], draws["middle"], strict=True)]
    np.testing.assert_allclose(got, images * (np.stack(fields) > 0.3 * 3.5 - 2.5)[..., None])
    images, draws, got = at_33("brownish_noise")
    for i in range(2):
        fields = [odd_field(*pair, 1 / (distance**2 + 1)) for pair in zip(draws["phase"][i], draws["middle"][i], strict=True)]
        np.testing.assert_allclose(got[i], np.clip(images[i] + 6.4 * 6.5 / 255 * np.stack(fields, axis=-1), 0, 1), atol=1e-9)


def test_splines_of_odd_sides_are_scipys():
    # Kills: a middle between pixels for odd sides; zooms cut out half a pixel off; wrong mirroring at the far border.
    images, _, got = at_33("circular_motion_blur")
    t = np.linspace(-1, 1, 21)
    turned = [scipy.ndimage.rotate(images, 1.5 * 5.2 * x, axes=(2, 1), reshape=False) for x in t]
    np.testing.assert_allclose(got, np.clip(np.average(turned, axis=0, weights=np.exp(-2 * t**2)), 0, 1), atol=1e-9)
    images, draws, got = at_33("transverse_chromatic_abberation")
    for i, channel in np.ndindex(2, 3):
        scale = 1 + 9 / 40 * np.argsort(np.argsort(draws["order"][i]))[channel]
        zoomed = scipy.ndimage.zoom(images[i, ..., channel], scale, prefilter=False)
        edge = (len(zoomed) - 33) // 2
        np.testing.assert_allclose(got[i, ..., channel], zoomed[edge : edge + 33, edge : edge + 33], atol=1e-9)


@pytest.mark.parametrize("n, cells", [(33, 3), (224, 5)])
def test_pinched_cells(n, cells):
    # Kills: 3 cells along an axis of 224 pixels; cells that take turns from the wrong draw; a middle off by half a pixel for odd sides.
    images = np.random.default_rng(0).random((1, n, n, 1))
    sense = np.random.default_rng(1).random((1, cells, cells))
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the size
        got = run(images, {"sense": sense}, name="pinch_and_twirl", severity=5, benchmark="cifar_cbar")
    expected, side = images.copy(), n // cells
    for i, j in np.ndindex(cells, cells):
        middle = np.array([i, j])[:, None, None] * side + side / 2
        way = np.mgrid[i * side : (i + 1) * side, j * side : (j + 1) * side] - middle
        d = np.hypot(*way) / (side / 2)
        moved = (d <= 1) & (d > 0)
        safe = np.where(moved, d, 1)
        angle = np.where(sense[0, i, j] < 0.5, 1, -1) * np.pi / 2 * (1 - safe) ** 2
        turned = np.stack([way[0] * np.cos(angle) - way[1] * np.sin(angle), way[0] * np.sin(angle) + way[1] * np.cos(angle)])
        points = middle + np.where(moved, turned * np.sin(np.pi / 2 * safe) ** -0.5, way)
        part = scipy.ndimage.map_coordinates(images[0, ..., 0], points, order=1, mode="grid-constant")
        expected[0, i * side : (i + 1) * side, j * side : (j + 1) * side, 0] = part
    np.testing.assert_allclose(got, expected, atol=1e-9)


def test_extremes_of_given_draws_stay_finite():
    # Kills: rings of width 0, gradients and rays of length 0 that divide by 0; a ray or cell beyond the table.
    images = jnp.full((1, N, N, 3), 0.5)
    keys = example_keys(jax.random.key(0), jnp.arange(1))
    for name in ("cocentric_sine_waves", "perlin_noise", "inverse_sparkles", "checkerboard_cutout"):
        draws = corruptions.draw(keys, images.shape, name=name, severity=5, benchmark="imagenet_cbar")
        for value in (0.0, 0.5, 1.0):
            extreme = {key: jnp.full_like(array, value) for key, array in draws.items()}
            got = run(images, extreme, name=name, severity=5)
            assert np.isfinite(got).all() and got.min() >= 0 and got.max() <= 1, (name, value)
