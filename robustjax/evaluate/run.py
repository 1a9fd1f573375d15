"""Runs the items of a suite on a trained network; each result is a file, so a killed evaluation goes on where it was.

Every example is counted exactly once; only this module divides.
"""

import functools
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

import robustjax
from robustjax import attacks, corruptions, metrics
from robustjax.core import ThreatModel, check, example_keys
from robustjax.core.check import InputError
from robustjax.data import batches, splits
from robustjax.evaluate import sources, suites
from robustjax.evaluate.load import Loaded, evaluation_data, load
from robustjax.io import log, results

ECE_BINS = 15


class _Sums(NamedTuple):
    count: Int[Array, ""]
    correct: Int[Array, ""]
    nll: Float[Array, ""]
    bins: metrics.CalibrationSums


class _Part(NamedTuple):
    """One batch of the test set, padded."""

    images: Float[Array, "b h w c"]
    labels: Int[Array, " b"]
    ids: Int[Array, " b"]
    mask: Bool[Array, " b"]


@jax.jit
def _score(
    logits_fn, images: Float[Array, "b h w c"], labels: Int[Array, " b"], counted: Bool[Array, " b"], mask: Bool[Array, " b"]
) -> _Sums:
    """Sums over the examples of `mask`; those outside `counted` (already misclassified without the attack) are counted as errors."""
    logits = logits_fn(images)
    correct = metrics.correct(logits, labels) & counted
    confidence = metrics.confidence(logits)
    nll = jnp.sum(jnp.where(mask, metrics.nll(logits, labels), 0.0))
    bins = metrics.calibration_sums(confidence, correct, bins=ECE_BINS, mask=mask)
    return _Sums(jnp.sum(mask), jnp.sum(correct & mask), nll, bins)


@jax.jit
def _clean_correct(logits_fn, images: Float[Array, "b h w c"], labels: Int[Array, " b"]) -> Bool[Array, " b"]:
    return metrics.correct(logits_fn(images), labels)


def evaluate(
    workdir: str | Path,
    *,
    suite: str = "full",
    checkpoint: str | int = "best",
    data_dir: str = "",
    limit: int = 0,
    corrupted_dir: str | Path = "",
    frost_images: str | Path = "",
    quiet: bool = False,
) -> list[dict]:
    """Measures a run's network on its test set.

    Args:
        workdir: the run's folder; results go to `workdir/evaluation/step<step>_n<test images>`.
        suite: one of suites.SUITES, or several as 'full,cbar'.
        checkpoint: 'best', 'last' or a step.
        data_dir: where the data lie now, if elsewhere than in training.
        limit: measure only that many test examples (0: as the run's configuration says, by default all).
        corrupted_dir: folder of published corrupted files (see data.corrupted), measured in place of corruptions made here.
        frost_images: folder of a user's own photographs of frost, in place of procedural ice.
        quiet: no progress line.

    Returns:
        One result for each item, see io.results; those already measured are read from their files.

    Raises:
        InputError: whatever a user can mend.
    """
    loaded = load(workdir, checkpoint=checkpoint)
    config = loaded.meta["config"]
    items = suites.items(suite, config, tuple(loaded.meta["model"]["image_shape"]))
    dataset = evaluation_data(loaded.meta, dir=data_dir)
    ids = splits.subset(len(dataset.test), limit or config["data"]["limit_test"])
    read, photographs = None, ()
    if corrupted_dir:
        items, read = sources.from_files(items, corrupted_dir, dataset, limited=len(ids) < len(dataset.test))
    if frost_images:
        photographs = sources.photographs(frost_images)
        items = sources.with_photographs(items, photographs, dataset.image_shape)
    folder = Path(workdir) / "evaluation" / f"step{loaded.step}_n{len(ids)}"

    def parts(item: suites.Item) -> Iterator[_Part]:
        options = item.options
        source = read(options["name"], options.get("severity")) if item.kind == "files" else dataset.test
        return _parts(source, ids, config["evaluation"]["batch_size"])

    found, unchecked = [], True
    with log.progress("evaluating", len(items), quiet=quiet) as show:
        for done, item in enumerate(items, 1):
            identity = _identity(loaded, item, dataset.provenance, len(ids))
            path = folder / f"{item.name}.json"
            stored = results.read(path)
            if stored is None or stored["run"] != identity:
                if unchecked:
                    first, unchecked = next(parts(items[0])), False
                    for warning in check.check_logits_fn(loaded.logits_fn, first.images, first.labels):
                        log.say(f"warning: {warning}")
                # The item names the photographs by their digest; the kernel needs themselves.
                given = {sources.PHOTOGRAPHS: photographs} if sources.PHOTOGRAPHS in item.options else {}
                stored = _measure(loaded, item, functools.partial(parts, item), identity, given)
                results.write_json(path, stored)
            found.append(stored)
            show(done, item.name)
    return found


def _identity(loaded: Loaded, item: suites.Item, provenance: str, n: int) -> dict:
    """Returns what decides a number: a stored result of another identity is measured again."""
    config = loaded.meta["config"]
    return results.canonical(
        {
            "robustjax": robustjax.__version__,
            "config_hash": results.config_hash(results.comparable(config)),
            "seed": config["seed"],
            "checkpoint_step": loaded.step,
            "data": provenance,
            "split": "test",
            "n": n,
            "item": item._asdict(),
            "notes": loaded.meta["notes"],
        }
    )


def _parts(source, ids: np.ndarray, batch_size: int) -> Iterator[_Part]:
    for chosen, mask in batches.padded(ids, min(batch_size, len(ids))):
        images, labels = source.fetch(chosen)
        yield _Part(jnp.asarray(images, jnp.float32) / 255, jnp.asarray(labels), jnp.asarray(chosen), jnp.asarray(mask))


def _measure(loaded: Loaded, item: suites.Item, parts: Callable[[], Iterator[_Part]], identity: dict, given: dict) -> dict:
    began = time.perf_counter()
    key = jax.random.fold_in(jax.random.key(0), zlib.crc32(_drawn_as(item).encode()))
    transform = _KINDS[item.kind](loaded.logits_fn, item.options | given)
    sums = [_score(loaded.logits_fn, *_scored(part, transform(example_keys(key, part.ids), part))) for part in parts()]
    total = jax.tree.map(lambda *leaves: sum(map(np.asarray, leaves)), *sums)
    n = identity["n"]
    if int(total.count) != n:
        raise AssertionError(f"{item.name}: {int(total.count)} examples were counted, the test set has {n}.")
    if not np.isfinite(total.nll):
        raise InputError(f"{item.name}: the network's outputs are not finite; no number can be given for it.")
    error = 1 - float(total.correct) / n
    measured = {"error": error, "accuracy": 1 - error}
    if item.kind != "attack":  # likelihood and calibration under an attack say nothing that the accuracy does not
        measured |= {"nll_nats": float(total.nll) / n, "ece_15_bins": float(metrics.calibration_error(total.bins))}
    return {
        "name": item.name,
        "metrics": measured,
        "n": n,
        "seconds": time.perf_counter() - began,
        "run": identity,
        "environment": results.environment(),
    }


def _drawn_as(item: suites.Item) -> str:
    """Returns the name that keys an item's randomness: that of `export`, whatever the file of the result is called."""
    options = item.options
    if item.kind != "corruption" or options["benchmark"] == suites.SENSOR:
        return item.name
    severity = f"_{options['severity']}" if "severity" in options else ""
    return f"{options['benchmark'].removesuffix('_extra')}/{options['name']}{severity}"


def _scored(part: _Part, made: tuple[Array, Array]) -> tuple:
    images, counted = made
    return images, part.labels, counted, part.mask


def _as_read(logits_fn, options: dict) -> Callable:
    return lambda keys, part: (part.images, part.mask)


def _corruption(logits_fn, options: dict) -> Callable:
    def transform(keys, part: _Part):
        return corruptions.corrupt(keys, part.images, **options), part.mask

    return transform


def _attack(logits_fn, options: dict) -> Callable:
    threat = ThreatModel(options["norm"], options["eps"])

    def transform(keys, part: _Part):
        attacked = attacks.pgd(keys, logits_fn, part.images, part.labels, threat, steps=options["steps"], step_size=options["step_size"])
        # An example counts as robust only if it is right without the attack as well.
        return attacked, _clean_correct(logits_fn, part.images, part.labels)

    return transform


_KINDS = {"clean": _as_read, "files": _as_read, "corruption": _corruption, "attack": _attack}
