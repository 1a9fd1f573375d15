"""The step does not depend on how it is fed, mapped or grouped; and it is the step that its equation says."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from robustjax import augment, losses, models
from robustjax.core import InputError, example_keys, parallel
from robustjax.core.types import Batch
from robustjax.train import build, objectives, schedules, state, step
from tests import tiny

STEPS = 4


@pytest.fixture(scope="module")
def experiment():
    return build.build(tiny.config(method={"name": "spider", "tau": 2.0, "xi": 0.3}))


def run(experiment, *, mode="shard_map", devices=8, chunk=1, stream=False):
    """Takes four steps; returns the state and the markers."""
    mesh = parallel.data_mesh(jax.devices()[:devices])
    one = experiment.step
    current = parallel.replicate(state.create(experiment.params, experiment.batch_stats, experiment.optimizer, averaged=False), mesh)
    source = experiment.dataset.train
    key = parallel.replicate(jax.random.key(0), mesh)
    markers = []
    if stream:
        function = parallel.data_parallel(step.streamed(one), mesh, mode=mode)
        for i in range(STEPS):
            ids = experiment.order(i)
            images, labels = source.fetch(ids)
            batch = parallel.shard_rows(Batch(images, labels, ids, np.ones(len(ids), bool)), mesh)
            current, marker = function(current, (key,), batch)
            markers.append(int(marker))
        return current, markers
    function = parallel.data_parallel(step.resident(one), mesh, mode=mode)
    data = (key, *parallel.replicate((jnp.asarray(source.images), jnp.asarray(source.labels)), mesh))
    for i in range(0, STEPS, chunk):
        ids = np.stack([experiment.order(j) for j in range(i, i + chunk)], axis=1)
        current, marker = function(current, data, parallel.shard_rows(ids, mesh))
        markers.append(int(marker))
    return current, markers


@pytest.fixture(scope="module")
def reference(experiment):
    return run(experiment)[0]


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def test_pmap_gives_the_same_bits(experiment, reference):
    equal(run(experiment, mode="pmap")[0], reference)


def test_streamed_data_give_the_same_bits(experiment, reference):
    # Kills: another order, other ids for the keys, another scaling of the bytes.
    equal(run(experiment, stream=True)[0], reference)


def test_several_steps_in_one_dispatch_are_the_same_steps(experiment, reference):
    # Kills: keys that do not advance inside a dispatch; sums that count the last step only.
    found = run(experiment, chunk=STEPS)[0]
    assert int(found.step) == STEPS
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found.params, reference.params)
    np.testing.assert_allclose(found.sums.loss, reference.sums.loss, rtol=1e-5)


@pytest.mark.parametrize(("name", "lam", "devices", "mode"), [("mixup", "example", 4, "shard_map"), ("cutmix", "batch", 8, "pmap")])
def test_mixtures_do_not_depend_on_the_number_of_devices(name, lam, devices, mode):
    # Kills: partners out of a device's own rows; a share of each device's own in one batch; a device with one example refused.
    mixing = build.build(tiny.config(batch_size=8, method={"name": name, "alpha": 1.0, "lam": lam}))
    source, found = mixing.dataset.train, []
    for how, count in ((mode, devices), ("shard_map", 1)):
        mesh = parallel.data_mesh(jax.devices()[:count])
        function = parallel.data_parallel(step.resident(mixing.step), mesh, mode=how)
        data = parallel.replicate((jax.random.key(0), jnp.asarray(source.images), jnp.asarray(source.labels)), mesh)
        current = parallel.replicate(build.initial_state(mixing), mesh)
        found.append(function(current, data, parallel.shard_rows(mixing.order(0)[:, None], mesh))[0])
    many, one = found
    for a, b in ((many.params, one.params), (many.batch_stats, one.batch_stats)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), a, b)
    np.testing.assert_allclose(many.sums.loss, one.sums.loss, rtol=1e-6)


def test_pixmix_does_not_depend_on_the_number_of_devices(tmp_path):
    # Kills: mixing pictures or rounds by the place among a device's own rows.
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (5, 18, 18), np.uint8)):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")  # which spares compiling fractals
    options = {"crop": {"pad": 1}, "pixmix": {"k": 1, "folder": str(tmp_path)}}
    experiment = build.build(tiny.config(augment=("crop", "pixmix"), augment_options=options))
    source, found = experiment.dataset.train, []
    for devices in (1, 8):
        mesh = parallel.data_mesh(jax.devices()[:devices])
        function = parallel.data_parallel(step.resident(experiment.step), mesh)
        data = jax.random.key(0), jnp.asarray(source.images), jnp.asarray(source.labels), experiment.arrays
        data, current = (parallel.replicate(tree, mesh) for tree in (data, build.initial_state(experiment)))
        found.append(jax.device_get(function(current, data, parallel.shard_rows(experiment.order(0)[:, None], mesh))[0].params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *found)


def test_a_batch_of_one_has_no_partners():
    # Kills: an example mixed with itself; a refusal only once the data were read and the step compiled.
    with pytest.raises(InputError, match="take partners from the batch, and here that is one example"):
        build.build(tiny.config(batch_size=1, method={"name": "mixup", "alpha": 1.0}))


def test_sums_count_every_example(reference):
    assert float(reference.sums.count) == STEPS * 16 and 0 <= float(reference.sums.correct) <= STEPS * 16


def test_one_step_is_the_equation_on_one_device(experiment):
    # Kills: gradients summed instead of averaged, statistics of a device's own rows, augmentation of other ids. By hand, unmapped.
    ids, source = experiment.order(0), experiment.dataset.train
    images, labels = source.fetch(ids)
    keys = example_keys(jax.random.fold_in(jax.random.key(0), 0), jnp.asarray(ids))
    augment_keys, model_keys = (jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in (0, 1))
    pipeline = augment.compose([("crop", {"pad": 1}), ("spider", {"tau": 2.0, "xi": 0.3})])
    images, targets = pipeline(augment_keys, jnp.asarray(images, jnp.float32) / 255, jax.nn.one_hot(labels, 3))

    def loss(params):
        output, stats = experiment.apply(params, experiment.batch_stats, images, True, key=model_keys)
        return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(output.logits), -1)), stats

    (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(experiment.params)
    change, _ = experiment.optimizer.update(grads, experiment.optimizer.init(experiment.params), experiment.params)
    mesh = parallel.data_mesh()
    function = parallel.data_parallel(step.resident(experiment.step), mesh)
    first = parallel.replicate(state.create(experiment.params, experiment.batch_stats, experiment.optimizer, averaged=False), mesh)
    data = parallel.replicate((jax.random.key(0), jnp.asarray(source.images), jnp.asarray(source.labels)), mesh)
    found, _ = function(first, data, parallel.shard_rows(ids[:, None], mesh))
    expected = optax.apply_updates(experiment.params, change)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found.params, expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found.batch_stats, stats)
    np.testing.assert_allclose(found.sums.loss / 16, value, rtol=1e-5)


def test_averaged_weights_follow_the_recurrence(experiment):
    # Kills: averaging before the update; another decay; an average that starts at zero. One step at a time, by hand.
    mesh = parallel.data_mesh(jax.devices()[:1])
    objective = objectives.classification(losses.cross_entropy)
    average = schedules.averaging({"ema": 0.75, "swa_epoch": 0}, steps_per_epoch=1)
    one = step.make_step(experiment.apply, augment.compose([]), objective, experiment.optimizer, num_classes=3, average=average)
    function = parallel.data_parallel(step.resident(one), mesh, donate=False)
    source = experiment.dataset.train
    data = parallel.replicate((jax.random.key(0), jnp.asarray(source.images), jnp.asarray(source.labels)), mesh)
    current = state.create(experiment.params, experiment.batch_stats, experiment.optimizer, averaged=True)
    average = np.asarray(experiment.params["head.kernel"], np.float64)
    for i in range(3):
        current, _ = function(current, data, parallel.shard_rows(experiment.order(i)[:, None], mesh))
        average = 0.75 * average + 0.25 * np.asarray(current.params["head.kernel"])
        np.testing.assert_allclose(current.ema["params"]["head.kernel"], average, atol=1e-6)
    assert state.evaluated(current)[0] is current.ema["params"]


def test_marker_names_the_first_bad_step(experiment):
    # Kills: reporting the last one, or any. Each step makes the weights so much larger that they soon overflow.
    with jax.debug_nans(False):
        broken = experiment._replace(optimizer=optax.scale(-1e38))
        objective = objectives.classification(losses.cross_entropy)
        one = step.make_step(experiment.apply, augment.compose([]), objective, broken.optimizer, num_classes=3)
        _, markers = run(broken._replace(step=one), devices=1)
    first = next(i for i, marker in enumerate(markers) if marker >= 0)
    assert 0 < first < STEPS - 1 and markers == [-1] * first + [first] * (STEPS - first)


def test_models_are_seen_through_apply_only(experiment):
    # What is trained is what models.make(**description) builds again for evaluation.
    _, params, batch_stats = models.split(models.make(**experiment.model))
    equal((params, batch_stats), (experiment.params, experiment.batch_stats))
