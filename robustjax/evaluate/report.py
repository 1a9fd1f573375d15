"""Reports: the results of several runs as one table (Markdown and JSON) and a figure.

Runs that differ in nothing but their seed share a row, as mean and standard deviation over the seeds. A row never mixes corrupted
images of different origin. A report's JSON holds all that its tables say, so that they can be printed again from the file (README
tables are): see `tables`.
"""

import json
import statistics
from importlib import resources
from pathlib import Path

from robustjax import metrics
from robustjax.core.check import InputError
from robustjax.data import digest
from robustjax.evaluate import geometry_tables, labels, noise_tables, robustness, sources, tables
from robustjax.evaluate.suites import SENSOR, reference_of
from robustjax.evaluate.tables import markdown
from robustjax.io import results
from robustjax.io.log import read_lines

__all__ = ["collect", "markdown", "write"]


def collect(runs: list[tuple], *, command: str = "", title: str = "", table: str = "") -> dict:
    """Gathers the results of runs into one report.

    Args:
        runs: for each run its folder and what `run.evaluate` gave; and, where a run is there with several checkpoints, which one:
            (folder, results, 'last').
        command: what made the report, for its footer.
        title: its heading.
        table: a key of reference/tables.json or reference/robustbench.json, whose numbers stand beside ours. Weights that RobustBench
            knows by the name of their file are set beside its numbers if none is asked for.

    Returns:
        A JSON-like dict: title, command, data, rows, environment, notes, reference (numbers of a paper or a leaderboard), corruption_reference (the
        network that normalised mean corruption errors are divided by).

    Raises:
        InputError: if runs of other items or test sizes would share a table, or a seed is there twice.
    """
    summaries = [_summary(Path(workdir), *found) for workdir, *found in runs]
    first = summaries[0]
    for summary in summaries[1:]:
        if _measured(summary) != _measured(first):
            raise InputError(
                f"{summary['workdir']} was measured on {summary['n']} images ({', '.join(summary['numbers'])}), {first['workdir']} on "
                f"{first['n']} ({', '.join(first['numbers'])}); one table needs the same --suite, --limit, attacks, --geometry and --noise."
            )
    groups: dict[str, list[dict]] = {}
    for summary in summaries:
        began = "" if not summary["config"]["init"] else "begun"  # with weights of others: which ones may go with the seed
        alike = [
            results.comparable({**summary["config"], "seed": None, "init": began}),
            summary["data"],
            summary["sources"],
            summary["checkpoint"],
            summary["made_of"],
        ]
        group = groups.setdefault(json.dumps(alike, sort_keys=True), [])
        if any(other["config"]["seed"] == summary["config"]["seed"] for other in group):
            raise InputError(f"{summary['workdir']} repeats a run of the same configuration and seed; name each run once.")
        group.append(summary)
    rows = [_row(group) for group in groups.values()]
    if len({json.dumps(row["model"]) for row in rows}) > 1:
        rows = [row | {"label": f"{row['label']}, {tables.network(row['model'])}"} for row in rows]
    if len({row["checkpoint"] for row in rows}) > 1:
        rows = [row | {"label": f"{row['label']}, {row['checkpoint']} checkpoint"} for row in rows]
    if len({json.dumps(row["sources"]) for row in rows}) > 1:
        rows = [row | {"label": f"{row['label']} [{' / '.join(dict.fromkeys(row['sources'].values()))}]"} for row in rows]
    said = [row["label"] for row in rows]
    same = {label for label in said if said.count(label) > 1}
    rows = [row | {"label": f"{row['label']}, digest {row['made_of']}"} if row["label"] in same and row["made_of"] else row for row in rows]
    return {
        "title": title or f"Results on {first['data']}",
        "command": command,
        "data": sorted({summary["data"] for summary in summaries}),
        "notes": sorted({note for summary in summaries for note in summary["notes"]}),
        "rows": rows,
        "environment": first["environment"],
        "reference": _printed_elsewhere(table, rows),
        "corruption_reference": first["corruption_reference"],
    }


def _summary(workdir: Path, found: list[dict], checkpoint: str = "best") -> dict:
    """Returns one run's numbers."""
    stored = results.read_json(workdir / "config.json")
    if not isinstance(stored, dict):
        raise InputError(f"{workdir / 'config.json'} is missing or damaged: a table needs it; copy the run's folder again.")
    config = results.completed(stored)
    training = results.read_json(workdir / "training.json") or {}
    by_name = {result["name"]: result for result in found}
    clean = by_name["clean"]
    numbers = {name: clean["metrics"][key] for name, key in (("clean_accuracy", "accuracy"), ("nll_nats",) * 2, ("ece_15_bins",) * 2)}
    items: dict[str, list[dict]] = {}
    errors: dict[str, dict[str, list[float]]] = {}
    for result in found:
        item = result["run"]["item"]
        if item["kind"] in ("corruption", "files"):  # severities come in rising order, see suites
            benchmark = item["options"]["benchmark"]
            name = item["name"].removeprefix(f"{SENSOR}/") if benchmark == SENSOR else item["options"]["name"]
            items.setdefault(benchmark, []).append(item)
            errors.setdefault(benchmark, {}).setdefault(name, []).append(result["metrics"]["error"])
        elif item["kind"] == "attack":
            numbers[f"{item['name'].removeprefix('attack/')}_error"] = result["metrics"]["error"]
        elif item["kind"] in ("autoattack", "transfer", "curve"):
            numbers[robustness.final(item["name"])] = result["metrics"]["accuracy"]
    of_geometry, entries = geometry_tables.of_run(found)
    under_noise, noises = noise_tables.of_run(found)
    numbers |= of_geometry | under_noise
    own = config["evaluation"]["benchmark"]
    reference = reference_of(config) if own in errors else None
    normalised = _add_corruption_errors(numbers, errors, own, reference)
    return {
        "workdir": str(workdir),
        "config": config,
        "numbers": numbers,
        "per_corruption": errors,
        "normalised": normalised,
        "corruption_reference": reference and {"label": reference.label, "source": reference.source},
        "sources": {benchmark: sources.described(of) for benchmark, of in items.items()},
        **robustness.of_run(found),
        "geometry": entries,
        "noise": noises,
        "sensor": {item["name"].removeprefix(f"{SENSOR}/"): item["options"] for item in items.get(SENSOR, [])},
        "n": clean["n"],
        "checkpoint": checkpoint,
        "terms": _last_terms(workdir, clean["run"]["checkpoint_step"]),
        "step": clean["run"]["checkpoint_step"],
        "data": clean["run"]["data"],
        "notes": clean["run"]["notes"],
        "made_of": digest.named(" ".join(clean["run"]["notes"])),  # copies, networks or pictures, whose place may be the same
        "environment": clean["environment"],
        "training_seconds": training.get("seconds"),
    }


def _measured(summary: dict) -> tuple:
    return summary["n"], set(summary["numbers"]), geometry_tables.settings(summary["geometry"]), noise_tables.settings(summary["noise"])


def _last_terms(workdir: Path, step: int) -> dict[str, float]:
    """Returns the parts of the training loss in the last epoch before a checkpoint, of objectives that have such."""
    log = workdir / "log.jsonl"
    records = [record for record in (read_lines(log) if log.exists() else []) if record["step"] == step]
    plain = ("loss", "accuracy")
    return {
        name.removeprefix("train_"): value
        for record in records[-1:]
        for name, value in record.items()
        if name.startswith("train_") and name.removeprefix("train_") not in plain
    }


def _add_corruption_errors(numbers: dict, errors: dict, own: str, reference: metrics.Reference | None) -> dict[str, dict[str, float]]:
    """Adds a number for each benchmark (for the sensors, one each); returns the normalised CE by benchmark and corruption, if any.

    'mce' is the plain mean under the benchmark that the run's configuration names, 'mce_<benchmark>' under another one.
    """
    for benchmark, of_benchmark in errors.items():
        if benchmark == SENSOR:
            numbers |= {f"{SENSOR}/{name}": error for name, (error,) in of_benchmark.items()}
            continue
        plain = float(metrics.mean_corruption_error(of_benchmark).mce)
        numbers["mce" if benchmark == own else f"mce_{benchmark}"] = plain
    if reference is None:
        return {}
    normalised = metrics.mean_corruption_error(errors[own], clean_error=1 - numbers["clean_accuracy"], reference=reference.errors)
    numbers |= {"normalised_mce": normalised.mce, "relative_mce": normalised.relative_mce}
    return {own: normalised.per_corruption}


def _row(group: list[dict]) -> dict:
    """Returns the row of the runs that differ in their seed only."""
    first = group[0]
    config = first["config"]
    method, label = labels.trained_by(config)
    return {
        "method": method,
        "label": label,
        "checkpoint": first["checkpoint"],
        "terms": {name: _spread([s["terms"][name] for s in group]) for name in first["terms"] if all(name in s["terms"] for s in group)},
        "dataset": config["data"]["name"],
        "augment": list(config["augment"]),
        "model": config["model"],
        "epochs": config["epochs"],
        "batch_size": config["batch_size"],
        "selection": config["selection"]["data"],
        "selection_attack": config["selection"]["attack"],
        "made_of": first["made_of"],
        "init": [Path(s["config"]["init"]).name for s in group if s["config"]["init"]],
        "seeds": [s["config"]["seed"] for s in group],
        "n": first["n"],
        "steps": [s["step"] for s in group],
        "attacks": first["attacks"],
        "robust": {
            name: entry
            | {
                "stages": {stage: _spread([s["robust"][name]["stages"][stage] for s in group]) for stage in entry["stages"]},
                "cost": [s["robust"][name]["cost"] for s in group],
            }
            for name, entry in first["robust"].items()
        },
        "geometry": {name: entry | {"cost": [s["geometry"][name]["cost"] for s in group]} for name, entry in first["geometry"].items()},
        "noise": noise_tables.of_row([s["noise"] for s in group]),
        "warnings": _warnings(group),
        "sensor": first["sensor"],
        "sources": first["sources"],
        "metrics": {name: _spread([s["numbers"][name] for s in group]) for name in first["numbers"]},
        "per_corruption": {
            benchmark: {
                name: [statistics.fmean(s["per_corruption"][benchmark][name][i] for s in group) for i in range(len(severities))]
                for name, severities in of_benchmark.items()
            }
            for benchmark, of_benchmark in first["per_corruption"].items()
        },
        "normalised": {
            benchmark: {name: statistics.fmean(s["normalised"][benchmark][name] for s in group) for name in of_benchmark}
            for benchmark, of_benchmark in first["normalised"].items()
        },
        "training_seconds": [s["training_seconds"] for s in group],
    }


def _warnings(group: list[dict]) -> list[str]:
    """Returns what is doubtful about a row's numbers, each text once with the items that it is about."""
    items: dict[str, list[str]] = {}
    for summary in group:
        for text, names in summary["warnings"].items():
            items.setdefault(text, []).extend(name for name in names if name not in items.get(text, ()))
    return [f"{', '.join(names)}: {text}" for text, names in items.items()]


def _spread(values: list[float]) -> dict:
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else None, "values": values}


def _printed_elsewhere(table: str, rows: list[dict]) -> dict | None:
    """Returns the numbers of a paper's table, or of a leaderboard, for the data of these rows.

    A table of reference/tables.json has `paper` and `settings`; where needed `rows` (how to read their names), `quoted` (rows that are
    other papers'), `notes` (where the print is doubtful); and {row: {metric: number, or None where nothing is printed}} for each data
    set. A row is called as in `labels.trained_by`, after '<network>: ' where networks differ and before ', <option> <value>' where
    options do. A metric is called as in a report, without '_error' or, under noise, '_accuracy'; '<metric>_std' is printed after a ±.
    Accuracies and errors are fractions. Leaderboards, in reference/robustbench.json, call a row as the file of its weights is called.

    Args:
        table: its key; if empty, that of a leaderboard which has one of the rows under an attack that was measured.
        rows: of the report.

    Returns:
        paper, settings, notes, called (what stands before a row of it) and rows; None if no table is asked for, and none is found.
    """
    folder = resources.files("robustjax") / "reference"
    papers, leaderboards = (json.loads((folder / f"{name}.json").read_text()) for name in ("tables", "robustbench"))
    known = papers | leaderboards
    dataset = rows[0]["dataset"]
    if not table:
        there = {(row["method"], metric) for row in rows for metric in row["metrics"] if robustness.is_final(metric)}
        table = next(
            (
                name
                for name, board in leaderboards.items()
                if there & {(row, metric) for row, numbers in board.get(dataset, {}).items() for metric in numbers}
            ),
            "",
        )
        if not table:
            return None
    if table not in known:
        raise InputError(f"there is no table {table!r} in robustjax/reference; known: {', '.join(known)}.")
    found = known[table]
    said = {"paper": found["paper"], "settings": found["settings"], "notes": found.get("notes", [])}
    return {**said, "called": found.get("called", "the paper's"), "rows": found.get(dataset, {})}


def write(report: dict, folder: str | Path, *, name: str = "report") -> list[Path]:
    """Writes report.json, report.md (with every corruption and severity) and report.png into a folder; returns their paths."""
    from robustjax.evaluate import plots

    folder = Path(folder)
    paths = [folder / f"{name}.{kind}" for kind in ("json", "md", "png")]
    results.write_json(paths[0], report)
    with results.writing(folder):
        paths[1].write_text(markdown(report, details=True))
        plots.overview(report, paths[2])
    return paths
