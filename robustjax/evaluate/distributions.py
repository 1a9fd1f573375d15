"""Figures of what `evaluate` has measured of the geometry of runs: what each draw or example gave, from the npz beside each result.

Runs of one configuration that differ in their seed are one row, over all of whose draws or examples numbers are taken; so are runs
that were given one label. `flatness`, `thickness` and `curvature` gather numbers as a JSON-like dict, the functions in DRAW draw it.
"""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from robustjax.core import registry
from robustjax.core.check import InputError
from robustjax.evaluate.states import DAMAGED, read_npz
from robustjax.evaluate.surfaces import Network, networks, rounded
from robustjax.io import results

VARIANTS = {"flatness": ("absolute", "norm", "filters"), "thickness": ("predicted", "label"), "curvature": ("finite", "exact")}
BINS = 40
BAND = (0.05, 0.95)  # quantiles over draws
# Of Okabe and Ito, told apart by everyone; with marks and dashes for print in grey.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS, DASHES = "osD^vPX", ("-", "--", "-.", ":")


class Row(NamedTuple):
    """What was measured of runs that are drawn as one."""

    label: str
    about: list[dict]  # of each run
    arrays: list[dict[str, np.ndarray]]
    networks: list[Network]


def flatness(workdirs: Sequence[str | Path], *, checkpoint: str | int = "best", label: Sequence[str] = (), variant: str = "") -> dict:
    """Gathers the loss by distance from the weights (SPIDER, figure 2).

    Args:
        workdirs: folders of runs with results of the suite flatness.
        checkpoint: of which it was measured: 'best', 'last' or a step.
        label: what the figure calls the runs; those of one label are one row.
        variant: 'absolute', 'norm' or 'filters': what distances are of; if empty, the first that every run has.

    Returns:
        JSON-like: radii with 0 in front, rows [{label, runs, draws, mean, low, high}]: mean loss over draws, and between which
        losses 90 of 100 draws lie.

    Raises:
        InputError: for results that are missing or were measured otherwise than those of the first run.
    """
    rows, shared = gathered("flatness", workdirs, checkpoint, label, variant)
    made = []
    for row in rows:
        losses = np.concatenate([arrays["loss"] for arrays in row.arrays], axis=1)
        low, high = np.quantile(losses, BAND, axis=1)
        statistics = {"mean_nats": losses.mean(axis=1), "low_nats": low, "high_nats": high}
        made.append(described(row) | {"draws": losses.shape[1]} | {name: rounded(values) for name, values in statistics.items()})
    return shared | {"radii": [0.0, *shared["options"]["radii"]], "band": list(BAND), "rows": made}


def thickness(workdirs: Sequence[str | Path], *, checkpoint: str | int = "best", label: Sequence[str] = (), variant: str = "") -> dict:
    """Gathers how boundary thickness is distributed over test images, in units of normalised images as in the papers.

    Args:
        workdirs: folders of runs with results of the suite thickness.
        checkpoint: of which it was measured.
        label: what the figure calls the runs; those of one label are one row.
        variant: 'predicted' or 'label': the class at which segments begin; if empty, the first that every run has.

    Returns:
        JSON-like: intervals [{alpha, beta, edges (bins + 1,)}], rows [{label, runs, images, intervals [{mean, std, share (bins,)}]}]
        with the share of images in each bin.

    Raises:
        InputError: as `flatness`.
    """
    rows, shared = gathered("thickness", workdirs, checkpoint, label, variant)
    std, intervals = shared["options"]["std"], []
    made = [described(row) | {"images": sum(len(arrays["ids"]) for arrays in row.arrays), "intervals": []} for row in rows]
    for alpha, beta in shared["options"]["intervals"]:
        values = [np.concatenate([a[f"thickness_{alpha:g}_{beta:g}"] for a in row.arrays]).astype(np.float64) / std for row in rows]
        edges = np.linspace(0, max(max(map(np.max, values)), 1e-6), BINS + 1)
        intervals.append({"alpha": alpha, "beta": beta, "edges": rounded(edges)})
        for row, found in zip(made, values, strict=True):
            share = np.histogram(found, edges)[0] / len(found)
            row["intervals"].append({"mean": rounded(found.mean()), "std": rounded(found.std()), "share": rounded(share)})
    return shared | {"intervals": intervals, "rows": made}


def curvature(
    workdirs: Sequence[str | Path],
    *,
    checkpoint: str | int = "best",
    label: Sequence[str] = (),
    variant: str = "",
    portion: float = 0.9,
) -> dict:
    """Gathers the curvature of the loss over test images, of those where it is lowest (discriminative loss, figure 10).

    Args:
        workdirs: folders of runs with results of the suite curvature.
        checkpoint: of which it was measured.
        label: what the figure calls the runs; those of one label are one row.
        variant: 'finite', differences of gradients as in the paper, or 'exact'; if empty, the first that every run has.
        portion: of the images that is kept, in (0, 1]; the paper keeps "the 90% of test samples with the lowest input loss curvatures".

    Returns:
        JSON-like: portion, rows [{label, runs, images, mean, median, quartiles, whiskers}], of the images that were kept; whiskers
        are quantiles of 5 and 95 of 100.

    Raises:
        InputError: as `flatness`; for a portion out of range.
    """
    if not 0 < portion <= 1:
        raise InputError(f"--portion is the part of the images that is kept and must be above 0 and at most 1, got {portion:g}.")
    rows, shared = gathered("curvature", workdirs, checkpoint, label, variant)
    made = []
    for row in rows:  # the lowest of each run: with seeds of unlike curvature, the lowest of all would be one seed's
        kept = [np.sort(arrays["curvature"].astype(np.float64)) for arrays in row.arrays]
        values = np.concatenate([v[: max(1, round(portion * len(v)))] for v in kept])
        low, first, median, third, high = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
        numbers = {"mean": values.mean(), "median": median, "quartiles": np.array([first, third]), "whiskers": np.array([low, high])}
        made.append(described(row) | {"images": len(values)} | {name: rounded(value) for name, value in numbers.items()})
    return shared | {"portion": portion, "rows": made}


def gathered(
    suite: str, workdirs: Sequence[str | Path], checkpoint: str | int, labels: Sequence[str], variant: str
) -> tuple[list[Row], dict]:
    """Returns the rows of results of a suite, a key of VARIANTS, and what these have in common."""
    if variant and variant not in VARIANTS[suite]:
        raise registry.unknown(f"variant of {suite}", variant, VARIANTS[suite])
    runs = list(zip(workdirs, networks(workdirs, checkpoint=checkpoint, labels=labels, seeds_share=True), strict=True))
    chosen = variant or _common(suite, runs)
    rows: dict[str, Row] = {}
    first: dict[str, Any] = {}
    for workdir, run in runs:
        stored = _stored(workdir, run, f"{suite}/{chosen}")
        if stored is None:
            raise _missing(suite, f"{suite}/{chosen}", workdir, run)
        path, found = stored
        shared = {"data": found["run"]["data"], "n": found["n"], "options": found["run"]["item"]["options"]}
        first = first or shared
        if shared != first:
            raise InputError(
                f"{workdir} was measured with {_said(shared)}, {workdirs[0]} with {_said(first)}; one figure needs the same --limit and --geometry."
            )
        row = rows.setdefault(run.label, Row(run.label, [], [], []))
        if run.about in row.about:
            raise InputError(f"{workdir} is there twice; name each run once.")
        row.about.append(run.about)
        row.arrays.append(_arrays(path))
        row.networks.append(run)
    return list(rows.values()), {"figure": suite, "variant": chosen, "split": "test", **first}


def _common(suite: str, runs: Sequence[tuple[str | Path, Network]]) -> str:
    """Returns the first variant that every run has."""
    have = [[name for name in VARIANTS[suite] if _stored(workdir, run, f"{suite}/{name}")] for workdir, run in runs]
    for (workdir, run), names in zip(runs, have, strict=True):
        if not names:
            raise _missing(suite, f"of the suite {suite}", workdir, run)
    for name in VARIANTS[suite]:
        if all(name in names for names in have):
            return name
    said = "; ".join(f"{workdir}: {', '.join(names)}" for (workdir, _), names in zip(runs, have, strict=True))
    raise InputError(f"the runs have no kind of {suite} in common ({said}); measure them with the same --geometry.")


def _missing(suite: str, what: str, workdir: str | Path, run: Network) -> InputError:
    return InputError(
        f"{workdir} has no result {what} of checkpoint {run.loaded.step}; measure it: "
        f"python launch/evaluate.py --workdir={workdir} --suite={suite}"
    )


def _stored(workdir: str | Path, run: Network, name: str) -> tuple[Path, dict] | None:
    """Returns the result of the most images, of this checkpoint."""
    found = [(path, results.read(path)) for path in sorted(Path(workdir).glob(f"evaluation/step{run.loaded.step}_n*/{name}.json"))]
    of = ("config_hash", "weights")
    own = [(path, result) for path, result in found if result and all(result["run"].get(key) == run.about[key] for key in of)]
    return max(own, key=lambda pair: pair[1]["n"], default=None)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        arrays = read_npz(path.with_suffix(".npz"))
    except DAMAGED:
        arrays = None
    if arrays is None:
        raise InputError(f"{path.with_suffix('.npz')} is missing or damaged; delete {path.name} beside it and evaluate again.")
    return arrays


def _said(shared: dict) -> str:
    options = ", ".join(f"{name} {value}" for name, value in sorted(shared["options"].items()))
    return f"{shared['n']} images of {shared['data']} ({options})"


def described(row: Row) -> dict:
    """Returns what tells a row from others, for the file of numbers."""
    notes = list(dict.fromkeys(note for about in row.about for note in about["notes"]))
    return {"label": row.label, "runs": row.about, "notes": notes}


def _draw_flatness(made: dict):
    import matplotlib.pyplot as plt

    drawn, axis = plt.subplots(figsize=(6.2, 4.2), layout="constrained")
    for i, row in enumerate(made["rows"]):
        colour = COLOURS[i % len(COLOURS)]
        axis.fill_between(made["radii"], row["low_nats"], row["high_nats"], color=colour, alpha=0.15, linewidth=0)
        style = MARKERS[i % len(MARKERS)] + DASHES[i % len(DASHES)]
        axis.plot(made["radii"], row["mean_nats"], style, color=colour, label=row["label"], markersize=4.5)
    unit = {
        "absolute": "$L_2$ over all weights",
        "norm": "multiples of the norm of the weights",
        "filters": "multiples of each filter's norm",
    }
    axis.set(yscale="log", xlabel=f"distance from the weights ({unit[made['variant']]})", ylabel="cross-entropy (nats)")
    finish(drawn, axis, f"Mean loss of {made['n']} test images; bands hold 90 of 100 draws", made)
    axis.legend(frameon=False, fontsize=8.5)
    return drawn


def _draw_thickness(made: dict):
    import matplotlib.pyplot as plt

    count = len(made["intervals"])
    drawn, axes = plt.subplots(1, count, figsize=(4.6 * count, 4.1), layout="constrained", squeeze=False)
    for j, (axis, interval) in enumerate(zip(axes[0], made["intervals"], strict=True)):
        peak = 100 * max(max(row["intervals"][j]["share"]) for row in made["rows"])
        for i, row in enumerate(made["rows"]):
            colour, dash, found = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)], row["intervals"][j]
            percent = 100 * np.array(found["share"])
            label = f"{row['label']}: mean {found['mean']:.2f}"
            axis.stairs(percent, interval["edges"], color=colour, linestyle=dash, linewidth=1.5, label=label)
            axis.stairs(percent, interval["edges"], color=colour, fill=True, alpha=0.12)
            axis.vlines(found["mean"], 0, peak, color=colour, linestyle=dash, linewidth=0.9)
        axis.set(
            xlabel=f"boundary thickness (pixels / {made['options']['std']:g})",
            ylabel="share of images (%)",
            xlim=(0, 1.01 * interval["edges"][-1]),
        )
        axis.set_title(f"$\\alpha$ = {interval['alpha']:g}, $\\beta$ = {interval['beta']:g}", fontsize=9.5)
        axis.set_ylim(0, peak * (1.1 + 0.09 * len(made["rows"])))  # room for the legend
        axis.legend(frameon=False, fontsize=8, loc="upper left")
        finish(drawn, axis, f"Boundary thickness of {made['n']} test images; vertical lines: means", made)
    return drawn


def _draw_curvature(made: dict):
    import matplotlib.pyplot as plt

    rows = made["rows"]
    drawn, axis = plt.subplots(figsize=(6.4, 1.5 + 0.55 * len(rows)), layout="constrained")
    boxes = [
        {
            "med": r["median"],
            "mean": r["mean"],
            **dict(zip(("q1", "q3", "whislo", "whishi"), (*r["quartiles"], *r["whiskers"]), strict=True)),
        }
        for r in rows
    ]
    marks = {"marker": "D", "markerfacecolor": "white", "markeredgecolor": "black", "markersize": 4.5}
    style = {"medianprops": {"color": "black", "linewidth": 1.5}, "meanprops": marks, "boxprops": {"linewidth": 0.8}}
    shown = axis.bxp(boxes, orientation="horizontal", showfliers=False, showmeans=True, patch_artist=True, widths=0.55, **style)
    for i, box in enumerate(shown["boxes"]):
        box.set_facecolor(COLOURS[i % len(COLOURS)])
        box.set_alpha(0.65)
    axis.set_yticks(range(1, len(rows) + 1), [row["label"] for row in rows], fontsize=9)
    axis.invert_yaxis()
    unit = "pixel" if made["options"]["std"] == 1 else f"(pixel / {made['options']['std']:g})"
    smallest = min(box["whislo"] for box in boxes)
    axis.set(
        xscale="log" if smallest > 0 else "symlog",
        xlabel=f"$\\sum_i \\lambda_i^2$ of the Hessian of the loss in the image (nats$^2$ / {unit}$^4$)",
    )
    what = f"Input curvature, the lowest {100 * made['portion']:g} % of {made['n']} test images; whiskers: 5 to 95 %, diamonds: means"
    finish(drawn, axis, what, made, grid="x")
    return drawn


def finish(drawn, axis, what: str, made: dict, *, grid: str = "y") -> None:
    """Gives a picture its title and its axis the look that they all have."""
    notes = dict.fromkeys(note for row in made["rows"] for note in row["notes"])
    lines = textwrap.wrap(what, int(13.5 * drawn.get_figwidth()))
    drawn.suptitle("\n".join([*lines, "; ".join([made["data"], *notes])]), fontsize=9.5)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis=grid, alpha=0.3)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8.5)


DRAW: dict[str, Callable[[dict], Any]] = {"flatness": _draw_flatness, "thickness": _draw_thickness, "curvature": _draw_curvature}
