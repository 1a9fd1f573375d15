"""Runs the plans of attacks over a whole data set: the data stay on the host, the devices hold one batch of runs.

A row leaves the batch as soon as its example is broken or its steps are done, and the next of the queue takes its place, so
shapes stay fixed and nothing is computed for the dead for longer than a chunk of steps. Rows are spread over the devices and
never speak to each other. When memory runs out, the batch is halved.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Integer

from robustjax.attacks.doors import check_finite
from robustjax.attacks.objectives import margin
from robustjax.attacks.plan import Context, Plan, ranked_targets, rows_of
from robustjax.attacks.queue import Queue
from robustjax.core import loops, memory
from robustjax.core.parallel import AXIS, data_mesh
from robustjax.core.rng import is_key, on_data, stream
from robustjax.core.types import Keys, Scalar

SMALLEST = 8  # rows below which the last runs of a stage are not packed closer: one more program would cost more than it saves
CPU_ROWS = 32  # on CPU most rows a device: activations of more leave its cache and a step takes longer per row
CPU_STEPS = 3  # on CPU most steps between two looks at who is done: rows that wait for it cost as much there as those at work
# Smaller batches for the last runs of a stage, as parts of the largest. On accelerators empty rows cost little, and programs take
# long to compile.
PARTS, CPU_PARTS = (1 / 4, 1 / 16), (3 / 4, 1 / 2, 1 / 4)


class Data(NamedTuple):
    """The data set, on the host."""

    keys: Integer[np.ndarray, "n 2"]  # raw: one per example
    images: Float[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, " n"]
    impl: str  # kind of the keys


class Look(NamedTuple):
    """What one forward pass says of each example."""

    wrong: Bool[np.ndarray, " n"]
    margin: Float[np.ndarray, " n"]  # max_{j != y} z_j - z_y
    largest: Float[np.ndarray, " n"]  # max_j |z_j|
    targets: Int[np.ndarray, "n t"]  # the likeliest other classes


class _Item(NamedTuple):
    """What the rows begin with, on their way to the devices."""

    keys: Integer[Array, "b 2"]
    images: Float[Array, "b h w c"]
    labels: Int[Array, " b"]
    targets: Int[Array, "b t"] | None
    run: Int[Array, " b"]


class _Running(NamedTuple):
    state: Any
    i: Int[Array, " b"]  # steps done, row by row


class _Flags(NamedTuple):
    """What the host reads after each chunk."""

    over: Bool[Array, " b"]
    success: Bool[Array, " b"]
    loss: Float[Array, " b"]
    start_loss: Float[Array, " b"]


class Driver:
    """Runs plans on one data set with one network.

    Args:
        network: (images, keys) -> logits.
        data: on the host.
        eps: radius.
        batch_size: rows on all devices together, rounded up to a multiple of their number (on CPU at most 32 rows each).
        devices: to spread the rows over; None: all of this process.
    """

    def __init__(self, network: jax.tree_util.Partial, data: Data, eps: Scalar, *, batch_size: int, devices: Sequence | None = None):
        self.mesh = data_mesh(jax.local_devices() if devices is None else devices)
        self.data = data
        everywhere = NamedSharding(self.mesh, P())
        eps = np.asarray(eps, data.images.dtype)
        context = Context(network, eps)
        # Python numbers stay: as arrays they would lose their weak types.
        self.context = jax.tree.map(
            lambda leaf: jax.device_put(leaf, everywhere) if isinstance(leaf, jax.Array | np.ndarray) else leaf, context
        )
        most = CPU_ROWS * self.mesh.size if jax.default_backend() == "cpu" else batch_size
        self.rows = self._rounded(min(batch_size, most))

    def _rounded(self, rows: int) -> int:
        return memory.rounded(rows, self.mesh.size)

    def _sizes(self) -> list[int]:
        """Returns the numbers of rows that programs are compiled for, the largest first."""
        parts = CPU_PARTS if jax.default_backend() == "cpu" else PARTS
        sizes = {self._rounded(max(int(self.rows * part), SMALLEST)) for part in parts}
        return [self.rows, *sorted((n for n in sizes if n < self.rows), reverse=True)]

    def _halve(self, failed: str) -> None:
        self.rows = memory.halved(self.rows, self.mesh.size, failed)

    def look(
        self, images: Float[np.ndarray, "n h w c"], examples: Integer[np.ndarray, " m"], *, num_targets: int = 0, salt: int = 0
    ) -> Look:
        """Classifies images of the data set or perturbed ones, in batches.

        Args:
            images: like the data set's.
            examples: which to classify.
            num_targets: how many other classes to rank.
            salt: number of the look, which a randomized network draws by.

        Raises:
            InputError: where logits are NaN or infinite, with positions in the data set.
        """
        parts, first = [], 0
        while first < len(examples):
            some = examples[first : first + self.rows]
            part, failed = memory.attempt(self._look, images, np.resize(some, self.rows), num_targets, salt)
            if failed is not None:
                self._halve(failed)
                continue
            part = Look(*(leaf[: len(some)] for leaf in part))
            self._check_finite(some, part.margin)
            parts.append(part)
            first += len(some)
        if not parts:
            nothing = np.zeros(0, images.dtype)
            return Look(np.zeros(0, bool), nothing, nothing, np.zeros((0, num_targets), np.int32))
        return Look(*map(np.concatenate, zip(*parts, strict=True)))

    def _look(self, images, rows, num_targets, salt):
        keys, labels = self.data.keys[rows], self.data.labels[rows]
        item = self._put(_Item(keys, images[rows], labels, None, np.zeros(len(rows), np.int32)))
        look = _look(self.context, item, np.uint32(salt), num_targets=num_targets, impl=self.data.impl, mesh=self.mesh)
        return jax.device_get(look)

    def _check_finite(self, examples: Integer[np.ndarray, " m"], values: Float[np.ndarray, " m"]) -> None:
        """Names examples by their place in the data set."""
        if np.isnan(values).any():
            everyone = np.zeros(len(self.data.labels), values.dtype)
            everyone[examples] = values
            with jax.debug_nans(False):
                check_finite(jnp.asarray(everyone))

    def _put(self, tree: Any) -> Any:
        return jax.device_put(tree, NamedSharding(self.mesh, P(AXIS)))

    def run(
        self,
        plan: Plan,
        queue: Queue,
        *,
        salt: int,
        targets: Int[np.ndarray, "n t"] | None,
        images: Float[np.ndarray, "n h w c"],
        saved: Mapping[str, np.ndarray] | None = None,
        after_chunk: Callable[[int, Callable[[], dict]], None] | None = None,
    ) -> None:
        """Works off a queue.

        Args:
            plan: the attack.
            queue: who is to be attacked; it knows in the end who was broken, by which run, and the losses.
            salt: number of the stage, which its draws depend on.
            targets: the likeliest other classes of each example, at least `plan.num_targets`, where that is not 0.
            images: where adversarial images are written, at the places of broken examples.
            saved: what `after_chunk` was once handed, to go on from there.
            after_chunk: called with the steps done since the last call, and with a function that returns the state as arrays.
        """
        stage = (plan, salt, None if plan.num_targets == 0 else targets[:, : plan.num_targets])
        if saved is not None:
            queue.unpack(saved)
            running = self._unpack(stage, saved)
        else:
            running = self._restart(stage, queue)
        while queue.remaining():
            after, failed = memory.attempt(self._chunk, stage, queue, running, images)
            if failed is not None:
                # The rows' state may be gone. They begin again and come to the same, since draws are keyed.
                self._halve(failed)
                running = self._restart(stage, queue)
                continue
            running = after
            if after_chunk is not None:
                after_chunk(_chunk_steps(plan), functools.partial(_pack, queue, running))

    def _restart(self, stage, queue: Queue) -> _Running:
        queue.restart(self._fit(queue))
        return self._unpack(stage, None, len(queue.example))

    def _fit(self, queue: Queue) -> int:
        """Returns the smallest number of rows that holds all runs that remain."""
        return min((n for n in self._sizes() if n >= queue.remaining()), default=self.rows)

    def _chunk(self, stage, queue: Queue, running: _Running, images: np.ndarray) -> _Running:
        """Refills the rows, lets them do some steps and takes in those that are over."""
        plan, salt, targets = stage
        size = self._fit(queue)
        if size < len(queue.example):
            running = self._put(jax.tree.map(functools.partial(_pick, queue.resize(size)), running))
        fresh = queue.fill()
        if fresh.any():
            rows = np.where(fresh, queue.example, 0)
            ranked = None if targets is None else targets[rows]
            item = _Item(self.data.keys[rows], self.data.images[rows], self.data.labels[rows], ranked, queue.run)
            fresh, item = self._put((fresh, item))
            running = _refill(self.context, running, fresh, item, np.uint32(salt), plan=plan, impl=self.data.impl, mesh=self.mesh)
        steps = _chunk_steps(plan)
        # On CPU a program of one step: convolutions in a loop are slow there, and unrolled ones take long to compile.
        size = 1 if jax.default_backend() == "cpu" else steps
        for _ in range(steps // size):
            running, flags = _advance(self.context, running, plan=plan, size=size, mesh=self.mesh)
        flags = jax.device_get(flags)
        working = queue.example >= 0
        self._check_finite(queue.example[working], flags.loss[working])
        # Read before the queue hears of it: should memory run out here, the rows begin again.
        found = np.asarray(_images(running.state, plan=plan)) if (flags.success & working).any() else None
        kept = queue.end(*flags)
        if len(kept):
            images[kept[:, 0]] = found[kept[:, 1]]
        return running

    def _unpack(self, stage, saved: Mapping[str, np.ndarray] | None, rows: int | None = None) -> _Running:
        """Returns the rows' state on the devices: as it was saved, or of rows that nobody has begun."""
        plan, _, targets = stage
        rows = len(saved["example"]) if rows is None else rows
        shape = (rows, *self.data.images.shape[1:])
        ranked = None if targets is None else jax.ShapeDtypeStruct((rows, targets.shape[1]), np.int32)
        numbers = jax.ShapeDtypeStruct((rows,), np.int32)
        item = _Item(
            jax.ShapeDtypeStruct((rows, *self.data.keys.shape[1:]), np.uint32),
            jax.ShapeDtypeStruct(shape, self.data.images.dtype),
            numbers,
            ranked,
            numbers,
        )
        begun = jax.eval_shape(functools.partial(_begin, plan, self.data.impl), self.context, item, np.uint32(0))
        leaves, tree = jax.tree.flatten(begun)
        made = []
        for at, leaf in enumerate(leaves):
            raw = jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf
            array = self._put(np.zeros(raw.shape, raw.dtype) if saved is None else np.asarray(saved[f"leaf{at}"]))
            made.append(jax.random.wrap_key_data(array, impl=self.data.impl) if is_key(leaf) else array)
        return tree.unflatten(made)


def _pick(rows: np.ndarray, leaf: Array) -> Any:
    return on_data(lambda a: np.asarray(a)[rows], leaf)


def _pack(queue: Queue, running: _Running) -> dict[str, np.ndarray]:
    leaves = [np.array(jax.random.key_data(leaf) if is_key(leaf) else leaf) for leaf in jax.tree.leaves(running)]
    return queue.pack() | {f"leaf{at}": leaf for at, leaf in enumerate(leaves)}


def _chunk_steps(plan: Plan) -> int:
    most = CPU_STEPS if jax.default_backend() == "cpu" else plan.chunk
    return max(1, min(most, plan.chunk, plan.steps))


def _over_rows(function: Callable, mesh: Mesh, shared: int) -> Callable:
    """Maps `function` over the devices; the first `shared` arguments are the same on all of them, the others split by rows."""

    def mapped(*arguments):
        specs = (P(),) * shared + (P(AXIS),) * (len(arguments) - shared)
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False)(*arguments)

    return mapped


def _begin(plan: Plan, impl: str, context: Context, item: _Item, salt: Array) -> _Running:
    keys = stream(jax.random.wrap_key_data(item.keys, impl=impl), salt)
    rows = rows_of(plan, keys, item.images, item.labels, item.targets, item.run.astype(jnp.uint32))
    return _Running(plan.begin(context, rows, plan.config), jnp.zeros_like(item.run))


@functools.partial(jax.jit, static_argnames=("plan", "impl", "mesh"))
def _refill(context, running: _Running, fresh, item: _Item, salt, *, plan: Plan, impl: str, mesh: Mesh) -> _Running:
    def refill(context, salt, running, fresh, item):
        def choose(old, new):
            return jnp.where(fresh.reshape(-1, *[1] * (old.ndim - 1)), new, old)

        begun = _begin(plan, impl, context, item, salt)
        return jax.tree.map(functools.partial(on_data, choose), running, begun)

    return _over_rows(refill, mesh, 2)(context, salt, running, fresh, item)


@functools.partial(jax.jit, static_argnames=("plan", "size", "mesh"))
def _advance(context, running: _Running, *, plan: Plan, size: int, mesh: Mesh) -> tuple[_Running, _Flags]:
    def advance(context, running):
        over = functools.partial(_is_over, plan)
        running = loops.repeat(_step, context, running, size, config=plan, done=over)
        outcome = plan.outcome(running.state)
        return running, _Flags(over(running), outcome.success, outcome.loss, outcome.start_loss)

    return _over_rows(advance, mesh, 1)(context, running)


def _step(context: Context, i: Array, running: _Running, plan: Plan) -> _Running:
    del i  # each row counts its own
    return _Running(plan.step(context, running.i, running.state, plan.config), running.i + 1)


def _is_over(plan: Plan, running: _Running) -> Bool[Array, " b"]:
    return plan.outcome(running.state).success | (running.i >= plan.steps)


@functools.partial(jax.jit, static_argnames="plan")
def _images(state: Any, *, plan: Plan) -> Array:
    return plan.outcome(state).images


@functools.partial(jax.jit, static_argnames=("num_targets", "impl", "mesh"))
def _look(context: Context, item: _Item, salt, *, num_targets: int, impl: str, mesh: Mesh) -> Look:
    def look(context, salt, item):
        keys: Keys = stream(jax.random.wrap_key_data(item.keys, impl=impl), salt)
        logits = context.network(item.images, keys)
        finite = jnp.isfinite(logits).all(1)
        logits = jnp.where(finite[:, None], logits, 0).astype(item.images.dtype)
        return Look(
            jnp.argmax(logits, 1).astype(item.labels.dtype) != item.labels,
            jnp.where(finite, margin(logits, item.labels), jnp.nan),
            jnp.max(jnp.abs(logits), axis=1),
            ranked_targets(logits, item.labels, num_targets),
        )

    return _over_rows(look, mesh, 2)(context, salt, item)
