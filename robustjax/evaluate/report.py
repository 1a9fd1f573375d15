"""Reports: the results of several runs as one table (Markdown and JSON) and a figure.

Runs that differ in nothing but their seed share a row, as mean and standard deviation over the seeds. A report's JSON holds
all that its table says, so that a table can be printed again from the file (README tables are).
"""

import json
import statistics
from importlib import resources
from pathlib import Path

from robustjax import metrics
from robustjax.core.check import InputError
from robustjax.io import results

METHODS = {"none": "baseline", "spider": "SPIDER", "esp": "ESP", "no_ls": "SPIDER without smoothing", "std_ls": "label smoothing"}


def collect(runs: list[tuple[str | Path, list[dict]]], *, command: str = "", title: str = "", table: str = "") -> dict:
    """Gathers the results of runs into one report.

    Args:
        runs: for each run its folder and what `run.evaluate` gave.
        command: what made the report, for its footer.
        title: its heading.
        table: a key of reference/tables.json, whose numbers stand beside ours.

    Returns:
        A JSON-like dict: title, command, data, rows, environment, notes, reference.

    Raises:
        InputError: if runs of other items or test sizes would share a table, or a seed is there twice.
    """
    summaries = [_summary(Path(workdir), found) for workdir, found in runs]
    first = summaries[0]
    for summary in summaries[1:]:
        if (summary["n"], set(summary["numbers"])) != (first["n"], set(first["numbers"])):
            raise InputError(
                f"{summary['workdir']} was measured on {summary['n']} images ({', '.join(summary['numbers'])}), {first['workdir']} on "
                f"{first['n']} ({', '.join(first['numbers'])}); one table needs the same --suite, --limit and attacks."
            )
    groups: dict[str, list[dict]] = {}
    for summary in summaries:
        group = groups.setdefault(json.dumps(results.comparable({**summary["config"], "seed": None}), sort_keys=True), [])
        if any(other["config"]["seed"] == summary["config"]["seed"] for other in group):
            raise InputError(f"{summary['workdir']} repeats a run of the same configuration and seed; name each run once.")
        group.append(summary)
    rows = [_row(group) for group in groups.values()]
    if len({json.dumps(row["model"]) for row in rows}) > 1:
        rows = [row | {"label": f"{row['label']}, {_network(row['model'])}"} for row in rows]
    return {
        "title": title or f"Results on {first['data']}",
        "command": command,
        "data": sorted({summary["data"] for summary in summaries}),
        "notes": sorted({note for summary in summaries for note in summary["notes"]}),
        "rows": rows,
        "environment": first["environment"],
        "reference": _reference(table, rows) if table else None,
    }


def _summary(workdir: Path, found: list[dict]) -> dict:
    """Returns one run's numbers."""
    config = results.read_json(workdir / "config.json")
    training = results.read_json(workdir / "training.json") or {}
    by_name = {result["name"]: result for result in found}
    clean = by_name["clean"]
    numbers = {name: clean["metrics"][key] for name, key in (("clean_accuracy", "accuracy"), ("nll_nats",) * 2, ("ece_15_bins",) * 2)}
    errors: dict[str, list[float]] = {}
    for result in found:
        item = result["run"]["item"]
        if item["kind"] == "corruption":  # severities come in rising order, see suites
            errors.setdefault(item["options"]["name"], []).append(result["metrics"]["error"])
        elif item["kind"] == "attack":
            numbers[f"{item['name'].removeprefix('attack/')}_error"] = result["metrics"]["error"]
    if errors:
        numbers["mce"] = float(metrics.mean_corruption_error(errors).mce)
    return {
        "workdir": str(workdir),
        "config": config,
        "numbers": numbers,
        "per_corruption": errors,
        "n": clean["n"],
        "step": clean["run"]["checkpoint_step"],
        "data": clean["run"]["data"],
        "notes": clean["run"]["notes"],
        "environment": clean["environment"],
        "training_seconds": training.get("seconds"),
    }


def _row(group: list[dict]) -> dict:
    """Returns the row of the runs that differ in their seed only."""
    config = group[0]["config"]
    method = config["method"]["name"]
    options = {name: value for name, value in config["method"].items() if name != "name"}
    return {
        "method": method,
        "label": METHODS.get(method, method) + (f" ({', '.join(f'{k} {v:g}' for k, v in sorted(options.items()))})" if options else ""),
        "dataset": config["data"]["name"],
        "augment": list(config["augment"]),
        "model": config["model"],
        "epochs": config["epochs"],
        "batch_size": config["batch_size"],
        "seeds": [s["config"]["seed"] for s in group],
        "n": group[0]["n"],
        "steps": [s["step"] for s in group],
        "attacks": config["evaluation"]["attacks"],
        "metrics": {name: _spread([s["numbers"][name] for s in group]) for name in group[0]["numbers"]},
        "per_corruption": {
            name: [statistics.fmean(s["per_corruption"][name][i] for s in group) for i in range(len(severities))]
            for name, severities in group[0]["per_corruption"].items()
        },
        "training_seconds": [s["training_seconds"] for s in group],
    }


def _spread(values: list[float]) -> dict:
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else None, "values": values}


def _reference(table: str, rows: list[dict]) -> dict:
    tables = json.loads((resources.files("robustjax") / "reference" / "tables.json").read_text())
    if table not in tables:
        raise InputError(f"there is no table {table!r} in reference/tables.json; known: {', '.join(tables)}.")
    dataset = rows[0]["dataset"]
    return {"paper": tables[table]["paper"], "settings": tables[table]["settings"], "rows": tables[table].get(dataset, {})}


def markdown(report: dict) -> str:
    """Returns the report as Markdown: the table, then what it takes to read and to repeat it."""
    found = report["rows"][0]["metrics"]
    attacked = [name for name in found if name.endswith("_error")]
    shown = [name for name in ("clean_accuracy", "mce", *attacked, "ece_15_bins") if name in found]
    header = ["method", *(_heading(name) for name in shown)]
    lines = [f"### {report['title']}", ""]
    if report["notes"]:
        lines += [f"**{'; '.join(report['notes'])}**", ""]
    lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    reference = (report["reference"] or {}).get("rows", {})
    for row in report["rows"]:
        cells = [row["label"], *(_cell(row["metrics"][name], name) for name in shown)]
        lines.append("| " + " | ".join(cells) + " |")
        theirs = reference.get(row["method"])
        if theirs:
            known = [theirs.get(name.removesuffix("_error")) for name in shown]
            lines.append("| *the paper's* | " + " | ".join("" if x is None else f"*{100 * x:.2f}*" for x in known) + " |")
    return "\n".join([*lines, "", *_footer(report)]) + "\n"


def _heading(name: str) -> str:
    if name == "clean_accuracy":
        return "clean accuracy %"
    if name == "mce":
        return "mean corruption error %"
    if name == "ece_15_bins":
        return "ECE %"
    return name.removesuffix("_error").replace("_", " ").replace("pgd", "PGD").replace("linf", "L-inf").replace("l2", "L2") + " error %"


def _cell(spread: dict, name: str) -> str:
    text = f"{100 * spread['mean']:.2f}"
    return text if spread["std"] is None else f"{text} ± {100 * spread['std']:.2f}"


def _network(model: dict) -> str:
    options = ", ".join(f"{name} {value}" for name, value in sorted(model["options"].items()))
    return model["name"] + (f" ({options})" if options else "")


def _footer(report: dict) -> list[str]:
    rows, where = report["rows"], report["environment"]
    first = rows[0]

    def distinct(of) -> str:
        return " / ".join(dict.fromkeys(of(row) for row in rows))

    seeds = distinct(lambda row: ", ".join(map(str, row["seeds"])))
    lines = [
        f"Data: {'; '.join(report['data'])}; {first['n']} test images. Network: {distinct(lambda row: _network(row['model']))}; "
        f"{distinct(lambda row: str(row['epochs']))} epochs, batch {distinct(lambda row: str(row['batch_size']))}, "
        f"augmentation {distinct(lambda row: ' + '.join(row['augment']) or 'none')}; seeds {seeds}"
        f"{' (mean ± standard deviation)' if len(first['seeds']) > 1 else ''}; "
        f"checkpoints of steps {distinct(lambda row: ', '.join(map(str, row['steps'])))}.",
    ]
    if first["per_corruption"]:
        lines.append(f"Corruptions (generated, not the published files), severities 1-5: {', '.join(first['per_corruption'])}.")
    for name, attack in sorted(first["attacks"].items()):
        if f"{name}_error" in first["metrics"]:
            lines.append(
                f"{name}: {attack['steps']} steps of {attack['step_size']:.5g}, radius {attack['eps']:.5g} in {attack['norm']}, random "
                "start, pixels in [0, 1]; an image wrong without the attack counts as an error."
            )
    lines.append(f"Hardware: {where['device']} ({where['backend']}, {where['cpus']} CPU cores), jax {where['jax']}.")
    if report["command"]:
        lines.append(f"Command: `{report['command']}`.")
    if report["reference"]:
        lines.append(f"The paper's numbers: {report['reference']['paper']}; {report['reference']['settings']}.")
    return [line + "  " for line in lines[:-1]] + lines[-1:]


def write(report: dict, folder: str | Path, *, name: str = "report") -> list[Path]:
    """Writes report.json, report.md and report.png into a folder; returns their paths."""
    from robustjax.evaluate import plots

    folder = Path(folder)
    paths = [folder / f"{name}.{kind}" for kind in ("json", "md", "png")]
    results.write_json(paths[0], report)
    with results.writing(folder):
        paths[1].write_text(markdown(report))
        plots.overview(report, paths[2])
    return paths
