"""Square Attack where the answer is known. Each test names the mutants it kills."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from robustjax.attacks import square
from robustjax.attacks.plan import Context, rows_of
from robustjax.attacks.projections import l1_ball_and_box
from robustjax.attacks.square import make_plan
from robustjax.attacks.square_windows import INSIDE, Draws, draw, make_sides, pyramid, transfer_mass
from robustjax.core import InputError, ThreatModel, example_keys
from robustjax.core.numerics import image_norm

NORMS = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
B = 8
EPS = {"linf": 0.1, "l2": 0.4, "l1": 1.0}


def keys(n=B, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(n))


def images_of(shape, b=B, seed=0):
    x = np.random.default_rng(seed).uniform(size=(b, *shape)).astype(np.float32)
    x[0], x[1] = 0, 1  # where the box binds at once
    return jnp.asarray(x)


def begun(norm, network, images, labels, **options):
    """Returns the state after `begin`, and the compiled step."""
    plan, context = make_plan(norm, shape=images.shape[1:], **options), Context(network, jnp.float32(EPS[norm]))
    rows = rows_of(plan, keys(len(images)), images, labels, None, jnp.zeros_like(labels, jnp.uint32))
    state = jax.jit(lambda context, rows: plan.begin(context, rows, plan.config))(context, rows)

    @jax.jit
    def step(i, state):
        return plan.step(context, jnp.full_like(labels, i), state, plan.config)

    return plan, state, step


def undecided(images, keys):
    """Logits that tie, with the label (0) first: every candidate has margin 0 and is kept, and none succeeds."""
    return jnp.zeros_like(images[:, 0, 0, :1]) * jnp.zeros((1, 3))


@pytest.mark.parametrize(("norm", "shape"), [("linf", (2, 2, 1)), ("linf", (9, 6, 2)), ("l2", (7, 12, 2)), ("l1", (3, 2, 33))])
def test_every_candidate_lies_in_ball_and_box(norm, shape):
    # Kills: a projection or clip forgotten, windows larger than the image, height for width, more signs than bits drawn, a tie
    # (margin 0) refused or taken for a success.
    images, labels = images_of(shape), jnp.zeros(B, jnp.int32)
    _, state, step = begun(norm, Partial(undecided), images, labels)
    before = None
    for i in (0, 1, 2, 30, 300):
        state = step(i, state)
        assert state.images.min() >= 0 and state.images.max() <= 1 and not state.success.any()
        size = image_norm(state.images - images, norm)
        assert (size <= EPS[norm] * (1 + 1e-6) + 1e-7).all() and (size[2:] > 0.1 * EPS[norm]).all()
        assert before is None or ((state.images != before).any((1, 2, 3)).sum() >= (B // 4 if norm == "linf" else B - 1))
        if norm == "linf":
            ends = (np.abs(np.clip(images + end, 0, 1) - state.images) for end in (np.float32(-0.1), np.float32(0.1)))
            assert (np.minimum(*ends) < 1e-6).all()
            if before is None:  # stripes: the sign is the column's, and columns differ
                signs = np.sign(np.asarray(state.images - images))[2:]
                assert (signs == signs[:, :1]).all() and (shape[1] == 2 or (signs != signs[:, :, :1]).any((1, 2, 3)).all())
        before = state.images


def test_windows_follow_the_official_law():
    # Kills: one window for all rows or queries, height for width, the last position used or another one never used, signs that
    # channels or the turn share, a side of the wrong query, the same corner for both windows.
    shape, n = (12, 9, 3), 6000
    sides = make_sides("l2", shape, 0.8)
    assert sides.sides[:4] == (9, 7, 5, 3)  # sqrt(86.4) = 9.3, sqrt(43.2) = 6.6, ...; at most 9, the width
    assert make_sides("linf", (32, 32, 3), 0.8).sides == (29, 20, 14, 10, 7, 5, 4, 3, 2, 1)  # by the paper's p
    query = jnp.asarray(np.resize([0, 11, 51, 201], n), jnp.int32)
    d = jax.device_get(jax.jit(draw, static_argnums=(2, 3))(jax.vmap(jax.random.fold_in)(keys(n), query), query, sides, shape))
    np.testing.assert_array_equal(d.side, np.resize([9, 7, 5, 3], n))
    for side in (9, 7, 5, 3):
        mine = d.side == side
        for corner, length in ((d.top, 12), (d.left, 9), (d.other_top, 12), (d.other_left, 9)):
            count = np.bincount(corner[mine], minlength=length)
            places = max(length - side, 1)
            assert count[places:].sum() == 0
            np.testing.assert_allclose(count[:places] / mine.sum(), 1 / places, atol=0.06)
    few = d.side == 3
    for a, b in ((d.top, d.other_top), (d.left, d.other_left), (d.top, d.left)):
        assert abs(np.corrcoef(a[few], b[few])[0, 1]) < 0.1
    coins = np.concatenate([d.signs, np.where(d.turned, 1, -1)[:, None]], 1)
    np.testing.assert_allclose(coins.T @ coins / n, np.eye(4), atol=0.08)
    assert (np.abs(coins) == 1).all() and (np.abs(coins.mean(0)) < 0.06).all()


def moved_by_hand(best, image, eps, top, left, other_top, other_left, side, signs, turned, norm):
    """One row of the transfer of mass, by slices."""
    c = image.shape[2]
    delta = best - image
    one, two = (
        (slice(top, top + side), slice(left, left + side)),
        (slice(other_top, other_top + side), slice(other_left, other_left + side)),
    )
    power = 2 if norm == "l2" else 1
    union = np.zeros(image.shape[:2], bool)
    union[one] = union[two] = True
    left_over = max(eps**power - (np.abs(delta) ** power).sum(), 0)
    eta = pyramid(int(side), norm).T if turned else pyramid(int(side), norm)
    new = delta.copy()
    new[two] = 0
    for channel in range(c):
        old = delta[(*one, channel)]
        mixed = signs[channel] * eta + old / (np.linalg.norm(old.ravel(), power) + 1e-12)
        target = (left_over / c + (np.abs(delta[union, channel]) ** power).sum()) ** (1 / power) * (1 if norm == "l2" else c)
        new[(*one, channel)] = mixed / np.linalg.norm(mixed.ravel(), power) * target
    if norm == "l2":
        return np.clip(image + new / np.linalg.norm(new) * eps, 0, 1)
    return np.clip(image + np.asarray(l1_ball_and_box(jnp.asarray(new[None]), jnp.asarray(image[None]), eps * INSIDE))[0], 0, 1)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_mass_moves_as_by_hand(norm):
    # Kills: in the transfer, the windows exchanged, an overlap counted twice or emptied, norms over all channels, the turn left out,
    # one sign for all channels, pyramids in the wrong place or of another row's side, what the ball has left given to each channel.
    shape, eps = (11, 8, 3), 0.7
    with jax.enable_x64():
        rng = np.random.default_rng(0)
        images = rng.uniform(0.2, 0.8, (B, *shape))
        best = images + rng.normal(size=images.shape) * 0.03 * (rng.uniform(size=images.shape) < 0.7)
        best[3] = images[3]  # nothing to move
        sides = make_sides(norm, shape, 0.8)
        side = np.resize([7, 5, 3], B).astype(np.int32)
        level = np.array([sides.sides.index(s) for s in side], np.int32)
        corners = [rng.integers(0, n - side, dtype=np.int32, endpoint=True) for n in (11, 8, 11, 8)]
        signs, turned = rng.choice([-1.0, 1.0], (B, 3)).astype(np.float32), rng.uniform(size=B) < 0.5
        draws = Draws(*map(jnp.asarray, (side, level, *corners, signs, turned)))
        args = (jnp.asarray(best), jnp.asarray(images), jnp.float64(eps), draws)
        found = jax.jit(functools.partial(transfer_mass, sides=sides))(*args)
        for b in range(B):
            place = (corner[b] for corner in corners)
            expected = moved_by_hand(best[b], images[b], eps, *place, side[b], signs[b], turned[b], norm)
            np.testing.assert_allclose(found[b], expected, atol=1e-9, err_msg=f"row {b}")


@pytest.mark.parametrize(
    ("norm", "shape", "steps", "least"), [("linf", (4, 4, 2), 500, 0.6), ("l2", (8, 8, 1), 200, 0.25), ("l1", (8, 8, 1), 200, 0.25)]
)
def test_linear_network_is_climbed_towards_its_optimum(norm, shape, steps, least):
    # Kills: larger margins kept, a candidate's loss kept without the candidate, a loss of another sign, windows that stay large, a
    # last row or column that windows reach though the official code's do not, or other pixels that they do not reach.
    h, w, c = shape
    rng = np.random.default_rng(1)
    images, weight = jnp.asarray(rng.uniform(0.4, 0.6, (B, *shape)), jnp.float32), rng.normal(size=h * w * c).astype(np.float32)

    def network(weight, x, keys):
        score = x.reshape(x.shape[0], -1) @ weight
        return jnp.stack([jnp.full_like(score, 50), score], 1)

    plan, state, step = begun(norm, Partial(network, jnp.asarray(weight)), images, jnp.zeros(B, jnp.int32))
    lowest = np.full(B, -np.inf)
    for i in range(steps):
        state = step(i, state)
        loss = np.asarray(state.loss)
        assert (loss >= lowest).all()
        lowest = loss
    outcome = plan.outcome(state)
    gain = (outcome.images - images).reshape(B, -1) @ weight
    np.testing.assert_allclose(gain + images.reshape(B, -1) @ weight - 50, outcome.loss, rtol=1e-5)
    best = EPS[norm] * {"linf": np.abs(weight).sum(), "l2": np.linalg.norm(weight), "l1": np.abs(weight).max()}[norm]
    part = np.asarray(gain) / best
    assert (part <= 1 + 1e-5).all() and part.min() > least, part
    assert (outcome.start_loss < outcome.loss - 0.1 * best).all() and not outcome.success.any()
    if norm == "linf":  # single pixels from query 201 on, at corners 0 to 2 in both directions
        right = np.sign(np.asarray(outcome.images - images)) == np.sign(weight.reshape(1, *shape))
        assert right[:, :3, :3].all() and not right[:, 3].all() and not right[:, :, 3].all()


def test_who_is_misclassified_is_left_alone_and_ties_are_no_success():
    # Kills: success by margin <= 0 alone (a tie with the label first counts as right), a success that later candidates replace,
    # NaN on the way forgotten, or noted for who has succeeded already.
    images, labels = images_of((4, 4, 1)), jnp.asarray([0, 1, 2, 0, 0, 0, 0, 0], jnp.int32)

    def network(call, x, keys):
        logits = jnp.zeros_like(x[:, 0, 0, :1]) * jnp.zeros((1, 3))
        bad = (jnp.arange(B) == 5) | (jnp.arange(B) == 1)
        return jnp.where(
            (bad & (call == 2))[:, None], jnp.nan, logits + jnp.where(jnp.arange(3) == 0, -(call == 3).astype(x.dtype), 0)[None]
        )

    plan = make_plan("linf", shape=(4, 4, 1))
    rows = rows_of(plan, keys(), images, labels, None, jnp.zeros_like(labels, jnp.uint32))

    @jax.jit
    def step(i, state):
        return plan.step(Context(Partial(network, i), jnp.float32(0.1)), jnp.full_like(labels, i), state, plan.config)

    state, outcomes = plan.begin(Context(None, jnp.float32(0.1)), rows, plan.config), []
    with jax.debug_nans(False):
        for i in range(5):
            state = step(i, state)
            outcomes.append(plan.outcome(state))
    is_wrong = np.isin(np.arange(B), [1, 2])
    for outcome in outcomes[:3]:  # all tie: class 0 comes first
        np.testing.assert_array_equal(outcome.success, is_wrong)
    np.testing.assert_array_equal(outcomes[3].success, np.arange(B) != 5)  # class 0 falls behind; row 5 has met NaN
    np.testing.assert_array_equal(outcomes[4].success, np.arange(B) != 5)
    np.testing.assert_array_equal(np.isnan(outcomes[4].loss), np.arange(B) == 5)
    np.testing.assert_array_equal(outcomes[4].images[is_wrong], outcomes[0].images[is_wrong])
    np.testing.assert_array_equal(outcomes[4].images[:1], outcomes[3].images[:1])
    assert (outcomes[2].images != outcomes[0].images).any((1, 2, 3))[~is_wrong].sum() >= 4


@jax.custom_jvp
def without_derivative(x):
    return x


@without_derivative.defjvp
def _(primals, tangents):
    raise AssertionError("a derivative was asked for")


def random_logits(scale, images, keys):
    draws = jax.vmap(lambda key: jax.random.uniform(key))(keys).astype(images.dtype)
    return without_derivative(jnp.stack([jnp.full_like(draws, scale), draws], 1) + 0 * images[:, 0, 0, :1])


def test_logits_only_and_each_query_with_its_own_draws_of_the_network():
    # Kills: any derivative, the same keys for the network in each query, keys that belong to the batch, a kernel that does not follow
    # the plan, one query too few or too many, images exchanged when finished rows leave the batch.
    images, labels = images_of((4, 4, 1)), jnp.zeros(B, jnp.int32)
    for level in (2, 0.9):  # no draw beats 2; most rows find one above 0.9 before they end
        fn = Partial(random_logits, jnp.float32(level))
        plan, state, step = begun("linf", fn, images, labels, queries=11)
        for i in range(plan.steps):
            state = step(i, state)
        outcome = plan.outcome(state)
        x = square(keys(), fn, images, labels, ThreatModel("linf", EPS["linf"]), queries=11, randomized=True)
        held = np.asarray(outcome.success) | (level == 2)  # of the others the draw on the clean image may be a mistake, which stays
        np.testing.assert_array_equal(x[held], outcome.images[held])
        if level == 2:  # the largest of 12 draws, minus 2
            assert (np.asarray(outcome.loss) > -1.5).all() and len(np.unique(outcome.loss)) == B
        else:
            assert outcome.success.sum() >= B // 2 and (outcome.start_loss < 0).any()
    assert plan.steps == 12 and make_plan("l2", shape=(4, 4, 1)).steps == 5001


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": 0}, "queries must be an integer >= 1, got 0"),
        ({"queries": True}, "queries"),
        ({"p_init": 0.0}, r"p_init .* must lie in \(0, 1\], got 0"),
        ({"p_init": 1.5}, "p_init"),
        ({"p_init": float("nan")}, "p_init"),
    ],
)
def test_bad_options_say_so(options, message):
    # Kills: options that end in a traceback of jax, or in an attack of no or of ever larger windows.
    with pytest.raises(InputError, match=message):
        make_plan("linf", shape=(4, 4, 1), **options)


def test_a_network_that_returns_nan_is_refused():
    # Kills: NaN that loses every comparison, so that the network counts as robust.
    with jax.debug_nans(False), pytest.raises(InputError, match="NaN .* on 8 of 8 images"):
        square(keys(), lambda x: x[:, 0, 0] * jnp.nan, images_of((4, 4, 2)), jnp.zeros(B, jnp.int32), ThreatModel("linf", 0.1), queries=1)
