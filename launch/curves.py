"""Lines along an axis, from runs to a table and a figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from configs.tables import Sweep
from launch import compare, plan
from launch.jobs import Failure
from robustjax.evaluate import geometry_tables
from robustjax.io import results

BASELINE = "baseline"
_COLOURS = ("#4c6a92", "#d1603d", "#5b8c5a", "#8d6a9f")


class Line(NamedTuple):
    """What one line of a figure is drawn from; the baseline has one point, and goes all along."""

    data: str
    label: str
    kind: str  # 'points', 'baseline' or 'radii'
    cells: dict[float | str, plan.Cell]


def expand(sweep: Sweep, datasets: Sequence[str], settings: plan.Settings) -> list[Line]:
    """Returns the lines of a sweep; in the quick form with the first, a middle and the last of its numbers only."""
    found = []
    for data in datasets:
        file = sweep.files[data]
        for label, points in sweep.lines[data].items():
            at = list(points)
            if settings.scale == "quick" and not isinstance(at[0], str):
                at = [at[0], at[len(at) // 2], at[-1]]
            cells = {point: plan.cell(f"{label}, {sweep.axis} {point}", data, file, points[point], sweep, settings) for point in at}
            found.append(Line(data, label, "points", cells))
        if sweep.baseline:
            cell = plan.cell(BASELINE, data, file, sweep.baseline, sweep, settings)
            found.append(Line(data, BASELINE, "baseline", {BASELINE: cell}))
        for label, row in sweep.radii.get(data, {}).items():
            cell = plan.cell(f"{label}, flatness", data, file, row, sweep._replace(suite="flatness"), settings)
            found.append(Line(data, label, "radii", {label: cell}))
    return found


def gathered(
    name: str,
    sweep: Sweep,
    scale: str,
    lines: Sequence[Line],
    paper: Mapping,
    *,
    notes: Sequence[str] = (),
    failures: Sequence[Failure] = (),
    command: str = "",
) -> dict:
    """Returns a sweep as JSON.

    Args:
        name: of the sweep.
        sweep: of configs/tables.py.
        scale: at which it was run.
        lines: see `expand`; what was measured is read from the reports of their runs.
        paper: the entry of tables.json that has the paper's points, or nothing.
        notes: what is to be said above the table.
        failures: of jobs.
        command: that made it.

    Returns:
        sweep, title, axis, scale, metrics, notes, measured (on what), failures, environments, command and `data`: for each data set its lines,
        with points at x, `ours` and `theirs` by metric; those of kind 'radii' have the loss at x.
    """
    about: list[dict] = []
    data: dict[str, list[dict]] = {}
    for line in lines:
        points = []
        for x, cell in line.cells.items():
            ours, _, of_cell = compare.measured(cell)
            about += of_cell
            if line.kind == "radii":
                points += [{"x": x, "of": of, "ours": {"loss": loss}, "theirs": {}} for (of, x), loss in _by_radius(cell).items()]
                continue
            printed = paper.get(line.data, {}).get(sweep.printed.get(line.label, {}).get(x), {})
            theirs = {metric: number for metric, number in compare.theirs(printed).items() if metric in sweep.metrics}
            points.append({"x": x, "ours": {metric: ours[metric] for metric in sweep.metrics if metric in ours}, "theirs": theirs})
        data.setdefault(line.data, []).append({"label": line.label, "kind": line.kind, "points": points})
    return {
        "sweep": name,
        "title": sweep.title,
        "axis": sweep.axis,
        "metrics": list(sweep.metrics),
        **compare.circumstances(about, scale, notes=notes, failures=failures, command=command),
        "data": data,
    }


def _by_radius(cell: plan.Cell) -> dict[tuple[str, str], dict]:
    """Returns the loss over the seeds by what distances from the weights are of, and the distance; where it was measured."""
    values: dict[tuple[str, str], list[float]] = {}
    for path in cell.measured:
        (row,) = (results.read_json(path) or {"rows": [{}]})["rows"]
        for of, points in geometry_tables.curves(row).items():
            for radius, loss in points:
                values.setdefault((geometry_tables.radius_title(of), f"{radius:g}"), []).append(loss["mean"])
    return {place: compare.spread(found) for place, found in values.items()}


def markdown(report: Mapping) -> str:
    """Returns a sweep of `gathered` as Markdown."""
    lines = [f"### {report['title']}", "", *(f"**{line}**\n" for line in compare.remarks(report))]
    for data, found in report["data"].items():
        printed = any(point["theirs"] for line in found for point in line["points"])
        heads = ["line", report["axis"]]
        for metric in report["metrics"]:
            heads += [compare.heading(metric), *(["*the paper's*", "difference"] * printed)]
        lines += [f"#### {data}", "", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        for line in (line for line in found if line["kind"] != "radii"):
            for point in line["points"]:
                cells = [line["label"], "" if line["kind"] == "baseline" else str(point["x"])]
                for metric in report["metrics"]:
                    cells += compare.beside(metric, point["ours"].get(metric), point["theirs"].get(metric))[: 3 if printed else 1]
                lines.append("| " + " | ".join(cells) + " |")
        lines += ["", *_radii([line for line in found if line["kind"] == "radii"])]
    lines += compare.failed(report)
    lines += [f"Means and sample standard deviations over seeds; of {'; '.join(report['measured']) or 'nothing yet'}.  "]
    return "\n".join([*lines, *compare.hardware(report), f"Command: `{report['command']}`."]) + "\n"


def _radii(found: Sequence[Mapping]) -> list[str]:
    """Returns a table of the loss by radius."""
    radii = list(dict.fromkeys(point["x"] for line in found for point in line["points"]))
    if not radii:
        return []
    of = next(point["of"] for line in found for point in line["points"])
    lines = [
        f"#### Loss (nats) by distance from the weights: {of}",
        "",
        "| method | " + " | ".join(radii) + " |",
        "|" + "---|" * (len(radii) + 1),
    ]
    for line in found:
        at = {point["x"]: geometry_tables.cell(point["ours"]["loss"]) for point in line["points"]}
        lines.append(f"| {line['label']} | " + " | ".join(at.get(radius, "-") for radius in radii) + " |")
    return [*lines, ""]


def figure(report: Mapping):
    """Returns a figure: for each data set a panel for each metric, with the paper's points as crosses, and one for the loss by radius."""
    import matplotlib.pyplot as plt

    data = report["data"]
    radii = any(line["kind"] == "radii" for found in data.values() for line in found)
    across = len(report["metrics"]) + radii
    made, axes = plt.subplots(len(data), across, figsize=(4.2 * across, 3.4 * len(data) + 0.6), squeeze=False, layout="constrained")
    for row, (dataset, found) in zip(axes, data.items(), strict=True):
        for axis, metric in zip(row, report["metrics"], strict=False):
            _lines(axis, metric, [line for line in found if line["kind"] != "radii"])
            axis.set(xlabel=report["axis"], ylabel=compare.heading(metric), title=dataset)
        if radii:
            _losses(row[-1], [line for line in found if line["kind"] == "radii"])
            row[-1].set_title(dataset)
            row[-1].set_visible(any(line["kind"] == "radii" for line in found))
        for axis in row:
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
            if axis.get_legend_handles_labels()[1]:
                axis.legend(frameon=False, fontsize=8)
    compare.titled(made, report["title"], report)
    return made


def _lines(axis, metric: str, found: Sequence[Mapping]) -> None:
    """Draws lines of points, and the baseline all along."""
    factor = 1 if compare.plain(metric) else 100
    colours = iter(_COLOURS)
    for line in found:
        points = [point for point in line["points"] if metric in point["ours"]]
        means = [factor * point["ours"][metric]["mean"] for point in points]
        if line["kind"] == "baseline":
            for mean in means:
                axis.axhline(mean, color="#8a8a8a", label=line["label"])
            continue
        colour = next(colours)
        errors = [factor * (point["ours"][metric]["std"] or 0.0) for point in points]
        places = [point["x"] for point in points]
        named = bool(places) and isinstance(places[0], str)  # side by side, with nothing between them
        axis.errorbar(places, means, yerr=errors, fmt="o" if named else "o-", capsize=2, color=colour, label=line["label"])
        axis.tick_params(axis="x", labelrotation=20 if named else 0)
        printed = [(point["x"], factor * point["theirs"][metric]["mean"]) for point in line["points"] if metric in point["theirs"]]
        if printed:
            axis.plot(*zip(*printed, strict=True), "x", color=colour, label=f"{line['label']}, the paper's")


def _losses(axis, found: Sequence[Mapping]) -> None:
    """Draws the loss by radius."""
    for line, colour in zip(found, _COLOURS, strict=False):
        losses = [point["ours"]["loss"] for point in line["points"]]
        radii, means = [float(point["x"]) for point in line["points"]], [loss["mean"] for loss in losses]
        axis.errorbar(radii, means, yerr=[loss["std"] or 0.0 for loss in losses], marker="o", capsize=2, color=colour, label=line["label"])
    of = next((point["of"] for line in found for point in line["points"]), "radius")
    axis.set(xlabel=of, ylabel="loss (nats)", yscale="log")


def write(report: Mapping, folder: Path) -> list[Path]:
    """Writes report.json, report.md and report.png into a folder; returns their paths."""
    return compare.written_to(folder, report, markdown(report), figure)
