"""Blur: linear filters, so the gradient is the transposed filter. Sizes differ by severity: a branch for each, one program for all."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from robustjax.core.check import InputError
from robustjax.core.types import Keys
from robustjax.corruptions.draws import Draws, take, uniforms
from robustjax.corruptions.severity import pick, truncate
from robustjax.imaging.filters import correlate, cut_gaussian_taps, gaussian_taps, smooth
from robustjax.imaging.resample import batch_first, batch_last, zoom_planes, zoom_points

_SMALL_RADIUS = 8  # up to it the disk is drawn on a 17x17 grid and softened by 3 taps, beyond by 5
_NEGLIGIBLE = 1e-12  # weights below it change nothing but the time: products of tiny numbers are slow


def disk_kernel(radius: float | int, sigma: float | int) -> np.ndarray:
    """Returns a disk of `radius` pixels with sum 1, softened by a Gaussian of `sigma`; square, trimmed to where it is not 0.

    The grid is mirrored at its rim (reflect-101) when softened, an accident for radii above 8: the disk touches the rim, and its sum
    becomes 1.01 or so. Sums are rounded to float32 where the published code rounds them: 1 - 1e-8 truncates white to level 254.

    >>> disk_kernel(1, 0.01)
    array([[0. , 0.2, 0. ],
           [0.2, 0.2, 0.2],
           [0. , 0.2, 0. ]], dtype=float32)
    """
    reach = _SMALL_RADIUS if radius <= _SMALL_RADIUS else int(radius)
    taps = gaussian_taps(3 if radius <= _SMALL_RADIUS else 5, sigma).astype(np.float32).astype(np.float64)
    x = np.arange(-reach, reach + 1)
    disk = (x[:, None] ** 2 + x**2 <= radius**2).astype(np.float32)
    disk = np.pad((disk / disk.sum()).astype(np.float64), len(taps) // 2, mode="reflect")
    for _ in range(2):  # along one axis, then, transposed, along the other
        disk = sum(tap * disk[:, i : i + len(x)] for i, tap in enumerate(taps)).T
    kernel = np.where(disk > _NEGLIGIBLE, disk, 0).astype(np.float32)
    rim = np.flatnonzero(kernel.any(axis=0))[0]
    return kernel[rim : len(x) - rim, rim : len(x) - rim]


def _branch(function: Callable, images: Array, constants: tuple, severity: Int[Array, ""]) -> Array:
    """Returns function(images, its constants), compiled for every severity: loops are as long as each needs."""
    return jax.lax.switch(jnp.clip(severity - 1, 0, len(constants) - 1), [lambda x, c=c: function(x, c) for c in constants], images)


def defocus_blur(images: Float[Array, "b h w c"], *, constants: tuple, severity: Int[Array, ""]) -> Float[Array, "b h w c"]:
    """Correlation with a softened disk, borders mirrored. Differentiable but where the clip cuts: see `disk_kernel` for its accident.

    Args:
        images: in [0, 1].
        constants: (radius, sigma) in pixels for each severity.
        severity: which of them.
    """
    return jnp.clip(_branch(lambda x, constant: correlate(x, disk_kernel(*constant)), images, constants, severity), 0, 1)


def gaussian_blur(images: Float[Array, "b h w c"], *, constants: tuple, severity: Int[Array, ""]) -> Float[Array, "b h w c"]:
    """Gaussian filter, cut off at four standard deviations, the border pixels going on. Differentiable; the clip only cuts rounding.

    Args:
        images: in [0, 1].
        constants: standard deviation in pixels for each severity.
        severity: which of them.
    """
    return jnp.clip(_branch(lambda x, sigma: smooth(x, cut_gaussian_taps(sigma)), images, constants, severity), 0, 1)


def zoom_blur(images: Float[Array, "b h w c"], *, constants: tuple, severity: Int[Array, ""], quantize: bool) -> Float[Array, "b h w c"]:
    """Mean of the image and its enlargements, see `imaging.clipped_zoom`.

    Accidents kept: zooms by a few percent are often none in small images, or lose the last row and column only; and sums are
    rounded to float32, which decides the byte where neighbours are equal.

    Args:
        images: in [0, 1].
        constants: zoom factors for each severity.
        severity: which of them.
        quantize: round to float32 where the published code does, and truncate. Without, a linear map in the dtype of the images,
            differentiable; the final clip only cuts rounding.
    """
    planes, dtype = batch_last(images), jnp.float32 if quantize else images.dtype
    total = _branch(functools.partial(_sum_of_zooms, dtype=dtype), planes, constants, severity)
    count = pick(tuple(len(factors) + 1 for factors in constants), severity, dtype)
    # Compiled, division by one number becomes multiplication by its inverse, which rounds differently; by many it stays what it is.
    mean = jnp.clip(total / jnp.where(total >= 0, count, 1), 0, 1)
    if quantize:
        mean = jnp.floor(mean * 255).astype(images.dtype) / 255
    return batch_first(mean, images.shape[-1])


def _sum_of_zooms(planes: Float[Array, "h w k"], factors: tuple[float, ...], *, dtype: Any) -> Float[Array, "h w k"]:
    """Sums in `dtype` in the order of the factors, what is summed computed in the dtype of the planes."""
    rounded = planes.astype(dtype)
    planes = rounded.astype(planes.dtype)
    tables = [[zoom_points(size, factor) for factor in factors] for size in planes.shape[:2]]
    rows, columns = ([jnp.asarray(np.stack(part)) for part in zip(*table, strict=True)] for table in tables)

    def add_zoom(i, total):
        at = [tuple(jax.lax.dynamic_index_in_dim(part, i, keepdims=False) for part in axis) for axis in (rows, columns)]
        return total + zoom_planes(planes, *at).astype(dtype)

    return rounded + jax.lax.fori_loop(0, len(factors), add_zoom, jnp.zeros_like(rounded))


def draw_glass_blur(keys: Keys, shape: tuple[int, int, int, int], *, constants: tuple) -> Draws:
    """Returns {'uniform': (b, rounds, h, w)} in [0, 1), where each pixel looks in each round, for as many rounds as the longest has.

    For offsets between -d and d - 1, 2 d uniform is d + dy and a fraction, of which in turn 2 d times is d + dx and a fraction.
    """
    return {"uniform": uniforms(keys, (_rounds(constants), *shape[1:3]))}


def _rounds(constants: tuple) -> int:
    return max(rounds for _, _, rounds in constants)


def glass_blur(
    images: Float[Array, "b h w c"], draws: Draws, *, constants: tuple, severity: Int[Array, ""], quantize: bool
) -> Float[Array, "b h w c"]:
    """Gaussian blur, truncated to 8 bits; rounds of pixels looking at neighbours; Gaussian blur.

    In a round the pixels are visited from the last to the first, in rows and within a row, and each becomes what the pixel
    (dy, dx) away then is, both between -d and d - 1. Accidents kept: it was meant to be a swap but copies; visited are rows and
    columns from d + 1 to size - d.

    Args:
        images: in [0, 1]; rounded to 8-bit levels, which the published code reads.
        draws: {'uniform': (b, rounds, h, w)}, see `draw_glass_blur`; or {'offset': (b, rounds, h, w, 2)}, integers (dx, dy) as the
            published code draws them, each at the pixel it is drawn for, possibly for more rounds than needed.
        constants: (standard deviation of the Gaussian, d, rounds) for each severity.
        severity: which of them.
        quantize: truncate at the end. Without, differentiable: the derivative takes rounding and truncation on the way for
            the identity.
    """
    reach, rounds = (pick(tuple(constant[i] for constant in constants), severity, jnp.int32) for i in (1, 2))
    offsets = _offsets(draws, images, reach, _rounds(constants))
    # What a round reads is what the round before has left at that place, so the places of all rounds are followed to the first.
    places = jax.lax.fori_loop(
        1, rounds, lambda i, places: _at(places.ravel(), _looked_at(*offsets(i), reach)), _looked_at(*offsets(0), reach)
    )
    blur = functools.partial(_branch, lambda x, constant: smooth(x, cut_gaussian_taps(constant[0])), constants=constants, severity=severity)

    def after_the_first(blurred):
        return blur(_at(blurred.reshape(-1, images.shape[-1]), places))

    levels = jnp.floor(jax.lax.stop_gradient(images) * 255 + 0.5)
    blurred = after_the_first(_in_units(_truncated(levels, blur), images.dtype))
    if quantize:
        return truncate(jnp.clip(blurred, 0, 1))
    linear = after_the_first(blur(images))
    return jnp.clip(blurred + (linear - jax.lax.stop_gradient(linear)), 0, 1)


def _truncated(levels: Float[Array, "b h w c"], blur: Callable) -> Int[Array, "b h w c"]:
    """Returns the blurred levels cut down to whole ones.

    In one value out of fifty the exact blur is a whole level, where only rounding in float64 says what the published code makes of
    it, and what it makes is blurred once more. So this step, and nothing else, is computed in float64 whatever the images are.
    """
    with jax.enable_x64(True):
        units = _in_units(levels.astype(jnp.int32), jnp.float64)
        return jnp.floor(blur(units) * 255).astype(jnp.int32)


def _in_units(levels: Int[Array, "..."], dtype: Any) -> Float[Array, "..."]:
    """Returns levels / 255 rounded as division is; compiled, it would be multiplication by 1 / 255, which is another number."""
    return jnp.asarray(np.arange(256) / 255, dtype).at[levels].get(mode="clip")


def _offsets(draws: Draws, images: Float[Array, "b h w c"], reach: Int[Array, ""], rounds: int) -> Callable:
    """Returns the function from a round to its offsets (dy, dx), each (b, h, w)."""
    b, h, w, _ = images.shape
    if "offset" in draws:
        given = draws["offset"].shape[1] if draws["offset"].ndim == 5 else rounds
        if given < rounds:
            raise InputError(f"draws of 'offset' must have at least {rounds} rounds, got {given}.")
        (offset,) = take(draws, {"offset": (b, given, h, w, 2)}, images.dtype)
        offset = offset.astype(jnp.int32)
        return lambda i: jnp.moveaxis(jax.lax.dynamic_index_in_dim(offset, i, 1, keepdims=False), -1, 0)[::-1]
    (uniform,) = take(draws, {"uniform": (b, rounds, h, w)}, images.dtype)
    values = (2 * reach).astype(images.dtype)

    def parts(i):
        scaled = jax.lax.dynamic_index_in_dim(uniform, i, 1, keepdims=False) * values
        dy = jnp.floor(scaled)
        dx = jnp.floor((scaled - dy) * values)
        return [part.astype(jnp.int32) - reach for part in (dy, dx)]

    return parts


def _at(flat, places):
    return flat.at[places].get(mode="promise_in_bounds")


def _looked_at(dy: Int[Array, "b h w"], dx: Int[Array, "b h w"], reach: Int[Array, ""]) -> Int[Array, "b h w"]:
    """Returns for each pixel of one round of glass_blur its source before the round, counted over the whole batch."""
    h, w = dy.shape[1:]
    dy, dx = (jnp.clip(offset, -reach, reach - 1) for offset in (dy, dx))  # further, a user's could leave the image or go in circles
    example, y, x = (jax.lax.broadcasted_iota(jnp.int32, dy.shape, axis) for axis in range(3))

    def visited(y, x):
        return (y > reach) & (y <= h - reach) & (x > reach) & (x <= w - reach)

    moved = visited(y, x)
    source = (example * h + y) * w + x + jnp.where(moved, dy * w + dx, 0)
    # The source has already changed where it comes later in the image: what it became is then looked up, and marked by ~, which is
    # negative. Each step doubles the number of links that are followed; few chains have more than ten.
    changed = moved & ((dy > 0) | ((dy == 0) & (dx > 0))) & visited(y + dy, x + dx)

    def follow(chains):
        # Shaped as the image is: as one line, reading the offsets above takes three times as long.
        return jnp.where(chains < 0, _at(chains.ravel(), jnp.maximum(~chains, 0)), chains)

    return jax.lax.while_loop(lambda chains: jnp.any(chains < 0), follow, jnp.where(changed, ~source, source))
