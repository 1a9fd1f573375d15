"""Edges, distances and small filters of 8-bit pictures, in whole numbers, as OpenCV 4 computes them.

Pictures are int32 (b, h, w) with levels 0..255 where nothing else is said. Nothing here has a derivative. Sums of whole numbers
are exact, so results agree to the bit on every device.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

Picture = Int[Array, "b h w"]

_STACKED = 16
_WORD = 32
_PLACES = np.arange(_WORD, dtype=np.uint32).reshape(1, 1, 1, _WORD, 1)
_AT_ONCE = 4  # steps of growth before it is asked whether anything grew
_TAN_22 = 13573  # tan(22.5 degrees) in units of 2**-15
DISTANCE_ONE = 1 << 16
"""A distance of one pixel in what `distance` returns."""


def window(picture: Picture, reach: int, mode: str) -> dict[tuple[int, int], Picture]:
    """Returns what lies (rows, columns) away from each pixel, up to `reach` both ways; mode is numpy.pad's, 0 for 'constant'."""
    h, w = picture.shape[1:]
    padded = jnp.pad(picture, ((0, 0), (reach, reach), (reach, reach)), mode=mode)
    steps = range(-reach, reach + 1)
    return {(i, j): padded[:, reach + i : reach + i + h, reach + j : reach + j + w] for i in steps for j in steps}


def canny_opencv(picture: Picture, *, low: int, high: int) -> Bool[Array, "b h w"]:
    """Returns the Canny edges: Sobel gradients of aperture 3, magnitude |dx| + |dy|, edges thinned to one pixel across.

    Pixels whose magnitude is above `high` are edges, and so are those above `low` that touch an edge, also diagonally. Among
    equals along a row or column the upper or left one stays; along a diagonal none does.

    Args:
        picture: 0..255; beyond the border the nearest pixel counts.
        low, high: thresholds.
    """
    at = window(picture, 1, "edge")
    dx = (at[-1, 1] - at[-1, -1]) + 2 * (at[0, 1] - at[0, -1]) + (at[1, 1] - at[1, -1])
    dy = (at[1, -1] - at[-1, -1]) + 2 * (at[1, 0] - at[-1, 0]) + (at[1, 1] - at[-1, 1])
    size = jnp.abs(dx) + jnp.abs(dy)
    near = window(size, 1, "constant")
    steep, flat = jnp.abs(dy) << 15, jnp.abs(dx) * _TAN_22
    across = steep < flat  # within 22.5 degrees of a row
    along = steep > flat + (jnp.abs(dx) << 16)  # within 22.5 degrees of a column: tan(67.5) = tan(22.5) + 2
    falling = (dx ^ dy) < 0
    thin_across = (size > near[0, -1]) & (size >= near[0, 1])
    thin_along = (size > near[-1, 0]) & (size >= near[1, 0])
    thin_down = (size > near[-1, -1]) & (size > near[1, 1])
    thin_up = (size > near[-1, 1]) & (size > near[1, -1])
    thin = jnp.where(across, thin_across, jnp.where(along, thin_along, jnp.where(falling, thin_up, thin_down)))
    return connected((thin & (size > high))[..., None], (thin & (size > low))[..., None])[..., 0]


def connected(seeds: Bool[Array, "b h w c"], allowed: Bool[Array, "b h w c"]) -> Bool[Array, "b h w c"]:
    """Returns the allowed pixels that a chain of allowed neighbours (8 of them) joins to a seed, which must be allowed too.

    The batch goes on until its last image is done; done ones do not change.
    """
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


@functools.lru_cache
def _passes(limit: int) -> np.ndarray:
    """Returns the moves of `distance`, (passes, 8, 3) of rows, columns and cost."""
    straight, diagonal, knight = (round(float(np.float32(cost)) * DISTANCE_ONE) for cost in (1, 1.4, 2.1969))
    signs = [(i, j) for i in (-1, 1) for j in (-1, 1)]
    far = limit * DISTANCE_ONE
    table = []
    for k in _halves(far // knight):
        table.append([(i * a * k, j * b * k, knight * k) for i, j in signs for a, b in ((1, 2), (2, 1))])
    for k in _halves(limit):
        moves = [(k * i, 0, straight * k) for i in (-1, 1)] + [(0, k * j, straight * k) for j in (-1, 1)]
        table.append(moves + [(k * i, k * j, diagonal * k) for i, j in signs])
    return np.array(table, np.int32)


def _halves(total: int) -> list[int]:
    """Returns a few numbers, partial sums of which make up each whole number up to `total`."""
    halves = []
    while total:
        halves.append((total + 1) // 2)
        total -= halves[-1]
    return halves


def distance(marked: Bool[Array, "b h w"], *, limit: int) -> Picture:
    """Returns how far the nearest marked pixel is, at most `limit` pixels, in units of 1 / DISTANCE_ONE pixels.

    The length of the shortest way of steps of 1 along rows and columns, 1.4 along diagonals and 2.1969 for a knight's move
    (chamfer distance with a 5x5 mask), in fixed point. There is always a shortest way with steps of two directions at most, one
    of them a knight's, and their order does not matter; so moves of several steps at a time, all knights' before all others,
    find it in a few passes over the picture.

    Args:
        marked: pixels of distance 0. Where there are none all is `limit` away.
        limit: whole pixels, at least 1.
    """
    far, table = limit * DISTANCE_ONE, _passes(limit)
    reach = int(np.abs(table[..., :2]).max())
    moves = jnp.asarray(table)

    def relax(i, result):
        padded = jnp.pad(result, ((0, 0), (reach, reach), (reach, reach)), constant_values=far)
        for j in range(table.shape[1]):
            row, column, cost = moves[i, j]
            result = jnp.minimum(
                result, jax.lax.dynamic_slice(padded, (jnp.zeros_like(row), reach + row, reach + column), result.shape) + cost
            )
        return result

    return jax.lax.fori_loop(0, len(table), relax, jnp.where(marked, jnp.int32(0), jnp.int32(far)))


def box_sum(picture: Picture) -> Picture:
    """Returns the sums over 3x3 pixels, borders mirrored (reflect-101)."""
    padded = jnp.pad(picture, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]


def filter_levels(picture: Picture, kernel: np.ndarray) -> Picture:
    """Correlates with a 3x3 kernel of whole numbers, borders mirrored (reflect-101), cut to 0..255."""
    at = window(picture, 1, "reflect")
    total = sum(int(weight) * at[i - 1, j - 1] for (i, j), weight in np.ndenumerate(kernel) if weight)
    return jnp.clip(total, 0, 255)


def equalize(picture: Picture, *, levels: int) -> Picture:
    """Spreads the levels so that their distribution function becomes straight from 0 to 255; one level alone stays as it is.

    The smallest level of a picture becomes 0. The factor is a float32 number, ties go to even, as published.

    Args:
        picture: 0..levels - 1.
        levels: how many there are; 256 for any 8-bit picture.
    """
    # A few pixels are counted side by side, then the counts are added: one sum over all would not use vector units on CPUs.
    flat, total = picture.reshape(len(picture), -1), picture[0].size
    flat = jnp.pad(flat, ((0, 0), (0, -total % _STACKED)), constant_values=levels)  # counted nowhere
    stacks = flat.reshape(len(picture), _STACKED, 1, -1)
    bounds = jnp.arange(levels, dtype=jnp.int32).reshape(1, -1, 1)
    counts = sum((stacks[:, i] <= bounds).astype(jnp.int32) for i in range(_STACKED))
    below = jnp.sum(counts, axis=2)
    first = jnp.min(jnp.where(below > 0, below, total), axis=1, keepdims=True)  # pixels of the smallest level
    single = first == total
    factor = np.float32(255) / jnp.where(single, 1, total - first).astype(jnp.float32)
    table = jnp.rint(jnp.maximum(below - first, 0).astype(jnp.float32) * factor).astype(jnp.int32)
    table = jnp.where(single, jnp.arange(levels, dtype=jnp.int32)[None], table)
    return jnp.take_along_axis(table, picture.reshape(len(picture), -1), axis=1, mode="promise_in_bounds").reshape(picture.shape)
