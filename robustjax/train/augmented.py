"""The corrupted validation images by which checkpoints are selected: C-bar, which no benchmark of the evaluation shares.

Mintun, Kirillov & Xie, NeurIPS 2021, as SPIDER's appendix E uses them. Which corruption and severity an image gets, and what chance
adds, follow from the image's id alone: they stay the same over epochs, runs, seeds and configurations.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8

from robustjax import corruptions
from robustjax.core import example_keys
from robustjax.core.types import Batch
from robustjax.data import Source, batches, stream

KEY = 20210206  # of all assignments and draws: fixed, so that numbers of different runs compare
SEVERITIES = range(1, 6)


class Cell(NamedTuple):
    """A corruption at one severity."""

    benchmark: str
    name: str
    severity: int


class Part(NamedTuple):
    """A batch of the plan: ids that share a cell."""

    cell: int
    ids: Int[np.ndarray, " b"]
    mask: np.ndarray


def cells(shape: tuple[int, int, int]) -> list[Cell]:
    """Returns every corruption and severity of the C-bar that goes with images of `shape`: ImageNet-C-bar from 64 pixels on."""
    benchmark = corruptions.nearest("cbar", *shape[:2])
    return [Cell(benchmark, name, severity) for name in corruptions.NAMES[benchmark] for severity in SEVERITIES]


def describe(data: str, shape: tuple[int, int, int]) -> str:
    """Returns what the log calls the validation images of config.selection.data."""
    return data if data == "clean" else corruptions.nearest("cbar", *shape[:2]) + (", all of each image" if data == "all" else "")


def check(data: str, shape: tuple[int, int, int]) -> None:
    """Refuses images that C-bar is not defined for, before anything is trained; computes nothing.

    Raises:
        InputError: in one line.
    """
    if data != "clean":
        corruptions.check_benchmark(corruptions.nearest("cbar", *shape[:2]), shape)


def assignment(ids: Int[np.ndarray, " n"], count: int) -> Int[np.ndarray, " n"]:
    """Returns which of `count` cells each image gets, by its id alone."""
    keys = example_keys(jax.random.fold_in(jax.random.key(KEY), 0), ids)
    return np.asarray(jax.vmap(lambda key: jax.random.randint(key, (), 0, count))(keys))


def plan(ids: Int[np.ndarray, " n"], data: str, shape: tuple[int, int, int], *, most: int, multiple: int) -> list[Part]:
    """Groups the validation images by cell into batches of one size, so that each corruption is one program.

    Args:
        ids: of the validation images.
        data: 'cbar', one cell for each image, or 'all', every cell for every image.
        shape: (h, w, c).
        most: the largest batch wanted.
        multiple: of which the batch's size must be one (the devices it is split over).
    """
    count = len(cells(shape))
    given = assignment(ids, count) if data == "cbar" else None
    groups = {cell: ids if given is None else ids[given == cell] for cell in range(count)}
    size = -(-min(most, max(map(len, groups.values()))) // multiple) * multiple
    return [Part(cell, *part) for cell, group in groups.items() if len(group) for part in batches.padded(group, size)]


def corrupted(source: Source, parts: list[Part], shape: tuple[int, int, int], *, read_ahead: bool) -> Iterator[Batch]:
    """Yields the batches of a plan, corrupted, as uint8 on the host.

    Args:
        source: the clean images.
        parts: from `plan`.
        shape: (h, w, c).
        read_ahead: read by threads, for sources that do not fit in memory.
    """
    known = cells(shape)
    ids = np.concatenate([part.ids for part in parts])
    clean = stream.eval_stream(source, ids, len(parts[0].ids), threads=stream.THREADS if read_ahead else 0)
    for part, batch in zip(parts, clean, strict=True):
        yield Batch(_corrupt(batch.images, part, known[part.cell]), batch.labels, part.ids, part.mask)


def _corrupt(images: UInt8[np.ndarray, "b h w c"], part: Part, cell: Cell) -> UInt8[np.ndarray, "b h w c"]:
    keys = example_keys(jax.random.fold_in(jax.random.key(KEY), 1 + part.cell), part.ids)
    floats = jnp.asarray(images).astype(jnp.float32) / 255
    levels = corruptions.corrupt(keys, floats, name=cell.name, severity=cell.severity, benchmark=cell.benchmark) * 255
    return np.asarray(jnp.round(levels).astype(jnp.uint8))
