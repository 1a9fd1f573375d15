"""Motion blur against the recipe in NumPy, in the order and precision of the original."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.imaging import streak, streak_table, streak_taps

ANGLES = np.array([0, 45, -31, -90, -135, 17.3])  # at 30 degrees halves are ties, which float32 does not see


def recipe(levels, angle, weights):
    """16 bits a pixel: 257 v; the sum is rounded; 257 divides it without remainder."""
    h, w = levels.shape[:2]
    steps = np.arange(len(weights))
    rows, columns = (np.ceil(steps * f(np.deg2rad(angle)) - 0.5).astype(int) for f in (np.sin, np.cos))
    total = 0.0
    for weight, row, column in zip(weights, rows, columns, strict=True):
        total += weight * 257.0 * levels[np.clip(np.arange(h) + row, 0, h - 1)][:, np.clip(np.arange(w) + column, 0, w - 1)]
    return np.floor(total + 0.5) // 257, total / 257


@pytest.mark.parametrize("channels", [1, 3])
def test_streak_is_the_recipe(channels):
    # Kills: a kernel of both sides; radius weights for 2 radius + 1; rounding for truncation; no rounding of the 16-bit sum; sine for
    # cosine; offsets that round halves up; a border that is mirrored; one angle for all images; taps lost when loops are cut short.
    levels = np.random.default_rng(0).integers(0, 256, (len(ANGLES), 18, 23, channels)).astype(np.float64)
    levels[:2] = 255 * (levels[:2] > 127)
    kernels = ((3, 5), (6, 1), (4, 2))
    weights = [np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2)) for radius, sigma in kernels]
    run = jax.jit(streak, static_argnames="quantize")
    for weight, taps in zip(weights, streak_table(kernels), strict=True):
        both = [recipe(image, angle, weight / weight.sum()) for image, angle in zip(levels, ANGLES, strict=True)]
        expected, before = (np.stack(part) for part in zip(*both, strict=True))
        arguments = (jnp.asarray(x, jnp.float32) for x in (levels, ANGLES, taps))
        levels32, angles32, taps32 = arguments
        np.testing.assert_array_equal(run(levels32, angles32, taps32), expected)
        np.testing.assert_allclose(run(levels32, angles32, taps32, quantize=False), before, atol=1e-4)


def test_flat_images_stay_as_they_are():
    # Kills: float32 sums that fall below a whole level; weights that do not sum to 1.
    levels = jnp.broadcast_to(jnp.arange(256.0)[:, None, None, None], (256, 16, 16, 1))
    taps = jnp.asarray(streak_taps(20, 15), jnp.float32)
    np.testing.assert_array_equal(streak(levels, jnp.linspace(-180, 180, 256), taps), levels)


def test_gradients():
    # Kills: a float path through floor, or through a loop that has no derivative; an error where the gradient is 0.
    levels, taps = jnp.full((1, 16, 16, 1), 100.0), jnp.asarray(streak_taps(3, 2), jnp.float32)
    for quantize in (True, False):
        grad = jax.grad(lambda x: jnp.sum(streak(x, jnp.array([30.0]), taps, quantize=quantize)))(levels)  # noqa: B023
        np.testing.assert_allclose(jnp.sum(grad), 0 if quantize else 256, rtol=1e-5)
