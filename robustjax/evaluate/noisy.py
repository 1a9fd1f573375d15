"""The numbers of figures of noisy test images and the curvature of the loss there, and of the loss around one image.

Figures of the paper of the discriminative loss: 8 (`retained`), 9 (`groups`) and 11 (`surface`); see also embedding.py. Noise is
Gaussian and clipped to [0, 1]; it is drawn from the seed, the number of the repeat and the example's id alone, so that every network
sees the same noisy images.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from robustjax.augment.noise import gaussian_noise
from robustjax.core import example_keys
from robustjax.core.check import InputError
from robustjax.core.numerics import image_norm, safe_divide
from robustjax.data import Source, splits
from robustjax.evaluate.attacked import Subject
from robustjax.evaluate.distributions import Row, described, gathered
from robustjax.evaluate.load import Loaded, evaluation_data
from robustjax.evaluate.surfaces import at_least_one, axis_sizes, begun, image_loss, listed, networks, rounded
from robustjax.io import results
from robustjax.metrics.curvature import loss_gradient
from robustjax.metrics.sweeps import over_points

NOISE, NOISE_OF = 0.06, {"svhn_cropped": 0.15}  # the paper's, for CIFAR-10 and SVHN


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
        noise: standard deviation in units of [0, 1] pixels; if None as in the paper, 0.15 on SVHN and 0.06 on other data.
        repeats: draws of noise for each image, over which accuracy is averaged.
        points: number of shares.
        seed: of the noise.

    Returns:
        JSON-like: noise, repeats, kept (points,) images of each share, rows [{label, runs, accuracy_percent (points,): mean of the
        runs, of_runs_percent (runs, points)}].

    Raises:
        InputError: for results that are missing, of other data or other settings than those of the first run; for options out of range.
    """
    at_least_one("points", points)
    found, shared = _counted("retained", workdirs, checkpoint, data_dir, label, variant, noise, repeats, seed)
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
        noise: standard deviation, as for `retained`.
        repeats: noisy copies of each image.
        seed: of the noise.

    Returns:
        JSON-like: noise, repeats, rows [{label, runs, images (repeats + 1,), mean (repeats + 1,), pearson_r, pearson_r_images}], entry
        k of those that were right k times; mean is None where there are none. pearson_r is the paper's: between k and the mean, each
        group that has images counting once; pearson_r_images is over images. None where either does not vary.

    Raises:
        InputError: as `retained`.
    """
    found, shared = _counted("groups", workdirs, checkpoint, data_dir, label, variant, noise, repeats, seed)
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


def count_right(subject: Subject, *, std: float, repeats: int, seed: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Counts on how many noisy copies of each image the network is right; returns the counts and the labels.

    Raises:
        InputError: where the network's outputs are not finite.
    """
    counts, labels = np.zeros((2, len(subject.ids)), np.int32)
    for chosen, mask, images, classes in subject.batches(np.arange(len(subject.ids))):
        ids = jnp.asarray(subject.ids[chosen])
        labels[chosen[mask]] = np.asarray(classes)[mask]
        for repeat in range(repeats):
            right, finite = map(np.asarray, _right(subject.logits_fn, jax.random.key(seed), repeat, ids, images, classes, std))
            check_finite(finite)
            counts[chosen[mask]] += right[mask]
    return counts, labels


def _counted(
    figure: str,
    workdirs: Sequence[str | Path],
    checkpoint: str | int,
    data_dir: str,
    labels: Sequence[str],
    variant: str,
    noise: float | None,
    repeats: int,
    seed: int,
) -> tuple[list[_Counted], dict]:
    """Returns the rows with what every run gets right under noise, and what they have in common."""
    at_least_one("repeats", repeats)
    rows, shared = gathered("curvature", workdirs, checkpoint, labels, variant)
    meta = rows[0].networks[0].loaded.meta
    std, dataset = std_of(noise, meta), evaluation_data(meta, dir=data_dir)
    if shared["data"] != dataset.provenance:
        raise InputError(
            f"curvature was measured on {shared['data']}, the data here are {dataset.provenance}; name the former by --data_dir."
        )
    found = []
    for row in rows:
        counts = []
        for network, arrays in zip(row.networks, row.arrays, strict=True):
            subject = subject_of(network.loaded, dataset.test, arrays["ids"])
            count, classes = count_right(subject, std=std, repeats=repeats, seed=seed)
            if not np.array_equal(classes, arrays["labels"]):
                raise InputError(f"curvature of {network.about['workdir']} was measured on images with other labels; evaluate it again.")
            counts.append(count)
        found.append(_Counted(row, counts, [arrays["curvature"].astype(np.float64) for arrays in row.arrays]))
    about = {"figure": figure, "noise": std, "repeats": repeats, "seed": seed, "environment": results.environment()}
    return found, shared | about


def subject_of(loaded: Loaded, source: Source, ids: np.ndarray) -> Subject:
    """Returns the network with these test images, in batches as it is evaluated."""
    return Subject(loaded.logits_fn, source, ids, loaded.meta["config"]["evaluation"]["batch_size"], surrogates={})


def std_of(noise: float | None, meta: dict) -> float:
    """Returns the standard deviation of the noise: the one that was asked for, or the paper's for the data."""
    std = NOISE_OF.get(meta["config"]["data"]["name"], NOISE) if noise is None else noise
    if not 0 <= std < np.inf:
        raise InputError(f"--noise is the standard deviation of the noise and must be at least 0, got {std:g}.")
    return std


def check_finite(finite: Bool[np.ndarray, " b"]) -> None:
    """Refuses a network whose outputs are not finite."""
    if not finite.all():
        raise InputError(f"the network's outputs are not finite on {(~finite).sum()} images; no number can be given.")


@jax.jit
def _right(logits_fn, key: Array, repeat, ids: Array, images: Array, labels: Array, std) -> tuple[Array, Array]:
    logits = logits_fn(noisy_images(key, repeat, ids, images, std))
    return are_right(logits, labels), jnp.isfinite(logits).all(axis=1)


def noisy_images(key: Array, repeat, ids: Int[Array, " b"], images: Float[Array, "b h w c"], std) -> Float[Array, "b h w c"]:
    """Returns noisy images of the repeat number `repeat`; the images themselves for a std of 0."""
    return gaussian_noise(example_keys(jax.random.fold_in(key, repeat), ids), images, std=std)


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
