"""FAB and its projections where the answer is known. Each test names the mutants it kills."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from robustjax.attacks import fab
from robustjax.attacks.fab import make_plan
from robustjax.attacks.hyperplane import to_hyperplane
from robustjax.core import InputError, ThreatModel, example_keys
from robustjax.core.numerics import image_norm

SHAPE = (6, 3, 3, 2)
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0.4, 0.6, SHAPE).astype(np.float32)
WEIGHT = RNG.normal(size=(18, 3)).astype(np.float32)
NORMS = ["linf", "l2", "l1"]
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}


def linear(weight, images):
    """Logits whose boundaries pass near the grey image, so that the box is far from the nearest of them."""
    return (images.reshape(images.shape[0], -1) - 0.5) @ weight


LINEAR = Partial(linear, jnp.asarray(WEIGHT))
LOGITS = np.asarray(linear(WEIGHT.astype(np.float64), IMAGES.astype(np.float64)))
LABELS = LOGITS.argmax(1).astype(np.int32)
NO_LIMIT = 1e9


def keys(n=6, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(n))


def attack(logits_fn=LINEAR, norm="linf", eps=NO_LIMIT, *, images=IMAGES, labels=LABELS, **options):
    return fab(options.pop("keys", keys()), logits_fn, images, labels, ThreatModel(norm, eps), **{"steps": 15, **options})


def distances(norm):
    """Returns how far each image is from its boundary with each class, in closed form; inf to its own."""
    towards = WEIGHT.T[None] - WEIGHT.T[LABELS][:, None]
    gap = LOGITS[np.arange(6), LABELS][:, None] - LOGITS
    size = np.linalg.norm(towards, DUAL[norm], axis=2)
    return np.where(size == 0, np.inf, gap / np.where(size == 0, 1, size))


@pytest.mark.parametrize("norm", NORMS)
def test_linear_network_is_left_at_its_least_norm(norm):
    # Kills: another norm's projection or dual norm, the farthest class, no step back, a limit that is not kept to. A step leaves
    # the boundary behind by at most 5 % of what is left of the way, after the step back 1 % of all of it.
    least = distances(norm).min(1)
    size = np.asarray(image_norm(attack(norm=norm) - IMAGES, norm))
    assert (size >= least * (1 - 1e-5)).all() and (size <= least * 1.011).all()
    limit = float(np.sort(least)[2:4].mean())
    x = attack(norm=norm, eps=limit)
    size = np.asarray(image_norm(x - IMAGES, norm))
    assert (size <= limit).all() and (size > 0).sum() == 3
    np.testing.assert_array_equal(x[size == 0], IMAGES[size == 0])


def test_targets_are_aimed_at():
    # Kills: the target ignored, the gradient's sign, ranked targets in another order, only the first of several targets tried.
    order = np.argsort(-LOGITS, 1)
    size = np.asarray(image_norm(attack(targets=order[:, 2:]) - IMAGES, "linf"))
    rows = np.arange(6)
    least = distances("linf")[rows, order[:, 2]]
    # Any other class than the label counts, so what is found may be nearer than the target's boundary, but not the nearest.
    assert (size <= least * 1.011).all() and (size >= distances("linf").min(1) * (1 - 1e-5)).all()
    np.testing.assert_array_equal(attack(targets="ranked", num_targets=1), attack(targets=order[:, 1:2]))
    eps = float(distances("linf").min(1).max()) * 1.02
    broken = [
        (np.asarray(linear(WEIGHT, attack(targets=targets, eps=eps))).argmax(1) != LABELS).sum()
        for targets in (order[:, 2:], order[:, :0:-1])
    ]
    assert broken[0] < broken[1] == 6


def test_clean_mistakes_come_back_as_they_are():
    # Kills: an attack on what is already wrong, from whichever class it aims at.
    wrong = LABELS.copy()
    wrong[1::2] = (LABELS[1::2] + 1) % 3
    for targets in (None, "ranked"):
        x = np.asarray(attack(labels=wrong, targets=targets))
        moved = np.abs(x - IMAGES).max((1, 2, 3)) > 0
        np.testing.assert_array_equal(moved, np.arange(6) % 2 == 0)


def folded(weight, images):
    """Two logits of many maxima, so that what is found depends on where a run begins."""
    flat = images.reshape(images.shape[0], -1)
    bumps = jnp.cos(20 * (flat - 0.5)) @ jnp.abs(weight[:, :1]) - 3
    return jnp.concatenate([bumps, jnp.zeros_like(bumps)], axis=1)


def test_restarts_begin_elsewhere_and_keys_decide_where():
    # Kills: restarts that repeat the first run, ignored keys, a first run that begins at random.
    images = np.full(SHAPE, 0.5, np.float32)  # a maximum of the first logit: no gradient, so the first run cannot move
    labels = np.zeros(6, np.int32)
    options = {"logits_fn": Partial(folded, jnp.asarray(WEIGHT)), "images": images, "labels": labels, "eps": 0.3}
    np.testing.assert_array_equal(attack(**options), images)
    a, b, c = (np.asarray(attack(restarts=2, keys=keys(seed=seed), **options)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (np.abs(a - images).max((1, 2, 3)) > 0).all() and np.abs(a - c).max() > 1e-3
    assert np.abs(a - images).max() <= 0.3
    np.testing.assert_array_equal(attack(restarts=2), attack())  # all broken by the first run


def test_many_classes_are_looked_at_in_groups():
    # Kills: classes past the first group forgotten, groups out of step with their classes.
    weight = np.random.default_rng(2).normal(size=(18, 25)).astype(np.float32)
    logits = linear(weight.astype(np.float64), IMAGES.astype(np.float64))
    labels, rows = logits.argmax(1).astype(np.int32), np.arange(6)
    towards = np.abs(weight.T[None] - weight.T[labels][:, None]).sum(2)
    least = np.where(towards == 0, np.inf, (logits[rows, labels][:, None] - logits) / np.where(towards == 0, 1, towards)).min(1)
    size = np.asarray(image_norm(attack(Partial(linear, jnp.asarray(weight)), labels=labels) - IMAGES, "linf"))
    assert (size >= least * (1 - 1e-5)).all() and (size <= least * 1.011).all()


def test_a_point_on_the_boundary_is_not_the_end():
    # Kills: a run that stays for good where the two logits are equal and the label still comes first. Here they are equal at each
    # first crossing, since the second logit is in quarters; its slope is that of the sum before rounding.
    def quarters(x):
        total = x.sum((1, 2, 3)) - 9
        rounded = total + jax.lax.stop_gradient(jnp.floor(4 * total) / 4 - total)
        return jnp.stack([jnp.zeros_like(rounded), rounded], axis=1)

    images = np.full(SHAPE, 0.5 - 1 / 18, np.float32)  # the sum is 1 below 9, it must come to 9.25
    x = np.asarray(attack(quarters, images=images, labels=np.zeros(6, np.int32), steps=40))
    np.testing.assert_allclose(x.sum((1, 2, 3)), 9.25, atol=0.1)


def test_randomized_networks_get_keys():
    # Kills: one draw for all steps, the flag ignored.
    def noisy(x, keys):
        assert keys.shape == (6,)
        return linear(WEIGHT, x) + 1e-3 * jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)

    a, b = (np.asarray(attack(noisy, randomized=True, targets="ranked", num_targets=1, keys=keys(seed=seed))) for seed in (0, 1))
    assert np.abs(a - b).max() > 0 and np.abs(a - IMAGES).max() < 0.3


def test_nan_is_refused():
    # Kills: NaN that counts as robust, or as wrong where another class has it than the two that are compared.
    order = np.argsort(-LOGITS, 1)

    def broken(x):
        clean = (x == IMAGES).all((1, 2, 3))[:, None] & (jnp.arange(6) == 2)[:, None] & (jnp.arange(3) == order[2, 2])[None]
        return linear(WEIGHT, x) + jnp.where(clean, jnp.nan, 0.0)

    with jax.debug_nans(False), pytest.raises(InputError, match=r"NaN .* on 1 of 6 images, first at position 2"):
        attack(broken, targets=order[:, 1:2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be an integer >= 1"),
        ({"restarts": 0}, "restarts must be"),
        ({"restarts": 2, "random_start": False}, "random_start=True"),
        ({"targets": "likely"}, "'ranked'"),
        ({"targets": "ranked", "num_targets": 0}, "num_targets must be"),
        ({"targets": LABELS}, r"targets\[:, None\]"),
        ({"targets": LABELS[:, None]}, "differ from the labels; on 6 of 6"),
        ({"targets": np.full((6, 1), 3)}, "targets"),
        ({"targets": np.full((6, 1), 0.5)}, "targets"),
        ({"images": IMAGES + 1}, "must lie in"),
        ({"keys": None}, "keys"),
    ],
)
def test_bad_input_is_told_in_one_line(options, message):
    # Kills: a check that is missing.
    with pytest.raises(InputError, match=message) as told:
        attack(**options)
    assert "\n" not in str(told.value)


def test_plan_aims_at_no_more_classes_than_there_are():
    # Kills: nine targets of ten classes asked of three; a targeted plan that is none.
    plan = make_plan("linf", num_classes=3, num_targets=9)
    assert (plan.num_targets, plan.runs, plan.config.targeted) == (2, 2, True)
    assert make_plan("l2", num_classes=3, restarts=5).runs == 5


def rows(d=400, n=40):
    """Points, some of whose pixels are at the ends of the box, hyperplanes' normals of very unequal weights, some 0, and excesses."""
    rng = np.random.default_rng(3)
    points = np.clip(rng.uniform(-0.2, 1.2, (n, d)), 0, 1)
    normals = rng.normal(size=(n, d)) * 10 ** rng.uniform(-4, 1, (n, d)) * (rng.uniform(size=(n, d)) > 0.1)
    normals[: n // 4] = np.sign(normals[: n // 4])  # ties
    reach = (np.abs(normals) * np.where(normals > 0, points, 1 - points)).sum(1)  # how far the value can fall
    return points, normals, reach * np.linspace(0, 1.2, n)  # the last rows are out of reach


@pytest.mark.parametrize("norm", NORMS)
def test_projection_is_the_least_change(norm):
    # Kills: a Newton step too few, a wrong closing formula, ties counted twice, points that are let out of the box, overflow of tiny
    # or huge normals.
    points, normals, excess = rows()
    rise = np.arange(len(excess)) % 2 == 1  # and hyperplanes on the other side
    points, normals, excess = np.where(rise[:, None], 1 - points, points), normals, np.where(rise, -excess, excess)
    room = np.where(normals == 0, 0, np.where((normals > 0) != rise[:, None], points, 1 - points))
    weight, needed = np.abs(normals), np.minimum(np.abs(excess), (np.abs(normals) * room).sum(1))
    project = jax.jit(functools.partial(to_hyperplane, norm=norm))
    with jax.enable_x64():
        change = np.asarray(project(*map(jnp.asarray, (points, normals, excess))))
    used = np.abs(change)
    assert (used <= room + 1e-12).all() and (change * normals * np.where(excess < 0, -1, 1)[:, None] <= 0).all()
    np.testing.assert_allclose((weight * used).sum(1), needed, rtol=1e-9)
    # Optimal (Karush, Kuhn and Tucker): what is not exhausted has one multiplier, what is exhausted has no larger one.
    if norm == "l1":
        some, left = used > 1e-12, (used < room - 1e-12) & (weight > 0)
        lowest, highest = np.where(some, weight, np.inf).min(1), np.where(left, weight, 0).max(1)
        assert (lowest >= highest).all()
    else:
        price = used / np.where(weight == 0, 1, weight if norm == "l2" else 1)
        free = (used < room - 1e-12) & (weight > 0)
        multiplier = np.where(free, price, 0).max(1)
        reached = free.any(1)
        np.testing.assert_allclose(np.where(free, price, multiplier[:, None]), np.broadcast_to(multiplier[:, None], price.shape), rtol=1e-9)
        assert (price <= np.where(reached, multiplier * (1 + 1e-9), np.inf)[:, None]).all()
    for scale in (1, 1e-30, 1e30):
        single = project(*(jnp.asarray(a, jnp.float32) for a in (points, normals * scale, excess * scale)))
        np.testing.assert_allclose(np.linalg.norm(single, axis=1), np.linalg.norm(change, axis=1), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_ends_whatever_it_is_given(norm):
    # Kills: 0/0 where no pixel can move, a search that never ends on NaN.
    points = jnp.asarray(np.array([[0.5, 0.5], [0.0, 1.0], [0.5, 0.5], [0.5, 0.5]], np.float32))
    normals = jnp.asarray(np.array([[0.0, 0.0], [1.0, -1.0], [1.0, 1.0], [1.0, 2.0]], np.float32))
    with jax.debug_nans(False):
        change = to_hyperplane(points, normals, jnp.array([1.0, 1.0, 0.0, jnp.nan]), norm=norm)
    np.testing.assert_array_equal(change[:3], 0)
