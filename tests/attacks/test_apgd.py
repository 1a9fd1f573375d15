"""Auto-PGD where the answer is known; tests/goldens compares it with the official code. Each test names the mutants it kills."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from jax.tree_util import Partial

from robustjax.attacks import apgd_schedule
from robustjax.attacks.apgd import apgd, make_plan
from robustjax.attacks.apgd_steps import draw_start, enter, nth_smallest, project, sparse_direction
from robustjax.attacks.doors import rounding
from robustjax.attacks.network import as_network
from robustjax.attacks.objectives import cross_entropy
from robustjax.attacks.plan import Context, Outcome, ranked_targets, rows_of, run_plan
from robustjax.core import InputError, ThreatModel, example_keys
from robustjax.core.numerics import image_norm

SHAPE = (6, 3, 3, 2)
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0.3, 0.7, SHAPE).astype(np.float32)
WEIGHT = RNG.normal(size=(18, 5)).astype(np.float32)
TWO_LABELS = np.array([0, 1, 0, 1, 0, 1], np.int32)
TWO = np.stack([WEIGHT[:, 0], -WEIGHT[:, 0]], 1)  # two classes: the gradient keeps its direction, so the optimum is in closed form


MODULE = importlib.import_module("robustjax.attacks.apgd")


@pytest.fixture(autouse=True)
def short_programs(monkeypatch):
    """One step a program, a tenth of the compilation. That the result does not depend on it is among the laws."""
    monkeypatch.setattr(MODULE, "make_plan", lambda *norm, **options: make_plan(*norm, **options)._replace(chunk=1))


@pytest.fixture
def called(monkeypatch):
    """Stands in for `run_plan`: notes what the attack asks of it and, without running anything, returns grey images as its find."""
    calls = []

    def run(plan, keys, network, images, labels, eps, *, targets, start):
        calls.append({"plan": plan, "targets": targets, "start": start, "eps": eps, "keys": keys})
        loss = jnp.where(jnp.arange(len(labels)) == run.failing, jnp.nan, jnp.zeros(len(labels)))
        outcome = Outcome(jnp.full_like(images, 0.5), jnp.arange(len(labels)) == run.broken, loss, loss)
        return outcome, MODULE._State(*[name for name in MODULE._State._fields])

    run.failing, run.broken = -1, -1
    calls.append(run)
    monkeypatch.setattr(MODULE, "run_plan", run)
    return calls


def linear(weight, images):
    return images.reshape(images.shape[0], -1) @ weight


def rippled(weight, images):
    """Logits with many maxima, so that what an attack finds depends on where it starts and how it steps."""
    return jnp.sin(9 * images.reshape(images.shape[0], -1)) @ weight


RIPPLED = Partial(rippled, jnp.asarray(WEIGHT))
LABELS = np.asarray(jnp.argmax(rippled(WEIGHT, IMAGES), 1), np.int32)  # all right to begin with


def keys(n=6, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(n))


def attack(fn=RIPPLED, norm="linf", eps=0.1, *, images=IMAGES, labels=LABELS, seed=0, **options):
    return apgd(keys(len(images), seed), fn, images, labels, ThreatModel(norm, eps), **options)


@jax.jit
def judge(x):
    """Returns of images (..., 6, h, w, c) whether the network is wrong, and its loss."""
    labels = jnp.tile(jnp.asarray(LABELS), x.size // IMAGES.size)
    logits = RIPPLED(x.reshape(-1, *SHAPE[1:]))
    return (jnp.argmax(logits, 1) != labels).reshape(x.shape[:-3]), cross_entropy(logits, labels).reshape(x.shape[:-3])


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.5), ("l2", 0.2), ("l1", 0.25)])
def test_linear_network_is_taken_to_its_optimum(norm, eps):
    # Kills: descent, another ball, the box forgotten (linf), a step that is never reduced (l2 then circles around the optimum) or that
    # stays dense (l1).
    uphill = np.where(TWO_LABELS == 0, -1, 1)[:, None, None, None] * WEIGHT[:, 0].reshape(1, 3, 3, 2)
    x = np.asarray(attack(Partial(linear, jnp.asarray(TWO)), norm, eps, labels=TWO_LABELS, steps=60))
    if norm == "l1":  # the optimum moves the steepest entry only; the attack's own sparsity stops a little short of that
        gain = ((x - IMAGES) * uphill).sum((1, 2, 3)) / (eps * np.abs(uphill[0]).max())
        assert ((x != IMAGES).sum((1, 2, 3)) <= 3).all() and (gain > 0.8).all() and (gain < 1 + 1e-5).all()
        return
    direction = np.sign(uphill) if norm == "linf" else uphill / np.linalg.norm(uphill[0])
    np.testing.assert_allclose(x, np.clip(IMAGES + eps * direction, 0, 1), atol=1e-6 if norm == "linf" else 2e-3)


def follow(plan, eps, seed=0, start=None, fn=RIPPLED):
    """Takes a plan's steps one by one: (points measured at each (steps, b, ...), the states after each)."""
    context = Context(as_network(fn, randomized=False), jnp.float32(eps))
    rows = rows_of(plan, keys(seed=seed), jnp.asarray(IMAGES), jnp.asarray(LABELS), None, jnp.zeros(6, jnp.int32), start)
    state, measured = begin(context, rows, plan), []
    states = []
    for i in range(plan.steps):
        measured.append(np.asarray(state.points))
        state = advance(context, jnp.full(6, i, jnp.int32), state, plan)
        states.append(state)
    return np.stack(measured), states


@functools.partial(jax.jit, static_argnames="plan")
def begin(context, rows, plan):
    return plan.begin(context, rows, plan.config)


@functools.partial(jax.jit, static_argnames="plan")
def advance(context, i, state, plan):
    return plan.step(context, i, state, plan.config)


projected = jax.jit(functools.partial(project, norm="l1"))


def size_of(delta, norm):
    return np.abs(delta).max((-3, -2, -1)) if norm == "linf" else np.abs(delta).sum((-3, -2, -1))


@pytest.mark.parametrize(
    ("norm", "eps", "options"), [("linf", 0.03, {}), ("l1", 0.15, {"large_radii": True})], ids=["linf", "l1-three-radii"]
)
def test_what_is_kept_of_all_points(norm, eps, options):
    # Kills: the first misclassified point kept, the best one returned in its place, the first or the last point not looked at,
    # success or losses of the larger balls counted, a stage that begins elsewhere, the stages' radii or lengths.
    plan = make_plan(norm, shape=SHAPE[1:], steps=20, **options)
    points, states = follow(plan, eps)
    ends = np.cumsum([n + 1 for _, n in apgd_schedule.stages(20, large_radii=bool(options))])
    assert plan.steps == ends[-1] == len(points) and len(ends) == (3 if options else 1)
    lost, losses = map(np.asarray, judge(points))
    for stage, (first, end) in enumerate(zip([0, *ends], ends, strict=False)):
        radius = eps * (len(ends) - stage)
        sizes = size_of(points[first:end] - IMAGES, norm)
        assert (sizes <= radius + 2e-5).all() and sizes.max() > 0.99 * radius
        best = points[first:end][losses[first:end].argmax(0), np.arange(6)]
        if stage < len(ends) - 1:
            np.testing.assert_allclose(points[end], projected(best, IMAGES, jnp.full((6, 1, 1, 1), radius - eps)), atol=1e-6)
            np.testing.assert_array_equal(states[end].memory.changed, (points[end] != IMAGES).sum((1, 2, 3)))
    success = lost[first:].any(0)
    last = points[first:][len(lost) - first - 1 - lost[first:][::-1].argmax(0), np.arange(6)]
    out = plan.outcome(states[-1])
    np.testing.assert_array_equal(out.success, success)
    np.testing.assert_array_equal(out.images[success], last[success])
    # Where two points are as good to rounding, which differs between programs, either may be the best.
    most, same = losses[first:].max(0), (points[first:] == np.asarray(out.images)).all((2, 3, 4))
    assert (success | (same & (losses[first:] >= most - 1e-5 * np.abs(most))).any(0)).all()
    np.testing.assert_allclose(out.loss, losses[first:].max(0), rtol=1e-5)
    np.testing.assert_allclose(out.start_loss, losses[0], rtol=1e-5)
    # Else this test could not fail.
    assert success.any() and (lost[first:].sum(0) > 1).any() and (bool(options) or np.abs(last - best).max() > 1e-4)
    assert not success.all() and (lost[:first].any(0) & ~success).any() == bool(options)


def mixed(rows, yes, no):
    """Returns a state with rows of two; both have the same keys."""
    return type(yes)(yes.keys, *jax.tree.map(lambda a, b: jnp.where(rows.reshape(-1, *[1] * (a.ndim - 1)), a, b), yes[1:], no[1:]))


def test_rows_count_their_own_steps():
    # Kills: one schedule for the batch, a Python branch on the step, rises or checks counted over the batch.
    for norm, eps, options in (("l2", 0.4, {}), ("l1", 0.5, {"large_radii": True})):
        plan = make_plan(norm, shape=SHAPE[1:], steps=20, **options)
        expected = follow(plan, eps)[1][-1]
        context = Context(as_network(RIPPLED, randomized=False), jnp.float32(eps))
        rows = rows_of(plan, keys(), jnp.asarray(IMAGES), jnp.asarray(LABELS), None, jnp.zeros(6, jnp.int32))
        state, behind = begin(context, rows, plan), np.array([0, 3, 0, 7, 1, 0])
        for i in range(plan.steps + 7):
            at = i - behind
            new = advance(context, jnp.asarray(at, jnp.int32), state, plan)
            state = mixed(jnp.asarray((at >= 0) & (at < plan.steps)), new, state)
        for a, b in zip(plan.outcome(state), plan.outcome(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_state_and_images_agree_and_restarts_only_help():
    # Kills: fields mixed up, the best point where one is misclassified, the last restart kept, one draw for all restarts, restarts that
    # undo a success.
    (x, state), (x_, state_) = (attack(eps=0.025, seed=3, steps=4, restarts=r, return_state=True) for r in (1, 3))
    broken, broken_ = ~np.asarray(state.still_correct), ~np.asarray(state_.still_correct)
    for y, s, b in ((x, state, broken), (x_, state_, broken_)):
        np.testing.assert_array_equal(y, np.where(b[:, None, None, None], s.x_best_adv, s.x_best))
        np.testing.assert_array_equal(judge(y)[0], b)
        np.testing.assert_allclose(judge(s.x_best)[1], s.loss_best, rtol=1e-5)
    assert 0 < broken.sum() < broken_.sum() < 6 and broken_[broken].all()
    np.testing.assert_array_equal(np.asarray(x)[broken], np.asarray(x_)[broken])
    both = ~broken & ~broken_
    assert (np.asarray(state_.loss_best)[both] >= np.asarray(state.loss_best)[both]).all()


def test_start_is_used():
    # Kills: a start that is ignored, replaced by a draw, or kept outside of the ball.
    inside = np.clip(IMAGES + RNG.uniform(-0.03, 0.03, SHAPE), 0, 1).astype(np.float32)
    context = Context(as_network(RIPPLED, randomized=False), jnp.float32(0.6))
    for norm, outside in (("linf", IMAGES + np.float32(0.7)), ("l2", IMAGES + np.float32(0.2)), ("l1", IMAGES + np.float32(0.2))):
        plan = make_plan(norm, shape=SHAPE[1:], steps=20)
        for start in (inside, outside):
            rows = rows_of(plan, keys(), jnp.asarray(IMAGES), jnp.asarray(LABELS), None, jnp.zeros(6, jnp.int32), jnp.asarray(start))
            points = np.asarray(begin(context, rows, plan).points)
            if start is inside:
                np.testing.assert_array_equal(points, inside)
            else:
                np.testing.assert_allclose(image_norm(jnp.asarray(points - IMAGES), norm), 0.6, rtol=1e-5)


def test_options_reach_the_plan(called):
    # Kills: an option that is dropped or mixed up, the label among the targets, more targets than classes, other targets than the
    # likeliest, a deterministic network called `eot` times a step, targets given to an objective that has none.
    called.clear()
    fn = Partial(linear, jnp.asarray(WEIGHT))
    labels = np.asarray(jnp.argmax(fn(IMAGES), 1), np.int32)
    attack(fn, "l2", 0.3, labels=labels, steps=7, restarts=2, eot=3, start=IMAGES)
    attack(fn, "l1", 0.3, labels=labels, objective="dlr_targeted")
    attack(fn, labels=labels, objective="logit_difference", num_targets=2)
    given = (labels[:, None] + np.array([[1, 3, 2]])) % 5
    attack(fn, labels=labels, objective="dlr_targeted", targets=given)
    attack(lambda x, keys: fn(x), labels=labels, objective="dlr", eot=3, randomized=True)
    first, second, third, fourth, fifth = called
    assert first["plan"] == make_plan("l2", shape=SHAPE[1:], steps=7, restarts=2)._replace(chunk=1)
    assert first["eps"] == 0.3 and first["targets"] is None
    np.testing.assert_array_equal(first["start"], IMAGES)
    ranked = np.asarray(ranked_targets(fn(jnp.asarray(IMAGES)), jnp.asarray(labels), 4))
    assert second["plan"] == make_plan("l1", shape=SHAPE[1:], objective="dlr_targeted", num_targets=4)._replace(chunk=1)
    np.testing.assert_array_equal(second["targets"], ranked)
    assert second["start"] is None
    np.testing.assert_array_equal(third["targets"], ranked[:, :2])
    np.testing.assert_array_equal(fourth["targets"], given)
    assert fifth["plan"] == make_plan("linf", shape=SHAPE[1:], objective="dlr", eot=3)._replace(chunk=1)


@pytest.mark.parametrize(("asked", "instead"), [("dlr", "cw"), ("dlr_targeted", "logit_difference")])
def test_few_classes_fall_back_and_say_so(asked, instead, called):
    # Kills: an error or NaN instead of the fallback, silence, another objective.
    fn = Partial(linear, jnp.asarray(WEIGHT[:, :3]))
    with pytest.warns(UserWarning, match=instead):
        attack(fn, labels=np.zeros(6, np.int32), objective=asked)
    assert called[-1]["plan"].config.objective == instead
    assert called[-1]["targets"] is None if asked == "dlr" else called[-1]["targets"].shape == (6, 2)


def test_clean_mistakes_stay_mistakes_and_nan_is_reported(called):
    # Kills: a point that the network gets right returned for an image that it gets wrong, or in place of one that was found; NaN passed on.
    run, fn = called.pop(0), Partial(linear, jnp.asarray(WEIGHT))
    said = np.asarray(jnp.argmax(fn(IMAGES), 1), np.int32)
    labels = np.where(np.arange(6) < 3, said, (said + 1) % 5)  # the last three are wrong to begin with
    run.broken = 5
    x = np.asarray(attack(fn, labels=labels))
    np.testing.assert_array_equal(x[[0, 1, 2, 5]], 0.5)
    np.testing.assert_array_equal(x[3:5], IMAGES[3:5])
    run.failing = 2
    with jax.debug_nans(False), pytest.raises(InputError, match="on 1 of 6 images.*first at position 2"):
        attack(fn, labels=labels)


def test_nan_stays_in_the_loss():
    # Kills: NaN counting as a success or forgotten at the next point or stage.
    def failing(weight, images):
        # Row 2 fails in the larger balls only, row 4 everywhere.
        radius = jnp.array([9, 9, 0.2, 9, 0, 9])
        lost = jnp.abs(images - IMAGES).sum((1, 2, 3)) >= radius
        return jnp.where(lost[:, None], jnp.nan, rippled(weight, images))

    plan = make_plan("l1", shape=SHAPE[1:], steps=20, large_radii=True)
    with jax.debug_nans(False):
        out = plan.outcome(follow(plan, 0.15, fn=Partial(failing, jnp.asarray(WEIGHT)))[1][-1])
        np.testing.assert_array_equal(np.isnan(out.loss), [False, False, True, False, True, False])
    assert LABELS[4] != 0  # class 0 is what an argmax over NaN finds
    assert not out.success[2] and not out.success[4] and out.success.any()


def noisy(weight, images, keys):
    """A slope hidden in noise that is drawn anew in each call."""
    noise = jax.vmap(lambda key: jax.random.normal(key, weight.shape))(keys)
    return jnp.einsum("bd,bdk->bk", images.reshape(images.shape[0], -1), weight[None] + 3 * noise)


def test_gradients_are_averaged_over_draws():
    # Kills: eot ignored, one draw for all of a step's, for all steps or for all rows, the sum of all gradients.
    uphill = np.sign(np.where(TWO_LABELS == 0, -1, 1)[:, None, None, None] * WEIGHT[:, 0].reshape(1, 3, 3, 2))
    context = Context(as_network(Partial(noisy, jnp.asarray(TWO)), randomized=True), jnp.float32(0.1))
    start = jnp.asarray(IMAGES)
    rows = rows_of(make_plan("linf", shape=SHAPE[1:]), keys(), start, jnp.asarray(TWO_LABELS), None, jnp.zeros(6, jnp.int32), start)
    plan = make_plan("linf", shape=SHAPE[1:], steps=1, objective="cw", eot=40)
    first = advance(context, jnp.zeros(6, jnp.int32), begin(context, rows, plan), plan)
    assert (np.sign(first.points - start) == uphill).mean() > 0.8  # 0.6 with a single draw
    forgetful = first._replace(best_loss=jnp.full(6, -jnp.inf))  # so that the next gradient is kept
    second = advance(context, jnp.ones(6, jnp.int32), forgetful, plan)
    gradients = np.stack([s.best_gradient for s in (first, second)])
    noise = (gradients * np.where(TWO_LABELS == 0, -1, 1)[None, :, None, None, None]).reshape(12, 18)
    assert (np.abs(noise[:, None] - noise[None]).max(-1) > 0.01)[~np.eye(12, dtype=bool)].all()
    np.testing.assert_allclose(noise.mean(0), 2 * TWO[:, 0], atol=1.0)  # a mean, not a sum


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"restarts": 0}, "restarts must be an integer >= 1"),
        ({"eot": 0}, "eot must be an integer >= 1"),
        ({"objective": "dlr_targeted", "num_targets": 0}, "num_targets must be an integer >= 1"),
        ({"objective": "kl"}, "kl"),
        ({"targets": np.zeros((6, 1), np.int32)}, "targets are read by 'dlr_targeted' and 'logit_difference' only"),
        ({"objective": "dlr_targeted", "targets": LABELS[:, None]}, "targets must differ from the labels"),
        ({"start": IMAGES[:3]}, "start must be floats of the images' shape"),
        ({"eps": 8.0}, "8 / 255"),
    ],
)
def test_bad_input_is_refused_in_one_line(options, message):
    # Kills: each check removed; several lines.
    with pytest.raises(InputError, match=message) as caught:
        attack(**options)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="large_radii"):
        make_plan("linf", shape=SHAPE[1:], large_radii=True)


def test_in_l1_large_images_leave_the_ball_by_no_more_than_is_allowed():
    # Kills: an allowance that does not grow with the image, which a step at 224x224x3 is beyond; a start that is not brought back.
    rng = np.random.default_rng(0)
    clean, slope = (jnp.asarray(law(size=(2, 224, 224, 3)), jnp.float32) for law in (rng.uniform, rng.normal))
    radius = jnp.full((2, 1, 1, 1), 12.0)
    start = enter(draw_start(keys(2), clean, radius, norm="l1"), clean, radius, norm="l1")
    step = sparse_direction(slope, jnp.full(2, int(0.9 * clean[0].size), jnp.int32))
    moved = project(start + radius * step, clean, radius, norm="l1")
    over = [np.abs(np.asarray(x, np.float64) - np.asarray(clean, np.float64)).sum((1, 2, 3)).max() - 12 for x in (start, moved)]
    assert max(over) <= rounding("l1", 12.0, clean[0].size) and over[0] <= rounding("l1", 12.0, 3072) < over[1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sparse_direction_is_that_of_a_sort(dtype):
    # Kills: ranks off by one or counted from the largest, a bisection that misses a bit, zeros that move, a length other than 1.
    with jax.enable_x64():
        values = RNG.normal(size=(8, 37)).astype(dtype)
        values[0], values[1, ::2], values[2], values[3, 5] = 0, 0, np.round(values[2]), 1e-30
        values[4], values[5] = values[4] * dtype(1e30), values[5] * dtype(1e-20)
        rank = np.array([3, 10, 20, 0, 36, 18, 35, 1], np.int32)
        expected = np.sort(np.abs(values), 1)[np.arange(8), rank]
        np.testing.assert_array_equal(jax.jit(nth_smallest)(jnp.abs(jnp.asarray(values)), jnp.asarray(rank)), expected)
        signs = np.where(np.abs(values) >= expected[:, None], np.sign(values), 0)
        direction = jax.jit(sparse_direction)(jnp.asarray(values.reshape(8, 37, 1, 1)), jnp.asarray(rank))
        assert direction.dtype == dtype
        np.testing.assert_allclose(direction[:, :, 0, 0], signs / np.maximum(np.abs(signs).sum(1, keepdims=True), 1e-10), rtol=1e-6)


def test_schedules():
    # Kills: stages of other lengths, a schedule that fails with few steps, checks of one stage counted into the next.
    assert apgd_schedule.stages(100, large_radii=True) == ((3.0, 30), (2.0, 30), (1.0, 40))
    for steps in range(1, 12):
        stages = apgd_schedule.stages(steps, large_radii=True)
        table = apgd_schedule.schedule(stages, "l1")
        assert sum(n for _, n in stages) == steps and len(table.first) == steps + 3
        assert table.first.sum() == 3 and table.moves_on.sum() == 2 and table.counts.sum() == stages[-1][1] + 1
        assert (table.window > 0).sum() == steps  # with so few, after each step
    # Two thirds of 3 changed entries of 10 may move, and always one; a fifth at first.
    assert apgd_schedule.ranks(10)[[0, 3, 10]].tolist() == [9, 8, 3] and apgd_schedule.first_rank(10) == 8


def test_random_starts():
    # Kills: another law of the start, one draw for all rows, a start outside of the box.
    for norm, eps in (("linf", 0.2), ("l1", 2.0), ("l2", 0.3)):
        plan = make_plan(norm, shape=SHAPE[1:])
        context = Context(as_network(RIPPLED, randomized=False), jnp.float32(eps))
        rows = rows_of(plan, keys(), jnp.asarray(IMAGES), jnp.asarray(LABELS), None, jnp.zeros(6, jnp.int32))
        delta = np.asarray(begin(context, rows, plan).points) - IMAGES
        np.testing.assert_allclose(image_norm(jnp.asarray(delta), norm), eps, rtol=1e-5)
        assert np.abs(delta[0] - delta[1]).max() > 0.05
    edge = rows._replace(images=jnp.ones_like(rows.images))
    assert begin(context, edge, plan).points.max() <= 1


@pytest.mark.parametrize(
    ("norm", "options"), [("linf", {"eot": 40, "restarts": 2}), ("l1", {"large_radii": True})], ids=["linf-draws", "l1-three-radii"]
)
@pytest.mark.parametrize("check_vma", [False, True])
def test_a_long_attack_is_traced_on_a_mesh(norm, options, check_vma):
    # Kills: a loop, which attacks of many steps become, that starts from constants: jax's default check refuses it.
    plan = make_plan(norm, shape=SHAPE[1:], steps=40, **options)

    def run(keys, images, labels):
        return run_plan(plan, keys, as_network(RIPPLED, randomized=False), images, labels, 0.1)[0]

    mesh, split = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,)), PartitionSpec("data")
    sharded = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(split,) * 3, out_specs=split, check_vma=check_vma))
    assert sharded.trace(keys(), jnp.asarray(IMAGES), jnp.asarray(LABELS)).out_info.images.shape == SHAPE
