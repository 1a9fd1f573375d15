"""When Auto-PGD looks back, in tables: a row of a batch reads them at its own step, so rows may be at different steps."""

import functools
import math
from typing import NamedTuple

import numpy as np

from robustjax.core.types import Norm

Stages = tuple[tuple[float, int], ...]  # radius as a multiple of the threat's, steps


class Schedule(NamedTuple):
    """One entry for each measurement of the network: a stage of n steps measures its first point, then the point of each step."""

    first: np.ndarray  # bool: the first point of a stage
    window: np.ndarray  # int32: at a check the number of steps since the last one, else 0
    radius: np.ndarray  # of the measured point's stage, as a multiple of the threat's
    next_radius: np.ndarray  # of the stage that the point proposed next belongs to
    moves_on: np.ndarray  # bool: the point proposed next is the first of another stage
    counts: np.ndarray  # bool: the last stage, whose radius is the threat's


def stages(steps: int, *, large_radii: bool) -> Stages:
    """Returns the stages of a run: one, or three at radii 3, 2 and 1 times the threat's.

    Croce and Hein, ICML 2021, section 3.3, with the official code's lengths: 30 % of the steps, rounded up, twice; then the rest.

    >>> stages(25, large_radii=True)
    ((3.0, 8), (2.0, 8), (1.0, 9))
    """
    if not large_radii:
        return ((1.0, steps),)
    part = math.ceil(0.3 * steps)
    first = min(part, steps)
    second = min(part, steps - first)
    return ((3.0, first), (2.0, second), (1.0, steps - first - second))


def windows(steps: int, *, norm: Norm) -> list[int]:
    """Returns the numbers of steps between checks of the step size, in their order; they add up to `steps` or less.

    In 'linf' and 'l2' 22 % of the steps at first, 3 % fewer each time, no fewer than 6 % (Croce and Hein, ICML 2020, section 3,
    in whole numbers as in the official code). In 'l1' 4 % each time (ICML 2021, section 3.3).

    >>> windows(100, norm="linf")
    [22, 19, 16, 13, 10, 7, 6, 6]
    """
    if norm == "l1":
        size, less, least = max(int(0.04 * steps), 1), 0, 1
    else:
        size, less, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    sizes: list[int] = []
    while sum(sizes) + size <= steps:
        sizes.append(size)
        size = max(size - less, least)
    return sizes


@functools.lru_cache
def schedule(stages: Stages, norm: Norm) -> Schedule:
    """Returns the tables of a run, sum(steps + 1) long over its stages."""
    columns = []
    for number, (radius, steps) in enumerate(stages):
        checks = np.zeros(steps + 1, np.int32)
        sizes = windows(steps, norm=norm)
        checks[np.cumsum(sizes, dtype=int)] = sizes
        last = number == len(stages) - 1
        here, ends = np.full(steps + 1, radius), np.arange(steps + 1) == steps
        after = np.where(ends & (not last), stages[min(number + 1, len(stages) - 1)][0], radius)
        columns.append((np.arange(steps + 1) == 0, checks, here, after, ends & (not last), np.full(steps + 1, last)))
    return Schedule(*(np.concatenate(column) for column in zip(*columns, strict=True)))


@functools.lru_cache
def ranks(size: int) -> np.ndarray:
    """Returns which of the sorted gradients bounds the sparse step of 'l1', for each number 0, ..., size of changed entries.

    Entries whose gradient is as large as the one at this rank (0: the smallest) may move: two thirds as many as are changed now.
    In float32 as in the official code, for every dtype, since rounding decides some of them.
    """
    changed = np.arange(size + 1, dtype=np.float32)
    return _rank(changed / np.float32(size) / np.float32(1.5), size)


def first_rank(size: int) -> int:
    """Returns the rank of a run from a random start: a fifth of the entries may move."""
    return int(_rank(np.array([0.2], np.float32), size)[0])


def _rank(share: np.ndarray, size: int) -> np.ndarray:
    return np.clip((np.float32(1) - share) * np.float32(size), 0, size - 1).astype(np.int32)
