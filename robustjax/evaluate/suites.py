"""Which measurements make up a suite. An item is one number (or a few) on the whole test set, stored in one file."""

from collections.abc import Callable
from typing import NamedTuple

from robustjax import corruptions, metrics
from robustjax.core import registry
from robustjax.corruptions import check_options

SENSOR = "sensor"
ONE_STRENGTH = ("mnist_c", SENSOR)  # benchmarks whose corruptions have no severities


class Item(NamedTuple):
    """One measurement: its name (that of its file), its kind and the kernel's options.

    Kinds: 'clean'; 'corruption', made here; 'files', corrupted images that were read (see evaluate.sources); 'attack'.
    """

    name: str
    kind: str
    options: dict


Shape = tuple[int, int, int]


def _clean(config: dict, shape: Shape) -> list[Item]:
    return [Item("clean", "clean", {})]


def _of(benchmark: str, shape: Shape) -> list[Item]:
    corruptions.check_benchmark(benchmark, shape)
    names = corruptions.NAMES[benchmark]
    if benchmark in ONE_STRENGTH:
        return [Item(f"{benchmark}/{name}", "corruption", {"benchmark": benchmark, "name": name}) for name in names]
    return [
        Item(f"{benchmark}/{name}_{severity}", "corruption", {"benchmark": benchmark, "name": name, "severity": severity})
        for name in names
        for severity in range(1, 6)
    ]


def _corruptions(config: dict, shape: Shape) -> list[Item]:
    return _of(config["evaluation"]["benchmark"], shape)


def _cbar(config: dict, shape: Shape) -> list[Item]:
    return _of(corruptions.nearest("cbar", *shape[:2]), shape)


def _mnist_c(config: dict, shape: Shape) -> list[Item]:
    return _of("mnist_c", shape)


def sensor_defaults(shape: Shape) -> dict[str, dict]:
    """Returns what the suite 'sensor' measures where config.evaluation.sensor is empty: the settings of the discriminative-loss paper.

    Noise of 40/255 (Table 4) is in units of [0, 1] pixels and serves any size. Patches of 70x70 and stripes of 6 pixels are meant for
    images of 400x500 and are brought to images of `shape` in proportion, to whole pixels and at least one.
    """
    down, across = shape[0] / 400, shape[1] / 500
    noise = {"std": 40 / 255}
    occlusion = {"patches": 20, "size": [max(1, round(70 * down)), max(1, round(70 * across))]}
    down_up = {"scale": 1 / 3}
    stripes = {"stripes": 10, "width": max(1, round(6 * across))}
    return {
        "gaussian_noise": {"name": "noise", **noise},
        "uniform_noise": {"name": "noise", "amplitude": 40 / 255},
        "occlusion": {"name": "occlusion", **occlusion},
        "noise+occlusion": {"name": "noise+occlusion", **noise, **occlusion},
        "down_up": {"name": "down_up", **down_up},
        "down_up+occlusion": {"name": "down_up+occlusion", **down_up, **occlusion},
        "stripes": {"name": "stripes", **stripes},
        "down_up+stripes": {"name": "down_up+stripes", **down_up, **stripes},
    }


def _sensor(config: dict, shape: Shape) -> list[Item]:
    chosen = config["evaluation"]["sensor"] or sensor_defaults(shape)
    found = [Item(f"{SENSOR}/{name}", "corruption", {"benchmark": SENSOR, **options}) for name, options in chosen.items()]
    for item in found:
        check_options(item.options, shape)
    return found


def _attacks(config: dict, shape: Shape) -> list[Item]:
    return [Item(f"attack/{name}", "attack", dict(options)) for name, options in sorted(config["evaluation"]["attacks"].items())]


SUITES: dict[str, tuple[Callable[[dict, Shape], list[Item]], ...]] = {
    "clean": (_clean,),
    "corruptions": (_clean, _corruptions),
    "cbar": (_clean, _cbar),
    "mnist_c": (_clean, _mnist_c),
    "sensor": (_clean, _sensor),
    "attacks": (_clean, _attacks),
    "full": (_clean, _corruptions, _attacks),
}


def items(suite: str, config: dict, shape: Shape) -> list[Item]:
    """Returns the items of a suite, or of several ('full,cbar'), for a run's configuration; each once.

    Args:
        suite: clean, corruptions (the benchmark that the configuration names), cbar (its set for images of this size), mnist_c,
            sensor, attacks; full: corruptions and attacks. Every suite has 'clean' in it.
        config: of the run.
        shape: (h, w, c) of the images that its network takes.

    Raises:
        InputError: for an unknown suite or benchmark, corruptions or options that images of this shape cannot have, or a reference
            of the mean corruption error that there is not: whatever would else stop the evaluation halfway.
    """
    found: dict[str, Item] = {}
    for one in suite.split(","):
        if one not in SUITES:
            raise registry.unknown("suite", one, SUITES)
        found |= {item.name: item for part in SUITES[one] for item in part(config, shape)}
    if any(item.options.get("benchmark") == config["evaluation"]["benchmark"] for item in found.values()):
        reference_of(config)
    return list(found.values())


def reference_of(config: dict) -> metrics.Reference | None:
    """Returns the reference network by whose errors the run's mean corruption error is divided; None for the plain mean."""
    evaluation = config["evaluation"]
    benchmark = evaluation["benchmark"]
    return metrics.corruption_reference(evaluation["reference"], benchmark=benchmark, names=corruptions.NAMES[benchmark])
