"""Digital corruptions against the standard library and Pillow, where golden files do not reach: rare colours, other sizes."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from robustjax import corruptions
from robustjax.corruptions.constants import CONSTANTS
from robustjax.corruptions.digital import saturate

# All pixels of channels in {0, 1/4, ... 1}: every sextant, tie and grey.
GRID = np.stack(np.meshgrid(*[np.linspace(0, 1, 5)] * 3), axis=-1).reshape(1, 5, 25, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saturate_is_the_standard_librarys_hsv(dtype):
    # Kills: a clip of S that is left out on either side; an offset that is not scaled by V; grey that is not tinted, or not red; black
    # that turns; the short way of float32 unlike the long one.
    constants = (*CONSTANTS["cifar_c"]["saturate"], (0, 0))
    with jax.enable_x64(True):
        run = jax.jit(lambda x, s: saturate(x, constants=constants, severity=s))
        for severity, (gain, offset) in enumerate(constants, 1):
            hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in GRID.reshape(-1, 3)]
            expected = [colorsys.hsv_to_rgb(h, min(s * gain + offset, 1), v) for h, s, v in hsv]
            got = run(jnp.asarray(GRID, dtype), jnp.int32(severity))
            assert got.dtype == dtype
            np.testing.assert_allclose(got, np.reshape(expected, GRID.shape), atol=1e-6)


def test_saturate_has_finite_gradients():
    # Kills: a division by the spread of grey pixels on the way back.
    with jax.enable_x64(True):
        for dtype in (np.float32, np.float64):
            loss = lambda x: jnp.sum(saturate(x, constants=((2, 0.1),), severity=jnp.int32(1)) ** 2)  # noqa: E731
            assert jnp.isfinite(jax.jit(jax.grad(loss))(jnp.asarray(GRID, dtype))).all()


@pytest.mark.parametrize("level", [0.5, 1e-8, 1e-10, 1e-12, 1e-13, 1e-20, 1e-30, 1e-36])
def test_saturate_has_the_same_gradients_in_the_dark(level):
    # Kills: a division by the square of the spread, which vanishes in float32. Scaled pixels have scaled results.
    # Below 1e-36 products of pixels and constants are no normal numbers.
    pixel, gain, offset = np.array([1, 0.3, 0.6]), 0.5, 0.1

    def run(x):
        return saturate(x.reshape(1, 1, 1, 3), constants=((gain, offset),), severity=jnp.int32(1)).reshape(3)

    share, depth = (1 - pixel) / 0.7, gain * 0.7 + offset
    of_value = np.outer(np.ones(3), [1, 0, 0])
    of_share = (of_value - np.eye(3) - np.outer(share, [1, -1, 0])) / 0.7
    expected = of_value - depth * of_share - np.outer(share, [gain + offset, -gain, 0])
    got = jax.jit(jax.jacobian(run))(jnp.asarray(pixel * level, jnp.float32))
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(17, 40), (37, 23)])
def test_pixelate_is_pillows_at_any_size(size):
    # Kills: rows and columns swapped; a window short by a pixel at the border; one rounding for two; copies of the wrong neighbour.
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, *size, 3)).astype(np.uint8)
    for severity, factor in enumerate(CONSTANTS["cifar_c"]["pixelate"], 1):
        small = [int(side * factor) for side in size[::-1]]
        expected = [Image.fromarray(i).resize(small, Image.Resampling.BOX).resize(size[::-1], Image.Resampling.BOX) for i in images]
        got = corruptions.apply(images.astype(np.float32) / 255, {}, name="pixelate", severity=severity)
        np.testing.assert_array_equal(np.rint(np.asarray(got) * 255), np.stack(expected))


def test_pixelate_in_floats_is_linear_and_near():
    # Kills: rounding left in; weights that do not sum to one; a gradient that is not the transposed map.
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.uniform(0.2, 0.8, (2, 20, 24, 3)), jnp.float32) for _ in range(2))

    @jax.jit
    def both(x, y, severity):
        run = lambda z: corruptions.apply(z, {}, name="pixelate", severity=severity, quantize=False)  # noqa: E731
        whole = corruptions.apply(x, {}, name="pixelate", severity=severity)
        return run(x), run(y), run((x + y) / 2), jax.vjp(run, x)[1](y)[0], whole

    for severity in (1, 5):
        of_x, of_y, of_mean, back, whole = both(x, y, jnp.int32(severity))
        np.testing.assert_allclose(of_mean, (of_x + of_y) / 2, atol=1e-6)
        np.testing.assert_allclose(jnp.sum(back * x), jnp.sum(y * of_x), rtol=1e-5)
        assert np.abs(np.asarray(whole) - of_x).max() * 255 <= 1.5


def test_speckle_noise_grows_with_the_intensity():
    # Kills: noise that is added whatever the pixel; variance for standard deviation; noise shared by channels.
    keys = jax.random.split(jax.random.key(0), 64)
    levels = jnp.broadcast_to(jnp.linspace(0, 0.6, 4).reshape(1, 4, 1, 1, 1), (64, 4, 8, 32, 3)).reshape(64, 32, 32, 3)
    got = np.asarray(corruptions.corrupt(keys, levels, name="speckle_noise", severity=2, benchmark="cifar_c", quantize=False))
    noise = (got - np.asarray(levels)).reshape(64, 4, -1)
    for level, values in zip(np.linspace(0, 0.6, 4), noise.swapaxes(0, 1), strict=True):
        assert abs(values.std() - 0.1 * level) <= 0.001 * level and abs(values.mean()) <= 0.001 * level
    assert abs(np.corrcoef(noise.reshape(64, 4, -1, 3)[:, 3].reshape(-1, 3).T) - np.eye(3)).max() < 0.03
