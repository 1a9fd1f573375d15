"""Crop and flip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robustjax import augment
from robustjax.core import InputError, example_keys


def keys(n, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(n))


def test_crops_are_windows_of_the_padded_image_all_equally_likely():
    # Kills: an offset short of 2 pad; rows and columns exchanged or sharing one offset; wrapping or edge padding; one offset a batch.
    n, pad, height, width = 2000, 2, 5, 7
    image = np.random.default_rng(0).uniform(0.1, 1, size=(height, width, 3)).astype(np.float32)
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    windows = {padded[i : i + height, j : j + width].tobytes(): (i, j) for i in range(2 * pad + 1) for j in range(2 * pad + 1)}
    crops = np.asarray(jax.jit(lambda k, x: augment.random_crop(k, x, pad=pad))(keys(n), jnp.asarray(np.stack([image] * n))))
    counts = np.zeros((2 * pad + 1, 2 * pad + 1))
    for crop in crops:
        counts[windows[crop.tobytes()]] += 1
    assert scipy.stats.chisquare(counts.ravel()).pvalue > 1e-4


def test_flip_mirrors_half_of_the_images_left_to_right():
    # Kills: upside down; always or never; one draw a batch.
    n = 1000
    image = np.random.default_rng(0).uniform(size=(3, 4, 2)).astype(np.float32)
    out = np.asarray(augment.random_flip(keys(n), jnp.asarray(np.stack([image] * n))))
    same, mirrored = (out == image).all((1, 2, 3)), (out == image[:, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert scipy.stats.binomtest(int(mirrored.sum()), n).pvalue > 1e-4


def test_negative_pad_is_refused():
    # Kills: the check left out (jnp.pad would fail later, and say nothing of pad).
    with pytest.raises(InputError, match="pad must be a whole number, at least 0, got -1"):
        augment.random_crop(keys(1), jnp.zeros((1, 4, 4, 1)), pad=-1)
