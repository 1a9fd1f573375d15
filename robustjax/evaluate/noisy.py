"""Accuracy on noisy test images, and the numbers of figures of them, of the curvature of the loss there, and of the loss around one.

`measure` is of the suite 'noise' (Tables 1 and 2 of the paper of the discriminative loss); the figures are its 8 (`retained`), 9
(`groups`) and 11 (`surface`); see also embedding.py. Noise is Gaussian or uniform and clipped to [0, 1]; it is drawn from the seed, the
number of the repeat and the example's id alone, so that every network sees the same noisy images.
"""

import functools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from robustjax.augment.noise import gaussian_noise, uniform_noise
from robustjax.core import example_keys, registry
from robustjax.core.check import InputError
from robustjax.core.numerics import image_norm, safe_divide
from robustjax.data import Source, splits
from robustjax.evaluate.attacked import Measured, Subject, Tell, peak_memory, taken_up
from robustjax.evaluate.distributions import Row, described, gathered
from robustjax.evaluate.load import Loaded, evaluation_data
from robustjax.evaluate.states import StateFile
from robustjax.evaluate.suites import Item
from robustjax.evaluate.surfaces import at_least_one, axis_sizes, begun, image_loss, listed, networks, rounded
from robustjax.io import results
from robustjax.metrics.curvature import loss_gradient
from robustjax.metrics.sweeps import over_points

NOISE, NOISE_OF = 0.06, {"svhn_cropped": 0.15}  # the paper's, for CIFAR-10 and SVHN
LEVELS = {"gaussian": "standard deviation", "uniform": "amplitude"}


class Noise(NamedTuple):
    """What is added to images."""

    kind: str  # a key of LEVELS
    level: float  # in units of [0, 1] pixels


class _Counted(NamedTuple):
    """A row with the number of repeats on which each example of each run was right."""

    row: Row
    counts: list[Int[np.ndarray, " n"]]
    curvatures: list[Float[np.ndarray, " n"]]


def retained(
    workdirs: Sequence[str | Path],
    *,
    checkpoint: str | int = "best",
    data_dir: str = "",
    label: Sequence[str] = (),
    variant: str = "",
    noise: float | None = None,
    noise_kind: str = "gaussian",
    repeats: int = 10,
    points: int = 20,
    seed: int = 0,
) -> dict:
    """Computes the accuracy on noisy images of the test samples of lowest curvature, for shares 1 / points, ..., 1 of them (figure 8).

    The images of a share are the first round(share n) by curvature, those of one curvature in the order of the test split.

    Args:
        workdirs: folders of runs with results of the suite curvature.
        checkpoint: of which it was measured: 'best', 'last' or a step.
        data_dir: where the data lie now, if elsewhere than in training.
        label: what the figure calls the runs; those of one label are one row.
        variant: of curvature, 'finite' (as in the paper) or 'exact'; if empty, the first that every run has.
        noise: standard deviation or amplitude in units of [0, 1] pixels; if None as in the paper, 0.15 on SVHN and 0.06 on other data.
        noise_kind: 'gaussian' or 'uniform'.
        repeats: draws of noise for each image, over which accuracy is averaged.
        points: number of shares.
        seed: of the noise.

    Returns:
        JSON-like: noise, noise_kind, repeats, kept (points,) images of each share, rows [{label, runs, accuracy_percent (points,): mean of the
        runs, of_runs_percent (runs, points)}].

    Raises:
        InputError: for results that are missing, of other data or other settings than those of the first run; for options out of range.
    """
    at_least_one("points", points)
    found, shared = _counted("retained", workdirs, checkpoint, data_dir, label, variant, (noise, noise_kind), repeats, seed)
    kept = np.maximum(1, np.round(np.arange(1, points + 1) * shared["n"] / points).astype(int))
    rows = []
    for row, counts, curvatures in found:
        right = [np.cumsum(count[np.argsort(curvature, kind="stable")]) for count, curvature in zip(counts, curvatures, strict=True)]
        percent = np.array([100 * total[kept - 1] / (kept * repeats) for total in right])
        rows.append(described(row) | {"accuracy_percent": rounded(percent.mean(axis=0)), "of_runs_percent": rounded(percent)})
    return shared | {"kept": kept.tolist(), "rows": rows}


def groups(
    workdirs: Sequence[str | Path],
    *,
    checkpoint: str | int = "best",
    data_dir: str = "",
    label: Sequence[str] = (),
    variant: str = "",
    noise: float | None = None,
    noise_kind: str = "gaussian",
    repeats: int = 10,
    seed: int = 0,
) -> dict:
    """Computes the mean curvature of test samples by the number of noisy copies on which the network is right (figure 9).

    The examples of all runs of a row are taken together.

    Args:
        workdirs: folders of runs with results of the suite curvature.
        checkpoint: of which it was measured: 'best', 'last' or a step.
        data_dir: where the data lie now, if elsewhere than in training.
        label: what the figure calls the runs; those of one label are one row.
        variant: of curvature, as for `retained`.
        noise: as for `retained`.
        noise_kind: likewise.
        repeats: noisy copies of each image.
        seed: of the noise.

    Returns:
        JSON-like: noise, noise_kind, repeats, rows [{label, runs, images (repeats + 1,), mean (repeats + 1,), pearson_r, pearson_r_images}], entry
        k of those that were right k times; mean is None where there are none. pearson_r is the paper's: between k and the mean, each
        group that has images counting once; pearson_r_images is over images. None where either does not vary.

    Raises:
        InputError: as `retained`.
    """
    found, shared = _counted("groups", workdirs, checkpoint, data_dir, label, variant, (noise, noise_kind), repeats, seed)
    rows = []
    for row, counts, curvatures in found:
        count, curvature = np.concatenate(counts), np.concatenate(curvatures)
        images, total = (np.bincount(count, weights, minlength=repeats + 1) for weights in (None, curvature))
        some = np.flatnonzero(images)
        mean = total[some] / images[some]
        by_group = dict(zip(some.tolist(), rounded(mean), strict=True))
        numbers = {"images": images.tolist(), "mean": [by_group.get(k) for k in range(repeats + 1)]}
        numbers |= {"pearson_r": _pearson(some, mean), "pearson_r_images": _pearson(count, curvature)}
        rows.append(described(row) | numbers)
    return shared | {"rows": rows}


def surface(
    workdirs: Sequence[str | Path],
    *,
    checkpoint: str | int = "best",
    data_dir: str = "",
    label: Sequence[str] = (),
    ids: Sequence[int] = (),
    size: float = 1.0,
    points: int = 31,
    seed: int = 0,
) -> dict:
    """Computes the negative of the cross-entropy around a test image, over the plane of figure 11.

    "We sample a grid of points in the input space along two directions: the gradient of the loss with respect to the input, and a
    random direction orthogonal to it." Both have length 1 here; the paper prints no range, `size` is ours. Images are not clipped.

    Args:
        workdirs: folders of trained runs.
        checkpoint: 'best', 'last' or a step.
        data_dir: where the data lie now, if elsewhere than in training.
        label: what the figure calls the runs.
        ids: which test image, one; if empty, one drawn at random, the same for everyone.
        size: distances run from -size to size along either axis, in L2 units of [0, 1] pixels.
        points: distances along either axis, at least 2; an odd number has the image itself among them.
        seed: of the random direction, which is the same for every network but for the part along the gradient.

    Returns:
        JSON-like: size, sizes (g,), image {id, label, pixels (h, w, c)}, rows [{label, ..., gradient_norm, negative_loss_nats (g, g)}],
        entry [p, q] at sizes[p] along the gradient, in which the loss grows, and sizes[q] along the other direction.

    Raises:
        InputError: whatever a user can mend; for an image on which the loss has no gradient.
    """
    if len(ids) > 1:
        raise InputError(f"the figure surface is of one test image: give --ids once, got {', '.join(map(str, ids))}.")
    sizes = axis_sizes(size, points)
    runs = networks(workdirs, checkpoint=checkpoint, labels=label)
    dataset = evaluation_data(runs[0].loaded.meta, dir=data_dir)
    chosen = np.asarray(ids, np.int64) if len(ids) else splits.subset(len(dataset.test), 1)
    pixels, labels = dataset.test.fetch(chosen)
    images, classes = jnp.asarray(pixels, jnp.float32) / 255, jnp.asarray(labels)
    grid = jnp.asarray(np.stack(np.meshgrid(sizes, sizes, indexing="ij"), axis=-1).reshape(-1, 2))
    rows = []
    for run in runs:
        loss = jax.tree_util.Partial(image_loss, run.loaded.logits_fn)
        *plane, norm = _plane(loss, example_keys(jax.random.key(seed), jnp.asarray(chosen)), images, classes)
        if not 0 < float(norm[0]) < np.inf:
            raise InputError(
                f"the loss of {run.about['workdir']} has no gradient at test image {chosen[0]}; choose another one with --ids."
            )
        found = -over_points(_moved_loss, loss, (images, classes, *plane), grid, dtype=jnp.float32).reshape(points, points)
        rows.append({"label": run.label, **run.about, "gradient_norm": rounded(norm[0]), "negative_loss_nats": listed(found, size)})
    image = {"id": int(chosen[0]), "label": dataset.class_names[int(labels[0])], "pixels": pixels[0].tolist()}
    return begun("surface", dataset, seed) | {"size": size, "sizes": rounded(sizes), "image": image, "rows": rows}


def measure(subject: Subject, item: Item, key: Array, *, identity: dict, saved: StateFile, tell: Tell) -> Measured:
    """Measures accuracy under one level of noise: mean and sample standard deviation of the accuracies of the repeats.

    Args:
        subject: network and test images.
        item: of the kind 'noise', see `suites.noise_settings`.
        key: not used: the seed is the item's, and level and network change nothing about the draws.
        identity: of the result, see run.py: a state of another one is refused.
        saved: where the state is kept.
        tell: is told how far it is.

    Returns:
        Metrics error, accuracy and, of more than one repeat, accuracy_std; arrays ids, labels (n,) and right (n, repeats).

    Raises:
        InputError: for a state that does not fit, or a network whose outputs are not finite.
    """
    del key
    began, n, options = time.perf_counter(), len(subject.ids), item.options
    repeats, noise = options["repeats"], Noise(options["noise"], options["level"])
    fresh = {"labels": np.zeros(n, np.int32), "right": np.zeros((n, repeats), bool), "counted": np.zeros(n, np.int32)}
    reached = taken_up(saved, json.dumps(identity, sort_keys=True), fresh | {"seconds": np.zeros(())})
    took = float(reached["seconds"])
    for places, labels, right in _rights(subject, np.flatnonzero(reached["counted"] == 0), noise, repeats, options["seed"]):
        reached["labels"][places], reached["right"][places] = labels, right
        np.add.at(reached["counted"], places, 1)
        reached["seconds"] = np.array(took + time.perf_counter() - began)
        saved(reached)
        done = int((reached["counted"] > 0).sum())
        tell(done / n, f"{done}/{n}")
    if not (reached["counted"] == 1).all():
        raise AssertionError(f"{item.name}: {(reached['counted'] != 1).sum()} of {n} examples were not counted exactly once.")
    by_repeat, seconds = reached["right"].mean(axis=0), float(reached["seconds"])
    accuracy = float(reached["right"].mean())
    numbers = {"error": 1 - accuracy, "accuracy": accuracy} | ({"accuracy_std": float(by_repeat.std(ddof=1))} if repeats > 1 else {})
    peak, of = peak_memory()
    about = {"accuracy_by_repeat": by_repeat.tolist(), "images_per_second": n * repeats / seconds}
    about |= {"peak_memory_bytes": peak, "peak_memory_of": of}
    return Measured(numbers, seconds, about, [], {"ids": subject.ids, "labels": reached["labels"], "right": reached["right"]})


def count_right(subject: Subject, noise: Noise, *, repeats: int, seed: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Counts on how many noisy copies of each image the network is right; returns the counts and the labels.

    Raises:
        InputError: where the network's outputs are not finite.
    """
    counts, labels = np.zeros((2, len(subject.ids)), np.int32)
    for places, classes, right in _rights(subject, np.arange(len(subject.ids)), noise, repeats, seed):
        labels[places], counts[places] = classes, right.sum(axis=1)
    return counts, labels


def _rights(
    subject: Subject, places: np.ndarray, noise: Noise, repeats: int, seed: int
) -> Iterator[tuple[Int[np.ndarray, " b"], Int[np.ndarray, " b"], Bool[np.ndarray, "b r"]]]:
    """Yields batches of the examples at these places: places, labels, and on which noisy copies the network is right."""
    for chosen, mask, images, classes in subject.batches(places):
        ids, found = jnp.asarray(subject.ids[chosen]), []
        for repeat in range(repeats):
            right, finite = map(
                np.asarray, _right(subject.logits_fn, jax.random.key(seed), repeat, ids, images, classes, noise.level, kind=noise.kind)
            )
            check_finite(finite)
            found.append(right[mask])
        yield chosen[mask], np.asarray(classes)[mask], np.stack(found, axis=1)


def _counted(
    figure: str,
    workdirs: Sequence[str | Path],
    checkpoint: str | int,
    data_dir: str,
    labels: Sequence[str],
    variant: str,
    noise: tuple[float | None, str],
    repeats: int,
    seed: int,
) -> tuple[list[_Counted], dict]:
    """Returns the rows with what every run gets right under noise, and what they have in common."""
    at_least_one("repeats", repeats)
    rows, shared = gathered("curvature", workdirs, checkpoint, labels, variant)
    meta = rows[0].networks[0].loaded.meta
    added, dataset = noise_of(*noise, meta), evaluation_data(meta, dir=data_dir)
    if shared["data"] != dataset.provenance:
        raise InputError(
            f"curvature was measured on {shared['data']}, the data here are {dataset.provenance}; name the former by --data_dir."
        )
    found = []
    for row in rows:
        counts = []
        for network, arrays in zip(row.networks, row.arrays, strict=True):
            subject = subject_of(network.loaded, dataset.test, arrays["ids"])
            count, classes = count_right(subject, added, repeats=repeats, seed=seed)
            if not np.array_equal(classes, arrays["labels"]):
                raise InputError(f"curvature of {network.about['workdir']} was measured on images with other labels; evaluate it again.")
            counts.append(count)
        found.append(_Counted(row, counts, [arrays["curvature"].astype(np.float64) for arrays in row.arrays]))
    about = {
        "figure": figure,
        "noise": added.level,
        "noise_kind": added.kind,
        "repeats": repeats,
        "seed": seed,
        "environment": results.environment(),
    }
    return found, shared | about


def subject_of(loaded: Loaded, source: Source, ids: np.ndarray) -> Subject:
    """Returns the network with these test images, in batches as it is evaluated."""
    return Subject(loaded.logits_fn, source, ids, loaded.meta["config"]["evaluation"]["batch_size"], surrogates={})


def noise_of(level: float | None, kind: str, meta: dict) -> Noise:
    """Returns the noise that was asked for; without a level, of the paper's for the data."""
    if kind not in LEVELS:
        raise registry.unknown("--noise_kind", kind, LEVELS)
    level = NOISE_OF.get(meta["config"]["data"]["name"], NOISE) if level is None else level
    if not 0 <= level < np.inf:
        raise InputError(f"--noise is the {LEVELS[kind]} of the noise and must be at least 0, got {level:g}.")
    return Noise(kind, level)


def check_finite(finite: Bool[np.ndarray, " b"]) -> None:
    """Refuses a network whose outputs are not finite."""
    if not finite.all():
        raise InputError(f"the network's outputs are not finite on {(~finite).sum()} images; no number can be given.")


@functools.partial(jax.jit, static_argnames="kind")
def _right(logits_fn, key: Array, repeat, ids: Array, images: Array, labels: Array, level, *, kind: str) -> tuple[Array, Array]:
    logits = logits_fn(noisy_images(key, repeat, ids, images, level, kind=kind))
    return are_right(logits, labels), jnp.isfinite(logits).all(axis=1)


def noisy_images(
    key: Array, repeat, ids: Int[Array, " b"], images: Float[Array, "b h w c"], level, *, kind: str
) -> Float[Array, "b h w c"]:
    """Returns noisy images of the repeat number `repeat`; the images themselves for a level of 0."""
    keys = example_keys(jax.random.fold_in(key, repeat), ids)
    return uniform_noise(keys, images, amplitude=level) if kind == "uniform" else gaussian_noise(keys, images, std=level)


def are_right(logits: Float[Array, "b k"], labels: Int[Array, " b"]) -> Bool[Array, " b"]:
    """Returns whether each image gets its label."""
    return jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels


@jax.jit
def _plane(loss, keys: Array, images: Float[Array, "b h w c"], labels: Array) -> tuple[Array, Array, Array]:
    """Returns the direction of the gradient, a random one orthogonal to it, both of length 1, and the length of the gradient."""
    gradient = loss_gradient(loss, images, labels)
    random = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)
    first = _of_length_one(gradient)
    along = jnp.sum(random * first, axis=(1, 2, 3), keepdims=True)
    return first, _of_length_one(random - along * first), image_norm(gradient)


def _of_length_one(directions: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    return safe_divide(directions, image_norm(directions)[:, None, None, None])


def _moved_loss(loss: jax.tree_util.Partial, rows: Any, places: Float[Array, "b 2"]) -> Float[Array, " b"]:
    images, labels, first, second = rows
    p, q = (places[:, j, None, None, None] for j in range(2))
    return loss(images + p * first + q * second, labels)


def _pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return rounded(np.corrcoef(x, y)[0, 1])
