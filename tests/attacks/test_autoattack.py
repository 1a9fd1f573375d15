"""autoattack: the versions, resuming, refusals and what is checked at the end. Each test names the mutants it kills."""

import importlib
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from robustjax.attacks import driver, versions
from robustjax.attacks.apgd import make_plan as make_apgd
from robustjax.attacks.autoattack import autoattack
from robustjax.attacks.objectives import margin
from robustjax.attacks.versions import ATTACKS, label, plan_stages
from robustjax.core import InputError, ThreatModel
from tests.attacks import tiny_plan

module = importlib.import_module("robustjax.attacks.autoattack")  # beside the function of the same name
N, THREAT = 30, ThreatModel("linf", 0.06)
SHAPE = (8, 8, 3)
TINY = {
    "apgd": lambda num_targets: tiny_plan.plan(9 if num_targets else 2, restarts=2, num_targets=num_targets),
    "square": lambda num_targets: tiny_plan.plan(13, name="other"),
}


@pytest.fixture
def tiny(monkeypatch):
    """Puts small attacks in the place of the real ones: 'apgd-ce' and 'apgd-t' with two restarts, 'square' with more steps."""

    def plan(attack, bound, *_):
        return TINY[attack](bound.get("num_targets", 0))

    monkeypatch.setattr(versions, "_plan", plan)
    monkeypatch.setattr(module, "SNAPSHOT_STEPS", 8)


ALL = ("apgd-ce", ("apgd-t", {"num_targets": 2}), "square")


def attack(n=N, *, fn=None, threat=THREAT, attacks=ALL, keys=None, x=None, y=None, **options):
    given = tiny_plan.examples(n)
    keys, x, y = (mine if mine is not None else theirs for mine, theirs in zip((keys, x, y), given, strict=True))
    options = {"batch_size": 8, "devices": jax.devices()[:1], "version": "custom"} | options
    return autoattack(keys, tiny_plan.network() if fn is None else fn, x, y, threat, attacks=attacks, **options)


def same(a, b):
    """Compares everything but the seconds, bit by bit."""
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.robust, b.robust)
    assert list(a.stages) == list(b.stages)
    for x, y in zip(a.stages.values(), b.stages.values(), strict=True):
        for name in x.keys() | y.keys():
            assert name == "seconds" or np.array_equal(x[name], y[name], equal_nan=True), name


def official(norm, version):
    """Returns the attacks as (name, restarts, targets, the rest of the options that differ from the attack's own)."""
    return [(s.name, s.plan.steps, s.plan.restarts, s.plan.num_targets) for s in plan_stages(version, None, norm, SHAPE, 10)]


def test_versions_are_the_official_ones():
    # Kills: a wrong number of restarts, targets or queries, another order, the L1 settings forgotten or used elsewhere.
    square, fab_t, apgd_t = ("square", 5001, 1, 0), ("fab-t", 100, 1, 9), ("apgd-t", 101, 1, 9)
    for norm in ("linf", "l2"):
        assert official(norm, "standard") == [("apgd-ce", 101, 1, 0), apgd_t, fab_t, square]
        assert official(norm, "fast") == [("apgd-ce", 101, 1, 0), apgd_t]
    steps = official("l1", "standard")[0][1]
    assert official("l1", "standard") == [("apgd-ce", steps, 5, 0), ("apgd-t", steps, 1, 5), fab_t, square]
    assert official("l1", "fast") == official("l1", "standard")[:2]
    plus = [("apgd-ce", 101, 5, 0), ("apgd-dlr", 101, 5, 0), ("fab", 100, 5, 0), square, apgd_t, fab_t]
    assert official("linf", "plus") == official("l2", "plus") == plus
    plain, wide = (make_apgd("l1", shape=SHAPE, large_radii=large).config.stages for large in (False, True))
    assert plain != wide
    for version in ("standard", "plus", "fast", "rand"):
        for stage in plan_stages(version, None, "l1", SHAPE, 10, randomized=version == "rand"):
            assert stage.plan.name != "apgd" or stage.plan.config.stages == wide
    custom = plan_stages("custom", ["apgd-t", ("apgd-ce", {"large_radii": False})], "l1", SHAPE, 10)
    assert [stage.plan.config.stages for stage in custom] == [wide, plain]
    rand = plan_stages("rand", None, "linf", SHAPE, 10, randomized=True)
    assert [(s.name, s.plan.config.objective, s.plan.config.eot) for s in rand] == [("apgd-ce", "ce", 20), ("apgd-dlr", "dlr", 20)]
    with pytest.warns(UserWarning, match="draws nothing: one draw is used"):
        assert [s.plan.config.eot for s in plan_stages("rand", None, "linf", SHAPE, 10)] == [1, 1]
    with pytest.warns(UserWarning, match="'standard' does not average over: 'rand' does"):
        plan_stages("standard", None, "linf", SHAPE, 10, randomized=True)


def test_few_classes_have_few_targets_and_no_dlr():
    # Kills: nine targets of three classes, a DLR of three classes, a warning for each attack, none at all.
    with pytest.warns(UserWarning, match="has 3: apgd-dlr climbs 'cw', apgd-t climbs 'logit_difference' instead") as told:
        stages = plan_stages("plus", None, "linf", SHAPE, 3)
    assert len(told) == 1
    assert [(s.name, s.plan.num_targets) for s in stages if s.name.endswith("-t")] == [("apgd-t", 2), ("fab-t", 2)]
    assert [s.plan.config.objective for s in stages if s.plan.name == "apgd"] == ["ce", "cw", "logit_difference"]
    assert [s.plan.num_targets for s in plan_stages("standard", None, "l2", SHAPE, 5)] == [0, 4, 4, 0]


def test_names_and_labels():
    # Kills: 'fast' or a custom list called AutoAttack, the second attack of a name overwriting the first.
    for version in ("standard", "plus", "rand"):
        assert label(version) == f"AutoAttack ({version})"
    assert "auto" not in (label("fast") + label("custom", ALL) + label("custom", list(ATTACKS))).lower()
    stages = plan_stages("custom", ["square", ("square", {"queries": 7}), "fab", "square"], "l2", SHAPE, 10)
    assert [(s.name, s.plan.steps) for s in stages] == [("square", 5001), ("square 2", 8), ("fab", 100), ("square 3", 5001)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "standart", "attacks": None}, "unknown version 'standart'; did you mean 'standard'"),
        ({"version": "fast"}, "attacks are for version='custom' only"),
        ({"attacks": None}, "needs attacks, a sequence such as"),
        ({"attacks": "square"}, "needs attacks, a sequence such as"),
        ({"attacks": ["apgd_ce"]}, "unknown attack 'apgd_ce'; did you mean 'apgd-ce'"),
        ({"attacks": [("square", {"querys": 5})]}, "unknown option of 'square': 'querys'; did you mean 'queries'"),
        ({"attacks": [("apgd-ce", {"num_targets": 5})]}, "unknown option of 'apgd-ce': 'num_targets'"),
        ({"attacks": [("apgd-t", {"num_targets": 0})]}, "num_targets must be an integer >= 1"),
        ({"attacks": [("apgd-ce", {"steps": 0})]}, "steps must be an integer >= 1, got 0"),
        ({"attacks": [("apgd-t", {"steps": -3})]}, "steps must be an integer >= 1, got -3"),
        ({"attacks": [("apgd-ce", {"restarts": 0})]}, "restarts must be an integer >= 1, got 0"),
        ({"attacks": [("apgd-dlr", {"eot": 0})]}, "eot must be an integer >= 1, got 0"),
        ({"attacks": [("fab-t", {"steps": 0})]}, "steps must be an integer >= 1, got 0"),
        ({"attacks": [("fab", {"restarts": -1})]}, "restarts must be an integer >= 1, got -1"),
        ({"attacks": [("square", {"queries": 0})]}, "queries must be an integer >= 1, got 0"),
        ({"attacks": [("square", 5)]}, "an attack must be a name or a pair"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"threat": ThreatModel("linf", 8)}, "8 / 255"),
        ({"y": np.full(N, 9)}, "labels must lie in"),
        ({"y": np.zeros(N - 1, int)}, "labels must have shape"),
        ({"x": np.full((N, *tiny_plan.SHAPE), 3.0, np.float32)}, "divide by 255"),
        ({"x": np.zeros((0, *tiny_plan.SHAPE), np.float32)}, "images are empty"),
        ({"keys": jax.random.key(0)}, "one key an example"),
        ({"state": {}}, "state is not what on_state was handed"),
        ({"state": 5}, "state is not what on_state was handed"),
    ],
)
def test_bad_input_is_one_line(options, message):
    # Kills: a door without this check; in a custom list, attacks of no step or no restart, after which everyone counts as robust.
    with pytest.raises(InputError, match=message) as error:
        attack(**options)
    assert "\n" not in str(error.value)


def test_what_comes_back(tiny):
    # Kills: wrong examples attacked or counted robust, images kept where nothing broke, images of a later stage over an earlier
    # one's, stages that see all examples, losses of others.
    lines = []
    result = attack(on_progress=lambda *line: lines.append(line))
    _, x, y = tiny_plan.examples(N)
    clean = np.asarray(jnp.argmax(tiny_plan.network()(jnp.asarray(x)), 1)) == y
    assert list(result.stages) == ["clean", "apgd-ce", "apgd-t", "square"]
    before = np.ones(N, bool)
    for name, stage in result.stages.items():
        assert stage["robust"].dtype == bool and not (stage["robust"] & ~before).any()
        assert stage["robust_accuracy"] == stage["robust"].mean() and stage["examples"] == before.sum() and stage["seconds"] > 0
        if name != "clean":
            np.testing.assert_array_equal(np.isnan(stage["loss"]), ~before)
            np.testing.assert_array_equal(np.isnan(stage["start_loss"]), ~before)
            assert ((stage["loss"] > 0) == (before & ~stage["robust"]))[before].all()
        before = stage["robust"]
    np.testing.assert_array_equal(result.stages["clean"]["robust"], clean)
    np.testing.assert_array_equal(result.robust, before)
    assert 0 < result.robust.sum() < result.stages["apgd-ce"]["robust"].sum() < clean.sum() < N
    moved = (result.images != x).any((1, 2, 3))
    np.testing.assert_array_equal(moved, clean & ~result.robust)
    logits = tiny_plan.network()(jnp.asarray(result.images))
    np.testing.assert_array_equal(np.asarray(margin(logits, jnp.asarray(y))) < 0, result.robust)
    assert {text.split(":")[0] for *_, text in lines} == {"apgd-ce", "apgd-t", "square"}
    assert all(0 <= done <= total for done, total, _ in lines) and lines[-1][0] == lines[-1][1]
    assert lines[-1][2] == f"square: {result.robust.sum()} of {N} robust"


def test_resuming_from_any_state_ends_the_same(tiny):
    # Kills: anything left out of the state (rows, counters, keys, queue, images, finished stages, targets), a state that changes
    # after it was handed over, an evaluation that begins again.
    states, steps = [], []
    whole = attack(on_state=states.append)
    assert len(states) > 8
    for state in states:
        assert all(isinstance(value, np.ndarray) and value.dtype != object for value in state.values())
        file = io.BytesIO()
        np.savez(file, **state)
        file.seek(0)
        again = attack(state=np.load(file), on_progress=lambda done, total, text: steps.append(text))
        same(again, whole)
        assert all(again.stages[name]["seconds"] >= stage["seconds"] * 0.999 for name, stage in again.stages.items() if name == "clean")
    more = []
    same(attack(state=states[3], on_state=more.append), whole)
    assert len(more) == len(states) - 4
    steps.clear()
    attack(state=states[-1], on_progress=lambda done, total, text: steps.append(text))
    assert not steps


def test_a_batch_that_was_halved_stays_so(tiny, monkeypatch):
    # Kills: the size that fits forgotten by the state or by the next stage (each warning would be an error here).
    advance, states = driver._advance, []

    def limited(context, running, **options):
        if len(running.i) > 8:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")
        return advance(context, running, **options)

    monkeypatch.setattr(driver, "_advance", limited)
    with pytest.warns(UserWarning, match="batches of 16: going on with 8") as told:
        whole = attack(batch_size=16, on_state=states.append)
    assert len(told) == 1
    same(attack(batch_size=16, state=states[2]), whole)


def test_states_of_other_evaluations_are_refused_by_name(tiny, monkeypatch):
    # Kills: a thing left out of the digests, weights that are closed over (also within jit) unseen, addresses taken for code.
    states = []
    attack(on_state=states.append)
    state, (_, x, y) = states[2], tiny_plan.examples(N)

    def other(weights, images):
        return 2 * tiny_plan.forward(weights, images)

    def refused(what, **options):
        with pytest.raises(InputError, match=f"^state belongs to another evaluation, which differs in: {what}; continue") as error:
            attack(**{"state": state} | options)
        assert "\n" not in str(error.value)

    refused("weights", fn=tiny_plan.network(1))
    refused("network code", fn=Partial(other, *tiny_plan.network().args))
    refused("eps or norm", threat=ThreatModel("linf", 0.0601))
    refused("eps or norm", threat=ThreatModel("l2", 0.06))
    refused("images", x=np.roll(x, 1, 0))
    refused("labels", y=(y + 1) % 4)
    refused("keys", keys=jax.random.split(jax.random.key(1), N))
    refused("version, attacks or options", attacks=("apgd-ce", "square"))
    refused("version, attacks or options", attacks=("apgd-ce", ("apgd-t", {"num_targets": 3}), "square"))
    refused("batch_size", batch_size=16)
    refused("devices .*1 x cpu, now 8 x cpu.", devices=jax.devices())
    refused("weights, labels", fn=tiny_plan.network(1), y=(y + 1) % 4)
    refused("versions .*jax 0.0.*", state=state | {"identity/versions": np.array("robustjax 0.1, jax 0.0")})

    def closing(seed):
        weights = tiny_plan.network(seed).args[0]
        inner = jax.jit(lambda images: tiny_plan.forward(weights, images))
        return lambda images: inner(images)

    states.clear()
    whole = attack(fn=closing(0), on_state=states.append)
    same(attack(fn=closing(0), state=states[2]), whole)
    refused("weights", fn=closing(1), state=states[2])


def test_no_radius_and_nobody_to_attack(tiny):
    # Kills: 0/0, stages that are skipped without an entry, an empty batch that calls the network.
    x = tiny_plan.examples(N)[1]
    at_zero = attack(threat=ThreatModel("linf", 0.0))
    np.testing.assert_array_equal(at_zero.images, x)
    np.testing.assert_array_equal(at_zero.robust, at_zero.stages["clean"]["robust"])
    wrong = attack(y=(np.argmax(tiny_plan.network()(jnp.asarray(x)), 1) + 1) % 4)
    assert not wrong.robust.any() and [s["examples"] for s in wrong.stages.values()] == [N, 0, 0, 0]
    np.testing.assert_array_equal(wrong.images, x)


def test_flags_do_not_depend_on_batch_devices_or_kind_of_array(tiny):
    # Kills: the driver's batch or devices leaking into draws, images on the device needed.
    one, many = attack(), attack(batch_size=64, devices=None, x=jnp.asarray(tiny_plan.examples(N)[1]))
    np.testing.assert_array_equal(one.robust, many.robust)
    np.testing.assert_allclose(one.images, many.images, atol=1e-5)
    assert isinstance(many.images, np.ndarray)


def test_stages_draw_anew(tiny):
    # Kills: the same draws for the same attack twice.
    stages = attack(attacks=("square", "square")).stages
    first, second = stages["square"]["start_loss"], stages["square 2"]["start_loss"]
    assert (first != second)[~np.isnan(second)].all() and not np.isnan(second).all()


def test_random_networks_get_keys(tiny):
    # Kills: keys that do not reach the network, a check at the end that random outputs cannot pass.
    def noisy(images, keys):
        noise = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 99), (4,), images.dtype, -2, 2))(keys)
        return tiny_plan.network()(images) + noise

    a, b = (attack(fn=noisy, randomized=True, attacks=("apgd-ce",)) for _ in range(2))
    same(a, b)
    assert not np.array_equal(a.stages["clean"]["robust"], attack(attacks=("apgd-ce",)).stages["clean"]["robust"])


def test_what_was_found_is_checked(tiny, monkeypatch):
    # Kills: images out of the ball taken, a network that changes its mind taken.
    def lone(images):
        logits = tiny_plan.network()(images)
        return logits - jnp.mean(logits, 0, keepdims=True)

    with (
        pytest.warns(UserWarning, match="depend on the rest of its batch"),
        pytest.raises(InputError, match="classifies [0-9]+ of [0-9]+ adversarial images correctly when asked again, first at position"),
    ):
        attack(fn=lone)
    monkeypatch.setitem(TINY, "apgd", lambda num_targets: tiny_plan.plan(escape=True))
    with pytest.raises(AssertionError, match="left the linf ball of 0.2 or the box: norm up to 0.[2-6]"):
        attack(attacks=("apgd-ce",), threat=ThreatModel("linf", 0.2))  # where starts break some within the ball


def test_a_network_that_makes_the_number_misleading_is_told_of(tiny):
    # Kills: probabilities, masked gradients or chance attacked without a word; the same said again where the caller has said it, and
    # when an evaluation goes on.
    def probabilities(images):
        return jax.nn.softmax(tiny_plan.network()(images))

    def masked(images):
        return tiny_plan.network()(jax.lax.stop_gradient(images))

    states = []
    for fn, line in (
        (probabilities, "^outputs look like softmax probabilities"),
        (masked, "^the loss has an input gradient of exactly zero"),
    ):
        with pytest.warns(UserWarning, match=line) as told:
            attack(fn=fn, attacks=("square",), on_state=states.append)
        assert len(told) == 1
        attack(fn=fn, attacks=("square",), check=False)
    attack(fn=masked, attacks=("square",), state=states[-1])
