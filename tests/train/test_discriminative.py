"""Objectives of the discriminative-loss paper against their formulas, written out; training mode, batch norm and relu included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import losses, models
from robustjax.augment.noise import gaussian_noise
from robustjax.core import example_keys, parallel
from robustjax.core.check import InputError
from robustjax.io.checkpoint import Checkpoints
from robustjax.train import build, discriminative, loop, step
from robustjax.train.objectives import Given, Network
from tests import tiny

SHAPE, CLASSES, ROWS = (8, 8, 1), 3, 16


@pytest.fixture(scope="module")
def small():
    """A network with batch norm, relu and an embedding, its weights, and examples in two views."""
    apply, params, stats = models.split(models.make("small_cnn", num_classes=CLASSES, image_shape=SHAPE, width=4, embedding=6))
    draw = np.random.default_rng(0)
    params = {name: value + 0.1 * draw.normal(size=value.shape).astype(np.float32) for name, value in params.items()}
    labels = jnp.asarray(draw.integers(0, CLASSES, ROWS), jnp.int32)
    keys, noise_keys = (example_keys(jax.random.key(seed), jnp.arange(ROWS)) for seed in (0, 2))
    first, second = (jnp.asarray(draw.uniform(size=(ROWS, *SHAPE)), jnp.float32) for _ in range(2))
    targets, others = jax.nn.one_hot(labels, CLASSES), 0.9 * jax.nn.one_hot(labels, CLASSES) + 0.1 / CLASSES
    seen = losses.CentroidState(jnp.asarray(draw.normal(size=(CLASSES, 6)), jnp.float32), jnp.array([True, False, True]))
    given = Given(first, targets, labels, keys, noise_keys, jax.random.key(1), ((second, others),), seen)
    return Network(apply, apply, None), params, stats, given


def of(objective, small):
    """Returns params -> Loss, of an objective with what it prepares."""
    network, _, stats, given = small

    def loss(w):
        fresh = given._replace(keys=jax.random.clone(given.keys), attack_keys=jax.random.clone(given.attack_keys))
        return objective.loss(network, w, stats, fresh, jax.lax.stop_gradient(objective.prepare(network, w, stats, fresh)))

    return jax.jit(loss)


def cross_entropy(logits, targets):
    return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits), axis=1))


def same(found, wanted, atol=2e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol), found, wanted)


def test_clean_and_noisy_is_one_batch(small):
    # Kills: two passes, whose statistics and gradient differ; the clean view's targets for the noisy one; noise on the clean view.
    network, params, stats, given = small
    objective = discriminative.clean_and_noisy(stddev=0.2)

    def by_hand(w):
        noisy = gaussian_noise(jax.random.clone(given.attack_keys), given.others[0][0], std=0.2)
        output, after = network.apply(w, stats, jnp.concatenate([given.images, noisy]), True)
        return cross_entropy(output.logits, jnp.concatenate([given.targets, given.others[0][1]])), after

    (value, after), grads = jax.jit(jax.value_and_grad(by_hand, has_aux=True))(params)
    found = of(objective, small)(params)
    same((found.value, found.batch_stats), (value, after))
    same(jax.jit(jax.grad(lambda w: of(objective, small)(w).value))(params), grads)
    assert objective.views == 2 and found.logits.shape == (ROWS, CLASSES)


def test_stability_measures_one_image_and_its_copy(small):
    # Kills: a squared distance; the second view in place of a copy; one pass over both; a gradient through one view alone.
    network, params, stats, given = small
    objective = discriminative.stability(stddev=0.2, weight=3.0)

    def by_hand(w):
        clean, after = network.apply(w, stats, given.images, True)
        noisy, after = network.apply(w, after, gaussian_noise(jax.random.clone(given.attack_keys), given.images, std=0.2), True)
        distance = jnp.mean(jnp.sqrt(jnp.sum((clean.features - noisy.features) ** 2, axis=1)))
        return cross_entropy(clean.logits, given.targets) + 3 * distance, after

    (value, after), grads = jax.jit(jax.value_and_grad(by_hand, has_aux=True))(params)
    found = of(objective, small)(params)
    same((found.value, found.batch_stats), (value, after))
    same(jax.jit(jax.grad(lambda w: of(objective, small)(w).value))(params), grads)
    assert objective.views == 1


def test_discriminative_is_cross_entropy_and_its_terms(small):
    # Kills: another view in a term; a weight on another term; centroids that stay as they were; a gradient that the noisy pass lacks.
    network, params, stats, given = small
    options = {"delta_v": 0.1, "delta_d": 2.0, "momentum": 0.7, "gamma": 0.3}
    weights = {"alpha": 0.4, "beta": 0.6}
    objective = discriminative.discriminative(stddev=0.2, delta_v=0.1, delta_d=2.0, momentum=0.7, gamma_reg=0.3, noisy=0.8, **weights)

    def by_hand(w):
        clean, after = network.apply(w, stats, given.images, True)
        noisy, after = network.apply(w, after, gaussian_noise(jax.random.clone(given.attack_keys), given.others[0][0], std=0.2), True)
        head = (w["head.kernel"], w["head.bias"])
        ours = losses.discriminative_loss(clean.features, noisy.features, given.labels, given.memory, *head, lam=0.8, **options, **weights)
        return cross_entropy(clean.logits, given.targets) + ours.total, (after, ours.state)

    (value, (after, centroids)), grads = jax.jit(jax.value_and_grad(by_hand, has_aux=True))(params)
    found = of(objective, small)(params)
    same((found.value, found.batch_stats, found.memory), (value, after, centroids))
    same(jax.jit(jax.grad(lambda w: of(objective, small)(w).value))(params), grads)
    assert float(abs(found.memory.centroids - given.memory.centroids).max()) > 0.01 and set(found.terms) == set(objective.terms)
    assert all(float(found.terms[name]) > 0 for name in objective.terms)


def test_without_noise_there_is_one_pass(small):
    # Kills: a second pass that moves the statistics and costs time where lambda is 0.
    network, params, stats, given = small
    objective = discriminative.discriminative(noisy=0.0)
    found = of(objective, small)(params)
    same(found.batch_stats, network.apply(params, stats, given.images, True)[1])
    assert objective.views == 1 and objective.prepare(network, params, stats, given) is None


OBJECTIVE = {"name": "discriminative", "stddev": 0.2, "delta_v": 0.1, "momentum": 0.5}
MODEL = {"name": "small_cnn", "options": {"width": 4, "embedding": 6}}


def test_devices_agree():
    # Kills: centroids, counts or terms of a device's own rows, or gradients scaled by the number of devices.
    experiment = build.build(tiny.config(objective=OBJECTIVE, model=MODEL))
    source = experiment.dataset.train
    found = []
    for devices, mode in ((1, "shard_map"), (8, "shard_map"), (8, "pmap")):
        mesh = parallel.data_mesh(jax.devices()[:devices])
        function = parallel.data_parallel(step.resident(experiment.step), mesh, mode=mode)
        data = parallel.replicate((jax.random.key(0), jnp.asarray(source.images), jnp.asarray(source.labels)), mesh)
        current = parallel.replicate(build.initial_state(experiment), mesh)
        for i in range(2):  # in the second step some classes have centroids
            current = function(current, data, parallel.shard_rows(experiment.order(i)[:, None], mesh))[0]
        found.append(jax.device_get(current))
    one, many, pmapped = found
    jax.tree.map(np.testing.assert_array_equal, (many.params, many.memory), (pmapped.params, pmapped.memory))
    same((one.params, one.batch_stats), (many.params, many.batch_stats), atol=1e-5)
    same((one.memory.centroids, one.sums.terms), (many.memory.centroids, many.sums.terms), atol=1e-4)
    assert one.memory.seen.any() and (one.memory.seen == many.memory.seen).all()


@pytest.mark.parametrize("shared", [False, True])
def test_second_view_is_drawn_anew(shared):
    # Kills: a noisy view whose crops are those of the clean one although shared_crop is off; one that is there where nobody asks for it.
    config = build.build(tiny.config(objective={"name": "clean_and_noisy", "shared_crop": shared}, model=MODEL))
    first, others = build.augmentations(config.config, config.dataset, config.objective)
    assert (others is None) == shared
    if not shared:
        keys, other = (example_keys(jax.random.key(0), jnp.arange(8)) for _ in range(2))
        images = jax.random.uniform(jax.random.key(1), (8, *config.dataset.image_shape))
        targets = jnp.ones((8, config.dataset.num_classes)) / config.dataset.num_classes
        ((second, _),) = others(keys, images, targets)
        assert float(jnp.abs(first(other, images, targets)[0] - second).max()) > 0


@pytest.mark.parametrize(
    ("stage", "options"), [("spider", {"tau": 4.0, "xi": 0.4}), ("esp", {"epsilon": 2.0, "tau": 2.0, "xi": 0.4}), ("augmix", {})]
)
@pytest.mark.parametrize("name", ["clean_and_noisy", "stability", "discriminative"])
def test_augmentations_act_in_every_view(name, stage, options):
    # Kills: a view that stays as it is, hard labels beside softened ones, one perturbation for both views.
    experiment = build.build(tiny.config(objective={"name": name}, model=MODEL, augment=(stage,), augment_options={stage: options}))
    first, others = build.augmentations(experiment.config, experiment.dataset, experiment.objective)
    images = jax.random.uniform(jax.random.key(1), (8, *experiment.dataset.image_shape))
    targets = jax.nn.one_hot(jnp.arange(8) % 3, 3)
    keys = [example_keys(jax.random.key(0), jnp.arange(8)) for _ in range(2)]
    views = [first(keys[0], images, targets), *(others(keys[1], images, targets) if others else ())]
    assert len(views) == (1 if name == "stability" else 2)
    for moved, softened in views:
        assert (jnp.abs(moved - images).max(axis=(1, 2, 3)) > 1e-3).all()
        assert (softened.max(axis=1) < 1).any() == (stage != "augmix")  # small perturbations leave the label as it is
    if len(views) == 2:
        assert (jnp.abs(views[0][0] - views[1][0]).max(axis=(1, 2, 3)) > 1e-3).all()


def test_centroids_go_on_where_training_stopped(tmp_path):
    # Kills: centroids that are not in the checkpoint, or that begin anew when a run is continued.
    config = tiny.config(objective=OBJECTIVE, model=MODEL)

    def stop(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.train(config, tmp_path / "stopped", quiet=True, on_validation=stop)
    found = []
    for name in ("stopped", "whole"):
        loop.train(config, tmp_path / name, quiet=True)
        checkpoints = Checkpoints(tmp_path / name, read_only=True)
        found.append(checkpoints.restore(checkpoints.steps()[-1])[0])
    stopped, whole = found
    assert whole["memory"]["seen"].all() and float(abs(whole["memory"]["centroids"]).max()) > 0
    for name in ("memory", "params"):
        jax.tree.map(np.testing.assert_array_equal, stopped[name], whole[name])


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"name": "discriminative", "momentum": 1.5}, r"objective.momentum must be a number in \[0, 1\]"),
        ({"name": "discriminative", "delta_v": -1.0}, "objective.delta_v must be a number of at least 0"),
        ({"name": "discriminative", "beta": "1"}, "objective.beta must be a number of at least 0"),
        ({"name": "clean_and_noisy", "stddev": -0.1}, "objective.stddev must be a number of at least 0"),
        ({"name": "stability", "shared_crop": 1}, "objective.shared_crop must be True or False"),
        ({"name": "stabilty"}, "unknown objective 'stabilty'; did you mean 'stability'"),
        ({"name": "discriminative", "gamma": 0.1}, "unknown option of the objective 'discriminative': 'gamma'"),
    ],
)
def test_bad_options_are_refused_in_one_line(objective, message):
    with pytest.raises(InputError, match=message):
        build.build(tiny.config(objective=objective, model=MODEL))


def test_options_that_are_not_read_are_checked_too_and_mixtures_refused():
    # Kills: a wrong option that waits for the run in which it counts; half of two classes drawn to one of them.
    for options in ({"stddev": "x"}, {"shared_crop": "no"}):
        with pytest.raises(InputError, match=f"objective.{next(iter(options))} must be"):
            build.build(tiny.config(objective={"name": "discriminative", "noisy": 0.0, **options}, model=MODEL))
    with pytest.raises(InputError, match="'mixup' makes images of two"):
        build.build(tiny.config(objective=OBJECTIVE, model=MODEL, method={"name": "mixup", "alpha": 1.0}))
