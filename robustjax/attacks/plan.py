"""An iterative attack taken apart, so that jit, a batch and a queue of examples (see driver.py) all run the very same steps.

A plan starts runs (restarts times target classes) on rows, one row an example. A run is begun without calling the network; then
each step measures the network at the points that the state names, notes how they do and proposes the next ones. Rows are
independent and count their own steps, so one may leave or enter a batch between any two steps.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer

from robustjax.core import loops
from robustjax.core.rng import on_data
from robustjax.core.types import Keys, Scalar


class Context(NamedTuple):
    """What all rows share. The radius is an array: sweeping over it compiles nothing."""

    network: jax.tree_util.Partial  # (images, keys) -> logits, see network.as_network
    eps: Float[Array, ""]


class Rows(NamedTuple):
    """What a run starts from, one row an example."""

    keys: Keys  # this run's own
    images: Float[Array, "b h w c"]  # clean
    labels: Int[Array, " b"]
    targets: Int[Array, " b"]  # the class to reach; the label itself where the plan is untargeted
    restart: Int[Array, " b"]  # 0, 1, ...
    start: Float[Array, "b h w c"] | None  # where to begin, if not where the plan would


class Outcome(NamedTuple):
    """How a run stands, one row an example."""

    images: Float[Array, "b h w c"]  # within the ball and the box; where `success`, a point that the network gets wrong
    success: Bool[Array, " b"]
    loss: Float[Array, " b"]  # largest so far of what the run climbs; NaN from the moment that the network returned NaN
    start_loss: Float[Array, " b"]  # the same at the first point measured


class Plan(NamedTuple):
    """An attack with its options bound: static and hashable. Its functions are module-level, so that programs are found again.

    begin(context, rows, config) -> state: no call of the network; what has no value yet holds -inf or the clean image.
    step(context, i, state, config) -> state: `i` int32 (b,) counts each row's own steps from 0 to `steps` - 1.
    outcome(state) -> Outcome, after any number of steps.
    """

    name: str
    begin: Callable[[Context, Rows, Hashable], Any]
    step: Callable[[Context, Array, Any, Hashable], Any]
    outcome: Callable[[Any], Outcome]
    config: Hashable  # what the compiled program depends on: norm, objective, schedule, ...
    steps: int  # calls of `step` in a run
    restarts: int = 1
    num_targets: int = 0  # target classes per example; 0: untargeted
    chunk: int = 10  # steps between two looks at who is done

    @property
    def runs(self) -> int:
        """Number of runs an example gets at most; run r is restart r % restarts of target r // restarts."""
        return self.restarts * max(1, self.num_targets)


class _Running(NamedTuple):
    state: Any
    broken: Bool[Array, " b"]  # by an earlier run


def ranked_targets(logits: Float[Array, "b k"], labels: Int[Array, " b"], num_targets: int) -> Int[Array, "b t"]:
    """Returns the most likely classes other than the label, the likeliest first.

    >>> ranked_targets(jnp.array([[0.0, 3.0, 2.0, 1.0]]), jnp.array([1]), 2)
    Array([[2, 3]], dtype=int32)
    """
    is_label = jnp.arange(logits.shape[1], dtype=labels.dtype)[None] == labels[:, None]
    return jax.lax.top_k(jnp.where(is_label, -jnp.inf, logits), num_targets)[1].astype(jnp.int32)


def rows_of(
    plan: Plan,
    keys: Keys,
    images: Float[Array, "b h w c"],
    labels: Int[Array, " b"],
    targets: Int[Array, "b t"] | None,
    run: Integer[Array, " b"],
    start: Float[Array, "b h w c"] | None = None,
) -> Rows:
    """Returns what run number `run` of each example starts from; randomness depends on the example's key and `run` only."""
    folded = jax.vmap(jax.random.fold_in)(keys, run)
    target, restart = run // plan.restarts, run % plan.restarts
    chosen = labels if targets is None else jnp.take_along_axis(targets, target[:, None], axis=1)[:, 0]
    return Rows(folded, images, labels, chosen.astype(labels.dtype), restart.astype(jnp.int32), start)


def run_plan(
    plan: Plan,
    keys: Keys,
    network: jax.tree_util.Partial,
    images: Float[Array, "b h w c"],
    labels: Int[Array, " b"],
    eps: Scalar,
    *,
    targets: Int[Array, "b t"] | None = None,
    start: Float[Array, "b h w c"] | None = None,
) -> tuple[Outcome, Any]:
    """Runs a plan on one batch to the end of each run; examples that a run broke sit out the later ones.

    Works inside jit, grad and shard_map, and by itself. To derivatives the result is a constant.

    Args:
        plan: what to run.
        keys: one per example.
        network: (images, keys) -> logits.
        images: (b, h, w, c) clean.
        labels: (b,).
        eps: radius.
        targets: (b, t) with t = plan.num_targets, where that is not 0.
        start: where the first run begins, if not where the plan would.

    Returns:
        The outcome, per example of the first run that succeeded, else of the one of largest loss; and the state of that run.
    """
    images = jax.lax.stop_gradient(images)
    context = Context(network, jnp.asarray(eps, images.dtype))
    kept = None
    for run in range(plan.runs):
        begun = start if run == 0 else None
        running = _begin(plan, context, keys, images, labels, targets, jnp.uint32(run), begun, kept)
        running = loops.repeat(
            _step, context, running, plan.steps, config=plan, done=None if kept is None else _is_broken, chunk=plan.chunk
        )
        kept = running if kept is None else _choose(plan, kept, running)
    return jax.lax.stop_gradient((_outcome(plan, kept.state), kept.state))


@functools.partial(jax.jit, static_argnames="plan")
def _begin(plan, context, keys, images, labels, targets, run, start, kept) -> _Running:
    rows = rows_of(plan, keys, images, labels, targets, jnp.full_like(labels, run, jnp.uint32), start)
    broken = jnp.zeros_like(labels, bool) if kept is None else plan.outcome(kept.state).success
    return _Running(plan.begin(context, rows, plan.config), broken)


def _step(context: Context, i: Array, running: _Running, plan: Plan) -> _Running:
    state = plan.step(context, jnp.full_like(running.broken, i, jnp.int32), running.state, plan.config)
    return running._replace(state=jax.lax.stop_gradient(state))


def _is_broken(running: _Running) -> Bool[Array, " b"]:
    return running.broken


@functools.partial(jax.jit, static_argnames="plan")
def _outcome(plan: Plan, state: Any) -> Outcome:
    return plan.outcome(state)


@functools.partial(jax.jit, static_argnames="plan")
def _choose(plan: Plan, kept: _Running, new: _Running) -> _Running:
    old, now = plan.outcome(kept.state), plan.outcome(new.state)
    better = ~old.success & (now.success | ~(now.loss <= old.loss))
    return jax.tree.map(functools.partial(on_data, functools.partial(_select, better)), new, kept)


def _select(condition: Bool[Array, " b"], yes: Array, no: Array) -> Array:
    return jnp.where(condition.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)
