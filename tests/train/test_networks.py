"""DeepAugment inside the training step: networks from a folder of copies, as arguments of the step."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import augment, data
from robustjax.augment.deepaugment import ALL
from robustjax.core import InputError, example_keys, parallel
from robustjax.data.copies import MANIFEST
from robustjax.models import image_to_image
from robustjax.train import build, networks, step
from tests import tiny

OPTIONS = {"group_size": 2, "distortions": ("negate_filters", "drop_signal")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `networks.read` needs of a folder of copies: two networks that were not trained."""
    out = tmp_path_factory.mktemp("copies")
    (out / MANIFEST).write_text(json.dumps({"networks": ["edsr", "cae"], "width": 4, "provenance": "nobody"}))
    for number, name in enumerate(("edsr", "cae")):
        networks.save(out / f"{name}.npz", image_to_image.make(name, jax.random.key(number), channels=1, width=4), 30.0 - 1.5 * number)
    return out


def config(where, **changes):
    options = {"deepaugment": {"folder": str(where), **OPTIONS, **changes}, "crop": {"pad": 1}}
    return tiny.config(augment=("deepaugment", "crop"), augment_options=options)


@pytest.fixture(scope="module")
def experiment(folder):
    return build.build(config(folder))


def test_the_step_distorts_with_the_networks_of_the_folder(experiment, folder):
    # Kills: networks in another order, or of other params; options that do not arrive; a stage in another place.
    made, _ = networks.read(folder, channels=1)
    assert [network.layers for network in made] == [image_to_image.make(name, jax.random.key(0)).layers for name in ("edsr", "cae")]
    found = [np.load(folder / f"{name}.npz") for name in ("edsr", "cae")]
    for network, file in zip(made, found, strict=True):
        np.testing.assert_array_equal(jax.tree.leaves(network.params)[0], file["arr_0"])
    pipeline, _ = build.augmentations(experiment.config, experiment.dataset, experiment.objective)
    images, targets = np.random.default_rng(0).uniform(size=(16, 16, 16, 1)).astype(np.float32), np.eye(3, dtype=np.float32)[[0] * 16]
    keys = lambda: example_keys(jax.random.key(3), jnp.arange(16))  # noqa: E731
    traced = []
    run = jax.jit(lambda keys, arrays: (traced.append(1), pipeline(keys, images, targets, arrays=arrays)[0])[1])
    out = run(keys(), experiment.arrays)
    options = OPTIONS | {"layers": tuple(n.layers for n in made), "params": [n.params for n in made]}
    expected = augment.compose([("deepaugment", options), ("crop", {"pad": 1})])(keys(), images, targets)[0]
    np.testing.assert_allclose(out, expected, atol=1e-5)
    # The networks are arguments: others need no other program, and are made use of.
    others = run(keys(), jax.tree.map(jnp.zeros_like, experiment.arrays))
    assert len(traced) == 1 and float(jnp.abs(others - out).max()) > 0.01


def test_a_step_is_the_same_on_many_devices(experiment):
    # Kills: arrays that do not reach the step; groups or choices by the rows of a device.
    source, found = experiment.dataset.train, []
    for mode, devices in (("shard_map", 1), ("pmap", 8)):
        mesh = parallel.data_mesh(jax.devices()[:devices])
        function = parallel.data_parallel(step.resident(experiment.step), mesh, mode=mode)
        data = parallel.replicate((jax.random.key(0), jnp.asarray(source.images), jnp.asarray(source.labels), experiment.arrays), mesh)
        current = parallel.replicate(build.initial_state(experiment), mesh)
        found.append(function(current, data, parallel.shard_rows(experiment.order(0)[:, None], mesh))[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found[0].params, found[1].params)


def test_the_run_says_which_networks(experiment):
    # Kills: a run that goes on with other networks unnoticed; how badly they reconstruct thrown away.
    expected = "DeepAugment in the step, networks edsr (30.0 dB), cae (28.5 dB) of nobody (digest "
    assert any(note.startswith(expected) for note in experiment.notes), experiment.notes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folder": ""}, "takes its networks from config.augment_options.deepaugment.folder, .* got ''"),
        ({"folder": "/nowhere"}, "no networks in /nowhere: deepaugment.json is missing or damaged; write them with launch/deepaugment.py"),
        ({"group_size": 3}, "group_size must be a whole number that divides the 16 images, got 3"),
        ({"distortions": ("negate",)}, "unknown distortion 'negate'; did you mean"),
        ({"params": []}, "unknown option of the stage 'deepaugment': 'params'"),
    ],
)
def test_what_is_wrong_is_refused_before_training(folder, changes, message):
    # Kills: each check left out.
    with pytest.raises(InputError, match=message):
        build.build(config(folder, **changes))


def test_digits_are_not_mirrored(folder):
    # Kills: flip_signal drawn of digits, though nobody asked for it; left out of other data, or where it was asked for.
    def drawn(name, **changes):
        dataset = data.make("digits")._replace(name=name)
        return build._loaded(config(folder, **changes), dataset)["deepaugment"].options["distortions"]

    assert drawn("cifar10", distortions=()) == ALL and drawn("mnist", distortions=("flip_signal",)) == ("flip_signal",)
    for name in ("digits", "mnist:3.0.1", "svhn_cropped"):
        assert set(drawn(name, distortions=())) == set(ALL) - {"flip_signal"}


def test_networks_of_other_channels_are_refused(folder):
    # Kills: the check left out: a convolution's own words would say less.
    with pytest.raises(InputError, match="edsr.npz holds another network than the one asked for"):
        networks.read(folder, channels=3)
