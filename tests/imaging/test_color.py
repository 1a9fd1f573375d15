"""Colour spaces against the standard library."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.imaging import hsv_to_rgb, rgb_to_hsv

# All pixels of channels in {0, 1/4, ... 1}: every sextant and every tie.
GRID = np.stack(np.meshgrid(*[np.linspace(0, 1, 5)] * 3), axis=-1).reshape(1, 5, 25, 3)


def test_hsv_is_the_standard_librarys():
    # Kills: a sextant with the wrong channel; green's offset for blue's; saturation divided by the spread. (Ties: colorsys lets the first
    # channel win, which gives the same hue but for the turn from 1 to 0.)
    hsv = rgb_to_hsv(jnp.asarray(GRID, jnp.float32))
    expected = np.array([colorsys.rgb_to_hsv(*pixel) for pixel in GRID.reshape(-1, 3)]).reshape(GRID.shape)
    turn = np.asarray(hsv[..., 0]) - expected[..., 0]
    np.testing.assert_allclose(turn - np.rint(turn), 0, atol=1e-6)
    np.testing.assert_allclose(hsv[..., 1:], expected[..., 1:], atol=1e-6)


def test_there_and_back_with_finite_gradients():
    # Kills: a swapped case in the way back; NaN gradients at black, grey and tied pixels.
    images = jnp.asarray(GRID, jnp.float32)
    np.testing.assert_allclose(hsv_to_rgb(rgb_to_hsv(images)), images, atol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(hsv_to_rgb(rgb_to_hsv(x)) ** 2))(images)
    assert jnp.isfinite(gradient).all()
