"""Sampling between pixels against SciPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from jax.test_util import check_grads

from robustjax.core import InputError
from robustjax.imaging.warp import bilinear, bilinear_between

SCIPY = {"mirror": "mirror", "reflect": "reflect", "nearest": "nearest", "zero": "grid-constant"}


def sampled_by_scipy(images, rows, columns, mode):
    channels = [
        [scipy.ndimage.map_coordinates(image[..., c], [y, x], order=1, mode=mode) for c in range(image.shape[-1])]
        for image, y, x in zip(images, rows, columns, strict=True)
    ]
    return np.moveaxis(np.asarray(channels), 1, -1)


@pytest.mark.parametrize("border", SCIPY)
def test_bilinear_is_scipys(border):
    # Kills: rows taken for columns; images or channels that mix; a fold that repeats the edge or does not; one fold where a far
    # coordinate needs several; truncation for floor left of 0; weights of the pixel in the wrong order; zeros that darken inside.
    rng = np.random.default_rng(0)
    images = rng.random((3, 5, 8, 2))
    rows, columns = rng.uniform(-14, 19, (3, 6, 7)), rng.uniform(-20, 28, (3, 6, 7))
    rows[:, 0], columns[:, 1] = np.round(rows[:, 0]), np.round(columns[:, 1])  # on pixels exactly
    with jax.enable_x64(True):
        got = jax.jit(bilinear, static_argnames="border")(*map(jnp.asarray, (images, rows, columns)), border=border)
    np.testing.assert_allclose(got, sampled_by_scipy(images, rows, columns, SCIPY[border]), atol=1e-12)


@pytest.mark.parametrize("border", ["nearest", "zero"])
def test_planes_and_bytes_give_the_same(border):
    # Kills: axes of planes confused; differences of bytes that wrap round at 0.
    rng = np.random.default_rng(2)
    images = jnp.asarray(rng.integers(0, 256, (3, 5, 8, 2), np.uint8))
    places = [jnp.asarray(rng.uniform(-2, 9, (3, 6, 7)), jnp.float32) for _ in range(2)]
    whole = bilinear(images.astype(jnp.float32), *places, border=border)
    planes = bilinear(jnp.moveaxis(images, 3, 1), *places, border=border, channel_axis=1)
    assert planes.dtype == jnp.float32 and np.ptp(whole) > 200
    np.testing.assert_array_equal(jnp.moveaxis(planes, 1, 3), whole)


def test_whole_pixels_apart_keep_precision():
    # Kills: the two parts joined to one float32 coordinate on the way.
    images = jnp.zeros((1, 2, 300, 1)).at[0, :, 256].set(1)
    part = np.float32(1e-6)  # 256 + 1e-6 is 256 in float32
    places = [jnp.full((1, 1, 1), value) for value in (0, 255, np.float32(0), part)]
    got = bilinear_between(images, *places, border="reflect")
    assert got.item() == part


def _sample(images, places, *, border):
    return bilinear(jnp.asarray(images), *map(jnp.asarray, places), border=border)  # finite differences come as NumPy arrays


@pytest.mark.parametrize("border", SCIPY)
def test_gradient_is_the_transposed_sampling_and_the_slope(border):
    # Kills: coordinates behind stop_gradient; an image gradient that misses what several samples share.
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        images = jnp.asarray(rng.random((2, 5, 6, 3)))
        places = jnp.asarray(rng.uniform(-4, 9, (2, 2, 4, 4)))  # never within 1e-4 of a pixel's centre
        sample = functools.partial(_sample, border=border)
        check_grads(sample, (images, places), order=1, modes=["fwd", "rev"], eps=1e-6)


def test_unknown_border_and_axis():
    # Kills: a silent default; an axis counted from behind that is taken for planes.
    with pytest.raises(InputError, match="channel_axis must be 1 or 3, got -1"):
        bilinear(jnp.zeros((1, 4, 4, 1)), jnp.zeros((1, 4, 4)), jnp.zeros((1, 4, 4)), border="zero", channel_axis=-1)
    with pytest.raises(InputError, match="'mirror', 'reflect', 'nearest', 'zero', got 'wrap'"):
        bilinear(jnp.zeros((1, 4, 4, 1)), jnp.zeros((1, 4, 4)), jnp.zeros((1, 4, 4)), border="wrap")
