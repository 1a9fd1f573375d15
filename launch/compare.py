"""A table of a paper, ours beside it: gathered from the reports of runs, on the terminal, as Markdown, JSON and figure."""

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from launch.jobs import Failure
from launch.plan import Cell, Run
from robustjax.core.check import InputError
from robustjax.evaluate import geometry_tables, robustness
from robustjax.io import results

_PLAIN = {  # numbers that are no fractions
    "seconds_an_epoch": "seconds an epoch",
    "memory_megabytes": "memory, MB",
    "pruned_hours": "pruned, h",
    "predicted_full_hours": "predicted in full, h",
    "speed_gain": "times faster",
    "equivalent_trials": "whole trials",
    "best_trial": "best trial",
}
_KNOWN = {
    "clean_accuracy": "clean accuracy %",
    "clean_error": "clean error %",
    "mce": "mCE %",
    "normalised_mce": "mCE % (AlexNet: 100)",
}


def gathered(
    name: str,
    scale: str,
    cells: Sequence[Cell],
    paper: Mapping,
    *,
    notes: Sequence[str] = (),
    failures: Sequence[Failure] = (),
    command: str = "",
) -> dict:
    """Returns a table as JSON.

    Args:
        name: of the table.
        scale: at which it was run.
        cells: its rows, of one or more data sets; what of them was measured is read from their reports. Without any, the paper's rows.
        paper: the entry of tables.json.
        notes: what is to be said above the table.
        failures: of jobs.
        command: that made it.

    Returns:
        table, scale, command, paper, settings, papers_notes, notes, measured (on what), failures, environments, and `data`: for each data set
        `metrics` and `rows`, a row with its label, `quoted`, `ours` {metric: mean, std, values} and `theirs` {metric: mean, std}.
    """
    about: list[dict] = []
    data: dict[str, dict] = {} if cells else {name: {"rows": []} for name, rows in paper.items() if isinstance(rows, Mapping)}
    for one in cells:
        ours, label, of_cell = measured(one)
        about += of_cell
        row = {"row": one.row, "label": label, "quoted": False, "seeds": len(one.runs), "done": len(one.measured), "ours": ours}
        row["theirs"] = theirs(paper.get(one.data, {}).get(one.row, {}))
        data.setdefault(one.data, {"rows": []})["rows"].append(row)
    for dataset, found in data.items():
        printed = paper.get(dataset, {})
        for name_of in paper.get("quoted", ()) if cells else printed:
            if name_of in printed:
                found["rows"].append({"row": name_of, "label": "", "quoted": True, "ours": {}, "theirs": theirs(printed[name_of])})
        shown = dict.fromkeys(metric for row in printed.values() for metric in theirs(row))
        found["metrics"] = list(shown) or list(dict.fromkeys(metric for row in found["rows"] for metric in row["ours"] if _worth(metric)))
        for row in found["rows"]:
            row["ours"] = {metric: row["ours"][metric] for metric in found["metrics"] if metric in row["ours"]}
    return {
        "table": name,
        "paper": paper["paper"],
        "settings": paper["settings"],
        "papers_notes": list(paper.get("notes", ())),
        **circumstances(about, scale, notes=notes, failures=failures, command=command),
        "data": data,
    }


def circumstances(about: Sequence[Mapping], scale: str, *, notes: Sequence[str], failures: Sequence[Failure], command: str) -> dict:
    """Returns what tables and sweeps say of how they came about: scale, command, notes, measured (on what), failures, environments.

    Args:
        about: of each run, see `measured`.
        scale: at which it was run.
        notes, failures, command: see `gathered`.
    """
    where = [one["environment"] for one in about]
    return {
        "scale": scale,
        "command": command,
        "notes": list(dict.fromkeys([*notes, *(note for one in about for note in one["notes"])])),
        "measured": list(dict.fromkeys(line for one in about for line in one["measured"])),
        "failures": [failure._asdict() | {"log": failure.log and str(failure.log)} for failure in failures],
        "environments": [one for at, one in enumerate(where) if one not in where[:at]],
    }


def failed(report: Mapping) -> list[str]:
    """Returns the lines of a table or a sweep that name what is missing."""
    said = (Failure(**failure).said for failure in report["failures"])
    return [f"{line[0].upper()}{line[1:]}.  " for line in said]


def hardware(report: Mapping) -> list[str]:
    """Returns the line of a table or a sweep that says on what it was measured, if anything was."""
    said = (f"{one['device']} ({one['backend']}, {one['cpus']} CPU cores), jax {one['jax']}" for one in report["environments"])
    named = "; ".join(dict.fromkeys(said))
    return [f"Hardware: {named}.  "] if named else []


def theirs(row: Mapping[str, float]) -> dict[str, dict]:
    """Returns the numbers of a paper's row; deviations stand beside them as '<metric>_std'."""
    printed = {name: value for name, value in row.items() if value is not None and not name.endswith("_std")}
    return {name: {"mean": value, "std": row.get(f"{name}_std")} for name, value in printed.items()}


def _worth(metric: str) -> bool:
    """Returns whether a number is shown where no paper says which are."""
    return metric in _PLAIN or bool(
        re.fullmatch(r"clean_accuracy|(normalised_)?mce|pgd.*|cw.*|noise/gaussian.*|.*_robust|thickness.*_per_std.*_mean", metric)
    )


def measured(one: Cell) -> tuple[dict, str, list[dict]]:
    """Returns what was measured of a row: {metric: mean, std, values} by the names of tables.json; its label; and of each run notes, on what
    it was measured, and the environment."""
    values: dict[str, list[float]] = {}
    label, about = "", []
    for path in one.measured:
        report = results.read_json(path)
        if report is None:
            raise InputError(f"{path} is damaged: delete it and run the command again; what was measured for it is still there.")
        on = []
        if path.name == "search.json":
            numbers, label = _searched(report), report["study"]
        else:
            (row,) = report["rows"]
            label = row["label"]
            numbers = {_printed(name, one.surrogate): number["mean"] for name, number in row["metrics"].items()}
            numbers["clean_error"] = 1 - numbers["clean_accuracy"]
            on = [f"{row['n']} test images of {', '.join(report['data'])}"]
            on += [f"corrupted images of {benchmark}: {origin}" for benchmark, origin in row["sources"].items()]
        about.append({"notes": report["notes"], "measured": on, "environment": report["environment"]})
        for name, value in numbers.items():
            values.setdefault(name, []).append(value)
    return {name: spread(found) for name, found in values.items()}, label, about


def spread(values: Sequence[float]) -> dict:
    """Returns the mean and the sample standard deviation (None of one value) beside the values."""
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else None, "values": list(values)}


def _searched(report: Mapping) -> dict[str, float]:
    """Returns the numbers of SPIDER's Table 7, of a report of launch/tune.py."""
    costs = report["costs"]
    found = {
        "pruned_hours": costs["pruned_seconds"] / 3600,
        "predicted_full_hours": costs["predicted_full_seconds"] and costs["predicted_full_seconds"] / 3600,
        "speed_gain": costs["speed_gain"],
        "equivalent_trials": costs["equivalent_trials"],
        "best_trial": report["best"] and float(report["best"]["number"]),
    }
    return {name: value for name, value in found.items() if value is not None}


def _printed(metric: str, surrogate: Run | None) -> str:
    """Returns what tables.json calls a number of a report's row."""
    if surrogate:  # named by its folder in a result, by how it was trained in the table
        metric = metric.replace(f"transfer/{surrogate.folder.name}/", f"transfer/{surrogate.config['objective']['name']}/")
    if metric.startswith("noise/"):
        return metric.removesuffix("_accuracy")
    return metric.removesuffix("_error")


def plain(metric: str) -> bool:
    """Returns whether a number is no fraction."""
    return geometry_tables.is_geometry(metric) or metric in _PLAIN


def heading(metric: str) -> str:
    """Returns what a column is called.

    >>> heading("pgd_linf"), heading("autoattack/linf_8_255_robust"), heading("noise/gaussian_16_255")
    ('PGD L-inf error %', 'AutoAttack L-inf 8/255: accuracy %', 'noise 16/255: accuracy %')
    """
    if metric in _KNOWN | _PLAIN:
        return (_KNOWN | _PLAIN)[metric]
    if geometry_tables.is_geometry(metric):
        return geometry_tables.heading(metric)
    words = {"pgd": "PGD", "cw": "CW", "pgd20": "PGD-20", "cw20": "CW-20", "autoattack": "AutoAttack", **robustness.NORMS}
    text = re.sub(r"(?<=\d)_(?=255)", "/", metric.removesuffix("_robust").replace("/", "_"))
    said = " ".join(words.get(word, word) for word in text.split("_") if word != "gaussian")
    of = "error" if not re.match(r"noise|autoattack|transfer", metric) else "accuracy"
    return f"{said.removeprefix('mce ')}: {of} %" if of == "accuracy" else f"{said} {of} %"


def written(metric: str, number: Mapping | None, *, sign: str = "") -> str:
    """Returns a number with its deviation as tables have it."""
    if number is None:
        return "-"
    factor, digits = (1, 3 if abs(number["mean"]) < 100 else 0) if plain(metric) else (100, 2)
    deviation = "" if number.get("std") is None else f" ± {factor * number['std']:.{digits}f}"
    return f"{factor * number['mean']:{sign}.{digits}f}{deviation}"


def beside(metric: str, ours: Mapping | None, theirs: Mapping | None) -> tuple[str, str, str]:
    """Returns our number, the paper's, and the difference, as Markdown."""
    both = ours is not None and theirs is not None
    difference = written(metric, {"mean": ours["mean"] - theirs["mean"]}, sign="+") if both else "-"
    return written(metric, ours), f"*{written(metric, theirs)}*" if theirs else "", difference


def _row_name(row: Mapping) -> list[str]:
    """Returns what stands at the head of a row: its name in the paper, how ours was trained, and what is missing."""
    if row["quoted"]:
        return [f"{row['row']} (printed)"]
    missing = f"{row['done']} of {row['seeds']} seeds" if row["done"] < row["seeds"] else ""
    return [row["row"], *filter(None, (row["label"], missing))]


def remarks(report: Mapping) -> list[str]:
    """Returns what keeps the numbers of a table or a sweep from being compared, each line once."""
    scale = {"short": "short: a tenth of the epochs", "quick": "quick, not comparable"}.get(report["scale"])
    return list(dict.fromkeys(filter(None, (scale, *report["notes"]))))


def titled(made, title: str, report: Mapping) -> None:
    """Writes the title of a figure, and below it the remarks, without their reasons."""
    made.suptitle("\n".join([title, *dict.fromkeys(line.partition(":")[0] for line in remarks(report))]), fontsize=10)


def markdown(report: Mapping) -> str:
    """Returns a table of `gathered` as Markdown: for each metric ours, the paper's and the difference."""
    lines = [f"### {report['paper']}", ""]
    lines += [f"**{line}**\n" for line in remarks(report)]
    for data, found in report["data"].items():
        heads = ["row", *(head for metric in found["metrics"] for head in (heading(metric), "*the paper's*", "difference"))]
        lines += [f"#### {data}", "", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        for row in found["rows"]:
            cells = ["; ".join(_row_name(row))]
            for metric in found["metrics"]:
                cells += beside(metric, row["ours"].get(metric), row["theirs"].get(metric))
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join([*lines, *_footer(report)]) + "\n"


def _footer(report: Mapping) -> list[str]:
    """Returns what it takes to read a table."""
    lines = [f"The paper's settings: {report['settings']}.  "]
    lines += [f"On the paper: {note}  " for note in report["papers_notes"]]
    lines.append("Ours: mean and sample standard deviation over seeds; difference: ours minus the paper's, in points.  ")
    if report["measured"]:
        lines.append(f"Ours are of {'; '.join(report['measured'])}; every setting is in the reports of the data sets beside this one.  ")
    return [*lines, *failed(report), *hardware(report), f"Command: `{report['command']}`."]


def show(report: Mapping) -> None:
    """Prints a table on the terminal: in each cell ours, the paper's and the difference."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 160, highlight=False)
    console.print(report["paper"], markup=False)
    for line in remarks(report):
        console.print(line, style="bold", markup=False)
    for data, found in report["data"].items():
        drawn = Table(title=f"{data}: ours, the paper's, difference", show_lines=True)
        for head in ("row", *map(heading, found["metrics"])):
            drawn.add_column(head, justify="left" if head == "row" else "right")
        for row in found["rows"]:
            cells = ["\n".join(_row_name(row))]
            for metric in found["metrics"]:
                cells.append("\n".join(text.strip("*") for text in beside(metric, row["ours"].get(metric), row["theirs"].get(metric))))
            drawn.add_row(*cells)
        console.print(drawn)


def figure(report: Mapping):
    """Returns a figure: for each data set a line of panels, one a metric, with a dot for ours and a cross for the paper's of each row."""
    import matplotlib.pyplot as plt

    data = report["data"]
    across = max(1, *(len(found["metrics"]) for found in data.values()))  # nothing may be measured yet
    down = sum(len(found["rows"]) for found in data.values())
    size = (3.0 + 2.6 * across, 1.5 + 0.32 * down + 0.2 * len(remarks(report)))
    made, axes = plt.subplots(len(data), across, figsize=size, squeeze=False, layout="constrained")
    for line, (dataset, found) in zip(axes, data.items(), strict=True):
        for axis, metric in zip(line, found["metrics"], strict=False):
            factor = 1 if plain(metric) else 100
            for source, style in (("theirs", {"fmt": "x", "color": "#d1603d"}), ("ours", {"fmt": "o", "color": "#4c6a92", "capsize": 2})):
                points = [(at, row[source][metric]) for at, row in enumerate(found["rows"]) if metric in row[source]]
                places, numbers = [at for at, _ in points], [factor * number["mean"] for _, number in points]
                errors = [factor * (number["std"] or 0.0) for _, number in points]
                axis.errorbar(numbers, places, xerr=errors, label={"theirs": "the paper's"}.get(source, source), **style)
            axis.set_yticks(range(len(found["rows"])), [row["row"] for row in found["rows"]] if axis is line[0] else [])
            axis.set_ylim(len(found["rows"]) - 0.5, -0.5)
            axis.set_xlabel(heading(metric))
            axis.grid(alpha=0.3)
        line[0].set_title(dataset, loc="left", fontsize=10)
        for axis in line[len(found["metrics"]) :]:
            axis.set_axis_off()
    handles, names = axes[0, 0].get_legend_handles_labels()
    if names:
        made.legend(handles, names, loc="outside lower right", ncols=2, frameon=False, fontsize=8)
    titled(made, report["paper"], report)
    return made


def write(report: Mapping, folder: Path) -> list[Path]:
    """Writes report.json, report.md and report.png into a folder; returns their paths."""
    return written_to(folder, report, markdown(report), figure)


def written_to(folder: Path, report: Mapping, text: str, draw: Callable) -> list[Path]:
    """Writes a report, its text and what `draw(report)` draws."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    paths = [folder / f"report.{kind}" for kind in ("json", "md", "png")]
    results.write_json(paths[0], report)
    drawn = draw(report)
    with results.writing(folder):
        paths[1].write_text(text)
        drawn.savefig(paths[2], dpi=130)
    plt.close(drawn)
    return paths
