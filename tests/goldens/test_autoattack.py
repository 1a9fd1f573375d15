"""AutoAttack against the flags of the official code on the stored digits network. Each test names the mutants it kills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks import autoattack
from robustjax.core import ThreatModel, example_keys
from tests.goldens import reference
from tests.goldens.test_attacks import setting

N = 64
POINTS = 0.03  # robust accuracy, by the README's spread over official seeds on digits


def attacked(norm, eps, *, batch_size=8, **options):
    """Returns the result on the first 64 digits and the official flags of the whole standard cascade."""
    logits_fn, images, labels = setting("digits", N, np.float32)
    keys = example_keys(jax.random.key(0), jnp.arange(N))
    threat = ThreatModel(norm, eps)
    result = autoattack(keys, logits_fn, images, labels, threat, batch_size=batch_size, devices=jax.devices()[:1], **options)
    name = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    return result, reference.load("attacks/digits_flags.npz")[f"digits/AA_{name}_standard/seed0/robust"][:N]


# Each norm and each attack once; on these digits that already reaches the number of the whole cascade.
SHORT = [
    ("linf", 0.1, ("apgd-ce", ("square", {"queries": 100}))),
    pytest.param("l2", 0.5, (("apgd-t", {"num_targets": 3}),), marks=pytest.mark.slow),
    ("l1", 1.0, (("fab-t", {"num_targets": 5}),)),
]


@pytest.mark.parametrize(("norm", "eps", "attacks"), SHORT, ids=["linf", "l2", "l1"])
def test_short_cascades_reach_the_official_robust_accuracy(norm, eps, attacks):
    # Kills: targets of other examples, rows that leave before their last step, runs cut off, another eps or box, images that a
    # stage found but that the network gets right.
    result, official = attacked(norm, eps, version="custom", attacks=attacks)
    assert result.robust.mean() <= official.mean() + POINTS
    assert (result.robust != official).mean() <= POINTS


@pytest.mark.slow
def test_the_standard_cascade_reaches_the_official_robust_accuracy():
    # Kills: what the short ones leave out: all targets, all queries, one stage after the other.
    result, official = attacked("linf", 0.1, batch_size=32)
    assert list(result.stages) == ["clean", "apgd-ce", "apgd-t", "fab-t", "square"]
    assert result.robust.mean() <= official.mean() + POINTS
    assert (result.robust != official).mean() <= POINTS
