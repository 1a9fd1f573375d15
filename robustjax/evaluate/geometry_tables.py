"""Thickness, flatness and curvature in a report: what is gathered from results, and what tables call it."""

import re
from collections.abc import Iterable, Mapping

KINDS = ("thickness", "flatness", "hessian", "curvature")
_FORMS = {"finite": "differences of gradients (Eq. 21 of the discriminative-loss paper)", "exact": "Hessian-vector products"}
_OF = {
    "absolute": "L2 over all weights",
    "norm": "relative to the norm of the weights",
    "filters": "relative to each filter (filter-normalised directions)",
}


def of_run(found: Iterable[dict]) -> tuple[dict[str, float], dict[str, dict]]:
    """Gathers one run's results of geometry.

    Args:
        found: results, of any kind.

    Returns:
        Numbers by '<item>:<metric>', and {item: kind, options, n, cost}.
    """
    numbers, entries = {}, {}
    for result in found:
        item = result["run"]["item"]
        if item["kind"] in KINDS:
            numbers |= {f"{item['name']}:{key}": value for key, value in result["metrics"].items()}
            cost = {key: result[key] for key in ("seconds", "images_per_second", "peak_memory_bytes", "peak_memory_of")}
            entries[item["name"]] = {"kind": item["kind"], "options": item["options"], "n": result["n"], "cost": cost}
    return numbers, entries


def settings(entries: Mapping[str, Mapping]) -> dict:
    """Returns what runs that share a table have in common."""
    return {name: (entry["options"], entry["n"]) for name, entry in entries.items()}


def columns(found: Iterable[str]) -> list[str]:
    """Returns which numbers the first table shows: thickness in the papers' units, curvature, the Hessian of the weights."""
    shown = {"thickness": r"thickness_.*_per_std_.*_mean", "curvature": r".*_(mean|median)", "flatness": r"top_eigenvalue|trace_mean"}
    return [name for name in found if is_geometry(name) and re.fullmatch(shown[name.partition("/")[0]], name.partition(":")[2])]


def is_geometry(name: str) -> bool:
    """Returns whether a number of a row is one of `of_run`, which are no fractions."""
    return name.partition("/")[0] in KINDS


def heading(name: str) -> str:
    """Returns what a table calls a number.

    >>> heading("thickness/label:thickness_0_0.75_per_std_0.2_mean"), heading("curvature/exact:curvature_pixels_median")
    ('thickness (0, 0.75)', 'curvature, exact: median')
    """
    item, _, key = name.partition(":")
    kind, _, form = item.partition("/")
    if kind == "thickness":
        alpha, beta = key.split("_")[1:3]
        return f"thickness ({alpha}, {beta})"
    if kind == "curvature":
        return f"curvature{', exact' if form == 'exact' else ''}: {key.rpartition('_')[2]}"
    return {"top_eigenvalue": "Hessian in weights: largest eigenvalue", "trace_mean": "Hessian in weights: trace"}[key]


def cell(spread: Mapping) -> str:
    """Returns a number with its deviation over the seeds.

    >>> cell({"mean": 1.23456, "std": 0.0567}), cell({"mean": 1234.5, "std": None})
    ('1.235 ± 0.057', '1,234')
    """
    return _number(spread["mean"], 4) + ("" if spread["std"] is None else f" ± {_number(spread['std'], 2)}")


def _number(value: float, digits: int) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def curves(row: Mapping) -> dict[str, list[tuple[float, dict]]]:
    """Returns {what radii are of: [(radius, loss over the seeds), ...]}, from radius 0 on."""
    found = {}
    for name, entry in row.get("geometry", {}).items():
        if entry["kind"] == "flatness":
            of, numbers = entry["options"]["of"], row["metrics"]
            at = [(radius, f"{at_radius(radius, of)}_mean") for radius in entry["options"]["radii"]]
            found[of] = [(0.0, numbers[f"{name}:loss_at_0"]), *((radius, numbers[f"{name}:{key}"]) for radius, key in at)]
    return found


def at_radius(radius: float, of: str) -> str:
    """Returns the name of the loss at a radius.

    >>> at_radius(32.5, "absolute"), at_radius(0.1, "norm"), at_radius(0.5, "filters")
    ('loss_at_32.5', 'loss_at_0.1_of_norm', 'loss_at_0.5_of_filters')
    """
    return f"loss_at_{radius:g}" + ("" if of == "absolute" else f"_of_{of}")


def radius_title(of: str) -> str:
    """Returns what a figure calls the radii.

    >>> radius_title("norm")
    'radius, relative to the norm of the weights'
    """
    return f"radius, {_OF[of]}"


def tables(rows: list[Mapping]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Returns (title, heads, cells) of the loss by radius."""
    made = []
    for of, points in curves(rows[0]).items():
        heads = ["method", *(f"{radius:g}" for radius, _ in points)]
        cells = [[row["label"], *(cell(loss) for _, loss in curves(row)[of])] for row in rows]
        made.append((f"Loss (nats) by distance from the weights: {radius_title(of)}", heads, cells))
    return made


def footer(row: Mapping) -> list[str]:
    """Returns a line on each thing measured, of a report's first row."""
    lines = []
    for name, entry in row.get("geometry", {}).items():
        options, images = entry["options"], f"{entry['n']} test images"
        if entry["kind"] == "thickness":
            of = "predicted class" if options["class_i"] == "predicted" else "label"
            lines.append(
                f"thickness (alpha, beta): mean over {images} of the distance from the image to where the attack `{options['preset']}` brings it, "
                f"times the share of {options['points']} points between at which the probability of the {of} exceeds that of a random other "
                f"class, the attack's target, by alpha to beta; in units of {options['std']:g} pixels, as in the papers."
            )
        elif entry["kind"] == "flatness":
            lines.append(
                f"Loss by distance: cross-entropy, mean over {images} and over {options['draws']} random directions for each network, in "
                "evaluation mode; biases and batch norm are moved too, but not in filter-normalised directions."
            )
        elif entry["kind"] == "hessian":
            lines.append(
                f"Hessian in weights: of the mean loss of {images}; largest eigenvalue by {options['steps']} steps of Lanczos, trace by "
                f"{options['draws']} draws of Hutchinson."
            )
        else:
            form = name.partition("/")[2]
            unit = "pixels in [0, 1]" if options["std"] == 1 else f"{options['std']:g} pixels"
            step = f", t = {options['t']:g}" if options["t"] else ""
            lines.append(
                f"curvature{', exact' if form == 'exact' else ''}: sum of the squared eigenvalues of the Hessian of the loss over the image, by {_FORMS[form]}"
                f"{step}, {options['draws']} directions; over {images}, in units of {unit}."
            )
    return list(dict.fromkeys(lines))
