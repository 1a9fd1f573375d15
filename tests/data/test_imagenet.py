"""ImageNet's two forms, a tree of class folders and TFDS's imagenet2012: images of differing sizes, cropped on the host and streamed."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from robustjax import data
from robustjax.core import InputError
from robustjax.data import crops
from tests.data import writing

WNIDS = ("n01440764", "n01443537", "n01484850")
TRAIN, VAL = writing.photographs(14), writing.photographs(6, seed=1)
CROP = {"size": 24, "crop": "random_resized"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return writing.imagenet_folder(tmp_path_factory.mktemp("tree"), WNIDS, TRAIN, VAL)


@pytest.fixture(scope="module")
def forms(folder, tmp_path_factory):
    """Both forms of the same images."""
    root = writing.imagenet_tfds(tmp_path_factory.mktemp("prepared"), WNIDS, TRAIN, VAL)
    return data.make("image_folder", dir=str(folder), **CROP), data.make("imagenet2012", dir=str(root), **CROP)


def equal(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_both_forms_are_the_same_data(forms):
    # Kills: a split of the wrong name, classes in another order, another decoder, another crop, grey and CMYK refused by one of them.
    tree, prepared = forms
    for dataset in forms:
        assert (dataset.num_classes, dataset.class_names, dataset.image_shape) == (3, WNIDS, (24, 24, 3))
        assert (len(dataset.train), len(dataset.test)) == (14, 6)
    ids = np.arange(14)
    equal(tree.train.fetch(ids), prepared.train.fetch(ids))
    equal(tree.train.fetch_train(ids, seed=1, step=2), prepared.train.fetch_train(ids, seed=1, step=2))
    equal(tree.test.fetch(np.arange(6)), prepared.test.fetch(np.arange(6)))
    assert tree.train.labels.tolist() == prepared.train.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 4
    assert prepared.provenance == "ImageNet, 24x24, random parts and centres" and "24x24 rgb, random parts and centres" in tree.provenance


@pytest.mark.parametrize("form", [0, 1])
def test_training_is_streamed_and_testing_is_not_cropped_at_random(forms, form):
    # Kills: a training split that is kept in memory, where one crop would serve all epochs; a test split whose images change.
    dataset = forms[form]
    assert dataset.train.cropped and not dataset.train.resident and not dataset.test.cropped and dataset.test.resident
    with pytest.raises(InputError, match="is cropped anew at every training step, so it has no images to keep"):
        _ = dataset.train.images
    first, second = (dataset.train.fetch_train(np.arange(14), seed=0, step=step)[0] for step in (0, 1))
    assert all((first != second).any(axis=(1, 2, 3)))
    equal(dataset.test.fetch_train(np.arange(6), seed=0, step=0), dataset.test.fetch(np.arange(6)))
    np.testing.assert_array_equal(dataset.test.images, dataset.test.fetch(np.arange(6))[0])


def test_the_stream_is_of_the_drawn_parts(forms, folder):
    # By Pillow, from the files. Kills: a crop keyed by the place in the batch, or by the step counted from the start of the stream.
    order = data.TrainOrder(np.arange(14), batch_size=4, seed=5)
    (batch,) = data.train_stream(forms[0].train, order, start_step=4, num_steps=1, threads=2)
    files = sorted((folder / "train").glob("*/*.JPEG"))
    np.testing.assert_array_equal(batch.ids, order(4))
    for image, index in zip(batch.images, batch.ids.tolist(), strict=True):
        whole = Image.open(io.BytesIO(files[index].read_bytes())).convert("RGB")
        part = whole.crop(crops.random_box(*whole.size, crops.Draw(5, 4, index)))
        np.testing.assert_array_equal(image, np.asarray(part.resize((24, 24), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize("form", [0, 1])
def test_resumed_and_shared_streams_are_the_stream(forms, form):
    # Kills: state kept in the stream, crops keyed by process or place; a border of epochs (steps 3 and 6) that is missed.
    source, order = forms[form].train, data.TrainOrder(np.arange(14), batch_size=4, seed=0)
    whole = list(data.train_stream(source, order, start_step=0, num_steps=8, threads=3, prefetch=4))
    for start in range(1, 8):
        tail = data.train_stream(source, order, start_step=start, num_steps=8 - start, threads=start % 3, prefetch=2)
        for ours, theirs in zip(tail, whole[start:], strict=True):
            equal(ours, theirs)
    shares = [data.train_stream(source, order, start_step=2, num_steps=6, process=p, processes=2) for p in range(2)]
    for theirs, *parts in zip(whole[2:], *shares, strict=True):
        equal(map(np.concatenate, zip(*parts, strict=True)), theirs)


def test_validation_images_are_centres(forms):
    # Training images that are held out reach validation through eval_stream. Kills: random crops there.
    source = forms[0].train
    ids = np.array([3, 9, 13])
    (batch,) = data.eval_stream(source, ids, 4)
    np.testing.assert_array_equal(batch.images[:3], source.fetch(ids)[0])


def test_another_seed_gives_other_parts(forms):
    source = forms[1].train
    first, second = (source.fetch_train(np.arange(14), seed=seed, step=0)[0] for seed in (0, 1))
    assert all((first != second).any(axis=(1, 2, 3)))


@pytest.mark.parametrize(("form", "message"), [(0, "n01484850_0017.JPEG"), (1, "image 17 of split 'train' of .* cannot be decoded")])
def test_a_broken_file_is_named(tmp_path, form, message):
    # Kills: a batch of zeros, an error that names no file or dies in a thread of the stream. It is the last, behind those that are probed.
    files = writing.photographs(18, seed=2)
    files[17] = files[17][:300]
    root = (writing.imagenet_folder, writing.imagenet_tfds)[form](tmp_path, WNIDS, files, VAL)
    source = data.make(("image_folder", "imagenet2012")[form], dir=str(root), **CROP).train
    stream = data.train_stream(source, data.TrainOrder(np.arange(18), batch_size=6, seed=0), start_step=0, num_steps=3)
    with pytest.raises(InputError, match=message):
        list(stream)


def test_broken_files_may_be_left_out(tmp_path):
    # Kills: an image kept in memory for all epochs because the files were decoded once at the start.
    files = writing.photographs(18, seed=2)
    files[4] = files[4][:300]
    root = writing.imagenet_folder(tmp_path, WNIDS, files, VAL)
    with pytest.warns(UserWarning, match="left out: 1 file"):
        source = data.make("image_folder", dir=str(root), broken="skip", **CROP).train
    assert len(source) == 17 and not source.resident
    first, second = (source.fetch_train(np.arange(17), seed=0, step=step)[0] for step in (0, 1))
    assert all((first != second).any(axis=(1, 2, 3)))


def test_wnids_must_agree(folder, tmp_path):
    # Kills: labels of val/ shifted by a class that only it has.
    root = shutil.copytree(folder, tmp_path / "tree")
    (root / "val" / WNIDS[0]).rename(root / "val" / "n00000001")
    with pytest.raises(InputError, match=f"must hold the same classes; in one only: n00000001, {WNIDS[0]}"):
        data.make("image_folder", dir=str(root), **CROP)
