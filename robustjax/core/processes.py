"""Several processes as one run: what each of them knows is gathered, what stops one stops all, and the first one writes.

With one process these functions do nothing but what they are asked to, so their callers need not know how many there are. Every
process must make the same calls in the same order.
"""

import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from robustjax.core.check import InputError
from robustjax.core.parallel import AXIS


def is_first() -> bool:
    """Returns whether this process is the one that writes files and shows progress."""
    return jax.process_index() == 0


def gather(value: Any) -> list:
    """Returns the JSON-like `value` of every process, in their order."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.ravel(multihost_utils.process_allgather(np.int32(len(text))))
    # Powers of two, so that few programs are compiled.
    padded = np.zeros(1 << max(8, int(sizes.max() - 1).bit_length()), np.uint8)
    padded[: len(text)] = text
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(row[:size])) for row, size in zip(rows, sizes, strict=True)]


def together(function: Callable, *arguments: Any, first_only: bool = False) -> Any:
    """Calls a function on every process, and raises on all of them if it raises on one: else they would wait for it for ever.

    Args:
        function: what to call.
        *arguments: with what; they may differ between the processes.
        first_only: call it on the first process only.

    Returns:
        What it returned on this process; None where it was not called.

    Raises:
        InputError: on the other processes, with the number and the error of the one that failed; that one raises its own.
    """
    if jax.process_count() == 1:
        return function(*arguments)
    result = failed = None
    try:
        if is_first() or not first_only:
            result = function(*arguments)
    except Exception as error:
        failed = error
    problems = gather(None if failed is None else str(failed) or type(failed).__name__)
    if failed is not None:
        raise failed
    for number, problem in enumerate(problems):
        if problem is not None:
            raise InputError(f"process {number} of {len(problems)} stopped: {problem}")
    return result


def from_first(tree: Any) -> Any:
    """Returns the arrays of the first process on all of them, bit by bit.

    Args:
        tree: arrays; on the other processes any of the same names, shapes and dtypes.

    Returns:
        The tree with NumPy arrays; with one process the tree itself.
    """
    if jax.process_count() == 1:
        return tree
    tree = jax.tree.map(np.asarray, tree)
    # As bytes, since a sum of floats, as which they are sent, turns -0.0 into 0.0.
    sent = multihost_utils.broadcast_one_to_all(jax.tree.map(lambda x: np.frombuffer(x.tobytes(), np.uint8), tree))
    return jax.tree.map(lambda x, like: np.frombuffer(np.asarray(x).tobytes(), like.dtype).reshape(like.shape), sent, tree)


def any_of(flag: bool, mesh: Mesh) -> bool | jax.Array:
    """Returns whether any process says so: an array that is not waited for, since it is known only after what was begun before it."""
    if jax.process_count() == 1:
        return flag
    sharding = NamedSharding(mesh, P(AXIS))
    flags = jax.make_array_from_process_local_data(sharding, np.full(mesh.local_mesh.size, flag))
    return _any(mesh)(flags)


def leave(status: int) -> None:
    """Ends this process before its work is done, if it is one of several, and returns if it is not.

    At a usual exit jax waits minutes for the other processes, which may wait for this one. Those that have met the same error get a
    second to say so: the end of the first process ends them all.
    """
    if jax.distributed.is_initialized():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # nobody reads it any more
                stream.flush()
        time.sleep(1)
        os._exit(status)


@functools.cache
def _any(mesh: Mesh) -> Callable:
    return jax.jit(jnp.any, out_shardings=NamedSharding(mesh, P()))
