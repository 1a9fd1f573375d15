"""Draws the numbers of noisy.py and embedding.py; the loss around an image is drawn with the other surfaces, in figures.py."""

import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

from robustjax.evaluate.distributions import COLOURS, DASHES, MARKERS, finish
from robustjax.evaluate.noisy import LEVELS

KINDS = ("clean", "noisy")
FEW = 20  # classes that can be told apart in a legend


def _draw_retained(made: dict):
    import matplotlib.pyplot as plt

    share = 100 * np.array(made["kept"]) / made["n"]
    drawn, axis = plt.subplots(figsize=(6.2, 4.2), layout="constrained")
    several = False
    for i, row in enumerate(made["rows"]):
        colour, runs = COLOURS[i % len(COLOURS)], np.array(row["of_runs_percent"])
        if len(runs) > 1:
            several = True
            axis.fill_between(share, runs.min(axis=0), runs.max(axis=0), color=colour, alpha=0.15, linewidth=0)
        style = MARKERS[i % len(MARKERS)] + DASHES[i % len(DASHES)]
        axis.plot(share, row["accuracy_percent"], style, color=colour, label=row["label"], markersize=4.5)
    axis.set(xlabel="share of the test images that is kept, those of lowest curvature (%)", ylabel="accuracy on noisy images (%)")
    what = f"{_noise(made)}, mean of {made['repeats']} draws, {made['n']} test images"
    finish(drawn, axis, what + ("; bands: from the lowest to the highest seed" if several else ""), made)
    axis.legend(frameon=False, fontsize=8.5, loc="lower left")
    return drawn


def _noise(made: dict) -> str:
    name = {"gaussian": "Gaussian", "uniform": "uniform"}[made["noise_kind"]]
    return f"{name} noise of {LEVELS[made['noise_kind']]} {made['noise']:g}"


def _draw_groups(made: dict):
    """The means above, below how many images each of them is of."""
    import matplotlib.pyplot as plt

    rows, right = made["rows"], np.arange(made["repeats"] + 1)
    drawn, (axis, below) = plt.subplots(2, 1, figsize=(6.2, 5.2), layout="constrained", sharex=True, height_ratios=(3, 1))
    for i, row in enumerate(rows):
        colour = COLOURS[i % len(COLOURS)]
        some = np.flatnonzero(row["images"])
        mean = np.array([row["mean"][k] for k in some])
        r = "not defined" if row["pearson_r"] is None else f"{row['pearson_r']:.2f}"
        style = MARKERS[i % len(MARKERS)] + DASHES[i % len(DASHES)]
        axis.plot(right[some], mean, style, color=colour, label=f"{row['label']}: r = {r}", markersize=4.5)
        wide = 0.8 / len(rows)
        share = 100 * np.array(row["images"]) / sum(row["images"])
        below.bar(right + wide * (i - (len(rows) - 1) / 2), share, wide, color=colour, alpha=0.65)
    unit = "pixel" if made["options"]["std"] == 1 else f"(pixel / {made['options']['std']:g})"
    positive = all(mean is None or mean > 0 for row in rows for mean in row["mean"])
    axis.set(yscale="log" if positive else "symlog", ylabel=f"mean $\\sum_i \\lambda_i^2$ (nats$^2$ / {unit}$^4$)")
    below.set(yscale="log", xlabel=f"right predictions under {made['repeats']} draws of noise", ylabel="images (%)", xticks=right)
    finish(drawn, below, "", made)
    what = f"Input curvature of {made['n']} test images, {_noise(made)}"
    finish(drawn, axis, f"{what}; Pearson's r over groups", made)
    axis.legend(frameon=False, fontsize=8.5)
    return drawn


def _draw_tsne(made: dict):
    """A row for each network, clean and noisy side by side; with blocks two rows, and a column for each layer."""
    import matplotlib.pyplot as plt

    rows = made["rows"]
    most = max(len(row["layers"]) for row in rows)
    by_layer = most > 1
    columns, lines = (most, 2 * len(rows)) if by_layer else (2, len(rows))
    side, left, bottom = (2.2, 0.55, 0.6) if by_layer else (3.3, 0.35, 0.6)
    names = made["class_names"]
    wide = left + side * columns
    words = f"t-SNE of {'the mean outputs of blocks' if by_layer else 'penultimate features'} of {len(made['ids'])} test images"
    notes = dict.fromkeys(note for row in rows for note in row["notes"])
    text = "; ".join([f"{words}, clean and with {_noise(made)} ({made['data']})", *notes])
    title = textwrap.wrap(text, int(13 * wide))
    top = 0.17 * len(title) + 0.15
    high = top + lines * (side + 0.27) + (bottom if len(names) <= FEW else 0.1)
    drawn = plt.figure(figsize=(wide, high))
    drawn.suptitle("\n".join(title), fontsize=10, y=1 - 0.07 / high)
    for i, row in enumerate(rows):
        for j, layer in enumerate(row["layers"]):
            for k, kind in enumerate(KINDS):
                line, column = (2 * i + k, j) if by_layer else (i, k)
                y = top + line * (side + 0.27) + 0.24
                place = ((left + side * column + 0.04) / wide, 1 - (y + side) / high, (side - 0.08) / wide, side / high)
                axis = drawn.add_axes(place, xticks=[], yticks=[])
                _points(axis, layer[kind], np.array(made["classes"]), len(names))
                said = f"{kind}, {row['right_percent'][kind]:.1f} % right"
                axis.set_title(layer["name"] if by_layer else said, fontsize=8.5 if by_layer else 9.5, pad=3)
                if by_layer and column == 0:
                    axis.set_ylabel(said, fontsize=8, labelpad=2)
        lines_each = 2 if by_layer else 1
        middle = top + (lines_each * (i + 0.5)) * (side + 0.27)
        text = textwrap.fill(row["label"], int(lines_each * side * 13))
        drawn.text(0.17 / wide, 1 - middle / high, text, rotation=90, ha="center", va="center", fontsize=9.5)
    if len(names) <= FEW:
        _classes(drawn, names, wide)
    return drawn


def _points(axis, places: dict, classes: np.ndarray, count: int) -> None:
    """Draws one layer's points, in an order that hides no class behind another."""
    x, y = np.array(places["x"]), np.array(places["y"])
    size = float(np.clip(6000 / len(x), 3, 40))
    colours = _palette(count)
    for start in range(8):  # of every class some, then of every class some more
        for c in range(count):
            some = np.flatnonzero(classes == c)[start::8]
            axis.scatter(x[some], y[some], s=size, color=colours[c], marker=MARKERS[c % len(MARKERS)], linewidths=0, alpha=0.8)
    middle, reach = [(v.max() + v.min()) / 2 for v in (x, y)], 0.53 * max(np.ptp(x), np.ptp(y))
    axis.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach))
    axis.spines[:].set_color("#b0b0b0")


def _palette(count: int) -> np.ndarray:
    import matplotlib

    if count <= 10:
        return matplotlib.colormaps["tab10"](np.arange(count))
    return matplotlib.colormaps["tab20"](np.arange(count)) if count <= FEW else matplotlib.colormaps["turbo"](np.linspace(0, 1, count))


def _classes(drawn, names: list[str], wide: float) -> None:
    from matplotlib.lines import Line2D

    colours = _palette(len(names))
    marks = [Line2D([], [], linestyle="", marker=MARKERS[c % len(MARKERS)], color=colours[c], markersize=5) for c in range(len(names))]
    columns = max(1, min(len(names), int(12 * wide / (3 + max(map(len, names))))))
    drawn.legend(marks, names, loc="lower center", ncols=columns, frameon=False, fontsize=8.5, handletextpad=0, columnspacing=0.8)


DRAW: dict[str, Callable[[dict], Any]] = {"retained": _draw_retained, "groups": _draw_groups, "tsne": _draw_tsne}
