"""Sampling of images between their pixels: warps are this at computed coordinates.

Coordinates count pixels, (0, 0) is the centre of the first one; they come as two arrays, rows (downwards) and columns.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from robustjax.core.check import InputError

BORDERS = ("mirror", "reflect", "zero")
"""What lies outside an image: 'mirror' dcb|abcd|cba (reflect-101), 'reflect' cba|abcd|dcb (half-sample), 'zero' nothing but zeros.
These are the names and meanings of `scipy.ndimage`, with 'zero' for its 'grid-constant'."""


def bilinear(
    images: Float[Array, "b h w c"], rows: Float[Array, "b y x"], columns: Float[Array, "b y x"], *, border: str
) -> Float[Array, "b y x c"]:
    """Returns the images at (rows, columns), bilinear between the four pixels around.

    Linear in the images, so their gradient is the transposed sampling. That of the coordinates is the slope between the pixels
    around; it jumps on pixel centres, where the one to the right and below counts.

    A float32 coordinate near 224 is good to 1e-5 pixels; where more is needed, see `bilinear_between`.

    Args:
        images: any range, h and w at least 2.
        rows, columns: finite, any range, of the dtype of the images.
        border: one of BORDERS.

    Raises:
        InputError: for another border.
    """
    top, left = jnp.floor(rows), jnp.floor(columns)
    return bilinear_between(images, top.astype(jnp.int32), left.astype(jnp.int32), rows - top, columns - left, border=border)


def bilinear_between(
    images: Float[Array, "b h w c"],
    top: Int[Array, "b y x"],
    left: Int[Array, "b y x"],
    down: Float[Array, "b y x"],
    right: Float[Array, "b y x"],
    *,
    border: str,
) -> Float[Array, "b y x c"]:
    """`bilinear` at (top + down, left + right): whole pixels and what is between them apart, without loss of precision.

    Args:
        images: as in `bilinear`.
        top, left: int32, the pixel above and to the left; any range.
        down, right: the way from there, in [0, 1].
        border: one of BORDERS.
    """
    if border not in BORDERS:
        raise InputError(f"border must be one of {', '.join(map(repr, BORDERS))}, got {border!r}.")
    (b, h, w, c), shape = images.shape, top.shape
    flat = images.reshape(b, h * w, c)
    rows = [_fold(top + i, h, border) for i in range(2)]
    columns = [_fold(left + i, w, border) for i in range(2)]
    total = None
    for (row, row_in), weight_y in zip(rows, (1 - down, down), strict=True):
        for (column, column_in), weight_x in zip(columns, (1 - right, right), strict=True):
            places = (row * w + column).reshape(b, -1, 1)
            found = jnp.take_along_axis(flat, places, axis=1, mode="promise_in_bounds").reshape(*shape, c)
            weight = weight_y * weight_x
            if border == "zero":
                weight = jnp.where(row_in & column_in, weight, 0)
            total = weight[..., None] * found + (0 if total is None else total)
    return total


def _fold(index: Int[Array, "b y x"], size: int, border: str) -> tuple[Int[Array, "b y x"], Bool[Array, "b y x"]]:
    """Returns the pixel that stands for `index` on an axis of `size`, and whether that is inside already."""
    inside = (index >= 0) & (index < size)
    if border == "zero":
        return jnp.clip(index, 0, size - 1), inside
    period = 2 * size - 2 if border == "mirror" else 2 * size
    index = jnp.mod(index, period)
    return jnp.minimum(index, (period if border == "mirror" else period - 1) - index), inside
