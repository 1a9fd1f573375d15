"""Spatter beyond its golden files: no drops, drops alone, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.corruptions.constants import CONSTANTS
from robustjax.corruptions.spatter import spatter

_spatter = jax.jit(functools.partial(spatter, constants=CONSTANTS["cifar_c"]["spatter"]))


def spattered(images, normal, severity):
    return _spatter(images, {"normal": normal}, severity=jnp.int32(severity))


def test_image_without_drops_stays_as_it_is():
    # Kills: 0 / 0 as in the published code; a brightest pixel taken over the batch; water in an image whose noise is below threshold.
    images = jnp.asarray(np.random.default_rng(0).random((2, 32, 32, 3)), jnp.float32)
    normal = jnp.full((2, 32, 32), -3.0).at[1, 5:12, 5:12].set(3.0)
    for severity in (2, 4):
        got = spattered(images, normal, severity)
        np.testing.assert_allclose(got[0], images[0], atol=3e-7)
        assert np.abs(got[1] - images[1]).max() > 0.1


def test_water_brightens_up_to_its_intensity_and_mud_covers():
    # Kills: intensity not applied, or per batch; colours in another order; mud that adds, or that leaves thin covers.
    black = jnp.zeros((2, 32, 32, 3))
    normal = jax.random.normal(jax.random.key(1), (2, 32, 32))
    water = np.asarray(spattered(black, normal, 3))
    np.testing.assert_allclose(water.max(axis=(1, 2)), np.tile(0.5 * np.array([175, 238, 238]) / 255, (2, 1)), rtol=1e-5)
    mud = np.asarray(spattered(1 - black, normal, 5))
    cover = (1 - mud) / (1 - np.array([63, 42, 20]) / 255)
    np.testing.assert_allclose(cover, cover[..., :1].repeat(3, axis=-1), atol=1e-6)
    assert cover.max() <= 1 + 1e-6 and not np.any((cover > 1e-6) & (cover < 0.8 - 1e-6)) and 0 < (cover > 0.8).mean() < 0.5


def test_gradient():
    # Kills: a gradient through the drops; one that is stopped under them, or not stopped where the result is white.
    images = jnp.full((2, 32, 32, 3), 0.5)
    normal = jax.random.normal(jax.random.key(2), (2, 32, 32))
    for severity in (1, 5):
        result, pullback = jax.vjp(lambda x, s=severity: spattered(x, normal, s), images)
        (gradient,) = pullback(jnp.ones_like(result))
        if severity == 1:
            np.testing.assert_allclose(gradient, result < 1, atol=1e-5)
        else:
            mud = jnp.asarray([63, 42, 20]).reshape(1, 1, 1, 3) / 255
            np.testing.assert_allclose(gradient, (result - mud) / (images - mud), atol=1e-4)
