"""repeat: one result in the graph, driven from Python, cut into chunks, resumed and with examples dropped; few programs.

Each test names the mutants it kills.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import Partial

from robustjax.core import example_keys, loops, parallel
from robustjax.core.check import InputError

ROWS = 9


class State(NamedTuple):
    """Rows of different ranks and dtypes, with keys, as attacks have them."""

    x: Any  # (b, 3)
    total: Any  # (b,)
    count: Any  # (b,) int
    limit: Any  # (b,) int: steps after which the example is done
    key: Any  # (b,) typed


def step(context, i, state, config):
    keys = jax.vmap(jax.random.fold_in, (0, None))(state.key, i)
    noise = jax.vmap(jax.random.uniform)(keys)
    x = context["decay"] * state.x + config * noise[:, None]
    return State(x, state.total + 0.01 * i.astype(jnp.float32) * x[:, 0], state.count + 1, state.limit, state.key)


def done(state):
    return state.count >= state.limit


def start_state(rows=ROWS, limits=None):
    limit = jnp.full(rows, 10**6) if limits is None else jnp.asarray(limits)
    key = example_keys(jax.random.key(0), jnp.arange(rows))
    return State(jnp.ones((rows, 3)), jnp.zeros(rows), jnp.zeros(rows, int), limit, key)


def context(decay=0.9):
    return {"decay": jnp.float32(decay)}


@jax.jit
def one_step(i, state):
    new, stop = step(context(), i, state, 0.1), done(state)
    kept = [jnp.where(stop.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(state[:3], new[:3], strict=True)]
    return State(*kept, state.limit, state.key)


def by_hand(n, rows=ROWS, limits=None):
    """The law, one step at a time on the whole batch."""
    state = start_state(rows, limits)
    for i in range(n):
        state = one_step(jnp.int32(i), state)
    return state


def assert_same(got, wanted):
    for name in ("x", "total", "count", "limit"):
        np.testing.assert_allclose(getattr(got, name), getattr(wanted, name), rtol=0, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(jax.random.key_data(got.key), jax.random.key_data(wanted.key))


@pytest.mark.parametrize(("n", "chunk"), [(1, 10), (13, 4), (40, 7)])
@pytest.mark.parametrize("limits", [None, [0, 1, 5, 6, 10**6, 3, 12, 2, 0]], ids=["all", "dropping"])
def test_driven_equals_traced_equals_by_hand(n, chunk, limits):
    # Kills: i counted from the chunk's start; steps past n; a short last chunk; rows scattered to the wrong place or padding
    # written back; examples that move on after they are done, in the graph or between two looks at them; keys mixed up.
    finish = None if limits is None else done
    wanted = by_hand(n, limits=limits)
    driven = loops.repeat(step, context(), start_state(limits=limits), n, config=0.1, done=finish, chunk=chunk)
    traced = jax.jit(lambda c, s: loops.repeat(step, c, s, n, config=0.1, done=finish))(context(), start_state(limits=limits))
    assert_same(driven, wanted)
    assert_same(traced, wanted)


@pytest.mark.parametrize("traced", [False, True])
def test_resumed_equals_uncut(traced):
    # Kills: `start` ignored, or taken as the number of steps done out of n.
    def run(state, n, start):
        return loops.repeat(step, context(), state, n, config=0.1, done=done, chunk=4, start=start)

    limits = [0, 1, 5, 6, 10**6, 3, 12, 7, 8]
    run = jax.jit(run, static_argnums=1) if traced else run
    half = run(start_state(limits=limits), 6, 0)
    assert_same(run(half, 11, 6), by_hand(17, limits=limits))


def test_compiles_few_programs_and_drops_examples():
    # Kills: a program for each chunk, start, last chunk, number of survivors or set of weights; nothing dropped; steps for
    # examples that are done from the beginning.
    sizes = []

    def counted(context, i, state, config):
        sizes.append(len(state.x))
        return step(context, i, state, config)

    def run(limits, **options):
        return loops.repeat(counted, context(options.pop("decay", 0.9)), start_state(64, limits), 37, config=0.1, done=done, **options)

    limits = [0] * 40 + [11] * 10 + [50] * 14
    got = run(limits)
    assert sizes == [32, 16]
    run(limits, decay=0.5, start=3)
    run([0] * 64)
    assert sizes == [32, 16]
    assert_same(got, by_hand(37, 64, limits))


@pytest.mark.parametrize("rows", [loops.BLOCK + 1, 3 * loops.BLOCK])
@pytest.mark.parametrize("dropping", [False, True], ids=["all", "dropping"])
def test_large_batches_are_computed_in_blocks(rows, dropping):
    # Kills: all rows at once on CPU, a program for each block, padding of the last block or of dropped rows written back, rows joined
    # in another order, steps for blocks that are done.
    sizes = []

    def counted(context, i, state, config):
        sizes.append(len(state.x))
        return step(context, i, state, config)

    limits = np.random.default_rng(rows).integers(0, 12, rows) if dropping else np.full(rows, 10**6)
    start = start_state(rows, limits)
    got = loops.repeat(counted, context(), start, 13, config=0.1, done=done, chunk=4)
    assert_same(got, by_hand(13, rows, limits))
    assert max(sizes) == (17 if rows == 33 else 32) and len(sizes) == len(set(sizes)) and (dropping or len(sizes) == 1)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_rows_on_several_devices_stay_there(kind):
    # Kills: rows picked from an array whose rows lie on a mesh of the kind jax makes by default; blocks cut across devices.
    limits = [0, 1, 5, 6, 10**6, 3, 12, 7] * 8
    mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))
    state = jax.device_put(start_state(64, limits), NamedSharding(mesh, P("data")))
    got = loops.repeat(step, context(), state, 13, config=0.1, done=done, chunk=4)
    assert_same(got, by_hand(13, 64, limits))
    assert kind == AxisType.Auto or got.x.sharding.is_equivalent_to(state.x.sharding, 2)


def test_partial_with_new_weights_and_the_same_function_are_not_compiled_again():
    # Kills: a context whose functions are compiled by value; plain functions refused.
    seen = []

    def stretch(context, i, state, config):
        seen.append(len(state))
        return context["f"](state)

    def scaled(weight, x):
        return weight * x

    double = lambda x: 2 * x  # noqa: E731
    for weight in (2.0, 3.0):
        got = loops.repeat(stretch, {"f": Partial(scaled, jnp.float32(weight))}, jnp.ones(4), 3, config=None)
        np.testing.assert_allclose(got, weight**3)
    assert len(seen) == 1
    for _ in range(2):
        np.testing.assert_allclose(loops.repeat(stretch, {"f": double}, jnp.ones(4), 3, config=None), 8)
    assert len(seen) == 2


@pytest.mark.parametrize("n", [3, loops.UNROLL + 5], ids=["unrolled", "scanned"])
@pytest.mark.parametrize("how", ["argument", "closure"])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_gradient_through_the_loop(n, how, wrap):
    # Kills: a loop of traced length, which has no reverse derivative; a closure over traced weights read on the host.
    def loss(decay):
        def closed(context, i, state, config):
            return state * decay

        def open_(context, i, state, config):
            return state * context

        return loops.repeat(
            closed if how == "closure" else open_, decay if how == "argument" else None, jnp.ones(2), n, config=None, done=never
        ).sum()

    np.testing.assert_allclose(wrap(jax.grad(loss))(0.9), 2 * n * 0.9 ** (n - 1), rtol=1e-4)


def never(state):
    return state < 0


def test_closure_over_values_mapped_by_vmap():
    # Kills: `done` of the state read on the host where its values are traced, though no argument of repeat was.
    def final(decay):
        def closed(context, i, state, config):
            return state * decay

        return loops.repeat(closed, None, jnp.ones(2), 23, config=None, done=small)

    # At 0.9 the states stop on their way below a half, at 1 they never do.
    np.testing.assert_allclose(jax.vmap(final)(jnp.array([0.9, 1.0])), [[0.9**7] * 2, [1.0] * 2], rtol=1e-5)


def small(state):
    return state < 0.5


def test_constants_under_jit():
    # Kills: looking for tracers in the arguments only; inside jit nothing can be read on the host.
    state, shared = start_state(), context()
    traced = jax.jit(lambda: loops.repeat(step, shared, state, 12, config=0.1, done=done))()
    assert_same(traced, by_hand(12))


def test_in_shard_map():
    # Kills: row counts taken from the global batch.
    mesh = parallel.data_mesh()
    limits = [0, 1, 5, 6, 10**6, 3, 12, 7, 8, 9, 10, 11, 1, 2, 3, 4]

    def run(state):
        return loops.repeat(step, context(), state, 6, config=0.1, done=done)

    mapped = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False))
    assert_same(mapped(start_state(16, limits)), by_hand(6, 16, limits))


def network(weights, images):
    hidden = jax.lax.conv_general_dilated(images, weights[0], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jax.nn.relu(hidden).mean((1, 2)) @ weights[1]


def climb(context, i, state, config):
    images, target, limit = state
    grads = jax.grad(lambda x: jnp.sum((context(x) - target) ** 2))(images)
    return jnp.clip(images - config * grads, 0, 1), target, limit - 1


def spent(state):
    return state[2] <= 0


def test_dropping_does_not_change_what_a_network_computes():
    # Kills: padding rows that leak into the others; buckets so small that XLA fuses another program (rows of one).
    rng = np.random.default_rng(0)
    weights = (jnp.asarray(rng.normal(size=(3, 3, 1, 4)), jnp.float32), jnp.asarray(rng.normal(size=(4, 3)), jnp.float32))
    images = jnp.asarray(rng.uniform(size=(ROWS, 6, 6, 1)), jnp.float32)
    target = jnp.asarray(rng.normal(size=(ROWS, 3)), jnp.float32)
    limit = jnp.asarray([1, 9, 2, 12, 3, 1, 2, 1, 1])
    # One long chunk is never looked into, so nothing is dropped there.
    whole, dropped = (
        loops.repeat(climb, Partial(network, weights), (images, target, limit), 12, config=0.1, done=spent, chunk=chunk)[0]
        for chunk in (12, 2)
    )
    assert abs(whole - images).max() > 0.01
    np.testing.assert_allclose(dropped, whole, rtol=0, atol=1e-6)


def halve(context, i, state, config):
    return state / 2


def test_short_loops_are_unrolled_on_cpu():
    # Kills: a loop around convolutions where XLA:CPU is many times slower; unrolling hundreds of steps.
    def text(n):
        return jax.jit(lambda x: loops.repeat(halve, None, x, n, config=None)).lower(jnp.ones(2)).as_text()

    assert "stablehlo.while" not in text(1) + text(loops.UNROLL)
    assert "stablehlo.while" in text(loops.UNROLL + 1)


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_small_batches(rows):
    # Kills: buckets of no rows; padding with more rows than there are.
    limits = [2, 10**6, 0, 7, 5][:rows]
    got = loops.repeat(step, context(), start_state(rows, limits), 12, config=0.1, done=done, chunk=2)
    assert_same(got, by_hand(12, rows, limits))


def test_no_steps_and_unequal_rows():
    state = start_state()
    assert loops.repeat(step, context(), state, 0, config=0.1) is state
    with pytest.raises(InputError, match="one row an example"):
        loops.repeat(step, context(), {"a": jnp.zeros(3), "b": jnp.zeros((4, 2))}, 1, config=0.1)
    with pytest.raises(InputError, match="one row an example"):
        loops.repeat(step, context(), {"a": jnp.zeros(3), "b": 0.0}, 1, config=0.1)


@pytest.mark.parametrize("full", [1, 3, 4, 5, 64, 100, 256])
def test_buckets_hold_their_rows_and_are_few(full):
    # Kills: a bucket too small for the survivors, a new size for every number of survivors.
    sizes = [loops._bucket(rows, full) for rows in range(full + 1)]
    assert all(size >= rows for rows, size in enumerate(sizes)) and max(sizes) == full
    assert len(set(sizes)) <= 1 + max(0, np.ceil(np.log2(full / loops.SMALLEST)))
    assert min(sizes) >= min(full, loops.SMALLEST)


def test_chunks_waste_little():
    # Kills: chunks of one step for prime n; a last chunk that is mostly waste.
    for n in range(1, 300):
        size = loops._chunk_size(n, 10)
        assert min(n, 5) <= size <= 10 and -n % size <= max(3, n // 20)
