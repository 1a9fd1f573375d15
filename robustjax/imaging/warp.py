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

    def line(row, row_in):
        pixels = []
        for column, column_in in columns:
            places = (row * w + column).reshape(b, -1)[..., None]  # at once, rows on an explicit mesh are refused
            pixel = jnp.take_along_axis(flat, places, axis=1, mode="promise_in_bounds").reshape(*shape, c)
            pixels.append(jnp.where((row_in & column_in)[..., None], pixel, 0) if border == "zero" else pixel)
        return _mix(*pixels, right[..., None])

    return _mix(*(line(*row) for row in rows), down[..., None])


def _mix(start: Float[Array, "b y x c"], end: Float[Array, "b y x c"], part: Float[Array, "b y x 1"]) -> Float[Array, "b y x c"]:
    return start + part * (end - start)  # not a weighted sum, which would change areas of one colour by rounding


def _fold(index: Int[Array, "b y x"], size: int, border: str) -> tuple[Int[Array, "b y x"], Bool[Array, "b y x"]]:
    """Returns the pixel that stands for `index` on an axis of `size`, and whether that is inside already."""
    inside = (index >= 0) & (index < size)
    if border == "zero":
        return jnp.clip(index, 0, size - 1), inside
    period = 2 * size - 2 if border == "mirror" else 2 * size
    index = jnp.mod(index, period)
    return jnp.minimum(index, (period if border == "mirror" else period - 1) - index), inside
