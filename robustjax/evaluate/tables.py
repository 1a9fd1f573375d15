"""A report as Markdown: the table, what it takes to read and to repeat it, and every corruption and severity."""

import statistics
from collections.abc import Callable, Iterable

from robustjax.core import threats
from robustjax.evaluate import geometry_tables, noise_tables, robustness, step_tables
from robustjax.evaluate.labels import network_key
from robustjax.evaluate.suites import SENSOR

_VALIDATION = {"clean": "clean images", "cbar": "images under C-bar", "all": "images under all of C-bar"}


def markdown(report: dict, *, details: bool = False) -> str:
    """Returns a report as Markdown.

    Args:
        report: from report.collect, or its JSON; or the JSON of launch/benchmark_corruptions.py, benchmark_attacks.py,
            benchmark_adversarial.py or benchmark_training.py.
        details: add a table for each benchmark by corruption, by severity, and for each row by both.
    """
    if "sizes" in report:
        return "\n".join(_speeds(report)) + "\n"
    if "times_faster" in report.get("attacks", [{}])[0]:
        return "\n".join(_attack_seconds(report)) + "\n"
    if "pgd_steps" in report:
        heads, cells, lines = step_tables.adversarial(report, network)
        return "\n".join([*_table(heads, cells), "", *lines]) + "\n"
    if "training" in report:
        heads, cells, lines = step_tables.training(report, network)
        return "\n".join([*_table(heads, cells), "", *lines]) + "\n"
    rows = report["rows"]
    shown = _columns(rows[0]["metrics"])
    lines = [f"### {report['title']}", ""]
    if report["notes"]:
        lines += [f"**{'; '.join(report['notes'])}**", ""]
    cells = []
    printed = report["reference"] or {}
    papers, called = printed.get("rows", {}), printed.get("called", "the paper's")
    for row in rows:
        cells.append([row["label"], *(_cell(name, row["metrics"][name]) for name in shown)])
        theirs = papers.get(f"{network_key(row['model'])}: {row['method']}", papers.get(row["method"]))
        if theirs:
            cells.append([f"*{called}*", *(_printed(theirs, name) for name in shown)])
    lines += _table(["method", *(_heading(name, report) for name in shown)], cells)
    lines += [*_stages(rows), *_curves(rows), *_transfers(rows), *_levels(report), "", *_footer(report)]
    if details:
        lines += [*_costs(rows, "robust", "attack"), *_costs(rows, "geometry", "measurement")]
        for benchmark in rows[0]["per_corruption"]:
            lines += _details(report, benchmark)
    return "\n".join(lines) + "\n"


def _validation(row: dict) -> str:
    """Returns by what checkpoints were selected."""
    attack = row.get("selection_attack")
    under = f" under PGD-{attack['steps']}, {robustness.written(attack)}" if attack else ""
    return _VALIDATION[row["selection"]] + under


def _begun(row: dict) -> str:
    """Returns with what weights training began, where these were not random."""
    return f"begun with the weights of {', '.join(row['init'])}" if row.get("init") else ""


def _terms(terms: dict) -> str:
    return ", ".join(f"{name} {of_seeds['mean']:.3g}" for name, of_seeds in terms.items())


def network(model: dict) -> str:
    """Returns the name of a network with its options."""
    options = ", ".join(f"{name} {value}" for name, value in sorted(model["options"].items()))
    return model["name"] + (f" ({options})" if options else "")


def _columns(found: dict) -> list[str]:
    """Returns which of the metrics a table shows, in their order: clean, corrupted, attacked, calibration."""
    plain = [name for name in found if name == "mce" or name.startswith("mce_")]
    sensor = [name for name in found if name.startswith(f"{SENSOR}/")]
    attacked = [name for name in found if name.endswith("_error")]
    robust = [name for name in found if robustness.is_final(name) and not name.startswith(("curve/", "transfer/"))]
    wanted = [
        "clean_accuracy",
        "normalised_mce",
        "relative_mce",
        *sorted(plain),
        *sensor,
        *attacked,
        *robust,
        "ece_15_bins",
        *geometry_tables.columns(found),
    ]
    return [name for name in wanted if name in found]


def _heading(name: str, report: dict) -> str:
    reference = (report["corruption_reference"] or {}).get("label")
    known = {
        "clean_accuracy": "clean accuracy %",
        "normalised_mce": f"mCE % ({reference}: 100)",
        "relative_mce": f"relative mCE % ({reference}: 100)",
        "mce": "mean corruption error %",
        "ece_15_bins": "ECE %",
    }
    if name in known:
        return known[name]
    if geometry_tables.is_geometry(name):
        return geometry_tables.heading(name)
    if name.startswith("mce_"):
        return f"mean error % on {name.removeprefix('mce_')}"
    if name.startswith(f"{SENSOR}/"):
        return f"{name.removeprefix(f'{SENSOR}/')} error %"
    if robustness.is_final(name):
        return f"{report['rows'][0]['robust'][name.removesuffix('_robust')]['label']}: accuracy %"
    short = {"pgd": "PGD", "cw": "CW", **robustness.NORMS}
    return " ".join(short.get(word, word) for word in name.removesuffix("_error").split("_")) + " error %"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def _spread(spread: dict) -> str:
    return _percent(spread["mean"]) + ("" if spread["std"] is None else f" ± {_percent(spread['std'])}")


def _cell(name: str, spread: dict) -> str:
    return geometry_tables.cell(spread) if geometry_tables.is_geometry(name) else _spread(spread)


def _printed(theirs: dict, name: str) -> str:
    """Returns a paper's number, if it has this one, with what it prints after a ±."""
    key = name.removesuffix("_error")
    mean = theirs.get(key)
    return "" if mean is None else f"*{_cell(name, {'mean': mean, 'std': theirs.get(f'{key}_std')})}*"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    header = list(header)
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _footer(report: dict) -> list[str]:
    rows, where = report["rows"], report["environment"]
    first = rows[0]

    def distinct(of: Callable[[dict], str]) -> str:
        return " / ".join(dict.fromkeys(of(row) for row in rows))

    seeds = distinct(lambda row: ", ".join(map(str, row["seeds"])))
    trained = (
        f"{distinct(lambda row: str(row['epochs']))} epochs, batch {distinct(lambda row: str(row['batch_size']))}, "
        f"augmentation {distinct(lambda row: ' + '.join(row['augment']) or 'none')}"
        f"{''.join(f'; {begun}' for begun in [distinct(_begun)] if begun)}; seeds {seeds}"
        f"{' (mean ± standard deviation)' if len(first['seeds']) > 1 else ''}; "
        f"checkpoints of steps {distinct(lambda row: ', '.join(map(str, row['steps'])))}, "
        f"validated on {distinct(_validation)}"
    )
    if not any(row["epochs"] for row in rows):  # see evaluate.load.adopt
        trained = "weights trained elsewhere"
    lines = [
        f"Data: {'; '.join(report['data'])}; {first['n']} test images. Network: {distinct(lambda row: network(row['model']))}; {trained}.",
    ]
    lines += [
        f"Terms of the training loss in the last epoch before these checkpoints, {row['label']}: {_terms(row['terms'])}."
        for row in rows
        if row.get("terms")
    ]
    for benchmark, errors in first["per_corruption"].items():
        made = distinct(lambda row, benchmark=benchmark: row["sources"][benchmark])
        severities = ", severities 1-5" if _severities(errors) > 1 else ""
        names = [f"{name}{_options(first['sensor'].get(name, {}) if benchmark == SENSOR else {})}" for name in errors]
        lines.append(f"Corruptions of {benchmark} ({made}){severities}: {', '.join(names)}.")
    lines += _reference_line(report)
    for name, attack in sorted(first["attacks"].items()):
        if f"{name}_error" in first["metrics"]:
            climbed = "the margin, " if attack.get("objective") == "cw" else ""
            lines.append(
                f"{name}: {climbed}{attack['steps']} steps of {attack['step_size']:.5g}, radius {attack['eps']:.5g} in {attack['norm']}, random "
                "start, pixels in [0, 1]; an image wrong without the attack counts as an error."
            )
    lines += [*geometry_tables.footer(first), *noise_tables.footer(first)]
    lines += [f"Warning, {row['label']}: {warning}" for row in rows for warning in row.get("warnings", ())]
    lines.append(f"Hardware: {where['device']} ({where['backend']}, {where['cpus']} CPU cores), jax {where['jax']}.")
    if report["command"]:
        lines.append(f"Command: `{report['command']}`.")
    if report["reference"]:
        theirs = report["reference"]
        whose = theirs.get("called", "the paper's").capitalize()
        lines.append(" ".join([f"{whose} numbers: {theirs['paper']}; {theirs['settings']}.", *theirs.get("notes", ())]))
    return [line + "  " for line in lines[:-1]] + lines[-1:]


def _stages(rows: list[dict]) -> list[str]:
    """Returns for each AutoAttack (or part of it) a table of the accuracy after each stage."""
    lines = []
    for name, entry in rows[0].get("robust", {}).items():
        if entry["kind"] == "autoattack":
            heads = [robustness.stage_title(stage) for stage in entry["stages"]]
            cells = [[row["label"], *map(_spread, row["robust"][name]["stages"].values())] for row in rows]
            lines += ["", f"#### {entry['label']}: accuracy % after each stage", "", *_table(["method", *heads], cells)]
    return lines


def _curves(rows: list[dict]) -> list[str]:
    """Returns a table of accuracy by radius for each norm."""
    lines = []
    for norm, points in robustness.curves(rows[0]).items():
        heads = [threats.fraction(eps) for eps, _ in points]
        cells = [[row["label"], *(_spread(accuracy) for _, accuracy in robustness.curves(row)[norm])] for row in rows]
        title = (
            f"#### Accuracy % by radius in {robustness.NORMS[norm]}: PGD-20, steps of a quarter of the radius, the point of largest loss"
        )
        lines += ["", title, "", *_table(["method", *heads], cells)]
    return lines


def _transfers(rows: list[dict]) -> list[str]:
    """Returns a table of the accuracy under attacks that were made on other networks."""
    found = {name: entry for name, entry in rows[0].get("robust", {}).items() if entry["kind"] == "transfer"}
    if not found:
        return []
    heads = ["method", *(head for entry in found.values() for head in (entry["label"], "that network itself"))]
    cells = [
        [
            row["label"],
            *(
                _spread(value)
                for name in found
                for value in (row["metrics"][robustness.final(name)], row["robust"][name]["stages"]["surrogate"])
            ),
        ]
        for row in rows
    ]
    return [
        "",
        "#### Accuracy % under attacks made on another network; and of that network, where this one was right",
        "",
        *_table(heads, cells),
    ]


def _levels(report: dict) -> list[str]:
    """Returns a table of the loss by distance from the weights for each kind of radius, and of accuracy for each kind of noise."""
    found = [*geometry_tables.tables(report["rows"]), *noise_tables.tables(report)]
    return [line for title, heads, cells in found for line in ("", f"#### {title}", "", *_table(heads, cells))]


def _costs(rows: list[dict], of: str, what: str) -> list[str]:
    """Returns a table of what attacks, or measurements of geometry, took."""
    found = rows[0].get(of, {})
    cells = [
        [
            name,
            row["label"],
            *(" / ".join(_speed(cost[key]) for cost in row[of][name]["cost"]) for key in ("seconds", "images_per_second")),
            " / ".join(f"{cost['peak_memory_bytes'] / 1e9:.2f} ({cost['peak_memory_of']})" for cost in row[of][name]["cost"]),
        ]
        for name in found
        for row in rows
    ]
    heads = [what, "method", "seconds", "images/s", "peak memory so far, GB"]
    return ["", f"#### Cost of {what}s", "", *_table(heads, cells)] if cells else []


def _reference_line(report: dict) -> list[str]:
    """Says what a normalised mCE was divided by, and what it cannot be compared with."""
    reference = report["corruption_reference"]
    if not reference:
        return []
    rows = report["rows"]
    line = (
        f"mCE: for each of the {sum(map(len, rows[0]['normalised'].values()))} corruptions the error summed over severities, divided by {reference['label']}'s "
        f"({reference['source']}); relative mCE: the same after taking both networks' clean error away. The 4 extra corruptions do not count."
    )
    if any(made.startswith("generated") for row in rows for made in row["sources"].values()):
        line += (
            " The published files, on which the reference was measured, went through JPEG of quality 85; images that were generated "
            "here did not, so expect other errors than on the files."
        )
    return [line]


def _options(options: dict) -> str:
    """Returns ' (std 0.157)' for a sensor's options."""
    shown = {name: value for name, value in options.items() if name not in ("benchmark", "name")}
    values = (f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items())
    return f" ({', '.join(values)})" if shown else ""


def _severities(errors: dict[str, list[float]]) -> int:
    return len(next(iter(errors.values())))


def _details(report: dict, benchmark: str) -> list[str]:
    """Returns the tables of one benchmark: corruptions by rows, severities by rows, and both for each row."""
    rows = report["rows"]
    tables = [row["per_corruption"][benchmark] for row in rows]
    names, count = list(tables[0]), _severities(tables[0])
    labels = [row["label"] for row in rows]
    mean = statistics.fmean
    by_corruption = [[name, *(_percent(mean(table[name])) for table in tables)] for name in names]
    total = ["**mean**", *(_percent(mean(mean(table[name]) for name in names)) for table in tables)]
    over = ", mean of the severities" if count > 1 else ""
    lines = ["", f"#### {benchmark}: error % by corruption{over}", "", *_table(["corruption", *labels], [*by_corruption, total])]
    normalised = [row["normalised"][benchmark] for row in rows if benchmark in row["normalised"]]
    if normalised:
        reference = report["corruption_reference"]["label"]
        lines += ["", f"#### {benchmark}: CE % by corruption ({reference}: 100)", ""]
        lines += _table(["corruption", *labels], [[name, *(_percent(table[name]) for table in normalised)] for name in names])
    if count == 1:
        return lines
    clean = ["clean", *(_percent(1 - row["metrics"]["clean_accuracy"]["mean"]) for row in rows)]
    by_severity = [[str(s + 1), *(_percent(mean(table[name][s] for name in names)) for table in tables)] for s in range(count)]
    lines += [
        "",
        f"#### {benchmark}: error % by severity, mean of the corruptions",
        "",
        *_table(["severity", *labels], [clean, *by_severity]),
    ]
    for label, table in zip(labels, tables, strict=True):
        both = [[name, *map(_percent, table[name])] for name in names]
        lines += [
            "",
            f"#### {benchmark}: error % of {label}",
            "",
            *_table(["corruption", *(f"severity {s + 1}" for s in range(count))], both),
        ]
    return lines


def _speeds(report: dict) -> list[str]:
    """Returns images/s of every corruption at every size, ours, the peer's and their ratio."""
    heads, columns = ["corrupted images/s"], []
    for found in report["sizes"]:
        heads += [f"{found['size']} px: robustjax", "imagecorruptions", "times faster"]
        speeds = {row["name"]: (*_of_both(row["images_per_second"]), row["times_faster"]) for row in found["rows"]}
        columns.append(speeds | {"all 15 x 5": (*_of_both(found["images_per_second_over_all"]), found["times_faster_over_all"])})
    rows = [[name, *(_speed(value) for column in columns for value in column[name])] for name in columns[0]]
    where = report["environment"]
    batches = ", ".join(f"{found['rows'][0]['batch']} at {found['size']} px" for found in report["sizes"])
    return [
        *_table(heads, rows),
        "",
        f"Means over five severities; batches of {batches}; hardware: {where['device']} ({where['backend']}, {where['cpus']} CPU cores), jax "
        f"{where['jax']}; the peer runs one process a core, ours one virtual device a core; the fastest of the rounds of each.  ",
        f"Command: `{report['command']}`.",
    ]


def _attack_seconds(report: dict) -> list[str]:
    """Returns seconds, memory and robust accuracy of every attack, ours and each peer's, and the ratio of the seconds."""
    heads = ["attack", "robustjax: s", "first call s", "peak MB", "robust %", "peer", "s", "peak MB", "robust %", "times faster"]
    rows = []
    for found in report["attacks"]:
        ours = found["packages"]["robustjax"]
        own = [_speed(ours["seconds"]), _speed(ours["first_call_seconds"]), _memory(ours), _robust(ours)]
        for peer, ratio in found["times_faster"].items():
            theirs = found["packages"][peer]
            rows.append([found["name"], *own, peer, _speed(theirs["seconds"]), _memory(theirs), _robust(theirs), f"{ratio:.2f}"])
    sides = [side["environment"] for found in report["attacks"] for side in found["packages"].values()]
    versions = {name: side[name] for side in sides for name in ("jax", "torch", "torchattacks", "foolbox") if name in side}
    seeds = len(report["attacks"][0]["packages"]["robustjax"]["seconds_by_seed"])
    return [
        *_table(heads, rows),
        "",
        f"{report['images']} images of CIFAR-10 in batches of {report['batch']}; {report['network']}; L-inf, eps {report['eps']:.5g}. Stages of "
        f"AutoAttack each by itself; {'; '.join(f'{name}: {what}' for name, what in report['parameters'].items())}.  ",
        f"The fastest of {seeds} seeds of each, in turn; the first call compiles; robust accuracy: mean of the seeds; memory: the most that the "
        f"process held{' on the accelerator' if report['device'] == 'gpu' else ''}. Hardware: {sides[0]['device']} ({sides[0]['backend']}), "
        f"{report['cpu']}, {report['threads']} thread{'s' if report['threads'] > 1 else ''} for every package; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}.  ",
        f"Command: `{report['command']}`.",
    ]


def _memory(side: dict) -> str:
    return f"{side['peak_device_megabytes'] or side['peak_megabytes']:,.0f}"


def _robust(side: dict) -> str:
    return _percent(statistics.fmean(side["robust_accuracy_by_seed"]))


def _of_both(speeds: dict) -> tuple[float, float]:
    return speeds["ours"], speeds["peer"]


def _speed(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"
