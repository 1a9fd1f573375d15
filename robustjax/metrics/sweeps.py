"""One network, or one loss, at many points: in few compiled programs, a bounded number of points at a time."""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robustjax.core import loops
from robustjax.core.check import is_concrete

POINTS = 4  # of each example computed together; with the 32 examples that loops.repeat takes at a time on CPU, a batch of 128


def over_points(
    measure: Callable[[jax.tree_util.Partial, Any, Array], Array],
    function: jax.tree_util.Partial,
    rows: Any,
    coordinates: Float[Array, "n m"],
    *,
    dtype: Any,
) -> Float[Array, "b n"]:
    """Measures every example at every point.

    Args:
        measure: a module-level function of (function, rows (b', ...), coordinates (b', m)) -> (b',), one point for each row.
        function: the network or loss, as `functions.as_partial` returns it.
        rows: pytree, one row for each example in each leaf.
        coordinates: of the points, the same for all examples.
        dtype: of what `measure` returns.

    Returns:
        (b, n).
    """
    n = coordinates.shape[0]
    # Where something is traced the loop is in the graph, and only short ones are fast there (see core/loops.py).
    size = POINTS if is_concrete(function, rows, coordinates) else max(POINTS, -(-n // loops.UNROLL))
    pieces, values = _lay_out(rows, coordinates, size, np.dtype(dtype))
    # One step a program: the network is compiled once, not once for each of several steps.
    _, values = loops.repeat(_some_points, (function, pieces), (rows, values), pieces.shape[0], config=measure, chunk=1)
    return values[:, :n]


@functools.partial(jax.jit, static_argnames=("size", "dtype"))
def _lay_out(rows: Any, coordinates: Array, size: int, dtype: np.dtype) -> tuple[Array, Array]:
    """Returns the coordinates in pieces (steps, size, m), the last point repeated to fill the last one, and room for the values."""
    n, m = coordinates.shape
    steps = -(-n // size)
    pieces = jnp.pad(coordinates, ((0, steps * size - n), (0, 0)), mode="edge").reshape(steps, size, m)
    first = jax.tree.leaves(rows)[0]
    row = first.reshape(first.shape[0], -1)[:, :1]  # for its place: what a loop carries must vary over a mesh as the rows do
    return pieces, jnp.zeros_like(jnp.broadcast_to(row, (first.shape[0], steps * size)), dtype)


def _some_points(context: Any, i: Array, state: Any, measure: Callable) -> Any:
    function, coordinates = context
    rows, values = state
    here = coordinates[i]
    b, size = values.shape[0], here.shape[0]
    many = jax.tree.map(lambda leaf: jnp.repeat(leaf, size, axis=0), rows)
    found = measure(function, many, jnp.tile(here, (b, 1))).reshape(b, size)
    return rows, jax.lax.dynamic_update_slice(values, found.astype(values.dtype), (jnp.zeros_like(i), i * size))


def each(measure: Callable[..., Array], context: Any, n: int, *, dtype: Any, option: Hashable = None) -> Float[Array, " n"]:
    """Returns measure(context, i, option) for i = 0, ..., n - 1, one after the other, by one compiled program.

    Args:
        measure: a module-level function that returns one number.
        context: any pytree.
        n: how many, at least 1.
        dtype: of what `measure` returns.
        option: static.
    """
    return loops.repeat(_one, context, jnp.zeros((1, n), dtype), n, config=(measure, option), chunk=1)[0]


def _one(context: Any, i: Array, values: Array, config: tuple) -> Array:
    measure, option = config
    return values.at[0, i].set(measure(context, i, option).astype(values.dtype))
