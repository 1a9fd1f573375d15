"""The versions of AutoAttack as tables: which attacks, in which order, with which options, and what a report may call the result."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from robustjax.attacks.apgd import make_plan as make_apgd
from robustjax.attacks.doors import check_count
from robustjax.attacks.fab import make_plan as make_fab
from robustjax.attacks.objectives import OBJECTIVES
from robustjax.attacks.plan import Plan
from robustjax.attacks.square import make_plan as make_square
from robustjax.core import registry
from robustjax.core.check import InputError


class Kind(NamedTuple):
    """An attack of a cascade: whose plan, with what bound, and what may be set."""

    attack: str
    title: str
    bound: dict[str, Any]
    options: tuple[str, ...]


_APGD = ("steps", "restarts", "eot", "large_radii")
ATTACKS = {
    "apgd-ce": Kind("apgd", "APGD-CE", {"objective": "ce"}, _APGD),
    "apgd-dlr": Kind("apgd", "APGD-DLR", {"objective": "dlr"}, _APGD),
    "apgd-t": Kind("apgd", "APGD-T", {"objective": "dlr_targeted", "num_targets": 9}, (*_APGD, "num_targets")),
    "fab": Kind("fab", "FAB", {}, ("steps", "restarts", "random_start")),
    "fab-t": Kind("fab", "FAB-T", {"num_targets": 9}, ("steps", "restarts", "random_start", "num_targets")),
    "square": Kind("square", "Square", {}, ("queries", "p_init")),
}


_WIDE = {"large_radii": True}
_MANY, _FEW = {"restarts": 5} | _WIDE, {"num_targets": 5} | _WIDE

# Per version the attacks with their options, and those that are other in L1: as the official code sets them.
VERSIONS = {
    "standard": (("apgd-ce", {}, _MANY), ("apgd-t", {}, _FEW), ("fab-t", {}, {}), ("square", {}, {})),
    "plus": (
        ("apgd-ce", {"restarts": 5}, _WIDE),
        ("apgd-dlr", {"restarts": 5}, _WIDE),
        ("fab", {"restarts": 5}, {}),
        ("square", {}, {}),
        ("apgd-t", {}, _WIDE),
        ("fab-t", {}, {}),
    ),
    "rand": (("apgd-ce", {"eot": 20}, _WIDE), ("apgd-dlr", {"eot": 20}, _WIDE)),
    "fast": (("apgd-ce", {}, _MANY), ("apgd-t", {}, _FEW)),
}


class Stage(NamedTuple):
    """One attack of an evaluation."""

    name: str  # unique
    plan: Plan


def label(version: str, attacks: Sequence[Any] | None = None) -> str:
    """Returns what a report may call the result of a version: AutoAttack only where it is.

    >>> label("standard"), label("fast"), label("custom", ["apgd-ce", ("square", {"queries": 100})])
    ('AutoAttack (standard)', 'APGD-CE + APGD-T', 'APGD-CE + Square')
    """
    if version in ("standard", "plus", "rand"):
        return f"AutoAttack ({version})"
    return " + ".join(ATTACKS[name].title for name, _ in _asked(version, attacks, "linf"))


def _asked(version: str, attacks: Any, norm: str) -> list[tuple[str, dict[str, Any]]]:
    """Returns names and options of the attacks of a version, checked."""
    if version != "custom":
        if version not in VERSIONS:
            raise registry.unknown("version", version, [*VERSIONS, "custom"])
        if attacks is not None:
            raise InputError(f"attacks are for version='custom' only, got version={version!r} with attacks={attacks!r}.")
        return [(name, options | (in_l1 if norm == "l1" else {})) for name, options, in_l1 in VERSIONS[version]]
    if attacks is None or isinstance(attacks, str | Mapping) or len(attacks) == 0:
        raise InputError(
            f"version='custom' needs attacks, a sequence such as ('apgd-ce', ('square', {{'queries': 1000}})), got {attacks!r}."
        )
    return [_entry(entry, norm) for entry in attacks]


def _entry(entry: Any, norm: str) -> tuple[str, dict[str, Any]]:
    pair = (entry, {}) if isinstance(entry, str) else entry
    if not (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], Mapping)):
        raise InputError(f"an attack must be a name or a pair (name, {{option: value}}), got {entry!r}.")
    name, options = pair
    if name not in ATTACKS:
        raise registry.unknown("attack", name, ATTACKS)
    for option in options:
        if option not in ATTACKS[name].options:
            raise registry.unknown(f"option of {name!r}:", option, ATTACKS[name].options)
    # As in the versions: in L1 AutoAttack's apgds always begin in larger balls.
    return name, (_WIDE if norm == "l1" and ATTACKS[name].attack == "apgd" else {}) | dict(options)


def plan_stages(
    version: str, attacks: Any, norm: str, shape: tuple[int, ...], num_classes: int, *, randomized: bool = False
) -> list[Stage]:
    """Returns the attacks of a version for images of shape (h, w, c) and k classes; warns where the network does not suit it.

    Raises:
        InputError: for an unknown version, attack or option, with the nearest known one.
    """
    asked = _asked(version, attacks, norm)
    if version == "rand" and not randomized:
        warnings.warn("version 'rand' averages over a network's draws and this one draws nothing: one draw is used.", stacklevel=3)
        asked = [(name, options | {"eot": 1}) for name, options in asked]
    if randomized and version in ("standard", "plus", "fast"):
        warnings.warn(f"the network is randomized, which version {version!r} does not average over: 'rand' does.", stacklevel=3)
    stages, replaced = [], []
    for name, options in asked:
        kind = ATTACKS[name]
        bound = kind.bound | options
        if "num_targets" in bound:
            check_count("num_targets", bound["num_targets"])
            bound["num_targets"] = min(bound["num_targets"], num_classes - 1)
        objective = OBJECTIVES.get(bound.get("objective"))
        if objective is not None and num_classes < objective.least_classes:
            bound["objective"] = objective.instead
            replaced.append(f"{name} climbs {objective.instead!r}")
        count = sum(stage.name.partition(" ")[0] == name for stage in stages)
        stages.append(Stage(name if not count else f"{name} {count + 1}", _plan(kind.attack, bound, norm, shape, num_classes)))
    if replaced:
        warnings.warn(f"the DLR compares four classes and the network has {num_classes}: {', '.join(replaced)} instead.", stacklevel=3)
    return stages


def _plan(attack: str, bound: dict[str, Any], norm: str, shape: tuple[int, ...], num_classes: int) -> Plan:
    if attack == "apgd":
        return make_apgd(norm, shape=shape, **bound)
    if attack == "fab":
        return make_fab(norm, num_classes=num_classes, **bound)
    return make_square(norm, shape=shape, **bound)
