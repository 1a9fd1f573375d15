"""Mixing pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robustjax import augment
from robustjax.augment.fractals import attractor, clouds
from robustjax.core import InputError, example_keys


def keys(n, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(n))


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_fill_the_box_and_differ(channels):
    # Kills: one picture for all; a palette of one colour; channels that share a palette; NaN of empty pixels.
    pictures = np.asarray(augment.fractals(keys(300), (24, 20, channels)))
    assert pictures.shape == (300, 24, 20, channels) and pictures.dtype == np.float32
    assert pictures.min() >= 0 and pictures.max() <= 1
    assert len({picture.tobytes() for picture in pictures}) == 300
    assert np.quantile(pictures.std((1, 2, 3)), 0.02) > 0.02
    if channels == 3:
        assert (np.abs(pictures[..., 0] - pictures[..., 1]).max((1, 2)) > 0.05).mean() > 0.9
    # On black stand a quarter of them; clouds and fractals are exactly black hardly anywhere.
    on_black = (pictures == 0).all(-1).mean((1, 2)) > 0.02
    assert scipy.stats.binomtest(int(on_black.sum()), 300, 0.25).pvalue > 1e-4


def test_maps_onto_quarters_cover_the_square():
    # Kills: x and y exchanged; a map missing; compositions of unequal length; points outside of the picture.
    half, zero = jnp.full((4, 1), 0.5), jnp.zeros((4, 1))
    shift = jnp.asarray([[-0.5, 0.5, -0.5, 0.5], [-0.5, -0.5, 0.5, 0.5]])[..., None]
    opacity, address = jax.jit(attractor, static_argnums=(2, 3))(((half, zero), (zero, half)), shift, 16, 16)
    np.testing.assert_allclose(opacity, 1)
    # One point in each pixel; the last map is that of the quarter, the one before it of the quarter's quarter, and so on.
    row, column = np.indices((16, 16))
    digits = sum((2 * (row >> bit & 1) + (column >> bit & 1)) * 4.0 ** (bit - 4) for bit in range(4))
    np.testing.assert_allclose(address, digits, rtol=1e-6)
    # With the last map doubled up on the third, its quarter stays empty and the third's holds two points a pixel.
    doubled, _ = jax.jit(attractor, static_argnums=(2, 3))(((half, zero), (zero, half)), shift.at[:, 3].set(shift[:, 2]), 16, 16)
    assert not np.allclose(doubled, 1) and doubled.max() == 1


def test_clouds_have_the_spectrum_that_was_drawn():
    # Kills: power for amplitude; frequencies of another grid; a roughness that is fixed; no scaling to [0, 1].
    rough = []
    for key in keys(6):
        field = np.asarray(jax.jit(clouds, static_argnums=(1, 2))(jax.random.clone(key), 64, 48))
        np.testing.assert_allclose([field.min(), field.max()], [0, 1], atol=1e-6)
        power = np.abs(np.fft.rfft2(field)) ** 2
        frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(48)[None])
        middle = (frequency > 0.03) & (frequency < 0.5)
        slope = scipy.stats.linregress(np.log(frequency[middle]), np.log(power[middle])).slope
        drawn = float(jax.random.uniform(jax.random.split(key)[1], (), jnp.float32, 0.7, 2.0))
        assert abs(slope + 2 * drawn) < 0.2
        rough.append(drawn)
    assert np.ptp(rough) > 0.3


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 2), (1, 8, 3)], ids=str)
def test_other_shapes_are_refused(shape):
    # Kills: the check left out.
    with pytest.raises(InputError, match=r"shape of a picture must be \(h, w, 1 or 3\)"):
        augment.fractals(keys(1), shape)
