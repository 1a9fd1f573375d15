"""A run goes on with, and is measured on, the data that it was begun with: the folder of a user's images is no part of its configuration."""

import numpy as np
import pytest

from robustjax.core.check import InputError
from robustjax.evaluate import load, report, run
from robustjax.train import build, loop
from tests import tiny
from tests.data import writing


def write(root, classes, count=12):
    """Writes random images of classes into a folder."""
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i, pixels in enumerate(writing.images(count, (8, 8, 1), seed=k)):
            (root / name / f"{i}.png").write_bytes(writing.encode(pixels))
    return root


def config(folder, **changes):
    made = tiny.config(**changes)
    made["data"] |= {"name": "image_folder", "dir": str(folder), "options": {"size": (8, 8), "colour": "grey"}}
    return made


def stop(record):
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run of one epoch of two on a folder, and the folder."""
    root = tmp_path_factory.mktemp("same")
    folder = write(root / "images", ("dry", "wet"))
    with pytest.raises(KeyboardInterrupt):
        loop.train(config(folder), root / "run", quiet=True, on_validation=stop)
    return root / "run", folder


def test_other_classes_are_refused(begun, tmp_path):
    # Kills: a network that goes on with the labels of other classes.
    with pytest.raises(InputError, match="begun with the classes dry, wet, the data have cat, dog"):
        loop.train(config(write(tmp_path / "b", ("cat", "dog"))), begun[0], quiet=True)


def test_other_files_are_refused_and_a_copy_is_not(begun, tmp_path):
    # Kills: ids that mean other images; a moved folder refused.
    with pytest.raises(InputError, match="files were added, removed or changed"):
        loop.train(config(write(tmp_path / "more", ("dry", "wet"), count=13)), begun[0], quiet=True)
    loop.train(config(write(tmp_path / "copy", ("dry", "wet"))), begun[0], quiet=True)


@pytest.mark.parametrize(("role", "images"), [("train", "training"), ("validation", "validation")])
def test_another_number_of_images_is_refused(begun, role, images):
    # Kills: data that name no digest, as TFDS's do not, and are not what they were; runs of a version that wrote no numbers refused.
    experiment = build.build(config(begun[1]))
    known = {"provenance": "made up", "train": len(experiment.train_ids), "validation": len(experiment.validation_ids)}
    loop._check_data(experiment, known)
    loop._check_data(experiment, {"provenance": "made up"})
    with pytest.raises(InputError, match=rf"begun with {known[role] + 1} {images} images, the data now give {known[role]};"):
        loop._check_data(experiment, {**known, role: known[role] + 1})


def test_classes_of_another_order_are_refused_in_evaluation(begun, tmp_path):
    # Kills: an accuracy of nothing on a folder with a class renamed.
    meta = load.load(begun[0]).meta
    with pytest.raises(InputError, match="trained for the classes dry, wet, the data have a_wet, dry"):
        load.evaluation_data(meta, dir=str(write(tmp_path / "renamed", ("dry", "a_wet"))))
    with pytest.warns(UserWarning, match="may be among those that it was trained on"):
        load.evaluation_data(meta, dir=str(write(tmp_path / "more", ("dry", "wet"), count=14)))


def test_runs_on_other_images_are_other_rows(begun, tmp_path):
    # Kills: two folders averaged as two seeds.
    other = write(tmp_path / "other", ("dry", "wet"), count=13)
    loop.train(config(other, seed=1, epochs=1), tmp_path / "run", quiet=True)
    loop.train(config(begun[1], seed=2, epochs=1), tmp_path / "third", quiet=True)
    runs = [(folder, run.evaluate(folder, suite="clean", limit=4, quiet=True)) for folder in (tmp_path / "third", tmp_path / "run")]
    assert [row["seeds"] for row in report.collect(runs)["rows"]] == [[2], [1]]
    assert np.isfinite(runs[0][1][0]["metrics"]["accuracy"])


def test_moments_may_be_given(begun):
    # Kills: weights of others on images normalised by other constants than theirs; an option that is left open taken for one.
    given = config(begun[1], model={"name": "small_cnn", "options": {"width": 4, "mean": (0.25,), "std": None}})
    model = build.build(given).model
    derived = build.build(config(begun[1])).model
    assert list(model["mean"]) == [0.25] and model["std"] == derived["std"] and derived["mean"] != [0.25]
