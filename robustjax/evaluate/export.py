"""Writes corrupted copies of data sets in the published layouts, which data.corrupted reads. Killed and run again, it goes on."""

import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

import robustjax
from robustjax import corruptions, data
from robustjax.core import example_keys, registry
from robustjax.core.check import InputError
from robustjax.data import batches, digest, splits, stream
from robustjax.data.corrupted import MANIFEST
from robustjax.evaluate import sources
from robustjax.io import log, results

FORMATS = {"npy": ".npy", "jpeg": ".JPEG", "png": ".png"}
_JPEG = {"quality": 85, "optimize": True}  # as Tiny-ImageNet-C, ImageNet-C and -C-bar were written
_PIXELS = 250 * 32 * 32  # of a batch, unless its size is asked for


class Exported(NamedTuple):
    """How many corruptions were written now, and how many lay there already."""

    written: int
    kept: int


class _Job(NamedTuple):
    """What one set is made of."""

    source: data.Source
    ids: np.ndarray
    shape: tuple[int, int, int]
    benchmark: str
    severities: int
    key: jax.Array
    batch_size: int
    folders: tuple[str, ...]  # of the classes
    suffix: str
    options: dict  # of corruptions, by name


def export(
    dataset: data.Dataset,
    out: str | Path,
    *,
    benchmark: str,
    names: Sequence[str] = (),
    split: str = "test",
    seed: int = 0,
    format: str = "auto",
    limit: int = 0,
    batch_size: int = 0,
    frost_images: Sequence[np.ndarray] = (),
    quiet: bool = False,
) -> Exported:
    """Writes a corrupted copy of a split. With seed 0 it holds the very images that evaluation makes.

    Each example has its own randomness, so neither the batch size nor the names change what is written. A file, or the folder of a
    severity, is there whole or not at all; those that are there are kept.

    Args:
        dataset: what to corrupt.
        out: folder of the set; new, empty, or begun with the same settings.
        benchmark: a key of corruptions.NAMES, except 'sensor', whose images are no 8-bit levels.
        names: of the corruptions; all of the benchmark's by default.
        split: 'test' or 'train'.
        seed: another one gives other draws.
        format: 'npy', 'jpeg' (quality 85) or 'png'; 'auto' is what was published: npy for CIFAR-C and MNIST-C, jpeg for the others.
        limit: write only that many examples (0: all).
        batch_size: examples computed at once; 0: by the size of the images.
        frost_images: photographs for the corruption 'frost', see corruptions; procedural ice without.
        quiet: no progress line.

    Returns:
        How many corruptions were written and kept.

    Raises:
        InputError: for settings that cannot be used, or a folder that holds something else.
    """
    base = benchmark.removesuffix("_extra")
    names = _check_names(benchmark, tuple(names))
    if split not in ("test", "train"):
        raise InputError(f"split must be 'test' or 'train', got {split!r}.")
    if format not in ("auto", *FORMATS):
        raise registry.unknown("format", format, ("auto", *FORMATS))
    source = getattr(dataset, split)
    ids = splits.subset(len(source), limit)
    chosen = ("npy" if base.startswith(("cifar", "mnist")) else "jpeg") if format == "auto" else format
    height, width, _ = dataset.image_shape
    job = _Job(
        source,
        ids,
        dataset.image_shape,
        base,
        1 if base == "mnist_c" else 5,
        jax.random.key(seed),
        min(len(ids), batch_size or max(1, _PIXELS // (height * width))),
        _class_folders(dataset),
        FORMATS[chosen],
        {"frost": {"frost_images": tuple(frost_images)}} if len(frost_images) else {},
    )
    # Traced only, so that images which cannot be corrupted are refused before anything is written.
    jax.eval_shape(lambda: _corrupted(job, jnp.zeros((1, *job.shape)), np.zeros(1, int), names[0], job.severities))
    about = {
        "robustjax": robustjax.__version__,
        "benchmark": base,
        "format": chosen,
        "seed": seed,
        "data": dataset.name,
        "provenance": dataset.provenance,
        "split": split,
        "n": len(ids),
        "num_classes": dataset.num_classes,
        "classes": list(job.folders),
        "digest": digest.arrays(source.fetch(ids[:16])),
        "frost": sources.frost_origin(sources.photographs_digest(frost_images) if len(frost_images) else ""),
    }
    out = Path(out).expanduser()
    results.check_folder(out, MANIFEST, about)  # before the lock leaves a file in a folder that is refused
    with log.lock(out, flag="--out"):
        results.check_folder(out, MANIFEST, about)
        if not (out / MANIFEST).exists():
            results.write_json(out / MANIFEST, about)
        return _write_all(job, out, names, quiet)


def _check_names(benchmark: str, names: tuple[str, ...]) -> tuple[str, ...]:
    if benchmark not in corruptions.NAMES:
        raise registry.unknown("benchmark", benchmark, corruptions.NAMES)
    if benchmark == "sensor":
        raise InputError(
            "the corruptions of 'sensor' have options and are no 8-bit levels: corrupt images with them as you go, not as files."
        )
    known = [*corruptions.NAMES[benchmark], *corruptions.NAMES.get(f"{benchmark}_extra", ())]
    for name in names:
        if name not in known:
            raise registry.unknown(f"corruption of {benchmark}:", name, known)
    return names or corruptions.NAMES[benchmark]


def _class_folders(dataset: data.Dataset) -> tuple[str, ...]:
    """Returns the class names where they can be names of folders, else numbers with leading zeros."""
    names = dataset.class_names
    usable = len(set(map(str.lower, names))) == dataset.num_classes and all(
        name and not name.startswith(".") and "/" not in name and len(name.encode()) < 200 for name in names
    )
    return tuple(names) if usable else tuple(f"{label:04d}" for label in range(dataset.num_classes))


def _write_all(job: _Job, out: Path, names: tuple[str, ...], quiet: bool) -> Exported:
    labels = job.source.labels[job.ids].astype(np.int64)
    kept = 0
    with log.progress("corrupting", len(names) * len(job.ids), quiet=quiet) as show, results.writing(out):
        if job.suffix == ".npy" and job.severities > 1:
            _save_labels(out / "labels.npy", np.tile(labels, job.severities))
        write = _write_array if job.suffix == ".npy" else _write_folders
        for number, name in enumerate(names):
            before = number * len(job.ids)
            kept += not write(job, out, name, labels, lambda done, before=before, name=name: show(before + done, name))
    return Exported(len(names) - kept, kept)


def _batches(job: _Job, name: str, severities: Sequence[int]) -> Iterator[tuple[int, int, UInt8[np.ndarray, "m h w c"]]]:
    """Yields (first position, severity, levels) of every batch, each at all the severities."""
    start = 0
    for chosen, mask in batches.padded(job.ids, job.batch_size):
        images = jnp.asarray(job.source.fetch(chosen)[0], jnp.float32) / 255
        made = [(severity, _corrupted(job, images, chosen, name, severity)) for severity in severities]
        for severity, corrupted in made:
            yield start, severity, np.rint(np.asarray(corrupted)[mask] * 255).astype(np.uint8)
        start += int(mask.sum())


def _corrupted(job: _Job, images: jax.Array, ids: np.ndarray, name: str, severity: int) -> jax.Array:
    one = job.severities == 1
    item = f"{job.benchmark}/{name}" if one else f"{job.benchmark}/{name}_{severity}"
    # The key of evaluation, which is that of seed 0.
    keys = example_keys(jax.random.fold_in(job.key, zlib.crc32(item.encode())), jnp.asarray(ids))
    options = job.options.get(name, {})
    return corruptions.corrupt(keys, images, name=name, severity=None if one else severity, benchmark=job.benchmark, **options)


def _save_labels(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    with open(temporary, "wb") as file:
        np.save(file, labels)
    os.replace(temporary, path)


def _write_array(job: _Job, out: Path, name: str, labels: np.ndarray, progress: Callable[[int], None]) -> bool:
    """Writes one corruption as an array, severity by severity; returns False where it was there."""
    path = out / f"{name}.npy" if job.severities > 1 else out / name / "test_images.npy"
    shape = (job.severities * len(job.ids), *job.shape)
    if _is_array(path, shape):
        return False
    if job.severities == 1:
        _save_labels(out / name / "test_labels.npy", labels)
    temporary = path.with_name(f".{path.name}.partial")
    with open(temporary, "wb") as file:  # and no memory map, in which a full disk is a crash
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        begin = file.tell()
        for start, severity, levels in _batches(job, name, range(1, job.severities + 1)):
            file.seek(begin + ((severity - 1) * len(job.ids) + start) * int(np.prod(job.shape)))
            file.write(levels.tobytes())
            progress(start + len(levels))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return True


def _is_array(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        there = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return there.shape == shape and there.dtype == np.uint8


def _write_folders(job: _Job, out: Path, name: str, labels: np.ndarray, progress: Callable[[int], None]) -> bool:
    """Writes one corruption as files, a folder for each severity and in it one for each class; returns False where all were there."""
    missing = [s for s in range(1, job.severities + 1) if _count(out / name / str(s), job.suffix) != len(job.ids)]
    if not missing:
        return False
    partial = {severity: out / name / f".{severity}.partial" for severity in missing}
    for folder in partial.values():
        shutil.rmtree(folder, ignore_errors=True)
        for label in np.unique(labels):
            (folder / job.folders[label]).mkdir(parents=True)
    with ThreadPoolExecutor(min(8, stream.cores())) as pool:
        for start, severity, levels in _batches(job, name, missing):
            places = range(start, start + len(levels))
            files = [partial[severity] / job.folders[labels[i]] / f"{job.ids[i]:08d}{job.suffix}" for i in places]
            list(pool.map(_save_image, files, levels))
            progress(start + len(levels))
    for severity, folder in partial.items():
        shutil.rmtree(out / name / str(severity), ignore_errors=True)  # an incomplete one: someone took files away
        os.replace(folder, out / name / str(severity))
    return True


def _count(folder: Path, suffix: str) -> int:
    return sum(1 for _ in folder.glob(f"*/*{suffix}"))


def _save_image(path: Path, levels: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(levels.squeeze(-1) if levels.shape[-1] == 1 else levels).save(path, **(_JPEG if path.suffix == ".JPEG" else {}))
