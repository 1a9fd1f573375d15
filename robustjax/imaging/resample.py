"""Resampling along one axis at a time, as multiplication by constant matrices."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from robustjax.core.types import ArrayLike


def box_weights(size: int, new_size: int) -> np.ndarray:
    """Returns the matrix (new_size, size), float64, that resizes one axis by a box filter as Pillow does.

    Going down, an output pixel is the plain mean of the input pixels whose centres lie in its stretch of the axis; going up, it
    copies the nearest one. A centre on the left border of the stretch is out, one on the right border is in.

    Args:
        size: pixels along the axis.
        new_size: pixels wanted, at least 1.

    >>> box_weights(4, 2)
    array([[0.5, 0.5, 0. , 0. ],
           [0. , 0. , 0.5, 0.5]])
    """
    # In Pillow's order of operations: centres that come out on a border or just beside it are a matter of rounding.
    scale = size / new_size
    width = max(scale, 1.0)
    centres = ((np.arange(new_size) + 0.5) * scale)[:, None]
    pixels = np.arange(size)
    within = (pixels >= (centres - 0.5 * width + 0.5).astype(int)) & (pixels < (centres + 0.5 * width + 0.5).astype(int))
    offsets = (pixels - centres + 0.5) * (1.0 / width)
    weights = (within & (offsets > -0.5) & (offsets <= 0.5)).astype(np.float64)
    return weights / weights.sum(axis=1, keepdims=True)


def zoom_points(size: int, factor: float | int) -> tuple[np.ndarray, np.ndarray]:
    """Returns where `clipped_zoom` reads along an axis: pixel i of the result is (1 - weight[i]) x[low[i]] + weight[i] x[low[i] + 1].

    The middle ceil(size / factor) pixels, corner-aligned: first and last stay first and last when they are spread over
    m = round(ceil(size / factor) factor) pixels, of which the middle `size` are kept. So a factor a little above 1 is often no zoom at
    all, or one that loses the last pixel only: accidents of the published code, kept.

    Args:
        size: pixels along the axis.
        factor: zoom, 1 or more.

    Returns:
        low: int32 (size,), at most size - 2.
        weight: float64 (size,), in [0, 1].

    >>> zoom_points(4, 2.0)
    (array([1, 1, 1, 2], dtype=int32), array([0.        , 0.33333333, 0.66666667, 0.        ]))
    """
    crop = int(np.ceil(size / factor))
    grown = round(crop * factor)
    first, skipped = (size - crop) // 2, (grown - size) // 2
    points = first + np.arange(skipped, skipped + size) * ((crop - 1) / (grown - 1))
    low = np.minimum(points.astype(np.int32), size - 2)
    return low, points - low


# (low, weight) of `zoom_points`.
_Rows = tuple[Int[ArrayLike, " h"], Float[ArrayLike, " h"]]
_Columns = tuple[Int[ArrayLike, " w"], Float[ArrayLike, " w"]]


def batch_last(images: Float[Array, "b h w c"]) -> Float[Array, "h w bc"]:
    """Returns (h, w, b c): the layout in which moving pixels about is copying long rows, whatever the move."""
    b, h, w, c = images.shape
    return images.transpose(1, 2, 0, 3).reshape(h, w, b * c)


def batch_first(planes: Float[Array, "h w bc"], channels: int) -> Float[Array, "b h w c"]:
    """Undoes `batch_last`."""
    h, w, count = planes.shape
    return planes.reshape(h, w, count // channels, channels).transpose(2, 0, 1, 3)


def zoom_planes(planes: Float[Array, "h w k"], rows: _Rows, columns: _Columns) -> Float[Array, "h w k"]:
    """As `clipped_zoom`, in the layout of `batch_last`."""
    planes = jax.lax.optimization_barrier(_between(planes, rows, 0))  # or rows would be mixed anew for each column
    return _between(planes, columns, 1)


def _between(planes, points, axis):
    low, weight = (jnp.asarray(values) for values in points)
    below, above = (jnp.take(planes, low + i, axis=axis, mode="clip") for i in (0, 1))
    return below + jnp.expand_dims(weight.astype(planes.dtype), (1 - axis, 2)) * (above - below)


def clipped_zoom(images: Float[Array, "b h w c"], rows: _Rows, columns: _Columns) -> Float[Array, "b h w c"]:
    """Enlarges the middle of images by linear interpolation; the size stays. Linear, so the gradient is the transposed map.

    Args:
        images: any range.
        rows: (low, weight) of `zoom_points` for the vertical axis, which may be traced.
        columns: those for the horizontal axis.
    """
    return batch_first(zoom_planes(batch_last(images), rows, columns), images.shape[-1])


def separable(images: Float[Array, "b h w c"], rows: Float[Array, "h2 h"], columns: Float[Array, "w2 w"]) -> Float[Array, "b h2 w2 c"]:
    """Multiplies the columns' axis by one matrix, then the rows' axis by another.

    Args:
        images: any range.
        rows: matrix for the vertical axis.
        columns: matrix for the horizontal axis, which goes first.
    """
    # 'highest': accelerators would round the factors to fewer bits than 8-bit levels need.
    images = jnp.einsum("vw,bhwc->bhvc", columns, images, precision=jax.lax.Precision.HIGHEST)
    return jnp.einsum("uh,bhwc->buwc", rows, images, precision=jax.lax.Precision.HIGHEST)
