"""Runs the items of a suite on a trained network; each result is a file, so a killed evaluation goes on where it was.

Every example is counted exactly once; only this module divides.
"""

import contextlib
import functools
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

import robustjax
from robustjax import corruptions, metrics
from robustjax.core import check, example_keys
from robustjax.core.check import InputError
from robustjax.data import Dataset, Source, splits, stream
from robustjax.evaluate import attacked, geometry, noisy, sources, suites
from robustjax.evaluate.load import Loaded, evaluation_data, load, load_surrogate
from robustjax.evaluate.states import DAMAGED, StateFile, read_npz, write_npz
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
def _score(logits_fn, images: Float[Array, "b h w c"], labels: Int[Array, " b"], mask: Bool[Array, " b"]) -> _Sums:
    """Sums over the examples of `mask`."""
    logits = logits_fn(images)
    correct = metrics.correct(logits, labels)
    confidence = metrics.confidence(logits)
    nll = jnp.sum(jnp.where(mask, metrics.nll(logits, labels), 0.0))
    bins = metrics.calibration_sums(confidence, correct, bins=ECE_BINS, mask=mask)
    return _Sums(jnp.sum(mask), jnp.sum(correct & mask), nll, bins)


def evaluate(
    workdir: str | Path,
    *,
    suite: str = "full",
    checkpoint: str | int = "best",
    data_dir: str = "",
    limit: int = 0,
    corrupted_dir: str | Path = "",
    frost_images: str | Path = "",
    threats: Sequence[str] = (),
    attack_version: str = "",
    curves: Sequence[str] = (),
    surrogates: Sequence[str | Path] = (),
    geometry_settings: Sequence[str] = (),
    noise_settings: Sequence[str] = (),
    batch_size: int = 0,
    save_adversarial: bool = False,
    restart: bool = False,
    quiet: bool = False,
) -> list[dict]:
    """Measures a run's network on its test set.

    Args:
        workdir: the run's folder; results go to `workdir/evaluation/step<step>_n<test images>`. Beside the result of an attack lies
            an npz file of the same name: for each example its id, label, and whether it is right without the attack and after each
            stage; of thickness and curvature its number, of noise on which draws it is right. While an attack is under way, `<item>.state.npz` holds what it has reached.
        suite: one of suites.SUITES, or several as 'full,cbar'.
        checkpoint: 'best', 'last' or a step.
        data_dir: where the data lie now, if elsewhere than in training.
        limit: measure only that many test examples (0: as the run's configuration says, by default all).
        corrupted_dir: folder of published corrupted files (see data.corrupted), measured in place of corruptions made here.
        frost_images: folder of a user's own photographs of frost, in place of procedural ice.
        threats: 'linf:8/255', ...: of autoattack and transfer, in place of the configuration's.
        attack_version: of autoattack, in place of the configuration's.
        curves: 'linf:0,2/255,4/255', ...: accuracy at these radii, by PGD, beside the suite.
        surrogates: folders of runs that attacks are transferred from.
        geometry_settings: 'flatness.radii=30,32.5', ...: of thickness, flatness and curvature, see suites.GEOMETRY.
        noise_settings: 'gaussian=2/255,4/255', 'repeats=5', ...: of noise, see suites.noise_settings.
        batch_size: examples at once, on all devices together (0: as the run's configuration says). It changes numbers by rounding at
            most, so what was measured with another one stays measured.
        save_adversarial: keep adversarial images in the npz files.
        restart: begin attacks, and measurements of geometry and under noise, anew that were interrupted.
        quiet: no progress line.

    Returns:
        One result for each item, see io.results; those already measured are read from their files.

    Raises:
        InputError: whatever a user can mend.
    """
    if batch_size < 0:
        raise InputError(f"batch_size must be at least 1, or 0 for that of the run's configuration, got {batch_size}.")
    loaded = load(workdir, checkpoint=checkpoint)
    config = loaded.meta["config"]
    networks = {str(folder): load_surrogate(folder, loaded.meta) for folder in surrogates}
    others = tuple({"surrogate": Path(folder).resolve().name, **_of_run(network)} for folder, network in networks.items())
    asked = suites.Asked(tuple(threats), attack_version, tuple(curves), others, tuple(geometry_settings), tuple(noise_settings))
    items = suites.items(suite, config, tuple(loaded.meta["model"]["image_shape"]), asked)
    dataset = evaluation_data(loaded.meta, dir=data_dir)
    ids = splits.subset(len(dataset.test), limit or config["data"]["limit_test"])
    items, read, photographs = _from_elsewhere(items, dataset, corrupted_dir, frost_images, limited=len(ids) < len(dataset.test))
    folder = Path(workdir) / "evaluation" / f"step{loaded.step}_n{len(ids)}"
    batch_size = batch_size or config["evaluation"]["batch_size"]

    def parts(item: suites.Item, chosen: np.ndarray = ids) -> Iterator[_Part]:
        options = item.options
        source = read(options["name"], options.get("severity")) if item.kind == "files" else dataset.test
        return _parts(source, chosen, batch_size)

    named = {other["surrogate"]: network.logits_fn for other, network in zip(others, networks.values(), strict=True)}
    subject = attacked.Subject(loaded.logits_fn, dataset.test, ids, batch_size, surrogates=named, keep_images=save_adversarial)

    @functools.cache
    def doubts(surrogate: str = "") -> list[str]:
        return _checked(named.get(surrogate, loaded.logits_fn), next(parts(items[0], ids[:batch_size])), surrogate)

    found = []
    with log.progress("evaluating", len(items), quiet=quiet) as show:
        for done, item in enumerate(items):
            n = geometry.images(item, len(ids)) if item.kind in geometry.KINDS else len(ids)
            identity = _identity(loaded, item, dataset.provenance, n)
            path = folder / f"{item.name}.json"
            stored = results.read(path)
            if stored is None or stored["run"] != identity or (save_adversarial and not _has_images(item, path)):
                warned = doubts() + (doubts(item.options["surrogate"]) if item.kind == "transfer" else [])
                if item.kind in _RESUMED:
                    tell = functools.partial(_tell, show, done, item.name)
                    stored = _attack(subject, item, path, identity, warned, restart=restart, tell=tell)
                else:
                    # The item names the photographs by their digest; the kernel needs themselves.
                    given = {sources.PHOTOGRAPHS: photographs} if sources.PHOTOGRAPHS in item.options else {}
                    stored = _measure(loaded, item, functools.partial(parts, item), identity, given)
                    results.write_json(path, stored)
            found.append(stored)
            show(done + 1, item.name)
    return found


def _from_elsewhere(
    items: list[suites.Item], dataset: Dataset, corrupted_dir: str | Path, frost_images: str | Path, *, limited: bool
) -> tuple[list[suites.Item], Callable | None, Any]:
    """Returns the items as they are measured with a user's corrupted files and photographs; what reads the files; the photographs."""
    read, photographs = None, ()
    if corrupted_dir:
        items, read = sources.from_files(items, corrupted_dir, dataset, limited=limited)
    if frost_images:
        photographs = sources.photographs(frost_images)
        items = sources.with_photographs(items, photographs, dataset.image_shape)
    return items, read, photographs


def _checked(logits_fn, part: _Part, surrogate: str) -> list[str]:
    """Returns what makes measurements of this network misleading, or of attacks made on it where it is a surrogate, and says it."""
    warned = check.check_logits_fn(logits_fn, part.images, part.labels)
    warned = [f"surrogate {surrogate}: {warning}" for warning in warned] if surrogate else warned
    for warning in warned:
        log.say(f"warning: {warning}")
    return warned


def _tell(show: Callable, done: int, name: str, share: float, text: str) -> None:
    show(done + share, f"{name} {text}")


def _has_images(item: suites.Item, path: Path) -> bool:
    """Returns whether adversarial images were kept, where there are any."""
    if item.kind not in attacked.KINDS:
        return True
    try:
        return "adversarial" in (read_npz(path.with_suffix(".npz")) or {})
    except DAMAGED:
        return False


def _of_run(loaded: Loaded) -> dict:
    """Returns what tells a trained network from others."""
    config = loaded.meta["config"]
    return {
        "config_hash": results.config_hash(results.comparable(config)),
        "seed": config["seed"],
        "checkpoint_step": loaded.step,
        "weights": loaded.weights,
    }


def _identity(loaded: Loaded, item: suites.Item, provenance: str, n: int) -> dict:
    """Returns what decides a number: a stored result of another identity is measured again."""
    return results.canonical(
        {
            "robustjax": robustjax.__version__,
            **_of_run(loaded),
            "data": provenance,
            "split": "test",
            "n": n,
            "item": item._asdict(),
            "notes": loaded.meta["notes"],
        }
    )


def _parts(source: Source, ids: np.ndarray, batch_size: int) -> Iterator[_Part]:
    """Yields batches; of a source that does not fit in memory they are read ahead while the device computes."""
    threads = 0 if source.resident else stream.THREADS
    for batch in stream.eval_stream(source, ids, min(batch_size, len(ids)), threads=threads):
        yield _Part(jnp.asarray(batch.images, jnp.float32) / 255, *map(jnp.asarray, batch[1:]))


def _measure(loaded: Loaded, item: suites.Item, parts: Callable[[], Iterator[_Part]], identity: dict, given: dict) -> dict:
    began = time.perf_counter()
    key = jax.random.fold_in(jax.random.key(0), zlib.crc32(_drawn_as(item).encode()))
    transform = _KINDS[item.kind](item.options | given)
    sums = [_score(loaded.logits_fn, transform(example_keys(key, part.ids), part), part.labels, part.mask) for part in parts()]
    total = jax.tree.map(lambda *leaves: sum(map(np.asarray, leaves)), *sums)
    n = identity["n"]
    if int(total.count) != n:
        raise AssertionError(f"{item.name}: {int(total.count)} examples were counted, the test set has {n}.")
    if not np.isfinite(total.nll):
        raise InputError(f"{item.name}: the network's outputs are not finite; no number can be given for it.")
    error = 1 - float(total.correct) / n
    calibration = {"nll_nats": float(total.nll) / n, "ece_15_bins": float(metrics.calibration_error(total.bins))}
    return _result(item, identity, {"error": error, "accuracy": 1 - error} | calibration, time.perf_counter() - began)


def _result(item: suites.Item, identity: dict, measured: dict, seconds: float) -> dict:
    environment = results.environment()
    return {"name": item.name, "metrics": measured, "n": identity["n"], "seconds": seconds, "run": identity, "environment": environment}


def _attack(subject: attacked.Subject, item: suites.Item, path: Path, identity: dict, warned: list[str], *, restart: bool, tell) -> dict:
    """Measures an attack, geometry or accuracy under noise, and writes its result, and before it the flags or numbers of each example."""
    key = jax.random.fold_in(jax.random.key(0), zlib.crc32(_drawn_as(item).encode()))
    with StateFile(path.with_suffix(".state.npz")) as saved, _heard() as during:
        if restart:
            saved.finish()
        measured = _RESUMED[item.kind].measure(subject, item, key, identity=identity, saved=saved, tell=tell)
        write_npz(path.with_suffix(".npz"), measured.arrays)
        result = _result(item, identity, measured.metrics, measured.seconds) | measured.about
        result["warnings"] = {"before": warned, "during": during, "after": measured.warnings}
        for warning in measured.warnings:
            log.say(f"warning: {item.name}: {warning}")
        results.write_json(path, results.canonical(result))
        saved.finish()
    return result


@contextlib.contextmanager
def _heard():
    """Yields a list of the warnings that come up inside, each once; they are shown as well."""
    heard: list[str] = []

    def show(message, *place, **more) -> None:
        if str(message) not in heard:
            heard.append(str(message))
            log.say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield heard


def _drawn_as(item: suites.Item) -> str:
    """Returns the name that keys an item's randomness: that of `export`, whatever the file of the result is called."""
    options = item.options
    if item.kind in geometry.KINDS:  # the same draws in every variant
        return item.kind
    if item.kind in ("curve", "autoattack"):  # the same draws at every radius, and of 'fast' as in 'standard'
        return f"{item.kind}/{options['norm']}"
    if item.kind != "corruption" or options["benchmark"] == suites.SENSOR:
        return item.name
    severity = f"_{options['severity']}" if "severity" in options else ""
    return f"{options['benchmark'].removesuffix('_extra')}/{options['name']}{severity}"


def _as_read(options: dict) -> Callable:
    return lambda keys, part: part.images


def _corruption(options: dict) -> Callable:
    return lambda keys, part: corruptions.corrupt(keys, part.images, **options)


_KINDS = {"clean": _as_read, "files": _as_read, "corruption": _corruption}
_RESUMED = {**dict.fromkeys(attacked.KINDS, attacked), **dict.fromkeys(geometry.KINDS, geometry), "noise": noisy}  # go on inside an item
