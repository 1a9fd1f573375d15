"""Box resizing against Pillow."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from robustjax.imaging import box_weights, separable


@pytest.mark.parametrize("new", [(30, 30), (13, 7), (32, 48), (33, 45), (64, 96)])
def test_box_resize_is_pillows(new):
    # Kills: the tie rule reversed; a window of the wrong width; rows and columns swapped; vertical pass first; no rounding between.
    levels = np.random.default_rng(0).integers(0, 256, (32, 48)).astype(np.uint8)
    rows, columns = (jnp.asarray(box_weights(size, n), jnp.float32) for size, n in zip(levels.shape, new, strict=True))
    got = separable(jnp.asarray(levels, jnp.float32)[None, :, :, None], rows, columns, between=lambda x: jnp.floor(x + 0.5))
    expected = Image.fromarray(levels).resize(new[::-1], Image.Resampling.BOX)
    np.testing.assert_array_equal(got[0, :, :, 0], np.asarray(expected, np.float32))
