"""Corrupted sets in every published layout: what is read is what was written, and a set of which anything is missing is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from robustjax import data
from robustjax.core import InputError
from tests.data import writing

NAMES = ("fog", "glass_blur", "elastic_transform")
PICTURES = writing.images(3 * 5 * 6).reshape(3, 5, 6, 8, 8, 3)  # name, severity, example
LABELS = np.array([2, 0, 1, 2, 1, 0])
WNIDS = ("n03", "n01", "n02")  # by label: not in alphabetical order


def write_npy(root: Path) -> None:
    root.mkdir()
    for name, pictures in zip(NAMES, PICTURES, strict=True):
        np.save(root / f"{name}.npy", pictures.reshape(30, 8, 8, 3))
    np.save(root / "labels.npy", np.tile(LABELS, 5))


def write_mnist_c(root: Path) -> None:
    for name, pictures in zip(NAMES, PICTURES[:, 0, ..., :1], strict=True):
        (root / name).mkdir(parents=True)
        np.save(root / name / "test_images.npy", pictures)
        np.save(root / name / "test_labels.npy", LABELS)


def write_folders(root: Path, severities: tuple[str, ...] = ("1", "2", "3", "4", "5"), folders: tuple[str, ...] = WNIDS) -> None:
    for name, of_name in zip(NAMES, PICTURES, strict=True):
        for severity, of_severity in zip(severities, of_name, strict=True):
            for i, (picture, label) in enumerate(zip(of_severity, LABELS, strict=True)):
                file = root / name / severity / folders[label] / f"val_{9 - i}.JPEG"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(writing.encode(picture))  # PNG under the name of a JPEG, as the test wants the very pixels


def write_tfds(root: Path, dataset: str, split: str, aliases: dict[str, str], severities: int = 5) -> None:
    classes = tfds.features.ClassLabel(names=WNIDS)
    for name, of_name in zip(NAMES, PICTURES, strict=True):
        for severity, pictures in enumerate(of_name[:severities], 1):
            records = [writing.example(writing.encode(p), int(label)) for p, label in zip(pictures, LABELS, strict=True)]
            config = aliases.get(name, name) + (f"_{severity}" if severities > 1 else "")
            described = {"image": tfds.features.Image(shape=(None, None, 3)), "label": classes}
            writing.write(root, f"{dataset}/{config}", {split: records}, features=described)


def opened(root: Path, **changes) -> data.CorruptedSet:
    return data.corrupted(str(root), **{"names": NAMES, "severities": 5, "num_classes": 3, **changes})


def assert_pictures(found: data.CorruptedSet, order: np.ndarray, pictures: np.ndarray = PICTURES, labels: np.ndarray = LABELS) -> None:
    for name, of_name in zip(NAMES, pictures, strict=True):
        for severity, expected in enumerate(of_name, 1):
            source = found.source(name, severity)
            # Fetched before the split is loaded as a whole, and after.
            for _ in range(2):
                got, got_labels = source.fetch(np.array([4, 1]))
                np.testing.assert_array_equal(got, expected[order][[4, 1]])
                np.testing.assert_array_equal(got_labels, labels[order][[4, 1]])
                np.testing.assert_array_equal(source.labels, labels[order])
                np.testing.assert_array_equal(source.images, expected[order])


def refused(root: Path, message: str, **changes) -> None:
    with pytest.raises(InputError, match=message) as error:
        opened(root, **changes)
    assert "\n" not in str(error.value)


# Files come by class folder, then by name, and the names were given backwards.
SORTED = np.array(sorted(range(6), key=lambda i: (WNIDS[LABELS[i]], -i)))


def test_npy(tmp_path):
    # Kills: example-major for severity-major; severity off by one; labels of another severity; the whole file read at once.
    write_npy(tmp_path / "CIFAR-10-C")
    found = opened(tmp_path / "CIFAR-10-C")
    assert (found.provenance, found.layout) == ("files: CIFAR-10-C (.npy)", "npy")
    assert_pictures(found, np.arange(6))
    assert isinstance(found.source("fog", 2).images.base, np.memmap)
    for name, severity, message in (("snow", 1, "not among the corruptions"), ("fog", 6, "from 1 to 5, got 6"), ("fog", None, "got None")):
        with pytest.raises(InputError, match=message):
            found.source(name, severity)


def test_mnist_c(tmp_path):
    # Kills: images without channel axis refused; a severity asked for where there is one strength only.
    write_mnist_c(tmp_path / "mnist_c")
    fog = tmp_path / "mnist_c" / "fog" / "test_images.npy"
    np.save(fog, np.load(fog)[..., 0])
    found = opened(tmp_path / "mnist_c", severities=1)
    assert (found.provenance, found.layout) == ("files: mnist_c (.npy)", "mnist_c")
    assert_pictures(found, np.arange(6), PICTURES[:, :1, ..., :1])
    np.testing.assert_array_equal(found.source("fog", None).images, PICTURES[0, 0, ..., :1])
    refused(tmp_path / "mnist_c", "have one severity; 5 are asked for")
    refused(tmp_path / "mnist_c", "has 3 classes, the network has 10", severities=1, num_classes=10)
    np.save(tmp_path / "mnist_c" / "fog" / "test_labels.npy", LABELS[::-1])
    refused(tmp_path / "mnist_c", "other labels for glass_blur, elastic_transform than for fog", severities=1)


@pytest.mark.parametrize("severities", [("1", "2", "3", "4", "5"), ("2.40", "3.00", "10.00", "20.00", "100.00")])
def test_folders(tmp_path, severities):
    # Kills: severities in the order of their names; labels by the order in which folders are listed; given class names ignored;
    # files of several folders in one order only; grey or resized images; names '0', '1', ... of TFDS, which stand for none, taken for names.
    write_folders(tmp_path / "Tiny-ImageNet-C", severities)
    found = opened(tmp_path / "Tiny-ImageNet-C", class_names=WNIDS)
    assert (found.provenance, found.layout) == ("files: Tiny-ImageNet-C (JPEG)", "folders")
    assert_pictures(found, SORTED)
    alphabetical = np.array([2, 0, 1])[LABELS]
    for class_names in ((), ("0", "1", "2")):
        assert_pictures(opened(tmp_path / "Tiny-ImageNet-C", class_names=class_names, size=8), SORTED, labels=alphabetical)


@pytest.mark.parametrize("splits", [("glass_blur/4",), ("fog/1", "elastic_transform/2")])
def test_folders_of_other_classes_are_left_out(tmp_path, splits):
    # Published Tiny-ImageNet-C has such. Kills: a set refused for them; images of no label; a part measured under the name of the whole.
    root = tmp_path / "Tiny-ImageNet-C"
    write_folders(root)
    for split in splits:
        shutil.copytree(root / split / "n02", root / split / "n00")
    found = opened(root, class_names=WNIDS)
    assert found.provenance == f"files: Tiny-ImageNet-C (JPEG, {2 * len(splits)} images of other classes left out)"
    assert_pictures(found, SORTED)


def test_folders_called_by_numbers(tmp_path):
    # Kills: 10 before 2.
    write_folders(tmp_path / "set", folders=("2", "10", "11"))
    order = np.array(sorted(range(6), key=lambda i: (("2", "10", "11")[LABELS[i]], -i)))
    assert_pictures(opened(tmp_path / "set"), order)


@pytest.mark.parametrize(
    "dataset, split, aliases, severities",
    [
        ("cifar10_corrupted", "test", {"elastic_transform": "elastic", "glass_blur": "frosted_glass_blur"}, 5),
        ("imagenet2012_corrupted", "validation", {}, 5),
        ("mnist_corrupted", "test", {}, 1),
    ],
)
def test_tfds(tmp_path, dataset, split, aliases, severities):
    # Kills: names that TFDS changed; the split that imagenet2012 does not have; severities of mnist_corrupted.
    write_tfds(tmp_path, dataset, split, aliases, severities)
    for root in (tmp_path, tmp_path / dataset):
        found = opened(root, severities=severities, class_names=WNIDS)
        assert (found.provenance, found.layout) == (f"files: TFDS {dataset}", "tfds")
    assert_pictures(found, np.arange(6), PICTURES[:, :severities])
    refused(tmp_path, f"{severities} severities; {6 - severities} are asked for", severities=6 - severities)
    refused(tmp_path, "holds images of 8x8, the network takes 4x4", severities=severities, size=4)
    refused(tmp_path, "another order", severities=severities, class_names=WNIDS[::-1])
    refused(tmp_path, "has 3 classes, the network has 10", severities=severities, num_classes=10)
    before = found.digest("glass_blur", 1), found.digest("fog", 1)
    next((tmp_path / dataset / aliases.get("fog", "fog")).parent.glob("fog*/1.0.0/*array_record*")).touch()
    assert before[0] == found.digest("glass_blur", 1) and before[1] != found.digest("fog", 1)
    gone = aliases.get("glass_blur", "glass_blur") + ("_1" if severities > 1 else "")
    shutil.rmtree(tmp_path / dataset / gone)
    refused(tmp_path, f"1 of {3 * severities} prepared corruptions are missing: {dataset}/{gone}", severities=severities)
    (tmp_path / "mnist_corrupted").mkdir(exist_ok=True)
    (tmp_path / "cifar10_corrupted").mkdir(exist_ok=True)
    refused(tmp_path, "several corrupted sets; name one: .*cifar10_corrupted")


def test_prepared_sets_of_different_lengths(tmp_path):
    # Kills: lengths compared within a corruption only.
    write_tfds(tmp_path, "mnist_corrupted", "test", {}, 1)
    shutil.rmtree(tmp_path / "mnist_corrupted" / "fog")
    records = [writing.example(writing.encode(PICTURES[0, 0, 0]), 0)]
    described = {"image": tfds.features.Image(shape=(8, 8, 3)), "label": tfds.features.ClassLabel(names=WNIDS)}
    writing.write(tmp_path, "mnist_corrupted/fog", {"test": records}, features=described, shards=1)
    refused(tmp_path, r"incomplete: mnist_corrupted/fog has \(1, 8, 8, 3\) .*, but mnist_corrupted/glass_blur \(6, 8, 8, 3\)", severities=1)


def _save(name: str, array: np.ndarray):
    return lambda root: np.save(root / name, array)


@pytest.mark.parametrize(
    "damage, change, message",
    [
        (lambda root: (root / "fog.npy").unlink(), {}, "incomplete: 1 of 4 files are missing: fog.npy; nothing is evaluated"),
        (lambda root: (root / "labels.npy").unlink(), {}, "missing: labels.npy"),
        (_save("fog.npy", PICTURES[0, :4].reshape(24, 8, 8, 3)), {}, "fog.npy holds 24 images, its labels say 30"),
        (_save("labels.npy", np.tile(LABELS, 4)), {}, "same labels 5 times, .*; it holds 24 labels, which is no multiple of 5"),
        (_save("labels.npy", np.repeat(LABELS, 5)), {}, "same labels 5 times, .*; those of severity 2 differ from those of severity 1"),
        (_save("labels.npy", np.tile(LABELS + 1, 5)), {}, "labels from 1 to 3; those of 3 classes must lie from 0 to 2"),
        (_save("labels.npy", np.tile(LABELS - 1, 5)), {}, "labels from -1 to 1; those of 3 classes must lie from 0 to 2"),
        (_save("labels.npy", np.tile(LABELS, 5) / 2), {}, "must hold integers"),
        (_save("fog.npy", PICTURES[0].reshape(30, 8, 8, 3) / 255), {}, "fog.npy must hold uint8 images .* float64"),
        (_save("fog.npy", PICTURES[0].reshape(30, 16, 4, 3)), {}, r"several shapes: fog \(30, 16, 4, 3\), but glass_blur \(30, 8, 8, 3\)"),
        (lambda root: (root / "fog.npy").write_bytes((root / "fog.npy").read_bytes()[:-9]), {}, "fog.npy cannot be read as an array"),
        (lambda root: None, {"num_classes": 100}, "CIFAR-10-C has 3 classes, the network has 100"),
        (lambda root: None, {"num_classes": 2}, "CIFAR-10-C has 3 classes, the network has 2"),
        (lambda root: None, {"size": 224}, "images of 8x8, the network takes 224x224"),
        (lambda root: None, {"names": ()}, "no corruptions are asked for"),
    ],
)
def test_arrays_that_are_refused(tmp_path, damage, change, message):
    # Kills: each check, dropped.
    root = tmp_path / "CIFAR-10-C"
    write_npy(root)
    damage(root)
    refused(root, message, **change)


@pytest.mark.parametrize(
    "damage, change, message",
    [
        (lambda root: shutil.rmtree(root / "fog"), {}, "incomplete: 1 of 3 corruptions are missing: fog"),
        (lambda root: shutil.rmtree(root / "fog" / "3"), {}, r"fog must hold 5 folders of severities, it holds 4 \(1, 2, 4, 5\)"),
        (lambda root: next((root / "fog" / "3").rglob("*.JPEG")).unlink(), {}, r"fog/3 and .*fog/1 hold other images, 1 are in one only: n0"),
        (lambda root: shutil.rmtree(root / "glass_blur" / "3" / "n02"), {}, "glass_blur/3 and .*fog/1 hold other images, 2 are in one only: n02"),
        (lambda root: None, {"num_classes": 200}, "has 3 classes, the network has 200"),
        (lambda root: None, {"class_names": ("n01", "n02", "n04")}, "without n03 that the network does not know, has 2 classes, the network has 3"),
        (lambda root: [f.rename(f.with_name("n04")) for f in root.glob("fog/2/n02")], {"class_names": WNIDS}, "fog/2 and .*fog/1 hold other images, 2 are"),
        (lambda root: shutil.copytree(root / "fog/2/n02", root / "fog/2/n04"), {}, "fog/2 and .*fog/1 hold other images, 2 are in one only: n04"),
        (lambda root: None, {"class_names": ("cat", "dog", "owl")}, "n01, n02, n03; name them as the network's classes, cat, dog, owl"),
        (lambda root: [f.rename(f.with_name("x")) for f in root.glob("*/*/n02")], {}, "n01, n03, x; name them by the numbers"),
        (lambda root: None, {"size": 4}, "fog/1 holds images of 8x8, the network takes 4x4"),
        (lambda root: [f.write_bytes(b"") for f in (root / "fog" / "1").rglob("*.JPEG")], {}, "cannot be decoded"),
    ],
)  # fmt: skip
def test_folders_that_are_refused(tmp_path, damage, change, message):
    # Kills: each check, dropped.
    root = tmp_path / "ImageNet-C"
    write_folders(root)
    damage(root)
    refused(root, message, **change)


def test_no_set_at_all(tmp_path):
    # Kills: an error of the operating system passed on bare.
    refused(tmp_path / "none", "there is no folder")
    (tmp_path / "readme").touch()
    refused(tmp_path, "no corrupted set of a known layout, such as fog.npy with labels.npy; it holds readme")


def test_one_folder_image_of_another_size(tmp_path):
    # Kills: images resized and cropped as those of the data set are; a message that does not name the file.
    write_folders(tmp_path / "set")
    (tmp_path / "set" / "fog" / "2" / "n01" / "val_5.JPEG").write_bytes(writing.encode(np.zeros((6, 5, 3), np.uint8)))
    with pytest.raises(InputError, match="fog/2/n01/val_5.JPEG is 6x5, others are 8x8; copy the files again"):
        opened(tmp_path / "set", size=8).source("fog", 2)


@pytest.mark.parametrize("layout", ["npy", "mnist_c", "folders"])
def test_the_digest_is_of_all_files(tmp_path, layout):
    # Kills: a digest of the first images; of sizes alone; one for several severities or names; one that another place changes.
    write, severity, name = {
        "npy": (write_npy, 5, "fog.npy"),
        "mnist_c": (write_mnist_c, None, "fog/test_images.npy"),
        "folders": (write_folders, 5, "fog/5/n03/val_4.JPEG"),
    }[layout]
    write(tmp_path / "set")
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    found, copy = (opened(tmp_path / which, severities=5 if severity else 1) for which in ("set", "copy"))
    every = [(name, s) for name in NAMES for s in (range(1, 6) if severity else (None,))]
    before = {one: found.digest(*one) for one in every}
    assert len(set(before.values())) == len(every) and before == {one: copy.digest(*one) for one in every}
    data_bytes = bytearray((tmp_path / "set" / name).read_bytes())
    data_bytes[-1] ^= 1  # the last pixel of an array, or something of an image file
    (tmp_path / "set" / name).write_bytes(data_bytes)
    assert [one for one in every if found.digest(*one) != before[one]] == [("fog", severity)]


def test_what_the_writer_says_counts(tmp_path):
    # Kills: a small set, in which classes have no example, refused; made files passed off as published ones, or with other seeds or
    # photographs as the same; a set of another benchmark, data set or split that has the same names.
    write_npy(tmp_path / "mine")
    about = {"robustjax": "0.1", "num_classes": 10, "benchmark": "cifar_c", "seed": 4, "frost": "frost: procedural ice"}
    about |= {"data": "cifar10:3.0.2", "split": "test"}
    (tmp_path / "mine" / "robustjax.json").write_text(json.dumps(about))
    title = "files: mine (.npy, written by robustjax 0.1, benchmark cifar_c, seed 4"
    wanted = {"benchmark": "cifar_c", "data": "cifar10", "split": "test"}
    assert opened(tmp_path / "mine", num_classes=10, written_for=wanted).provenance == f"{title})"
    (tmp_path / "mine" / "fog.npy").rename(tmp_path / "mine" / "frost.npy")
    assert opened(tmp_path / "mine", num_classes=10, names=("frost",)).provenance == f"{title}, frost: procedural ice)"
    refused(tmp_path / "mine", "has 10 classes, the network has 3", names=("frost",))
    for key, other in (("benchmark", "tiny_imagenet_c"), ("data", "cifar100"), ("split", "train")):
        message = f"written for something else: {key} '{about[key]}' in place of '{other}'"
        refused(tmp_path / "mine", message, names=("frost",), num_classes=10, written_for={**wanted, key: other})
    write_folders(tmp_path / "tree")
    (tmp_path / "tree" / "robustjax.json").write_text(json.dumps({**about, "classes": [f"n{i:02}" for i in range(10)]}))
    np.testing.assert_array_equal(opened(tmp_path / "tree", num_classes=10).source("fog", 1).labels, [1, 1, 2, 2, 3, 3])
