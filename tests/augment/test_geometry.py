"""Rotations and perspectives against closed forms, SciPy, and the eight equations of a projective map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from robustjax import augment
from robustjax.augment import geometry
from robustjax.core import InputError, example_keys

MODES = {"black": "grid-constant", "edge": "nearest"}
rotate = jax.jit(geometry.rotate, static_argnames="fill")
project = jax.jit(geometry.project, static_argnames="fill")


def keys(ids):
    return example_keys(jax.random.key(5), jnp.asarray(ids))


def images(shape=(4, 6, 9, 2)):
    return np.random.default_rng(0).uniform(size=shape)


def test_quarter_turns_are_rot90():
    # Kills: clockwise turns; degrees taken for radians; a middle that is half a pixel off.
    picture = images((1, 7, 7, 2))
    with jax.enable_x64(True):
        got = rotate(jnp.asarray(np.repeat(picture, 5, 0)), jnp.asarray([0.0, 90, 180, 270, -90]), fill="black")
    for out, turns in zip(got, (0, 1, 2, 3, -1), strict=True):
        np.testing.assert_allclose(out, np.rot90(picture[0], turns), atol=1e-12)


@pytest.mark.parametrize("fill", MODES)
def test_rotation_is_scipys(fill):
    # Kills: height taken for width in the middle; one angle a batch; fills exchanged; a black frame that is cut off hard.
    angles = np.array([17.0, -140.0, 3.5, 63.0])
    with jax.enable_x64(True):
        got = rotate(jnp.asarray(images()), jnp.asarray(angles), fill=fill)
    for out, picture, angle in zip(got, images(), angles, strict=True):
        np.testing.assert_allclose(out, scipy.ndimage.rotate(picture, angle, reshape=False, order=1, mode=MODES[fill]), atol=1e-10)


def test_angles_are_uniform(monkeypatch):
    # Kills: angles of one sign; one draw a batch.
    monkeypatch.setattr(geometry, "rotate", lambda images, angles, *, fill: jnp.broadcast_to(angles[:, None, None, None], images.shape))
    n = 2000
    found = jax.jit(lambda k, x: geometry._rotated.__wrapped__(k, x, jnp.float32(20), fill="black"))(
        keys(np.arange(n)), jnp.zeros((n, 2, 2, 1))
    )
    assert scipy.stats.kstest(np.asarray(found)[:, 0, 0, 0], scipy.stats.uniform(-20, 40).cdf).pvalue > 1e-4


FIGURES = np.array(
    [
        [[0, 0], [8, 0], [8, 5], [0, 5]],
        [[2, 1], [7, 0], [6, 4], [1, 5]],
        [[0, 2], [5, 0], [8, 5], [3, 3]],
        [[1, 0], [8, 1], [7, 5], [0, 4]],
    ],
    float,
)
START = FIGURES[0]


@pytest.mark.parametrize("fill", MODES)
def test_perspective_solves_the_eight_equations(fill):
    # Kills: the map taken for its inverse; an affine map; corners in another order; x taken for y.
    with jax.enable_x64(True):
        got = np.asarray(project(jnp.asarray(images()), jnp.asarray(FIGURES), fill=fill))
    for out, picture, figure in zip(got, images(), FIGURES, strict=True):
        for (x, y), (x0, y0) in zip(figure.astype(int), START.astype(int), strict=True):
            np.testing.assert_allclose(out[y, x], picture[y0, x0], atol=1e-10)  # corners go where they were drawn to
        rows = [[x, y, 1, 0, 0, 0, -x * u, -y * u] for (x, y), (u, v) in zip(figure, START, strict=True)]
        rows += [[0, 0, 0, x, y, 1, -x * v, -y * v] for (x, y), (u, v) in zip(figure, START, strict=True)]
        matrix = np.append(np.linalg.solve(rows, np.concatenate([START[:, 0], START[:, 1]])), 1).reshape(3, 3)
        y, x = np.mgrid[:6, :9]
        u, v, depth = np.tensordot(matrix, np.stack([x, y, np.ones_like(x)]), 1)
        places = [np.clip(v / depth, -50, 50), np.clip(u / depth, -50, 50)]
        expected = [scipy.ndimage.map_coordinates(picture[..., i], places, order=1, mode=MODES[fill]) for i in range(2)]
        np.testing.assert_allclose(out, np.stack(expected, -1), atol=1e-9)


def test_drawn_corners_are_torchvisions(monkeypatch):
    # Kills: corners that move outwards; half of the side taken for the whole; int() rounded up; p ignored; corners that share a draw.
    monkeypatch.setattr(
        geometry, "project", lambda images, corners, *, fill: jnp.broadcast_to(corners.reshape(-1, 8, 1, 1), (*images.shape[:3], 1))
    )
    n, h, w = 3000, 8, 23  # 8 rows, as many as there are numbers
    seen = lambda k, x: geometry._seen_from_aside.__wrapped__(k, x, jnp.float32(0.3), jnp.float32(0.7), fill="black")  # noqa: E731
    found = np.asarray(jax.jit(seen)(keys(np.arange(n)), jnp.full((n, h, w, 1), -1.0)))[:, :, 0, 0]
    moved = found[(found != -1).all(1)].reshape(-1, 4, 2)
    inwards = np.abs(moved - [[0, 0], [w - 1, 0], [w - 1, h - 1], [0, h - 1]])
    assert moved.min() >= 0 and (moved <= [w - 1, h - 1]).all()
    for corner in range(4):
        assert scipy.stats.chisquare(np.bincount(inwards[:, corner, 0].astype(int), minlength=4)).pvalue > 1e-4  # int(0.3 * 11) = 3
        assert scipy.stats.chisquare(np.bincount(inwards[:, corner, 1].astype(int), minlength=2)).pvalue > 1e-4  # int(0.3 * 4) = 1
    together = np.corrcoef(inwards.reshape(-1, 8).T) - np.eye(8)
    assert np.abs(together).max() < 5 / np.sqrt(len(moved))
    whole = 1 / (4 * 2) ** 4  # nothing moves by chance
    assert scipy.stats.binomtest(len(moved), n, 0.7 * (1 - whole)).pvalue > 1e-4


def test_folded_images_are_finite():
    # Kills: division by zero where three corners lie on a line, or on the horizon.
    figures = jnp.asarray(
        [
            [[4, 2], [8, 0], [8, 5], [0, 5]],
            [[4, 2.5], [8, 0], [8, 5], [0, 5]],
            [[3, 3], [3, 3], [3, 3], [3, 3]],
            [[5, 3], [8, 0], [4, 2], [0, 5]],
        ],
        jnp.float32,
    )
    out = project(jnp.asarray(images(), jnp.float32), figures, fill="edge")
    assert out.min() >= 0 and out.max() <= 1


def test_fill_is_what_comes_in():
    # Kills: an option that is not handed on by the stages.
    targets = jnp.eye(4)
    ones = jnp.ones((4, 8, 8, 1))
    for name, options in (("rotation", {"degrees": 45.0}), ("perspective", {"p": 1.0})):
        for fill in MODES:
            out, _ = augment.TABLE[name](keys(range(4)), ones, targets, fill=fill, **options)
            assert (out.min() < 0.5) == (fill == "black") and (fill == "black" or jnp.all(out == 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k: augment.rotation(k, jnp.zeros((2, 4, 4, 1)), degrees=-1.0), "option degrees must be between 0 and 180, got -1.0"),
        (lambda k: augment.rotation(k, jnp.zeros((2, 4, 4, 1)), degrees=5, fill="white"), "fill must be 'black' or 'edge', got 'white'"),
        (lambda k: augment.rotation(k, jnp.zeros((2, 1, 4, 1)), degrees=5), "at least 2 pixels high and wide"),
        (lambda k: augment.perspective(k, jnp.zeros((2, 4, 4, 1)), distortion_scale=2), "distortion_scale must be between 0 and 1, got 2"),
        (lambda k: augment.perspective(k, jnp.zeros((2, 4, 4, 1)), p="half"), "option p .* got 'half'"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    # Kills: a check dropped.
    with pytest.raises(InputError, match=message):
        call(keys(range(2)))
