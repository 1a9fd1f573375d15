"""Tiny-ImageNet as it was published: 200 classes of ImageNet at 64x64 pixels. The official validation images are the test split.

    DIR/wnids.txt                        the classes, one a line
    DIR/train/WNID/images/*.JPEG         beside them WNID_boxes.txt, which lists them
    DIR/val/images/*.JPEG
    DIR/val/val_annotations.txt          their classes: file, wnid and a box on each line

Classes are numbered in the alphabetical order of their wnids, as torchvision numbers folders; the images of test/ have no labels and are
not read.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from robustjax.core.check import InputError
from robustjax.data.encoded import RESIDENT_BYTES, FileSource
from robustjax.data.source import Dataset
from robustjax.data.tfds import where

FOLDER = "tiny-imagenet-200"
CLASSES, TRAIN, TEST = 200, 100_000, 10_000
SHAPE = (64, 64, 3)
_IMAGES = (".jpeg", ".jpg", ".png")
_AGAIN = f"unpack {FOLDER}.zip again"


def tiny_imagenet(*, dir: str = "", resident_bytes: int = RESIDENT_BYTES) -> Dataset:
    """Opens Tiny-ImageNet. Grey images are repeated to three channels.

    Args:
        dir: the folder tiny-imagenet-200 or the one that holds it; if empty, the one that TFDS_DATA_DIR names, else
            ~/tensorflow_datasets.
        resident_bytes: splits of at most so many bytes as uint8 are `resident` (training takes 1.2 GB); larger ones are decoded as they
            are asked for.

    Raises:
        InputError: for a folder that is missing or not laid out so: classes, images or annotations that are missing or do not belong
            together, or images of another size.
    """
    root = _find(dir)
    wnids = _wnids(root)
    splits = {"train": _train(root, wnids), "test": _test(root, wnids)}
    sources = {
        role: FileSource(files, np.array(labels, np.int32), name=f"the {role} split of {root}", shape=SHAPE, resident_bytes=resident_bytes)
        for role, (files, labels) in splits.items()
    }
    there = len(sources["train"]), len(sources["test"])
    provenance = "Tiny-ImageNet"
    if there != (TRAIN, TEST):
        provenance += f", a part: {there[0]} of {TRAIN} images for training and {there[1]} of {TEST} for testing"
    provenance += f", digest {_digest(splits)}"
    return Dataset("tiny_imagenet", provenance, sources["train"], sources["test"], CLASSES, SHAPE, wnids)


def _find(dir: str) -> Path:
    above, origin = where(dir)
    for root in (above, above / FOLDER):
        if (root / "wnids.txt").is_file():
            return root
    raise InputError(
        f"no Tiny-ImageNet: there is no wnids.txt in {above} ({origin}) or in {FOLDER} there; unpack {FOLDER}.zip, and name the folder by "
        "--config.data.dir or TFDS_DATA_DIR."
    )


def _wnids(root: Path) -> tuple[str, ...]:
    file = root / "wnids.txt"
    wnids = sorted(file.read_text().split())
    if len(set(wnids)) != CLASSES or len(wnids) != CLASSES:
        raise InputError(
            f"{file} must list {CLASSES} classes, each once; it lists {len(wnids)}, {len(set(wnids))} of them different; {_AGAIN}."
        )
    return tuple(wnids)


def _train(root: Path, wnids: tuple[str, ...]) -> tuple[list[Path], list[int]]:
    there = _folders(root / "train")
    missing, strange = sorted(set(wnids) - there), sorted(there - set(wnids))
    if missing:
        raise InputError(f"{root / 'train'} lacks {len(missing)} of the {CLASSES} classes of wnids.txt, first {missing[0]}; {_AGAIN}.")
    if strange:
        raise InputError(f"{root / 'train'} holds {strange[0]}, which is no class of wnids.txt; take it away.")
    files, labels = [], []
    for label, wnid in enumerate(wnids):
        folder, boxes = root / "train" / wnid / "images", root / "train" / wnid / f"{wnid}_boxes.txt"
        names = _images(folder)
        if boxes.is_file():  # some take the boxes away
            _compare(folder, names, boxes, {line.split("\t")[0] for line in boxes.read_text().splitlines() if line})
        if not names:
            raise InputError(f"{folder} holds no images ({' '.join(_IMAGES)}); {_AGAIN}.")
        files += [folder / name for name in sorted(names)]
        labels += [label] * len(names)
    return files, labels


def _test(root: Path, wnids: tuple[str, ...]) -> tuple[list[Path], list[int]]:
    file, folder = root / "val" / "val_annotations.txt", root / "val" / "images"
    if not file.is_file():
        raise InputError(
            f"there is no {file}, which says the classes of the test images; {_AGAIN}, or open a rearranged one as 'image_folder'."
        )
    numbers = {wnid: label for label, wnid in enumerate(wnids)}
    labels: dict[str, int] = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in numbers:
            raise InputError(f"line {number} of {file} must hold a file, a tab and a class of wnids.txt, it holds {line[:60]!r}; {_AGAIN}.")
        if name in labels:
            raise InputError(f"line {number} of {file} names {name} a second time; {_AGAIN}.")
        labels[name] = numbers[wnid]
    _compare(folder, _images(folder), file, set(labels))
    if not labels:
        raise InputError(f"{file} is empty; {_AGAIN}.")
    return [folder / name for name in labels], list(labels.values())


def _digest(splits: Mapping[str, tuple[list[Path], list[int]]]) -> str:
    """Returns a digest of the names and labels of all images, in their order, none of which is read; a copy has the same one."""
    digest = hashlib.sha256()
    for role, (files, labels) in splits.items():
        for file, label in zip(files, labels, strict=True):
            digest.update(os.fsencode(f"{role} {file.name} {label}\n"))
    return digest.hexdigest()[:8]


def _compare(folder: Path, there: set[str], file: Path, listed: set[str]) -> None:
    """Refuses images that a list does not have, and the other way round."""
    if missing := sorted(listed - there):
        raise InputError(f"{folder} lacks {len(missing)} of the {len(listed)} images that {file.name} lists, first {missing[0]}; {_AGAIN}.")
    if strange := sorted(there - listed):
        raise InputError(f"{folder} holds {len(strange)} images that {file.name} does not list, first {strange[0]}; take them away.")


def _folders(folder: Path) -> set[str]:
    return {entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")} if folder.is_dir() else set()


def _images(folder: Path) -> set[str]:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; {_AGAIN}.")
    return {entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(_IMAGES) and not entry.name.startswith(".")}
