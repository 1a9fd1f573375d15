"""Auto-PGD: projected gradient ascent with momentum that sets its own step size, and its sparse form for L1."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from robustjax.attacks import apgd_schedule, apgd_steps, objectives
from robustjax.attacks.apgd_steps import count_changed, select
from robustjax.attacks.doors import check_count, check_finite, check_start, check_targets, enter, keep_mistakes
from robustjax.attacks.network import forward
from robustjax.attacks.plan import Context, Outcome, Plan, Rows, ranked_targets, run_plan
from robustjax.core import loops, registry
from robustjax.core.check import InputError
from robustjax.core.numerics import lift
from robustjax.core.rng import stream
from robustjax.core.types import ArrayLike, Keys, KeysLike, LogitsFn, Norm, ThreatModel

OBJECTIVES = ("ce", "dlr", "dlr_targeted", "cw", "logit_difference")
MOMENTUM = 0.75  # a of Algorithm 1: the share of the new step


class ApgdState(NamedTuple):
    """What a run leaves behind, one row an example."""

    x_best: Float[Array, "b h w c"]  # where the objective was largest
    x_best_adv: Float[Array, "b h w c"]  # the last point that the network got wrong; where there was none, the run's first
    loss_best: Float[Array, " b"]  # the objective at x_best
    still_correct: Bool[Array, " b"]  # whether the network got every point right


class _Config(NamedTuple):
    """What a compiled program depends on."""

    norm: Norm
    objective: str
    size: int  # entries of an image
    stages: apgd_schedule.Stages
    eot: int


class _Momentum(NamedTuple):
    """What 'linf' and 'l2' remember between steps."""

    origin: Array  # where the last step began
    loss: Array  # of the last point measured
    rises: Array  # int32, steps since the last check in which the loss rose
    checked_loss: Array  # the largest loss at the last check; before the first it is not read
    reduced: Array  # bool, the last check reduced the step size; before the first it counts as one that did


class _Sparsity(NamedTuple):
    """What 'l1' remembers between steps."""

    rank: Array  # int32, of the gradient that bounds the entries that move
    changed: Array  # int32, entries of the best point that differed from the clean image at the last check


class _State(NamedTuple):
    """One row an example."""

    keys: Keys  # for networks that draw
    clean: Array
    labels: Array
    targets: Array
    points: Array  # to be measured next
    best: Array  # where the loss was largest
    best_gradient: Array
    best_loss: Array
    adversarial: Array  # the last point that the network got wrong
    correct: Array  # bool, no point has been wrong
    start_loss: Array
    step_size: Array
    memory: _Momentum | _Sparsity


class _Sample(NamedTuple):
    """Draws of a network at the same points, one row an example."""

    points: Array
    keys: Keys
    labels: Array
    targets: Array
    gradient: Array  # sum over the draws
    loss: Array  # of the last draw
    wrong: Array  # bool, likewise


def apgd(
    keys: KeysLike,
    logits_fn: LogitsFn,
    images: ArrayLike,
    labels: ArrayLike,
    threat: ThreatModel,
    *,
    steps: int = 100,
    restarts: int = 1,
    objective: str = "ce",
    num_targets: int = 9,
    targets: ArrayLike | None = None,
    start: ArrayLike | None = None,
    eot: int = 1,
    return_state: bool = False,
    randomized: bool = False,
) -> Float[Array, "b h w c"] | tuple[Float[Array, "b h w c"], ApgdState]:
    """Looks for images within the threat model that the network gets wrong, with no step size to choose.

    In 'linf' and 'l2' the step size begins at twice the radius. At fixed steps it is looked back: where the objective rose in
    three quarters of the steps or fewer since the last look, or its best value did not improve, the step size is halved and the
    run goes back to its best point. In 'l1' a step moves the entries of largest gradient only, two thirds as many as the best
    point has changed; the step size begins at the radius and falls by 1.5 unless the best point has become sparser.

    Each run goes to its end. An example that is broken sits out the later ones; all others go through every restart and target.

    Departures of the official code from the papers are kept: in the first look of a run the first loss counts as a rise if it
    is above 0, since the slot before it is not yet filled (for DLR, negative where the network is right, it is not); with
    `eot` > 1 loss and class come from the last draw, only the gradient is averaged.

    Runs inside jit, grad and shard_map, or by itself; then it is driven from Python in compiled chunks. The radius is no
    constant of the program: sweeping over it compiles nothing. To derivatives the result is a constant.

    Args:
        keys: one typed key per example (`core.example_keys`).
        logits_fn: images -> logits (b, k), in evaluation mode: examples must not influence each other; see `pgd`.
        images: (b, h, w, c) in [0, 1], at least float32 internally: bfloat16 is lifted, float64 kept.
        labels: (b,) integers.
        threat: norm and radius in units of [0, 1] pixels. Inside jit its radius must be a Python number: it cannot be traced.
        steps: how many a run takes; it calls the network once more.
        restarts: runs from independent random starts, for each target where there are targets.
        objective: 'ce' cross-entropy, 'dlr' difference of logits ratio, 'dlr_targeted' the same towards one class, 'cw' margin
            max_{j != y} z_j - z_y, or 'logit_difference' z_t - z_y. The two DLR need four classes: with fewer 'cw' and
            'logit_difference' stand in, with a warning.
        num_targets: how many classes the targeted objectives try, the likeliest of the clean image first; at most k - 1.
        targets: (b, t) classes to try instead, none of them the label.
        start: images at which the first run begins; one outside of ball and box is brought there.
        eot: draws of a randomized network over which the gradient is averaged; a deterministic one is called once.
        return_state: whether to return the state too.
        randomized: whether logits_fn is (images, keys) -> logits and draws by these keys.

    Returns:
        Per example the last point of its run that the network got wrong, else the point of largest objective over all runs, in the
        ball and the box. An image that is wrong to begin with and was not kept so by any run comes back as it was. With
        `return_state` also the state of the run that was kept.

    Raises:
        InputError: for bad shapes, dtypes, ranges or options, or (when not traced) a network that returns NaN.

    References:
        Croce and Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks, ICML
        2020, Algorithm 1; for 'l1' Mind the box: l1-APGD for sparse adversarial attacks on image classifiers, ICML 2021, section 3.

    >>> def logits_fn(x):
    ...     return jnp.stack([x.sum((1, 2, 3)), 1 - x.sum((1, 2, 3))], axis=1)
    >>> grey, keys = jnp.full((1, 1, 1, 1), 0.5), jax.random.split(jax.random.key(0), 1)
    >>> apgd(keys, logits_fn, grey, jnp.array([0]), ThreatModel("linf", 0.25), steps=3).ravel()
    Array([0.25], dtype=float32)
    """
    if objective not in OBJECTIVES:
        raise registry.unknown("objective", objective, OBJECTIVES)
    _check_counts(steps=steps, restarts=restarts, num_targets=num_targets, eot=eot)
    entered = enter(keys, logits_fn, images, labels, threat, randomized=randomized)
    objective = objectives.for_classes(objective, entered.num_classes)
    clean_logits = lift(forward(entered.network, entered.images, stream(entered.keys, 0)))
    targets = _targets(targets, objective, num_targets, entered.labels, clean_logits)
    plan = make_plan(
        threat.norm,
        shape=entered.images.shape[1:],
        steps=steps,
        restarts=restarts,
        objective=objective,
        num_targets=0 if targets is None else targets.shape[1],
        eot=eot if randomized else 1,
    )
    start = None if start is None else check_start(start, entered.images)
    found, state = run_plan(
        plan, stream(entered.keys, 1), entered.network, entered.images, entered.labels, float(threat.eps), targets=targets, start=start
    )
    check_finite(found.loss)
    images = keep_mistakes(found.images, found.success, entered.images, entered.labels, clean_logits)
    return (images, ApgdState(state.best, state.adversarial, state.best_loss, state.correct)) if return_state else images


def make_plan(
    norm: Norm,
    *,
    shape: tuple[int, int, int],
    steps: int = 100,
    restarts: int = 1,
    objective: str = "ce",
    num_targets: int = 0,
    eot: int = 1,
    large_radii: bool = False,
) -> Plan:
    """Returns the attack as a plan of checked options.

    Args:
        norm: 'linf', 'l2' or 'l1'.
        shape: (h, w, c) of the images.
        steps: of a run, over all stages.
        restarts: random starts, of each target.
        objective: see `apgd`; one that the number of classes allows.
        num_targets: target classes per example, 0 for the untargeted objectives.
        eot: draws over which gradients are averaged.
        large_radii: for 'l1', begin in balls of three and two times the radius, each stage at the best point of the one before,
            projected; only the last stage can succeed. AutoAttack does so.

    Raises:
        InputError: for steps, restarts or draws below 1, or larger radii in another norm.
    """
    _check_counts(steps=steps, restarts=restarts, eot=eot)
    if large_radii and norm != "l1":
        raise InputError(f"large_radii is the schedule of 'l1', got norm={norm!r}; leave it out.")
    config = _Config(norm, objective, math.prod(shape), apgd_schedule.stages(steps, large_radii=large_radii), eot)
    calls = sum(length + 1 for _, length in config.stages)
    # Short chunks where a step is long to compile: with several draws, or the searches of 'l1'.
    chunk = max(1, (5 if norm == "l1" else 10) // eot)
    return Plan("apgd", _begin, _step, _outcome, config, calls, restarts, num_targets, chunk)


def _targets(targets: Any, objective: str, num_targets: int, labels: Array, clean_logits: Array) -> Int[Array, "b t"] | None:
    """Returns the target classes (b, t), or None where the objective has none."""
    if "targets" in objectives.OBJECTIVES[objective].reads:
        k = clean_logits.shape[1]
        return ranked_targets(clean_logits, labels, min(num_targets, k - 1)) if targets is None else check_targets(targets, labels, k)
    if targets is not None:
        raise InputError(f"targets are read by 'dlr_targeted' and 'logit_difference' only, got objective={objective!r}; leave them out.")
    return None


def _check_counts(**counts: Any) -> None:
    for name, count in counts.items():
        check_count(name, count)


def _begin(context: Context, rows: Rows, config: _Config) -> _State:
    clean, eps = rows.images, context.eps * config.stages[0][0]
    radius = _per_image(jnp.full_like(clean[:, 0, 0, 0], eps))
    points = (
        apgd_steps.draw_start(stream(rows.keys, 0), clean, radius, norm=config.norm)
        if rows.start is None
        else apgd_steps.enter(rows.start, clean, radius, norm=config.norm)
    )
    if len(config.stages) > 1:
        points = apgd_steps.project(points, clean, radius, norm=config.norm)  # once more, which cleans rounding errors, which count
    elif config.norm == "l1":
        points = apgd_steps.enter(points, clean, radius, norm=config.norm)  # once more where they add up to more than the radius
    row = clean[:, 0, 0, 0]  # for its place: what a loop carries must vary over a mesh as the images do
    lowest, none = jnp.full_like(row, -jnp.inf), jnp.zeros_like(rows.restart)
    if config.norm == "l1":
        changed = count_changed(points, clean)
        if rows.start is None and len(config.stages) == 1:
            memory = _Sparsity(jnp.full_like(changed, apgd_schedule.first_rank(config.size)), jnp.full_like(changed, config.size))
        else:
            memory = _Sparsity(jnp.asarray(apgd_schedule.ranks(config.size))[changed], changed)
    else:
        memory = _Momentum(points, jnp.zeros_like(row), none, lowest, none == 0)
    return _State(
        stream(rows.keys, 1),
        clean,
        rows.labels,
        rows.targets,
        points,
        best=points,
        best_gradient=jnp.zeros_like(points),
        best_loss=lowest,
        adversarial=points,
        correct=none == 0,
        start_loss=lowest,
        step_size=jnp.zeros_like(row),
        memory=memory,
    )


def _step(context: Context, i: Array, state: _State, config: _Config) -> _State:
    now = apgd_schedule.Schedule(*(jnp.asarray(column)[i] for column in apgd_schedule.schedule(config.stages, config.norm)))
    gradient, loss, wrong = _measure(context, i, state, config)
    state = _note(state, now, gradient, loss, wrong, i)
    eps = context.eps * now.radius.astype(loss.dtype)
    if config.norm == "l1":
        state, back = _check_sparsity(state, now, eps, config)
        origin, gradient = select(back, state.best, state.points), select(back, state.best_gradient, gradient)
        moved = origin + _per_image(state.step_size) * apgd_steps.sparse_direction(gradient, state.memory.rank)
        moved = select(now.moves_on, state.best, moved)  # another stage begins at the best point of this one
        radius = _per_image(context.eps * now.next_radius.astype(loss.dtype))
        return state._replace(points=apgd_steps.project(moved, state.clean, radius, norm="l1"))
    state, back = _check_rises(state, now, eps, loss)
    origin, gradient = select(back, state.best, state.points), select(back, state.best_gradient, gradient)
    share = _per_image(jnp.where(now.first, 1.0, MOMENTUM).astype(loss.dtype))
    points = apgd_steps.move(
        origin, gradient, state.memory.origin, state.clean, _per_image(state.step_size), share, _per_image(eps), norm=config.norm
    )
    return state._replace(points=points, memory=state.memory._replace(origin=origin))


def _outcome(state: _State) -> Outcome:
    images = select(state.correct, state.best, state.adversarial)
    return Outcome(images, ~state.correct, state.best_loss, state.start_loss)


# What a step does, in its order.


def _measure(context: Context, i: Array, state: _State, config: _Config) -> tuple[Array, Array, Array]:
    """Returns gradient, objective and whether the network is wrong at the points."""
    keys = jax.vmap(jax.random.fold_in)(state.keys, i)
    nothing = jnp.zeros_like(state.best_loss)
    sample = _Sample(state.points, keys, state.labels, state.targets, jnp.zeros_like(state.points), nothing, nothing != 0)
    if config.eot == 1:
        sample = _sample(context, jnp.int32(0), sample, config.objective)
    else:
        sample = loops.repeat(_sample, context, sample, config.eot, config=config.objective)
    return sample.gradient / config.eot if config.eot > 1 else sample.gradient, sample.loss, sample.wrong


def _sample(context: Context, draw: Array, sample: _Sample, objective: str) -> _Sample:
    def value(points):
        logits = lift(context.network(points, stream(sample.keys, draw)))
        loss = objectives.evaluate(objective, logits, sample.labels, sample.targets)
        wrong = jnp.argmax(logits, axis=-1).astype(sample.labels.dtype) != sample.labels
        # With NaN among the logits the largest is anyone's: no success.
        return jnp.sum(loss), (loss.astype(points.dtype), wrong & ~jnp.isnan(loss))

    gradient, measured = jax.grad(value, has_aux=True)(sample.points)
    gradient, (loss, wrong) = jax.lax.stop_gradient((gradient, measured))
    return sample._replace(gradient=sample.gradient + gradient, loss=loss, wrong=wrong)


def _note(state: _State, now: apgd_schedule.Schedule, gradient: Array, loss: Array, wrong: Array, i: Array) -> _State:
    """Writes down how the points do."""
    # A loss of NaN counts as the best and stays, so that it shows in the end.
    better = (now.first | ~(loss <= state.best_loss)) & ~jnp.isnan(state.best_loss)
    wrong = wrong & now.counts
    return state._replace(
        best=select(better, state.points, state.best),
        best_gradient=select(better, gradient, state.best_gradient),
        best_loss=jnp.where(better, loss, state.best_loss),
        adversarial=select(wrong | now.first, state.points, state.adversarial),
        correct=state.correct & ~wrong,
        start_loss=jnp.where(i == 0, loss, state.start_loss),
    )


def _check_rises(state: _State, now: apgd_schedule.Schedule, eps: Array, loss: Array) -> tuple[_State, Array]:
    """Returns the state with the step size for the next step, and which rows go back to their best point."""
    memory, check = state.memory, now.window > 0
    rises = jnp.where(now.first, 0, memory.rises + (loss > memory.loss).astype(jnp.int32))
    oscillates = 4 * rises <= 3 * now.window
    stalls = ~memory.reduced & (memory.checked_loss >= state.best_loss)
    halve = check & (oscillates | stalls)
    memory = memory._replace(
        # The official code compares the loss of the first step with a slot that is not yet filled.
        loss=jnp.where(now.first, 0, loss),
        rises=jnp.where(check, 0, rises),
        checked_loss=jnp.where(check, state.best_loss, memory.checked_loss),
        reduced=jnp.where(check, halve, memory.reduced),
    )
    step_size = jnp.where(now.first, 2 * eps, jnp.where(halve, state.step_size / 2, state.step_size))
    return state._replace(step_size=step_size, memory=memory), halve


def _check_sparsity(state: _State, now: apgd_schedule.Schedule, eps: Array, config: _Config) -> tuple[_State, Array]:
    """Returns the state with step size and sparsity for the next step, and which rows go back to their best point."""
    memory, check = state.memory, now.window > 0
    changed = count_changed(state.best, state.clean)
    sparser = check & (20 * changed < 19 * memory.changed)  # by more than 5 %
    step_size = jnp.clip(jnp.where(sparser, eps, state.step_size / 1.5), eps / 10, eps)
    step_size = jnp.where(now.first, eps, jnp.where(check, step_size, state.step_size))
    # What a stage begins at says how sparse it begins; `_begin` does that for the first.
    renew = check | now.first if len(config.stages) > 1 else check
    ranks = jnp.asarray(apgd_schedule.ranks(config.size))
    memory = _Sparsity(jnp.where(renew, ranks[changed], memory.rank), jnp.where(renew, changed, memory.changed))
    return state._replace(step_size=step_size, memory=memory), sparser


def _per_image(values: Array) -> Array:
    return values[:, None, None, None]
