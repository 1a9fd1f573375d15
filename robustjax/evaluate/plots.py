"""Figures of a report."""

from pathlib import Path

COLOURS = ("#4c6a92", "#d1603d", "#5b8c5a", "#8d6a9f", "#c2a33a", "#6b6b6b")


def overview(report: dict, path: str | Path) -> None:
    """Draws error by corruption, error by severity, and error under attack, a colour for each row of the report."""
    import matplotlib.pyplot as plt

    rows = report["rows"]
    names = list(rows[0]["per_corruption"])
    attacks = [name for name in rows[0]["metrics"] if name.startswith("pgd")]
    width = 0.8 / len(rows)
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), width_ratios=(2.2, 1.1, 1.2), layout="constrained")
    for i, row in enumerate(rows):
        colour, shift = COLOURS[i % len(COLOURS)], (i - (len(rows) - 1) / 2) * width
        by_name = [100 * sum(row["per_corruption"][name]) / len(row["per_corruption"][name]) for name in names]
        axes[0].bar([x + shift for x in range(len(names))], by_name, width, color=colour, label=row["label"])
        if names:
            by_severity = [100 * sum(row["per_corruption"][name][s] for name in names) / len(names) for s in range(5)]
            axes[1].plot([0, *range(1, 6)], [100 - 100 * row["metrics"]["clean_accuracy"]["mean"], *by_severity], "o-", color=colour)
        spreads = [row["metrics"][name] for name in attacks]
        axes[2].bar(
            [x + shift for x in range(len(attacks))],
            [100 * s["mean"] for s in spreads],
            width,
            color=colour,
            yerr=[100 * (s["std"] or 0) for s in spreads],
            capsize=3,
        )
    axes[0].set_xticks(range(len(names)), [name.replace("_", "\n") for name in names], fontsize=8)
    axes[0].set(ylabel="error %", title="by corruption, mean of five severities")
    axes[1].set(xlabel="severity (0: clean)", title="mean of the corruptions", ylim=(0, None))
    axes[2].set_xticks(range(len(attacks)), [name.removesuffix("_error").replace("_", "\n") for name in attacks], fontsize=8)
    axes[2].set(title="under attack", ylim=(0, 100))
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.3)
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle("; ".join([report["title"], *report["notes"]]), fontsize=11)
    figure.savefig(path, dpi=130)
    plt.close(figure)
