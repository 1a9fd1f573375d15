"""Resizing against Pillow and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from robustjax.imaging import box_weights, clipped_zoom, separable, zoom_points


@pytest.mark.parametrize("new", [(30, 30), (13, 7), (32, 48), (33, 45), (64, 96)])
def test_box_resize_is_pillows(new):
    # Kills: the tie rule reversed; a window of the wrong width; rows and columns swapped; vertical pass first; no rounding between.
    levels = np.random.default_rng(0).integers(0, 256, (32, 48)).astype(np.uint8)
    rows, columns = (jnp.asarray(box_weights(size, n), jnp.float32) for size, n in zip(levels.shape, new, strict=True))
    got = jnp.asarray(levels, jnp.float32)[None, :, :, None]
    for matrices in ((jnp.eye(32), columns), (rows, jnp.eye(new[1]))):
        got = jnp.floor(separable(got, *matrices) + 0.5)
    expected = Image.fromarray(levels).resize(new[::-1], Image.Resampling.BOX)
    np.testing.assert_array_equal(got[0, :, :, 0], np.asarray(expected, np.float32))


@pytest.mark.parametrize("factor", [1, 1.01, 1.06, 1.25, 1.75, 2.25, 4.5])
def test_clipped_zoom_is_scipys(factor):
    # Kills: pixel centres aligned for corners; a crop rounded down, or off the middle; trimming from one side; a last row that reads
    # beyond the image; rows and columns swapped; images or channels that mix.
    images = np.random.default_rng(0).random((2, 32, 41, 3))
    crops = [int(np.ceil(size / factor)) for size in (32, 41)]
    (top, left) = ((size - crop) // 2 for size, crop in zip((32, 41), crops, strict=True))
    grown = scipy.ndimage.zoom(images[:, top : top + crops[0], left : left + crops[1]], (1, factor, factor, 1), order=1)
    top, left = ((large - size) // 2 for size, large in zip((32, 41), grown.shape[1:3], strict=True))
    expected = grown[:, top : top + 32, left : left + 41]
    with jax.enable_x64(True):
        points = [tuple(map(jnp.asarray, zoom_points(size, factor))) for size in (32, 41)]
        np.testing.assert_allclose(jax.jit(clipped_zoom)(jnp.asarray(images), *points), expected, atol=1e-12)
