"""Prepared TFDS sets: what is read is what was written, and every way a folder can be wrong is said in one line."""

import io
import json
import re
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from robustjax import data
from robustjax.core import InputError
from robustjax.data import encoded
from tests.data import writing
from tests.data.writing import encode, example, images

COLOUR = images(20)
GREY = images(20, (8, 8, 1), seed=1)


@pytest.mark.parametrize("resident_bytes", [0, 10**9])
def test_reads_what_was_written(tmp_path, resident_bytes):
    # Kills: examples out of order (also across the two files of a split), BGR for RGB, train for test, labels of another
    # dtype, ids that are sorted, images that fit only when the flag is set.
    splits = {"train": [example(encode(i), k % 10) for k, i in enumerate(COLOUR)]}
    splits["test"] = [example(encode(i), 9 - k) for k, i in enumerate(COLOUR[:7])]
    writing.write(tmp_path, "cifar10", splits)
    dataset = data.make("cifar10", dir=str(tmp_path), resident_bytes=resident_bytes)
    assert (dataset.name, dataset.provenance, dataset.num_classes, dataset.image_shape) == ("cifar10", "CIFAR-10", 10, (8, 8, 3))
    assert (len(dataset.train), len(dataset.test)) == (20, 7) and dataset.train.resident == (resident_bytes > 0)
    ids = np.array([15, 2, 2, 19])
    fetched = dataset.train.fetch(ids)
    np.testing.assert_array_equal(fetched[0], COLOUR[ids])
    np.testing.assert_array_equal(fetched[1], ids % 10)
    np.testing.assert_array_equal(dataset.test.labels, 9 - np.arange(7))
    assert fetched[1].dtype == dataset.test.labels.dtype == np.int32
    if resident_bytes:
        np.testing.assert_array_equal(dataset.test.images, COLOUR[:7])
        np.testing.assert_array_equal(dataset.test.fetch(np.array([6, 0]))[0], COLOUR[[6, 0]])
    else:
        with pytest.raises(InputError, match="too large for memory"):
            _ = dataset.test.images
    assert "tensorflow" not in sys.modules


def test_real_data():
    # Kills: class names lost, another decoder, JPEG not told from lossless.
    folder = writing.real("tfds_small")
    dataset = data.make("cifar10", dir=folder)
    assert dataset.provenance == "CIFAR-10, JPEG re-encoded" and dataset.class_names[:2] == ("airplane", "automobile")
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), [100] * 10)
    theirs = tfds.builder_from_directory(f"{folder}/cifar10/3.0.2").as_data_source("test")
    np.testing.assert_array_equal(dataset.test.images[:5], np.stack([theirs[i]["image"] for i in range(5)]))
    assert dataset.test.labels[:5].tolist() == [theirs[i]["label"] for i in range(5)]
    assert data.make("tfds:cifar10:3.0.2", dir=folder).provenance == dataset.provenance
    assert "tensorflow" not in sys.modules


def test_grey_coarse_labels_validation_and_extra(tmp_path, monkeypatch):
    # Kills: a grey image repeated to 3 channels, coarse_label read for label, imagenet's test split, the environment ignored,
    # a declared (None, None) taken as ragged, a grey JPEG in a colour set refused, a JPEG ImageNet called re-encoded.
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    writing.simple(tmp_path, "mnist")
    mnist = data.make("mnist")
    assert mnist.image_shape == (8, 8, 1) and mnist.provenance == "MNIST"
    np.testing.assert_array_equal(mnist.train.images, images(20, (8, 8, 1)))

    described = {"image": tfds.features.Image(shape=(8, 8, 3))}
    described |= {"coarse_label": tfds.features.ClassLabel(num_classes=20), "label": tfds.features.ClassLabel(num_classes=100)}
    fine = [example(encode(i), 99 - k, coarse_label=k, id=b"x") for k, i in enumerate(COLOUR)]
    writing.write(tmp_path, "cifar100", {"train": fine, "test": fine[:3]}, features=described)
    cifar100 = data.make("cifar100")
    assert cifar100.train.labels.tolist() == list(range(99, 79, -1)) and cifar100.num_classes == 100

    pictures = [example(encode(COLOUR[0], "JPEG"), 0), example(encode(GREY[0], "JPEG"), 999)]
    secret = [example(encode(COLOUR[0]), -1)]
    writing.write(
        tmp_path, "imagenet2012", {"train": pictures, "validation": pictures, "test": secret}, shape=(None, None, 3), classes=1000
    )
    imagenet = data.make("imagenet2012")
    assert imagenet.image_shape == (8, 8, 3) and imagenet.test.labels.tolist() == [0, 999] and imagenet.provenance == "ImageNet"
    assert np.ptp(imagenet.test.images[1].astype(int), axis=-1).max() == 0

    digits = [example(encode(i), k % 10) for k, i in enumerate(COLOUR)]
    writing.write(tmp_path, "svhn_cropped", {"train": digits[:4], "test": digits[4:6], "extra": digits[6:]})
    assert len(data.make("svhn_cropped", train="train+extra").train) == 18
    assert data.make("svhn_cropped", train="train[:50%]").train.labels.tolist() == [0, 1]
    assert "tensorflow" not in sys.modules


def test_any_set_by_name_config_and_version(tmp_path):
    # Kills: versions compared as text (10 < 9), a config taken for the version, provenance without the version.
    writing.simple(tmp_path, "mine", version="9.0.0", train=3, test=1, test_name="validation")
    writing.simple(tmp_path, "mine", version="10.0.0", train=5, test=2)
    writing.simple(tmp_path, "corrupted/fog_1", train=4, test=2)
    newest = data.make("tfds:mine", dir=str(tmp_path))
    assert len(newest.train) == 5 and newest.provenance == "TFDS mine/10.0.0"
    older = data.make("tfds:mine:9.0.0", dir=str(tmp_path))
    assert (len(older.train), len(older.test)) == (3, 1)
    assert data.make("tfds:corrupted/fog_1", dir=str(tmp_path)).provenance == "TFDS corrupted/fog_1/1.0.0"
    with pytest.raises(InputError, match="several kinds; name one: corrupted/fog_1"):
        data.make("tfds:corrupted", dir=str(tmp_path))
    with pytest.raises(InputError, match=r"no version '8.0.0'.* there are 9.0.0, 10.0.0"):
        data.make("tfds:mine:8.0.0", dir=str(tmp_path))


def test_missing_folders_say_where_and_how_without_a_download(tmp_path, monkeypatch):
    # Kills: a download attempt (the builders of tfds by name are broken here), the default folder in place of the environment's,
    # a message that does not say where it looked.
    monkeypatch.setattr(tfds, "builder", None)
    monkeypatch.setattr(tfds, "data_source", None)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nowhere"))
    how = f"tfds build mnist --file_format=array_record --data_dir={tmp_path}/nowhere"
    check("mnist", "", "there is no folder .*nowhere .from TFDS_DATA_DIR.*" + re.escape(how) + ".*--config.data.dir")
    monkeypatch.setenv("TFDS_DATA_DIR", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    check("mnist", "", f"there is no folder {tmp_path}/tensorflow_datasets .the default")
    check("mnist", tmp_path, "no data set 'mnist' in .*it holds no data set.*tfds build mnist")
    folder = writing.simple(tmp_path, "cifar10", shape=(8, 8, 3))
    check("tfds:cifar_10", tmp_path, "did you mean 'cifar10'.*tfds build cifar_10")
    check("cifar10", folder, f"inside the data set 'cifar10'; name the folder above it, {tmp_path}[.]")
    check("cifar10", folder.parent, f"inside the data set 'cifar10'; name the folder above it, {tmp_path}[.]")
    (tmp_path / "mnist" / "3.0.1.incompleteX").mkdir(parents=True)
    check("mnist", tmp_path, "holds no prepared version.*tfds build mnist")
    check("tfds:", tmp_path, "followed by the name")
    check("mnist", "gs://bucket/tfds", "no local folder")


def check(name, folder, message, **options):
    with pytest.raises(InputError, match=message) as error:
        data.make(name, dir=str(folder), **options)
    assert "\n" not in str(error.value)


def sound(count=20):
    return [example(encode(COLOUR[k % 20]), k % 10) for k in range(count)]


def text_only():
    return {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(num_classes=2)}


def other(label=None, **image):
    return {"image": tfds.features.Image(**image), "label": label or tfds.features.ClassLabel(num_classes=10)}


def see_through():
    buffer = io.BytesIO()
    Image.fromarray(COLOUR[0]).quantize(4).save(buffer, format="PNG", transparency=0)
    return buffer.getvalue()


def test_images_of_mixed_sizes_are_brought_to_one(tmp_path):
    # Kills: stretching, a corner for the centre, the longer side resized. At a shorter side of 8 nothing is resampled.
    wide, tall, even = images(1, (8, 16, 3))[0], images(1, (12, 8, 3))[0], images(1, (8, 8, 3))[0]
    mixed = [example(encode(image), label) for label, image in enumerate((wide, tall, even))]
    writing.write(tmp_path, "imagenet2012", {"train": mixed, "validation": mixed}, shape=(None, None, 3), classes=1000)
    with pytest.raises(InputError, match="option size"):
        data.make("imagenet2012", dir=str(tmp_path))
    made = data.make("imagenet2012", dir=str(tmp_path), size=8)
    by_label = dict(zip(made.train.labels.tolist(), made.train.images, strict=True))
    assert made.image_shape == (8, 8, 3)
    for label, expected in enumerate((wide[:, 4:12], tall[2:10], even)):
        np.testing.assert_array_equal(by_label[label], expected)
    smaller = data.make("imagenet2012", dir=str(tmp_path), size=4)
    assert smaller.test.images.shape == (3, 4, 4, 3)
    np.testing.assert_allclose(smaller.test.images.mean((1, 2)).mean(), 127, atol=25)
    with pytest.raises(InputError, match="option size of imagenet2012 must be a number of pixels"):
        data.make("imagenet2012", dir=str(tmp_path), size=-1)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"file_format": "tfrecord"}, "prepared as tfrecord.*tfds build mine --file_format=array_record --data_dir=<other folder>"),
        ({"features": text_only()}, "no feature 'image' that is an image; it has label, text"),
        ({"features": other(label=tfds.features.Scalar(np.int64))}, "no feature 'label' that is a class; it has image, label"),
        ({"features": other(shape=(8, 8, 4))}, r"uint8 \(8, 8, 4\); uint8 \(h, w, 1\) and \(h, w, 3\) are supported"),
        ({"features": other(shape=(8, 8, 1), dtype=np.uint16, encoding_format="png")}, "images of uint16"),
        ({"test": []}, "split 'test' of .* is empty"),
        ({"test": [example(encode(COLOUR[0]), -1)] * 3}, "example 0 of split 'test' .* label -1, which marks an unlabelled split"),
        ({"test": [*sound(2), example(encode(COLOUR[0]), 10)]}, "example 2 of split 'test' .* has label 10; labels must be from 0 to 9"),
        ({"test": [example(encode(COLOUR[0]), None)]}, "example 0 of split 'test' .* has 0 labels, one is needed"),
        ({"test": [example(None, 1)]}, "image 0 of split 'test' .* cannot be decoded: the example holds 0 images"),
        ({"test": [example(b"no image", 1)]}, "image 0 of split 'test' .* cannot be decoded"),
        (
            {"test": [*sound(1), example(encode(images(1, (8, 9, 3))[0]), 1)]},
            "image 1 of .* is 8x9, others are 8x8; bring them to one size",
        ),
        ({"shape": (None, None, 3), "train": [example(encode(images(1, (9, 8, 3))[0]), 1)]}, "image 0 of .* is 8x8, others are 9x8"),
        ({"test": [example(encode(images(1, (8, 8, 4))[0]), 1)]}, "cannot be decoded: its colours are 'RGBA'.*3 channel.*transparency"),
        ({"test": [example(encode(images(1, (8, 8, 2))[0]), 1)]}, "cannot be decoded: its colours are 'LA'"),
        ({"test": [example(see_through(), 1)]}, "cannot be decoded: its colours are 'P'"),
        ({"shape": (8, 8, 1)}, "cannot be decoded: its colours are 'RGB' in Pillow's terms, 1 channel"),
    ],
)
def test_unusable_sets_are_refused_when_opened(tmp_path, written, message):
    # Kills: each check, dropped; an error that surfaces hours later, when the test split is first read.
    splits = {"train": written.pop("train", sound(4)), "test": written.pop("test", sound(4))}
    writing.write(tmp_path, "mine", splits, **written)
    check("tfds:mine", tmp_path, message)


def test_unknown_splits_and_options(tmp_path):
    # Kills: errors of tfds passed on bare, options ignored in silence.
    writing.simple(tmp_path)
    check("mnist", tmp_path, "no split 'eval' in .*: Unknown split 'eval'. Should be one of .'train', 'test'.", test="eval")
    check("mnist", tmp_path, "no split 'test.9:.' in .*: Requested slice .* incompatible with 7 examples", test="test[9:]")
    check("mnist", tmp_path, "is empty; at least one", train="train[:0]")
    check("mnist", tmp_path, "unknown option of the data set 'mnist': 'tran'; did you mean 'train'", tran="train")
    check("tfds:mnist", tmp_path, "unknown option .*: 'channels'", channels=8)


def test_damage_beyond_the_first_examples_is_named_when_met(tmp_path):
    # Kills: labels checked in the probed examples only, an error without the example's id, a chunk given up as a whole.
    splits = {"train": [*sound(20), example(encode(COLOUR[0]), 77)], "test": [*sound(20), example(encode(COLOUR[0], "JPEG")[:-30], 1)]}
    writing.write(tmp_path, "mine", splits)
    dataset = data.make("tfds:mine", dir=str(tmp_path))
    with pytest.raises(InputError, match=r"example 20 of split 'train' .* has label 77; labels must be from 0 to 9"):
        _ = dataset.train.labels
    with pytest.raises(InputError, match=r"image 20 of split 'test' .* cannot be decoded: .*truncated"):
        _ = dataset.test.images
    unread = data.make("tfds:mine", dir=str(tmp_path), resident_bytes=0)
    with pytest.raises(InputError, match=r"example 20 of split 'train' .* has label 77"):
        _ = unread.train.labels


def test_damaged_and_missing_files(tmp_path):
    # Kills: a flipped byte read as an image, an error without the example's id, files looked for when a step needs them.
    folder = writing.simple(tmp_path, train=200, shape=(32, 32, 1))
    shard = folder / "mnist-train.array_record-00001-of-00002"
    whole = shard.read_bytes()
    first = data.make("mnist", dir=str(tmp_path)).train._records.__getitems__([150])[0]
    place = whole.index(first[-200:])
    shard.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
    dataset = data.make("mnist", dir=str(tmp_path))
    with pytest.raises(InputError, match=r"example 150 of split 'train' .* cannot be read .*; copy or prepare the set again"):
        _ = dataset.train.images
    assert dataset.train.fetch(np.array([149, 151]))[1].tolist() == [9, 1]
    shard.unlink()
    check("mnist", tmp_path, f"is incomplete: {shard.name} is missing")
    (folder / "dataset_info.json").write_text(json.dumps({"name": 3}))
    check("mnist", tmp_path, "metadata of .* cannot be read")


def test_chunks_join_in_order(tmp_path, monkeypatch):
    # Kills: a last chunk that is dropped, chunks that overwrite each other, labels read from another chunk.
    monkeypatch.setattr(encoded, "CHUNK", 8)
    writing.simple(tmp_path, train=21)
    for limit in (0, 10**9):
        np.testing.assert_array_equal(data.make("mnist", dir=str(tmp_path), resident_bytes=limit).train.labels, np.arange(21) % 10)
    np.testing.assert_array_equal(data.make("mnist", dir=str(tmp_path)).train.images, images(21, (8, 8, 1)))
