"""Chains of augmentations by name."""

import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from robustjax import augment
from robustjax.core import InputError, example_keys

B, K = 6, 4
IMAGES = jnp.asarray(np.random.default_rng(0).uniform(size=(B, 8, 8, 1)), jnp.float32)
TARGETS = jax.nn.one_hot(jnp.arange(B) % K, K)


def keys():
    return example_keys(jax.random.key(0), jnp.arange(B))


def test_chain_is_its_stages_in_order():
    # Kills: reversed order; targets of a stage dropped; options given to the wrong stage.
    images, targets = augment.compose([("l2_sphere", {"radius": 1.0}), ("std_ls", {"alpha": 0.3})])(keys(), IMAGES, TARGETS)
    np.testing.assert_allclose(jnp.sqrt(jnp.sum((images - IMAGES) ** 2, (1, 2, 3))), 1, rtol=1e-5)
    np.testing.assert_allclose(targets[1], [0.1, 0.7, 0.1, 0.1], rtol=1e-6)
    noise, crop = ("gaussian_noise", {"std": 0.01}), ("crop", {"pad": 3})
    for stages in ([noise, crop], [crop, noise]):
        images, _ = augment.compose(stages)(keys(), jnp.full_like(IMAGES, 0.5), TARGETS)
        assert bool(jnp.any((images > 0) & (images < 0.3))) == (stages[1] is noise)  # only a later noise meets the crop's black frame


def test_stages_draw_from_their_own_streams():
    # Kills: the same keys for every stage: two equal noises would add up to twice the one.
    once, _ = augment.compose([("gaussian_noise", {"std": 0.01})])(keys(), IMAGES * 0.2 + 0.4, TARGETS)
    twice, _ = augment.compose([("gaussian_noise", {"std": 0.01})] * 2)(keys(), IMAGES * 0.2 + 0.4, TARGETS)
    first, both = (np.ravel(x - (IMAGES * 0.2 + 0.4)) for x in (once, twice))
    assert abs(np.corrcoef(first, both - first)[0, 1]) < 5 / np.sqrt(first.size)


def test_empty_chain_changes_nothing():
    # Kills: an empty chain that fails.
    images, targets = augment.compose(())(keys(), IMAGES, TARGETS)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(targets, TARGETS)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([("spidr", {})], "unknown augmentation 'spidr'; did you mean 'spider'"),
        ([("spider", {"tua": 1.0})], "'tua'; did you mean 'tau'"),
        ([("spider", {"num_classes": 10})], "unknown option .* 'num_classes'"),
    ],
)
def test_unknown_names_are_refused_when_the_chain_is_made(stages, message):
    # Kills: finding out in the middle of a run; a keyword that swallows misspelt ones.
    with pytest.raises(InputError, match=message):
        augment.compose(stages)


def test_labels_in_place_of_targets_are_refused():
    # Kills: guessing the number of classes.
    with pytest.raises(InputError, match=r"stages take targets \(b, k\), got shape \(6,\)"):
        augment.compose(())(keys(), IMAGES, jnp.arange(B))


def test_std_ls_alpha_is_checked():
    # Kills: the check left out.
    with pytest.raises(InputError, match=r"alpha is the share .* got 1.5"):
        augment.TABLE["std_ls"](keys(), IMAGES, TARGETS, alpha=1.5)


@pytest.mark.parametrize("stages", [[("crop_flip", {})], [("flip", {}), ("crop", {})]], ids=["crop_flip", "chain"])
def test_wrong_keys_get_one_line(stages):
    # Kills: streams made of keys before they are checked.
    name, options = stages[0]
    made = augment.compose(stages) if len(stages) > 1 else functools.partial(augment.TABLE[name], **options)
    for wrong in (None, jax.random.key(0), jax.random.key_data(jax.random.split(jax.random.key(0), 2))):
        with pytest.raises(InputError, match="keys must be"):
            made(wrong, np.full((2, 4, 4, 1), 0.5), np.eye(2))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("crop", {"pad": 1.5}, "pad must be a whole number, at least 0, got 1.5"),
        ("crop_flip", {"pad": "4"}, "pad must be a whole number, at least 0, got '4'"),
        ("cutout", {"size": "8"}, "size must be a whole number, at least 0, got '8'"),
        ("cutout", {"size": 2.5}, "size must be a whole number, at least 0, got 2.5"),
        ("spider", {"tau": None, "xi": 0.1}, "tau must be a number, got None"),
        ("spider", {"tau": "8", "xi": 0.1}, "tau must be a number, got '8'"),
        ("spider", {"tau": 8.0, "xi": "0.1"}, "xi must be a number, got '0.1'"),
        ("esp", {"epsilon": 2.0, "tau": "1", "xi": 0.1}, "tau must be a number, got '1'"),
        ("esp", {"epsilon": 2.0, "tau": 1.0, "xi": 0.1, "sigma": "1"}, "sigma must be a number, got '1'"),
        ("std_ls", {"alpha": "0.1"}, "alpha must be a number, got '0.1'"),
        ("l2_ball", {"tau": [1.0, 2.0]}, r"tau must be a number, got \[1.0, 2.0\]"),
        ("gaussian_noise", {"std": "0.1"}, "std must be a number, got '0.1'"),
        ("augmix", {"all_ops": "False"}, "all_ops must be True or False, got 'False'"),
    ],
)
def test_options_of_another_kind_are_one_line(name, options, message, monkeypatch):
    # Kills: a TypeError from the middle of a kernel; a text read as True; half a pixel rounded in silence.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # annotations are checked in tests alone
    with pytest.raises(InputError, match=message) as refused:
        augment.TABLE[name](keys(), IMAGES, TARGETS, **options)
    assert "\n" not in str(refused.value)
