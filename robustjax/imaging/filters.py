"""Linear filters on images, one kernel for all channels."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robustjax.core.check import InputError
from robustjax.core.types import ArrayLike

Border = Literal["nearest", "reflect", "mirror"]
_PAD = {"nearest": "edge", "reflect": "symmetric", "mirror": "reflect"}  # names of scipy.ndimage to those of numpy
# How many are added in one pass over memory.
_PAIRS = 6
_SHIFTS = 12


def gaussian_taps(size: int, sigma: float | int) -> np.ndarray:
    """Returns `size` samples of a Gaussian around the middle, float64, with sum 1.

    Args:
        size: number of taps, odd.
        sigma: standard deviation in pixels, above 0.

    >>> gaussian_taps(3, 1.0).round(3)
    array([0.274, 0.452, 0.274])
    """
    x = np.arange(size) - (size - 1) / 2
    weights = np.exp(-(x**2) / (2 * sigma**2))
    return weights / weights.sum()


def cut_gaussian_taps(sigma: float | int, *, truncate: float = 4.0) -> np.ndarray:
    """Returns the taps within `truncate` standard deviations, rounded to whole pixels, as scipy.ndimage cuts them.

    >>> len(cut_gaussian_taps(1.0)), len(cut_gaussian_taps(0.1))
    (9, 1)
    """
    return gaussian_taps(2 * int(truncate * sigma + 0.5) + 1, sigma)


@functools.lru_cache
def gaussian_matrix(size: int, sigma: float | int, *, mode: Border = "nearest", truncate: float = 4.0) -> np.ndarray:
    """Returns the matrix (size, size), float64, read-only, that blurs one axis as scipy.ndimage.gaussian_filter1d does.

    Row i holds the weights of output pixel i; those of pixels beyond the border are added to the pixels that stand in for them,
    so `separable(images, matrix, matrix)` is the filter of both axes, whatever its reach.

    Args:
        size: pixels along the axis.
        sigma: standard deviation in pixels, above 0.
        mode: what lies beyond the border: 'nearest' repeats the last pixel, 'reflect' mirrors the image and repeats its edge,
            'mirror' does not repeat it (reflect-101).
        truncate: reach of the kernel in standard deviations, rounded to whole pixels.

    >>> gaussian_matrix(3, 1.0, truncate=1.0).round(3)
    array([[0.726, 0.274, 0.   ],
           [0.274, 0.452, 0.274],
           [0.   , 0.274, 0.726]])
    """
    taps = cut_gaussian_taps(sigma, truncate=truncate)
    source = np.pad(np.arange(size), len(taps) // 2, mode=_PAD[mode])
    matrix = np.zeros((size, size))
    for row in range(size):
        np.add.at(matrix[row], source[row : row + len(taps)], taps)
    matrix.flags.writeable = False
    return matrix


def smooth(images: Float[Array, "b h w c"], taps: Float[ArrayLike, " k"], *, mode: Border = "nearest") -> Float[Array, "b h w c"]:
    """Correlates rows, then columns, with the same symmetric taps: `gaussian_taps` make it scipy.ndimage.gaussian_filter.

    Args:
        images: any range.
        taps: an odd number k, symmetric, possibly traced; only the second half is read. Zeros at both ends change nothing, so
            kernels of several lengths can share a program.
        mode: what lies beyond the border, see `gaussian_matrix`.
    """
    b, h, w, c = images.shape
    half = jnp.asarray(taps, images.dtype)[len(taps) // 2 :]
    # Pixels of a row and their channels are one axis, so that inner loops are long and moving by a pixel is moving by c.
    flat = _pad(images, len(half) - 1, 0, mode).reshape(b, -1, w * c)
    rows = _sum_of_pairs(flat, half, h, axis=1).reshape(images.shape)
    flat = _pad(rows, 0, len(half) - 1, mode).reshape(b, h, -1)
    return _sum_of_pairs(flat, half, w, axis=2, stride=c).reshape(images.shape)


def correlate(images: Float[Array, "b h w c"], kernel: Float[np.ndarray, "k k"], *, mode: Border = "mirror") -> Float[Array, "b h w c"]:
    """Correlates each channel with a kernel.

    A sum of shifted images, a dozen in each pass over memory: on CPUs far faster than a depthwise convolution, and compiled in the
    same time for every size. Zeros in the kernel cost nothing.

    Args:
        images: any range.
        kernel: odd size k, k // 2 below both h and w; known when compiled. It is not flipped.
        mode: what lies beyond the border, see `gaussian_matrix`.

    Raises:
        InputError: for an even kernel, or one that reaches over the whole image.
    """
    (b, h, w, c), size, reach = images.shape, len(kernel), len(kernel) // 2
    if size % 2 == 0 or reach >= min(h, w):
        raise InputError(f"kernel must have an odd size with size // 2 below {min(h, w)} for images of {h}x{w}, got size {size}.")
    padded = _pad(images, reach, reach, mode).reshape(b, h + 2 * reach, -1)
    rows, columns = np.nonzero(kernel)
    passes = -(-len(rows) // _SHIFTS)
    together = -(-len(rows) // passes)
    fill = (0, passes * together - len(rows))
    taps = jnp.asarray(np.pad(kernel[rows, columns], fill), images.dtype)
    rows, columns = (jnp.asarray(np.pad(starts, fill), jnp.int32) for starts in (rows, columns * c))

    def add_taps(i, total):
        part = 0.0  # a sum of its own, so that float32 loses less
        for j in range(together):
            tap, row, column = (jax.lax.dynamic_index_in_dim(x, i * together + j, keepdims=False) for x in (taps, rows, columns))
            part += tap * jax.lax.dynamic_slice(padded, (jnp.zeros_like(row), row, column), (b, h, w * c))
        return total + part

    return jax.lax.fori_loop(0, passes, add_taps, jnp.zeros_like(images).reshape(b, h, w * c)).reshape(images.shape)


def _pad(images, rows, columns, mode):
    return jnp.pad(images, ((0, 0), (rows, rows), (columns, columns), (0, 0)), mode=_PAD[mode])


def _sum_of_pairs(padded, half, size, *, axis, stride=1):
    """Returns half[0] x[i] + sum_j half[j] (x[i - j] + x[i + j]) for `size` pixels along an axis, padded by len(half) - 1."""
    reach = len(half) - 1

    def part(pixel):
        return jax.lax.dynamic_slice_in_dim(padded, pixel * stride, size * stride, axis=axis)

    total = half[0] * part(reach)
    if not reach:
        return total
    passes = -(-reach // _PAIRS)
    together = -(-reach // passes)
    half = jnp.pad(half, (0, passes * together - reach))

    def add_pairs(i, total):
        for j in range(together):
            distance = passes * together - (i * together + j)  # far ones first, as scipy.ndimage adds them
            inside = jnp.minimum(distance, reach)  # beyond it, half is 0
            total += jax.lax.dynamic_index_in_dim(half, distance, keepdims=False) * (part(reach - inside) + part(reach + inside))
        return total

    return jax.lax.fori_loop(0, passes, add_pairs, total)
