"""The numbers of figures of features in the plane, by t-SNE: figures 1, 12 and 13 of the paper of the discriminative loss."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from robustjax.core.check import InputError
from robustjax.data import splits
from robustjax.evaluate.attacked import Subject
from robustjax.evaluate.load import Loaded, apply_of, evaluation_data
from robustjax.evaluate.noisy import Noise, are_right, check_finite, noise_of, noisy_images, subject_of
from robustjax.evaluate.surfaces import begun, networks, rounded

PERPLEXITY = 30  # scikit-learn's own; the paper does not print one
DIGITS = 4  # of a place


def tsne(
    workdirs: Sequence[str | Path],
    *,
    checkpoint: str | int = "best",
    data_dir: str = "",
    label: Sequence[str] = (),
    examples: int = 1000,
    noise: float | None = None,
    noise_kind: str = "gaussian",
    blocks: bool = False,
    seed: int = 0,
) -> dict:
    """Lays features of clean and of noisy test images out in the plane by t-SNE, each picture by itself (figures 1, 12 and 13).

    Args:
        workdirs: folders of trained runs.
        checkpoint: 'best', 'last' or a step.
        data_dir: where the data lie now, if elsewhere than in training.
        label: what the figure calls the runs.
        examples: number of test images, drawn at random, the same for everyone; at least 4.
        noise: as for `noisy.retained`.
        noise_kind: likewise.
        blocks: whether to lay out the output of each block as well, averaged over its pixels. A last block whose averages are the
            penultimate features is not laid out twice.
        seed: of the noise and of t-SNE.

    Returns:
        JSON-like: noise, noise_kind, perplexity, ids, classes (n,), class_names, rows [{label, ..., right_percent {clean, noisy}, layers [{name,
        clean {x, y}, noisy {x, y}}]}], with x and y (n,).

    Raises:
        InputError: whatever a user can mend; for features that are the same on all images.
    """
    if examples < 4:
        raise InputError(f"--examples is the number of images whose features are laid out and must be at least 4, got {examples}.")
    runs = networks(workdirs, checkpoint=checkpoint, labels=label)
    dataset = evaluation_data(runs[0].loaded.meta, dir=data_dir)
    added = noise_of(noise, noise_kind, runs[0].loaded.meta)
    ids = splits.subset(len(dataset.test), examples)
    rows = []
    for run in runs:
        subject = subject_of(run.loaded, dataset.test, ids)
        found = {"clean": features(run.loaded, subject, added._replace(level=0.0), blocks=blocks, seed=seed)}
        found["noisy"] = features(run.loaded, subject, added, blocks=blocks, seed=seed)
        row = {"label": run.label, **run.about, "right_percent": {kind: rounded(100 * right.mean()) for kind, (_, right) in found.items()}}
        rows.append(row | {"layers": _layers({kind: layers for kind, (layers, _) in found.items()}, seed)})
    classes = dataset.test.fetch(ids)[1].tolist()
    about = {"noise": added.level, "noise_kind": added.kind, "perplexity": _perplexity(len(ids)), "ids": ids.tolist(), "classes": classes}
    return begun("tsne", dataset, seed) | about | {"class_names": list(dataset.class_names), "rows": rows}


def features(
    loaded: Loaded, subject: Subject, noise: Noise, *, blocks: bool, seed: int
) -> tuple[dict[str, Float[np.ndarray, "n _"]], Bool[np.ndarray, " n"]]:
    """Returns features of noisy images by layer, from the first to the last, and whether the network is right on each image.

    The noise is that of the first repeat of `noisy.count_right`; none for a level of 0.

    Raises:
        InputError: where the network's outputs are not finite.
    """
    parts: list[tuple] = []
    for chosen, mask, images, classes in subject.batches(np.arange(len(subject.ids))):
        ids = jnp.asarray(subject.ids[chosen])
        arrays = loaded.logits_fn.args, jax.random.key(seed), ids, images, classes, noise.level
        *found, finite = _features(apply_of(loaded), blocks, noise.kind, *arrays)
        check_finite(np.asarray(finite))
        parts.append(jax.tree.map(lambda leaf, mask=mask: np.asarray(leaf)[mask], tuple(found)))
    pooled, last, right = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    names = [f"block {i + 1}" for i in range(len(pooled))]
    if pooled and np.array_equal(pooled[-1], last):
        names[-1], pooled = f"{names[-1]} (penultimate features)", pooled[:-1]
    else:
        names.append("penultimate features")
    return dict(zip(names, (*pooled, last), strict=True)), right


def embedded(values: Float[np.ndarray, "n d"], *, seed: int) -> Float[np.ndarray, "n 2"]:
    """Returns the places of features in the plane by t-SNE, the same ones for one seed."""
    from sklearn.manifold import TSNE  # inside, as it imports for a second
    from threadpoolctl import threadpool_limits

    begin = "pca" if values.shape[1] > 1 else "random"
    with threadpool_limits(1):  # the sums of several threads differ from run to run
        return TSNE(perplexity=_perplexity(len(values)), init=begin, random_state=seed).fit_transform(np.asarray(values, np.float64))


@functools.partial(jax.jit, static_argnames=("apply", "blocks", "kind"))
def _features(
    apply, blocks: bool, kind: str, arrays: tuple, key: Array, ids: Array, images: Array, labels: Array, level
) -> tuple[Any, ...]:
    output, _ = apply(*arrays, noisy_images(key, 0, ids, images, level, kind=kind), False, blocks=blocks)
    return output.blocks, output.features, are_right(output.logits, labels), jnp.isfinite(output.logits).all(axis=1)


def _layers(found: dict[str, dict[str, np.ndarray]], seed: int) -> list[dict]:
    """Returns the layers with the places of clean and noisy images."""
    made = []
    for name in found["clean"]:
        layer: dict[str, Any] = {"name": name}
        for kind, layers in found.items():
            if np.ptp(layers[name], axis=0).max() == 0:
                raise InputError(f"the {kind} images have the same features ({name}) all of them; there is nothing to lay out.")
            x, y = embedded(layers[name], seed=seed).T
            layer[kind] = {"x": rounded(x, DIGITS), "y": rounded(y, DIGITS)}
        made.append(layer)
    return made


def _perplexity(n: int) -> float:
    return min(float(PERPLEXITY), (n - 1) / 3)
