"""Figures of the papers, drawn from numbers: `numbers` computes them as a JSON-like dict, `figure` draws that dict, `write` keeps both.

landscape    the loss around test images, over pixels                RAT, figure 2
weights      the loss around the weights                             (its counterpart in the space of weights)
boundary     probabilities on two spirals, trained in four ways      ESP, figure 1; SPIDER, figure 1
flatness     the loss by distance from the weights                   SPIDER, figure 2
thickness    boundary thickness over test images
curvature    curvature over test images                              discriminative loss, figure 10
retained     accuracy under noise where curvature is low             discriminative loss, figure 8
groups       curvature by the predictions that are right in noise    discriminative loss, figure 9
surface      the negative loss around a test image                   discriminative loss, figure 11
tsne         features of clean and noisy images in the plane         discriminative loss, figures 1, 12, 13
"""

import json
import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robustjax.core import registry, threats
from robustjax.core.check import InputError
from robustjax.evaluate import boundary, distributions, embedding, noisy, noisy_plots, surfaces
from robustjax.io import results

FIGURES = {
    "landscape": surfaces.input_surfaces,
    "weights": surfaces.weight_surfaces,
    "boundary": boundary.boundaries,
    "flatness": distributions.flatness,
    "thickness": distributions.thickness,
    "curvature": distributions.curvature,
    "retained": noisy.retained,
    "groups": noisy.groups,
    "surface": noisy.surface,
    "tsne": embedding.tsne,
}
SUFFIXES = (".png", ".pdf", ".svg")
SURFACE, AREAS = "viridis", "PuOr_r"  # told apart by everyone who does not see red and green alike
MARKERS = (("o", "#2d004b"), ("^", "#7f3b08"))  # of the classes' points, darker than the ends of AREAS that are used


def numbers(name: str, workdirs: Sequence[str | Path] = (), **options) -> dict:
    """Computes the numbers of a figure.

    Args:
        name: a key of FIGURES.
        workdirs: folders of trained runs, for figures of these.
        **options: of the figure: see the functions in FIGURES.

    Raises:
        InputError: for an unknown name, options or folders that the figure does not take, and whatever it refuses itself.
    """
    if name not in FIGURES:
        raise registry.unknown("figure", name, FIGURES)
    known = {figure: registry.option_names(function) for figure, function in FIGURES.items()}
    for option in options:
        if option not in known[name]:
            readers = " or ".join(figure for figure, names in known.items() if option in names)
            raise InputError(f"--{option} is read by the figure {readers}, got --figure={name}.")
    if name == "boundary" and workdirs:
        raise InputError("the figure boundary trains its own networks on points of the plane; leave out --workdir.")
    return FIGURES[name](*([] if name == "boundary" else [workdirs]), **options)


def check_out(path: str | Path) -> Path:
    """Returns the path of a picture; refuses one that cannot be, before anything is computed."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"--out={path} must end in one of {', '.join(SUFFIXES)}; e.g. --out=figure.png.")
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"--out={path} cannot be written: {folder} is no folder that may be written to.")
    return path


def write(made: dict, path: str | Path) -> list[Path]:
    """Draws the figure into a file, and writes its numbers into a JSON file beside it.

    Returns:
        The paths of both.

    Raises:
        InputError: if they cannot be written.
    """
    import matplotlib.pyplot as plt

    path = check_out(path)
    beside = path.with_suffix(".json")
    # Rows of numbers on a line each: a grid is easier to read so, and half as long.
    text = re.sub(
        r"\[[-+\d.e,\s]*\]", lambda row: "[" + ", ".join(row[0][1:-1].replace(",", " ").split()) + "]", json.dumps(made, indent=1)
    )
    with results.writing(beside):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = beside.with_name(f".{beside.name}.partial")
        partial.write_text(text + "\n")
        os.replace(partial, beside)
    drawn = figure(made)
    with results.writing(path):
        drawn.savefig(path, dpi=150)
        if path.suffix == ".png" and made["figure"] not in ("landscape", "weights", "surface"):
            _with_palette(path)
    plt.close(drawn)
    return [path, beside]


def _with_palette(path: Path) -> None:
    """Keeps a picture of few colours in a third of the bytes."""
    from PIL import Image

    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def figure(made: dict):
    """Draws what `numbers` gave and returns the figure of matplotlib."""
    draw = {"landscape": _landscape, "weights": _weights, "surface": _around_image, "boundary": _boundary}
    return (draw | distributions.DRAW | noisy_plots.DRAW)[made["figure"]](made)


def _landscape(made: dict):
    """A row for each network, a column for each image with its picture on top; one z axis a column."""
    import matplotlib.pyplot as plt

    rows, columns = made["rows"], made["columns"]
    loss = np.array([row["loss_nats"] for row in rows])
    levels = 255 * np.array(made["sizes"])
    wide, high, left, side = 2.7, 2.35, 0.45, 0.62  # inches: of a panel, of the rows' names, of a picture
    eps = threats.fraction(made["size"])
    drawn = plt.figure(figsize=(left + wide * len(columns) + 0.25, 1))
    top = _title(drawn, f"Cross-entropy around test images, moved by up to {eps} along either axis", made) + 0.25
    size = _resize(drawn, top + side + high * len(rows) + 0.3)
    for j, column in enumerate(columns):
        axis = drawn.add_axes(_box(size, left + wide * (j + 0.5) - side / 2, top, side, side))
        axis.imshow(np.array(column["pixels"], np.uint8).squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_axis_off()
        axis.set_title(f"test image {column['id']}: {column['label']}", fontsize=9, pad=4)
        for i in range(len(rows)):
            panel = _panel(drawn, _box(size, left + wide * j, top + side + high * i, wide, high))
            _surface(panel, levels, loss[i, j], (loss[:, j].min(), loss[:, j].max()))
            panel.set_xlabel("gradient's signs (1/255)", fontsize=7, labelpad=-6)
            panel.set_ylabel("random signs (1/255)", fontsize=7, labelpad=-6)
            panel.set_zlabel("loss (nats)", fontsize=7, labelpad=-4)
    for i, row in enumerate(rows):
        y = 1 - (top + side + high * (i + 0.5)) / size[1]
        drawn.text(0.27 / size[0], y, textwrap.fill(row["label"], 28), rotation=90, ha="center", va="center", fontsize=9.5)
    return drawn


def _weights(made: dict):
    """A panel for each network; one z axis for all."""
    loss = np.array([row["loss_nats"] for row in made["rows"]])
    what = f"Mean cross-entropy of {made['examples']} test images around the weights, along two random directions"
    unit = "filter norms" if made["scaling"] == "filter" else "$L_2$, all weights"
    return _panels(made, what, loss, (f"first direction ({unit})", f"second direction ({unit})", "loss (nats)"))


def _around_image(made: dict):
    """A panel for each network, the image above them; one z axis for all."""
    loss = np.array([row["negative_loss_nats"] for row in made["rows"]])
    image = made["image"]
    what = f"Negative cross-entropy around test image {image['id']}, class {image['label']}"
    units = ("along the gradient ($L_2$)", "orthogonal, random ($L_2$)", "negative loss (nats)")
    return _panels(made, what, loss, units, np.array(image["pixels"], np.uint8))


def _panels(made: dict, what: str, loss: np.ndarray, axes: tuple[str, str, str], image: np.ndarray | None = None):
    """Draws loss [row, p, q], with the names of its axes."""
    import matplotlib.pyplot as plt

    rows = made["rows"]
    wide, high, side = 3.4, 3.0, 0.0 if image is None else 0.7
    drawn = plt.figure(figsize=(max(wide * len(rows), 4.5) + 0.4, 1))
    above = _title(drawn, what, made)
    top = above + side + 0.3
    size = _resize(drawn, top + high + 0.35)
    if image is not None:
        axis = drawn.add_axes(_box(size, (size[0] - side) / 2, above, side, side))
        axis.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_axis_off()
    for i, row in enumerate(rows):
        x = (size[0] - wide * len(rows)) / 2 + wide * i
        panel = _panel(drawn, _box(size, x, top, wide, high))
        _surface(panel, np.array(made["sizes"]), loss[i], (loss.min(), max(loss.max(), 0.0)))
        panel.set_xlabel(axes[0], fontsize=7.5, labelpad=-5)
        panel.set_ylabel(axes[1], fontsize=7.5, labelpad=-5)
        panel.set_zlabel(axes[2], fontsize=7.5, labelpad=-3)
        drawn.text((x + wide / 2) / size[0], 1 - top / size[1], textwrap.fill(row["label"], 40), ha="center", va="center", fontsize=9.5)
    return drawn


def _title(drawn, what: str, made: dict) -> float:
    """Writes the title, in lines as wide as the figure; returns their height in inches."""
    notes = dict.fromkeys(note for row in made["rows"] for note in row["notes"])
    text = "; ".join([f"{what} ({made['data']})", *notes])
    lines = textwrap.wrap(text, int(12.5 * drawn.get_figwidth()))
    drawn.suptitle("\n".join(lines), fontsize=10.5)
    return 0.17 * len(lines) + 0.12


def _resize(drawn, high: float) -> tuple[float, float]:
    """Gives the figure its height and its title its place; returns (width, height) in inches."""
    drawn.set_figheight(high)
    drawn._suptitle.set_y(1 - 0.08 / high)
    return (drawn.get_figwidth(), high)


def _panel(drawn, place: tuple[float, float, float, float]):
    axis = drawn.add_axes(place, projection="3d", computed_zorder=False)
    axis.patch.set_alpha(0)  # panels reach into their neighbours' empty corners
    return axis


def _box(size: tuple[float, float], x: float, y: float, wide: float, high: float) -> tuple[float, float, float, float]:
    """Returns a place on a figure of `size` as matplotlib wants it; all in inches, y from the top."""
    return (x / size[0], 1 - (y + high) / size[1], wide / size[0], high / size[1])


def _surface(axis, sizes: np.ndarray, loss: np.ndarray, limits: tuple[float, float]) -> None:
    """Draws loss [p, q] over sizes[p] (x) and sizes[q] (y), with a mark where nothing was moved."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(0.0, limits[0]), max(limits[1], limits[0] + 1e-3)
    x, y = np.meshgrid(sizes, sizes, indexing="ij")
    mesh = {"rcount": len(sizes), "ccount": len(sizes), "linewidth": 0.2, "edgecolor": (1, 1, 1, 0.3)}
    axis.plot_surface(x, y, loss, cmap=SURFACE, vmin=low, vmax=high, **mesh)
    middle = np.flatnonzero(np.abs(sizes) < 1e-6 * sizes.max())
    if len(middle):
        m = middle[0]
        axis.plot([0], [0], [loss[m, m]], "o", color="white", markeredgecolor="black", markersize=4, zorder=10)
    end = sizes.max()
    axis.set(xlim=(-end, end), ylim=(-end, end), zlim=(low, high))
    for place in (axis.set_xticks, axis.set_yticks):  # none at the corners, where two axes meet
        place([-end / 2, 0, end / 2], [f"{tick:.3g}" for tick in (-end / 2, 0, end / 2)])
    axis.zaxis.set_major_locator(MaxNLocator(4))
    axis.tick_params(labelsize=6.5, pad=-2.5)
    axis.tick_params(axis="z", pad=-0.5)
    axis.view_init(elev=30, azim=-58)
    axis.set_box_aspect((1, 1, 0.75), zoom=0.95)
    for side in (axis.xaxis, axis.yaxis, axis.zaxis):
        side.pane.set_facecolor("white")
        side._axinfo["grid"].update(color=(0.85, 0.85, 0.85), linewidth=0.5)


def _boundary(made: dict):
    """A row for each size, a column for each way to train; the place below 'naive' says how far labels are trusted."""
    import matplotlib.pyplot as plt

    sizes, methods = made["sizes"], list(boundary.METHODS)
    wide, high, top, bottom = 2.45, 2.6, 0.6, 0.85
    size = (wide * len(methods), high * len(sizes) - 0.3 + top + bottom)
    drawn, axes = plt.subplots(len(sizes), len(methods), figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.set_visible(False)
    for panel in made["panels"]:
        i = 0 if panel["largest"] is None else sizes.index(panel["largest"])
        axis = axes[i, methods.index(panel["method"])]
        areas = _areas(axis, made, panel)
        moved = "" if panel["largest"] is None else f", {'at' if panel['method'] == 'l2' else 'up to'} {panel['largest']:g}"
        axis.set_title(f"{boundary.METHODS[panel['method']]}{moved}", fontsize=9.5, pad=4)
        axis.tick_params(labelsize=7.5, labelleft=panel["method"] == ("naive" if i == 0 else "l2"))
    drawn.subplots_adjust(left=0.045, right=0.985, top=1 - top / size[1], bottom=bottom / size[1], wspace=0.1, hspace=0.26)
    if len(sizes) > 1:
        _confidence(axes[1, 0], boundary.Settings(**made["settings"]))
    drawn.suptitle(
        "Two spirals, one small network trained in four ways; distances in units of the square", fontsize=10.5, y=1 - 0.1 / size[1]
    )
    bar = drawn.add_axes((0.32, 0.42 / size[1], 0.4, 0.11 / size[1]))
    drawn.colorbar(areas, cax=bar, orientation="horizontal", extendfrac="auto", extendrect=True, spacing="uniform")
    bar.set_xticks(areas.levels, [f"{odds:.1f}" for odds in 1 / (1 + np.exp(-areas.levels))])
    bar.set_xlabel("probability of the class of the triangles (black line: one half)", fontsize=8.5)
    bar.tick_params(labelsize=7.5)
    return drawn


def _areas(axis, made: dict, panel: dict):
    """Draws the areas of equal probability to 0.1. In log-odds, which are smooth where probabilities jump within one step of the grid."""
    import matplotlib

    grid, points, labels = (np.array(made[name]) for name in ("grid", "points", "labels"))
    odds = np.array(panel["log_odds"])
    steps = np.linspace(0.1, 0.9, 9)
    levels = np.log(steps / (1 - steps)).round(12)
    colours = matplotlib.colormaps[AREAS](np.linspace(0.1, 0.9, len(levels) + 1))
    axis.set(visible=True, xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    areas = axis.contourf(grid, grid, odds, levels=levels, colors=colours, extend="both")
    axis.contour(grid, grid, odds, levels=[0], colors="black", linewidths=1.3)
    for label, (marker, colour) in enumerate(MARKERS):
        axis.plot(*points[labels == label].T, marker, color=colour, markeredgecolor="white", markeredgewidth=0.5, markersize=4.2)
    return areas


def _confidence(axis, settings: boundary.Settings) -> None:
    """Draws how far labels are trusted, by distance."""
    x, y, wide, high = axis.get_position().bounds
    axis.set(visible=True, xlim=(0, 1.02), ylim=(0.45, 1.05), xticks=[0, 0.5, 1], yticks=[0.5, 0.75, 1])
    axis.set_position((x, y, 0.86 * wide, high))  # the next panel's numbers are on the right
    axis.axhline(1, color="#9a9a9a", linestyle=":", label="$L_2$ noise")
    for (method, confidence), style in zip(boundary.confidences(settings).items(), ("-", "--"), strict=True):
        axis.plot(np.linspace(0, 1, len(confidence)), confidence, style, color="black", label=boundary.METHODS[method])
    axis.set_title("confidence in the label", fontsize=9.5, pad=4)
    axis.set_xlabel("distance moved / largest distance", fontsize=8, labelpad=2)
    axis.tick_params(labelsize=7.5)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="lower left")
