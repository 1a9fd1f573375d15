"""Measures the geometry of a trained network: thickness of its boundaries, flatness of its minimum, curvature of its loss over images.

As under attack, every example (every draw of weights) is counted once, what has been reached is kept in a file, and an npz beside
the result has a value for each. The settings are in the item's options, see suites.GEOMETRY.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from robustjax import metrics
from robustjax.attacks import presets
from robustjax.core import example_keys
from robustjax.core.check import InputError
from robustjax.core.numerics import image_norm
from robustjax.data import splits
from robustjax.evaluate.attacked import Measured, Subject, Tell, peak_memory, scores, taken_up
from robustjax.evaluate.geometry_tables import at_radius
from robustjax.evaluate.states import StateFile
from robustjax.evaluate.suites import Item

DRAWS = 10  # of weights between two savings
Arrays = dict[str, np.ndarray]


class _Work(NamedTuple):
    """One item under way."""

    subject: Subject  # with the images of this item only
    options: dict
    key: Array
    seed: int  # of the run
    identity: str
    saved: StateFile
    tell: Tell
    began: float


def images(item: Item, available: int) -> int:
    """Returns how many of the test images an item is measured on: as many as its options say, where there are so many."""
    return min(item.options["images"] or available, available)


def measure(subject: Subject, item: Item, key: Array, *, identity: dict, saved: StateFile, tell: Tell) -> Measured:
    """Measures an item of a kind in KINDS.

    Args:
        subject: network and test images, of which the item takes a part: always the same ones.
        item: what to measure.
        key: the item's; examples fold their ids into it, draws of weights the run's seed and their number.
        identity: of the result, see run.py: a state of another one is refused.
        saved: where the state is kept.
        tell: is told how far it is.

    Raises:
        InputError: for a state that does not fit, or a network or loss that is not finite.
    """
    ids = splits.subset(len(subject.source), identity["n"])
    batch_size = len(ids) if item.kind == "hessian" else subject.batch_size  # its eigenvalue is of one loss, not a sum over batches
    part = Subject(subject.logits_fn, subject.source, ids, batch_size, surrogates={})
    text = json.dumps(identity, sort_keys=True)
    work = _Work(part, item.options, key, identity["seed"], text, saved, tell, time.perf_counter())
    numbers, about, reached = KINDS[item.kind](work)
    seconds = float(reached.pop("seconds"))
    peak, of = peak_memory()
    about |= {"images_per_second": len(ids) / seconds, "peak_memory_bytes": peak, "peak_memory_of": of}
    return Measured(numbers, seconds, about, [], {"ids": ids} | reached)


def _by_batches(work: _Work, fresh: Arrays, rows_of: Callable[[Int[Array, " b"], Array, Array], Mapping]) -> Arrays:
    """Returns a row for each example: rows_of(ids, images, labels), batch after batch."""
    n = len(work.subject.ids)
    labels = {"labels": np.zeros(n, np.int32), "counted": np.zeros(n, np.int32)}
    reached, took = _started(work, labels | fresh)
    for chosen, mask, pictures, classes in work.subject.batches(np.flatnonzero(reached["counted"] == 0)):
        scores(work.subject.logits_fn, pictures, classes)  # refuses outputs that are not finite
        rows = {"labels": classes, **rows_of(jnp.asarray(work.subject.ids[chosen]), pictures, classes)}
        for name, values in rows.items():
            reached[name][chosen[mask]] = np.asarray(values)[mask]
        np.add.at(reached["counted"], chosen[mask], 1)
        _note(work, reached, took, reached["counted"] > 0)
    return _finished(reached)


def _by_draws(work: _Work, reached: Arrays, took: float, name: str, units: Mapping[int, Callable[[Array], np.ndarray]]) -> None:
    """Fills reached[name] (units, draws) with what each unit gives for the keys of some draws."""
    rows = reached[name]
    drawn = jax.random.fold_in(work.key, work.seed)  # other directions for other seeds, the same ones at every radius and for every method
    for unit, value in units.items():
        for first in range(0, rows.shape[1], DRAWS):
            places = np.arange(first, min(first + DRAWS, rows.shape[1]))
            if reached["counted"][unit, places].all():
                continue
            rows[unit, places] = value(example_keys(drawn, places))
            if not np.isfinite(rows[unit, places]).all():
                work.saved.finish()  # what was reached is of no use to smaller radii
                raise InputError(f"{work.saved.path.name.partition('.')[0]}: the loss is not finite some way off; choose smaller radii.")
            reached["counted"][unit, places] += 1
            _note(work, reached, took, reached["counted"] > 0)


def _started(work: _Work, fresh: Arrays) -> tuple[Arrays, float]:
    reached = taken_up(work.saved, work.identity, fresh | {"seconds": np.zeros(())})
    return reached, float(reached["seconds"])


def _note(work: _Work, reached: Arrays, took: float, done: Bool[np.ndarray, "..."]) -> None:
    reached["seconds"] = np.array(took + time.perf_counter() - work.began)
    work.saved(reached)
    work.tell(float(done.mean()), f"{done.sum()}/{done.size}")


def _finished(reached: Arrays) -> Arrays:
    counted = reached["counted"]
    if not (counted == 1).all():
        raise AssertionError(f"{(counted != 1).sum()} of {counted.size} were not counted exactly once.")
    return {name: values for name, values in reached.items() if name not in ("counted", "identity")}


def _thickness(work: _Work) -> tuple[dict, dict, Arrays]:
    """Boundary thickness from each image to where a targeted attack brings it (SPIDER section 3.2, appendix E.1.2).

    In pixels and, divided by `std`, in the papers' units, which are those of normalised images. Mean and deviation are over points.
    """
    options, network, (drawn, attacked) = work.options, work.subject.logits_fn, jax.random.split(work.key)
    threat, attack = presets.preset(options["preset"])
    intervals = {f"thickness_{alpha:g}_{beta:g}": (alpha, beta) for alpha, beta in options["intervals"]}

    def rows(ids, pictures, labels):
        predicted, num_classes = _predicted(network, pictures)
        class_i = predicted if options["class_i"] == "predicted" else labels
        class_j = metrics.other_classes(example_keys(drawn, ids), class_i, num_classes=num_classes)
        ends = attack(example_keys(attacked, ids), network, pictures, class_i, threat, targets=class_j)
        gaps = metrics.segment_gaps(network, pictures, ends, class_i, class_j, points=options["points"])
        found = {name: metrics.thickness_of_gaps(gaps, pictures, ends, alpha=a, beta=b) for name, (a, b) in intervals.items()}
        return found | {"class_i": class_i, "class_j": class_j, "distance": image_norm(ends - pictures), "end_gap": gaps[:, -1]}

    n = len(work.subject.ids)
    fresh = {name: np.zeros(n, np.float32) for name in (*intervals, "distance", "end_gap")}
    reached = _by_batches(work, fresh | {name: np.zeros(n, np.int32) for name in ("class_i", "class_j")}, rows)
    numbers = {}
    for name in intervals:
        values = reached[name].astype(np.float64)
        for unit, scale in (("pixels", 1.0), (f"per_std_{options['std']:g}", options["std"])):
            numbers |= {f"{name}_{unit}_mean": float(values.mean() / scale), f"{name}_{unit}_std": float(values.std() / scale)}
    numbers |= {"distance_pixels_mean": float(reached["distance"].mean()), "target_reached": float((reached["end_gap"] < 0).mean())}
    return numbers, {}, reached


def _predicted(network, pictures: Float[Array, "b h w c"]) -> tuple[Int[Array, " b"], int]:
    logits = _logits(network, pictures)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32), logits.shape[-1]


_logits = jax.jit(lambda network, pictures: network(pictures))


def _flatness(work: _Work) -> tuple[dict, dict, Arrays]:
    """Mean loss at a distance from the weights in random directions (Cha et al.; SPIDER appendix E.1.3).

    `of`: 'absolute' for distances as they are; 'norm' for multiples of the norm of the weights; 'filters' for directions whose
    filters are as long as those of the weights, times the radius. Deviations are over the draws.
    """
    options, params = work.options, work.subject.logits_fn.args[0]
    norm = _norm(params)
    radii = [0.0, *options["radii"]]  # of all draws at 0, which are alike, one is counted
    distances = [radius * norm if options["of"] == "norm" else radius for radius in radii]
    batches = list(work.subject.batches(np.arange(len(work.subject.ids))))
    counted = sum(int(mask.sum()) for _, mask, _, _ in batches)
    if counted != len(work.subject.ids):
        raise AssertionError(f"{counted} of {len(work.subject.ids)} images were counted.")
    scaling = "filter" if options["of"] == "filters" else "tree"

    def at(distance: float, keys: Array) -> np.ndarray:
        total = np.zeros(len(keys))
        for _, mask, pictures, labels in batches:  # the mean over images is a sum over batches: no program for all of them
            loss = _loss_of(work.subject, pictures, labels, mask)
            total += np.asarray(metrics.weight_space_loss(keys, loss, params, radius=distance, scaling=scaling), np.float64)
        return total / counted

    draws = options["draws"]
    fresh = {"loss": np.full((len(radii), draws), np.nan), "counted": np.zeros((len(radii), draws), np.int32)}
    reached, took = _started(work, fresh)
    if not reached["counted"][0].all():
        reached["loss"][0], reached["counted"][0] = at(0.0, example_keys(work.key, np.arange(1)))[0], 1
    units = {i: lambda keys, distance=distance: at(distance, keys) for i, distance in enumerate(distances) if i}
    _by_draws(work, reached, took, "loss", units)
    numbers = {"loss_at_0": float(reached["loss"][0, 0]), "parameter_norm": norm}
    for radius, losses in zip(radii[1:], reached["loss"][1:], strict=True):
        numbers |= {
            f"{at_radius(radius, options['of'])}_mean": float(losses.mean()),
            f"{at_radius(radius, options['of'])}_std": float(losses.std()),
        }
    about = {"distances": distances, "parameters": sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params))}
    return numbers, about, _finished(reached)


def _hessian(work: _Work) -> tuple[dict, dict, Arrays]:
    """Largest eigenvalue (Lanczos) and trace (Hutchinson) of the Hessian of the mean loss in the weights, on few images at once."""
    options, params = work.options, work.subject.logits_fn.args[0]
    ((_, mask, pictures, labels),) = work.subject.batches(np.arange(len(work.subject.ids)))
    loss = _loss_of(work.subject, pictures, labels, mask, mean=True)
    fresh = {"trace": np.full((1, options["draws"]), np.nan), "counted": np.zeros((1, options["draws"]), np.int32)}
    reached, took = _started(work, fresh | {"top_eigenvalue": np.array(np.nan)})
    if np.isnan(reached["top_eigenvalue"]):
        start = jax.random.fold_in(work.key, work.seed)
        reached["top_eigenvalue"] = np.asarray(metrics.hessian_top_eigenvalue(start, loss, params, steps=options["steps"]), np.float64)
        if not np.isfinite(reached["top_eigenvalue"]):
            raise InputError("flatness: the Hessian of the loss is not finite; no number can be given for it.")
        _note(work, reached, took, reached["counted"] > 0)
    _by_draws(work, reached, took, "trace", {0: lambda keys: np.asarray(metrics.hessian_trace(keys, loss, params), np.float64)})
    trace = reached["trace"][0]
    numbers = {"top_eigenvalue": float(reached["top_eigenvalue"]), "trace_mean": float(trace.mean()), "trace_std": float(trace.std())}
    return numbers, {}, _finished(reached)


def _curvature(work: _Work) -> tuple[dict, dict, Arrays]:
    """Sum of the squared eigenvalues of the Hessian in the pixels, for each image (discriminative loss, Eq. 21), in units of `std` pixels."""
    options = work.options
    loss = jax.tree_util.Partial(_example_loss, work.subject.logits_fn)
    settings = {name: options[name] for name in ("t", "draws", "std")}

    def rows(ids, pictures, labels):
        return {"curvature": metrics.input_curvature(example_keys(work.key, ids), loss, pictures, labels, **settings)}

    reached = _by_batches(work, {"curvature": np.zeros(len(work.subject.ids), np.float32)}, rows)
    values = reached["curvature"].astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"curvature: it is not finite on {(~np.isfinite(values)).sum()} images; no number can be given for it.")
    quartiles = dict(zip(("lower_quartile", "median", "upper_quartile"), np.quantile(values, (0.25, 0.5, 0.75)).tolist(), strict=True))
    unit = "pixels" if options["std"] == 1 else f"per_std_{options['std']:g}"
    found = {"mean": float(values.mean()), "std": float(values.std()), **quartiles}
    return {f"curvature_{unit}_{name}": value for name, value in found.items()}, {}, reached


def _loss_of(subject: Subject, pictures: Array, labels: Array, mask: np.ndarray, *, mean: bool = False) -> jax.tree_util.Partial:
    """Returns params -> the cross-entropy of the images of `mask`, summed (or its mean)."""
    network, (_, batch_stats) = jax.tree_util.Partial(subject.logits_fn.func), subject.logits_fn.args
    weights = jnp.asarray(mask / (mask.sum() if mean else 1), jnp.float32)
    return jax.tree_util.Partial(_weighted_loss, network, batch_stats, pictures, labels, weights)


def _weighted_loss(network, batch_stats, pictures, labels, weights, params) -> Array:
    return jnp.sum(weights * metrics.nll(network(params, batch_stats, pictures), labels))


def _example_loss(network, pictures, labels) -> Array:
    return metrics.nll(network(pictures), labels)


def _norm(params) -> float:
    return float(np.sqrt(sum(np.sum(np.square(np.asarray(leaf, np.float64))) for leaf in jax.tree.leaves(params))))


KINDS = {"thickness": _thickness, "flatness": _flatness, "hessian": _hessian, "curvature": _curvature}
