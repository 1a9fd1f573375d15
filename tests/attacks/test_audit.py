"""audit: a diseased network's result gets the line that names the disease, a healthy one's none; tests name the mutants they kill."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from robustjax.attacks.audit import audit, audit_curve, suspicious
from robustjax.attacks.autoattack import autoattack
from robustjax.core import AttackResult, InputError, ThreatModel, example_keys
from tests.goldens import reference, reference_networks

N = 24
EPS = {"linf": 0.1, "l2": 0.5, "l1": 2.0}
FIRST, SECOND = ("apgd-ce", {"steps": 12}), ("apgd-t", {"steps": 8, "num_targets": 1})
CASCADE = {"linf": (FIRST, SECOND, ("square", {"queries": 150})), "l2": (FIRST,), "l1": (FIRST, SECOND)}


def network(params, disease, images):
    """The stored digits network under a disease, which is data: all of them share the compiled attacks."""
    x = jnp.where(disease["rounded"], jnp.round(7 * images) / 7, images)
    hidden = images.mean((1, 2, 3), keepdims=True) > disease["hidden_above"]
    x = jnp.where(hidden, jax.lax.stop_gradient(x), x)
    return disease["scale"] * reference_networks.plain_cnn(params, x)


@functools.cache
def evaluated(norm, rounded=False, hidden_above=1.0, scale=1.0):
    """Returns the network, images, labels and the result of a short cascade."""
    params = {name: jnp.asarray(value) for name, value in reference.load("attacks/digits_cnn_params.npz").items()}
    disease = {"rounded": jnp.asarray(rounded), "hidden_above": jnp.float32(hidden_above), "scale": jnp.float32(scale)}
    model, stored = Partial(network, params, disease), reference.load("attacks/digits_images.npz")
    x, y = stored["x"][:N], stored["y"][:N]
    keys, one = example_keys(jax.random.key(0), jnp.arange(N)), jax.local_devices()[:1]
    options = {"version": "custom", "attacks": CASCADE[norm], "batch_size": 8, "devices": one}
    return model, x, y, autoattack(keys, model, x, y, ThreatModel(norm, EPS[norm]), check=False, **options)


SQUARE = r"Square, which reads no gradients, broke (\d+) of 24 examples .* the model masks gradients"
FLAT = r"the loss never rose on (\d+) of 24 attacked examples in any gradient attack: zero or masked gradients"
LOST = r"cross-entropy stayed at 0 on (\d+) of 24 attacked examples that later attacks broke: saturated logits"


@pytest.mark.parametrize("norm", ["linf", *(pytest.param(norm, marks=pytest.mark.slow) for norm in ("l2", "l1"))])
def test_a_healthy_network_is_silent(norm):
    # Kills: losses of stages that an example never entered, or that FAB cannot measure, taken for flat ones; first losses of the larger
    # balls of L1; Square's own loss; what asked again is compared with clean labels.
    model, _, y, result = evaluated(norm)
    assert 0 < result.robust.sum() < result.stages["clean"]["robust"].sum()
    assert audit(result, correct_again=np.asarray(model(result.images)).argmax(1) == y) == []


@pytest.mark.parametrize(
    ("disease", "lines", "sign", "least"),
    [
        ({"rounded": True}, [SQUARE, FLAT], "only_square", 5),
        ({"hidden_above": 0.3}, [SQUARE, FLAT], "loss_flat", 5),
        ({"scale": 1e4}, [LOST], "cross_entropy_lost", 3),
    ],
    ids=["inputs of 3 bits", "stop_gradient on some", "temperature"],
)
def test_diseases_are_named(disease, lines, sign, least):
    # Kills: each sign left out or taken for another; a count of other examples than those that show it.
    _, x, _, result = evaluated("linf", **disease)
    found = audit(result)
    assert len(found) == len(lines) and all(re.match(a, b) and "\n" not in b for a, b in zip(lines, found, strict=True)), found
    marks = suspicious(result)
    assert marks[sign].sum() >= least
    numbers = [int(re.match(a, b)[1]) for a, b in zip(lines, found, strict=True)]
    names = {SQUARE: "only_square", FLAT: "loss_flat", LOST: "cross_entropy_lost"}
    assert numbers == [marks[names[line]].sum() for line in lines]
    if "hidden_above" in disease:
        assert (x[marks["loss_flat"]].mean((1, 2, 3)) > 0.28).all()  # a start in the ball may be brighter
    if "scale" in disease:  # without the disease these fall to cross-entropy
        assert not evaluated("linf")[3].stages["apgd-ce"]["robust"][marks[sign]].all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_official_flags_of_a_healthy_network_are_silent(norm):
    # Kills: examples that Square breaks as others do, counted for it.
    flags, stages = reference.load("attacks/digits_flags.npz"), {}
    robust = np.ones(256, bool)
    for name in ("apgd-ce", "apgd-t", "fab-t", "square"):
        robust = robust & flags[f"digits/AA_{norm}_{name}/seed0/robust"]
        stages[name] = {"robust": robust}
    stages = {"clean": {"robust": np.ones(256, bool)}} | stages
    assert not flags[f"digits/AA_{norm}_square/seed0/robust"].all()
    assert audit(AttackResult(np.zeros((256, 1, 1, 1)), robust, stages)) == []


def made(n, *stages):
    """Returns a result whose stages (name, who is broken, loss, start_loss) break the first examples they name."""
    robust, found = np.ones(n, bool), {"clean": {"robust": np.ones(n, bool)}}
    for name, broken, *losses in stages:
        robust = robust & ~np.isin(np.arange(n), broken)
        found[name] = {"robust": robust} | dict(zip(("loss", "start_loss"), (np.broadcast_to(loss, n) for loss in losses), strict=False))
    return AttackResult(np.zeros((n, 1, 1, 1)), robust, found)


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (made(100, ("apgd-ce", [0]), ("square", [1, 2])), "Square, which reads no gradients, broke 2 of 100"),
        (made(100, ("apgd-ce", [0]), ("square 2", [1, 2])), "Square, which reads no gradients, broke 2 of 100"),
        (made(100, ("apgd-ce", [0]), ("square", [1])), None),
        (made(1000, ("apgd-ce", [0]), ("square", [1, 2, 3, 4, 5])), None),
        (made(1000, ("apgd-ce", [0]), ("square", [1, 2, 3, 4, 5, 6])), "broke 6 of 1000"),
        (made(100, ("square", [1, 2]), ("apgd-ce", [0])), None),
        (made(100, ("square", list(range(50)))), None),
        (made(100, ("apgd-ce", [0], 1.0, 1.0)), "never rose on 99 of 100"),
        (made(100, ("apgd-ce", [0], 1.0, 1.0), ("apgd-t", [0], 0.5, 0.4)), None),
        (made(100, ("apgd-ce", [0], 1.0, 1.0), ("square", [0], 0.5, 0.4)), "never rose on 99 of 100"),
        (made(100, ("apgd-ce", [0], 1.0, 1.0), ("fab", list(range(99)), -1.0, -np.inf)), None),
        (made(100, ("apgd-ce", [0], np.nan, np.nan), ("fab", [0], -np.inf, -np.inf)), None),
        (made(100, ("apgd-ce", [0], np.nan, 1.0)), None),
        (made(100, ("apgd-dlr", [0], 3e4, 3e4 * (1 + 1e-8))), "never rose on 99 of 100"),
        (made(100, ("apgd-ce", [], 0.5, 2.0)), None),
        (made(100, ("apgd-ce", [0], 1e-8, -1e-8), ("apgd-t", range(9), 1.0, 0.0)), "cross-entropy stayed at 0 on 8 of 100"),
        (made(100, ("apgd-dlr", [0], 1e-8, -1e-8), ("apgd-t", range(9), 1.0, 0.0)), None),
        (made(100, ("apgd-ce", [0], 1e-8, -1e-8), ("apgd-t", [0], 1.0, 0.0)), None),
    ],
)
def test_what_counts(result, line):
    # Kills: one example or half a percent reported; a Square that came first; broken examples, stages without losses or NaN counted as flat;
    # Square's loss or another gradient attack not looked at; falling first losses of L1; cross-entropy that nothing contradicts.
    found = audit(result)
    assert found == [] if line is None else len(found) == 1 and line in found[0], found


def test_flags_that_do_not_hold():
    # Kills: chance in the outputs passed over; a line where the network answers as before.
    def noisy(keys, x):
        return jnp.stack([x.sum((1, 2, 3)), 0.5 + jax.vmap(jax.random.normal)(keys)], 1)

    x = np.random.default_rng(0).uniform(size=(200, 1, 1, 1)).astype(np.float32)
    first, again = (np.asarray(noisy(example_keys(jax.random.key(seed), jnp.arange(200)), x)).argmax(1) == 0 for seed in (0, 1))
    result = AttackResult(x, first, {"clean": {"robust": np.ones(200, bool)}})
    assert audit(result, correct_again=first) == []
    (line,) = audit(result, correct_again=again)
    assert re.match(r"asked again, the network answers otherwise on \d+ of 200 final images: its outputs are random", line)
    with pytest.raises(InputError, match="correct_again must be bool of shape"):
        audit(result, correct_again=np.ones(3, bool))


@pytest.mark.parametrize(
    ("curve", "options", "lines"),
    [
        ({0.3: 0.1, 0.0: 0.9, 0.1: 0.5}, {"majority": 0.1}, []),
        ({0.0: 0.9, 0.1: 0.5, 0.2: 0.6, 0.4: 0.6}, {}, ["rises from 50.0% at radius 0.1 to 60.0% at 0.2"]),
        ({0.1: 0.5, 0.2: 0.51}, {}, []),
        ({0.1: 0.9, 0.5: 0.8}, {"majority": 0.2}, ["80.0% at the L-inf radius 0.5, where every image can be turned into the same grey"]),
        ({0.1: 0.9, 0.5: 0.2}, {"majority": 0.2}, []),
        ({0.1: 0.9, 0.5: 0.8}, {"majority": 0.2, "norm": "l2"}, []),
        (
            {0.1: 0.5, 0.2: 0.4},
            {"weaker": {0.1: 0.45, 0.3: 0.0}},
            ["at radius 0.1 the weaker attack leaves 45.0% and the stronger one 50.0%"],
        ),
        ({0.1: 0.5, 0.2: 0.4}, {"weaker": {0.1: 0.55, 0.2: 0.39}}, []),
    ],
)
def test_curves(curve, options, lines):
    # Kills: radii in the order given; one example reported; radii of another norm taken for L-inf; the two attacks exchanged.
    found = audit_curve(curve, n=100, **options)
    assert len(found) == len(lines) and all(a in b and "\n" not in b for a, b in zip(lines, found, strict=True)), found
