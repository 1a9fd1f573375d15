"""From configurations to experiments: derived values, refusals, and the quick form."""

import shutil
import warnings

import numpy as np
import pytest

from robustjax.core.check import InputError
from robustjax.train import build, settings
from tests import tiny
from tests.data import writing


def test_derived_values():
    made = build.build(tiny.config())
    assert made.total_steps == 2 * (64 // 16)  # 80 examples, a fifth of them for validation
    assert len(made.train_ids) == 64 and len(made.validation_ids) == 16
    assert not set(made.train_ids) & set(made.validation_ids)
    images = made.dataset.train.images[made.train_ids] / 255
    np.testing.assert_allclose(made.model["mean"], images.mean((0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(made.model["std"], images.std((0, 1, 2)), atol=1e-4)


def test_moments_are_of_the_training_part_only():
    # Kills: statistics that have seen the validation images. Another split, other moments.
    a, b = (build.build(tiny.config(data__split_seed=seed)).model["mean"] for seed in (0, 1))
    assert a != b


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": {"name": "spyder"}}, "unknown augmentation 'spyder'; did you mean 'spider'"),
        ({"method": {"name": "spider", "tau": 1.0, "xy": 0.1}}, "unknown option of the augmentation 'spider': 'xy'; did you mean 'xi'"),
        ({"method": {"tau": 1.0}}, "config.method lacks its name"),
        ({"augment_options": {"flip": {}}}, "names 'flip', which is not among"),
        ({"model__name": "resnet_18"}, "unknown model 'resnet_18'; did you mean 'resnet18'"),
        ({"model__options": {"widht": 4}}, "unknown option of the model 'small_cnn': 'widht'; did you mean 'width'"),
        ({"model__name": "mnist_cnn", "model__options": {}, "data__options": {"size": 8}}, "too small for mnist_cnn"),
        ({"model__options": {"width": 2.5}}, "config.model = 'small_cnn' cannot be built"),
        ({"model__options": {"num_classes": 5}}, "config.model.options.num_classes follows from the data"),
        ({"data__options": {"dir": "x"}}, "the folder of the data is config.data.dir"),
        ({"augment_options": {"crop": 3}}, "config.augment_options.crop must hold the options of 'crop', got 3"),
        ({"method": {"name": "spider", "tau": "large", "xi": 0.1}}, "large"),
        ({"evaluation__benchmark": "cifar_d"}, "unknown benchmark 'cifar_d'; did you mean 'cifar_c'"),
        ({"evaluation__reference": "alexnett"}, "unknown reference .*'alexnett'; did you mean 'alexnet'"),
        ({"evaluation__reference": "alexnet"}, "'alexnet' has errors on imagenet_c, not on cifar_c"),
        ({"evaluation__benchmark": "mnist_c", "data__options": {"size": 16, "channels": 3}}, "made for grey images, these have 3 channels"),
        ({"evaluation__benchmark": "sensor"}, "'sensor' has no strengths of its own"),
        ({"evaluation__sensor": {"x": {"name": "occlusion", "size": 20}}}, "patches of 20x20 pixels are larger than the images, 16x16"),
        ({"evaluation__sensor": {"x": {"name": "noise", "sdt": 0.1}}}, "unknown option .*'sdt'; did you mean 'std'"),
        ({"evaluation__sensor": {"x": {"name": "down_up"}, "y": {"name": "strips"}}}, "'strips'; did you mean 'stripes'"),
        ({"selection__data": "cbar", "data__options": {"size": 12}}, "at least 16x16 pixels"),
        ({"data__name": "digit"}, "unknown data set 'digit'; did you mean 'digits'"),
        ({"batch_size": 65}, "a batch of 65 is larger than the training split of 64"),
        ({"loss": "cross_entopy"}, "unknown loss 'cross_entopy'; did you mean 'cross_entropy'"),
        ({"data__validation": 0.001}, "neither part may be empty"),
        ({"method": {"name": "spider", "tau": -1.0, "xi": 0.1}}, "tau .*must be .*-1"),
        ({"method": {"name": "spider", "tau": 1.0, "xi": 0.9}}, "xi .*0.9"),
        ({"method": {"name": "esp", "epsilon": 1.0, "tau": 2.0, "xi": 0.1}}, "tau must not exceed epsilon"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(change, message):
    with pytest.raises(InputError, match=message) as caught:
        build.build(tiny.config(**change))
    assert "\n" not in str(caught.value)


def test_images_without_any_benchmark_can_be_trained_on():
    # Kills: a refusal that no other setting could mend; suites without corruptions measure such networks.
    assert build.build(tiny.config(data__options={"size": 12})).dataset.image_shape == (12, 12, 3)


def test_quick_form_goes_on_with_digits_where_its_data_are_absent(tmp_path):
    # Kills: mirrored digits; a silent change of data.
    config = tiny.config(
        quick=True, data__name="cifar10", data__dir=str(tmp_path), data__options={}, augment=("crop_flip",), augment_options={}
    )
    made = build.build(config)
    assert made.dataset.name == "digits" and made.dataset.image_shape == (32, 32, 1) and made.config["augment"] == ("crop",)
    assert made.notes[0] == "quick, not comparable" and "in place of cifar10" in made.notes[1]


def test_absent_data_are_refused_otherwise(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        build.build(tiny.config(data__name="cifar10", data__dir=str(tmp_path), data__options={}))


def test_a_class_that_validation_takes_whole_is_named(tmp_path):
    # Kills: a class that is validated on, and tested, and never trained on, without a word; a warning where every class is trained on.
    for name, count in (("dry", 24), ("ice", 1), ("wet", 24)):
        for i in range(count):
            path = tmp_path / "train" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(writing.encode(writing.images(1, (8, 8, 3), i)[0]))
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    config = tiny.config(data__name="image_folder", data__dir=str(tmp_path), data__options={"size": (8, 8)}, data__validation=0.2)
    dataset, warned = build.open_dataset(settings.check(config))[1], []
    for seed in range(20):
        config["data"]["split_seed"] = seed
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train_ids, _ = build.train_validation(dataset, config)
        warned.append(any("no image of ice is trained on" in str(one.message) for one in caught))
        assert warned[-1] == (1 not in dataset.train.labels[train_ids])
    assert 0 < sum(warned) < 20


SOFTENING = {"spider": {"tau": 1.0, "xi": 0.2}, "esp": {"epsilon": 1.0, "tau": 1.0, "xi": 0.2}}
OTHERS = {
    "mixup": {"alpha": 1.0},
    "cutmix": {"alpha": 1.0},
    "gaussian_noise": {"std": 0.1},
    "std_ls": {"alpha": 0.1},
    "cutout": {"size": 4},
}


@pytest.mark.parametrize(
    ("stages", "method", "message"),
    [
        (("crop", "spider"), "spider", "moved and labels softened twice"),
        (("spider", "mixup"), "esp", "moved and labels softened twice"),
        (("esp", "crop"), "none", "'esp' softens labels by how far it moves the image, and 'crop' would"),
        (("spider", "mixup", "cutout"), "gaussian_noise", "put 'cutout' before it"),
        (("crop", "esp"), "std_ls", "'std_ls' would change"),
        (("crop", "spider"), "mixup", ""),
        (("mixup", "spider", "cutmix"), "gaussian_noise", ""),
        (("crop", "cutout", "esp"), "none", ""),
    ],
)
def test_spider_and_esp_come_last_and_once(stages, method, message):
    # Kills: a label softened twice, or for another distance than the image went; Mixup and the last noise refused behind them.
    options = {"none": {}, **SOFTENING, **OTHERS, "crop": {"pad": 1}}
    config = tiny.config(
        augment=stages, augment_options={name: options[name] for name in stages}, method={"name": method, **options[method]}
    )
    dataset, objective = build.open_dataset(config)[1], build._objective(config, {})
    if not message:
        build.augmentations(config, dataset, objective)
        return
    with pytest.raises(InputError, match=message) as refused:
        build.augmentations(config, dataset, objective)
    assert "\n" not in str(refused.value)
