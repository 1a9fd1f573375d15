"""Loops around networks: in the graph where something is traced, driven from Python where everything is concrete.

XLA:CPU runs a convolution inside a loop body 4 to 8 times slower than outside (jax issue 12868), so on CPU short loops are
unrolled. Outside of a trace the loop is cut into jitted chunks, and examples that are done leave the batch between chunks;
on CPU large batches are computed a block of rows at a time, which keeps what the network computes in the cache.
Every iterative kernel goes through `repeat`.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding

from robustjax.core.check import InputError, is_concrete
from robustjax.core.rng import on_data

UNROLL = 32  # longest unrolled loop on CPU: compile time grows faster than the number of steps beyond it
SMALLEST = 4  # (at least 2) examples below which a batch is not made smaller: one more program would cost more than it saves
BLOCK = 32  # most rows computed together on CPU: what a network computes of larger batches falls out of the cache


class _Part(NamedTuple):
    """Rows that are computed together."""

    state: Any
    rows: np.ndarray  # which ones of the whole state they are; what the state holds beyond them is padding


def repeat(
    step: Callable[[Any, jax.Array, Any, Any], Any],
    context: Any,
    state: Any,
    n: int,
    *,
    config: Hashable,
    done: Callable[[Any], jax.Array] | None = None,
    chunk: int = 10,
    start: int | jax.Array = 0,
) -> Any:
    """Applies `state = step(context, i, state, config)` for i = start, ..., start + n - 1.

    The result is the same, example by example, whether the loop is traced or not, with any `chunk`, and whether or not
    examples were dropped: an example for which `done` holds is frozen from then on.

    Args:
        step: a module-level function, so that repeated calls find the compiled program again. It must treat the examples
            independently of each other and return a state of the same shapes and dtypes.
        context: any pytree that all examples share, e.g. a `jax.tree_util.Partial` of the network and its weights. A
            plain function is compiled once per function object: a new one compiles anew, and arrays that it closes
            over are baked in, so pass a Partial where weights change.
        state: a pytree whose leaves have one row for each example. Typed keys are welcome: fold `i` into them.
        n: number of steps.
        config: hashable; a new value compiles anew.
        done: module-level function, state -> bool (b,): which examples need no further step.
        chunk: most steps between two looks at `done` when nothing is traced.
        start: number of the first step; a loop cut in two and resumed gives the same result as an uncut one.

    Returns:
        The state after the last step.

    Raises:
        InputError: if the leaves of the state do not have the same number of rows.
    """
    full = _count_rows(state)
    if n <= 0 or full == 0:
        return state
    # Functions are not arrays: a Partial carries them through jit as part of the structure.
    context = jax.tree.map(lambda leaf: jax.tree_util.Partial(leaf) if callable(leaf) else leaf, context)
    if _being_traced() or not is_concrete(context, state, start):
        return _in_graph(step, context, state, start, n, config, done)

    size = _chunk_size(n, chunk)
    end = start + n
    block = _block_size(state)
    parts = _split(state, np.arange(full), block)
    for first in range(start, end, size):
        finished = None if done is None or not _can_be_cut(state) else [_finished(done, part.state) for part in parts]
        # Where `step` closes over traced values, which no argument shows, nobody can look and nobody is dropped.
        if finished is not None and is_concrete(finished):
            state, parts = _drop(state, parts, finished, block)
            if not parts:
                return state
        advanced = (_chunk(step, context, p.state, jnp.int32(first), jnp.int32(end), size, config, done, n % size != 0) for p in parts)
        parts = [_Part(new, part.rows) for new, part in zip(advanced, parts, strict=True)]
    return _join(state, parts)


def _in_graph(step, context, state, start, n, config, done):
    start = jnp.asarray(start, jnp.int32)

    def body(i, state):
        return _advance(step, context, i, state, config, done, None)

    if jax.default_backend() == "cpu" and n <= UNROLL:
        body = jax.jit(body)  # traced once, inlined n times; lax.scan(unroll=True) keeps a slow loop for one step
        for i in range(n):
            state = body(start + jnp.int32(i), state)
        return state
    # A constant number of steps becomes a scan, which has a reverse derivative.
    return jax.lax.fori_loop(0, n, lambda i, s: body(start + jnp.asarray(i, jnp.int32), s), state)


@functools.partial(jax.jit, static_argnames=("step", "size", "config", "done", "masked"))
def _chunk(step, context, state, first, end, size, config, done, masked):
    """`size` steps; where `masked`, those from `end` on change nothing, so that one program serves the last chunk too."""
    if not masked:
        return _in_graph(step, context, state, first, size, config, done)

    def limited(context, i, state, config):
        return _advance(step, context, i, state, config, None, end)

    return _in_graph(limited, context, state, first, size, config, done)


def _advance(step, context, i, state, config, done, end):
    new = step(context, i, state, config)
    if done is None and end is None:
        return new
    frozen = jnp.full((_count_rows(state),), i >= end) if done is None else done(state)
    return _on_rows(lambda old, new: jnp.where(frozen.reshape(-1, *[1] * (old.ndim - 1)), old, new), state, new)


@functools.partial(jax.jit, static_argnames="done")
def _finished(done, state):
    return done(state)


def _drop(state, parts, finished, block):
    """Returns (state, parts): finished rows written back to the state, the rest in as few rows as is worth it."""
    keep = np.concatenate([part.rows[~np.asarray(flags)[: len(part.rows)]] for part, flags in zip(parts, finished, strict=True)])
    if len(keep) and sum(_sizes(len(keep), block)) >= sum(_count_rows(part.state) for part in parts):
        return state, parts
    state = _join(state, parts)
    return state, _split(state, keep, block)


def _split(state, rows, block) -> list[_Part]:
    """Cuts `rows` of the state into parts of at most `block`; only the last one is padded."""
    if len(rows) == _count_rows(state) <= block:
        return [_Part(state, rows)]
    firsts = range(0, len(rows), block)
    pieces = [rows[first : first + block] for first in firsts]
    # Padded by repeating rows, whose results are not read.
    return [_Part(_gather(state, np.resize(p, size)), p) for p, size in zip(pieces, _sizes(len(rows), block), strict=True)]


def _join(state, parts):
    """Returns the state with what the parts hold written to its rows."""
    new = parts[0].state if len(parts) == 1 else _concatenate([part.state for part in parts])
    rows = np.concatenate([part.rows for part in parts])
    if len(rows) < _count_rows(state):
        return _scatter(state, new, rows)
    return new if len(rows) == _count_rows(new) else _gather(new, rows)  # nothing was dropped: the rows are in order


def _block_size(state) -> int:
    """Returns how many rows to compute together: on one CPU at most BLOCK, in parts as equal as can be, else all."""
    full = _count_rows(state)
    if jax.default_backend() != "cpu" or any(len(s.device_set) > 1 for s in _shardings(state)):
        return full
    return -(-full // -(-full // BLOCK))


def _sizes(rows: int, block: int) -> list[int]:
    """Returns the sizes of the parts that hold `rows`: full ones, and a bucket for the rest."""
    whole, rest = divmod(rows, block)
    return [block] * whole + ([_bucket(rest, block)] if rest else [])


def _can_be_cut(state) -> bool:
    """Returns whether rows can be picked from the state: not where jax wants to be told on which devices they should lie then."""
    return not any(isinstance(s, NamedSharding) and AxisType.Explicit in s.mesh.axis_types and s.num_devices > 1 for s in _shardings(state))


def _shardings(state):
    return [leaf.sharding for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array) and is_concrete(leaf)]


def _bucket(rows: int, full: int) -> int:
    """Returns the least of full, full/2, full/4, ... that holds `rows`: a fixed and small number of shapes."""
    size = full
    while (half := (size + 1) // 2) >= max(rows, SMALLEST):
        size = half
    return size


def _chunk_size(n: int, chunk: int) -> int:
    """Returns a size up to `chunk` that wastes as few steps of the last chunk as possible, the larger of equals."""
    chunk = max(1, min(chunk, n))
    return min(range((chunk + 1) // 2, chunk + 1), key=lambda size: (-n % size, -size))


def _count_rows(state) -> int:
    counts = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(state)}
    if len(counts) != 1 or () in counts:
        raise InputError(f"every leaf of a loop's state needs one row an example, got {jax.tree.map(np.shape, state)}.")
    return counts.pop()[0]


def _being_traced() -> bool:
    # Inside jit even an operation on constants is staged.
    return not is_concrete(jnp.int32(0) + jnp.int32(0))


def _on_rows(function, *trees):
    return jax.tree.map(functools.partial(on_data, function), *trees)


@jax.jit
def _concatenate(states):
    return _on_rows(lambda *leaves: jnp.concatenate(leaves), *states)


@jax.jit
def _gather(state, rows):
    return _on_rows(lambda leaf: leaf[rows], state)


@jax.jit
def _scatter(state, part, rows):
    return _on_rows(lambda old, new: old.at[rows].set(new[: len(rows)]), state, part)
