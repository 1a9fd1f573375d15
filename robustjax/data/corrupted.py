"""Corrupted test sets that others have published: arrays, folders of images, or prepared by TFDS. Nothing is downloaded.

Which corruptions there must be is the caller's to say, for instance corruptions.NAMES['cifar_c']: this package knows files only.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from robustjax.core.check import InputError
from robustjax.data import digest, tfds
from robustjax.data.encoded import RESIDENT_BYTES, FileSource, one_line, tracked
from robustjax.data.source import ArraySource, Dataset, Labels, Source

MANIFEST = "robustjax.json"  # launch/corrupt.py leaves it beside the files that it writes


class CorruptedSet(NamedTuple):
    """A complete set on disk. `source(name, severity)` opens one split; severity None stands for the only one.

    `digest(name, severity)` is another one as soon as any file of the split is: it is of all bytes of arrays, and of the names,
    sizes and times of change of other files, which would take hours to read.
    """

    provenance: str  # for results and tables, e.g. 'files: CIFAR-10-C (.npy)'
    layout: str  # 'npy', 'mnist_c', 'folders' or 'tfds'
    source: Callable[[str, int | None], Source]
    digest: Callable[[str, int | None], str]


def corrupted(
    dir: str,
    *,
    names: Sequence[str],
    severities: int,
    num_classes: int,
    class_names: Sequence[str] = (),
    size: int = 0,
    written_for: Mapping[str, str] = MappingProxyType({}),
) -> CorruptedSet:
    """Opens a corrupted set after checking that nothing is missing. Its layout is found out:

        npy       <dir>/<name>.npy, uint8 (severities * n, h, w, c), severity by severity, and labels.npy (severities * n,):
                  CIFAR-10-C, CIFAR-100-C, CIFAR-10-C-bar
        mnist_c   <dir>/<name>/test_images.npy, uint8 (n, h, w, 1), and test_labels.npy (n,)
        folders   <dir>/<name>/<severity>/<class>/*.JPEG or .png, severities by number: Tiny-ImageNet-C, ImageNet-C and -C-bar. The
                  classes are numbered as in class_names, and folders of other classes are left out: Tiny-ImageNet-C has such.
                  Without those: by number if the folders are called by numbers, in alphabetical order if by wnids as n01440764
        tfds      prepared cifar10_corrupted, mnist_corrupted or imagenet2012_corrupted, in <dir> or at <dir>

    Args:
        dir: the set's folder.
        names: the corruptions that there must be; others that lie there are left alone.
        severities: how many there are: 5, or 1 for benchmarks of one strength.
        num_classes: of the network that is to be measured.
        class_names: of the network's classes, in their order.
        size: side of the images that the network takes; 0 for any.
        written_for: what a set that launch/corrupt.py wrote must not say otherwise, e.g. {'benchmark': 'cifar_c', 'split': 'test'}:
            corruptions of several benchmarks have the same names.

    Raises:
        InputError: for missing corruptions or severities, images and labels that do not belong together, other classes, another
            size, or a set that was written for something else. Never anything half.
    """
    root = Path(dir).expanduser().absolute()
    if not root.is_dir():
        raise InputError(f"no corrupted set: there is no folder {root}; unpack the published files, or write them with launch/corrupt.py.")
    if not names:
        raise InputError(f"no corruptions are asked for in {root}; name at least one.")
    request = _Request(root, tuple(names), severities, num_classes, tuple(class_names), size, _manifest(root, written_for))
    for layout, (is_there, open_layout) in _LAYOUTS.items():
        if is_there(request):
            title, source, digest_of = open_layout(request)
            return CorruptedSet(f"files: {title}", layout, _guarded(request, source), _guarded(request, digest_of))
    there = _listed(sorted(path.name for path in root.iterdir())) or "nothing"
    raise InputError(f"{root} holds no corrupted set of a known layout, such as {names[0]}.npy with labels.npy; it holds {there}.")


class _Request(NamedTuple):
    """What was asked for, where, and what is written about it there."""

    root: Path
    names: tuple[str, ...]
    severities: int
    num_classes: int
    class_names: tuple[str, ...]
    size: int
    manifest: dict


_Opened = tuple[str, Callable[[str, int], Source], Callable[[str, int], str]]  # what tables call it, its splits, their digests


def _manifest(root: Path, written_for: Mapping[str, str]) -> dict:
    """Returns what launch/corrupt.py wrote about the set, empty for sets of others; refuses one that was written for something else."""
    try:
        found = json.loads((root / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    found = found if isinstance(found, dict) else {}
    # 'cifar10:3.0.2' is cifar10.
    wrong = [k for k, wanted in written_for.items() if str(found.get(k, wanted)).partition(":")[0] != wanted.partition(":")[0]]
    if wrong:
        said = ", ".join(f"{key} {found[key]!r} in place of {written_for[key]!r}" for key in wrong)
        raise InputError(f"{root} was written for something else: {said} (see {MANIFEST} in it); write a set with launch/corrupt.py.")
    return found


def _title(request: _Request, kind: str) -> str:
    about, said = request.manifest, [kind]
    if "robustjax" in about:
        said += [f"written by robustjax {about['robustjax']}", f"benchmark {about.get('benchmark')}", f"seed {about.get('seed')}"]
        said += [str(about.get("frost"))] if "frost" in request.names else []
    return f"{request.root.name} ({', '.join(said)})"


def _guarded(request: _Request, opens: Callable[[str, int], Any]) -> Callable[[str, int | None], Any]:
    def opened(name: str, severity: int | None) -> Any:
        if name not in request.names:
            raise InputError(f"{name!r} is not among the corruptions that {request.root} was opened for: {', '.join(request.names)}.")
        severity = 1 if severity is None and request.severities == 1 else severity
        if severity not in range(1, request.severities + 1):
            raise InputError(f"severity of {name!r} in {request.root} must be from 1 to {request.severities}, got {severity!r}.")
        return opens(name, severity)

    return opened


def _listed(items: Iterable[str], most: int = 6) -> str:
    items = list(items)
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _require(root: Path, paths: Iterable[Path], what: str) -> None:
    """Refuses a set of which files or folders are missing, naming them."""
    paths = list(paths)
    missing = [str(path.relative_to(root)) for path in paths if not path.exists()]
    if missing:
        raise InputError(
            f"{root} is incomplete: {len(missing)} of {len(paths)} {what} are missing: {_listed(missing)}; nothing is evaluated."
        )


def _check_classes(request: _Request, present: int, whose: str) -> None:
    present = request.manifest.get("num_classes", present)
    if present != request.num_classes:
        raise InputError(f"{whose} has {present} classes, the network has {request.num_classes}; take the set that belongs to its data.")


def _check_labels(request: _Request, labels: Labels) -> None:
    _check_classes(request, len(np.unique(labels)), str(request.root))
    if labels.min() < 0 or labels.max() >= request.num_classes:
        raise InputError(
            f"{request.root} has labels from {labels.min()} to {labels.max()}; those of {request.num_classes} classes must lie from 0 to "
            f"{request.num_classes - 1}."
        )


def _check_size(request: _Request, height: int, width: int, whose: str) -> None:
    if request.size and (height, width) != (request.size, request.size):
        raise InputError(f"{whose} holds images of {height}x{width}, the network takes {request.size}x{request.size}.")


# Arrays: opened as memory maps, so only what is asked for is read.


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as an array ({error}); copy or download it again.") from error


def _image_array(request: _Request, path: Path, count: int) -> UInt8[np.ndarray, "n h w c"]:
    """Returns the images of a file after checking what kind of array they are, how many, and of what size."""
    images = _array(path)
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise InputError(f"{path} must hold uint8 images (n, h, w, 1 or 3), it holds {images.dtype} {images.shape}.")
    if len(images) != count:
        raise InputError(f"{path} holds {len(images)} images, its labels say {count}; copy or download both again.")
    _check_size(request, *images.shape[1:3], str(path))
    return images


def _label_array(path: Path) -> Labels:
    labels = _array(path)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or not len(labels):
        raise InputError(f"{path} must hold integers (n,), it holds {labels.dtype} {labels.shape}.")
    return np.asarray(labels, np.int32)


def _open_npy(request: _Request) -> _Opened:
    root, severities = request.root, request.severities
    _require(root, [root / "labels.npy", *(root / f"{name}.npy" for name in request.names)], "files")
    labels = _label_array(root / "labels.npy")
    count, rest = divmod(len(labels), severities)
    must = f"{root / 'labels.npy'} must hold the same labels {severities} times, once a severity"
    if rest:
        raise InputError(f"{must}; it holds {len(labels)} labels, which is no multiple of {severities}.")
    differ = np.flatnonzero((labels.reshape(severities, count) != labels[:count]).any(axis=1))
    if len(differ):
        raise InputError(f"{must}; those of severity {differ[0] + 1} differ from those of severity 1.")
    _check_labels(request, labels)
    shapes = {name: _image_array(request, root / f"{name}.npy", len(labels)).shape for name in request.names}
    _check_one_shape(root, shapes)

    def source(name: str, severity: int) -> Source:
        part = slice((severity - 1) * count, severity * count)
        images = _image_array(request, root / f"{name}.npy", len(labels))
        return ArraySource(images[part], labels[part], name=f"{name}, severity {severity}, in {root}")

    return _title(request, ".npy"), source, lambda name, severity: digest.contents(source(name, severity))


def _open_mnist_c(request: _Request) -> _Opened:
    root = request.root
    if request.severities != 1:
        raise InputError(f"{root} has the layout of MNIST-C, whose corruptions have one severity; {request.severities} are asked for.")
    files = ("test_images.npy", "test_labels.npy")
    _require(root, [root / name / file for name in request.names for file in files], "files")
    labels = {name: _label_array(root / name / files[1]) for name in request.names}
    first = labels[request.names[0]]
    wrong = [name for name in request.names if not np.array_equal(labels[name], first)]
    if wrong:
        raise InputError(f"{root} has other labels for {_listed(wrong)} than for {request.names[0]}; copy or download it again.")
    _check_labels(request, first)
    _check_one_shape(root, {name: _image_array(request, root / name / files[0], len(first)).shape for name in request.names})

    def source(name: str, severity: int) -> Source:
        return ArraySource(_image_array(request, root / name / files[0], len(first)), first, name=f"{name} in {root}")

    return _title(request, ".npy"), source, lambda name, severity: digest.contents(source(name, severity))


def _check_one_shape(root: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    first = next(iter(shapes))
    wrong = [f"{name} {shape}" for name, shape in shapes.items() if shape != shapes[first]]
    if wrong:
        raise InputError(f"{root} holds images of several shapes: {first} {shapes[first]}, but {_listed(wrong)}.")


def _has_npy(request: _Request) -> bool:
    return any((request.root / f"{name}.npy").is_file() for name in ("labels", *request.names))


def _has_mnist_c(request: _Request) -> bool:
    return any((request.root / name / "test_images.npy").is_file() for name in request.names)


# Folders of images.

_IMAGES = (".jpeg", ".jpg", ".png", ".bmp")
_NUMBER = re.compile(r"\d+(\.\d+)?")
_WNID = re.compile(r"n\d+")


def _open_folders(request: _Request) -> _Opened:
    root = request.root
    _require(root, [root / name for name in request.names], "corruptions")
    folders = {(name, i): f for name in request.names for i, f in enumerate(_severity_folders(request, name), 1)}
    first = next(iter(folders.values()))
    files = _images_in(first)
    if not files:
        raise InputError(f"{first} holds no class folders with images ({', '.join(_IMAGES)}).")
    # TFDS calls classes without names '0', '1', ...
    named = "classes" not in request.manifest and not all(name.isdigit() for name in request.class_names)
    classes = _classes(request, sorted({file.partition("/")[0] for file in files}), named)
    numbers = {name: number for number, name in enumerate(classes)}
    files, left_out = [file for file in files if file.partition("/")[0] in numbers], 0
    for folder in tracked(list(folders.values()), f"Looking through {root}"):
        there = _images_in(folder)
        ours = [file for file in there if file.partition("/")[0] in numbers] if named else there
        left_out += len(there) - len(ours)
        if differing := sorted(set(ours) ^ set(files)):
            raise InputError(
                f"{folder} and {first} hold other images, {len(differing)} are in one only: {_listed(differing, 3)}; nothing is evaluated."
            )
    shape = _shape(first / files[0])
    _check_size(request, *shape[:2], str(first))
    labels = np.array([numbers[file.partition("/")[0]] for file in files], np.int32)

    def source(name: str, severity: int) -> Source:
        folder = folders[name, severity]
        return FileSource([folder / file for file in files], labels, name=str(folder), shape=shape, resident_bytes=RESIDENT_BYTES)

    kind = "JPEG" if files[0].lower().endswith((".jpeg", ".jpg")) else "PNG" if files[0].lower().endswith(".png") else "BMP"
    kind += f", {left_out:,} images of other classes left out" if left_out else ""
    return _title(request, kind), source, lambda name, severity: digest.stamps(folders[name, severity])


def _severity_folders(request: _Request, name: str) -> list[Path]:
    """Returns the folders of a corruption's severities, the weakest first; C-bar calls them 1.60, 2.80, ..."""
    found = [path for path in (request.root / name).iterdir() if path.is_dir() and _NUMBER.fullmatch(path.name)]
    found = sorted(found, key=lambda path: float(path.name))
    if len(found) != request.severities:
        there = f"{len(found)} ({_listed(path.name for path in found)})" if found else "none"
        raise InputError(
            f"{request.root / name} must hold {request.severities} folders of severities, it holds {there}; nothing is evaluated."
        )
    return found


def _images_in(folder: Path) -> list[str]:
    """Returns '<class>/<file>' of every image, in order."""
    classes = [entry for entry in os.scandir(folder) if entry.is_dir()]
    return sorted(f"{of.name}/{file.name}" for of in classes for file in os.scandir(of.path) if file.name.lower().endswith(_IMAGES))


def _classes(request: _Request, there: list[str], named: bool) -> list[str]:
    """Returns the names of the class folders in the order of their labels."""
    if "classes" in request.manifest:
        classes = list(request.manifest["classes"])
    elif set(there) & set(request.class_names):
        classes = list(request.class_names)
    elif not named and all(name.isdigit() for name in there):
        classes = there = sorted(there, key=int)
    elif not named and all(map(_WNID.fullmatch, there)):
        classes = there
    else:
        wanted = f"as the network's classes, {_listed(request.class_names)}" if named else "by the numbers of the classes, from 0"
        raise InputError(f"{request.root} has class folders of which the numbers are not known: {_listed(there)}; name them {wanted}.")
    strange = sorted(set(there) - set(classes))
    if strange and not named:
        raise InputError(f"{request.root} has class folders that are no class of the network: {_listed(strange)}.")
    whose = str(request.root) + (f", without {_listed(strange)} that the network does not know," if strange else "")
    _check_classes(request, len(set(there) & set(classes)), whose)
    return classes


def _shape(file: Path) -> tuple[int, int, int]:
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.height, image.width, 1 if image.mode == "L" else 3
    except OSError as error:
        raise InputError(f"{file} cannot be decoded: {one_line(error)}.") from error


# Prepared by TFDS, which calls two corruptions of CIFAR-10 by names of its own.

_TFDS = {"cifar10_corrupted": ("test", 5), "mnist_corrupted": ("test", 1), "imagenet2012_corrupted": ("validation", 5)}
_TFDS_NAMES = {"cifar10_corrupted": {"elastic_transform": "elastic", "glass_blur": "frosted_glass_blur"}}


def _open_tfds(request: _Request) -> _Opened:
    sets = _tfds_sets(request)
    if len(sets) > 1:
        raise InputError(f"{request.root} holds several corrupted sets; name one: {', '.join(str(path) for path in sets)}.")
    base, title = sets[0].parent, sets[0].name
    split, severities = _TFDS[title]
    if request.severities != severities:
        raise InputError(f"the corruptions of TFDS's {title} have {severities} severities; {request.severities} are asked for.")

    def config(name: str, severity: int) -> str:
        name = _TFDS_NAMES.get(title, {}).get(name, name)
        return f"{title}/{name}" + (f"_{severity}" if severities > 1 else "")

    def opened(name: str, severity: int) -> Dataset:
        return tfds.prepared(config(name, severity), dir=str(base), train=split, test=split)

    every = [(name, severity) for name in request.names for severity in range(1, severities + 1)]
    _require(base, [base / config(*one) for one in every], "prepared corruptions")
    counts = {one: _check_prepared(request, opened(*one)) for one in tracked(every, f"Opening {sets[0]}")}
    wrong = [f"{config(*one)} {count}" for one, count in counts.items() if count != counts[every[0]]]
    if wrong:
        raise InputError(
            f"{sets[0]} is incomplete: {config(*every[0])} has {counts[every[0]]} (images, height, width, channels), but {_listed(wrong)}."
        )
    return f"TFDS {title}", lambda *one: opened(*one).test, lambda *one: digest.stamps(base / config(*one))


def _check_prepared(request: _Request, dataset: Dataset) -> tuple[int, ...]:
    """Refuses classes other than the network's; returns the number and shape of the images."""
    _check_classes(request, dataset.num_classes, dataset.name)
    if set(dataset.class_names) == set(request.class_names) and dataset.class_names != request.class_names:
        raise InputError(f"{dataset.name} numbers the classes in another order than the network.")
    _check_size(request, *dataset.image_shape[:2], dataset.name)
    return (len(dataset.test), *dataset.image_shape)


def _tfds_sets(request: _Request) -> list[Path]:
    return [request.root] if request.root.name in _TFDS else [request.root / name for name in _TFDS if (request.root / name).is_dir()]


# layout -> (whether a folder has it, opens it)
_LAYOUTS: dict[str, tuple[Callable[[_Request], bool], Callable[[_Request], _Opened]]] = {
    "tfds": (lambda request: bool(_tfds_sets(request)), _open_tfds),
    "npy": (_has_npy, _open_npy),
    "mnist_c": (_has_mnist_c, _open_mnist_c),
    "folders": (lambda request: any((request.root / name).is_dir() for name in request.names), _open_folders),
}
