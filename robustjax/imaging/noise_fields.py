"""Random fields on a grid: the plasma fractal of fog."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from robustjax.core.check import InputError


def plasma_draws(size: int) -> int:
    """Returns how many uniforms a plasma of `size` takes: one for each point but the first."""
    return size * size - 1


def plasma(uniforms: Float[Array, "b n"], *, size: int, decay: Float[Array, ""]) -> Float[Array, "b {size} {size}"]:
    """Returns plasma fractals in [0, 1], smallest value 0 and largest 1, made by diamond-square on a torus.

    The lattice, at first one point of value 0, is refined log2(size) times. Each time the midpoints of its squares become the mean
    of their four corners plus w² (2 u - 1), then the midpoints of rows' edges and those of columns' edges likewise, the mean of
    their two ends and the two squares beside them; w is divided by `decay` after each time, so detail falls by decay² an octave.

    Args:
        uniforms: u in [0, 1), plasma_draws(size) for each field, in the order of use.
        size: side of the field, a power of two.
        decay: above 0, possibly traced.

    Raises:
        InputError: for a size that is no power of two, or another number of uniforms.
    """
    if size < 2 or size & (size - 1):
        raise InputError(f"size of a plasma must be a power of two, got {size}.")
    if uniforms.shape[1] != plasma_draws(size):
        raise InputError(f"a plasma of size {size} takes {plasma_draws(size)} uniforms a field, got {uniforms.shape[1]}.")
    signed = 2 * uniforms - 1
    lattice = jnp.zeros_like(signed[:, :1, None])
    side, used, strength = 1, 0, jnp.ones_like(decay)  # w starts at 1: any other start is divided out below
    while side < size:
        count = side * side
        square, row, column = (strength * signed[:, used + i * count : used + (i + 1) * count].reshape(-1, side, side) for i in range(3))
        across = lattice + jnp.roll(lattice, -1, axis=2)
        down = lattice + jnp.roll(lattice, -1, axis=1)
        middles = (across + jnp.roll(across, -1, axis=1)) / 4 + square
        row_edges = (middles + jnp.roll(middles, 1, axis=1) + across) / 4 + row
        column_edges = (middles + jnp.roll(middles, 1, axis=2) + down) / 4 + column
        even, odd = jnp.stack([lattice, row_edges], axis=3), jnp.stack([column_edges, middles], axis=3)
        lattice = jnp.stack([even, odd], axis=2).reshape(-1, 2 * side, 2 * side)
        side, used, strength = 2 * side, used + 3 * count, strength / (decay * decay)
    lattice = lattice - lattice.min(axis=(1, 2), keepdims=True)
    top = lattice.max(axis=(1, 2), keepdims=True)
    return lattice / jnp.where(top > 0, top, 1)  # draws of 1/2 throughout make a flat field
