"""A user's own images: one folder a class, in a training and a test folder or in one folder that is split here.

    DIR/train/CLASS/*.jpg and DIR/test/CLASS/*.jpg     'val' serves as the test folder where there is no 'test'
    DIR/CLASS/*.jpg                                    every class gives its share of files to the test split

Classes are numbered in the sorted order of their folders' names. Names that begin with a dot, and files of other kinds, are ignored.
"""

import functools
import hashlib
import io
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from robustjax.core.check import InputError
from robustjax.data import crops
from robustjax.data.encoded import CHUNK, RESIDENT_BYTES, FileSource, one_line, tracked
from robustjax.data.source import ArraySource, Dataset, Images, Labels, check_indices
from robustjax.data.stream import cores

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")  # by contents: files often bear the ending of another
TEST_SHARE = 0.2
_SPLITS = ("train", "training", "test", "testing", "val", "valid", "validation")
LARGEST = 16_384  # pixels on a side
SHOWN = 3  # how many names a message lists
_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright
_KEPT = {"stretch": "stretched", "shorter_crop": "shorter side and centre", "random_resized": "random parts and centres"}
_CHOICES = {"resize": ("stretch", "shorter_crop"), "colour": ("rgb", "grey"), "broken": ("refuse", "skip")}


def image_folder(
    *,
    dir: str = "",
    size: Any = None,
    resize: str = "stretch",
    crop: Any = "none",
    colour: str = "rgb",
    test_share: Any = None,
    test_seed: int = 0,
    broken: str = "refuse",
    resident_bytes: Any = RESIDENT_BYTES,
) -> Dataset:
    """Opens a folder of class folders.

    Images are turned upright (EXIF), laid on white where they are transparent, brought to 8 bits, and resized by Pillow's bilinear
    filter, which averages when it shrinks. Of animations the first picture counts.

    Args:
        dir: the folder.
        size: (height, width) in pixels to bring every image to; one number for a square.
        resize: 'stretch' changes the ratio of the sides; 'shorter_crop' keeps it, and cuts off what is left over on both ends of
            the longer side.
        crop: 'none', or 'random_resized': random parts of the images for training, centres for validation and testing, as in
            `tfds.prepared`. `size` is then one number, and `resize` has no say.
        colour: 'rgb' for three channels, 'grey' for one (0.299 R + 0.587 G + 0.114 B).
        test_share: part of each class's files that is for testing where DIR has no train/, in (0, 1); 0.2 if not given. Rounded, but
            a class of two or more files is in both splits. Which files is decided by their names: another file in a class moves one
            at most.
        test_seed: of that choice, at least 0.
        broken: 'refuse' files that cannot be decoded, when they are read; or 'skip' them: then all files are decoded once at the start.
        resident_bytes: splits of at most so many bytes as uint8 are `resident`; larger ones are decoded as they are asked for.

    Raises:
        InputError: for a folder that is missing or not laid out so, a class without images, splits with other classes, broken
            files, or an option out of range.
    """
    if isinstance(resident_bytes, bool) or not isinstance(resident_bytes, int) or resident_bytes < 0:
        raise InputError(f"option resident_bytes of image_folder must be a whole number of at least 0, got {resident_bytes!r}.")
    shape = _shape(size, resize=resize, colour=colour, broken=broken)
    crops.check(crop, size, name="image_folder")
    resize = resize if crop == "none" else crop
    root, splits = _find(dir, test_share, test_seed)
    classes = tuple(splits["train"])  # sorted by name
    sources, left_out = {}, 0
    for role, files in splits.items():
        labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(files.get(name, ())) for name in classes])
        paths = [root / file for name in classes for file in files.get(name, ())]
        sources[role] = FolderSource(
            paths,
            labels,
            name=f"the {role} split of {root}",
            shape=shape,
            resize=resize,
            broken=broken,
            resident_bytes=resident_bytes,
            cropped=role == "train" and crop != "none",
        )
        left_out += len(paths) - len(sources[role])
        lost = sorted({classes[label] for label in np.setdiff1d(labels, sources[role].labels)})
        if lost:
            raise InputError(f"{root} has no image for {role}ing that can be decoded of {_listed(lost)}; mend them, or remove the class.")
    how = f"{shape[0]}x{shape[1]} {colour}, {_KEPT[resize]}"
    without = f", {left_out} broken left out" if left_out else ""
    provenance = f"images in {root.name}, {how}, digest {_digest(root, splits)}{without}"
    return Dataset("image_folder", provenance, sources["train"], sources["test"], len(classes), shape, classes)


class FolderSource(FileSource):
    """A split of image files of any size and colours.

    Args:
        files: paths.
        labels: a class number for each.
        shape: (h, w, c) to bring the images to.
        resize: see `decode`.
        broken: see `image_folder`.
        name, resident_bytes, cropped: see EncodedSource.
    """

    def __init__(
        self,
        files: Sequence[Path],
        labels: Labels,
        *,
        name: str,
        shape: tuple,
        resize: str,
        broken: str,
        resident_bytes: int,
        cropped: bool = False,
    ):
        self._files, self._labels, self._name, self.shape, self._resize = files, labels, name, shape, resize
        kept = None
        if broken == "skip":
            fits = not cropped and len(files) * int(np.prod(shape)) <= resident_bytes
            kept, wrong = self._all(keep=fits)
            sound = np.setdiff1d(np.arange(len(files)), list(wrong))
            if wrong:
                warnings.warn(f"left out: {self._said(wrong)}.", stacklevel=3)
            if not len(sound):
                raise InputError(f"{name} has no image that can be decoded; first {files[0]}: {wrong[0]}.")
            self._files, self._labels = [files[index] for index in sound.tolist()], labels[sound]
            kept = kept[sound] if fits else None
        try:
            super().__init__(self._files, self._labels, name=name, shape=shape, resident_bytes=resident_bytes, cropped=cropped)
        except InputError:
            if self.resident:  # one of the first images is broken: say of how many this is true
                self._load()
            raise
        if kept is not None:
            self._loaded = ArraySource(kept, self._labels, name=name)

    def _fetch(self, indices: np.ndarray, draw: Callable[[int], crops.Draw | None]) -> tuple[Images, Labels]:
        indices = check_indices(indices, len(self), name=self._name)
        images, wrong = self._decoded(indices, draw)
        self._refuse(wrong)
        return images, self._labels[indices]

    def _load(self) -> ArraySource:
        if self._loaded is None:
            images, wrong = self._all(keep=True)
            self._refuse(wrong)
            self._loaded = ArraySource(images, self._labels, name=self._name)
        return self._loaded

    def _all(self, *, keep: bool) -> tuple[Images, dict[int, str]]:
        """Decodes every file. Returns the images, of which none are kept unless `keep`, and what is wrong with which files."""
        images, wrong = np.zeros((len(self) if keep else 0, *self.shape), np.uint8), {}
        chunks = [np.arange(start, min(start + CHUNK, len(self))) for start in range(0, len(self), CHUNK)]
        for chunk in tracked(chunks, f"Reading images of {self._name}"):
            decoded, found = self._decoded(chunk, lambda index: None)
            wrong |= found
            if keep:
                images[chunk] = decoded
        return images, wrong

    def _decoded(self, indices: np.ndarray, draw: Callable[[int], crops.Draw | None]) -> tuple[Images, dict[int, str]]:
        """Returns the images, zeros where a file is broken, and what is wrong with those files, by index."""
        images, wrong = np.zeros((len(indices), *self.shape), np.uint8), {}

        def one(place: int) -> None:
            index = int(indices[place])
            try:
                images[place] = decode(self._files[index].read_bytes(), shape=self.shape, resize=self._resize, draw=draw(index))
            except MemoryError:
                raise
            except Exception as error:  # Pillow raises many kinds for damaged files
                wrong[index] = one_line(error)

        list(_pool().map(one, range(len(indices))))
        return images, dict(sorted(wrong.items()))

    def _refuse(self, wrong: Mapping[int, str]) -> None:
        if wrong:
            raise InputError(f"{self._said(wrong)}; mend or remove them, or leave them out with the data set's option broken='skip'.")

    def _said(self, wrong: Mapping[int, str]) -> str:
        first = next(iter(wrong))
        return f"{_count(len(wrong), 'file')} of {self._name} cannot be decoded ({wrong[first]}): " + _listed(
            str(self._files[index]) for index in wrong
        )


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Returns the threads that decode, for all sources: Pillow lets go of Python's lock meanwhile, and streams call from many threads."""
    return ThreadPoolExecutor(cores(), thread_name_prefix="image_folder")


def decode(encoded: bytes, *, shape: tuple[int, int, int], resize: str, draw: crops.Draw | None = None) -> UInt8[np.ndarray, "h w c"]:
    """Decodes an image of any colours and size to `shape`, see `image_folder`.

    Args:
        encoded: the file's contents.
        shape: (h, w, 1 or 3).
        resize: 'stretch', 'shorter_crop', or 'random_resized' with h = w.
        draw: what the random part follows from; None for the centre.

    Raises:
        OSError, ValueError: for an image that is damaged, or whose pixels have no agreed meaning as 8-bit colours (floats).
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    def prepare(image: Any) -> Any:
        return _eight_bits(ImageOps.exif_transpose(image)).convert("L" if shape[2] == 1 else "RGB")

    try:
        opened = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError(f"it is none of {' '.join(FORMATS)}") from error  # Pillow would name an object in memory
    with opened as image:
        if resize == "random_resized":
            if image.getexif().get(_ORIENTATION, 1) != 1:  # parts are of the upright image
                image, prepare = prepare(image), _as_it_is
            return np.asarray(crops.cut(image, prepare, draw, size=shape[0])).reshape(shape)
        image, (height, width) = prepare(image), shape[:2]
    box = (0, 0, *image.size)
    if resize == "shorter_crop":
        scale = min(image.width / width, image.height / height)
        left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
        box = (left, top, left + scale * width, top + scale * height)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=box)).reshape(shape)


def _as_it_is(image: Any) -> Any:
    return image


def _eight_bits(image: Any) -> Any:
    """Returns the image with 8 bits a channel and nothing transparent."""
    from PIL import Image

    if image.mode.startswith("I"):  # grey of 16 bits; 'I' has room for 32
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("its grey levels do not fit into 16 bits")
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floats, of which white is not known")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


_Files = dict[str, list[str]]  # class -> its files, as paths from the root


def _find(dir: str, test_share: Any, test_seed: Any) -> tuple[Path, dict[str, _Files]]:
    """Returns the folder and the files of the splits 'train' and 'test'."""
    if not dir:
        raise InputError("the data set 'image_folder' needs a folder: name it by --config.data.dir, or data.make('image_folder', dir=...).")
    root = Path(dir).expanduser().absolute()
    if not root.is_dir():
        raise InputError(f"no images: there is no folder {root}; name the one that holds the class folders, or train/ and test/.")
    if not _folders(root / "train"):
        like_splits = [path.name for path in _folders(root) if path.name.lower() in _SPLITS]
        if len(like_splits) > 1:
            raise InputError(
                f"{root} holds {_listed(like_splits)}, which look like splits and not like classes: name them train/ and test/ (or val/), "
                "with a folder for each class in each."
            )
        return root, _split(root, _classes(root, root), test_share, test_seed)
    test = next((name for name in ("test", "val") if (root / name).is_dir()), None)
    if test is None:
        raise InputError(
            f"{root} has train/ but neither test/ nor val/ (nor is another name known); add one, or name {root / 'train'} to have it split."
        )
    if test_share is not None:
        raise InputError(f"option test_share is for one folder that is to be split, but {root} has train/ and {test}/; leave it out.")
    found = {"train": _classes(root, root / "train"), "test": _classes(root, root / test)}
    differing = sorted(found["train"].keys() ^ found["test"].keys())
    if differing:
        raise InputError(f"train/ and {test}/ of {root} must hold the same classes; in one only: {_listed(differing)}.")
    return root, found


def _classes(root: Path, folder: Path) -> _Files:
    folders = _folders(folder)
    if not folders:
        raise InputError(f"{folder} holds no class folders; put the images of each class into a folder of its own.")
    found = {path.name: images_below(root, path) for path in tracked(folders, f"Looking through {folder}")}
    kinds = f"no image ({' '.join(EXTENSIONS)})"
    if not any(found.values()):
        raise InputError(f"{folder} holds {kinds} in its {_count(len(found), 'folder')}: {_listed(found)}.")
    empty = [name for name, files in found.items() if not files]
    if empty:
        raise InputError(f"{folder} has class folders with {kinds}: {_listed(empty)}; fill or remove them.")
    if len(found) == 1:
        raise InputError(f"{folder} holds one class only, {next(iter(found))!r}; two or more are needed.")
    return found


def _folders(folder: Path) -> list[Path]:
    """Returns the class folders, sorted by name; __MACOSX is what archives made on a Mac leave behind."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX")))


def images_below(root: Path, folder: Path) -> list[str]:
    """Returns the images in a folder and the folders in it, sorted."""
    found, seen = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:  # a link to a folder above, or two to one
            folders[:] = []
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = (name for name in names if name.lower().endswith(EXTENSIONS) and not name.startswith("."))
        found += [Path(parent, name).relative_to(root).as_posix() for name in files]
    return sorted(found)


def _split(root: Path, found: _Files, test_share: Any, test_seed: Any) -> dict[str, _Files]:
    """Splits each class by the digests of its files' names, which do not change when others come or go."""
    share = TEST_SHARE if test_share is None else test_share
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
        raise InputError(f"option test_share of image_folder must lie between 0 and 1, both excluded, got {share!r}.")
    if isinstance(test_seed, bool) or not isinstance(test_seed, int) or test_seed < 0:
        raise InputError(f"option test_seed of image_folder must be an integer and at least 0, got {test_seed!r}.")
    single = [name for name, files in found.items() if len(files) == 1]
    if len(single) == len(found):
        raise InputError(f"every class in {root} has one image, so none is left for testing; add images, or test/ beside train/.")
    if single:
        warnings.warn(f"classes of {root} with one image are for training only, never tested: {_listed(single)}.", stacklevel=4)
    train, test = {}, {}
    for name, files in found.items():
        order = sorted(files, key=lambda file: hashlib.sha256(os.fsencode(f"{test_seed} {file}")).digest())
        held_out = 0 if len(files) == 1 else min(max(round(share * len(files)), 1), len(files) - 1)
        test[name], train[name] = sorted(order[:held_out]), sorted(order[held_out:])
    return {"train": train, "test": test}


def _shape(size: Any, **choices: str) -> tuple[int, int, int]:
    """Returns (h, w, c) after checking the options."""
    for name, value in choices.items():
        if value not in _CHOICES[name]:
            raise InputError(f"option {name} of image_folder must be {' or '.join(map(repr, _CHOICES[name]))}, got {value!r}.")
    if size is None:
        raise InputError("image_folder needs the option size, (height, width) in pixels to bring every image to, e.g. (64, 64).")
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, Sequence) else ()
    if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or not 1 <= side <= LARGEST for side in sides):
        raise InputError(
            f"option size of image_folder must be (height, width) in pixels, 1 to {LARGEST:,}, or one number for a square, got {size!r}."
        )
    return (*sides, 1 if choices["colour"] == "grey" else 3)


def _digest(root: Path, splits: Mapping[str, _Files]) -> str:
    """Returns a digest of names and sizes of the files and of the split, none of which is read; a copy has the same one."""
    digest = hashlib.sha256()
    for role, found in splits.items():
        for file in (file for name in sorted(found) for file in found[name]):
            digest.update(os.fsencode(f"{role} {file} {_bytes(root / file)}\n"))
    return digest.hexdigest()[:8]


def _bytes(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # a link to nothing; it is reported with the broken files
        return -1


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + "s" * (number != 1)


def _listed(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
