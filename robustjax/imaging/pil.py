"""The operations of AugMix and PixMix as Pillow does them in whole levels of 8 bits, one operation chosen for each image.

    levels = sample_level(keys, severity=3)                 # signed, one an image
    images = apply_op(images, op_index, levels)             # OPS[op_index[i]] for image i

Images are float (b, h, w, c), c = 1 or 3, multiples of 1/255 in [0, 1], before and after. Nothing is differentiable: gradients are 0.

The operations are four kernels with numbers of each image's own: a function of the level (autocontrast, posterize, solarize), a table of
levels (equalize), an affine warp (rotate, shear, translate), a mixture with a degenerate picture (color, contrast, brightness,
sharpness). A kernel that no image of the batch needs is not run.

Float64 images come out as Pillow's to the bit; where both sides are odd, the middle pixel of a rotation may be one level off, as
Pillow's own rounding decides there. In float32 rotations and shears are within one level: coordinates have fewer digits, and Pillow
cuts off what is behind the point.

References:
    Hendrycks et al., "AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty", ICLR 2020 (levels).
    Hendrycks et al., "PixMix: Dreamlike Pictures Comprehensively Improve Safety Measures", CVPR 2022 (the same operations).
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from robustjax.core import numerics
from robustjax.core.rng import stream
from robustjax.core.types import Keys, Scalar
from robustjax.imaging.warp import bilinear

_POINTWISE = ("autocontrast", "posterize", "solarize")
_TABLES = ("equalize",)
_WARPS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
_BLENDS = ("color", "contrast", "brightness", "sharpness")

DEFAULT_OPS = ("autocontrast", "equalize", "posterize", "rotate", "solarize", "shear_x", "shear_y", "translate_x", "translate_y")
"""What AugMix and PixMix draw from, in the order of their code."""

OPS = (*DEFAULT_OPS, *_BLENDS)
"""All operations. Those behind DEFAULT_OPS overlap with the corruptions of the -C benchmarks, and are left out for that reason."""

KERNELS = (_POINTWISE, _TABLES, _WARPS, _BLENDS)
"""The operations that are computed together."""

Images = Float[Array, "b h w c"]
Levels = UInt8[Array, "b c h w"]  # planes, whose rows CPUs compute at once
Wide = Int[Array, "b c h w"]  # int32, mostly 0 .. 255
PerImage = Float[Array, " b"]


def sample_level(keys: Keys, *, severity: Scalar) -> PerImage:
    """Draws a level v ~ U(0.1, severity) for each image, negative with probability 1/2.

    The sign is that of rotations, shears and translations; other operations take |v|.

    Args:
        keys: one PRNG key for each image.
        severity: 0.1 to 10, 3 in both papers; may be traced.

    >>> sample_level(jax.random.split(jax.random.key(0), 4), severity=3.0).shape
    (4,)
    """
    size = jax.vmap(jax.random.uniform)(stream(keys, 0))
    negative = jax.vmap(jax.random.bernoulli)(stream(keys, 1))
    level = 0.1 + (jnp.asarray(severity, size.dtype) - 0.1) * size
    return jnp.where(negative, -level, level)


def sample_op(keys: Keys, *, ops: tuple[str, ...] = DEFAULT_OPS) -> Int[Array, " b"]:
    """Draws a position in OPS for each image, uniform over `ops`.

    >>> sorted({OPS[i] for i in sample_op(jax.random.split(jax.random.key(0), 40), ops=("rotate", "color"))})
    ['color', 'rotate']
    """
    places = jnp.asarray([OPS.index(name) for name in ops], jnp.int32)
    return _looked_up(places, jax.vmap(lambda key: jax.random.randint(key, (), 0, len(ops)))(keys))


def apply_op(images: Images, op_index: Int[Array, " b"], level: PerImage) -> Images:
    """Applies to each image the operation that was chosen for it.

    The number that the operation takes, from v = |level| (int cuts off what is behind the point):

        posterize      bits kept = 4 - int(4 v / 10)        rotate         ± int(30 v / 10) degrees, anticlockwise
        solarize       threshold = 256 - int(256 v / 10)    shear          ± 0.3 v / 10
        the blends     factor = 1.8 v / 10 + 0.1            translate      ± int(size / 3 v / 10) pixels, to the left or up

    Args:
        images: float (b, h, w, c) on the grid of 1/255, h and w at least 3.
        op_index: positions in OPS.
        level: of `sample_level`, -10 to 10. Of the dtype of the images, or rounded to it.

    Returns:
        Like `images`, at least float32.
    """
    images = numerics.lift(images)
    return from_levels(apply_to_levels(to_levels(images), op_index, level.astype(images.dtype)), images.dtype)


def apply_to_levels(levels: Levels, op_index: Int[Array, " b"], level: PerImage) -> Levels:
    """Does what `apply_op` does, to levels; warps are computed in the dtype of `level`."""
    for names, kernel in zip(KERNELS, (_by_level, _by_table, _by_warp, _by_blend), strict=True):
        places = [OPS.index(name) for name in names]
        needed = functools.reduce(jnp.logical_or, [op_index == place for place in places]).any()
        levels = jax.lax.cond(needed, kernel, lambda levels, *_: levels, levels, op_index, level)
    return levels


def apply_kernel(kernel: Int[Array, ""], levels: Levels, op_index: Int[Array, " b"], level: PerImage) -> Levels:
    """Does what `apply_to_levels` does, where all operations are of KERNELS[kernel]."""
    return jax.lax.switch(kernel, (_by_level, _by_table, _by_warp, _by_blend), levels, op_index, level)


def to_levels(images: Images) -> Levels:
    """Returns the nearest of the levels 0 .. 255, in planes."""
    return jnp.moveaxis(jnp.round(images * 255).astype(jnp.uint8), 3, 1)


def from_levels(levels: Levels, dtype: Any = jnp.float32) -> Images:
    """Returns levels / 255, to rounding: XLA multiplies by the reciprocal."""
    return jnp.moveaxis(levels, 1, 3).astype(dtype) / 255


def _chosen(op_index: Int[Array, " b"], name: str, ndim: int = 1) -> Bool[Array, "b ..."]:
    """Returns for which images an operation was chosen, with `ndim` axes."""
    return (op_index == OPS.index(name)).reshape(-1, *(1,) * (ndim - 1))


def _looked_up(table: Array, index: Array) -> Array:
    """Returns table[index], also for an index whose rows lie on a mesh of the kind jax makes by default."""
    sharding = jax.typeof(index).sharding
    return table.at[index].get(mode="promise_in_bounds", out_sharding=None if sharding.mesh.empty else sharding)


def _int_parameter(level: PerImage, largest: int | float) -> Int[Array, " b"]:
    return jnp.trunc(level * largest / 10).astype(jnp.int32)


# Functions and tables of levels.


def _by_level(levels: Levels, op_index: Int[Array, " b"], level: PerImage) -> Levels:
    size, wide = jnp.abs(level), levels.astype(jnp.int32)
    found = wide
    for name, made in (
        ("autocontrast", autocontrast(wide)),
        ("posterize", wide & -(1 << (4 + _int_parameter(size, 4)))[:, None, None, None]),
        ("solarize", jnp.where(wide < (256 - _int_parameter(size, 256))[:, None, None, None], wide, 255 - wide)),
    ):
        found = jnp.where(_chosen(op_index, name, 4), made, found)
    return found.astype(jnp.uint8)


def _by_table(levels: Levels, op_index: Int[Array, " b"], level: PerImage) -> Levels:
    flat = levels.reshape(*levels.shape[:2], -1).astype(jnp.int32)
    made = jnp.take_along_axis(equalize_table(levels), flat, axis=2, mode="promise_in_bounds").reshape(levels.shape)
    return jnp.where(_chosen(op_index, "equalize", 4), made.astype(jnp.uint8), levels)


def autocontrast(levels: Wide) -> Wide:
    """Returns for each channel the line that takes its darkest level to 0 and its brightest to 255; of one level, the identity.

    Pillow computes i s - low s, with s = 255 / (high - low), in float64 and cuts it off, so where the exact result is whole it may
    come out one lower; which these are is tabulated.
    """
    low, high = levels.min((2, 3), keepdims=True), levels.max((2, 3), keepdims=True)
    spread = jnp.maximum(high - low, 1)
    numerator = (levels - low) * 255
    # Floats divide faster than integers; XLA may multiply by a reciprocal instead, so that whole quotients come out one too low.
    mapped = jnp.floor(numerator.astype(jnp.float32) / spread.astype(jnp.float32)).astype(jnp.int32)
    mapped = jnp.where(numerator - mapped * spread >= spread, mapped + 1, mapped)
    whole = math.prod(jnp.where(spread % prime == 0, prime, 1) for prime in (3, 5, 17))  # gcd with 255: so many results are whole
    order = jnp.minimum(mapped * whole // 255, _LOST + 1)
    lost = _looked_up(jnp.asarray(_lost_results()).ravel(), low * 256 + high) >> order & 1
    return jnp.where(high > low, mapped - jnp.where(mapped * spread == numerator, lost, 0), levels)


_LOST = 17  # none of the whole results behind the 17th is ever lost


@functools.cache
def _lost_results() -> np.ndarray:
    """Returns, at [low, high], bit m of which says whether float64 loses the m-th whole result above 0, int32 (256, 256)."""
    low, high, order = np.ogrid[:256, :256, : _LOST + 1]
    spread = np.maximum(high - low, 1)
    whole = np.gcd(255, spread)
    scale = 255.0 / spread
    entry = low + order * (spread // whole)
    lost = (high > low) & (order <= whole) & (np.trunc(entry * scale + -low * scale) < 255 * order // whole)
    return (lost << order).sum(-1).astype(np.int32)


def equalize_table(levels: Levels) -> Int[Array, "b c 256"]:
    """Returns for each channel the table that spreads its levels evenly: the pixels darker than i, divided by the step.

    step = (pixels - pixels of the brightest level) // 255; at 0, and for a channel of one level, the table is the identity.
    """
    b, c, h, w = levels.shape
    pixels = h * w
    # One table of all channels, which take turns: a CPU waits between two additions to one place.
    first = 256 * jnp.arange(c, dtype=jnp.int32)[None, :, None]
    places = jnp.moveaxis(levels.reshape(b, c, -1).astype(jnp.int32) + first, 1, 2).reshape(b, -1)
    # From zeros made of the places, so that they lie on the same devices.
    start = jnp.broadcast_to(places[:, :1] * 0, (b, c * 256))
    counts = jax.vmap(lambda start, at: start.at[at].add(1, mode="promise_in_bounds"))(start, places).reshape(b, c, 256)
    brightest = jnp.take_along_axis(counts, levels.max((2, 3)).astype(jnp.int32)[..., None], axis=2)
    step = (pixels - brightest) // 255
    below = jnp.cumsum(counts, axis=2, dtype=jnp.int32) - counts
    table = (step // 2 + below) // jnp.maximum(step, 1)
    return jnp.where(step > 0, jnp.minimum(table, 255), jnp.arange(256, dtype=jnp.int32)[None, None])


# Affine warps.


def _by_warp(levels: Levels, op_index: Int[Array, " b"], level: PerImage) -> Levels:
    h, w = levels.shape[2:]
    zero = jnp.zeros_like(level)

    def only(name: str, value: PerImage) -> PerImage:
        return jnp.where(_chosen(op_index, name), value, zero)

    angle = only("rotate", _int_parameter(level, 30).astype(level.dtype) * (math.pi / 180))
    less = -2 * jnp.sin(angle / 2) ** 2  # cos - 1 without cancellation
    shear = level * 0.3 / 10
    linear = ((less, only("shear_x", shear) - jnp.sin(angle)), (only("shear_y", shear) + jnp.sin(angle), less))
    move = (
        only("translate_x", _int_parameter(level, w / 3).astype(level.dtype)),
        only("translate_y", _int_parameter(level, h / 3).astype(level.dtype)),
    )
    turned = _chosen(op_index, "rotate")
    return warp(levels, linear, move, (jnp.where(turned, w / 2, zero), jnp.where(turned, h / 2, zero)))


def warp(
    levels: Levels, linear: tuple[tuple[PerImage, PerImage], ...], move: tuple[PerImage, PerImage], origin: tuple[PerImage, PerImage]
) -> Levels:
    """Moves pixels as Pillow's bilinear affine transform; black comes in from outside.

    What ends up at p = (x, y) was at p + linear (p - origin) + move; the middle of the first pixel is (0.5, 0.5).

    Args:
        levels: (b, c, h, w), h and w at least 2.
        linear: ((xx, xy), (yx, yy)).
        move, origin: (x, y), in pixels.
    """
    h, w = levels.shape[2:]
    y, x = (jnp.arange(size, dtype=move[0].dtype) + 0.5 for size in (h, w))
    x, y = x[None, None], y[None, :, None]
    across, down = x - origin[0][:, None, None], y - origin[1][:, None, None]

    def source(at, factors, by):
        return at + (factors[0][:, None, None] * across + factors[1][:, None, None] * down + by[:, None, None])

    x, y = source(x, linear[0], move[0]), source(y, linear[1], move[1])
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    moved = bilinear(levels, y - 0.5, x - 0.5, border="nearest", channel_axis=1)
    return jnp.where(inside[:, None], moved, 0).astype(jnp.uint8)  # cuts off, as Pillow does


# Mixtures with a degenerate picture.


def _by_blend(levels: Levels, op_index: Int[Array, " b"], level: PerImage) -> Levels:
    wide = levels.astype(jnp.int32)
    grey = luma_levels(wide)
    pixels = grey.shape[2] * grey.shape[3]
    mean = (2 * grey.sum((1, 2, 3), dtype=jnp.int32, keepdims=True) + pixels) // (2 * pixels)
    degenerate = wide
    for name, picture in (
        ("color", grey),
        ("contrast", mean),
        ("brightness", jnp.zeros_like(mean)),
        ("sharpness", smoothed(wide)),
    ):
        degenerate = jnp.where(_chosen(op_index, name, 4), picture, degenerate)
    return blend(degenerate, wide, (jnp.abs(level) * 1.8 / 10 + 0.1).astype(jnp.float32))


def blend(degenerate: Wide, levels: Wide, factor: Float[Array, " b"]) -> Levels:
    """Returns degenerate + factor (levels - degenerate), in float32 and cut off as in Pillow, clipped to 0 .. 255.

    Args:
        degenerate, levels: int32 (b, c, h, w).
        factor: 0 for the degenerate picture, 1 for the images, above 1 away from it.
    """
    difference = factor[:, None, None, None] * (levels - degenerate).astype(jnp.float32)
    return jnp.clip(degenerate.astype(jnp.float32) + difference, 0, 255).astype(jnp.uint8)


def luma_levels(levels: Wide) -> Int[Array, "b 1 h w"]:
    """Returns 0.299 R + 0.587 G + 0.114 B, rounded as Pillow does; grey images as they are."""
    if levels.shape[1] == 1:
        return levels
    red, green, blue = (levels[:, i : i + 1] for i in range(3))
    return (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16


def smoothed(levels: Wide) -> Wide:
    """Returns Pillow's SMOOTH: the mean of 3 x 3 pixels of which the middle counts 5 times; pixels on the edges stay."""
    across = levels[..., :-2] + levels[..., 1:-1] + levels[..., 2:]
    total = across[:, :, :-2] + across[:, :, 1:-1] + across[:, :, 2:] + 4 * levels[..., 1:-1, 1:-1]
    return levels.at[..., 1:-1, 1:-1].set((2 * total + 13) // 26)
