"""parallel: eight devices are one device, shard_map is pmap, and bad batches say so; each test names the mutants it kills."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from robustjax.core import example_keys, parallel
from robustjax.core.check import InputError
from robustjax.models import functional
from tests.launch import commands

BATCH = 16


class Net(nnx.Module):
    """Convolution, batch norm, relu, mean, linear head."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def features(self, images):
        """Returns pooled features."""
        return nnx.relu(self.norm(self.conv(images))).mean((1, 2))


def make_step(apply, tx):
    def step(state, data, ids):
        params, stats, opt = state
        keys = example_keys(jax.random.key(7), ids)
        images = data["images"][ids]
        noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)
        targets = jax.nn.one_hot(data["labels"][ids], 3, dtype=images.dtype)

        def loss_of(params):
            out, new = apply(params, stats, images + 0.1 * noise, True, axis_name="data")
            return optax.softmax_cross_entropy(out.logits, targets).mean(), new

        (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        grads, loss = jax.lax.pmean((grads, loss), "data")
        updates, opt = tx.update(grads, opt, params)
        return (optax.apply_updates(params, updates), stats, opt), {"loss": loss, "norm": optax.tree.norm(grads)}

    return step


def train(devices, steps, *, mode="shard_map", clip=False, dtype=jnp.float32):
    """Returns the state and metrics after `steps` steps on the first `devices` devices."""
    mesh = parallel.data_mesh(jax.devices()[:devices])
    apply, params, stats = functional.split(Net(nnx.Rngs(0)))
    params, stats = jax.tree.map(lambda a: a.astype(dtype), (params, stats))
    # The clipped norm lies far below the gradients', so that clipping acts on every step.
    tx = optax.chain(optax.clip_by_global_norm(0.05) if clip else optax.identity(), optax.sgd(0.3, momentum=0.9))
    state = parallel.replicate((params, stats, tx.init(params)), mesh)
    rng = np.random.default_rng(0)
    data = {"images": rng.uniform(size=(40, 6, 6, 1)).astype(dtype), "labels": rng.integers(0, 3, 40)}
    data = parallel.replicate(data, mesh)
    step = parallel.data_parallel(make_step(apply, tx), mesh, mode=mode)
    for i in range(steps):
        ids = np.random.default_rng(i).permutation(40)[:BATCH].astype(np.int32)
        state, metrics = step(state, data, parallel.shard_rows(ids, mesh))
    return jax.tree.map(np.asarray, (state, metrics))


def assert_close(a, b, atol):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=atol), a, b)


def test_pmap_is_shard_map_bit_by_bit():
    # Kills: rows folded in another order for pmap; state mapped rather than replicated; metrics left per device.
    one, other = train(8, 3), train(8, 3, mode="pmap")
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("clip", [False, True])
def test_eight_devices_are_one_device_after_one_step(clip):
    # Kills: gradients n times too large (check_vma=True with pmean; psum for pmean), seen without clipping; statistics of
    # batch norm per device; clipping before averaging; keys by place in the device's batch.
    assert_close(train(8, 1, clip=clip), train(1, 1, clip=clip), 1e-6)


@pytest.mark.parametrize("clip", [False, True])
def test_eight_devices_stay_one_device_in_float64(clip):
    # Kills: what the float32 test forgives, e.g. unsynchronised running statistics of a nearly constant batch.
    # Standard promotion: flax's BatchNorm asks for the promotion of float64 and float32.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        eight, one = train(8, 20, clip=clip, dtype=jnp.float64), train(1, 20, clip=clip, dtype=jnp.float64)
    assert eight[1]["loss"].dtype == np.float64
    assert_close(eight, one, 1e-12)


def test_every_step_moves_every_parameter():
    # Kills: a step whose updates or statistics are dropped, under which the comparisons above would hold trivially.
    (params, stats, _), _ = train(8, 1)
    (later, moved, _), _ = train(8, 3)
    for old, new in zip(jax.tree.leaves((params, stats)), jax.tree.leaves((later, moved)), strict=True):
        assert abs(old - new).max() > 1e-7


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_donation_spares_what_the_caller_holds(mode):
    # Kills: no donation; replicate() that shares its buffers with the caller's arrays, which donation would then delete.
    mesh = parallel.data_mesh()
    mine = jnp.arange(64.0)
    with jax.debug_nans(False):  # jax does not donate while it looks for NaNs
        step = parallel.data_parallel(lambda s, _, rows: (s + jax.lax.psum(rows.sum(), "data"), ()), mesh, mode=mode)
        state = parallel.replicate(mine, mesh)
        new, _ = step(state, (), jnp.ones(8))
        assert state.is_deleted() and not mine.is_deleted()
        again = parallel.data_parallel(lambda s, _, rows: (s, ()), mesh, mode=mode, donate=False)
        again(new, (), jnp.ones(8))
        assert not new.is_deleted()
    np.testing.assert_array_equal(new, np.arange(64.0) + 8)


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_each_device_sees_its_rows_in_order(mode):
    # Kills: interleaved rows; every device given the whole batch; keys that cannot be split over devices.
    mesh = parallel.data_mesh()

    def step(state, data, batch):
        assert batch["ids"].shape == (2,) and batch["keys"].shape == (2,)
        draws = jax.vmap(jax.random.bits)(batch["keys"])
        return state, jax.lax.all_gather((batch["ids"], draws), "data")

    batch = {"ids": jnp.arange(16), "keys": example_keys(jax.random.key(0), jnp.arange(16))}
    _, (ids, draws) = parallel.data_parallel(step, mesh, mode=mode)((), (), parallel.shard_rows(batch, mesh))
    np.testing.assert_array_equal(ids, np.arange(16).reshape(8, 2))
    np.testing.assert_array_equal(draws.ravel(), jax.vmap(jax.random.bits)(example_keys(jax.random.key(0), jnp.arange(16))))


@pytest.mark.parametrize(("rows", "near"), [(100, "96 or 104"), (5, "8"), (15, "8 or 16")])
def test_uneven_batch_names_both_numbers_and_the_nearest(rows, near):
    # Kills: jax's own traceback; a suggestion of 0 rows; dropped rows.
    mesh = parallel.data_mesh()
    message = f"a batch of {rows} does not split over 8 devices; nearest that does: {near}."
    step = parallel.data_parallel(lambda s, _, x: (s, ()), mesh)
    for call in (lambda x: parallel.shard_rows(x, mesh), lambda x: step((), (), {"a": np.zeros((8, 2)), "b": x})):
        with pytest.raises(InputError) as error:
            call(np.zeros((rows, 2), np.float32))
        assert str(error.value) == message


def test_unknown_mode_says_so():
    with pytest.raises(InputError, match="must be 'shard_map' or 'pmap', got 'vmap'"):
        parallel.data_parallel(lambda *a: a, parallel.data_mesh(), mode="vmap")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_JOB_ID": "3"},
        {"SLURM_NTASKS": "8"},
        {"TPU_WORKER_HOSTNAMES": "localhost"},
        {"JAX_NUM_PROCESSES": "1"},
    ],
    ids=["none", "srun of one", "sbatch script", "one TPU host", "one"],
)
def test_one_process_starts_nothing(environment):
    # Kills: a start-up that waits for peers who never come (an sbatch script outside srun, a single TPU host).
    assert parallel.initialize(environment) is False
    assert not jax.distributed.is_initialized()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({}, "also needs JAX_COORDINATOR_ADDRESS=host:port and JAX_PROCESS_ID from 0 to 1, got '' and ''"),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID from 0 to 1, got 'a:1' and '2'"),
        ({"JAX_NUM_PROCESSES": "two"}, "must be a number of processes or 'auto', got 'two'"),
    ],
)
def test_half_a_configuration_says_what_is_missing(extra, message):
    with pytest.raises(InputError) as error:
        parallel.initialize({"JAX_NUM_PROCESSES": "2", **extra})
    assert message in str(error.value)


PROCESS = """
import sys
import jax, jax.numpy as jnp, numpy as np
from robustjax.core import example_keys, parallel

assert parallel.initialize() and parallel.initialize()
mesh = parallel.data_mesh()
assert mesh.size == 4 and jax.local_device_count() == 2

def step(state, data, batch):
    ids, keys = batch
    rows = data[ids] + jax.vmap(jax.random.uniform)(keys)
    mean = jax.lax.pmean(rows.mean(), "data")
    return state + mean, jax.lax.all_gather(ids, "data", tiled=True)

numbers = {}
for mode in ("shard_map", "pmap"):
    mapped = parallel.data_parallel(step, mesh, mode=mode)
    state = parallel.replicate(jnp.float32(0), mesh)
    data = parallel.replicate(np.arange(8, dtype=np.float32), mesh)
    for i in range(2):
        ids = 4 * jax.process_index() + np.arange(4)
        local = (ids, example_keys(jax.random.key(i), jnp.asarray(ids)))
        state, seen = mapped(state, data, parallel.shard_rows(local, mesh))
    assert seen.sharding.is_fully_replicated and len(seen.sharding.device_set) == 4
    np.testing.assert_array_equal(seen, np.arange(8))
    numbers[mode] = float(state)
print("RESULT", jax.process_index(), numbers["shard_map"], numbers["pmap"])
"""


def test_two_processes_are_one():
    # Kills: rows of the second process lost or doubled; results that live on one process's devices only; initialize() that
    # fails when called twice.
    common = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{commands.free_port()}",
        "JAX_NUM_PROCESSES": "2",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS],
            env={**common, "JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=180)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    expected = sum(np.mean(np.arange(8.0) + jax.vmap(jax.random.uniform)(example_keys(jax.random.key(i), jnp.arange(8)))) for i in range(2))
    for i, output in enumerate(outputs):
        # Gloo writes lines of its own, sometimes into the middle of ours.
        assert f"RESULT {i}" in output, output
        numbers = output.split(f"RESULT {i}")[1].split()[:2]
        np.testing.assert_allclose([float(n) for n in numbers], expected, rtol=1e-6)
