"""Frost: a picture of ice laid over the scene."""

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from robustjax.core.check import InputError, is_concrete
from robustjax.core.types import Keys
from robustjax.corruptions.draws import Draws, take, uniforms, whole_numbers
from robustjax.corruptions.severity import pick
from robustjax.imaging.ice import ice_pictures


class Pictures(NamedTuple):
    """Pictures of several sizes in one array, so that each image of a batch may take another.

    Attributes:
        levels: all values, picture after picture, in the order (h, w, 3).
        starts: where each begins.
        heights, widths: their sizes in pixels.
    """

    levels: UInt8[Array | np.ndarray, " n"]
    starts: Int[Array | np.ndarray, " p"]
    heights: Int[Array | np.ndarray, " p"]
    widths: Int[Array | np.ndarray, " p"]


def scale_picture(picture: UInt8[np.ndarray, "h w 3"], scale: float | int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Resizes by linear interpolation between two pixels each way, without smoothing first, in OpenCV's whole numbers.

    Equal to OpenCV 4.8's resize(fx=scale, fy=scale, INTER_LINEAR) to the last bit where that makes it smaller: weights are rounded
    to 1/2048, sums along rows lose 4 bits, products along columns 16. At 0.2 it just takes every fifth pixel.
    """
    if scale == 1:
        return picture
    above, below, top, bottom = _neighbours(len(picture), scale)
    left, right, near, far = _neighbours(picture.shape[1], scale)

    def along(rows):  # only of those rows that are needed: at 0.2, two of five
        rows = picture[rows].astype(np.int32)
        return (rows.take(left, 1) * near[:, None] + rows.take(right, 1) * far[:, None]) >> 4

    top, bottom = top[:, None, None], bottom[:, None, None]
    return (((top * along(above) >> 16) + (bottom * along(below) >> 16) + 2) >> 2).astype(np.uint8)


def _neighbours(size: int, scale: float | int) -> tuple[np.ndarray, ...]:
    """Returns for each pixel of the new axis the two old ones around its centre, and their weights in 1/2048."""
    centres = ((np.arange(round(size * scale)) + 0.5) * (1 / scale) - 0.5).astype(np.float32)
    first = np.floor(centres)
    share = np.where((first < 0) | (first >= size - 1), np.float32(0), centres - first)
    first = np.clip(first.astype(np.int32), 0, size - 1)
    weights = (np.rint(part * np.float32(2048)).astype(np.int32) for part in (1 - share, share))
    return first, np.minimum(first + 1, size - 1), *weights


def _pack(pictures: Sequence[np.ndarray]) -> Pictures:
    starts = np.cumsum([0, *(picture.size for picture in pictures)])
    if starts[-1] >= 2**31:
        raise InputError(f"frost_images hold {starts[-1]} values, more than 2**31 - 1; give fewer or smaller photographs.")
    heights, widths = (np.array([picture.shape[axis] for picture in pictures], np.int32) for axis in (0, 1))
    return Pictures(np.concatenate([picture.ravel() for picture in pictures]), starts[:-1].astype(np.int32), heights, widths)


class _Frozen:
    """Pictures that nobody can write to, told apart by what they are, not by what is in them."""

    def __init__(self, pictures: Sequence[Any]):
        self.pictures = tuple(pictures)

    def __hash__(self):
        return hash(tuple(map(id, self.pictures)))

    def __eq__(self, other):
        return len(self.pictures) == len(other.pictures) and all(map(operator.is_, self.pictures, other.pictures))


@functools.lru_cache(maxsize=4)
def _kept(frozen: _Frozen, scale: float | int) -> Pictures:
    return _scaled(frozen.pictures, scale)


def _scaled(pictures: Sequence[Any], scale: float | int) -> Pictures:
    return _pack([scale_picture(np.asarray(picture), scale) for picture in pictures])


def _is_frozen(picture: Any) -> bool:
    if isinstance(picture, jax.Array):
        return True
    while isinstance(picture, np.ndarray):  # a view may be read-only and what it looks at not
        if picture.flags.writeable:
            return False
        picture = picture.base
    return picture is None or isinstance(picture, bytes)


@functools.lru_cache(maxsize=8)
def _own_pictures(scale: float | int, tiles: tuple[int, int]) -> Pictures:
    return _pack([scale_picture(np.tile(picture, (*tiles, 1)), scale) for picture in ice_pictures()])


def check_frost(shape: tuple[int, ...], *, scale: float | int, frost_images: Any = None) -> dict[str, Pictures]:
    """Returns the scaled pictures for images of `shape`: a user's, or our own, repeated where images are larger than they.

    What is made of a user's pictures is kept for the next call if nobody can write to them meanwhile.

    Raises:
        InputError: for pictures of another type, or smaller than the images once scaled.
    """
    h, w = shape[1:3]
    if frost_images is None:
        smallest = [round(min(picture.shape[axis] for picture in ice_pictures()) * scale) for axis in (0, 1)]
        return {"frost_images": _own_pictures(scale, (-(-(h + 1) // smallest[0]), -(-(w + 1) // smallest[1])))}
    if not isinstance(frost_images, list | tuple) or not frost_images:
        got = "an empty one" if isinstance(frost_images, list | tuple) else type(frost_images).__name__
        raise InputError(f"frost_images must be a list or tuple of photographs, uint8 arrays (h, w, 3), got {got}.")
    for i, picture in enumerate(frost_images):
        if not is_concrete(picture):
            raise InputError(f"frost_images[{i}] is traced by jit or another transformation; give arrays whose values are known.")
        try:
            picture = np.asarray(picture)
        except ValueError:
            raise InputError(f"frost_images[{i}] must be uint8 (h, w, 3), RGB, got rows of different lengths.") from None
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
            raise InputError(f"frost_images[{i}] must be uint8 (h, w, 3), RGB, got {picture.dtype} of shape {picture.shape}.")
        height, width = (round(side * scale) for side in picture.shape[:2])
        if height < h or width < w:
            scaled = f", {height}x{width} after scaling by {scale}" if scale != 1 else ""
            size = "x".join(map(str, picture.shape[:2]))
            raise InputError(f"frost_images[{i}] has {size} pixels{scaled}: smaller than the images' {h}x{w}; give a larger photograph.")
    frozen = all(map(_is_frozen, frost_images))
    return {"frost_images": _kept(_Frozen(frost_images), scale) if frozen else _scaled(frost_images, scale)}


def _in_the_pictures(draws: Mapping[str, np.ndarray], shape: tuple[int, ...], *, frost_images: Pictures) -> dict:
    if not {"index", "top", "left"} <= set(draws) or any(draw.shape != shape[:1] for draw in draws.values()):
        return {}
    index = np.clip(draws["index"].astype(np.int32), 0, len(frost_images.heights) - 1)
    heights, widths = frost_images.heights[index], frost_images.widths[index]
    return {"index": (0, len(frost_images.heights) - 1), "top": (0, heights - shape[1]), "left": (0, widths - shape[2])}


@whole_numbers(_in_the_pictures)
def draw_frost(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'photo', 'row', 'column'}: uniforms (b,) that choose the picture and the place of its upper left corner."""
    return {name: uniforms(keys, (), index) for index, name in enumerate(("photo", "row", "column"))}


def frost(
    images: Float[Array, "b h w 3"], draws: Draws, *, constants: tuple, severity: Int[Array, ""], frost_images: Pictures
) -> Float[Array, "b h w 3"]:
    """clip(a x + c p, 0, 1), with p a piece of a random picture of ice, cut at a random place. The gradient is a where not clipped.

    The published pictures are five photographs (a sixth is never chosen) that may not be passed on. They are made smaller for
    CIFAR-10-C (0.2) and Tiny-ImageNet-C (0.3), not for ImageNet-C; the last row and column of places are never chosen either.

    Args:
        images: in [0, 1].
        draws: {'photo': u, 'row': v, 'column': w}, uniforms (b,); or {'index', 'top', 'left'}, whole numbers (b,), to replay.
        constants: (a, c) for each severity, weights of the image and of the ice.
        severity: which of them.
        frost_images: a list or tuple of a user's own photographs, RGB uint8 (h, w, 3), of any sizes larger than the images once
            made smaller; with the published ones in their order, 1 to 5, results are the published ones. None: five pictures of
            our own (imaging.ice), of the same sizes, means and deviations: on CIFAR-10 pictures mean L2 distances are 1 to 4%
            above the published ones, and the power of the change in each of 16 bands of frequency is within 15%. Pictures in
            arrays of JAX, or of NumPy's that are not writeable, are made smaller once; others in each call. Where `corrupt` or
            `apply` are themselves compiled by a user's jit, pictures become constants of that program: ours are 4.2 MB
            for ImageNet-C.
    """
    weight, ice_weight = pick(constants, severity, images.dtype)
    pictures = Pictures(*map(jnp.asarray, frost_images))
    index, top, left = _places(draws, images, pictures)
    h, w = images.shape[1:3]

    def cut(index: Array, top: Array, left: Array) -> Array:
        width = pictures.widths[index]
        rows = pictures.starts[index] + 3 * (left + width * (top + jnp.arange(h, dtype=jnp.int32)))
        return jax.vmap(lambda row: jax.lax.dynamic_slice(pictures.levels, (row,), (3 * w,)))(rows)

    ice = jax.vmap(cut)(index, top, left).reshape(images.shape).astype(images.dtype)
    return jnp.clip(weight * images + (ice_weight / 255) * ice, 0, 1)


def _places(draws: Draws, images: Array, pictures: Pictures) -> tuple[Int[Array, " b"], ...]:
    """Returns which picture each image takes, and the row and column of its upper left corner there."""
    b, h, w = images.shape[:3]
    if "index" in draws:
        given = take(draws, {name: (b,) for name in ("index", "top", "left")}, images.dtype)
        return tuple(value.astype(jnp.int32) for value in given)

    def below(uniform: Array, count: Array) -> Array:
        return jnp.minimum((uniform * count.astype(uniform.dtype)).astype(jnp.int32), count - 1)

    photo, row, column = take(draws, {name: (b,) for name in ("photo", "row", "column")}, images.dtype)
    index = below(photo, jnp.int32(len(pictures.heights)))
    top = below(row, jnp.maximum(pictures.heights[index] - h, 1))
    left = below(column, jnp.maximum(pictures.widths[index] - w, 1))
    return index, top, left
