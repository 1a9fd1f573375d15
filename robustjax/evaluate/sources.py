"""Where corrupted images come from, if not from kernels and procedural ice alone: published files, a user's own photographs of frost.

What an item was made of is part of the item, so that stored results are never taken for others, and tables can say it.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from robustjax import data
from robustjax.core.check import InputError
from robustjax.corruptions import check_options
from robustjax.data.encoded import tracked
from robustjax.evaluate.suites import ONE_STRENGTH, SENSOR, Item

FROST = "frost"
PHOTOGRAPHS = "frost_images"  # the option of the corruption 'frost'
_BY_POSITION = ("npy", "mnist_c")  # layouts in which image i is that of the test split; others sort them by class or shuffle them
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def from_files(
    items: Sequence[Item], folder: str | Path, dataset: data.Dataset, *, limited: bool = False
) -> tuple[list[Item], Callable[[str, int | None], data.Source]]:
    """Replaces the items that generate corruptions by ones that read them from files.

    Args:
        items: of a suite, with one benchmark in it that is published as files.
        folder: of the corrupted set, see data.corrupted.
        dataset: whose test split the files are corrupted from.
        limited: whether a part of the test split is to be measured.

    Returns:
        The items, and source(name, severity) for those of kind 'files'.

    Raises:
        InputError: if the files are incomplete, or do not belong to the data or the network; nothing has been measured then.
    """
    benchmarks = sorted({item.options["benchmark"] for item in items if item.kind == "corruption"})
    if len(benchmarks) != 1 or benchmarks[0] == SENSOR:
        raise InputError(
            f"files hold one benchmark, but the suite measures {' and '.join(benchmarks) or 'no corruptions'}; with --corrupted_dir "
            "take the suite that the files are for: corruptions, cbar, mnist_c, or full."
        )
    (benchmark,) = benchmarks
    names = list(dict.fromkeys(item.options["name"] for item in items if item.kind == "corruption"))
    height, width, _ = dataset.image_shape
    opened = data.corrupted(
        str(folder),
        names=names,
        severities=1 if benchmark in ONE_STRENGTH else 5,
        num_classes=dataset.num_classes,
        class_names=dataset.class_names,
        size=height if height == width else 0,
        written_for={"benchmark": benchmark.removesuffix("_extra"), "data": dataset.name, "split": "test"},
    )
    if limited and opened.layout not in _BY_POSITION:
        raise InputError(
            f"{folder} keeps its images in another order than the test split, so a part of them would be other images than the clean "
            f"ones; measure all with --limit={len(dataset.test)}, or take a set of .npy files."
        )

    def replaced(item: Item) -> Item:
        if item.kind != "corruption":
            return item
        one = item.options["name"], item.options.get("severity")
        _check(opened.source(*one), dataset, f"{folder}: {item.name}")
        return Item(f"files_{item.name}", "files", {**item.options, "files": opened.provenance, "digest": opened.digest(*one)})

    replacements = [replaced(item) for item in tracked(items, f"Checking {folder}")]
    # Those of one split will do: data.corrupted has seen that they are alike in all, or (TFDS) equally many.
    first = next(item.options for item in items if item.kind == "corruption")
    labels, expected = opened.source(first["name"], first.get("severity")).labels, dataset.test.labels
    if opened.layout not in _BY_POSITION:
        labels, expected = np.sort(labels), np.sort(expected)
    if not np.array_equal(labels, expected):
        raise InputError(f"{folder} has other labels than the test split of {dataset.name}; take the files made from that split.")
    return replacements, opened.source


def _check(source: data.Source, dataset: data.Dataset, what: str) -> None:
    if len(source) != len(dataset.test):
        raise InputError(
            f"{what} holds {len(source)} images, the test split of {dataset.name} {len(dataset.test)}; take the files made from that split."
        )
    if tuple(source.shape) != tuple(dataset.image_shape):
        raise InputError(f"{what} holds images {tuple(source.shape)}, the network was trained for {tuple(dataset.image_shape)}.")


def photographs(folder: str | Path) -> tuple[np.ndarray, ...]:
    """Reads a user's own photographs of frost, in the order of their names.

    Args:
        folder: with image files in it.

    Returns:
        RGB uint8 (h, w, 3), one array for each; the official code calls its six frost1.png ... frost6.jpg.

    Raises:
        InputError: if there are none, or one cannot be read.
    """
    from PIL import Image

    folder = Path(folder).expanduser()
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES) if folder.is_dir() else []
    if not paths:
        raise InputError(f"--frost_images={folder} holds no photographs ({', '.join(_SUFFIXES)}); name a folder of image files.")
    read = []
    for path in paths:
        try:
            with Image.open(path) as image:
                read.append(np.asarray(image.convert("RGB"), np.uint8))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read as an image ({error}); replace it or take it away.") from error
    return tuple(read)


def with_photographs(items: Sequence[Item], images: tuple[np.ndarray, ...], shape: tuple[int, int, int]) -> list[Item]:
    """Marks the generated frost of a suite as made from these photographs, by their digest.

    Raises:
        InputError: if no item generates frost, or the photographs do not serve images of this shape.
    """
    digest = photographs_digest(images)
    marked = []
    for item in items:
        if item.kind == "corruption" and item.options["name"] == FROST:
            check_options({**item.options, PHOTOGRAPHS: images}, shape)
            item = Item(f"{item.name}_photographs", item.kind, {**item.options, PHOTOGRAPHS: digest})
        marked.append(item)
    if marked == list(items):
        raise InputError("--frost_images is of no use here: nothing that is measured generates frost; leave it out.")
    return marked


def photographs_digest(images: Sequence[np.ndarray]) -> str:
    """Returns the name of photographs by their contents, as results and tables have it."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.dtype} {image.shape}".encode() + np.ascontiguousarray(image).tobytes())
    return f"sha256 {digest.hexdigest()[:16]}"


def frost_origin(digest: str = "") -> str:
    """Returns what frost was made of, for tables; `digest` is that of photographs."""
    return f"frost: own photographs, {digest}" if digest else "frost: procedural ice"


def described(items: Iterable[dict]) -> str:
    """Returns what made the corrupted images of one benchmark in one run, for tables.

    Args:
        items: as dicts, as results store them.

    Raises:
        InputError: if they do not agree.
    """
    found, frost, digests = set(), set(), []
    for item in items:
        options = item["options"]
        generated = "generated" if options["benchmark"] == SENSOR else "generated, not the published files"
        found.add(options["files"] if item["kind"] == "files" else generated)
        if item["kind"] == "corruption" and options["name"] == FROST:
            frost.add(frost_origin(options.get(PHOTOGRAPHS, "")))
        digests += [f"{item['name']} {options['digest']}"] if item["kind"] == "files" else []
    if len(found) > 1 or len(frost) > 1:
        raise InputError(f"results of one benchmark are mixed: {', '.join(sorted(found | frost))}; evaluate again.")
    # Two sets may have the same name: other files, another row.
    files = [f"digest {hashlib.sha256(' '.join(sorted(digests)).encode()).hexdigest()[:8]}"] if digests else []
    return "; ".join([*found, *files, *frost])
