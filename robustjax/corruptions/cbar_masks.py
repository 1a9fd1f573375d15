"""C-bar's obstacles: what hides parts of the picture behind one colour. Mintun, Kirillov & Xie, NeurIPS 2021.

Levels L lie between 0 and 10; n is the side of the image. Positions count pixels, the first one is at 0. No mask depends on the
image, so gradients are the share of the image that shows.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from robustjax.core.types import Keys
from robustjax.corruptions.draws import Draws, normals, take, uniforms
from robustjax.corruptions.severity import pick, truncate

Images = Float[Array, "b n n c"]

_GREY = 128 / 255


# --- Checkerboard ------------------------------------------------------------------------------------------------------------

_GRID = 40  # cells along an axis of the largest grid, 4 n / (0.1 n)


def draw_checkerboard_cutout(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'angle', 'scale': uniforms (b,), 'grid': uniforms (b, 40, 40)}."""
    return {"angle": uniforms(keys, (), 0), "scale": uniforms(keys, (), 1), "grid": uniforms(keys, (_GRID, _GRID), 2)}


def checkerboard_cutout(images: Images, draws: Draws, *, constants: tuple, severity: Int[Array, ""]) -> Images:
    """Greys out (128) a share L / 10 of the black squares of a turned checkerboard.

    Accidents kept: numbers of cells are cut towards 0, so those on both sides of the axes share one; negative ones count from
    the end of the grid, which has int(4 n / s) cells of side s along an axis. The gradient is 1 where the image shows, else 0.

    Args:
        images: in [0, 1], square.
        draws: {'angle': angle / (2 pi), 'scale': (s / n - 0.1) / 0.15, 'grid': uniform (b, 40, 40)}; a black cell whose number in
            the grid is below L / 10 is greyed. Of the grid its first int(4 n / s) rows and columns are used.
        constants: level L for each severity.
        severity: which of them.
    """
    b, n = images.shape[:2]
    angle, scale, grid = take(draws, {"angle": (b,), "scale": (b,), "grid": (b, _GRID, _GRID)}, images.dtype)
    angle, side = (x[:, None, None] for x in (2 * np.pi * angle, n * (0.1 + 0.15 * scale)))
    position = jnp.arange(n, dtype=images.dtype)
    row, column = position[None, :, None], position[None, None]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    places = (cos * row + sin * column) / side, (cos * column - sin * row) / side
    odd = [jnp.floor(place - 2 * jnp.floor(place / 2)) for place in places]
    count = jnp.floor(4 * n / side).astype(jnp.int32)
    i, j = (jnp.where(cell < 0, cell + count, cell) for cell in (jnp.trunc(place).astype(jnp.int32) for place in places))
    found = jnp.take_along_axis(grid.reshape(b, -1), (i * _GRID + j).reshape(b, -1), axis=1, mode="clip").reshape(b, n, n)
    hidden = (odd[0] == odd[1]) & (found < 0.1 * pick(constants, severity, images.dtype))
    return jnp.where(hidden[..., None], _GREY, images)


# --- Sparkles ----------------------------------------------------------------------------------------------------------------

_SPARKLES = 5
_MOST_RAYS = 199


def _draw_sparkles(keys: Keys, count: tuple[int, ...]) -> Draws:
    return {
        "centre": uniforms(keys, (*count, 2), 0),
        "rays": uniforms(keys, count, 1),
        "length": normals(keys, (*count, _MOST_RAYS), 2),
    }


def _take_sparkles(draws: Draws, shape: tuple[int, ...], dtype: Any) -> list[Array]:
    """Returns the centres, the numbers of rays (int32, 50 to 199) and the normals of `shape` sparkles."""
    centre, rays, normal = take(draws, {"centre": (*shape, 2), "rays": shape, "length": (*shape, _MOST_RAYS)}, dtype)
    return [centre, 50 + jnp.floor(150 * rays).astype(jnp.int32), normal]


def _glow(
    n: int, centre: Float[Array, "b 2"], rays: Int[Array, " b"], lengths: Float[Array, "b r"], exponent: Float[Array, ""] | int
) -> Float[Array, "b n n"]:
    """Returns clip((1 - (f - 1/2)^2) (l^2 / (d^2 + 0.0001))^exponent) at distance d from the centre.

    The rays leave at equal angles; a pixel lies a share f of the way from one to the next, and l is linear between their lengths.
    """
    b = len(centre)
    position = jnp.arange(n, dtype=centre.dtype)[None]
    row, column = position[:, :, None] - centre[:, 0, None, None], position[:, None] - centre[:, 1, None, None]
    row, column = jnp.broadcast_arrays(row, column)
    place = (jnp.arctan2(column, row) / (2 * np.pi) + 0.5) * rays[:, None, None].astype(centre.dtype)
    floor = jnp.floor(place)
    part = place - floor
    last = rays[:, None] - 1
    ray = floor.astype(jnp.int32).reshape(b, -1)
    ray = jnp.where(ray > last, 0, ray)
    here, following = (
        jnp.take_along_axis(lengths, number, axis=1, mode="clip").reshape(b, n, n) for number in (ray, jnp.where(ray == last, 0, ray + 1))
    )
    length = here + part * (following - here)
    ratio = length**2 / (row**2 + column**2 + 1e-4)
    return jnp.clip((1 - (part - 0.5) ** 2) * ratio**exponent, 0, 1)


def draw_inverse_sparkles(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'centre': uniforms (b, 2), 'rays': uniforms (b,), 'length': standard normals (b, 199)}."""
    return _draw_sparkles(keys, ())


def inverse_sparkles(images: Images, draws: Draws, *, constants: tuple, severity: Int[Array, ""]) -> Images:
    """1 + s (x - 1): white outside a star that shows a share s of the image, falling as distance^(-0.26 L).

    On rays s is 3/4 of what it is half-way between them. The gradient is s.

    Args:
        images: in [0, 1], square.
        draws: {'centre': (c / n - 1/4) 2 for row and column, 'rays': u, 'length': z}: 50 + floor(150 u) rays, the lengths of which
            are n/4 (1 + z/4).
        constants: level L for each severity.
        severity: which of them.
    """
    b, n = images.shape[:2]
    centre, rays, normal = _take_sparkles(draws, (b,), images.dtype)
    exponent = 0.13 * pick(constants, severity, images.dtype)
    shown = _glow(n, n * (0.25 + 0.5 * centre), rays, n / 4 * (1 + 0.25 * normal), exponent)
    return 1 + shown[..., None] * (images - 1)


def draw_sparkles(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'centre': uniforms (b, 5, 2), 'rays': uniforms (b, 5), 'length': standard normals (b, 5, 199)}."""
    return _draw_sparkles(keys, (_SPARKLES,))


def sparkles(images: Images, draws: Draws, *, constants: tuple, severity: Int[Array, ""]) -> Images:
    """1 + (x - 1) (1 - g_1) ... (1 - g_5): five white stars, which fade as distance^-2. The gradient is the product.

    Args:
        images: in [0, 1], square.
        draws: {'centre': c / n, 'rays': u, 'length': z}: 50 + floor(150 u) rays, of lengths max(1, r (1 + z/4)), r = n L / 100.
        constants: level L for each severity.
        severity: which of them.
    """
    b, n = images.shape[:2]
    centres, rays, normal = _take_sparkles(draws, (b, _SPARKLES), images.dtype)
    lengths = jnp.maximum(1, n / 100 * pick(constants, severity, images.dtype) * (1 + 0.25 * normal))
    shown = jnp.ones_like(images[..., :1])
    for i in range(_SPARKLES):
        shown = shown * (1 - _glow(n, n * centres[:, i], rays[:, i], lengths[:, i], 1)[..., None])
    return 1 + shown * (images - 1)


# --- Lines -------------------------------------------------------------------------------------------------------------------


@functools.lru_cache
def _line_counts(constants: tuple, n: int) -> tuple[int, ...]:
    return tuple(int(level * 1.0 / 10 * n) for level in constants)


def draw_lines(keys: Keys, shape: tuple[int, ...], *, constants: tuple) -> Draws:
    """Returns {'angle', 'variation': uniforms (b,), 'line': uniforms (b, k, 3)}, k = int(n max(L) / 10)."""
    count = max(_line_counts(constants, shape[1]))
    return {"angle": uniforms(keys, (), 0), "variation": uniforms(keys, (), 1), "line": uniforms(keys, (count, 3), 2)}


def lines(images: Images, draws: Draws, *, constants: tuple, severity: Int[Array, ""], quantize: bool) -> Images:
    """int(n L / 10) grey (128) anti-aliased lines at similar angles, one over the other.

    A line runs between two whole points (cut towards 0) n pixels to both sides of a random one; a pixel in the rectangle that they
    span is covered by 1 - its distance from the line. The gradient, without `quantize`, is the share that shows through all lines.

    Args:
        images: in [0, 1], square.
        draws: {'angle': a / (2 pi), 'variation': (v - 0.1) / 0.9, 'line': (row / n, column / n, u)}: a line's angle is
            a + 2 pi v (u - 1/2). The first int(n L / 10) lines are drawn.
        constants: level L for each severity.
        severity: which of them.
        quantize: truncate what a line covers to 8-bit levels before the next one is drawn, as published, and all in the end.
    """
    b, n = images.shape[:2]
    counts = _line_counts(constants, n)
    shapes = {"angle": (b,), "variation": (b,), "line": (b, max(counts), 3)}
    angle, variation, line = take(draws, shapes, images.dtype)
    angle = 2 * np.pi * (angle[:, None] + (0.1 + 0.9 * variation[:, None]) * (line[..., 2] - 0.5))
    count = pick(counts, severity, jnp.float32).astype(jnp.int32)
    ends = []
    for i, direction in enumerate((jnp.cos(angle), jnp.sin(angle))):
        ends += [jnp.trunc(n * line[..., i] - n * direction), jnp.trunc(n * line[..., i] + n * direction)]
    ends = jnp.stack(ends)

    def draw_over(i, canvas):
        cover = jnp.where(i < count, _coverage(n, *jax.lax.dynamic_index_in_dim(ends, i, axis=2, keepdims=False)), 0)[..., None]
        drawn = (1 - cover) * canvas + cover * _GREY
        return jnp.where(cover > 0, truncate(drawn), drawn) if quantize else drawn

    # Lines are few in small images: several in one pass over the pixels.
    images = jax.lax.fori_loop(0, max(counts), draw_over, images, unroll=min(8, max(counts)))
    return truncate(images) if quantize else images


def _coverage(
    n: int, row_0: Float[Array, " b"], row_1: Float[Array, " b"], column_0: Float[Array, " b"], column_1: Float[Array, " b"]
) -> Float[Array, "b n n"]:
    """Returns 1 - the distance from the line, and 0 beyond distance 1 or the rectangle of its end points."""
    position = jnp.arange(n, dtype=row_0.dtype)[None]
    inside = [
        (position >= jnp.minimum(start, end)[:, None]) & (position <= jnp.maximum(start, end)[:, None])
        for start, end in ((row_0, row_1), (column_0, column_1))
    ]
    rows, columns = row_1 - row_0, column_1 - column_0
    length = jnp.maximum(jnp.sqrt(rows**2 + columns**2), 1)
    # Whole numbers below 2^24 up to here for n up to 2000, so exact.
    across = ((position - row_0[:, None]) * columns[:, None])[:, :, None] - ((position - column_0[:, None]) * rows[:, None])[:, None]
    cover = jnp.maximum(1 - abs(across) / length[:, None, None], 0)
    return jnp.where(inside[0][:, :, None] & inside[1][:, None], cover, 0)
