"""Attacks in a report: what is gathered from results, and what tables call it."""

from collections.abc import Iterable, Mapping

from robustjax.attacks.audit import audit_curve
from robustjax.attacks.versions import ATTACKS, label
from robustjax.core import threats

NORMS = {"linf": "L-inf", "l2": "L2", "l1": "L1"}


def of_run(found: Iterable[dict]) -> dict:
    """Gathers one run's results of attacks.

    Args:
        found: results, of any kind.

    Returns:
        `attacks`: {name: options} of PGD and CW attacks, whose errors are a column each; `robust`: {item: what it was, and the
        accuracy after each stage, the clean one first}; `warnings`: {text: the items it is about}.
    """
    found = list(found)
    attacks, robust, warnings = {}, {}, {}
    for result in found:
        item = result["run"]["item"]
        options = item["options"]
        if item["kind"] == "attack":
            attacks[item["name"].removeprefix("attack/")] = options
        elif "stages" in result:
            stages = {"clean": result["metrics"]["clean_accuracy"]}
            stages |= {stage["name"]: stage["robust_accuracy"] for stage in result["stages"]}
            if item["kind"] == "transfer":
                stages["surrogate"] = result["metrics"]["surrogate_accuracy"]
            cost = {key: result[key] for key in ("seconds", "images_per_second", "peak_memory_bytes", "peak_memory_of")}
            robust[item["name"]] = {"kind": item["kind"], "label": _label(item), "options": options, "stages": stages, "cost": cost}
        for texts in result.get("warnings", {}).values():
            for text in texts:
                warnings.setdefault(text, []).append(item["name"])
    for name, texts in _doubtful_curves(found).items():
        for text in texts:
            warnings.setdefault(text, []).append(name)
    return {"attacks": attacks, "robust": robust, "warnings": warnings}


def _doubtful_curves(found: list[dict]) -> dict[str, list[str]]:
    """Compares accuracy at one radius with that at others, and AutoAttack with PGD at the same radius."""
    by_radius: dict[tuple[str, str], dict[float, float]] = {}
    about: dict[str, dict] = {}
    for result in found:
        item, options = result["run"]["item"], result["run"]["item"]["options"]
        if item["kind"] in ("curve", "autoattack"):
            name = "curve" if item["kind"] == "curve" else item["name"].partition("/")[0]
            by_radius.setdefault((name, options["norm"]), {})[options["eps"]] = result["metrics"]["accuracy"]
            about[options["norm"]] = result
    warnings = {}
    for (name, norm), accuracy in by_radius.items():
        result = about[norm]
        weaker = None if name == "curve" else by_radius.get(("curve", norm))
        accuracy = {0.0: result["metrics"]["clean_accuracy"], **accuracy}
        warnings[f"{name}/{norm}"] = audit_curve(accuracy, n=result["n"], norm=norm, majority=result["majority"], weaker=weaker)
    return warnings


def _label(item: Mapping) -> str:
    options = item["options"]
    ball = written(options)
    if item["kind"] == "autoattack":
        return f"{label(options['version'])}, {ball}"
    name = f"{'PGD' if options.get('objective', 'ce') == 'ce' else 'CW'}-{options['steps']}"
    return f"{name}, {ball}" + (f", from {options['surrogate']}" if item["kind"] == "transfer" else "")


def written(options: Mapping) -> str:
    """Returns a threat as tables have it.

    >>> written({"norm": "linf", "eps": 8 / 255})
    'L-inf 8/255'
    """
    return f"{NORMS[options['norm']]} {threats.fraction(options['eps'])}"


def stage_title(name: str) -> str:
    """Returns what tables call a stage.

    >>> stage_title("apgd-t"), stage_title("clean")
    ('APGD-T', 'clean')
    """
    kind, _, count = name.partition(" ")
    return " ".join(filter(None, [ATTACKS[kind].title if kind in ATTACKS else kind, count]))


def final(name: str) -> str:
    """Returns the key of an attack's accuracy among a row's metrics."""
    return f"{name}_robust"


def is_final(key: str) -> bool:
    """Returns whether a row's metric is the accuracy that an attack has left."""
    return key.endswith("_robust")


def curves(row: Mapping) -> dict[str, list[tuple[float, dict]]]:
    """Returns {norm: [(radius, accuracy over the seeds), ...]} in rising order, from radius 0 on."""
    found: dict[str, list] = {}
    for name, entry in row.get("robust", {}).items():
        if entry["kind"] == "curve":
            norm = entry["options"]["norm"]
            found.setdefault(norm, [(0.0, row["metrics"]["clean_accuracy"])]).append((entry["options"]["eps"], row["metrics"][final(name)]))
    return {norm: sorted(points, key=lambda point: point[0]) for norm, points in found.items()}
