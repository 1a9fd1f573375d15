"""Any prepared TFDS set of images and labels, read through its random-access data source: without TensorFlow, never downloading.

A set is a folder <dir>/<name>[/<config>]/<version> that describes itself, so the code that made it is not needed. Images are
decoded by `encoded` and not by tfds, which takes OpenCV where that is installed.
"""

import difflib
import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from robustjax.core.check import InputError
from robustjax.data import crops
from robustjax.data.encoded import RESIDENT_BYTES, EncodedSource, Fit, one_line, square
from robustjax.data.source import Dataset, Labels, check_range


class Known(NamedTuple):
    """What a set's own metadata do not say."""

    title: str
    test: str = "test"
    lossless: bool = True  # the originals are not JPEG, so JPEG images have been re-encoded


KNOWN = {
    "mnist": Known("MNIST"),
    "cifar10": Known("CIFAR-10"),
    "cifar100": Known("CIFAR-100"),
    "svhn_cropped": Known("SVHN"),
    "imagenet2012": Known("ImageNet", test="validation", lossless=False),
}


def prepared(
    name: str,
    /,
    *,
    dir: str = "",
    train: str = "train",
    test: str = "",
    size: Any = 0,
    crop: Any = "none",
    resident_bytes: int = RESIDENT_BYTES,
) -> Dataset:
    """Opens a prepared set.

    Args:
        name: '<set>', '<set>/<config>', either with ':<version>'; the newest version otherwise.
        dir: folder of the prepared sets; if empty, what TFDS_DATA_DIR names, else ~/tensorflow_datasets.
        train: training split, e.g. 'train', 'train+extra' or 'train[:10%]'.
        test: test split; if empty 'test', or 'validation' where there is none (and for imagenet2012, whose test labels are secret).
        size: bring every image to size x size pixels: the shorter side resized (Pillow's bicubic), then the centre cut out. 0
            leaves images as they are; they must then all have one size, which ImageNet's do not.
        crop: 'none', or 'random_resized' as ImageNet is usually trained on: for training a random part of the image (8% to 100% of
            its area, ratio 3/4 to 4/3) is resized to size x size anew at every step; for validation and testing the shorter side is
            resized to 8/7 of size (256 for 224) and the centre cut out. By Pillow's bilinear filter; see `crops`.
        resident_bytes: splits of at most so many bytes as uint8 are `resident`; larger ones are read example by example.

    Raises:
        InputError: for a set that is missing, not array_record, or not made of images with labels.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise InputError(f"option size of {name} must be a number of pixels, or 0 to leave images as they are, got {size!r}.")
    crops.check(crop, size, name=name)
    fit = functools.partial(square if crop == "none" else crops.cut, size=size) if size else None
    import tensorflow_datasets as tfds  # inside, as it imports for a second

    folder = find(name, dir)
    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:
        raise InputError(f"the metadata of {folder} cannot be read ({one_line(error)}); prepare the set again.") from error
    features = builder.info.features
    _check_format(builder, folder)
    _check_features(tfds, features, folder)
    known = KNOWN.get(builder.info.full_name.partition("/")[0]) if not builder.builder_config else None
    known = known or Known(f"TFDS {builder.info.full_name}", lossless=False)
    names = {"train": train, "test": test or (known.test if known.test in builder.info.splits else "validation")}
    splits = {}
    for role, split in names.items():
        records = _open(tfds, builder, split, folder)
        shape = splits["train"].shape if splits else features["image"].shape
        splits[role] = TfdsSource(
            records,
            name=f"split {split!r} of {folder}",
            shape=(size, size, features["image"].shape[2]) if size else shape,
            fit=fit,
            cropped=role == "train" and crop != "none",
            num_classes=features["label"].num_classes,
            resident_bytes=resident_bytes,
        )
    how = f", {size}x{size}, {'centre' if crop == 'none' else 'random parts and centres'}" if size else ""
    re_encoded = known.lossless and any(source.is_jpeg() for source in splits.values())
    return Dataset(
        name,
        known.title + how + (", JPEG re-encoded" if re_encoded else ""),
        splits["train"],
        splits["test"],
        features["label"].num_classes,
        splits["train"].shape,
        tuple(features["label"].names),
    )


class TfdsSource(EncodedSource):
    """A prepared split on disk.

    Args:
        records: the split's serialised examples, with len() and __getitems__.
        num_classes: labels run from 0 to num_classes - 1.
        name, shape, resident_bytes, fit, cropped: see EncodedSource.
    """

    def __init__(
        self,
        records: Sequence[bytes],
        *,
        name: str,
        shape: tuple,
        num_classes: int,
        resident_bytes: int,
        fit: Fit | None = None,
        cropped: bool = False,
    ):
        self._records, self._num_classes, self._name = records, num_classes, name
        super().__init__(name=name, shape=shape, resident_bytes=resident_bytes, fit=fit, cropped=cropped)

    def __len__(self) -> int:
        return len(self._records)

    def _read(self, indices: np.ndarray) -> list:
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            records = self._records.__getitems__([int(i) for i in indices]) if len(indices) else []
            return [tf_example_pb2.Example.FromString(record) for record in records]
        except Exception:
            return [self._record(int(i)) for i in indices]  # one by one, to name the one that cannot be read

    def _record(self, index: int) -> Any:
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            return tf_example_pb2.Example.FromString(self._records.__getitems__([index])[0])
        except Exception as error:
            raise InputError(
                f"example {index} of {self._name} cannot be read ({one_line(error)}); copy or prepare the set again."
            ) from error

    def _encoded(self, record: Any) -> bytes:
        values = record.features.feature["image"].bytes_list.value
        if len(values) != 1:
            raise ValueError(f"the example holds {len(values)} images")
        return values[0]

    def _labels_of(self, indices: np.ndarray, records: Sequence[Any]) -> Labels:
        values = [record.features.feature["label"].int64_list.value for record in records]
        for index, value in zip(indices, values, strict=True):
            if len(value) != 1:
                raise InputError(f"example {index} of {self._name} has {len(value)} labels, one is needed.")
        labels = np.array([value[0] for value in values], np.int64)
        check_range(labels, ids=indices, name=self._name, num_classes=self._num_classes)
        return labels.astype(np.int32)


def find(name: str, dir: str) -> Path:
    """Returns the folder of a prepared set (see `prepared`), or says where it looked and how to get it."""
    root, origin = where(dir)
    base, _, version = name.partition(":")
    how = (
        f"Prepare it where TensorFlow is installed: tfds build {base} --file_format=array_record --data_dir={root}; "
        f"or name the folder that holds {base}/ by TFDS_DATA_DIR or --config.data.dir."
    )
    if not base:
        raise InputError("'tfds:' must be followed by the name of a data set, e.g. 'tfds:fashion_mnist'.")
    if not root.is_dir():
        raise InputError(f"no data set {name!r}: there is no folder {root} ({origin}). {how}")
    if not (root / base).is_dir():
        first = base.partition("/")[0]
        if root.name == first or (first in root.parts and (root / "dataset_info.json").is_file()):
            above = Path(*root.parts[: root.parts.index(first)])
            raise InputError(f"{root} ({origin}) is inside the data set {first!r}; name the folder above it, {above}.")
        there = sorted(p.name for p in root.iterdir() if p.is_dir())
        near = difflib.get_close_matches(base, there, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; it holds {', '.join(there) or 'no data set'}."
        raise InputError(f"no data set {name!r} in {root} ({origin}){hint} {how}")
    versions = _versions(root / base)
    if not versions:
        configs = sorted(p.name for p in (root / base).iterdir() if p.is_dir() and _versions(p))
        if configs:
            raise InputError(f"{base!r} in {root} ({origin}) has several kinds; name one: {', '.join(f'{base}/{c}' for c in configs)}.")
        raise InputError(f"{root / base} ({origin}) holds no prepared version of the data set: no <version>/dataset_info.json in it. {how}")
    if version and version not in versions:
        raise InputError(f"no version {version!r} of {base!r} in {root} ({origin}); there are {', '.join(versions)}.")
    return root / base / (version or versions[-1])


def where(dir: str) -> tuple[Path, str]:
    """Returns the folder of the data sets, and who named it."""
    from_environment = os.environ.get("TFDS_DATA_DIR", "")
    origin = "option dir" if dir else "from TFDS_DATA_DIR" if from_environment else "the default, as neither dir nor TFDS_DATA_DIR is set"
    if "://" in (dir or from_environment):
        raise InputError(f"{dir or from_environment} ({origin}) is no local folder; copy the data set to one, or mount it there.")
    return Path(dir or from_environment or "~/tensorflow_datasets").expanduser().absolute(), origin


def _versions(folder: Path) -> list[str]:
    found = [p.name for p in folder.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", p.name) and (p / "dataset_info.json").is_file()]
    return sorted(found, key=lambda v: [int(n) for n in v.split(".")])


def _check_format(builder: Any, folder: Path) -> None:
    formats = sorted(f.value for f in builder.info.available_file_formats())
    if "array_record" not in formats:
        raise InputError(
            f"{folder} is prepared as {' and '.join(formats) or 'an unknown format'}, which cannot be read without TensorFlow; prepare it "
            f"again into another folder: tfds build {builder.name} --file_format=array_record --data_dir=<other folder>."
        )


def _check_features(tfds: Any, features: Any, folder: Path) -> None:
    named = dict(features.items()) if hasattr(features, "items") else {}
    there = f"it has {', '.join(sorted(named)) or 'none by name'}"
    image, label = named.get("image"), named.get("label")
    if not isinstance(image, tfds.features.Image):
        raise InputError(f"{folder} has no feature 'image' that is an image; {there}. Only sets of images with class labels can be used.")
    if not isinstance(label, tfds.features.ClassLabel) or not label.num_classes:
        raise InputError(f"{folder} has no feature 'label' that is a class; {there}. Only sets of images with class labels can be used.")
    if image.np_dtype != np.uint8 or len(image.shape) != 3 or image.shape[2] not in (1, 3):
        raise InputError(f"{folder} has images of {image.np_dtype} {image.shape}; uint8 (h, w, 1) and (h, w, 3) are supported.")


def _open(tfds: Any, builder: Any, split: str, folder: Path) -> Any:
    """Returns the serialised examples of a split whose files are all there."""
    try:
        instructions = builder.info.splits[split].file_instructions
    except Exception as error:
        raise InputError(f"no split {split!r} in {folder}: {one_line(error)}.") from error
    if not instructions:
        raise InputError(f"split {split!r} of {folder} is empty; at least one example is needed.")
    records = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES, file_format="array_record")
    for instruction in builder.info.splits[split].file_instructions:
        if not Path(instruction.filename).is_file():
            raise InputError(f"{folder} is incomplete: {Path(instruction.filename).name} is missing; copy or prepare the set again.")
    return records
