"""Projected gradient descent: follow the gradient of an objective, step by step, and return to the ball and the box each time."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from robustjax.attacks.doors import check_classes, check_count, check_finite, check_start, check_threat
from robustjax.attacks.network import as_partial, count_classes
from robustjax.attacks.objectives import OBJECTIVES
from robustjax.attacks.projections import random_in_ball, to_ball_and_box, unit_step
from robustjax.core import loops, registry
from robustjax.core.check import InputError, as_number, check_images, check_keys, is_concrete
from robustjax.core.numerics import lift
from robustjax.core.rng import stream
from robustjax.core.types import ArrayLike, Keys, KeysLike, LogitsFn, Scalar, ThreatModel


class _Config(NamedTuple):
    """What a compiled program depends on."""

    norm: str
    objective: str
    targeted: bool
    best: bool


class _Context(NamedTuple):
    """What all examples share. Radius and step size are arrays: sweeping over them compiles nothing."""

    logits_fn: jax.tree_util.Partial
    eps: Array
    step_size: Array


class _State(NamedTuple):
    """One row an example."""

    images: Array  # the current iterate
    clean: Array
    aim: Array  # the label to leave, or the target to reach
    loss: Array  # where the gradient was last taken; of `best` if that is kept
    success: Array  # bool, likewise
    best: Array | None  # the iterate of largest loss
    broken: Array  # bool, an earlier restart succeeded: needs no more work


def pgd(
    keys: KeysLike,
    logits_fn: LogitsFn,
    images: ArrayLike,
    labels: ArrayLike | None,
    threat: ThreatModel,
    *,
    steps: int,
    step_size: Scalar,
    objective: str = "ce",
    random_start: bool = True,
    start: ArrayLike | None = None,
    restarts: int = 1,
    best: bool = False,
    targets: ArrayLike | None = None,
) -> Float[Array, "b h w c"]:
    """Looks for images within the threat model that the network gets wrong.

    x_{t+1} = Proj(x_t + step_size * g_t), where g_t is the sign of the gradient ('linf') or the gradient divided by its norm
    ('l2', 'l1'), per example, of the sum of the objective, and Proj goes to the ball and then clips to [0, 1]. In 'l1' this
    normalised step is a weak attack (Croce and Hein, ICML 2021).

    Runs inside jit, grad and shard_map, or by itself; then it is driven from Python in compiled chunks. Several restarts inside
    a trace are unrolled. Steps, norm, objective and `best` are static; radius and step size are not, so sweeping over them
    compiles nothing. To derivatives the result is a constant. Every example is attacked, also one that is wrong to begin with.

    Args:
        keys: one typed key per example (`core.example_keys`); read for random starts only, None is fine without them.
        logits_fn: images -> logits (b, k), in evaluation mode: examples must not influence each other. A
            `jax.tree_util.Partial(fn, weights)` reuses the compiled program for new weights. A plain function of arrays is
            compiled once, with the weights that it closes over at that moment; one that closes over an object that may change
            (a Flax module, a dict) is compiled anew in each call.
        images: (b, h, w, c) in [0, 1], at least float32 internally: bfloat16 is lifted, float64 kept.
        labels: (b,) integers.
        threat: norm and radius in units of [0, 1] pixels. Inside jit its radius must be a Python number: it cannot be traced.
        steps: how many, at least 0; 0 returns the starting points.
        step_size: above 0, in units of [0, 1] pixels and in the threat's norm. The attack moves steps * step_size at most.
        objective: 'ce' cross-entropy, or 'cw' margin max_{j != y} z_j - z_y.
        random_start: begin at a point drawn uniformly from the ball, clipped to [0, 1]; False begins at the image itself.
        start: images to begin at instead (brought into ball and box first); further restarts draw theirs.
        restarts: independent runs. Per example the first that succeeds is kept, else the one of largest objective.
        best: return the iterate with the largest objective, the starting point included, rather than the last one.
        targets: (b,) classes to reach: the attack descends the objective with respect to them, and success is to be classified
            so. `labels` are then not used and may be None.

    Returns:
        Adversarial images in the ball and the box. Whether they fool the network is for the caller to measure.

    Raises:
        InputError: for bad shapes, dtypes, ranges or options, or (when not traced) a network that returns NaN.

    References:
        Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR 2018, section 2.1: x^{t+1} =
        Pi_{x+S}(x^t + alpha sgn(grad_x L(theta, x, y))).

    >>> def logits_fn(x):
    ...     return jnp.stack([x.sum((1, 2, 3)), 1 - x.sum((1, 2, 3))], axis=1)
    >>> grey, threat = jnp.full((1, 1, 1, 1), 0.5), ThreatModel("linf", 0.25)
    >>> pgd(None, logits_fn, grey, jnp.array([0]), threat, steps=3, step_size=0.125, random_start=False).ravel()
    Array([0.25], dtype=float32)
    """
    logits_fn = as_partial(logits_fn)
    images = lift(check_images(images))
    name, given = ("labels", labels) if targets is None else ("targets", targets)
    aim = check_classes(given, count_classes(logits_fn, images), images.shape[0], name=name)
    _check_options(threat, steps, step_size, objective, random_start, restarts)
    start = None if start is None else check_start(start, images)
    if random_start and (start is None or restarts > 1):
        keys = check_keys(keys, images.shape[0])
    config = _Config(threat.norm, objective, targets is not None, best)
    context = _Context(logits_fn, jnp.asarray(float(threat.eps), images.dtype), jnp.asarray(step_size, images.dtype))
    images = jax.lax.stop_gradient(images)

    kept = None
    for restart in range(restarts):
        if restart == 0 and (start is not None or not random_start):
            first = _project(images if start is None else jax.lax.stop_gradient(start), images, context.eps, norm=threat.norm)
        else:
            first = _draw(keys, jnp.uint32(restart), images, context.eps, norm=threat.norm)
        state = _begin(first, images, aim, kept, config)
        state = loops.repeat(_step, context, state, steps, config=config, done=None if kept is None else _is_broken)
        if best or restarts > 1:
            state = _finish(context, state, config=config)
        kept = state if kept is None else _choose(kept, state)
    with jax.debug_nans(False):
        check_finite(_with_nan(kept.loss, kept.images))
    return kept.best if best else kept.images


def _begin(first: Array, images: Array, aim: Array, kept: _State | None, config: _Config) -> _State:
    row = images[:, 0, 0, 0]  # for its place: what a loop carries must vary over a mesh as the images do
    nothing = jnp.zeros_like(row, bool)
    lowest = jnp.full_like(row, -jnp.inf)
    broken = nothing if kept is None else kept.success
    return _State(first, images, aim, lowest, nothing, first if config.best else None, broken)


def _measure(images: Array, context: _Context, aim: Array, config: _Config):
    """Returns the sum of what is climbed, and per example its value and whether the network is fooled."""
    logits = lift(context.logits_fn(images))
    value = OBJECTIVES[config.objective].compute(logits, aim)
    hit = jnp.argmax(logits, axis=-1).astype(aim.dtype) == aim
    loss, success = (-value, hit) if config.targeted else (value, ~hit)
    return jnp.sum(loss), (loss.astype(images.dtype), success)


def _note(state: _State, loss: Array, success: Array, config: _Config) -> _State:
    """Writes down how the current iterate does: always, or where it is the best so far."""
    if not config.best:
        return state._replace(loss=loss, success=success)
    better = ~(loss <= state.loss)  # also where the loss is NaN, which must show in the end
    best = jnp.where(better[:, None, None, None], state.images, state.best)
    return state._replace(loss=jnp.where(better, loss, state.loss), success=jnp.where(better, success, state.success), best=best)


def _step(context: _Context, i: Array, state: _State, config: _Config) -> _State:
    del i  # all steps are alike
    gradient, measured = jax.grad(_measure, has_aux=True)(state.images, context, state.aim, config)
    gradient, (loss, success) = jax.lax.stop_gradient((gradient, measured))
    state = _note(state, loss, success, config)
    moved = state.images + context.step_size * unit_step(gradient, norm=config.norm)
    return state._replace(images=to_ball_and_box(moved, state.clean, context.eps, norm=config.norm))


def _is_broken(state: _State) -> Array:
    return state.broken


_project = jax.jit(to_ball_and_box, static_argnames="norm")


@functools.partial(jax.jit, static_argnames="norm")
def _draw(keys: Keys, restart: Array, images: Array, eps: Array, *, norm: str) -> Array:
    keys = stream(keys, restart)
    return to_ball_and_box(images + random_in_ball(keys, images, eps, norm=norm), images, eps, norm=norm)


@functools.partial(jax.jit, static_argnames="config")
def _finish(context: _Context, state: _State, *, config: _Config) -> _State:
    """Measures the last iterate; the steps measured the points at which they took gradients."""
    _, (loss, success) = _measure(state.images, context, state.aim, config)
    return _note(state, *jax.lax.stop_gradient((loss, success)), config)


@jax.jit
def _choose(kept: _State, new: _State) -> _State:
    """Returns per example the earlier run, unless it failed and the new one succeeded or came further."""
    better = ~kept.success & (new.success | ~(new.loss <= kept.loss))
    return jax.tree.map(lambda a, b: jnp.where(better.reshape(-1, *[1] * (a.ndim - 1)), b, a), kept, new)


def _check_options(threat: Any, steps: Any, step_size: Any, objective: Any, random_start: bool, restarts: Any) -> None:
    check_threat(threat)
    if objective not in OBJECTIVES:
        raise registry.unknown("objective", objective, OBJECTIVES)
    check_count("steps", steps, 0)
    if is_concrete(step_size) and not 0 < (as_number(step_size) or 0) < math.inf:
        raise InputError(f"step_size is in units of [0, 1] pixels and must be finite and > 0, got {step_size!r}.")
    check_count("restarts", restarts)
    if restarts > 1 and not random_start:
        raise InputError(f"restarts={restarts} without random starts would run the same attack {restarts} times; set random_start=True.")


@jax.jit
def _with_nan(loss: Array, images: Array) -> Array:
    """Returns the loss, NaN also where the gradient was."""
    return jnp.where(jnp.isnan(images).any((1, 2, 3)), jnp.nan, loss)
