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


def jpeg(height: int, width: int, seed: int = 0, mode: str = "RGB", exif: int = 0) -> bytes:
    """Returns a JPEG of smooth random colours; `exif` is its orientation, if not 0."""
    pixels = images(1, (2 + height // 20, 2 + width // 20, 4), seed)[0]
    pixels = pixels[..., 0] if mode == "L" else pixels[..., : len(mode)]
    options = Image.Exif()
    if exif:
        options[0x0112] = exif
    buffer = io.BytesIO()
    image = (
        Image.fromarray(np.ascontiguousarray(pixels)) if mode != "CMYK" else Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes())
    )
    image.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90, exif=options)
    return buffer.getvalue()


def photographs(count: int, seed: int = 0) -> list[bytes]:
    """Returns JPEGs of 20 to 60 pixels a side, among them a grey one and a CMYK one."""
    sides = np.random.default_rng(seed).integers(20, 61, (count, 2)).tolist()
    return [jpeg(*side, seed=100 * seed + i, mode={1: "L", 2: "CMYK"}.get(i, "RGB")) for i, side in enumerate(sides)]


def imagenet_folder(root: Path, wnids: tuple[str, ...], train: list[bytes], val: list[bytes]) -> Path:
    """Writes ImageNet's tree: <root>/train/<wnid>/<wnid>_<i>.JPEG and <root>/val/<wnid>/; the classes take turns. Returns root."""
    for split, files in (("train", train), ("val", val)):
        for i, file in enumerate(files):
            wnid = wnids[i % len(wnids)]
            folder = root / split / wnid
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{wnid}_{i:04d}.JPEG").write_bytes(file)
    return root


def imagenet_tfds(root: Path, wnids: tuple[str, ...], train: list[bytes], val: list[bytes]) -> Path:
    """Writes the same as TFDS's imagenet2012, class by class as the tree is read. Returns root."""

    def split(files: list[bytes]) -> list[bytes]:
        return [example(file, k) for k in range(len(wnids)) for file in files[k :: len(wnids)]]

    described = {"image": tfds.features.Image(shape=(None, None, 3)), "label": tfds.features.ClassLabel(names=list(wnids))}
    write(root, "imagenet2012", {"train": split(train), "validation": split(val)}, version="5.1.0", features=described)
    return root


def tiny_imagenet(root: Path, *, train: int = 2, test: int = 1) -> Path:
    """Writes tiny-imagenet-200 in <root> with so many images of each class, one of them grey, and returns that folder."""
    root = root / "tiny-imagenet-200"
    wnids = [f"n{10_000_000 + 37 * i}" for i in range(200)]
    (root / "val" / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(reversed(wnids)) + "\n")
    (root / "words.txt").write_text("".join(f"{wnid}\tthing\n" for wnid in wnids))
    annotations = []
    for k, wnid in enumerate(wnids):
        folder = root / "train" / wnid
        (folder / "images").mkdir(parents=True)
        for i in range(train):
            (folder / "images" / f"{wnid}_{i}.JPEG").write_bytes(jpeg(64, 64, seed=10 * k + i, mode="L" if k == 7 else "RGB"))
        (folder / f"{wnid}_boxes.txt").write_text("".join(f"{wnid}_{i}.JPEG\t0\t0\t63\t63\n" for i in range(train)))
        for i in range(test):
            name = f"val_{200 * i + (73 * k) % 200}.JPEG"  # in another order than the classes
            (root / "val" / "images" / name).write_bytes(jpeg(64, 64, seed=5000 + k))
            annotations.append(f"{name}\t{wnid}\t0\t0\t63\t63\n")
    (root / "val" / "val_annotations.txt").write_text("".join(sorted(annotations)))
    return root
