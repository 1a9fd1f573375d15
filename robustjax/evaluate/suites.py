"""Which measurements make up a suite. An item is one number (or a few) on the whole test set, stored in one file."""

from typing import NamedTuple

from robustjax import corruptions
from robustjax.core import registry


class Item(NamedTuple):
    """One measurement: its name, its kind ('clean', 'corruption', 'attack') and the kernel's options."""

    name: str
    kind: str
    options: dict


def _clean(config: dict) -> list[Item]:
    return [Item("clean", "clean", {})]


def _corruptions(config: dict) -> list[Item]:
    benchmark = config["evaluation"]["benchmark"]
    if benchmark not in corruptions.NAMES:
        raise registry.unknown("benchmark", benchmark, corruptions.NAMES)
    return [
        Item(f"{benchmark}/{name}_{severity}", "corruption", {"benchmark": benchmark, "name": name, "severity": severity})
        for name in corruptions.NAMES[benchmark]
        for severity in range(1, 6)
    ]


def _attacks(config: dict) -> list[Item]:
    return [Item(f"attack/{name}", "attack", dict(options)) for name, options in sorted(config["evaluation"]["attacks"].items())]


SUITES = {
    "clean": (_clean,),
    "corruptions": (_clean, _corruptions),
    "attacks": (_clean, _attacks),
    "full": (_clean, _corruptions, _attacks),
}


def items(suite: str, config: dict) -> list[Item]:
    """Returns the items of a suite for a run's configuration.

    Raises:
        InputError: for an unknown suite or benchmark.
    """
    if suite not in SUITES:
        raise registry.unknown("suite", suite, SUITES)
    return [item for part in SUITES[suite] for item in part(config)]
