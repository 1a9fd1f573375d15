"""What a configuration may say: every key with its kind and range, checked before anything is built."""

import copy
import itertools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from robustjax.core import registry, threats
from robustjax.core.check import InputError


class _Rule(NamedTuple):
    kind: type | tuple[type, ...]
    holds: Callable = lambda value: True
    expected: str = ""


_COUNT = _Rule(int, lambda n: n >= 1, "a whole number of at least 1")
_NATURAL = _Rule(int, lambda n: n >= 0, "a whole number of at least 0")
_NON_NEGATIVE = _Rule(float, lambda x: math.isfinite(x) and x >= 0, "a number of at least 0")
_POSITIVE = _Rule(float, lambda x: math.isfinite(x) and x > 0, "a number above 0")
_DECAY = _Rule(float, lambda x: 0 <= x < 1, "a number in [0, 1)")
_NAME = _Rule(str, bool, "a name")
_TEXT = _Rule(str)
_SWITCH = _Rule(bool)
_OPTIONS = _Rule(dict)


def _rising(epochs) -> bool:
    numbers = all(isinstance(epoch, (int, float)) for epoch in epochs)
    return numbers and all(a < b for a, b in itertools.pairwise([0, *epochs]))


def _one_of(*names: str) -> _Rule:
    return _Rule(str, lambda name: name in names, f"one of {', '.join(names)}")


RULES = {
    "seed": _Rule(int, lambda n: 0 <= n < 2**32, "a whole number in [0, 2^32)"),
    "epochs": _COUNT,
    "batch_size": _COUNT,
    "parallel": _one_of("shard_map", "pmap"),
    "compute_dtype": _one_of("float32", "bfloat16"),
    "remat": _SWITCH,
    "init": _TEXT,
    "steps_per_dispatch": _NATURAL,
    "allow_slow": _SWITCH,
    "quick": _SWITCH,
    "data": {
        "name": _NAME,
        "dir": _TEXT,
        "options": _OPTIONS,
        "validation": _Rule(float, lambda x: 0 < x < 1, "a fraction of the training data, between 0 and 1"),
        "split_seed": _NATURAL,
        "limit_train": _NATURAL,
        "limit_test": _NATURAL,
        "stream": _one_of("auto", "always"),
        "copies": _TEXT,
    },
    "model": {"name": _NAME, "options": _OPTIONS},
    "augment": _Rule((tuple, list), lambda names: all(isinstance(name, str) for name in names), "names of augmentations"),
    "augment_options": _OPTIONS,
    "method": _OPTIONS,
    "loss": _NAME,
    "objective": _OPTIONS,
    "penalty": {"l1": _NON_NEGATIVE, "l2": _NON_NEGATIVE},
    "awp": {"gamma": _NON_NEGATIVE, "warmup_epochs": _NON_NEGATIVE, "loss": _one_of("base", "full")},
    "optimizer": {
        "name": _one_of("sgd", "adam"),
        "lr": _POSITIVE,
        "momentum": _DECAY,
        "nesterov": _SWITCH,
        "weight_decay": _NON_NEGATIVE,
        "clip_norm": _NON_NEGATIVE,
        "ema": _DECAY,
        "swa_epoch": _NATURAL,
    },
    "schedule": {
        "name": _one_of("cosine", "step", "constant"),
        "warmup_epochs": _NON_NEGATIVE,
        "boundaries": _Rule((tuple, list), _rising, "epochs in rising order, above 0"),
        "factor": _POSITIVE,
    },
    "validate_epochs": _COUNT,
    "selection": {"data": _one_of("clean", "cbar", "all"), "attack": _OPTIONS},
    "evaluation": {
        "batch_size": _COUNT,
        "benchmark": _NAME,
        "reference": _NAME,
        "sensor": _OPTIONS,
        "attacks": _OPTIONS,
        "autoattack": {
            "threats": _Rule((tuple, list), lambda texts: all(map(threats.parse, texts)), "threats such as 'linf:8/255'"),
            "version": _one_of("standard", "plus", "rand", "fast"),
        },
        "geometry": _OPTIONS,
        "noise": _OPTIONS,
    },
}


ATTACK = {"norm": _one_of("linf", "l2", "l1"), "eps": _NON_NEGATIVE, "step_size": _POSITIVE, "steps": _COUNT}
_RADII = _Rule((tuple, list), _rising, "radii in rising order, above 0")
GEOMETRY = {  # any of these may be left out
    "thickness": {
        **{"images": _NATURAL, "preset": _one_of("thickness", "thickness_normalised"), "std": _POSITIVE},
        **{"points": _Rule(int, lambda n: n >= 2, "a whole number of at least 2"), "class_i": _one_of("predicted", "label")},
    },
    "flatness": {"images": _NATURAL, "draws": _COUNT, "radii": _RADII, "relative_radii": _RADII, "filter_radii": _RADII},
    "hessian": {"images": _NATURAL, "steps": _COUNT, "draws": _COUNT},
    "curvature": {"images": _NATURAL, "t": _POSITIVE, "draws": _COUNT, "std": _POSITIVE},
}
_LEVELS = _Rule(
    (tuple, list), lambda levels: _rising(levels) and max(levels, default=0) <= 1, "levels above 0 and at most 1, in rising order"
)
NOISE = {"gaussian": _LEVELS, "uniform": _LEVELS, "repeats": _COUNT, "seed": _NATURAL}  # likewise


def check(config: Mapping) -> dict:
    """Checks every key of a configuration and returns it as a plain dict.

    Args:
        config: a mapping such as ml_collections.ConfigDict.to_dict() gives.

    Raises:
        InputError: for an unknown or missing key, a value of the wrong type or out of range.

    >>> check({"seed": 0})
    Traceback (most recent call last):
    ...
    robustjax.core.check.InputError: the configuration lacks the key 'epochs'.
    """
    checked = _check(config, RULES, "")
    # What nobody set is the kernel's to work out, and is no setting of the run.
    checked["method"] = {option: value for option, value in checked["method"].items() if value is not None}
    if checked["optimizer"]["name"] == "adam" and checked["optimizer"]["nesterov"]:
        raise InputError("config.optimizer.nesterov is of 'sgd'; with 'adam' set it to False.")
    if checked["schedule"]["name"] != "step" and checked["schedule"]["boundaries"]:
        raise InputError(f"config.schedule.boundaries are of 'step'; with {checked['schedule']['name']!r} leave them empty.")
    if checked["optimizer"]["swa_epoch"] > checked["epochs"]:
        raise InputError(
            f"config.optimizer.swa_epoch = {checked['optimizer']['swa_epoch']} lies behind the last of the {checked['epochs']} epochs."
        )
    if checked["awp"]["gamma"] and checked["awp"]["warmup_epochs"] >= checked["epochs"]:
        raise InputError(
            f"config.awp.warmup_epochs = {checked['awp']['warmup_epochs']:g} leaves none of the {checked['epochs']} epochs to the perturbation."
        )
    if checked["selection"]["attack"]:
        checked["selection"]["attack"] = _attack(checked["selection"]["attack"], "selection.attack")
        if checked["selection"]["data"] != "clean":
            raise InputError("config.selection.attack attacks clean validation images: set config.selection.data = 'clean', or no attack.")
    for name, attack in checked["evaluation"]["attacks"].items():
        checked["evaluation"]["attacks"][name] = _attack(attack, f"evaluation.attacks.{name}")
    checked["evaluation"]["geometry"] = _geometry(checked["evaluation"]["geometry"])
    _some(checked["evaluation"]["noise"], NOISE, "evaluation.noise.")
    for item, options in checked["evaluation"]["sensor"].items():
        if not isinstance(options, Mapping) or not isinstance(options.get("name"), str):
            raise InputError(f"config.evaluation.sensor.{item} must hold the name of a corruption and its options, got {options!r}.")
    return checked


def _geometry(sections: dict) -> dict:
    """Checks the settings that are there."""
    for section, options in sections.items():
        if section not in GEOMETRY or not isinstance(options, Mapping):
            raise InputError(f"config.evaluation.geometry holds settings of {', '.join(GEOMETRY)}, got {section!r}: {options!r}.")
        _some(options, GEOMETRY[section], f"evaluation.geometry.{section}.")
    return sections


def _some(values: Mapping, rules: dict, prefix: str) -> None:
    """Checks those of the keys that are there."""
    for key, value in values.items():
        if key not in rules:
            raise registry.unknown("configuration key", prefix + str(key), [prefix + known for known in rules])
        _value(value, rules[key], prefix + key)


def _attack(attack, key: str) -> dict:
    if not isinstance(attack, Mapping):
        raise InputError(f"config.{key} must hold norm, eps, step_size and steps, got {attack!r}.")
    attack = _check(attack, ATTACK, f"{key}.")
    if attack["norm"] == "linf" and attack["eps"] > 1:
        raise InputError(f"config.{key}.eps is in units of [0, 1] pixels and at most 1, got {attack['eps']:g}; 8 / 255?")
    return attack


def _check(values: Mapping, rules: dict, prefix: str) -> dict:
    for key in values:
        if key not in rules:
            raise registry.unknown("configuration key", prefix + str(key), [prefix + known for known in rules])
    for key in rules:
        if key not in values:
            raise InputError(f"the configuration lacks the key {prefix + key!r}.")
    return {
        key: _check(values[key], rule, f"{prefix}{key}.") if isinstance(rule, dict) else _value(values[key], rule, prefix + key)
        for key, rule in rules.items()
    }


def _value(value, rule: _Rule, key: str):
    if rule.kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    right_kind = isinstance(value, rule.kind) and (rule.kind is bool or not isinstance(value, bool))
    if rule.kind is dict and right_kind:
        return copy.deepcopy(value)
    if not right_kind or not rule.holds(value):
        kinds = rule.kind if isinstance(rule.kind, tuple) else (rule.kind,)
        expected = rule.expected or " or ".join(kind.__name__ for kind in kinds)
        raise InputError(f"config.{key} must be {expected}, got {value!r}.")
    return value
