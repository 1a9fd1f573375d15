"""What runs would cost: floating-point operations from a table of networks, and hours from speeds that were measured. An estimate, no more.

Hours are operations over the operations per second that results/benchmark*.json has of the device, of the same network where there is one
and else of the largest. Other networks, batches and precisions run at other speeds, and data may take longer than the network.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from launch.jobs import ROOT
from launch.plan import Cell, Run
from robustjax.evaluate.tables import network
from robustjax.io import results

# Operations (two for each multiply-add) of one forward pass of one image of that side, as XLA counts them in the lowered program.
FORWARD = {
    "wide_resnet (depth 40, width 2)": (32, 5.967e8),
    "wide_resnet (depth 40, width 1)": (32, 1.523e8),
    "wide_resnet (depth 34, width 10)": (32, 1.209e10),
    "resnet18": (32, 9.652e8),
    "resnet18 (stem cifar)": (32, 9.652e8),
    "resnet18 (stem imagenet)": (224, 3.368e9),
    "preact_resnet18": (32, 9.651e8),
    "vgg16_bn": (32, 4.956e8),
    "mobilenet_v2": (32, 1.845e8),
    "allconv": (32, 7.556e8),
    "densenet_40_12": (32, 4.577e8),
    "mnist_cnn": (28, 1.997e7),
    "small_cnn (width 32)": (32, 1.846e7),
    "small_cnn (width 16)": (32, 5.085e6),
}
# side of the images, how many there are to train on (validation included) and to test with
DATA = {
    "digits": (16, 1_437, 360),
    "mnist": (28, 60_000, 10_000),
    "cifar10": (32, 50_000, 10_000),
    "cifar100": (32, 50_000, 10_000),
    "svhn_cropped": (32, 73_257, 26_032),
    "tiny_imagenet": (64, 100_000, 10_000),
    "imagenet2012": (224, 1_281_167, 50_000),
}
_BACKWARD = 2  # a backward pass costs as much as two forward ones, and one to the image alone as one
_TRIALS = 7  # SPIDER, Table 7: 30 pruned trials cost as much as 5.9 to 7.7 whole ones


class Rate(NamedTuple):
    """A speed that was measured in training, in operations a second."""

    device: str
    network: str
    speed: float
    source: str


def rates() -> list[Rate]:
    """Returns what results/benchmark*.json has."""
    found = []
    for path in sorted((ROOT / "results").glob("benchmark*.json")):
        stored = results.read_json(path)
        if not isinstance(stored, dict):
            continue
        where = stored.get("environment", {})
        device = f"{where.get('cpus')} CPU cores" if where.get("backend") == "cpu" else str(where.get("device"))
        for entry in (*stored.get("measured", ()), *stored.get("training", ())):
            speed = _speed(entry, stored.get("size", 32))
            if speed:
                found.append(Rate(device, _network(entry["model"]), speed, f"results/{path.name}"))
    return found


def _speed(entry: dict, side: int) -> float | None:
    """Returns the operations a second of an entry of launch/benchmark.py, benchmark_training.py or benchmark_adversarial.py, else None."""
    if "model" not in entry:
        return None
    forward = _forward(entry["model"], 16 if entry.get("name") == "train_step/digits" else side)
    if forward is None:
        return None
    if "images_per_second" in entry:
        images = entry["images_per_second"]
        return (1 + _BACKWARD) * forward * images["plain" if "plain" in images else "plain float32"]
    for method in entry.get("methods", ()):
        if method["name"] == "trades":
            return _adversarial({"name": "trades", "steps": 10}) * forward * entry["batch"] / method["seconds"]
    return None


def _network(model: dict) -> str:
    """Returns the name of a network in `FORWARD`, without the options that cost nothing to speak of."""
    return network({**model, "options": {name: value for name, value in model["options"].items() if name in ("depth", "width", "stem")}})


def _forward(model: dict, side: int) -> float | None:
    """Returns the operations of one forward pass: they grow with the area of the image."""
    at, operations = FORWARD.get(_network(model), (side, None))
    return operations and operations * (side / at) ** 2


def _adversarial(objective: dict) -> float:
    """Returns how many forward passes a training image costs, as the heads of configs/rat have it."""
    made = 2 * objective["steps"]  # the inner maximisation
    if objective["name"] == "madry":
        return made + 1 + _BACKWARD
    taylor = 10 * objective["order"] if objective["name"] == "rat" else 0
    return made + 1 + 2 * (1 + _BACKWARD) + taylor


def passes(config: dict) -> float:
    """Returns how many forward passes a training image costs."""
    name = config["objective"]["name"]
    if "steps" in config["objective"]:
        pair = 1 if name == "madry" else 2
        weights = pair * (1 + _BACKWARD) if config["awp"]["gamma"] else 0  # the ascent in the weights
        return _adversarial(config["objective"]) + weights
    views = {"classification": 1, "augmix_jsd": 3}.get(name, 2)
    return views * (1 + _BACKWARD)


def training(run: Run) -> float | None:
    """Returns the operations of a training with its validations; None where the network or the data are in no table."""
    config = run.config
    data = config["data"]
    forward = _forward(config["model"], DATA[data["name"]][0]) if data["name"] in DATA else None
    if forward is None:
        return None
    count = data["limit_train"] or DATA[data["name"]][1]
    held_out = data["validation"] * count
    seen = (count - held_out) * (3 if run.copies else 1)  # the originals and a copy by each of two networks
    attack = config["selection"]["attack"]
    validations = config["epochs"] / config["validate_epochs"] * held_out * (1 + 2 * attack.get("steps", 0))
    return forward * (config["epochs"] * seen * passes(config) + validations)


def evaluation(run: Run, suite: str) -> float | None:
    """Returns the operations of a suite's measurements, AutoAttack's as if every image stood firm to the end; None as `training`."""
    config = run.config
    if config["data"]["name"] not in DATA:
        return None
    side, _, count = DATA[config["data"]["name"]]
    forward, count = _forward(config["model"], side), config["data"]["limit_test"] or count
    steps = sum(attack["steps"] for attack in config["evaluation"]["attacks"].values())
    of_suite = {
        "clean": count,
        "corruptions": count * (15 if config["evaluation"]["benchmark"] == "mnist_c" else 75),
        "cbar": count * 50,
        "pgd": count * 2 * steps,
        "attacks": count * 4 * steps,
        "transfer": count * 2 * 2 * 20,
        "autoattack": count * (2 * 100 + 2 * 900 + 2 * 900 + 5000),  # APGD-CE, APGD-T, FAB-T, Square
        "noise": count * 10 * 10,
        "thickness": min(count, 1600) * (2 * 20 + 128),
        "flatness": min(count, 1000) * 50 * 9,
    }
    return forward and forward * sum(of_suite[part] for part in suite.split(","))


def total(cells: Sequence[Cell], *, missing: bool = False) -> tuple[float, int]:
    """Returns the operations of some rows, each run once, and how many runs are left out for want of a number.

    Args:
        cells: rows.
        missing: only what is not done yet.
    """
    seen: dict[Path, float | None] = {}
    for one in cells:
        for run in (*one.runs, *filter(None, [one.surrogate])):
            seen[run.folder / "training.json"] = training(run)
        for run, step in zip(one.runs, one.evaluations, strict=True):
            if step.done.name == "search.json":
                seen[step.done] = _times(_TRIALS, seen.pop(run.folder / "training.json"))
            else:
                suite = next(part.partition("=")[2] for part in step.command if part.startswith("--suite="))
                seen[step.done] = evaluation(run, suite)
    found = [value for done, value in seen.items() if not (missing and done.exists())]
    return sum(filter(None, found)), found.count(None)


def _times(count: float, value: float | None) -> float | None:
    return None if value is None else count * value


def described(operations: float, cells: Iterable[Cell]) -> list[str]:
    """Returns a line for each device that was measured: the hours that operations would take there, and by which measurement."""
    wanted, lines = {_network(run.config["model"]) for one in cells for run in one.runs}, []
    found = rates()
    for device in dict.fromkeys(rate.device for rate in found):
        there = [rate for rate in found if rate.device == device]
        best = max(there, key=lambda rate: (rate.network in wanted, math.prod(FORWARD[rate.network])))
        hours = operations / best.speed / 3600
        lines.append(
            f"about {hours:,.1f} h on {device}, at the {best.speed / 1e12:.3g} TFLOP/s that {best.network} was trained with ({best.source})"
        )
    return lines
