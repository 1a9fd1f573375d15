"""The papers' attacks by name. Each test names the mutants it kills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from robustjax.attacks import PRESETS, pgd, preset
from robustjax.core import InputError, ThreatModel, example_keys

# As printed: norm, 255 eps, steps, 255 step size, objective.
PRINTED = {
    "spider_l2_pgd20": ("l2", 127.5, 20, 0.31875, "ce"),
    "spider_l2_pgd20_long": ("l2", 127.5, 20, 3.1875, "ce"),
    "spider_linf_pgd7": ("linf", 8, 7, 2, "ce"),
    "spider_linf_pgd3": ("linf", 3, 3, 1, "ce"),
    "spider_linf_pgd2": ("linf", 1, 2, 0.5, "ce"),
    "rat_linf_pgd20": ("linf", 8, 20, 2, "ce"),
    "rat_linf_cw20": ("linf", 8, 20, 2, "cw"),
    "rat_0.031_pgd20": ("linf", 7.905, 20, 2, "ce"),
    "rat_0.031_cw20": ("linf", 7.905, 20, 2, "cw"),
    "rat_l2_pgd20": ("l2", 128, 20, 15, "ce"),
    "rat_l2_cw20": ("l2", 128, 20, 15, "cw"),
    "thickness": ("l2", 255, 20, 51, "ce"),
    "thickness_normalised": ("l2", 255, 20, 51, "ce"),
    "fgsm": ("linf", 8, 1, 8, "ce"),
}
IMAGES = np.random.default_rng(0).uniform(0.2, 0.8, (4, 3, 3, 1)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0], np.int32)
FN = Partial(lambda w, x: x.reshape(len(x), -1) @ w, jnp.asarray(np.random.default_rng(1).normal(size=(9, 3)), jnp.float32))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_numbers_are_the_printed_ones(name):
    # Kills: a mistyped number, normalised units handed on as pixels, the best iterate for the last, no random start.
    threat, attack = preset(name)
    options = (attack.args[1] if name.startswith("thickness") else attack).keywords
    found = (threat.norm, 255 * threat.eps, options["steps"], 255 * options["step_size"], options["objective"])
    assert found[::2] == PRINTED[name][::2]
    np.testing.assert_allclose(found[1::2], PRINTED[name][1::2], rtol=1e-12)
    assert options["best"] is False and options.get("random_start", True) is (name != "fgsm")


def test_a_preset_is_that_attack():
    # Kills: options that are lost on the way, a preset used up by its first use, another norm.
    keys = example_keys(jax.random.key(0), jnp.arange(4))
    for _ in range(2):
        threat, attack = preset("spider_linf_pgd3")
        expected = pgd(keys, FN, IMAGES, LABELS, ThreatModel("linf", 3 / 255), steps=3, step_size=1 / 255)
        np.testing.assert_array_equal(attack(keys, FN, IMAGES, LABELS, threat), expected)


def test_thickness_aims_at_a_class():
    # Kills: an untargeted attack where the class is forgotten; pixels and normalised units that differ.
    threat, attack = preset("thickness")
    keys, targets = example_keys(jax.random.key(0), jnp.arange(4)), (LABELS + 1) % 3
    with pytest.raises(InputError, match=r"'thickness' aims at a class: give targets \(b,\)"):
        attack(keys, FN, IMAGES, LABELS, threat)
    x = attack(keys, FN, IMAGES, LABELS, threat, targets=targets)
    expected = pgd(keys, FN, IMAGES, LABELS, ThreatModel("l2", 1.0), steps=20, step_size=0.2, targets=targets)
    np.testing.assert_array_equal(x, expected)
    same, normalised = preset("thickness_normalised")
    assert same == threat
    np.testing.assert_array_equal(normalised(keys, FN, IMAGES, LABELS, same, targets=targets), x)


def test_an_unknown_name_says_so():
    with pytest.raises(InputError, match="unknown preset 'spider_linf_pgd8'; did you mean 'spider_linf_pgd7'"):
        preset("spider_linf_pgd8")
