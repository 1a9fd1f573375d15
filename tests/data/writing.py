"""Writes tiny sets in the layout of tensorflow_datasets, record by record: so that damaged and odd ones can be written too."""

import io
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

REAL = Path(os.environ.get("ROBUSTJAX_DATA") or Path(__file__).parents[2].parent / "shared" / "data")


def real(folder: str) -> str:
    """Returns a folder of prepared real data; skips or fails the test where there is none."""
    if (REAL / folder).is_dir():
        return str(REAL / folder)
    message = f"no prepared data in {REAL / folder}; set ROBUSTJAX_DATA to the folder that holds {folder}/."
    if os.environ.get("ROBUSTJAX_REQUIRE_GOLDENS") == "1":
        pytest.fail(message)
    pytest.skip(message)


def encode(image: np.ndarray, format: str = "PNG") -> bytes:
    """Encodes uint8 (h, w) or (h, w, 1 to 4)."""
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.ndim == 3 and image.shape[-1] == 1 else image).save(buffer, format=format)
    return buffer.getvalue()


def images(count: int, shape: tuple[int, ...] = (8, 8, 3), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def example(image: bytes | None, label: int | None, **others: int | bytes) -> bytes:
    """Returns one serialised example; None leaves the feature out."""
    message = tf_example_pb2.Example()
    for key, value in {"image": image, "label": label, **others}.items():
        if isinstance(value, bytes):
            message.features.feature[key].bytes_list.value.append(value)
        elif value is not None:
            message.features.feature[key].int64_list.value.append(value)
    return message.SerializeToString()


def write(
    root: Path,
    name: str,
    splits: dict[str, Iterable[bytes]],
    *,
    version: str = "1.0.0",
    shape: tuple[int | None, ...] = (8, 8, 3),
    classes: int = 10,
    features: dict | None = None,
    file_format: str = "array_record",
    shards: int = 2,
) -> Path:
    """Writes <root>/<name>/<version>; `name` may be '<set>/<config>'. Returns that folder. Other formats than array_record: metadata only."""
    folder = root / name / version
    folder.mkdir(parents=True)
    dataset, _, config = name.partition("/")
    described = features or {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(num_classes=classes)}
    tfds.features.FeaturesDict(described).save_config(folder)
    info = {"name": dataset, "version": version, "fileFormat": file_format, "splits": []}
    if config:
        info["configName"] = config
    for split, records in splits.items():
        records = list(records)
        parts = [part.tolist() for part in np.array_split(np.arange(len(records)), shards)]
        info["splits"].append(
            {
                "name": split,
                "numBytes": str(sum(map(len, records))),
                "shardLengths": [str(len(part)) for part in parts],
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        )
        for i, part in enumerate(parts if file_format == "array_record" else []):
            writer = array_record_module.ArrayRecordWriter(
                str(folder / f"{dataset}-{split}.array_record-{i:05d}-of-{shards:05d}"), "group_size:1"
            )
            for j in part:
                writer.write(records[j])
            writer.close()
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def simple(root: Path, name: str = "mnist", *, train: int = 20, test: int = 7, shape: tuple[int, ...] = (8, 8, 1), **options) -> Path:
    """Writes a sound set of random images with the labels 0, 1, 2, ... modulo 10."""
    splits = {
        split: [example(encode(image), i % 10) for i, image in enumerate(images(count, shape, seed))]
        for seed, (split, count) in enumerate({"train": train, options.pop("test_name", "test"): test}.items())
    }
    return write(root, name, splits, shape=shape, **options)
