"""What steps of training take, as tables: the JSON of launch/benchmark_adversarial.py and of launch/benchmark_training.py."""

from collections.abc import Callable

_HEADS = ["network", "method", "s a step", "times TRADES", "range", "paper", "convolutions", "times TRADES", "floor"]
_MEMORY = ["temporary MB", "times TRADES", "paper"]
_PEAK = ["device's peak MB", "times TRADES"]


def adversarial(report: dict, network: Callable[[dict], str]) -> tuple[list[str], list[list[str]], list[str]]:
    """Returns seconds, convolutions and memory of a step of each method, and their ratios to TRADES beside the paper's.

    Args:
        report: the JSON.
        network: returns the name of a network, from its configuration.

    Returns:
        Heads, cells, and the lines below the table.
    """
    peaks = any(row["peak_bytes"] for found in report["measured"] for row in found["methods"])
    cells = [
        [f"{network(found['model'])}, batch {found['batch']}", *_cells(row, report["paper"]), *(_peak(row) if peaks else [])]
        for found in report["measured"]
        for row in found["methods"]
    ]
    return [*_HEADS, *_MEMORY, *(_PEAK if peaks else [])], cells, _lines(report, peaks)


def training(report: dict, network: Callable[[dict], str]) -> tuple[list[str], list[list[str]], list[str]]:
    """Returns how many images a second SPIDER trains on, beside training without it and in bfloat16, and the time of an evaluation.

    Args:
        report: the JSON.
        network: returns the name of a network, from its configuration.

    Returns:
        Heads, cells, and the lines below the table.
    """
    heads = ["network", *(f"{name}, images/s" for name in report["training"][0]["images_per_second"])]
    heads += [f"{name}: times the time (range)" for name in report["training"][0]["times_spider_float32"]]
    idle = any(found["host_idle"] for found in report["training"])
    cells = []
    for found in report["training"]:
        ranges = found["times_spider_float32_range"]
        cells.append([f"{network(found['model'])}, batch {found['batch']}", *(f"{n:,.0f}" for n in found["images_per_second"].values())])
        cells[-1] += [f"{n:.2f} ({ranges[name][0]:.2f} to {ranges[name][1]:.2f})" for name, n in found["times_spider_float32"].items()]
        cells[-1] += [f"{100 * found['host_idle']['SPIDER float32']:.0f}"] if idle else []
    measured, where = report["evaluation"], report["environment"]
    parts = ", ".join(f"{name} {seconds:,.0f} s" for name, seconds in measured["seconds"].items())
    lines = [
        "Whole training steps with crop and flip, 32x32 images, the fastest of several turns; times the "
        f"{'processor time' if where['backend'] == 'cpu' else 'time'} of SPIDER in float32, with which the others take turns: median.  ",
        f"Full evaluation of one checkpoint ({measured['run']}, {measured['n']} test images, {measured['items']} items; clean accuracy "
        f"{100 * measured['clean_accuracy']:.1f} %; AutoAttack {measured['autoattack']}): {measured['total_seconds']:,.0f} s with compilation, "
        f"of which {parts}.  ",
        *(f"{note}  " for note in report["notes"]),
        f"Hardware: {where['device']} ({where['backend']}, {where['cpus']} CPU cores), jax {where['jax']}.  ",
        f"Command: `{report['command']}`.",
    ]
    return [*heads, *(["host idle %"] if idle else [])], cells, lines


def _cells(row: dict, paper: dict) -> list[str]:
    def printed(key: str) -> str:
        values = paper[key]
        return f"{values[row['name']] / values['trades']:.2f}" if row["name"] in values and row["name"] != "trades" else ""

    low, high = row["times_trades_range"]
    return [
        row["label"] + (" \\*" if row["compiler_options"] else ""),
        f"{row['seconds']:.3g}",
        f"{row['times_trades']:.2f}",
        f"{low:.2f} to {high:.2f}",
        printed("seconds_an_epoch"),
        _known(row["convolutions"], ","),
        _known(row["convolutions_times_trades"], ".2f"),
        _known(row["floor_times_trades"], ".2f"),
        _megabytes(row["temporary_bytes"]),
        _known(row["temporary_times_trades"], ".2f"),
        printed("memory_megabytes"),
    ]


def _peak(row: dict) -> list[str]:
    return [_megabytes(row["peak_bytes"]), _known(row["peak_times_trades"], ".2f")]


def _megabytes(value: int | None) -> str:
    return "" if value is None else _known(value / 1e6, ".1f" if value < 1e8 else ",.0f")


def _known(value: int | float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _lines(report: dict, peaks: bool) -> list[str]:
    rows = [row for found in report["measured"] for row in found["methods"]]
    where, k = report["environment"], report["pgd_steps"]
    lines = [
        f"One training step on one device, {report['size']}x{report['size']} images, {k} step{'s' if k > 1 else ''} of the inner maximisation; each method in turn with "
        f"TRADES, {report['pairs']} times: median and range of the ratios. TRADES itself was too: how far its ratio is from 1 says how far to trust the others.",
        "Convolutions: of the compiled step, loops counted as often as they go round, and one on half of a batch like one on a whole. Floor: "
        "what has to be computed, in convolutions of a whole batch; it rises with the depth of the network towards "
        f"{(2 * k + 17) / (2 * k + 7):.2f} for the first order and {(2 * k + 27) / (2 * k + 7):.2f} for both.",
        "Temporary memory: what the compiled step needs beside its arguments and results."
        + (" The device's peak is left out where an earlier program's hides it." if peaks else ""),
    ]
    if any(row["compiler_options"] for row in rows):
        lines.append(
            "\\* Compiled without XLA's pass cse_barrier_expander, to show what an accelerator does: as it is, XLA on CPU merges the second "
            "computation with the first, and rematerialisation saves nothing there."
        )
    if broken := [f"{row['name']} of {found['network']}" for found in report["measured"] for row in found["methods"] if not row["finite"]]:
        lines.append(f"Warning: losses that were not finite in {', '.join(broken)}.")
    lines += [
        f"Paper: {report['paper']['source']}; measured on {report['paper']['measured']}.",
        f"Hardware: {where['device']} ({where['backend']}, {where['cpus']} CPU cores), jax {where['jax']}.",
        f"Command: `{report['command']}`.",
    ]
    return [*(line + "  " for line in lines[:-1]), lines[-1]]
