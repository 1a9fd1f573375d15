"""The numbers of figures of the loss around trained networks: over pixels (RAT's figure 2) and over weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robustjax import data, metrics
from robustjax.core import example_keys
from robustjax.core.check import InputError
from robustjax.data import splits
from robustjax.evaluate.labels import trained_by
from robustjax.evaluate.load import Loaded, evaluation_data, load
from robustjax.io import results
from robustjax.losses import cross_entropy

DIGITS = 5  # significant ones that are kept of a number


class Network(NamedTuple):
    """A trained network with its place in a figure."""

    label: str
    about: dict  # what tells it from others, for the file of numbers
    loaded: Loaded


def networks(
    workdirs: Sequence[str | Path], *, checkpoint: str | int = "best", labels: Sequence[str] = (), seeds_share: bool = False
) -> list[Network]:
    """Reads the networks of a figure, which must have been trained on the same data.

    Args:
        workdirs: their folders.
        checkpoint: 'best', 'last' or a step, of all of them.
        labels: what the figure calls them, one each; if empty, how they were trained.
        seeds_share: whether runs that differ in their seed only have one label.

    Raises:
        InputError: for no folder or one without a checkpoint, another number of labels, other data or images of another size.
    """
    if not workdirs:
        raise InputError("this figure is of trained networks: name the folder of at least one, --workdir=RUN.")
    if labels and len(labels) != len(workdirs):
        raise InputError(f"--label must be given once for each --workdir, in their order: got {len(labels)} for {len(workdirs)}.")
    found = [load(workdir, checkpoint=checkpoint) for workdir in workdirs]
    first = _data_of(found[0].meta)
    for workdir, loaded in zip(workdirs, found, strict=True):
        if _data_of(loaded.meta) != first:
            raise InputError(
                f"the networks of one figure look at the same images: {workdirs[0]} was trained on {first}, {workdir} on "
                f"{_data_of(loaded.meta)}; draw one figure for each."
            )
    names = list(labels) or _labels(workdirs, [loaded.meta["config"] for loaded in found], seeds_share)
    return [Network(name, _about(workdir, loaded), loaded) for name, workdir, loaded in zip(names, workdirs, found, strict=True)]


def _labels(workdirs: Sequence[str | Path], configs: Sequence[dict], seeds_share: bool) -> list[str]:
    """Returns how runs were trained, in words; with the names of their folders where these words do not tell them apart."""
    said = [trained_by(config)[1] for config in configs]
    alike = [results.config_hash(results.comparable({**config, "seed": None, "init": ""})) if seeds_share else config for config in configs]
    kinds = {text: [config for other, config in zip(said, alike, strict=True) if other == text] for text in said}
    clear = {text: len(found) == 1 or (seeds_share and len(set(found)) == 1) for text, found in kinds.items()}
    return [text if clear[text] else f"{text} [{Path(workdir).resolve().name}]" for text, workdir in zip(said, workdirs, strict=True)]


def input_surfaces(
    workdirs: Sequence[str | Path],
    *,
    checkpoint: str | int = "best",
    data_dir: str = "",
    label: Sequence[str] = (),
    images: int = 4,
    ids: Sequence[int] = (),
    size: float = 16 / 255,
    points: int = 31,
    seed: int = 0,
) -> dict:
    """Computes the loss of test images around themselves, see `metrics.input_landscape`.

    Args:
        workdirs: folders of trained runs.
        checkpoint: 'best', 'last' or a step.
        data_dir: where the data lie now, if elsewhere than in training.
        label: what the figure calls the runs.
        images: number of test images, drawn at random, the same for everyone.
        ids: which test images, in place of `images`.
        size: magnitudes run from -size to size, in L-inf units of [0, 1] pixels.
        points: magnitudes along either axis, at least 2; an odd number has the image itself among them.
        seed: of the random signs.

    Returns:
        JSON-like: size, sizes (g,), columns [{id, label, pixels (h, w, c)}], rows [{label, ..., loss_nats (images, g, g)}], where entry
        [n, p, q] is image n moved by sizes[p] along the sign of its gradient and by sizes[q] along random signs.

    Raises:
        InputError: whatever a user can mend.
    """
    sizes = axis_sizes(size, points)
    runs = networks(workdirs, checkpoint=checkpoint, labels=label)
    dataset = evaluation_data(runs[0].loaded.meta, dir=data_dir)
    chosen = np.asarray(ids, np.int64) if len(ids) else splits.subset(len(dataset.test), at_least_one("images", images))
    pixels, labels = dataset.test.fetch(chosen)
    rows = []
    for run in runs:
        keys = example_keys(jax.random.key(seed), jnp.asarray(chosen))  # the same plane for every network
        loss = jax.tree_util.Partial(image_loss, run.loaded.logits_fn)
        arrays = (jnp.asarray(pixels, jnp.float32) / 255, jnp.asarray(labels))
        found = metrics.input_landscape(keys, loss, *arrays, gradient_sizes=sizes, random_sizes=sizes)
        rows.append({"label": run.label, **run.about, "loss_nats": listed(found, size)})
    named = zip(chosen.tolist(), labels.tolist(), pixels.tolist(), strict=True)
    columns = [{"id": i, "label": dataset.class_names[y], "pixels": image} for i, y, image in named]
    return begun("landscape", dataset, seed) | {"size": size, "sizes": rounded(sizes), "columns": columns, "rows": rows}


def weight_surfaces(
    workdirs: Sequence[str | Path],
    *,
    checkpoint: str | int = "best",
    data_dir: str = "",
    label: Sequence[str] = (),
    examples: int = 256,
    scaling: str = "filter",
    size: float | None = None,
    points: int = 25,
    seed: int = 0,
) -> dict:
    """Computes the mean loss of test images around the weights, see `metrics.weight_landscape`; batch statistics stay as they are.

    Args:
        workdirs: folders of trained runs.
        checkpoint: 'best', 'last' or a step.
        data_dir: where the data lie now, if elsewhere than in training.
        label: what the figure calls the runs.
        examples: number of test images, drawn at random, the same for everyone; all are in memory together.
        scaling: 'filter' or 'tree'.
        size: distances run from -size to size: multiples of each filter's norm (1 if None), or L2 distances over the whole tree,
            which must be given.
        points: distances along either axis, at least 2.
        seed: of the two directions.

    Returns:
        JSON-like: size, sizes (g,), scaling, examples, rows [{label, ..., loss_nats (g, g)}].

    Raises:
        InputError: whatever a user can mend.
    """
    if size is None and scaling == "tree":
        raise InputError(
            "--scaling=tree measures distances over all weights, of which no one length suits every network: give --size, e.g. 10."
        )
    size = 1.0 if size is None else size
    sizes = axis_sizes(size, points)
    runs = networks(workdirs, checkpoint=checkpoint, labels=label)
    dataset = evaluation_data(runs[0].loaded.meta, dir=data_dir)
    chosen = splits.subset(len(dataset.test), at_least_one("examples", examples))
    pixels, labels = dataset.test.fetch(chosen)
    rows = []
    for run in runs:
        params, stats = run.loaded.logits_fn.args
        network = jax.tree_util.Partial(run.loaded.logits_fn.func)
        loss = jax.tree_util.Partial(_mean_loss, network, stats, jnp.asarray(pixels, jnp.float32) / 255, jnp.asarray(labels))
        keys = jax.random.split(jax.random.key(seed), 2)
        found = metrics.weight_landscape(keys, loss, params, first_sizes=sizes, second_sizes=sizes, scaling=scaling)
        rows.append({"label": run.label, **run.about, "loss_nats": listed(found, size)})
    about = {"scaling": scaling, "examples": len(chosen)}
    return begun("weights", dataset, seed) | about | {"size": size, "sizes": rounded(sizes), "rows": rows}


def rounded(values: Any, digits: int = DIGITS) -> Any:
    """Returns an array as nested lists of floats, or one number, with so many significant digits: enough for any picture."""
    if np.ndim(values):
        return [rounded(each, digits) for each in values]
    return float(f"{float(values):.{digits}g}")


def image_loss(logits_fn, images: Float[Array, "b h w c"], labels: Array) -> Float[Array, " b"]:
    """Returns the cross-entropy of each image."""
    return cross_entropy(logits_fn(images), labels)


def _mean_loss(network, stats: dict, images: Float[Array, "b h w c"], labels: Array, params: dict) -> Float[Array, ""]:
    return jnp.mean(cross_entropy(network(params, stats, images), labels))


def begun(name: str, dataset: data.Dataset, seed: int) -> dict:
    """Returns what the numbers of every figure of test images begin with."""
    return {"figure": name, "data": dataset.provenance, "split": "test", "seed": seed, "environment": results.environment()}


def _data_of(meta: dict) -> str:
    wanted, model = meta["config"]["data"], meta["model"]
    options = "".join(f", {name} {value}" for name, value in sorted(wanted["options"].items()))
    return f"{wanted['name']}{options} ({model['num_classes']} classes of images {'x'.join(map(str, model['image_shape']))})"


def _about(workdir: str | Path, loaded: Loaded) -> dict:
    config = loaded.meta["config"]
    about = {"workdir": Path(workdir).resolve().name, "checkpoint_step": loaded.step, "seed": config["seed"], "weights": loaded.weights}
    return about | {"config_hash": results.config_hash(results.comparable(config)), "notes": loaded.meta["notes"]}


def axis_sizes(size: float, points: int) -> np.ndarray:
    """Returns magnitudes from -size to size; refuses what cannot be."""
    if not 0 < size < np.inf:
        raise InputError(f"--size is the largest magnitude along either axis and must be above 0, got {size:g}.")
    if points < 2:
        raise InputError(f"--points is the number of magnitudes along either axis and must be at least 2, got {points}.")
    return np.linspace(-size, size, points).astype(np.float32)


def at_least_one(name: str, value: int) -> int:
    """Returns the value of an option, which must be above 0."""
    if value < 1:
        raise InputError(f"--{name} must be at least 1, got {value}.")
    return value


def listed(loss: Array, size: float) -> list:
    """Returns losses as nested lists; refuses those that are not finite."""
    if not np.isfinite(np.asarray(loss)).all():
        raise InputError(f"the loss is not finite everywhere within {size:g}; choose a smaller --size.")
    return rounded(np.asarray(loss))
