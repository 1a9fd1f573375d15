"""AugMix's objective against its formula, and its three views against the chain that they come from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import augment, models
from robustjax.core import example_keys, parallel
from robustjax.core.check import InputError
from robustjax.core.rng import stream
from robustjax.train import build, consistency, step
from robustjax.train.objectives import Given, Network
from tests import tiny

ROWS, CLASSES = 8, 3


def batch(seed=0):
    keys = example_keys(jax.random.key(seed), jnp.arange(ROWS))
    images = jax.random.uniform(jax.random.key(7), (ROWS, 16, 16, 1))
    return keys, jnp.round(images * 255) / 255, jax.nn.one_hot(jnp.arange(ROWS) % CLASSES, CLASSES)


def test_loss_is_cross_entropy_and_divergence_of_one_pass():
    # Kills: a pass a view; the mean over views in place of the first's cross-entropy; AugMix's 12 left out; the clamp of the mixture.
    apply, params, stats = models.split(models.make("small_cnn", num_classes=CLASSES, image_shape=(16, 16, 1), width=4))
    keys, images, targets = batch()
    others = tuple((jnp.clip(images + shift, 0, 1), targets) for shift in (0.3, -0.3))
    given = Given(images, targets, jnp.argmax(targets, axis=1), keys, batch(1)[0], jax.random.key(3), others)
    objective = consistency.augmix_jsd()

    def by_hand(w):
        output, after = apply(w, stats, jnp.concatenate([images, others[0][0], others[1][0]]), True)
        views = jax.nn.softmax(output.logits).reshape(3, ROWS, CLASSES)
        mixture = jnp.mean(views, axis=0)
        divergence = jnp.mean(jnp.sum(views * (jnp.log(views) - jnp.log(mixture)[None]), axis=-1))
        return -jnp.mean(jnp.sum(targets * jnp.log(views[0]), axis=1)) + 12 * divergence, after

    (value, after), grads = jax.jit(jax.value_and_grad(by_hand, has_aux=True))(params)

    @jax.jit
    def found(w):
        fresh = given._replace(keys=jax.random.clone(given.keys))
        return objective.loss(Network(apply, apply, None), w, stats, fresh, None)

    np.testing.assert_allclose(found(params).value, value, rtol=1e-5)
    for name, wanted in jax.jit(jax.grad(lambda w: found(w).value))(params).items():
        np.testing.assert_allclose(wanted, grads[name], rtol=1e-4, atol=1e-6)
    measured = found(params).batch_stats
    for name, wanted in after.items():
        np.testing.assert_allclose(measured[name], wanted, rtol=1e-5, atol=1e-6)
    assert set(found(params).terms) == set(objective.terms) and float(found(params).terms["consistency"]) > 0


STAGES = [("crop", {"pad": 2}), ("augmix", {}), ("spider", {"tau": 4.0, "xi": 0.2})]


@pytest.mark.parametrize("perturbed", ["all", "clean", "augmented"])
def test_views_share_what_comes_before_augmix(perturbed):
    # Kills: another crop in each view; AugMix in the first; one draw of AugMix or SPIDER for all views; SPIDER where it was not asked for.
    chains = augment.compose_views(STAGES, perturbed=perturbed)
    views = [jax.jit(chain)(*batch()) for chain in chains]
    cropped = augment.compose(STAGES[:1])(*batch())[0]
    moved = [float(jnp.abs(images - cropped).max()) > 1e-6 for images, _ in views]
    softened = [bool((targets.max(axis=1) < 0.999).any()) for _, targets in views]
    acts = {"all": [True] * 3, "clean": [True, False, False], "augmented": [False, True, True]}[perturbed]
    assert softened == acts and moved == [acts[0], True, True]
    assert float(jnp.abs(views[1][0] - views[2][0]).max()) > 0.01
    if perturbed == "clean":
        augmix = augment.TABLE["augmix"](stream(stream(batch()[0], 1), 2), cropped, batch()[2])[0]
        np.testing.assert_allclose(views[2][0], augmix, atol=1e-6)


def test_a_run_shares_crops_and_is_the_same_on_many_devices():
    # Kills: further views drawn from keys of their own, so that crops differ; partners or statistics of a device's own rows.
    config = tiny.config(augment=("crop", "augmix"), augment_options={"crop": {"pad": 2}}, objective={"name": "augmix_jsd"})
    experiment = build.build(config)
    _, others = build.augmentations(experiment.config, experiment.dataset, experiment.objective)
    chain = augment.compose_views([("crop", {"pad": 2}), ("augmix", {}), ("none", {})])[2]
    keys, images, targets = batch()
    np.testing.assert_array_equal(others(keys, images, targets)[1][0], chain(stream(batch()[0], 0), images, targets)[0])
    source, found = experiment.dataset.train, []
    for devices in (1, 8):
        mesh = parallel.data_mesh(jax.devices()[:devices])
        function = parallel.data_parallel(step.resident(experiment.step), mesh)
        data = parallel.replicate((jax.random.key(0), jnp.asarray(source.images), jnp.asarray(source.labels)), mesh)
        current = parallel.replicate(build.initial_state(experiment), mesh)
        found.append(jax.device_get(function(current, data, parallel.shard_rows(experiment.order(0)[:, None], mesh))[0]))
    for name, value in found[0].params.items():
        np.testing.assert_allclose(value, found[1].params[name], atol=1e-5)


@pytest.mark.parametrize("mixture", ["mixup", "cutmix"])
def test_views_are_of_one_mixture(mixture):
    # Kills: shares or boxes of each view's own, whose agreement means nothing; a mixture in some views only.
    chains = augment.compose_views([("augmix", {}), (mixture, {"alpha": 1.0})], perturbed="clean")
    first, *others = [jax.jit(chain)(*batch())[1] for chain in chains]
    assert float(first.max(axis=1).min()) < 0.95
    for other in others:
        np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {"name": "augmix_jsd"}}, "'augmix', which must be in config.augment once"),
        ({"objective": {"name": "augmix_jsd", "weight": "12"}}, "objective.weight must be a number of at least 0"),
        (
            {"objective": {"name": "augmix_jsd", "perturbed": "none"}, "augment": ("augmix",), "augment_options": {}},
            "perturbed must be 'all'",
        ),
        ({"objective": {"name": ["augmix_jsd"]}}, "objective.name must be the name of an objective"),
    ],
)
def test_bad_options_are_refused_in_one_line(changes, message):
    with pytest.raises(InputError, match=message):
        build.build(tiny.config(**changes))
