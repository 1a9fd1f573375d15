"""Corrupted test sets that others have published: arrays, folders of images, or prepared by TFDS. Nothing is downloaded.

Which corruptions there must be is the caller's to say, for instance corruptions.NAMES['cifar_c']: this package knows files only.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from robustjax.core.check import InputError
from robustjax.data.source import ArraySource, Labels, Source

MANIFEST = "robustjax.json"  # launch/corrupt.py leaves it beside the files that it writes


class CorruptedSet(NamedTuple):
    """A complete set on disk. `source(name, severity)` opens one split; severity None stands for the only one."""

    provenance: str  # for results and tables, e.g. 'files: CIFAR-10-C (.npy)'
    layout: str  # 'npy', 'mnist_c', 'folders' or 'tfds'
    source: Callable[[str, int | None], Source]


def corrupted(
    dir: str, *, names: Sequence[str], severities: int, num_classes: int, class_names: Sequence[str] = (), size: int = 0
) -> CorruptedSet:
    """Opens a corrupted set after checking that nothing is missing. Its layout is found out:

        npy       <dir>/<name>.npy, uint8 (severities * n, h, w, c), severity by severity, and labels.npy (severities * n,):
                  CIFAR-10-C, CIFAR-100-C, CIFAR-10-C-bar
        mnist_c   <dir>/<name>/test_images.npy, uint8 (n, h, w, 1), and test_labels.npy (n,)

    Args:
        dir: the set's folder.
        names: the corruptions that there must be; others that lie there are left alone.
        severities: how many there are: 5, or 1 for benchmarks of one strength.
        num_classes: of the network that is to be measured.
        class_names: of the network's classes, in their order.
        size: side of the images that the network takes; 0 for any.

    Raises:
        InputError: for missing corruptions or severities, images and labels that do not belong together, another number of
            classes or another size. Never anything half.
    """
    root = Path(dir).expanduser().absolute()
    if not root.is_dir():
        raise InputError(f"no corrupted set: there is no folder {root}; unpack the published files, or write them with launch/corrupt.py.")
    request = _Request(root, tuple(names), severities, num_classes, tuple(class_names), size, _manifest(root))
    for layout, (is_there, open_layout, kind) in _LAYOUTS.items():
        if is_there(request):
            source = open_layout(request)
            return CorruptedSet(f"files: {_title(request, kind)}", layout, _guarded(request, source))
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


def _manifest(root: Path) -> dict:
    """Returns what launch/corrupt.py wrote about the set; empty for sets of others."""
    try:
        found = json.loads((root / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _title(request: _Request, kind: str) -> str:
    written = f", written by robustjax {request.manifest['robustjax']}" if "robustjax" in request.manifest else ""
    return f"{request.root.name} ({kind}{written})"


def _guarded(request: _Request, source: Callable[[str, int], Source]) -> Callable[[str, int | None], Source]:
    def opened(name: str, severity: int | None) -> Source:
        if name not in request.names:
            raise InputError(f"{name!r} is not among the corruptions that {request.root} was opened for: {', '.join(request.names)}.")
        severity = 1 if severity is None and request.severities == 1 else severity
        if severity not in range(1, request.severities + 1):
            raise InputError(f"severity of {name!r} in {request.root} must be from 1 to {request.severities}, got {severity!r}.")
        return source(name, severity)

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


# Arrays: opened as memory maps, so only what is asked for is read.


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as an array ({error}); copy or download it again.") from error


def _image_array(path: Path, count: int, size: int) -> UInt8[np.ndarray, "n h w c"]:
    """Returns the images of a file after checking what kind of array they are, how many, and of what size."""
    images = _array(path)
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise InputError(f"{path} must hold uint8 images (n, h, w, 1 or 3), it holds {images.dtype} {images.shape}.")
    if len(images) != count:
        raise InputError(f"{path} holds {len(images)} images, its labels say {count}; copy or download both again.")
    if size and images.shape[1:3] != (size, size):
        raise InputError(f"{path} holds images of {images.shape[1]}x{images.shape[2]}, the network takes {size}x{size}.")
    return images


def _label_array(path: Path) -> Labels:
    labels = _array(path)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or not len(labels):
        raise InputError(f"{path} must hold integers (n,), it holds {labels.dtype} {labels.shape}.")
    return np.asarray(labels, np.int32)


def _open_npy(request: _Request) -> Callable[[str, int], Source]:
    root, severities = request.root, request.severities
    _require(root, [root / "labels.npy", *(root / f"{name}.npy" for name in request.names)], "files")
    labels = _label_array(root / "labels.npy")
    count, rest = divmod(len(labels), severities)
    if rest or (labels.reshape(severities, count) != labels[:count]).any():
        raise InputError(
            f"{root / 'labels.npy'} must hold the same labels {severities} times, once a severity; it holds {len(labels)} others."
        )
    _check_classes(request, len(np.unique(labels)), str(root))
    shapes = {name: _image_array(root / f"{name}.npy", len(labels), request.size).shape for name in request.names}
    _check_one_shape(root, shapes)

    def source(name: str, severity: int) -> Source:
        part = slice((severity - 1) * count, severity * count)
        images = _image_array(root / f"{name}.npy", len(labels), request.size)
        return ArraySource(images[part], labels[part], name=f"{name}, severity {severity}, in {root}")

    return source


def _open_mnist_c(request: _Request) -> Callable[[str, int], Source]:
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
    _check_classes(request, len(np.unique(first)), str(root))
    _check_one_shape(root, {name: _image_array(root / name / files[0], len(first), request.size).shape for name in request.names})

    def source(name: str, severity: int) -> Source:
        return ArraySource(_image_array(root / name / files[0], len(first), request.size), first, name=f"{name} in {root}")

    return source


def _check_one_shape(root: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    first = next(iter(shapes))
    wrong = [f"{name} {shape}" for name, shape in shapes.items() if shape != shapes[first]]
    if wrong:
        raise InputError(f"{root} holds images of several shapes: {first} {shapes[first]}, but {_listed(wrong)}.")


def _has_npy(request: _Request) -> bool:
    return any((request.root / f"{name}.npy").is_file() for name in ("labels", *request.names))


def _has_mnist_c(request: _Request) -> bool:
    return any((request.root / name / "test_images.npy").is_file() for name in request.names)


# layout -> (whether a folder has it, opens it, what tables call it)
_LAYOUTS: dict[str, tuple[Callable[[_Request], bool], Callable[[_Request], Callable[[str, int], Source]], str]] = {
    "npy": (_has_npy, _open_npy, ".npy"),
    "mnist_c": (_has_mnist_c, _open_mnist_c, ".npy"),
}
