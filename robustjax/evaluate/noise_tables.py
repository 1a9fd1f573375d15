"""Accuracy under noise in a report: what is gathered from results, and what tables call it."""

from collections.abc import Iterable, Mapping

from robustjax.core import threats

_KINDS = {"gaussian": ("Gaussian noise", "standard deviation"), "uniform": ("uniform noise", "amplitude")}


def of_run(found: Iterable[dict]) -> tuple[dict[str, float], dict[str, dict]]:
    """Gathers one run's results of noise.

    Args:
        found: results, of any kind.

    Returns:
        Accuracies by `key` of the item, and {item: options, std (over the repeats, None of one)}.
    """
    numbers, entries = {}, {}
    for result in found:
        item = result["run"]["item"]
        if item["kind"] == "noise":
            numbers[key(item["name"])] = result["metrics"]["accuracy"]
            entries[item["name"]] = {"options": item["options"], "std": result["metrics"].get("accuracy_std")}
    return numbers, entries


def of_row(entries: Iterable[Mapping[str, Mapping]]) -> dict[str, dict]:
    """Returns the entries of a row of several runs: those of its first, with the deviations of all."""
    first, *rest = entries
    return {name: {"options": entry["options"], "stds": [entry["std"], *(e[name]["std"] for e in rest)]} for name, entry in first.items()}


def settings(entries: Mapping[str, Mapping]) -> dict:
    """Returns what runs that share a table have in common."""
    return {name: entry["options"] for name, entry in entries.items()}


def key(name: str) -> str:
    """Returns the key of an item's accuracy among a row's metrics."""
    return f"{name}_accuracy"


def title(kind: str) -> str:
    """Returns what tables and figures call a kind of noise.

    >>> title("uniform")
    'uniform noise, by amplitude'
    """
    return ", by ".join(_KINDS[kind])


def curves(row: Mapping) -> dict[str, list[tuple[float, dict]]]:
    """Returns {kind: [(level, accuracy), ...]} in rising order, from no noise on: mean, and std over the runs or else the repeats."""
    found: dict[str, list] = {}
    for name, entry in row.get("noise", {}).items():
        options, accuracy = entry["options"], row["metrics"][key(name)]
        if accuracy["std"] is None:
            accuracy = accuracy | {"std": entry["stds"][0]}
        found.setdefault(options["noise"], [(0.0, row["metrics"]["clean_accuracy"])]).append((options["level"], accuracy))
    return {kind: sorted(points, key=lambda point: point[0]) for kind, points in found.items()}


def tables(report: Mapping) -> list[tuple[str, list[str], list[list[str]]]]:
    """Returns (title, heads, cells) for each kind: a line for each level, a column for each row of the report and its paper's."""
    rows, papers = report["rows"], (report["reference"] or {}).get("rows", {})
    made = []
    for kind, points in curves(rows[0]).items():
        heads, columns = [_KINDS[kind][1]], [["clean", *(threats.fraction(level) for level, _ in points[1:])]]
        names = ["clean_accuracy", *(_name(kind, level) for level, _ in points[1:])]
        for row in rows:
            heads.append(row["label"])
            columns.append([_cell(accuracy["mean"], accuracy["std"]) for _, accuracy in curves(row)[kind]])
            theirs = papers.get(row["method"], {})
            if theirs.keys() & set(names[1:]):
                heads.append("*the paper's*")
                known = [(theirs.get(name), theirs.get(f"{name}_std")) for name in names]
                columns.append(["" if mean is None else f"*{_cell(mean, std)}*" for mean, std in known])
        made.append((f"Accuracy % under {title(kind)}", heads, [list(line) for line in zip(*columns, strict=True)]))
    return made


def footer(row: Mapping) -> list[str]:
    """Returns a line on what was measured, of a report's first row."""
    found = {(entry["options"]["repeats"], entry["options"]["seed"]) for entry in row.get("noise", {}).values()}
    return [
        f"Noise: in units of [0, 1] pixels, the sum clipped to [0, 1], the same noisy images for every network (seed {seed}); accuracy is the mean "
        f"over {repeats} draw{'s' if repeats > 1 else ''} for each image, ± the sample standard deviation over the seeds of a method, or over the "
        "draws where there is one seed."
        for repeats, seed in sorted(found)
    ]


def _name(kind: str, level: float) -> str:
    return f"noise/{kind}_{threats.fraction(level).replace('/', '_')}"


def _cell(mean: float, std: float | None) -> str:
    return f"{100 * mean:.2f}" + ("" if std is None else f" ± {100 * std:.2f}")
