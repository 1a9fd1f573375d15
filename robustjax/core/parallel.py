"""One program on many devices: a step written for one device, mapped over all devices of all processes.

The mesh has one axis, 'data'. A step sees the rows of its own device and agrees with the others through collectives
(`jax.lax.pmean(gradients, AXIS)`); nothing is averaged behind its back. Randomness is keyed by example, so a batch gives the
same draws on one device and on many.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from robustjax.core.check import InputError
from robustjax.core.rng import is_key, on_data

AXIS = "data"

# Variables that launchers of several processes set: Slurm's srun, Open MPI, GKE and Cloud TPU. jax reads the rest of them itself.
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
_HOSTS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")


def several(environment: Mapping[str, str] | None = None) -> bool:
    """Returns whether the environment says that this process is one of several; see `initialize`. Connects nothing.

    Args:
        environment: read in place of os.environ, for tests.
    """
    env = os.environ if environment is None else environment
    if "JAX_NUM_PROCESSES" in env:
        return env["JAX_NUM_PROCESSES"] != "1"
    counts = [int(env[name]) for name in _COUNTS if env.get(name)] + [len(env[name].split(",")) for name in _HOSTS if env.get(name)]
    return max(counts, default=1) > 1


def initialize(environment: Mapping[str, str] | None = None) -> bool:
    """Connects the processes of one run, if the environment says that there are several; else does nothing.

    Call it before the first JAX computation. Several processes are configured by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES
    and JAX_PROCESS_ID; by srun, mpirun or a TPU slice, which jax detects; or by JAX_NUM_PROCESSES=auto, which leaves all to
    jax's detection (a Cloud TPU pod asks its metadata server).

    Args:
        environment: read in place of os.environ to decide, for tests.

    Returns:
        Whether this process is one of several.

    Raises:
        InputError: if JAX_NUM_PROCESSES is set and the other two are missing or make no sense.
    """
    env = os.environ if environment is None else environment
    if jax.distributed.is_initialized():
        return jax.process_count() > 1
    if not several(env):
        return False
    asked = env.get("JAX_NUM_PROCESSES")
    if asked is None or asked == "auto":
        jax.distributed.initialize()
        return jax.process_count() > 1
    address, number = env.get("JAX_COORDINATOR_ADDRESS", ""), env.get("JAX_PROCESS_ID", "")
    if not asked.isdigit() or int(asked) < 1:
        raise InputError(f"JAX_NUM_PROCESSES must be a number of processes or 'auto', got {asked!r}.")
    if ":" not in address or not number.isdigit() or int(number) >= int(asked):
        raise InputError(
            f"JAX_NUM_PROCESSES={asked} also needs JAX_COORDINATOR_ADDRESS=host:port and JAX_PROCESS_ID from 0 to {int(asked) - 1}, "
            f"got {address!r} and {number!r}."
        )
    jax.distributed.initialize(address, num_processes=int(asked), process_id=int(number))
    return True


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns the mesh of one axis, 'data', over all devices of all processes, or over those given.

    The devices of one process stand side by side, so its rows of a global batch are contiguous.
    """
    devices = sorted(jax.devices() if devices is None else devices, key=lambda d: (d.process_index, d.id))
    # Auto, since with jax's default of Explicit axes shard_map rejects ordinary arrays.
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies every leaf to every device of the mesh; all processes must pass equal values."""
    sharding = NamedSharding(mesh, P())

    def copied(leaf):
        # device_put shares the buffer where it can (may_alias=False or not), and a step that donates its state would delete
        # the caller's array with it.
        return jax.device_put(jnp.array(leaf, copy=True) if isinstance(leaf, jax.Array) else leaf, sharding)

    return jax.tree.map(functools.partial(on_data, copied), tree)


def own_rows(tree: Any) -> Any:
    """Returns this process's part of a batch that every process knows in full; what `shard_rows` takes.

    Raises:
        InputError: if the rows do not split evenly over the processes.
    """
    part, parts = jax.process_index(), jax.process_count()
    check_divides(tree, parts, what="processes")
    return jax.tree.map(lambda leaf: leaf[part * len(leaf) // parts : (part + 1) * len(leaf) // parts], tree)


def shard_rows(tree: Any, mesh: Mesh) -> Any:
    """Splits rows over the devices of the mesh.

    Args:
        tree: leaves whose leading axis is this process's part of the batch; all processes have parts of equal size.
        mesh: from `data_mesh`.

    Returns:
        Global arrays, of the rows of all processes in order.

    Raises:
        InputError: if the rows do not divide by the number of this process's devices in the mesh.
    """
    check_divides(tree, mesh.local_mesh.size)
    sharding = NamedSharding(mesh, P(AXIS))
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def globalise(leaf):
        return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))

    return jax.tree.map(functools.partial(on_data, globalise), tree)


def check_divides(tree: Any, parts: int, *, what: str = "devices") -> None:
    """Raises InputError, with the nearest sizes that work, if the rows of a leaf do not split evenly over the parts."""
    for leaf in jax.tree.leaves(tree):
        rows = leaf.shape[0] if leaf.ndim else 0
        if rows == 0 or rows % parts:
            near = sorted({max(parts, rows // parts * parts), (rows // parts + 1) * parts})
            raise InputError(f"a batch of {rows} does not split over {parts} {what}; nearest that does: {' or '.join(map(str, near))}.")


def data_parallel(
    step: Callable[[Any, Any, Any], tuple[Any, Any]],
    mesh: Mesh,
    *,
    mode: str = "shard_map",
    donate: bool = True,
) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """Maps a per-device step over the mesh.

    Args:
        step: (state, replicated, sharded) -> (state, metrics), for the rows of one device. It must make state and metrics
            equal on all devices by collectives over 'data', with an explicit `pmean` of the gradients after `jax.grad`.
        mesh: from `data_mesh`.
        mode: 'shard_map', or 'pmap' for the same step through `jax.pmap`; the numbers are the same bit by bit.
        donate: give the memory of the old state to the new one; the state passed in is then gone.

    Returns:
        The mapped function, of the same signature on global arrays: `state` and `replicated` (e.g. the resident data set)
        are the same on all devices, leaves of `sharded` are split along their leading axis; results are replicated.

    Raises:
        InputError: for an unknown mode and, when called, for a batch that does not split evenly.
    """
    if mode not in ("shard_map", "pmap"):
        raise InputError(f"parallel mode must be 'shard_map' or 'pmap', got {mode!r}.")
    mapped = (_shard_mapped if mode == "shard_map" else _pmapped)(step, mesh, (0,) if donate else ())

    def call(state, replicated, sharded):
        check_divides(sharded, mesh.size)
        return mapped(state, replicated, sharded)

    return call


def _shard_mapped(step, mesh, donated):
    # check_vma=True would sum the gradients of replicated parameters by itself: the step's pmean then leaves them n times too large.
    specs = dict(in_specs=(P(), P(), P(AXIS)), out_specs=P())
    return jax.jit(jax.shard_map(step, mesh=mesh, check_vma=False, **specs), donate_argnums=donated)


def _pmapped(step, mesh, donated):
    n = mesh.size
    # (b, ...) -> (devices, b / devices, ...), on the devices where the rows already are.
    fold = jax.jit(
        lambda tree: jax.tree.map(lambda x: x.reshape(n, x.shape[0] // n, *x.shape[1:]), tree),
        out_shardings=NamedSharding(mesh, P(AXIS)),
    )

    @functools.cache
    def program(kinds):
        def on_one_device(*raw):
            leaves, tree = jax.tree.flatten(raw)
            keys = [jax.random.wrap_key_data(x, impl=kind) if kind else x for x, kind in zip(leaves, kinds, strict=True)]
            return step(*tree.unflatten(keys))

        axes = dict(in_axes=(None, None, 0), out_axes=None)
        return jax.pmap(on_one_device, axis_name=AXIS, devices=list(mesh.devices.flat), donate_argnums=donated, **axes)

    def call(*arguments):
        # Typed keys go as integers: with several processes jax.pmap would read them on the host, and fail.
        leaves, tree = jax.tree.flatten(arguments)
        kinds = tuple(jax.random.key_impl(x) if is_key(x) else None for x in leaves)
        state, replicated, sharded = tree.unflatten(jax.random.key_data(x) if is_key(x) else x for x in leaves)
        results = program(kinds)(state, replicated, fold(sharded))
        return jax.tree.map(functools.partial(on_data, everywhere), results) if jax.process_count() > 1 else results

    def everywhere(leaf):
        # With several processes jax.pmap returns arrays of this process's devices alone.
        shards = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, NamedSharding(mesh, P()), shards)

    return call
