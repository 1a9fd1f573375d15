"""What benchmarks share: times in turn, and the convolutions that a compiled program computes."""

import re
import statistics
import time
from collections.abc import Callable

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_CONVOLUTION = re.compile(r' convolution\(|custom_call_target="[^"]*conv(?!ert)', re.IGNORECASE)
_CALLED = re.compile(r"(?:calls|to_apply|body|\w+_computations?)=\{?((?:%?[\w.-]+(?:, )?)+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


def paired(first: Callable, second: Callable, pairs: int) -> dict:
    """Times two functions in turn; returns median seconds of each and the median and range of second / first."""
    times = []
    for _ in range(pairs):
        pair = []
        for function in (first, second):
            began = time.perf_counter()
            function()
            pair.append(time.perf_counter() - began)
        times.append(pair)
    ratios = sorted(b / a for a, b in times)
    seconds = [statistics.median(column) for column in zip(*times, strict=True)]
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
