"""Reports: the results of several runs as one table (Markdown and JSON) and a figure.

Runs that differ in nothing but their seed share a row, as mean and standard deviation over the seeds. A report's JSON holds
all that its table says, so that a table can be printed again from the file (README tables are).
"""

import json
import math
import statistics
from importlib import resources
from pathlib import Path

from robustjax import metrics
from robustjax.core.check import InputError
from robustjax.evaluate import run
from robustjax.io import results

METHODS = {"none": "baseline", "spider": "SPIDER", "esp": "ESP", "no_ls": "SPIDER without smoothing", "std_ls": "label smoothing"}


def collect(workdirs: list[str | Path], *, command: str = "", title: str = "", table: str = "") -> dict:
    """Gathers the stored results of runs into one report.

    Args:
        workdirs: folders of evaluated runs.
        command: what made the report, for its footer.
        title: its heading.
        table: a key of reference/tables.json, whose numbers stand beside ours.

    Returns:
        A JSON-like dict: title, command, data, rows, environment, notes, reference.

    Raises:
        InputError: if a run has not been evaluated, or runs of different items or test sizes would share a row.
    """
    groups: dict[str, list[dict]] = {}
    for workdir in workdirs:
        summary = _summary(Path(workdir))
        groups.setdefault(summary["key"], []).append(summary)
    rows = [_row(group) for group in groups.values()]
    first = next(iter(groups.values()))[0]
    return {
        "title": title or f"Results on {first['data']['provenance']}",
        "command": command,
        "data": sorted({s["data"]["provenance"] for group in groups.values() for s in group}),
        "notes": sorted({note for group in groups.values() for s in group for note in s["notes"]}),
        "rows": rows,
        "environment": first["environment"],
        "reference": _reference(table, rows) if table else None,
    }


def _summary(workdir: Path) -> dict:
    """Returns one run's numbers, from its files."""
    config = results.read_json(workdir / "config.json")
    found = {result["name"]: result for result in run.stored(workdir)}
    if config is None or "clean" not in found:
        raise InputError(f"{workdir} has not been evaluated: run python launch/evaluate.py --workdir={workdir} first.")
    identities = {(r["run"]["checkpoint_step"], r["run"]["config_hash"], r["n"]) for r in found.values()}
    if len(identities) > 1:
        raise InputError(f"{workdir}/evaluation mixes results of several checkpoints or test sizes; delete it and evaluate again.")
    training = results.read_json(workdir / "training.json") or {}
    clean = found["clean"]
    numbers = {
        "clean_accuracy": clean["metrics"]["accuracy"],
        "nll_nats": clean["metrics"]["nll_nats"],
        "ece_15_bins": clean["metrics"]["ece_15_bins"],
    }
    errors: dict[str, dict[int, float]] = {}
    for result in found.values():
        item = result["run"]["item"]
        if item["kind"] == "corruption":
            errors.setdefault(item["options"]["name"], {})[item["options"]["severity"]] = result["metrics"]["error"]
        elif item["kind"] == "attack":
            numbers[f"{item['name'].removeprefix('attack/')}_error"] = result["metrics"]["error"]
    per_corruption = {}
    if errors:
        found_mce = metrics.mean_corruption_error({name: [by[s] for s in sorted(by)] for name, by in errors.items()})
        numbers["mce"] = float(found_mce.mce)
        per_corruption = {name: [by[s] for s in sorted(by)] for name, by in errors.items()}
    without_seed = {**config, "seed": None}
    return {
        "key": json.dumps(without_seed, sort_keys=True),
        "config": config,
        "numbers": numbers,
        "per_corruption": per_corruption,
        "attacks": config["evaluation"]["attacks"],
        "n": clean["n"],
        "data": {"provenance": clean["run"]["data"]},
        "notes": clean["run"]["notes"],
        "environment": clean["environment"],
        "training_seconds": training.get("seconds", math.nan),
    }


def _row(group: list[dict]) -> dict:
    """Returns the row of the runs that differ in their seed only."""
    config = group[0]["config"]
    if len({(s["n"], *sorted(s["numbers"])) for s in group}) > 1:
        raise InputError("runs of one row were evaluated on different items; evaluate them with the same --suite.")
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
        "seeds": sorted(s["config"]["seed"] for s in group),
        "n": group[0]["n"],
        "attacks": group[0]["attacks"],
        "metrics": {name: _spread([s["numbers"][name] for s in group]) for name in group[0]["numbers"]},
        "per_corruption": {
            name: [statistics.fmean(s["per_corruption"][name][i] for s in group) for i in range(len(severities))]
            for name, severities in group[0]["per_corruption"].items()
        },
        "training_seconds": statistics.fmean(s["training_seconds"] for s in group),
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


def _footer(report: dict) -> list[str]:
    row, where = report["rows"][0], report["environment"]
    seeds = f"seeds {', '.join(map(str, row['seeds']))} (mean ± standard deviation)" if len(row["seeds"]) > 1 else f"seed {row['seeds'][0]}"
    options = ", ".join(f"{k} {v}" for k, v in sorted(row["model"]["options"].items()))
    lines = [
        f"Data: {'; '.join(report['data'])}; {row['n']} test images. Network: {row['model']['name']}{f' ({options})' if options else ''}; "
        f"{row['epochs']} epochs, batch {row['batch_size']}, augmentation {' + '.join(row['augment']) or 'none'}; {seeds}; "
        "best epoch by validation accuracy.",
    ]
    if row["per_corruption"]:
        lines.append(f"Corruptions (generated, not the published files), severities 1-5: {', '.join(row['per_corruption'])}.")
    for name, attack in sorted(row["attacks"].items()):
        lines.append(
            f"{name}: {attack['steps']} steps of {attack['step_size']:.5g}, radius {attack['eps']:.5g} in {attack['norm']}, random start, "
            "pixels in [0, 1]; an image wrong without the attack counts as an error."
        )
    lines.append(f"Hardware: {where['device']} ({where['backend']}, {where['cpus']} CPU cores), jax {where['jax']}.")
    if report["command"]:
        lines.append(f"Command: `{report['command']}`.")
    if report["reference"]:
        lines.append(
            f"The paper's numbers: {report['reference']['paper']}; {report['reference']['settings']}: another scale than this run's."
        )
    return [line + "  " for line in lines[:-1]] + lines[-1:]


def write(report: dict, folder: str | Path, *, name: str = "report") -> list[Path]:
    """Writes report.json, report.md and report.png into a folder; returns their paths."""
    from robustjax.evaluate import plots

    folder = Path(folder)
    paths = [folder / f"{name}.{kind}" for kind in ("json", "md", "png")]
    results.write_json(paths[0], report)
    paths[1].write_text(markdown(report))
    plots.overview(report, paths[2])
    return paths
