"""Sampling of images between their pixels: warps are this at computed coordinates.

Coordinates count pixels, (0, 0) is the centre of the first one; they come as two arrays, rows (downwards) and columns.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from robustjax.core.check import InputError

BORDERS = ("mirror", "reflect", "nearest", "zero")
"""What lies outside an image: 'mirror' dcb|abcd|cba (reflect-101), 'reflect' cba|abcd|dcb (half-sample), 'nearest' aaa|abcd|ddd, 'zero'
nothing but zeros. These are the names and meanings of `scipy.ndimage`, with 'zero' for its 'grid-constant'."""


def bilinear(
    images: Shaped[Array, "b _ _ _"],
    rows: Float[Array, "b y x"],
    columns: Float[Array, "b y x"],
    *,
    border: str,
    channel_axis: int = 3,
) -> Float[Array, "b _ _ _"]:
    """Returns the images at (rows, columns), bilinear between the four pixels around.

    Linear in the images, so their gradient is the transposed sampling. That of the coordinates is the slope between the pixels
    around; it jumps on pixel centres, where the one to the right and below counts.

    A float32 coordinate near 224 is good to 1e-5 pixels; where more is needed, see `bilinear_between`.

    Args:
        images: (b, h, w, c), any range, h and w at least 2; may be integers.
        rows, columns: finite, any range, of the dtype of the result.
        border: one of BORDERS.
        channel_axis: 3, or 1 for images (b, c, h, w) and a result (b, c, y, x), which CPUs compute faster.

    Returns:
        (b, y, x, c).

    Raises:
        InputError: for another border or axis.
    """
    top, left = jnp.floor(rows), jnp.floor(columns)
    whole = top.astype(jnp.int32), left.astype(jnp.int32)
    return bilinear_between(images, *whole, rows - top, columns - left, border=border, channel_axis=channel_axis)


def bilinear_between(
    images: Shaped[Array, "b _ _ _"],
    top: Int[Array, "b y x"],
    left: Int[Array, "b y x"],
    down: Float[Array, "b y x"],
    right: Float[Array, "b y x"],
    *,
    border: str,
    channel_axis: int = 3,
) -> Float[Array, "b _ _ _"]:
    """`bilinear` at (top + down, left + right): whole pixels and what is between them apart, without loss of precision.

    Args:
        images: as in `bilinear`.
        top, left: int32, the pixel above and to the left; any range.
        down, right: the way from there, in [0, 1], of the dtype of the result.
        border: one of BORDERS.
        channel_axis: as in `bilinear`.
    """
    if border not in BORDERS:
        raise InputError(f"border must be one of {', '.join(map(repr, BORDERS))}, got {border!r}.")
    if channel_axis not in (1, 3):
        raise InputError(f"channel_axis must be 1 or 3, got {channel_axis!r}.")
    planes = channel_axis == 1
    b, c, (h, w) = images.shape[0], images.shape[channel_axis], images.shape[2:] if planes else images.shape[1:3]
    flat = images.reshape((b, c, h * w) if planes else (b, h * w, c))
    shape = (b, c, *top.shape[1:]) if planes else (*top.shape, c)
    rows = [_fold(top + i, h, border) for i in range(2)]
    columns = [_fold(left + i, w, border) for i in range(2)]

    def line(row, row_in):
        pixels = []
        for column, column_in in columns:
            places = (row * w + column).reshape(b, -1)
            places = jnp.expand_dims(places, 1 if planes else 2)  # at once, rows on an explicit mesh are refused
            pixel = jnp.take_along_axis(flat, places, axis=2 if planes else 1, mode="promise_in_bounds")
            pixel = pixel.reshape(shape).astype(right.dtype)
            pixels.append(jnp.where(jnp.expand_dims(row_in & column_in, channel_axis), pixel, 0) if border == "zero" else pixel)
        return _mix(*pixels, jnp.expand_dims(right, channel_axis))

    return _mix(*(line(*row) for row in rows), jnp.expand_dims(down, channel_axis))


def _mix(start: Float[Array, "b ..."], end: Float[Array, "b ..."], part: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
    return start + part * (end - start)  # not a weighted sum, which would change areas of one colour by rounding


def _fold(index: Int[Array, "b y x"], size: int, border: str) -> tuple[Int[Array, "b y x"], Bool[Array, "b y x"]]:
    """Returns the pixel that stands for `index` on an axis of `size`, and whether that is inside already."""
    inside = (index >= 0) & (index < size)
    if border in ("nearest", "zero"):
        return jnp.clip(index, 0, size - 1), inside
    period = 2 * size - 2 if border == "mirror" else 2 * size
    index = jnp.mod(index, period)
    return jnp.minimum(index, (period if border == "mirror" else period - 1) - index), inside
