"""Elastic transforms beyond their golden files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from robustjax import corruptions
from robustjax.core import InputError
from robustjax.corruptions.elastic import elastic_transform


def drawn(shape=(2, 24, 30), seed=0):
    rng = np.random.default_rng(seed)
    return {"affine": rng.random((shape[0], 3, 2)), "dx": rng.random(shape), "dy": rng.random(shape)}


def by_scipy(image, affine, dx, dy, constant, grid=None):
    """The recipe in NumPy and SciPy."""
    (h, w), (alpha, sigma, jitter) = image.shape[:2], constant
    third = min(h, w) // 3
    corners = np.array([h // 2, w // 2]) + third * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = corners.astype(np.float32) + (jitter * (2 * affine - 1)).astype(np.float32)
    matrix = np.linalg.solve(np.c_[moved.astype(float), np.ones(3)], corners)  # (x', y', 1) @ matrix = (x, y)
    y, x = np.indices((h, w))
    if grid is None:
        columns, rows = (m[0] * x + m[1] * y + m[2] for m in matrix.T)
    else:
        fine = [np.rint(1024 * m[0] * x).astype(int) + np.rint(1024 * (m[1] * y + m[2])).astype(int) for m in matrix.T]
        columns, rows = ((value + 512 // grid) // (1024 // grid) / grid for value in fine)
    smooth = lambda field: alpha * scipy.ndimage.gaussian_filter(2 * field - 1, sigma, mode="reflect", truncate=3)  # noqa: E731
    sampled = [scipy.ndimage.map_coordinates(channel, [rows, columns], order=1, mode="mirror") for channel in np.moveaxis(image, -1, 0)]
    places = [y + smooth(dy), x + smooth(dx)]
    return np.stack([scipy.ndimage.map_coordinates(channel, places, order=1, mode="reflect") for channel in sampled], -1)


@pytest.mark.parametrize("grid", [None, 32, 4])
def test_is_the_recipe_in_scipy(grid):
    # Kills (on images that are not square, in float64): axes swapped anywhere; dx for dy; the map for its inverse; the wrong corner;
    # a border mirrored the other way; the middle with its axes put right; a grid without its half step, or rounded once only.
    images, draws = np.random.default_rng(1).random((2, 24, 30, 2)), drawn()
    constant = (6.0, 2.0, 4.0)
    with jax.enable_x64(True):
        arrays = {name: jnp.asarray(value) for name, value in draws.items()}
        got = elastic_transform(jnp.asarray(images), arrays, constants=(constant,), severity=jnp.int32(1), affine_grid=grid)
    expected = [by_scipy(image, *(draws[name][i] for name in ("affine", "dx", "dy")), constant, grid) for i, image in enumerate(images)]
    np.testing.assert_allclose(got, expected, atol=1e-10)


def test_nothing_moves():
    # Kills: half a pixel of rounding that shifts; 0 displacement that is not the image.
    images, draws = jnp.asarray(np.random.default_rng(1).random((2, 24, 30, 3)), jnp.float32), drawn()
    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in draws.items()}
    for grid in (1, 32, None):
        got = elastic_transform(images, arrays, constants=((0, 0, 0),), severity=jnp.int32(1), affine_grid=grid)
        np.testing.assert_array_equal(got, images)


def test_corners_on_one_line_give_finite_images():
    # Kills: a division by a determinant of 0.
    images = jnp.asarray(np.random.default_rng(1).random((1, 24, 24, 3)), jnp.float32)
    still = jnp.full((1, 24, 24), 0.5)
    draws = {"affine": jnp.asarray([[[0.25, 0.5], [0.25, 0.5], [0.75, 0.5]]]), "dx": still, "dy": still}  # all at the same place
    for grid in (32, None):
        got = elastic_transform(images, draws, constants=((0, 0, 16),), severity=jnp.int32(1), affine_grid=grid)
        assert np.isfinite(np.asarray(got)).all()


@pytest.mark.parametrize("grid", [0, 3, -32, 1024, 32.0, True, "32"])
def test_grids_that_are_refused(grid):
    # Kills: a grid whose steps are no bits; True for 1; a float that compiles.
    images = np.zeros((1, 32, 32, 3), np.float32)
    with pytest.raises(InputError, match="affine_grid must be a power of two from 1 to 512"):
        corruptions.corrupt(None, images, name="elastic_transform", severity=1, affine_grid=grid)
