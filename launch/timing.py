"""What benchmarks share: times in turn, and the convolutions that a compiled program computes."""

import re
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_CONVOLUTION = re.compile(r' convolution\(|custom_call_target="[^"]*conv(?!ert)', re.IGNORECASE)
_CALLED = re.compile(r"(?:calls|to_apply|body|\w+_computations?)=\{?((?:%?[\w.-]+(?:, )?)+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


class Seconds(NamedTuple):
    """What one call took, by three clocks."""

    wall: float
    processor: float  # of all threads of this process
    thread: float  # of the one that called


def turns(functions: Sequence[Callable], rounds: int) -> list[list[Seconds]]:
    """Calls functions in turn (A B C A B C ...); returns the seconds of each one's calls."""
    clocks = (time.perf_counter, time.process_time, time.thread_time)
    times: list[list[Seconds]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, taken in zip(functions, times, strict=True):
            began = [clock() for clock in clocks]
            function()
            taken.append(Seconds(*(clock() - then for clock, then in zip(clocks, began, strict=True))))
    return times


def paired(first: Callable, second: Callable, pairs: int) -> dict:
    """Times two functions in turn; returns median seconds of each and the median and range of second / first."""
    times = [[one.wall for one in taken] for taken in turns((first, second), pairs)]
    ratios = sorted(b / a for a, b in zip(*times, strict=True))
    seconds = [statistics.median(taken) for taken in times]
    return {"seconds": seconds, "ratio_median": statistics.median(ratios), "ratio_range": [ratios[0], ratios[-1]]}


def convolutions(program: str) -> int | None:
    """Counts the convolutions that one call of a compiled program computes.

    Counted are instructions `convolution` and, for GPUs, custom calls with 'conv' in the target's name; in a loop as often as XLA says that
    it goes round, in a computation that is called several times as often, and in branches all of them.

    Args:
        program: its text, from `compiled.as_text()`.

    Returns:
        The number; None if a loop around convolutions goes round nobody knows how often.
    """
    lines: dict[str, list[str]] = {}
    name = entry = ""
    for line in program.splitlines():
        if found := _COMPUTATION.match(line):
            name = found[2]
            entry = name if found[1] else entry
            lines[name] = []
        elif name:
            lines[name].append(line)
    counts: dict[str, int | None] = {}

    def count(name: str) -> int | None:
        if name not in counts:
            counts[name] = _total(map(instruction, lines[name]))
        return counts[name]

    def instruction(line: str) -> int | None:
        code = line.split(", metadata=")[0]
        called = [part.strip("% ") for names in _CALLED.findall(line) for part in names.split(",")]
        inside = _total(count(part) for part in called if part in lines)
        if " while(" in code and inside != 0:
            trips = _TRIPS.search(line)
            inside = inside * int(trips[1]) if inside and trips else None
        return _total([len(_CONVOLUTION.findall(code)), inside])

    return count(entry)


def _total(numbers) -> int | None:
    numbers = list(numbers)
    return None if None in numbers else sum(numbers)
