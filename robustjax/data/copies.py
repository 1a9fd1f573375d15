"""Training images with their distorted copies, as launch/deepaugment.py writes them: a file of copies for each network.

    <folder>/deepaugment.json    what the copies were made from, and how
    <folder>/labels.npy          (n,), of the originals
    <folder>/<network>.npy       uint8 (n, h, w, c): copy i is of training example i

Copies have ids of their own behind those of the originals, whose split into training and validation is not changed by them: what is
trained on are `ids` of the training part. So no copy of a validation image is trained on, and validation sees originals only.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from robustjax.core.check import InputError
from robustjax.data import crops
from robustjax.data.encoded import RESIDENT_BYTES
from robustjax.data.source import Dataset, Images, Labels, Source, check_indices

MANIFEST = "deepaugment.json"
LABELS = "labels.npy"


class ExtendedSource(Source):
    """A training split followed by its copies: example k * n + i is copy k of example i; k = 0 are the originals.

    Args:
        base: the originals, n of them.
        copies: arrays uint8 (n, h, w, c), which may be memory maps.
        labels: (n,) of the originals.
    """

    def __init__(self, base: Source, copies: Sequence[np.ndarray], labels: Labels):
        self._base, self._copies, self._labels, self.shape = base, tuple(copies), labels, copies[0].shape[1:]

    def __len__(self) -> int:
        return len(self._base) * (1 + len(self._copies))

    @property
    def resident(self) -> bool:
        originals = self._copies[0].nbytes
        return self._base.resident and originals + sum(copy.nbytes for copy in self._copies) <= RESIDENT_BYTES

    @functools.cached_property
    def labels(self) -> Labels:
        return np.tile(self._labels, 1 + len(self._copies))

    @functools.cached_property
    def images(self) -> Images:
        return np.concatenate([self._base.images, *self._copies])

    @property
    def cropped(self) -> bool:
        return self._base.cropped

    def fetch(self, indices: np.ndarray) -> tuple[Images, Labels]:
        return self._fetch(indices, lambda origin: self._base.fetch(origin)[0], lambda copies, ids: copies)

    def fetch_train(self, indices: np.ndarray, *, seed: int, step: int) -> tuple[Images, Labels]:
        if not self.cropped:
            return self.fetch(indices)

        def cut(copies: Images, ids: np.ndarray) -> list[np.ndarray]:
            return [crops.cut_array(copy, crops.Draw(seed, step, i)) for copy, i in zip(copies, ids.tolist(), strict=True)]

        return self._fetch(indices, lambda origin: self._base.fetch_train(origin, seed=seed, step=step)[0], cut)

    def _fetch(self, indices: np.ndarray, originals: Callable, of_copies: Callable) -> tuple[Images, Labels]:
        indices = check_indices(indices, len(self), name="the training split with copies")
        which, origin = np.divmod(indices, len(self._base))
        images = np.empty((len(indices), *self._copies[0].shape[1:]), np.uint8)
        for k in np.unique(which):
            rows = which == k
            images[rows] = of_copies(self._copies[k - 1][origin[rows]], indices[rows]) if k else originals(origin[rows])
        return images, self._labels[origin]

    def ids(self, originals: np.ndarray) -> Int32[np.ndarray, " m"]:
        """Returns these ids of originals, followed by those of all their copies."""
        starts = np.arange(1 + len(self._copies)) * len(self._base)
        return (starts[:, None] + np.asarray(originals)[None]).reshape(-1).astype(np.int32)


def fingerprint(source: Source) -> str:
    """Returns a digest of the length of a source and its first 16 examples, which tells data sets apart without reading them."""
    images, labels = source.fetch(np.arange(min(16, len(source))))
    return hashlib.sha256(f"{len(source)} {images.shape}".encode() + labels.tobytes() + images.tobytes()).hexdigest()[:16]


def extended(dataset: Dataset, folder: str | Path) -> tuple[ExtendedSource, str]:
    """Opens the copies of a data set's training split.

    Args:
        dataset: whose training split the copies must be of.
        folder: as launch/deepaugment.py wrote it.

    Returns:
        The source, and a line that says what the copies are, for notes beside results.

    Raises:
        InputError: if there is no whole set of copies, or it is of other images.
    """
    folder = Path(folder).expanduser()
    about = manifest(folder, ("networks", "seed"), what="copies")
    names, seed = about["networks"], about["seed"]
    if about.get("digest") != fingerprint(dataset.train):
        raise InputError(
            f"the copies in {folder} are of {about.get('provenance')}, {about.get('n')} images, and not of the training split of "
            f"{dataset.provenance}, {len(dataset.train)} images; write others with launch/deepaugment.py."
        )
    count = len(dataset.train)
    labels = array(folder / LABELS, (count,), np.int32)
    copies = [array(folder / f"{name}.npy", (count, *dataset.image_shape), np.uint8) for name in names]
    made = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for copy in copies:
        made.update(np.ascontiguousarray(copy[:16]).tobytes())
    note = f"trained on originals and copies by DeepAugment ({', '.join(names)}; seed {seed}; digest {made.hexdigest()[:8]})"
    return ExtendedSource(dataset.train, copies, np.asarray(labels)), note


def manifest(folder: Path, keys: Sequence[str], *, what: str) -> dict:
    """Returns what launch/deepaugment.py says of a folder.

    Args:
        folder: of copies.
        keys: that must be there.
        what: is looked for, in messages.

    Raises:
        InputError: if the manifest is missing or damaged.
    """
    try:
        about = json.loads((folder / MANIFEST).read_text())
        if not set(keys) <= set(about):
            raise ValueError(f"it lacks one of {', '.join(keys)}")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"no {what} in {folder}: {MANIFEST} is missing or damaged; write them with launch/deepaugment.py.") from error
    return about


def array(path: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Opens an array that launch/deepaugment.py wrote.

    Raises:
        InputError: if it is not there, or another one.
    """
    again = "run launch/deepaugment.py again, it goes on where it stopped"
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is missing or cannot be read; {again}.") from error
    if found.shape != shape or found.dtype != dtype:
        raise InputError(f"{path} must hold {np.dtype(dtype)} {shape}, it holds {found.dtype} {found.shape}; {again}.")
    return found
