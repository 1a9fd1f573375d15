"""Images that are stored as JPEG, PNG or BMP, one by one: decoded when they are asked for, or loaded once where they fit in memory.

They are decoded with Pillow and nothing else: with a choice of decoders the pixels would depend on the machine.
"""

import abc
import functools
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from robustjax.core.check import InputError
from robustjax.data import crops
from robustjax.data.source import ArraySource, Images, Labels, Source, check_indices

Fit = Callable[..., Any]  # (opened image, function that decodes it, draw or None) -> image
RESIDENT_BYTES = 2 * 10**9
CHUNK = 512  # records read together: array_record answers 512 at once ten times faster than one by one
PROBE = 16  # images of each split that are decoded when it is opened


class EncodedSource(Source):
    """A split of encoded images. `fetch` reads and decodes; `images` and `labels` of a resident one load it into memory once.

    A subclass has `len` and the three methods that read records; it must be able to before it calls this constructor.

    Args:
        name: what the split is called in messages.
        shape: (h, w, c) of the images; h and w may be None, then the first image decides.
        fit: brings images to the shape, see `decode`; None if they have it.
        cropped: random parts are for training, see Source.cropped; `fit` must then take draws.
        resident_bytes: a split of at most so many bytes as uint8 is `resident`, unless it is `cropped`.

    Raises:
        InputError: if the first images have no label, another size, or cannot be decoded.
    """

    _mend = "bring them to one size with the data set's option size, e.g. 224"

    def __init__(self, *, name: str, shape: tuple, resident_bytes: int, fit: Fit | None = None, cropped: bool = False):
        self._name, self._fit, self._cropped = name, fit, cropped
        if None in shape:
            shape = (*self._decode(0, self._read(np.arange(1))[0], None).shape[:2], shape[2])
        self.shape: tuple[int, int, int] = tuple(shape)
        self._resident = not cropped and len(self) * int(np.prod(shape)) <= resident_bytes
        self._loaded: ArraySource | None = None
        self.fetch(np.arange(min(PROBE, len(self))))

    @abc.abstractmethod
    def _read(self, indices: np.ndarray) -> Sequence[Any]:
        """Returns what is stored of each of `indices`; raises InputError naming the one that cannot be read."""

    @abc.abstractmethod
    def _encoded(self, record: Any) -> bytes:
        """Returns the image of a record; any exception is reported with the image's index."""

    @abc.abstractmethod
    def _labels_of(self, indices: np.ndarray, records: Sequence[Any]) -> Labels:
        """Returns the checked labels of the records of `indices`."""

    def _called(self, index: int) -> str:
        return f"image {index} of {self._name}"

    @property
    def resident(self) -> bool:
        return self._resident

    @property
    def cropped(self) -> bool:
        return self._cropped

    @property
    def images(self) -> Images:
        if self._cropped:
            raise InputError(f"{self._name} is cropped anew at every training step, so it has no images to keep; stream it.")
        if not self._resident:
            raise InputError(
                f"{self._name} has {len(self)} images of {self.shape}, too large for memory by resident_bytes; stream it, or raise resident_bytes."
            )
        return self._load().images

    @functools.cached_property
    def labels(self) -> Labels:
        if self._resident:
            return self._load().labels
        return self._collect("labels", lambda ids: self._labels_of(ids, self._read(ids)))

    def fetch(self, indices: np.ndarray) -> tuple[Images, Labels]:
        if self._loaded is not None:
            return self._loaded.fetch(indices)
        return self._fetch(indices, lambda index: None)

    def fetch_train(self, indices: np.ndarray, *, seed: int, step: int) -> tuple[Images, Labels]:
        return self._fetch(indices, lambda index: crops.Draw(seed, step, index)) if self._cropped else self.fetch(indices)

    def _fetch(self, indices: np.ndarray, draw: Callable[[int], crops.Draw | None]) -> tuple[Images, Labels]:
        indices = check_indices(indices, len(self), name=self._name)
        records = self._read(indices)
        images = np.empty((len(indices), *self.shape), np.uint8)
        for image, index, record in zip(images, indices.tolist(), records, strict=True):
            image[:] = self._decode(index, record, self.shape, draw(index))
        return images, self._labels_of(indices, records)

    def is_jpeg(self) -> bool:
        """Whether the first image is stored as JPEG."""
        return self._encoded(self._read(np.arange(1))[0])[:2] == b"\xff\xd8"

    def _load(self) -> ArraySource:
        if self._loaded is None:
            images = np.empty((len(self), *self.shape), np.uint8)

            def read(ids: np.ndarray) -> np.ndarray:
                images[ids], labels = self.fetch(ids)
                return labels

            labels = self._collect("images", read)
            self._loaded = ArraySource(images, labels, name=self._name)
        return self._loaded

    def _collect(self, what: str, read: Callable[[np.ndarray], np.ndarray]) -> Labels:
        """Calls `read` on all ids, some at a time, and joins the results."""
        chunks = [np.arange(start, min(start + CHUNK, len(self))) for start in range(0, len(self), CHUNK)]
        return np.concatenate([read(chunk) for chunk in tracked(chunks, f"Reading {what} of {self._name}")])

    def _decode(
        self, index: int, record: Any, shape: tuple[int, int, int] | None, draw: crops.Draw | None = None
    ) -> UInt8[np.ndarray, "h w c"]:
        try:
            image = decode(self._encoded(record), channels=1 if shape and shape[2] == 1 else 3, fit=self._fit, draw=draw)
        except Exception as error:
            raise InputError(f"{self._called(index)} cannot be decoded: {one_line(error)}.") from error
        if shape and image.shape != shape:
            raise InputError(f"{self._called(index)} is {image.shape[0]}x{image.shape[1]}, others are {shape[0]}x{shape[1]}; {self._mend}.")
        return image


class FileSource(EncodedSource):
    """A split of image files, all of one size.

    Args:
        files: paths.
        labels: a class number for each.
        name, shape, resident_bytes, cropped: see EncodedSource.
    """

    _mend = "copy the files again"

    def __init__(self, files: Sequence[Path], labels: Labels, *, name: str, shape: tuple, resident_bytes: int, cropped: bool = False):
        self._files, self._labels = files, labels
        super().__init__(name=name, shape=shape, resident_bytes=resident_bytes, cropped=cropped)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def labels(self) -> Labels:
        return self._labels

    def _called(self, index: int) -> str:
        return str(self._files[index])

    def _read(self, indices: np.ndarray) -> Sequence[bytes]:
        try:
            return [self._files[index].read_bytes() for index in indices.tolist()]
        except OSError as error:
            raise InputError(f"{error.filename} of {self._name} cannot be read ({error.strerror}); copy the files again.") from error

    def _encoded(self, record: bytes) -> bytes:
        return record

    def _labels_of(self, indices: np.ndarray, records: Sequence[bytes]) -> Labels:
        return self._labels[indices]


def decode(encoded: bytes, *, channels: int, fit: Fit | None = None, draw: crops.Draw | None = None) -> UInt8[np.ndarray, "h w c"]:
    """Decodes a JPEG, PNG or BMP image to 1 or 3 channels; grey is repeated where 3 are asked for.

    Args:
        encoded: the file's contents.
        channels: 1 or 3.
        fit: `square` or `crops.cut` with their size given; called with the opened image, a function that decodes it, and the draw.
        draw: what a random crop follows from; None for the centre.

    Raises:
        ValueError: for an image that is damaged, has an alpha channel or more than 8 bits, or is coloured where 1 channel is asked for.
    """
    from PIL import Image

    with Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG", "BMP")) as image:
        # CMYK and grey files are among ImageNet's JPEGs. Alpha and 16 bits have no agreed meaning as 8-bit colours.
        usable = {1: ("L", "1"), 3: ("RGB", "L", "1", "P", "CMYK", "YCbCr")}[channels]
        if image.mode not in usable or "transparency" in image.info:
            raise ValueError(
                f"its colours are {image.mode!r} in Pillow's terms, {channels} channel(s) of 8 bits without transparency are needed"
            )

        def prepare(image: Any) -> Any:
            return image.convert("L" if channels == 1 else "RGB")

        array = np.asarray(prepare(image) if fit is None else fit(image, prepare, draw))
    return array[..., None] if array.ndim == 2 else array


def square(image: Any, prepare: Callable[[Any], Any], draw: None, *, size: int) -> Any:
    """Resizes the shorter side to `size` (Pillow's bicubic) and cuts out the centre."""
    from PIL import Image

    image = prepare(image)
    width, height = (max(size, round(side * size / min(image.size))) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))


def tracked(items: Sequence[Any], text: str) -> Iterable[Any]:
    """Yields the items under a progress bar on the terminal's error stream; without a terminal there is none."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, text, console=console, transient=True, disable=not console.is_terminal)


def one_line(error: Exception) -> str:
    """Returns the first line of what an exception says, for messages."""
    return (str(error) or type(error).__name__).splitlines()[0][:300].rstrip(".")
