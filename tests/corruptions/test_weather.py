"""What snow, fog and brightness do beyond the sizes and pictures of the reference data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import corruptions
from robustjax.core import example_keys
from robustjax.corruptions.constants import CONSTANTS
from robustjax.corruptions.weather import brightness
from robustjax.imaging.noise_fields import plasma

KEYS = example_keys(jax.random.key(0), jnp.arange(3))


def test_snow_turns_with_the_image():
    # Kills: flakes that fall once, or are mirrored about one axis; rows zoomed as columns in images that are not square.
    images = np.random.RandomState(0).rand(3, 24, 40, 3).astype(np.float32)
    draws = corruptions.draw(KEYS, images.shape, name="snow", severity=4)
    plain, turned = (corruptions.apply(x, draws, name="snow", severity=4) for x in (images, images[:, ::-1, ::-1]))
    np.testing.assert_array_equal(plain, turned[:, ::-1, ::-1])
    black = corruptions.apply(np.zeros_like(images), draws, name="snow", severity=4, quantize=False)
    flakes = np.asarray(black) - 0.5 * (1 - CONSTANTS["cifar_c"]["snow"][3][-1])  # a black scene pales to (1 - a) / 2
    assert -1e-6 < flakes.min() < 1e-6 and 0.1 < flakes.max() <= 1 and np.ptp(flakes, axis=-1).max() < 1e-6


def test_fog_is_the_corner_of_the_next_power_of_two():
    # Kills: a fog of the shorter side, of the sides themselves, cut from another corner, or stretched; 0 / 0 for a black image.
    images = np.stack([np.zeros((20, 40, 3)), np.full((20, 40, 3), 0.5), np.full((20, 40, 3), 1.0)]).astype(np.float32)
    draws = corruptions.draw(KEYS, images.shape, name="fog", severity=2)
    thickness, decay = CONSTANTS["cifar_c"]["fog"][1]
    field = jax.jit(plasma, static_argnames="size")(draws["uniform"], size=64, decay=jnp.float32(decay))[:, :20, :40, None]
    got = np.asarray(corruptions.apply(images, draws, name="fog", severity=2, quantize=False))
    assert not got[0].any()
    np.testing.assert_allclose(got[1:], (images + thickness * field)[1:] * np.array([[[[0.5]]], [[[2 / 3]]]]), atol=1e-6)


def test_brightness_without_hsv_is_brightness_through_hsv():
    # Kills: black that stays black; an offset added to all channels alike; a value beyond 1; the smallest channel for the largest.
    levels = np.random.RandomState(0).randint(0, 256, (3, 32, 32, 3))
    levels[0, :8], levels[0, 8:16], levels[0, 16:, ..., 1] = 0, 255, levels[0, 16:, ..., 0]
    with jax.enable_x64(True):
        through = corruptions.apply(levels / 255, {}, name="brightness", severity=5, quantize=False)
        assert through.dtype == jnp.float64
    got = corruptions.apply((levels / 255).astype(np.float32), {}, name="brightness", severity=5, quantize=False)
    np.testing.assert_allclose(got, through, atol=1e-6)


@pytest.mark.parametrize("value", [0.5, 1e-8, 1e-10, 1e-12, 1e-13, 1e-20, 1e-30, 1e-37])
def test_gradients_of_brightness_in_the_dark(value):
    # Kills: the 1 of the largest channel lost between two huge terms; a division by the square of V, which vanishes in float32.
    offset, pixel = 0.1, np.array([0.5, 1, 0.0])

    def run(x):
        return brightness(x.reshape(1, 1, 1, 3), constants=(offset,), severity=jnp.int32(1)).reshape(3)

    # x (V + o) / V, by the other channels and by V.
    scale = (value + offset) / value
    expected = scale * np.diag([1, 0, 1]) + np.outer(pixel * (1 - scale) + [0, scale, 0], [0, 1, 0])
    expected[1, 1] = 1
    got = np.asarray(jax.jit(jax.jacobian(run))(jnp.asarray(pixel * value, jnp.float32)))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_black_has_the_gradients_of_brightness_of_grey():
    # Kills: NaN of the branch not taken; black whose channels are left without a gradient.
    gradient = jax.grad(lambda x: brightness(x, constants=(0.1,), severity=jnp.int32(1)).sum())(jnp.zeros((1, 1, 1, 3)))
    assert jnp.isfinite(gradient).all() and abs(gradient.sum() - 3) < 1e-6
