"""What a data set is: two sources of uint8 images with labels, and what is said about them."""

import abc
import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from robustjax.core.check import InputError

Images = UInt8[np.ndarray, "n h w c"]
Labels = Int32[np.ndarray, " n"]


class Source(abc.ABC):
    """The examples of one split. An example's id is its position here, whatever is drawn from it later is keyed by that id.

    An abstract class and not a Protocol: isinstance of a Protocol reads every property, which would load the data.
    """

    @abc.abstractmethod
    def __len__(self) -> int:
        """Returns the number of examples."""

    @property
    @abc.abstractmethod
    def resident(self) -> bool:
        """Whether `images` may be asked for: the whole split fits in memory."""

    @property
    @abc.abstractmethod
    def labels(self) -> Labels:
        """All labels, at least 0. May read the split once, with a progress bar."""

    @property
    @abc.abstractmethod
    def images(self) -> Images:
        """All images, of resident sources only. May read the split once, with a progress bar."""

    @abc.abstractmethod
    def fetch(self, indices: np.ndarray) -> tuple[Images, Labels]:
        """Returns the images and labels of `indices` (m,), in their order; repetitions are allowed. Safe to call from threads."""

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """(h, w, c) of the images; of a source that does not set it, that of the first one."""
        return self.fetch(np.arange(1))[0].shape[1:]

    @property
    def cropped(self) -> bool:
        """Whether `fetch_train` cuts a random part out of each image, and `fetch` the centre. Such sources are not resident."""
        return False

    def fetch_train(self, indices: np.ndarray, *, seed: int, step: int) -> tuple[Images, Labels]:
        """Returns the examples of a training step, as `fetch`; random parts follow from (seed, step, id) alone."""
        return self.fetch(indices)


class Dataset(NamedTuple):
    """A training and a test split with what their users must know."""

    name: str
    provenance: str  # for results and tables, e.g. 'CIFAR-10, JPEG re-encoded'
    train: Source
    test: Source
    num_classes: int
    image_shape: tuple[int, int, int]  # (h, w, c)
    class_names: tuple[str, ...]


class ArraySource(Source):
    """A split in memory.

    Args:
        images: uint8 (n, h, w, c).
        labels: integers (n,) from 0.
        name: what the split is called in messages.

    Raises:
        InputError: for an empty split, other shapes or dtypes, or negative labels.

    >>> ArraySource(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1])).fetch(np.array([1]))[1]
    array([1], dtype=int32)
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, *, name: str = "the split"):
        images, labels = np.asarray(images), np.asarray(labels)
        if images.ndim != 4 or images.dtype != np.uint8:
            raise InputError(f"images of {name} must be uint8 (n, h, w, c), got {images.dtype} {images.shape}.")
        if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
            raise InputError(f"labels of {name} must be {len(images)} integers, one for each image, got {labels.dtype} {labels.shape}.")
        if not len(images):
            raise InputError(f"{name} is empty; at least one example is needed.")
        check_range(labels, ids=np.arange(len(labels)), name=name)
        self._images, self._labels, self._name, self.shape = images, labels.astype(np.int32), name, images.shape[1:]

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def resident(self) -> bool:
        return True

    @property
    def labels(self) -> Labels:
        return self._labels

    @property
    def images(self) -> Images:
        return self._images

    def fetch(self, indices: np.ndarray) -> tuple[Images, Labels]:
        indices = check_indices(indices, len(self), name=self._name)
        return self._images[indices], self._labels[indices]


def check_range(labels: np.ndarray, *, ids: np.ndarray, name: str, num_classes: int | None = None) -> None:
    """Refuses labels below 0 or not below `num_classes`, naming the first one by its id."""
    upper = np.inf if num_classes is None else num_classes
    wrong = np.flatnonzero((labels < 0) | (labels >= upper))
    if not len(wrong):
        return
    index, label = ids[wrong[0]], labels[wrong[0]]
    if label == -1:
        raise InputError(f"example {index} of {name} has label -1, which marks an unlabelled split; name a labelled one.")
    limits = "at least 0" if num_classes is None else f"from 0 to {num_classes - 1}"
    raise InputError(f"example {index} of {name} has label {label}; labels must be {limits}.")


def check_indices(indices: np.ndarray, size: int, *, name: str) -> np.ndarray:
    """Returns `indices` as an array; refuses what is no vector of integers from 0 to size - 1 (negative ones would wrap round)."""
    indices = np.asarray(indices)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise InputError(f"ids of {name} must be a vector of integers, got {indices.dtype} {indices.shape}.")
    wrong = indices[(indices < 0) | (indices >= size)]
    if len(wrong):
        raise InputError(f"{name} has examples 0 to {size - 1}, but id {wrong[0]} was asked for.")
    return indices
