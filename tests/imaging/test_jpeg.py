"""JPEG against Pillow, which is libjpeg-turbo, and what its speed relies on."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from robustjax.imaging.jpeg import _reciprocal, jpeg, quantization_tables


def pictures(h, w):
    """Returns (3, h, w, 3) bytes: noise, smooth colours, and black and white, which overshoots most."""
    rng = np.random.default_rng(h * w)
    ramp = np.add.outer(np.linspace(0, 200, h), np.linspace(0, 55, w))
    smooth = np.stack([ramp, ramp[::-1], 255 - ramp], axis=-1) + rng.integers(-9, 10, (h, w, 3))
    hard = 255 * rng.integers(0, 2, (h, w, 1)) * np.ones(3)
    return np.clip([rng.integers(0, 256, (h, w, 3)), smooth, hard], 0, 255).astype(np.uint8)


def pillow(picture, quality):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def ours(images, quality, dtype=jnp.float32, **options):
    tables = jnp.asarray(quantization_tables(quality), jnp.int32)
    return np.asarray(RUN(jnp.asarray(images / 255, dtype), tables, **{"quantize": True, **options}))


RUN = jax.jit(jpeg, static_argnames="quantize")


@pytest.mark.parametrize("size", [(32, 32), (40, 24), (17, 34), (28, 27)])
def test_bytes_are_pillows(size):
    # Kills: a wrong constant, table or rounding anywhere; borders repeated before halving downwards, or after it to the right; chroma
    # beyond the border mixed in; coefficients of luma cut with chroma's table; a quality that scales the other way.
    images = pictures(*size)
    for quality in (1, 7, 25, 50, 80, 95, 100):
        for wanted in (images, images[..., 0]):
            expected = np.stack([pillow(picture, quality) for picture in wanted]).reshape(*images.shape[:3], -1)
            got = ours(wanted.reshape(expected.shape), quality) * 255
            np.testing.assert_allclose(got, np.rint(got), atol=1e-4)
            np.testing.assert_array_equal(np.rint(got), expected)


def test_levels_are_rounded_and_float64_is_kept():
    # Kills: truncation on entry, which published files never needed; float32 results of float64 images.
    images = pictures(16, 16).astype(np.float64)
    with jax.enable_x64(True):
        got = ours(images + 0.4, 50, jnp.float64)
        assert got.dtype == np.float64
        np.testing.assert_array_equal(got, ours(images, 50, jnp.float64))
        np.testing.assert_allclose(got, np.rint(got * 255) / 255, rtol=0, atol=1e-15)


@pytest.mark.parametrize("channels", [1, 3])
def test_floats_stay_near_the_bytes(channels):
    # Kills: coefficients that are rounded by floats, where ties move whole blocks; another scale, phase or clip of the float decoder.
    images = pictures(28, 40)[..., :channels]
    for quality in (7, 50, 80):
        whole, floats = (ours(images, quality, quantize=quantize) * 255 for quantize in (True, False))
        assert abs(whole - floats).max() < 2.5 and abs(whole - floats).mean() < 0.6
        assert abs(floats - np.rint(floats)).max() > 0.4 and floats.min() >= 0 and floats.max() <= 255


def test_gradient_passes_the_rounding_straight_through():
    # Kills: a gradient of zero; one that ignores that chroma is halved, or halves it otherwise than the bytes are (odd borders included).
    shape = (3, 17, 27, 3)
    rng = np.random.default_rng(0)
    images, weights = (jnp.asarray(rng.uniform(0.4, 0.6, shape), jnp.float32) for _ in range(2))
    grey = jnp.asarray(rng.normal(size=(1, 17, 27, 1)) * np.ones(3), jnp.float32)
    colour = jnp.asarray(np.ones((1, 17, 27, 1)) * [1, -0.299 / 0.587, 0], jnp.float32)  # of no luma
    stripes = colour * jnp.asarray((-1.0) ** np.arange(27), jnp.float32).reshape(1, 1, 27, 1)
    directions = jnp.concatenate([grey, colour, stripes])

    @jax.jit
    def derivatives(x, tables):
        run = lambda x: jpeg(x, tables, quantize=False)  # noqa: E731
        _, forward = jax.jvp(run, (x,), (directions,))
        return forward, jax.vjp(run, x)[1](weights)[0]

    forward, backward = derivatives(images, jnp.asarray(quantization_tables(95), jnp.int32))
    np.testing.assert_allclose(forward[0], grey[0], atol=1e-4)  # luma is kept, ...
    np.testing.assert_allclose(forward[1], colour[0], atol=1e-4)  # and even chroma; that of single columns is lost but at the odd border
    assert abs(np.asarray(forward[2, :, :-3])).max() < 1e-4 < 0.3 < abs(np.asarray(forward[2, :, -1])).max()
    np.testing.assert_allclose(jnp.sum(forward * weights), jnp.sum(backward * directions), rtol=1e-4)


def test_division_by_a_reciprocal_is_exact():
    # Kills: a reciprocal too short, one that rounds down, a product beyond 32 bits. Nothing above (8192 + 4 * 255) / 8 is divided.
    n, table = np.arange(2**11)[:, None], np.arange(1, 256)
    reciprocals = np.asarray(_reciprocal(jnp.asarray(table, jnp.int32))).astype(np.int64)
    assert (n * reciprocals).max() < 2**31
    np.testing.assert_array_equal((n * reciprocals) >> 19, n // table)
