"""Projected gradient descent: follow the gradient of an objective, step by step, and return to the ball and the box each time."""

import functools
import math
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robustjax.attacks.doors import check_classes, check_count, check_finite, check_start, check_threat, keep_mistakes
from robustjax.attacks.network import as_network, as_partial, count_classes, forward
from robustjax.attacks.objectives import OBJECTIVES, evaluate, for_classes
from robustjax.attacks.projections import random_in_ball, to_ball_and_box, to_box_and_ball, unit_step
from robustjax.core import loops, registry
from robustjax.core.check import InputError, as_number, check_images, check_keys, is_concrete
from robustjax.core.numerics import lift
from robustjax.core.rng import stream
from robustjax.core.types import ArrayLike, Keys, KeysLike, LogitsFn, Scalar, ThreatModel

_NETWORK = 1 << 31  # added to the number of a restart, to key what the network draws in it; restarts key their starts without
_CLEAN = (1 << 32) - 1  # keys the network's draw on the clean images


class _Config(NamedTuple):
    """What a compiled program depends on."""

    norm: str
    objective: str
    targeted: bool
    best: bool
    box_first: bool


class _Context(NamedTuple):
    """What all examples share. Radius and step size are arrays: sweeping over them compiles nothing."""

    network: jax.tree_util.Partial  # (images, keys) -> logits
    eps: Array
    step_size: Array


class _Goal(NamedTuple):
    """What an example climbs towards; None where the objective reads no such thing."""

    labels: Array | None  # to leave
    targets: Array | None  # to reach
    clean_logits: Array | None


class _State(NamedTuple):
    """One row an example."""

    images: Array  # the current iterate
    clean: Array
    goal: _Goal
    keys: Keys | None  # of a network that draws, this restart's
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
    randomized: bool = False,
    box_first: bool | None = None,
) -> Float[Array, "b h w c"]:
    """Looks for images within the threat model that the network gets wrong.

    x_{t+1} = Proj(x_t + step_size * g_t), where g_t is the sign of the gradient ('linf') or the gradient divided by its norm
    ('l2', 'l1'), per example, of the sum of the objective, and Proj goes to the ball and then clips to [0, 1]. In 'l1' this
    normalised step is a weak attack (Croce and Hein, ICML 2021).

    Runs inside jit, grad and shard_map, or by itself; then it is driven from Python in compiled chunks. Several restarts inside
    a trace are unrolled. Steps, norm, objective and `best` are static; radius and step size are not, so sweeping over them
    compiles nothing. To derivatives the result is a constant. Every example is attacked, also one that is wrong to begin with.

    Args:
        keys: one typed key per example (`core.example_keys`); read for random starts and by networks that draw, else None is fine.
        logits_fn: images -> logits (b, k), in evaluation mode: examples must not influence each other. A
            `jax.tree_util.Partial(fn, weights)` reuses the compiled program for new weights. A plain function of arrays is
            compiled once, with the weights that it closes over at that moment; one that closes over an object that may change
            (a Flax module, a dict) is compiled anew in each call.
        images: (b, h, w, c) in [0, 1], at least float32 internally: bfloat16 is lifted, float64 kept.
        labels: (b,) integers; with targets None is fine unless the objective compares both.
        threat: norm and radius in units of [0, 1] pixels. Inside jit its radius must be a Python number: it cannot be traced.
        steps: how many, at least 1.
        step_size: above 0, in units of [0, 1] pixels and in the threat's norm; over the radius is legal and gets a warning. The
            attack moves steps * step_size at most. One step of the radius without a random start is FGSM.
        objective: 'ce' cross-entropy, 'cw' margin max_{j != y} z_j - z_y, 'dlr' difference of logits ratio (under four classes
            'cw', with a warning), 'kl' divergence from the logits on the clean images, which needs a random start, since its
            gradient is zero at the image; with targets also 'logit_difference' z_t - z_y and 'dlr_targeted'.
        random_start: begin at a point drawn uniformly from the ball, clipped to [0, 1]; False begins at the image itself.
        start: images to begin at instead; further restarts draw theirs. They may lie outside of ball and box, as TRADES's do (Gaussian
            noise that is not clipped): the first gradient is taken there, and what is returned never is (with `best` they are brought
            back first, since the start may be what is returned).
        restarts: independent runs. Per example the first that succeeds is kept, else the one of largest objective.
        best: return, rather than the last iterate, the one of largest objective among those that succeed, else among all, the
            starting point included.
        targets: (b,) classes to reach, other than the labels: success is to be classified so. 'ce', 'cw' and 'dlr' are then
            descended with the targets for labels; the objectives that compare target and label are climbed.
        randomized: whether the network draws: `logits_fn` is then (images, keys (b,)) -> logits and gets fresh keys in each
            evaluation.
        box_first: clip to [0, 1] before scaling into the ball rather than after; both end in ball and box, and for 'linf' at the same
            point. None for what the released code does: TRADES's ('kl') clips first, Foolbox and torchattacks last.

    Returns:
        Adversarial images in the ball and the box. Whether they fool the network is for the caller to measure. With `best` an image
        that is wrong to begin with stays so: it comes back as it was where no iterate fools the network. The last iterate (the
        default, as in the papers) may be one that the network gets right, also where it got the clean image wrong.

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
    images = lift(check_images(images))
    b = images.shape[0]
    network = as_network(logits_fn, randomized=randomized)
    if randomized or (random_start and (start is None or restarts > 1)):
        keys = check_keys(keys, b)
    num_classes = count_classes(as_partial(logits_fn), images, *([keys] if randomized else []))
    if targets is not None:
        targets = _check_targets(targets, labels, num_classes, b)
    _check_options(threat, steps, step_size, objective, random_start, restarts)
    _check_goal(objective, targets is not None, labels is not None, random_start or start is not None)
    needs_labels = targets is None or "targets" in OBJECTIVES[objective].reads
    labels = check_classes(labels, num_classes, b) if needs_labels else None
    start = None if start is None else check_start(start, images)
    box_first = objective == "kl" if box_first is None else box_first
    config = _Config(threat.norm, for_classes(objective, num_classes), targets is not None, best, box_first)
    context = _Context(network, jnp.asarray(float(threat.eps), images.dtype), jnp.asarray(step_size, images.dtype))
    images = jax.lax.stop_gradient(images)

    goal = _Goal(labels, targets, None)
    clean_keys = stream(keys, jnp.uint32(_CLEAN)) if randomized else None
    if "clean_logits" in OBJECTIVES[config.objective].reads:
        empty = jnp.broadcast_to(0 * images[:, 0, 0, :1], (b, num_classes))
        goal = goal._replace(clean_logits=loops.repeat(_look, context, (images, clean_keys, empty), 1, config=None)[2])
    kept = None
    for restart in range(restarts):
        if restart == 0 and (start is not None or not random_start):
            first = images if start is None else jax.lax.stop_gradient(start)
            first = _project(first, images, context.eps, norm=threat.norm) if best else first
        else:
            first = _draw(keys, jnp.uint32(restart), images, context.eps, norm=threat.norm)
        run_keys = stream(keys, jnp.uint32(_NETWORK + restart)) if randomized else None
        state = _begin(first, images, goal, run_keys, kept, config)
        done = None if kept is None else _is_broken
        state = loops.repeat(_step, context, state, steps, config=config, done=done)
        if best or restarts > 1:
            state = loops.repeat(_finish, context, state, 1, config=config, done=done, start=steps)
        kept = state if kept is None else _choose(kept, state)
    with jax.debug_nans(False):
        check_finite(_with_nan(kept.loss, kept.images))
    if not best or not (random_start or start is not None):
        return kept.best if best else kept.images
    clean_logits = goal.clean_logits
    if clean_logits is None:
        clean_logits = lift(forward(as_partial(logits_fn), images, *([clean_keys] if randomized else [])))
    aim = labels if targets is None else targets
    return keep_mistakes(kept.best, kept.success, images, aim, clean_logits, targeted=targets is not None)


def random_starts(keys: KeysLike, images: ArrayLike, threat: ThreatModel) -> Float[Array, "b h w c"]:
    """Returns where `pgd` with these keys begins its first run, unless told otherwise: drawn uniformly from the ball, clipped to [0, 1]."""
    images = lift(check_images(images))
    check_threat(threat)
    return _draw(check_keys(keys, len(images)), jnp.uint32(0), images, jnp.asarray(float(threat.eps), images.dtype), norm=threat.norm)


def _begin(first: Array, images: Array, goal: _Goal, keys: Keys | None, kept: _State | None, config: _Config) -> _State:
    row = images[:, 0, 0, 0]  # for its place: what a loop carries must vary over a mesh as the images do
    nothing = jnp.zeros_like(row, bool)
    lowest = jnp.full_like(row, -jnp.inf)
    broken = nothing if kept is None else kept.success
    return _State(first, images, goal, keys, lowest, nothing, first if config.best else None, broken)


def _look(context: _Context, i: Array, state: tuple, config: None) -> tuple:
    """Notes the network's logits on the images."""
    del i, config
    images, keys, empty = state
    return images, keys, jax.lax.stop_gradient(lift(context.network(images, keys)).astype(empty.dtype))


def _measure(images: Array, i: Array, context: _Context, state: _State, config: _Config):
    """Returns the sum of what is climbed, and per example its value and whether the network is fooled."""
    labels, targets, clean_logits = state.goal
    logits = lift(context.network(images, None if state.keys is None else stream(state.keys, i)))
    aim = targets if config.targeted else labels
    hit = jnp.argmax(logits, axis=-1).astype(aim.dtype) == aim
    if config.targeted and "targets" not in OBJECTIVES[config.objective].reads:
        loss = -evaluate(config.objective, logits, targets)
    else:
        loss = evaluate(config.objective, logits, labels, targets, clean_logits)
    return jnp.sum(loss), (loss.astype(images.dtype), hit if config.targeted else ~hit)


def _note(state: _State, loss: Array, success: Array, config: _Config) -> _State:
    """Writes down how the current iterate does: always, or where it is the best so far."""
    if not config.best:
        return state._replace(loss=loss, success=success)
    # A success before a larger loss, so that more steps never help the network; and NaN before all, which must show in the end.
    better = jnp.where(success == state.success, ~(loss <= state.loss), success) | jnp.isnan(loss)
    best = jnp.where(better[:, None, None, None], state.images, state.best)
    return state._replace(loss=jnp.where(better, loss, state.loss), success=jnp.where(better, success, state.success), best=best)


def _step(context: _Context, i: Array, state: _State, config: _Config) -> _State:
    gradient, measured = jax.grad(_measure, has_aux=True)(state.images, i, context, state, config)
    gradient, (loss, success) = jax.lax.stop_gradient((gradient, measured))
    state = _note(state, loss, success, config)
    moved = state.images + context.step_size * unit_step(gradient, norm=config.norm)
    project = to_box_and_ball if config.box_first else to_ball_and_box
    return state._replace(images=project(moved, state.clean, context.eps, norm=config.norm))


def _finish(context: _Context, i: Array, state: _State, config: _Config) -> _State:
    """Measures the last iterate; the steps measured the points at which they took gradients."""
    _, (loss, success) = _measure(state.images, i, context, state, config)
    return _note(state, *jax.lax.stop_gradient((loss, success)), config)


def _is_broken(state: _State) -> Array:
    return state.broken


_project = jax.jit(to_ball_and_box, static_argnames="norm")


@functools.partial(jax.jit, static_argnames="norm")
def _draw(keys: Keys, restart: Array, images: Array, eps: Array, *, norm: str) -> Array:
    keys = stream(keys, restart)
    return to_ball_and_box(images + random_in_ball(keys, images, eps, norm=norm), images, eps, norm=norm)


@jax.jit
def _choose(kept: _State, new: _State) -> _State:
    """Returns per example the earlier run, unless it failed and the new one succeeded or came further."""
    better = ~kept.success & (new.success | ~(new.loss <= kept.loss))
    kept, new = kept._replace(keys=None), new._replace(keys=None)  # of no use any more
    return jax.tree.map(lambda a, b: jnp.where(better.reshape(-1, *[1] * (a.ndim - 1)), b, a), kept, new)


def _check_options(threat: Any, steps: Any, step_size: Any, objective: Any, random_start: bool, restarts: Any) -> None:
    check_threat(threat)
    if objective not in OBJECTIVES:
        raise registry.unknown("objective", objective, OBJECTIVES)
    check_count("steps", steps)
    if is_concrete(step_size) and not 0 < (as_number(step_size) or 0) < math.inf:
        raise InputError(f"step_size is in units of [0, 1] pixels and must be finite and > 0, got {step_size!r}.")
    check_count("restarts", restarts)
    if restarts > 1 and not random_start:
        raise InputError(f"restarts={restarts} without random starts would run the same attack {restarts} times; set random_start=True.")
    if is_concrete(step_size) and as_number(step_size) > threat.eps * (1 + 1e-6) > 0:  # a float32 of the radius is no step over it
        warnings.warn(
            f"step_size {as_number(step_size):g} is over the radius {threat.eps:g}, so each step goes across the ball; is it in units of "
            "[0, 1] pixels?",
            stacklevel=3,
        )


def _check_goal(objective: str, targeted: bool, labelled: bool, leaves_the_image: bool) -> None:
    reads = OBJECTIVES[objective].reads
    if "targets" in reads and not (targeted and labelled):
        lost = "labels" if targeted else "targets"
        raise InputError(f"objective {objective!r} compares label and target: give {lost} (b,) too, or take 'ce', 'cw' or 'dlr'.")
    if "clean_logits" in reads and targeted:
        raise InputError(f"objective {objective!r} leaves the clean logits and reaches for no class; take 'ce' or 'cw' with targets.")
    if "clean_logits" in reads and not leaves_the_image:
        raise InputError(f"objective {objective!r} has no gradient at the image itself; set random_start=True or give start.")


def _check_targets(targets: Any, labels: Any, num_classes: int, b: int) -> Array:
    targets = check_classes(targets, num_classes, b, name="targets")
    if np.shape(labels) == (b,) and is_concrete(targets, labels):
        same = np.asarray(targets) == np.asarray(labels)
        if same.any():
            raise InputError(f"targets must differ from the labels; on {same.sum()} of {b} images they do not, first at {same.argmax()}.")
    return targets


@jax.jit
def _with_nan(loss: Array, images: Array) -> Array:
    """Returns the loss, NaN also where the gradient was."""
    return jnp.where(jnp.isnan(images).any((1, 2, 3)), jnp.nan, loss)
