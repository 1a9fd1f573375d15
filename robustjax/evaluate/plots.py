"""Figures of a report."""

import statistics
from pathlib import Path

COLOURS = ("#4c6a92", "#d1603d", "#5b8c5a", "#8d6a9f", "#c2a33a", "#6b6b6b")


def overview(report: dict, path: str | Path) -> None:
    """Draws errors, a colour for each row of the report: by corruption and by severity (a line for each benchmark), and under attack."""
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    rows = report["rows"]
    benchmarks = list(rows[0]["per_corruption"])
    attacks = [name for name in rows[0]["metrics"] if name.startswith("pgd")]
    lines = max(1, len(benchmarks))
    figure, grid = plt.subplots(lines, 3, figsize=(14, 4.2 * lines), width_ratios=(2.8, 1, 1.1), layout="constrained", squeeze=False)
    for axes, benchmark in zip(grid, benchmarks, strict=False):
        _by_corruption(axes[0], rows, benchmark)
        _by_severity(axes[1], rows, benchmark)
    if attacks:
        _attacked(grid[0][2], rows, attacks)
    if not benchmarks:
        _clean(grid[0][0], rows)
    for axis in grid.flat:
        if not axis.has_data():
            axis.set_axis_off()
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
    colours = [Patch(color=COLOURS[i % len(COLOURS)], label=row["label"]) for i, row in enumerate(rows)]
    figure.legend(handles=colours, loc="outside lower center", ncols=min(len(rows), 4), frameon=False, fontsize=9)
    figure.suptitle("; ".join([report["title"], *report["notes"]]), fontsize=11)
    figure.savefig(path, dpi=130)
    plt.close(figure)


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
        errors = list(row["per_corruption"][benchmark].values())
        if len(errors[0]) == 1:
            return
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
        axis.bar(places, [100 * s["mean"] for s in spreads], width, yerr=deviation, capsize=3, **style)
    _label(axis, [name.removesuffix("_error") for name in attacks])
    axis.set(title="under attack", ylim=(0, 100))


def _label(axis, names: list[str]) -> None:
    """Writes names under bars: upright while they are few, else slanted so that they cannot overlap."""
    few = len(names) <= 4
    slant = {} if few else {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    axis.set_xticks(range(len(names)), [name.replace("_", "\n" if few else " ") for name in names], fontsize=8, **slant)
