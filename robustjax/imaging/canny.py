"""Canny's edge detector as in scikit-image; `edges.canny_opencv` is that of OpenCV."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from robustjax.imaging.edges import connected
from robustjax.imaging.filters import cut_gaussian_taps
from robustjax.imaging.resample import separable


@functools.lru_cache
def _smoothing(size: int, sigma: float | int) -> np.ndarray:
    """Returns the matrix (size, size) of a Gaussian along one axis that is cut off at the border, each row with sum 1 again."""
    taps = cut_gaussian_taps(sigma)
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
    return connected(candidates & (strength >= high), candidates)


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
