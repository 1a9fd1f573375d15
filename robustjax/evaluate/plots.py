"""Figures of a report."""

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from robustjax.core import threats
from robustjax.evaluate import geometry_tables, noise_tables, robustness

COLOURS = ("#4c6a92", "#d1603d", "#5b8c5a", "#8d6a9f", "#c2a33a", "#6b6b6b")
_WIDE, _NARROW = 8.0, 3.2  # inches of a panel


def overview(report: dict, path: str | Path) -> None:
    """Writes the figure of a report to a file."""
    import matplotlib.pyplot as plt

    drawn = figure(report)
    drawn.savefig(path, dpi=130)
    plt.close(drawn)


def figure(report: dict):
    """Returns a figure of errors, a colour for each row of the report: by corruption and by severity (a line for each benchmark), and under attack.

    There are panels for what was measured only.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    rows = report["rows"]
    lines = _panels(rows)
    inches = max(7.0, *(sum(wide for wide, _ in line) for line in lines))
    made = plt.figure(figsize=(inches, 4.2 * len(lines) + 0.6), layout="constrained")
    for place, line in zip(made.add_gridspec(len(lines), 1), lines, strict=True):
        inner = place.subgridspec(1, len(line), width_ratios=[wide for wide, _ in line])
        for at, (_, draw) in zip(inner, line, strict=True):
            axis = made.add_subplot(at)
            draw(axis)
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(axis="y", alpha=0.3)
            axis.set_axisbelow(True)
    colours = [Patch(color=COLOURS[i % len(COLOURS)], label=row["label"]) for i, row in enumerate(rows)]
    made.legend(handles=colours, loc="outside lower center", ncols=min(len(rows), 4), frameon=False, fontsize=9)
    made.suptitle("\n".join(filter(None, ["; ".join([report["title"], *report["notes"]]), _origin(rows)])), fontsize=11)
    return made


def _panels(rows: list[dict]) -> list[list[tuple[float, Callable]]]:
    """Returns the lines of the figure, each a list of panels: (width, what draws it)."""
    lines = []
    for benchmark, errors in rows[0]["per_corruption"].items():
        lines.append([(_WIDE, partial(_by_corruption, rows=rows, benchmark=benchmark))])
        if len(next(iter(errors.values()))) > 1:
            lines[-1].append((_NARROW, partial(_by_severity, rows=rows, benchmark=benchmark)))
    lines = lines or [[(_NARROW, partial(_clean, rows=rows))]]
    attacks = [name for name in (f"{attack}_error" for attack in sorted(rows[0]["attacks"])) if name in rows[0]["metrics"]]
    found = rows[0].get("robust", {})
    attacks += [robustness.final(name) for name, entry in found.items() if entry["kind"] != "curve"]
    if attacks:
        lines[0].append((max(_NARROW, 0.8 * len(attacks)), partial(_attacked, rows=rows, attacks=attacks)))
    curves = [(_NARROW * 1.6, partial(_curve, rows=rows, norm=norm)) for norm in robustness.curves(rows[0])]
    curves += [(_NARROW * 1.6, partial(_flatness, rows=rows, of=of)) for of in geometry_tables.curves(rows[0])]
    curves += [(_NARROW * 1.6, partial(_noise, rows=rows, kind=kind)) for kind in noise_tables.curves(rows[0])]
    if not rows[0]["per_corruption"]:
        return [lines[0] + curves]
    return lines + ([curves] if curves else [])


def _origin(rows: list[dict]) -> str:
    """Returns what the corrupted images were: generated here, read from files, or both."""
    found = {"generated" if source.startswith("generated") else "files" for row in rows for source in row["sources"].values()}
    return f"corrupted images: {' and '.join(sorted(found, reverse=True))}" if found else ""


def _bars(groups: int, rows: list[dict]):
    """Yields, for each row, its bars' places, their width, and what they look like."""
    width = 0.8 / len(rows)
    for i, row in enumerate(rows):
        shift = (i - (len(rows) - 1) / 2) * width
        yield row, [place + shift for place in range(groups)], width, {"color": COLOURS[i % len(COLOURS)]}


def _by_corruption(axis, rows: list[dict], benchmark: str) -> None:
    names = list(rows[0]["per_corruption"][benchmark])
    for row, places, width, style in _bars(len(names), rows):
        axis.bar(places, [100 * statistics.fmean(row["per_corruption"][benchmark][name]) for name in names], width, **style)
    _label(axis, names)
    severities = len(rows[0]["per_corruption"][benchmark][names[0]])
    axis.set(ylabel="error %", title=f"{benchmark}, by corruption" + (f" (mean of {severities} severities)" if severities > 1 else ""))


def _by_severity(axis, rows: list[dict], benchmark: str) -> None:
    for i, row in enumerate(rows):
        errors = row["per_corruption"][benchmark].values()
        means = [100 * statistics.fmean(values) for values in zip(*errors, strict=True)]
        clean = 100 - 100 * row["metrics"]["clean_accuracy"]["mean"]
        axis.plot(range(len(means) + 1), [clean, *means], "o-", color=COLOURS[i % len(COLOURS)])
    axis.set(xlabel="severity (0: clean)", title="mean of the corruptions", ylim=(0, 1.05 * max(axis.get_ylim()[1], 1)))


def _clean(axis, rows: list[dict]) -> None:
    for row, places, width, style in _bars(1, rows):
        axis.bar(places, [100 - 100 * row["metrics"]["clean_accuracy"]["mean"]], width, **style)
    _label(axis, ["clean"])
    axis.set(ylabel="error %")


def _attacked(axis, rows: list[dict], attacks: list[str]) -> None:
    for row, places, width, style in _bars(len(attacks), rows):
        spreads = [row["metrics"][name] for name in attacks]
        deviation = None if spreads[0]["std"] is None else [100 * s["std"] for s in spreads]
        errors = [s["mean"] if name.endswith("_error") else 1 - s["mean"] for name, s in zip(attacks, spreads, strict=True)]
        axis.bar(places, [100 * error for error in errors], width, yerr=deviation, capsize=3, **style)
    labels = {robustness.final(name): entry["label"].replace(", ", "_") for name, entry in rows[0].get("robust", {}).items()}
    _label(axis, [labels.get(name, name.removesuffix("_error")) for name in attacks])
    axis.set(title="under attack", ylim=(0, 100), ylabel="error %")


def _curve(axis, rows: list[dict], norm: str) -> None:
    """Draws accuracy by radius, and what AutoAttack found at these radii."""
    markers: dict[str, str] = {}
    for i, row in enumerate(rows):
        points = robustness.curves(row)[norm]
        axis.plot([eps for eps, _ in points], [100 * accuracy["mean"] for _, accuracy in points], "o-", color=COLOURS[i % len(COLOURS)])
        for name, entry in row["robust"].items():
            options = entry["options"]
            if entry["kind"] == "autoattack" and options["norm"] == norm and options["eps"] in [eps for eps, _ in points]:
                what = entry["label"].rpartition(",")[0]
                marker = markers.setdefault(what, "*X^v"[len(markers) % 4])
                accuracy = 100 * row["metrics"][robustness.final(name)]["mean"]
                axis.plot([options["eps"]], [accuracy], marker, color=COLOURS[i % len(COLOURS)], markersize=11, clip_on=False)
    for what, marker in {"PGD-20": "o", **markers}.items():
        axis.plot([], [], marker, color="black", label=what)
    radii = [eps for eps, _ in robustness.curves(rows[0])[norm]]
    axis.set_xticks(radii, [threats.fraction(eps) for eps in radii], fontsize=8)
    axis.legend(frameon=False, fontsize=8)
    axis.set(xlabel=f"radius, {robustness.NORMS[norm]}", ylabel="accuracy %", title="accuracy by radius", ylim=(0, 100))


def _flatness(axis, rows: list[dict], of: str) -> None:
    """Draws the loss by distance from the weights, on a logarithmic scale, with the deviation over the seeds."""
    for i, row in enumerate(rows):
        radii, losses = zip(*geometry_tables.curves(row)[of], strict=True)
        deviations = [loss["std"] or 0.0 for loss in losses]
        axis.errorbar(radii, [loss["mean"] for loss in losses], deviations, fmt="o-", capsize=3, color=COLOURS[i % len(COLOURS)])
    axis.set(yscale="log", xlabel=geometry_tables.radius_title(of), ylabel="loss (nats)", title="flatness")


def _noise(axis, rows: list[dict], kind: str) -> None:
    """Draws accuracy by the level of noise; bands are the deviation over the seeds, of one seed that over the draws."""
    for i, row in enumerate(rows):
        levels, accuracies = zip(*noise_tables.curves(row)[kind], strict=True)
        mean = np.array([100 * accuracy["mean"] for accuracy in accuracies])
        std = np.array([100 * (accuracy["std"] or 0.0) for accuracy in accuracies])
        axis.plot(levels, mean, "o-", color=COLOURS[i % len(COLOURS)], markersize=4)
        axis.fill_between(levels, mean - std, mean + std, color=COLOURS[i % len(COLOURS)], alpha=0.25, linewidth=0)
    axis.set_xticks(levels, [threats.fraction(level) for level in levels], fontsize=8, rotation=35, ha="right", rotation_mode="anchor")
    axis.set(xlabel="bands: ± the deviation in the table", ylabel="accuracy %", title=noise_tables.title(kind))


def _label(axis, names: list[str]) -> None:
    """Writes names under bars: upright while they are few, else slanted so that they cannot overlap."""
    few = len(names) <= 4
    slant = {} if few else {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    axis.set_xticks(range(len(names)), [name.replace("_", "\n" if few else " ") for name in names], fontsize=8, **slant)
