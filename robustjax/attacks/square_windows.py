"""What Square Attack tries next: windows in which a perturbation is drawn anew, and the perturbations to begin with.

Each row has its own window, whose side comes from a schedule that few sides make up: windows are found by comparing coordinates
and looked up in small tables, so their sides may differ between rows of one compiled program.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from robustjax.attacks.projections import l1_ball_and_box
from robustjax.core.numerics import image_norm
from robustjax.core.types import Keys

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # the fraction of pixels p is halved after each of these queries
TINY = 1e-12  # the official code's guard of every division by a norm
INSIDE = 1 - 1e-6  # and the part of the L1 radius that it uses, so that rounding does not leave the ball


class Sides(NamedTuple):
    """Static: the norm and the side of the windows before and after each of HALVINGS."""

    norm: str
    sides: tuple[int, ...]


class Draws(NamedTuple):
    """What one query draws, one row an example."""

    side: Int[Array, " b"]
    level: Int[Array, " b"]  # index of the side
    top: Int[Array, " b"]
    left: Int[Array, " b"]
    other_top: Int[Array, " b"]  # of the window that gives its mass away (L2 and L1)
    other_left: Int[Array, " b"]
    signs: Float[Array, "b c"]
    turned: Bool[Array, " b"]


def fraction(query: int, p_init: float) -> float:
    """Returns the fraction p of the pixels that query number `query` (from 0) changes, for 10,000 queries and not rescaled to others."""
    return p_init / 2 ** sum(query > last for last in HALVINGS)


def make_sides(norm: str, shape: tuple[int, int, int], p_init: float) -> Sides:
    """Returns the sides of the schedule for images of shape (h, w, c): sqrt(p h w), rounded, for L2 and L1 made odd and at least 3.

    No window is larger than the image.
    """
    h, w, _ = shape

    def side(p):
        s = max(round(math.sqrt(p * h * w)), 1 if norm == "linf" else 3)
        return min(s if norm == "linf" or s % 2 else s + 1, h, w)

    return Sides(norm, tuple(side(fraction(first, p_init)) for first in (0, *(last + 1 for last in HALVINGS))))


def falloff(side: int, power: int) -> np.ndarray:
    """Returns what a pyramid of pixels at distance 0, 1, ... of its middle adds up to: sum_{k >= distance} 1 / (k + 1)^power."""
    steps = 1.0 / np.arange(1, side // 2 + 2, dtype=np.float64) ** power
    return np.cumsum(steps[::-1])[::-1]


@functools.lru_cache(maxsize=64)
def pyramid_profiles(side: int, norm: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the window eta of one side as three vectors, eta[u, v] = factor[u] * min(across[u], along[v]).

    Two pyramids of opposite sign, one on each half of the rows, each falling off with the Chebyshev distance to its middle, and
    each half of norm 1 before the whole is brought to norm 1: Andriushchenko et al., ECCV 2020, Eq. 2 (L2: 1 / (k + 1)^2), and its
    L1 form in AutoAttack (1 / (k + 1)^4). Since the fall is monotone, the value at the larger of two distances is the lesser of
    two values, which spares a table of two dimensions.
    """
    order, power = (2, 2) if norm == "l2" else (1, 4)
    fall = falloff(side, power)
    along = fall[np.abs(np.arange(side) - side // 2)]
    across, factor = np.zeros(side), np.zeros(side)
    for first, last, sign in ((0, side // 2, 1.0), (side // 2, side, -1.0)):
        rows = last - first
        if rows:
            across[first:last] = fall[np.abs(np.arange(rows) - rows // 2)]
            half = np.minimum(across[first:last, None], along[None])
            factor[first:last] = sign / np.linalg.norm(half.ravel(), order)
    whole = factor[:, None] * np.minimum(across[:, None], along[None])
    return factor / np.linalg.norm(whole.ravel(), order), across, along


def pyramid(side: int, norm: str) -> np.ndarray:
    """Returns the window eta (side, side), of norm 1."""
    factor, across, along = pyramid_profiles(side, norm)
    return factor[:, None] * np.minimum(across[:, None], along[None])


def draw(keys: Keys, query: Int[Array, " b"], sides: Sides, shape: tuple[int, int, int]) -> Draws:
    """Draws the window of each row's query.

    A corner is floor(u (h - side)), u uniform in [0, 1), as in the official code: the last position never occurs.

    Args:
        keys: one per row, for this query only.
        query: number of the query, from 0.
        sides: of the schedule.
        shape: (h, w, c).
    """
    h, w, c = shape
    level = jnp.sum((query[:, None] > jnp.asarray(HALVINGS, jnp.int32)[None]).astype(jnp.int32), axis=1)
    side = jnp.asarray(sides.sides, jnp.int32)[level]
    # One call for all that is drawn: a word for each corner, 16 bits a coordinate, and a bit for each sign and for the turn.
    bits = jax.vmap(lambda key: jax.random.bits(key, (2 + -(-(c + 1) // 32),), jnp.uint32))(keys)

    def corner(word: UInt32[Array, " b"]):
        return [((u * (n - side).astype(jnp.uint32)) >> 16).astype(jnp.int32) for u, n in ((word >> 16, h), (word & 0xFFFF, w))]

    flips = ((bits[:, 2:, None] >> jnp.arange(32, dtype=jnp.uint32)[None, None]) & 1).reshape(bits.shape[0], -1).astype(bool)
    signs = jnp.where(flips[:, :c], jnp.float32(1), jnp.float32(-1))
    return Draws(side, level, *corner(bits[:, 0]), *corner(bits[:, 1]), signs, flips[:, c])


def stripes(keys: Keys, images: Float[Array, "b h w c"], eps: Array) -> Float[Array, "b h w c"]:
    """Returns the points at which L-inf begins: +-eps, one sign for each column and channel."""
    _, _, w, c = images.shape
    signs = jax.vmap(lambda key: jax.random.rademacher(key, (1, w, c), images.dtype))(keys)
    return jnp.clip(images + eps * signs, 0, 1)


def repaint(best: Float[Array, "b h w c"], images: Float[Array, "b h w c"], eps: Array, draws: Draws) -> Float[Array, "b h w c"]:
    """Returns the L-inf candidates: in the window, each channel at +eps or at -eps.

    That is what adding +-2 eps and returning to the ball gives, as the paper puts it.
    """
    _, h, w, _ = images.shape
    drawn = jnp.clip(images + eps * draws.signs.astype(images.dtype)[:, None, None], 0, 1)
    return jnp.where(_square(draws.top, draws.left, draws.side, h, w), drawn, best)


def grid(keys: Keys, images: Float[Array, "b h w c"], eps: Array, norm: str) -> Float[Array, "b h w c"]:
    """Returns the points at which L2 and L1 begin: windows side by side, each turned and each channel negated at random.

    The windows are a fifth of the image wide and begin where five of them are centred, as in the official code; further ones
    follow to the right and below where they fit.
    """
    _, h, w, c = images.shape
    side = max(min(h, w) // 5, 1)
    first = max((min(h, w) - 5 * side) // 2, 0)
    rows, columns = (h - first) // side, (w - first) // side
    eta = jnp.asarray(pyramid(side, norm), images.dtype)

    def perturbation(key):
        signs = jax.random.rademacher(key, (rows, columns, 1, 1, c + 1), images.dtype)
        windows = jnp.where(signs[..., -1:] > 0, eta[None, None, :, :, None], eta.T[None, None, :, :, None]) * signs[..., :-1]
        tiled = windows.transpose(0, 2, 1, 3, 4).reshape(rows * side, columns * side, c)
        return jnp.pad(tiled, ((first, h - first - rows * side), (first, w - first - columns * side), (0, 0)))

    return _to_edge(jax.vmap(perturbation)(keys), images, eps, norm)


def transfer_mass(
    best: Float[Array, "b h w c"], images: Float[Array, "b h w c"], eps: Array, draws: Draws, sides: Sides
) -> Float[Array, "b h w c"]:
    """Returns the L2 or L1 candidates: Andriushchenko et al., ECCV 2020, Algorithm 3, with the constants of AutoAttack.

    Per channel, the first window gets a pyramid of random sign added to what it held, both of norm 1, scaled to the norm of what
    both windows held and of what the ball has left; the second window is emptied where they do not overlap. Its L1 form
    multiplies by the number of channels, as the official code does, so that the projection has work to do.
    """
    norm = sides.norm
    _, h, w, c = images.shape
    delta = best - images
    here = _square(draws.top, draws.left, draws.side, h, w)
    there = _square(draws.other_top, draws.other_left, draws.side, h, w)
    amount = jnp.square if norm == "l2" else jnp.abs
    root = jnp.sqrt if norm == "l2" else lambda x: x
    mass = amount(delta)
    total = jnp.sum(mass, axis=(1, 2, 3))[:, None]
    held, both = _over_pixels(jnp.where(here, mass, 0)), _over_pixels(jnp.where(here | there, mass, 0))
    budget = root(jnp.maximum(amount(eps) - total, 0) / c + both) * (1 if norm == "l2" else c)

    signs = draws.signs.astype(images.dtype)[:, None, None]
    mixed = jnp.where(here, _pyramids(draws, sides, h, w, images.dtype) * signs + delta / _wide(TINY + root(held)), 0)
    scale = budget / (TINY + root(_over_pixels(amount(mixed))))
    moved = jnp.where(here, mixed * _wide(scale), jnp.where(there, 0, delta))
    # Else XLA computes `moved` anew in each pass over it.
    return _to_edge(jax.lax.optimization_barrier(moved), images, eps, norm)


def _over_pixels(values: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """Returns the sums over height and width, one after the other: XLA on CPU is slow to sum both beside a short last axis."""
    b, h, w, c = values.shape
    lines = jax.lax.optimization_barrier(jnp.sum(values.reshape(b, h, w * c), axis=1))
    return jnp.sum(lines.reshape(b, w, c), axis=1)


def _to_edge(delta: Float[Array, "b h w c"], images: Float[Array, "b h w c"], eps: Array, norm: str) -> Float[Array, "b h w c"]:
    """Returns images + delta with delta of norm eps, or less where the box is in the way."""
    if norm == "l2":
        return jnp.clip(images + delta * (eps / (TINY + image_norm(delta)))[:, None, None, None], 0, 1)
    return jnp.clip(images + l1_ball_and_box(delta, images, eps * INSIDE), 0, 1)


def _pyramids(draws: Draws, sides: Sides, h: int, w: int, dtype) -> Float[Array, "b h w 1"]:
    """Returns the windows eta where the draws put them; what lies outside of the window is not to be read."""
    largest = max(sides.sides)
    # Of each side, (factor, profile) over the rows and over the columns of an unturned window.
    table = np.zeros((2, len(sides.sides), 2, largest))
    for k, side in enumerate(sides.sides):
        factor, across, along = pyramid_profiles(side, sides.norm)
        table[:, k, :, :side] = ((factor, across), (np.ones(side), along))
    table = jnp.asarray(table, dtype)

    def side_of(axis: Array, corner: Array, n: int):
        place = jnp.clip(jnp.arange(n, dtype=jnp.int32)[None] - corner[:, None], 0, largest - 1)
        return (jnp.take_along_axis(table[axis, draws.level, part], place, axis=1) for part in (0, 1))

    turned = draws.turned.astype(jnp.int32)
    row_factor, rows = side_of(turned, draws.top, h)
    column_factor, columns = side_of(1 - turned, draws.left, w)
    fall = jnp.minimum(rows[:, :, None], columns[:, None])
    return (row_factor[:, :, None] * column_factor[:, None] * fall)[..., None]


def _square(top: Array, left: Array, side: Array, h: int, w: int) -> Bool[Array, "b h w 1"]:
    def between(first: Array, n: int):
        place = jnp.arange(n, dtype=jnp.int32)[None]
        return (place >= first[:, None]) & (place < (first + side)[:, None])

    return (between(top, h)[:, :, None] & between(left, w)[:, None])[..., None]


def _wide(values: Float[Array, "b c"]) -> Float[Array, "b 1 1 c"]:
    return values[:, None, None]
