"""Tiny-ImageNet in its published layout: what is read is what was written, and every way the folder can be wrong is said in one line."""

import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from robustjax import data
from robustjax.core import InputError
from robustjax.data import digest
from tests.data import writing


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return writing.tiny_imagenet(tmp_path_factory.mktemp("tiny"))


def pixels(file):
    return np.asarray(Image.open(io.BytesIO(file.read_bytes())).convert("RGB"))


@pytest.mark.parametrize("resident_bytes", [0, 2 * 10**9])
def test_reads_what_was_written(written, resident_bytes):
    # Kills: classes in the order of wnids.txt (which is reversed here), test labels in the order of the files, val/ and test/ exchanged,
    # grey images refused.
    dataset = data.make("tiny_imagenet", dir=str(written.parent), resident_bytes=resident_bytes)
    wnids = sorted((written / "wnids.txt").read_text().split())
    assert (dataset.num_classes, dataset.image_shape, dataset.class_names) == (200, (64, 64, 3), tuple(wnids))
    assert (len(dataset.train), len(dataset.test)) == (400, 200) and dataset.train.resident == (resident_bytes > 0)
    np.testing.assert_array_equal(dataset.train.labels, np.repeat(np.arange(200), 2))
    np.testing.assert_array_equal(np.sort(dataset.test.labels), np.arange(200))
    of_file = dict(line.split("\t")[:2] for line in (written / "val" / "val_annotations.txt").read_text().splitlines())
    for index, (name, wnid) in list(enumerate(of_file.items()))[::40]:
        images, labels = dataset.test.fetch(np.array([index]))
        assert wnids[labels[0]] == wnid
        np.testing.assert_array_equal(images[0], pixels(written / "val" / "images" / name))
    for label in (0, 7, 199):
        images, labels = dataset.train.fetch(np.array([2 * label + 1]))
        np.testing.assert_array_equal(images[0], pixels(written / "train" / wnids[label] / "images" / f"{wnids[label]}_1.JPEG"))
        assert labels[0] == label
    part = "Tiny-ImageNet, a part: 400 of 100000 images for training and 200 of 10000 for testing, digest "
    assert dataset.provenance == part + digest.named(dataset.provenance)


def test_the_folder_itself_the_one_above_and_the_environment(written, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(written.parent))
    for dir in ("", str(written)):
        assert len(data.make("tiny_imagenet", dir=dir).test) == 200


def test_other_names_or_labels_are_other_data(written, tmp_path):
    # Kills: a digest of the number of images, of the training images alone, or of the folder's place.
    def named(root):
        return digest.named(data.make("tiny_imagenet", dir=str(root), resident_bytes=0).provenance)

    root = shutil.copytree(written, tmp_path / written.name, copy_function=os.link)
    found = [named(written), named(root)]
    annotations = root / "val" / "val_annotations.txt"
    lines = annotations.read_text().splitlines(keepends=True)
    first, second = (line.split("\t", 1) for line in lines[:2])
    annotations.unlink()  # a file of its own, where the others are links
    annotations.write_text("".join([f"{first[0]}\t{second[1]}", f"{second[0]}\t{first[1]}", *lines[2:]]))
    found.append(named(root))
    wnid = a_wnid(root)
    (root / "train" / wnid / f"{wnid}_boxes.txt").unlink()
    (root / "train" / wnid / "images" / f"{wnid}_0.JPEG").rename(root / "train" / wnid / "images" / f"{wnid}_9.JPEG")
    found.append(named(root))
    assert found[0] and found[0] == found[1] and len(set(found)) == 3


def test_its_corrupted_form_is_numbered_alike(written, tmp_path):
    # Kills: labels of Tiny-ImageNet-C, whose folders are wnids, in another order than the network's.
    dataset = data.make("tiny_imagenet", dir=str(written))
    for severity in range(1, 6):
        for wnid in dataset.class_names:
            folder = tmp_path / "fog" / str(severity) / wnid
            folder.mkdir(parents=True)
            (folder / "test_0.JPEG").symlink_to(written / "train" / wnid / "images" / f"{wnid}_0.JPEG")
    found = data.corrupted(str(tmp_path), names=["fog"], severities=5, num_classes=200, class_names=dataset.class_names, size=64)
    source = found.source("fog", 3)
    np.testing.assert_array_equal(source.labels, np.arange(200))
    np.testing.assert_array_equal(source.fetch(np.array([11]))[0], dataset.train.fetch(np.array([22]))[0])


def a_wnid(root):
    return sorted((root / "wnids.txt").read_text().split())[3]


def break_(root, what):
    """Does one kind of damage."""
    annotations, wnid = root / "val" / "val_annotations.txt", a_wnid(root)
    lines = annotations.read_text().splitlines(keepends=True)
    images = root / "train" / wnid / "images"
    if what == "no wnids":
        (root / "wnids.txt").unlink()
    elif what == "few wnids":
        (root / "wnids.txt").write_text("\n".join((root / "wnids.txt").read_text().split()[:-1]))
    elif what == "no class":
        shutil.rmtree(root / "train" / wnid)
    elif what == "extra class":
        (root / "train" / "n99999999" / "images").mkdir(parents=True)
    elif what == "no images":
        shutil.rmtree(images)
    elif what == "lost image":
        (images / f"{wnid}_1.JPEG").unlink()
    elif what == "extra image":
        (images / "own.JPEG").write_bytes(writing.jpeg(64, 64))
    elif what == "no boxes, no images":
        (root / "train" / wnid / f"{wnid}_boxes.txt").unlink()
        for file in images.iterdir():
            file.unlink()
    elif what == "no annotations":
        annotations.unlink()
    elif what == "strange class":
        annotations.write_text("".join([*lines[:4], "val_9.JPEG\tn99999999\t0\t0\t1\t1\n", *lines[4:]]))
    elif what == "spaces for tabs":
        annotations.write_text("".join(lines).replace("\t", " "))
    elif what == "named twice":
        annotations.write_text("".join([*lines, lines[0]]))
    elif what == "lost test image":
        (root / "val" / "images" / "val_0.JPEG").unlink()
    elif what == "unlabelled":
        annotations.write_text("".join(lines[1:]))
    elif what == "another size":
        (images / f"{wnid}_0.JPEG").write_bytes(writing.jpeg(32, 64))
    elif what == "broken":
        (images / f"{wnid}_0.JPEG").write_bytes(writing.jpeg(64, 64)[:200])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no wnids", "no Tiny-ImageNet: there is no wnids.txt in .* unpack tiny-imagenet-200.zip"),
        ("few wnids", "must list 200 classes, each once; it lists 199, 199 of them different"),
        ("no class", r"train lacks 1 of the 200 classes of wnids.txt, first n10000111; unpack tiny-imagenet-200.zip again"),
        ("extra class", "holds n99999999, which is no class of wnids.txt"),
        ("no images", "there is no folder .*n10000111/images"),
        ("lost image", r"n10000111/images lacks 1 of the 2 images that n10000111_boxes.txt lists, first n10000111_1.JPEG"),
        ("extra image", r"images holds 1 images that n10000111_boxes.txt does not list, first own.JPEG"),
        ("no boxes, no images", "n10000111/images holds no images"),
        ("no annotations", r"there is no .*val_annotations.txt, which says the classes of the test images"),
        (
            "strange class",
            r"line 5 of .*val_annotations.txt must hold a file, a tab and a class of wnids.txt, it holds 'val_9.JPEG.tn99999999",
        ),
        ("spaces for tabs", "line 1 of .*must hold a file, a tab and a class"),
        ("named twice", "names val_0.JPEG a second time"),
        ("lost test image", "val/images lacks 1 of the 200 images that val_annotations.txt lists, first val_0.JPEG"),
        ("unlabelled", "val/images holds 1 images that val_annotations.txt does not list, first val_0.JPEG"),
        ("another size", "n10000111_0.JPEG is 32x64, others are 64x64"),
        ("broken", "n10000111_0.JPEG cannot be decoded"),
    ],
)
def test_every_damage_is_said_in_one_line(written, tmp_path, what, message):
    root = shutil.copytree(written, tmp_path / written.name, copy_function=os.link)
    for file in (
        root / "wnids.txt",
        root / "val" / "val_annotations.txt",
        root / "train" / a_wnid(root) / "images" / f"{a_wnid(root)}_0.JPEG",
    ):
        contents = file.read_bytes()  # a file of its own, where the others are links
        file.unlink()
        file.write_bytes(contents)
    break_(root, what)
    with pytest.raises(InputError, match=message) as error:
        data.make("tiny_imagenet", dir=str(root))
    assert "\n" not in str(error.value)
