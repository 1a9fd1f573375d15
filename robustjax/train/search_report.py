"""What a search found and what it took: SPIDER's Table 7, and the trials as a table and as a figure."""

from pathlib import Path

from robustjax.io import results
from robustjax.train import study
from robustjax.train.study import Range, Space


def collect(found, *, epochs: int, space: Space, sampler: str) -> dict:
    """Returns the finished trials of a study, the best one, and `costs`; JSON-like.

    Args:
        found: see `study.opened`.
        epochs: of a whole trial.
        space: what was searched.
        sampler: how.
    """
    trials = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "parameters": dict(trial.params),
            "value": trial.value,
            "epochs": trial.user_attrs.get("epochs", 0),
            "seconds": trial.user_attrs.get("seconds", 0.0),
        }
        for trial in study.finished(found)
    ]
    complete = [trial for trial in trials if trial["state"] == "complete"]
    # Of equals the first, as Optuna has it.
    best = max(complete, key=lambda trial: (trial["value"], -trial["number"]), default=None)
    return {
        "study": found.study_name,
        "sampler": sampler,
        "space": {name: values._asdict() if isinstance(values, Range) else list(values) for name, values in space.items()},
        "epochs": epochs,
        "trials": trials,
        "best": best and dict(best),
        "costs": costs(trials, epochs),
        "environment": results.environment(),
    }


def costs(trials: list[dict], epochs: int) -> dict:
    """Returns the rows of SPIDER's Table 7, appendix E.2.1.

    Seconds are those of training steps, compilation included. The prediction is that of the paper, whose rows agree with it: as if every trial had been as long as
    a whole one, at the mean pace of all trials.

    Args:
        trials: each with `seconds` and `epochs` that it was trained.
        epochs: of a whole trial.

    Returns:
        `pruned_seconds`, `predicted_full_seconds`, `speed_gain` and `equivalent_trials`; the gain and the prediction are None where nothing
        was trained.
    """
    spent = sum(trial["seconds"] for trial in trials)
    equivalent = sum(trial["epochs"] for trial in trials) / epochs
    gain = len(trials) / equivalent if equivalent else None
    return {
        "pruned_seconds": spent,
        "predicted_full_seconds": gain and spent * gain,
        "speed_gain": gain,
        "equivalent_trials": equivalent,
    }


def markdown(report: dict) -> str:
    """Returns the table of costs, and below it that of the trials, the best first."""
    cost, trials, best = report["costs"], report["trials"], report["best"]
    full, gain = cost["predicted_full_seconds"], cost["speed_gain"]
    said = [f"{report['study']}, {report['sampler']}, {len(trials)} trials of {report['epochs']} epochs", *report["notes"]]
    lines = [
        f"Search of {', '.join(report['space'])}: {'; '.join(said)}. Validation images: {report['validation_data']}.",
        "",
        "| as in SPIDER, Table 7 | |",
        "|---|---:|",
        f"| pruned training duration (hours) | {cost['pruned_seconds'] / 3600:.3g} |",
        f"| predicted full training duration (hours) | {'-' if full is None else f'{full / 3600:.3g}'} |",
        f"| speed gain (times faster) | {'-' if gain is None else f'{gain:.2f}'} |",
        f"| equivalent non-pruned trials | {cost['equivalent_trials']:.2f} |",
        f"| best trial, of {len(trials)} (from 0) | {'-' if best is None else best['number']} |",
        "",
        f"| trial | {' | '.join(report['space'])} | validation accuracy % | epochs | |",
        f"|---:|{'---:|' * len(report['space'])}---:|---:|---|",
    ]
    # Those that ran to the end first, whatever a pruned one had reached.
    for trial in sorted(trials, key=lambda one: (one["state"] != "complete", -(one["value"] or 0.0), one["number"])):
        values = (f"{trial['parameters'].get(name, float('nan')):.4g}" for name in report["space"])
        value = "-" if trial["value"] is None else f"{100 * trial['value']:.2f}"
        lines.append(f"| {trial['number']} | {' | '.join(values)} | {value} | {trial['epochs']} | {trial['state']} |")
    return "\n".join(lines)


def figure(report: dict):
    """Returns a figure of the validation accuracy by each parameter: whole trials, pruned ones (where they were stopped) and the best."""
    import matplotlib.pyplot as plt

    made, axes = plt.subplots(
        1, len(report["space"]), figsize=(4.2 * len(report["space"]), 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (name, values) in zip(axes[0], report["space"].items(), strict=True):
        for state, style in (("pruned", {"facecolors": "none", "edgecolors": "#8a8a8a"}), ("complete", {"color": "#4c6a92"})):
            chosen = [trial for trial in report["trials"] if trial["state"] == state and trial["value"] is not None]
            places = [trial["parameters"][name] for trial in chosen]
            axis.scatter(places, [100 * trial["value"] for trial in chosen], s=28, label=f"{state} ({len(chosen)})", **style)
        if report["best"]:
            best = report["best"]
            axis.scatter(
                best["parameters"][name], 100 * best["value"], marker="*", s=150, color="#d1603d", label=f"best: trial {best['number']}"
            )
        axis.set(xlabel=name, xscale="log" if isinstance(values, dict) and values["log"] else "linear")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel(f"validation accuracy % ({report['validation_data']})")
    axes[0, 0].legend(frameon=False, fontsize=8)
    made.suptitle("; ".join([f"{report['study']}: {len(report['trials'])} trials", *report["notes"]]), fontsize=11)
    return made


def write(report: dict, folder: str | Path) -> list[str]:
    """Writes search.json, search.md and search.png, and returns where."""
    import matplotlib.pyplot as plt

    folder = Path(folder)
    results.write_json(folder / "search.json", report)
    drawn = figure(report)
    with results.writing(folder):
        (folder / "search.md").write_text(markdown(report) + "\n")
        drawn.savefig(folder / "search.png", dpi=130)
    plt.close(drawn)
    return [str(folder / name) for name in ("search.json", "search.md", "search.png")]
