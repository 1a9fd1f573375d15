"""Random fields on a grid: the plasma fractal of fog."""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float

from robustjax.core.check import InputError

Field = Float[Array, "b s s"]


def plasma_draws(size: int) -> int:
    """Returns how many uniforms a plasma of `size` takes: one for each point but the first."""
    return size * size - 1


def plasma(uniforms: Float[Array, "b n"], *, size: int, decay: Float[Array, ""], crop: int | None = None) -> Float[Array, "b s s"]:
    """Returns plasma fractals in [0, 1], smallest value 0 and largest 1, made by diamond-square on a torus.

    The lattice, at first one point of value 0, is refined log2(size) times. Each time the midpoints of its squares become the mean
    of their four corners plus w² (2 u - 1), then the midpoints of rows' edges and those of columns' edges likewise, the mean of
    their two ends and the two squares beside them; w is divided by `decay` after each time, so detail falls by decay² an octave.

    Args:
        uniforms: u in [0, 1), plasma_draws(size) for each field, in the order of use.
        size: side of the field, a power of two.
        decay: above 0, possibly traced.
        crop: side of the upper left part to return, cut after the scaling to [0, 1]; all of it by default.

    Raises:
        InputError: for a size that is no power of two, or another number of uniforms.
    """
    if size < 2 or size & (size - 1):
        raise InputError(f"size of a plasma must be a power of two, got {size}.")
    if uniforms.shape[1] != plasma_draws(size):
        raise InputError(f"a plasma of size {size} takes {plasma_draws(size)} uniforms a field, got {uniforms.shape[1]}.")
    signed, crop = 2 * uniforms - 1, crop or size
    lattice = jnp.zeros_like(signed[:, :1, None])
    side, used, strength = 1, 0, jnp.ones_like(decay)  # w starts at 1: any other start is divided out below
    while True:
        count = side * side
        fresh = [strength * signed[:, used + i * count : used + (i + 1) * count].reshape(-1, side, side) for i in range(3)]
        parts = _refined(lattice, *fresh)
        side, used, strength = 2 * side, used + 3 * count, strength / (decay * decay)
        if side == size:
            break
        lattice = _interleaved(parts)
    # The finest lattice is three quarters of all values: only what is asked for is put together.
    low = functools.reduce(jnp.minimum, [part.min(axis=(1, 2), keepdims=True) for part in parts])
    top = functools.reduce(jnp.maximum, [part.max(axis=(1, 2), keepdims=True) for part in parts])
    half = (crop + 1) // 2
    lattice = _interleaved([part[:, :half, :half] for part in parts])[:, :crop, :crop]
    return (lattice - low) / jnp.where(top > low, top - low, 1)  # draws of 1/2 throughout make a flat field


def _refined(lattice: Field, square: Field, row: Field, column: Field) -> list[Field]:
    """Returns the lattice, the midpoints of its rows' edges, those of its columns' edges and those of its squares."""
    across = lattice + jnp.roll(lattice, -1, axis=2)
    down = lattice + jnp.roll(lattice, -1, axis=1)
    middles = (across + jnp.roll(across, -1, axis=1)) / 4 + square
    row_edges = (middles + jnp.roll(middles, 1, axis=1) + across) / 4 + row
    column_edges = (middles + jnp.roll(middles, 1, axis=2) + down) / 4 + column
    return [lattice, row_edges, column_edges, middles]


def _interleaved(parts: list[Field]) -> Float[Array, "b t t"]:
    """Returns the lattice of twice the side that the parts of `_refined` make."""
    side = parts[0].shape[1]
    even, odd = jnp.stack(parts[:2], axis=3), jnp.stack(parts[2:], axis=3)
    return jnp.stack([even, odd], axis=2).reshape(-1, 2 * side, 2 * side)
