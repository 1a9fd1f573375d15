"""Canny's edge detector."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt32

from robustjax.imaging.filters import gaussian_taps
from robustjax.imaging.resample import separable

_WORD = 32
_PLACES = np.arange(_WORD, dtype=np.uint32).reshape(1, 1, 1, _WORD, 1)
_AT_ONCE = 4  # steps of growth before it is asked whether anything grew


@functools.lru_cache
def _smoothing(size: int, sigma: float | int) -> np.ndarray:
    """Returns the matrix (size, size) of a Gaussian along one axis that is cut off at the border, each row with sum 1 again."""
    taps = gaussian_taps(2 * int(4 * sigma + 0.5) + 1, sigma)
    matrix = np.stack([np.convolve(row, taps)[len(taps) // 2 :][:size] for row in np.eye(size)], axis=1)
    return matrix / matrix.sum(axis=1, keepdims=True)


def canny(images: Float[Array, "b h w c"], *, sigma: float | int = 1.0, low: float = 0.1, high: float = 0.2) -> Bool[Array, "b h w c"]:
    """Returns where each channel has an edge, as scikit-image's feature.canny finds them (its version 0.22).

    A Gaussian, then Sobel's gradient; a pixel whose gradient is at least `low` and no smaller than that of its two neighbours
    along the gradient (interpolated between pixels) is a candidate; candidates that hang together (8 neighbours) are edges if
    one of them reaches `high`. Pixels on the border are never edges. The thresholds are compared with the gradient as Sobel's
    filter gives it, 8 times the slope. Nothing to differentiate.

    Args:
        images: in [0, 1].
        sigma: standard deviation of the Gaussian in pixels, above 0; it stops at the border.
        low: threshold of candidates.
        high: threshold of edges, not below `low`.
    """
    images = jax.lax.stop_gradient(images)
    smooth = separable(images, *(jnp.asarray(_smoothing(size, sigma), images.dtype) for size in images.shape[1:3]))
    down, right = _sobel(smooth)
    strength = jnp.sqrt(down**2 + right**2)
    candidates = (strength >= low) & _is_peak(strength, down, right) & _inside(images.shape[1:3])
    return _connected(candidates & (strength >= high), candidates)


def _neighbours(images: Array, mode: str) -> Callable[[int, int], Array]:
    """Returns a function of (down, right), each -1, 0 or 1, that gives the pixels that lie so from each; mode as of numpy.pad."""
    h, w = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode=mode)
    return lambda down, right: padded[:, 1 + down : 1 + down + h, 1 + right : 1 + right + w]


def _sobel(images: Float[Array, "b h w c"]) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
    """Returns the derivatives downwards and to the right, the image mirrored at its border."""
    near = _neighbours(images, "symmetric")
    down = (near(1, -1) - near(-1, -1)) + 2 * (near(1, 0) - near(-1, 0)) + (near(1, 1) - near(-1, 1))
    right = (near(-1, 1) - near(-1, -1)) + 2 * (near(0, 1) - near(0, -1)) + (near(1, 1) - near(1, -1))
    return down, right


def _is_peak(strength: Array, down: Array, right: Array) -> Bool[Array, "b h w c"]:
    """Returns where no neighbour along the gradient is stronger: the nearest of the 8 and the next diagonal one, interpolated."""
    near = _neighbours(strength, "constant")
    steep = abs(down) > abs(right)
    falling = (down > 0) == (right > 0)  # the gradient points down and right, or up and left
    larger = jnp.maximum(abs(down), abs(right))
    share = jnp.minimum(abs(down), abs(right)) / jnp.where(larger > 0, larger, 1)
    one = jnp.where(steep, jnp.where(falling, near(1, 0), near(-1, 0)), near(0, 1))
    other = jnp.where(steep, jnp.where(falling, near(-1, 0), near(1, 0)), near(0, -1))
    one_corner = jnp.where(falling, near(1, 1), near(-1, 1))
    other_corner = jnp.where(falling, near(-1, -1), near(1, -1))
    return (one_corner * share + one * (1 - share) <= strength) & (other_corner * share + other * (1 - share) <= strength)


def _inside(shape: tuple[int, int]) -> Bool[Array, "1 h w 1"]:
    h, w = shape
    return jnp.zeros((1, h, w, 1), bool).at[:, 1:-1, 1:-1].set(True)


def _connected(seeds: Bool[Array, "b h w c"], allowed: Bool[Array, "b h w c"]) -> Bool[Array, "b h w c"]:
    """Returns the allowed pixels that a chain of allowed neighbours (8 of them) joins to a seed, which must be allowed too."""
    width, seeds, allowed = seeds.shape[2], _packed(seeds), _packed(allowed)

    def grow(state):
        reached, _ = state
        wider = reached
        for _ in range(_AT_ONCE):
            wider = _spread(wider) & allowed
        return wider, jnp.any(wider != reached)

    reached, _ = jax.lax.while_loop(lambda state: state[1], grow, (seeds, jnp.any(seeds != 0)))
    return _unpacked(reached, width)


def _packed(pixels: Bool[Array, "b h w c"]) -> UInt32[Array, "b h words c"]:
    """Returns 32 pixels of a row in each word, the left one in the lowest bit: a step of growth then is a few operations a word."""
    b, h, w, c = pixels.shape
    padded = jnp.pad(pixels, ((0, 0), (0, 0), (0, -w % _WORD), (0, 0))).reshape(b, h, -1, _WORD, c)
    return jnp.sum(padded.astype(jnp.uint32) << _PLACES, axis=3, dtype=jnp.uint32)


def _unpacked(words: UInt32[Array, "b h words c"], width: int) -> Bool[Array, "b h {width} c"]:
    """Inverse of `_packed`."""
    b, h, _, c = words.shape
    bits = words[:, :, :, None] >> _PLACES & 1
    return bits.reshape(b, h, -1, c)[:, :, :width].astype(bool)


def _spread(words: UInt32[Array, "b h words c"]) -> UInt32[Array, "b h words c"]:
    """Returns the pixels and their 8 neighbours."""
    zero = (0, 0, 0)
    before = jax.lax.pad(words, np.uint32(0), (zero, zero, (1, -1, 0), zero)) >> (_WORD - 1)
    after = jax.lax.pad(words, np.uint32(0), (zero, zero, (-1, 1, 0), zero)) << (_WORD - 1)
    words = words | words << 1 | words >> 1 | before | after
    above, below = (jax.lax.pad(words, np.uint32(0), (zero, (i, -i, 0), zero, zero)) for i in (1, -1))
    return words | above | below
