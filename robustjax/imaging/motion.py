"""Motion blur along a line at any angle, as ImageMagick 6 computes it."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_NEGLIGIBLE = 1e-9  # weights below it cannot move a value by a millionth of a level
_TOGETHER = 4  # taps added in one pass over memory


def streak_taps(radius: float | int, sigma: float | int) -> np.ndarray:
    """Returns the weights, float64, of the pixels 0, 1, 2, ... steps along the line: a Gaussian's one side, with sum 1.

    Args:
        radius: in pixels. There are 2 ceil(radius) + 1 weights, of which those too small to be seen are left out.
        sigma: standard deviation in pixels, above 0.

    >>> streak_taps(1, 1.0).round(3)
    array([0.574, 0.348, 0.078])
    """
    weights = np.exp(-(np.arange(2 * np.ceil(radius) + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    return weights[weights >= _NEGLIGIBLE]


def streak_table(kernels: tuple[tuple[float | int, float | int], ...]) -> np.ndarray:
    """Returns (n, t): the `streak_taps` of n pairs (radius, sigma), padded with zeros to one length."""
    taps = [streak_taps(radius, sigma) for radius, sigma in kernels]
    return np.stack([np.pad(row, (0, max(map(len, taps)) - len(row))) for row in taps])


def streak(
    levels: Float[Array, "b h w c"], angle: Float[Array, " b"], taps: Float[Array, " t"], *, quantize: bool = True
) -> Float[Array, "b h w c"]:
    """out(y, x) = sum_i taps[i] in(y + round(i sin a), x + round(i cos a)), where halves round down; the edge goes on beyond the border.

    The line starts at the pixel itself and goes one way only, to the right for angle 0 and downwards for 90.

    Args:
        levels: between 0 and 255; whole numbers if quantize.
        angle: a for each image, in degrees.
        taps: weights with sum 1, see `streak_taps`; zeros at the end (`streak_table`) cost nothing if quantize. May be traced.
        quantize: cut the result down to whole levels as ImageMagick with 16 bits a pixel does: the level v stands for 257 v, the sum is
            rounded to an integer q, and the level of q is q // 257. Half a level darker than rounding would make it. No gradient.
            Without, the sum itself, linear in `levels` and differentiable in them.
    """
    if quantize:
        # floor((floor(257 s + 1/2)) / 257), where 1/514 is far above the rounding of a float32 sum of levels. Whole numbers need no gradient,
        # and the loop, as long as the taps of this severity, has none.
        total = _along_line(jax.lax.stop_gradient(levels), angle, taps, shortened=True)
        return jnp.floor(total + 1 / 514)
    return _along_line(levels, angle, taps, shortened=False)


def _along_line(levels, angle, taps, *, shortened):
    reach, (h, w, c) = len(taps) - 1, levels.shape[1:]
    taps = jnp.pad(taps, (0, -len(taps) % _TOGETHER))
    steps = jnp.arange(len(taps), dtype=angle.dtype)
    radians = jnp.deg2rad(angle)[:, None]
    rows, columns = (jnp.ceil(steps[None] * f(radians) - 0.5).astype(jnp.int32) + reach for f in (jnp.sin, jnp.cos))
    padded = jnp.pad(levels, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    window = jax.vmap(lambda image, row, column: jax.lax.dynamic_slice(image, (row, column, jnp.zeros_like(row)), (h, w, c)))

    def add_taps(i, total):
        for j in range(_TOGETHER):
            tap, row, column = (jax.lax.dynamic_index_in_dim(x, i * _TOGETHER + j, -1, keepdims=False) for x in (taps, rows, columns))
            total += tap * window(padded, row, column)
        return total

    passes = len(taps) // _TOGETHER
    if shortened:
        passes = jnp.sum(taps[::_TOGETHER] > 0)
    return jax.lax.fori_loop(0, passes, add_taps, jnp.zeros_like(levels))
