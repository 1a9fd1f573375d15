"""Attacks on one network tried on another. Each test names the mutants it kills."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from robustjax.attacks import pgd, transfer
from robustjax.attacks.objectives import cross_entropy
from robustjax.core import InputError, ThreatModel, example_keys
from robustjax.core.types import AttackResult

RNG = np.random.default_rng(0)
N = 24
IMAGES = RNG.uniform(0.1, 0.9, (N, 3, 3, 2)).astype(np.float32)
WEIGHTS = [jnp.asarray(RNG.normal(size=(18, 3)), jnp.float32) for _ in range(2)]
THREAT = ThreatModel("linf", 0.06)
ATTACK = functools.partial(pgd, steps=3, step_size=0.03)


def linear(weight, images):
    return images.reshape(images.shape[0], -1) @ weight


@jax.custom_vjp
def called_only(weight, images):
    return linear(weight, images)


def refuse(*_):
    raise AssertionError("the defender was differentiated")


called_only.defvjp(refuse, refuse)
SURROGATE, DEFENDER = Partial(linear, WEIGHTS[0]), Partial(called_only, WEIGHTS[0] + 0.5 * WEIGHTS[1])
LABELS = np.array(jnp.argmax(linear(WEIGHTS[0], IMAGES), 1), np.int32)
LABELS[:4] = (LABELS[:4] + 1) % 3  # mistakes on the clean images


def keys():
    return example_keys(jax.random.key(0), jnp.arange(N))


def right(weight, images):
    return np.asarray(jnp.argmax(linear(weight, jnp.asarray(images)), 1) == LABELS)


def test_the_defender_is_judged_by_the_surrogates_images():
    # Kills: the attack made on the defender, gradients of it, the surrogate judged in its place, clean mistakes that the attack
    # mends counted as robust, the networks' losses exchanged.
    found = transfer(keys(), ATTACK, SURROGATE, DEFENDER, IMAGES, LABELS, THREAT)
    expected, weight = ATTACK(keys(), SURROGATE, IMAGES, LABELS, THREAT), WEIGHTS[0] + 0.5 * WEIGHTS[1]
    np.testing.assert_array_equal(found.images, expected)
    clean, attacked = right(weight, IMAGES), right(weight, expected)
    np.testing.assert_array_equal(found.robust, clean & attacked)
    stages = found.stages
    assert list(stages) == ["clean", "surrogate", "transfer"]
    np.testing.assert_array_equal(stages["clean"]["robust"], clean)
    np.testing.assert_array_equal(stages["surrogate"]["robust"], right(WEIGHTS[0], IMAGES) & right(WEIGHTS[0], expected))
    np.testing.assert_array_equal(stages["transfer"]["robust"], found.robust)
    assert stages["transfer"]["robust_accuracy"] == (clean & attacked).mean() and stages["transfer"]["examples"] == clean.sum()
    assert stages["surrogate"]["examples"] == stages["clean"]["examples"] == N and all(s["seconds"] > 0 for s in stages.values())
    for stage, w in (("surrogate", WEIGHTS[0]), ("transfer", weight)):
        for name, x in (("start_loss", IMAGES), ("loss", expected)):
            np.testing.assert_allclose(stages[stage][name], cross_entropy(linear(w, jnp.asarray(x)), jnp.asarray(LABELS)), rtol=1e-4)
    # Else this test could not fail.
    assert (stages["surrogate"]["robust"] != found.robust).any() and found.robust.sum() < clean.sum()
    mend = lambda keys, fn, x, y, threat: ATTACK(keys, fn, x, None, threat, targets=y)  # noqa: E731
    found = transfer(keys(), mend, SURROGATE, DEFENDER, IMAGES, LABELS, THREAT)
    attacked = right(weight, found.images)
    np.testing.assert_array_equal(found.robust, clean & attacked)
    assert (attacked & ~clean).any()


def test_a_surrogate_that_is_the_defender_gives_the_white_box_result():
    # Kills: other keys, labels or radius than those given; an AttackResult taken for images.
    def with_result(*args):
        return AttackResult(ATTACK(*args), jnp.zeros(N, bool), {})

    for attack in (ATTACK, with_result):
        found = transfer(keys(), attack, SURROGATE, SURROGATE, IMAGES, LABELS, THREAT)
        white_box = ATTACK(keys(), SURROGATE, IMAGES, LABELS, THREAT)
        np.testing.assert_array_equal(found.images, white_box)
        np.testing.assert_array_equal(found.robust, right(WEIGHTS[0], IMAGES) & right(WEIGHTS[0], white_box))
        np.testing.assert_array_equal(found.stages["surrogate"]["robust"], found.robust)


@pytest.mark.parametrize(
    ("threat", "move", "message"),
    [
        (THREAT, lambda x: x.at[3].add(0.0601), r"left the linf ball of radius 0.06 on 1 of 24 images, by up to 0.0001"),
        (ThreatModel("l2", 0.1), lambda x: x + 0.03, r"left the l2 ball .* on 24 of 24"),
        (ThreatModel("l1", 0.5), lambda x: x + 0.03, r"left the l1 ball .* on 24 of 24"),
        (ThreatModel("linf", 0.5), lambda x: x + 0.3, r"the attack's images must lie in \[0, 1\]"),
        (THREAT, lambda x: x[:5], r"shape \(24, 3, 3, 2\), got \(5, 3, 3, 2\)"),
        (THREAT, lambda x: x * jnp.nan, "the attack's images hold NaN"),
    ],
)
def test_an_attack_that_leaves_the_threat_model_is_refused(threat, move, message):
    # Kills: images that no attacker was allowed to use; a norm over the batch; a ball that nothing can leave.
    with jax.debug_nans(False), pytest.raises(InputError, match=message):
        transfer(keys(), lambda keys, fn, x, y, threat: move(jnp.asarray(x)), SURROGATE, SURROGATE, IMAGES, LABELS, threat)


def test_on_the_edge_is_inside():
    # Kills: a tolerance below rounding; the ball measured in float32.
    edges = [("linf", 0.06), ("l2", 0.06 * 18**0.5), ("l1", 0.06 * 18)]
    for norm, eps in edges:
        transfer(keys(), lambda k, fn, x, y, threat: x + np.float32(0.06), SURROGATE, SURROGATE, IMAGES, LABELS, ThreatModel(norm, eps))


def test_bad_input_says_so():
    # Kills: networks of different classes compared; a network that returns NaN taken for broken; a traceback of jax inside jit.
    def run(surrogate=SURROGATE, defender=DEFENDER, images=IMAGES):
        return transfer(keys(), ATTACK, surrogate, defender, images, LABELS, THREAT)

    with pytest.raises(InputError, match="same classes, got 2 and 3"):
        run(surrogate=lambda x: linear(WEIGHTS[0], x)[:, :2])
    with pytest.raises(InputError, match="NaN"):
        run(defender=lambda x: linear(WEIGHTS[0], x) * jnp.where(x[:, 0, 0, :1] > 0.5, jnp.nan, 1.0))
    with pytest.raises(InputError, match="cannot run inside jit"):
        jax.jit(lambda x: run(images=x).images)(IMAGES)


def test_networks_that_make_the_result_misleading_are_told_of():
    # Kills: a surrogate whose gradients are gone taken for a weak attack, a defender's outputs not looked at; which of the two
    # it is left open; a word about the gradients of a network that is only called; said anew for each batch.
    def masked(images):
        return linear(WEIGHTS[0], jax.lax.stop_gradient(images))

    def probabilities(images):
        return jax.nn.softmax(linear(WEIGHTS[0], images))

    with pytest.warns(UserWarning) as told:
        transfer(keys(), ATTACK, masked, probabilities, IMAGES, LABELS, THREAT)
    assert [str(line.message).partition(" (")[0] for line in told] == [
        "surrogate: the loss has an input gradient of exactly zero on 8 of 8 images although its outputs move with the pixels: "
        "stop_gradient, or an operation without slope",
        "defender: outputs look like softmax probabilities",
    ]
    transfer(keys(), ATTACK, SURROGATE, masked, IMAGES, LABELS, THREAT)
    transfer(keys(), ATTACK, masked, probabilities, IMAGES, LABELS, THREAT, check=False)
