"""Measures a network under attack: PGD, transfer from another network, AutoAttack; for each example, and resumable inside an attack.

Only examples that are right without the attack are attacked; the others count as errors. Batches lie on all devices of this process,
and are halved where memory runs out; since draws are keyed by example, neither changes a number but by rounding.
"""

import functools
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from robustjax import attacks, data
from robustjax.attacks.audit import audit, suspicious
from robustjax.attacks.objectives import margin
from robustjax.attacks.pgd import random_starts
from robustjax.core import AttackResult, ThreatModel, example_keys, memory, parallel
from robustjax.core.check import InputError
from robustjax.data import batches
from robustjax.evaluate.states import StateFile, refused
from robustjax.evaluate.suites import Item

Tell = Callable[[float, str], None]
"""What is told how far an attack is: the part of it that is over, in [0, 1], and what to show."""


class Measured(NamedTuple):
    """What an attack gave."""

    metrics: dict[str, float]
    seconds: float
    about: dict[str, Any]  # for the result's file: stages, speed, memory
    warnings: list[str]  # what makes the numbers doubtful
    arrays: dict[str, np.ndarray]  # for each example: id, label, right without the attack and after each stage, ...


class _Clean(NamedTuple):
    """How the network does without an attack, for each example."""

    labels: Int[np.ndarray, " n"]
    right: Bool[np.ndarray, " n"]


class _Scores(NamedTuple):
    """How a network does on a batch."""

    right: Bool[np.ndarray, " b"]
    margin: Float[np.ndarray, " b"]  # max_{j != y} z_j - z_y


class Subject:
    """The network and the test images that the attacks of one evaluation share.

    Args:
        logits_fn: the network.
        source: the test split.
        ids: of the examples to measure.
        batch_size: examples on all devices together, at once; under attack it is rounded up to a multiple of their number.
        surrogates: networks that attacks are transferred from, by name.
        keep_images: whether adversarial images belong to the result.
    """

    def __init__(self, logits_fn, source: data.Source, ids: np.ndarray, batch_size: int, *, surrogates: dict, keep_images: bool = False):
        self.logits_fn, self.source, self.ids = logits_fn, source, ids
        self.batch_size = min(batch_size, len(ids))
        self.surrogates, self.keep_images = surrogates, keep_images
        self.mesh = parallel.data_mesh(jax.local_devices())
        self.rows = memory.rounded(self.batch_size, self.mesh.size)  # of batches under attack, fewer once memory has run out

    @functools.cached_property
    def networks(self) -> dict[str, Any]:
        """The network, under '', and the surrogates, with their arrays on every device."""
        return parallel.replicate({"": self.logits_fn, **self.surrogates}, self.mesh)

    def batches(self, places: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, Array, Array]]:
        """Yields (places among the ids, mask, images, labels) on one device, always of one size, so that one program serves all."""
        for chosen, mask in batches.padded(places, self.batch_size) if len(places) else ():
            images, labels = self.source.fetch(self.ids[chosen])
            yield chosen, mask, jnp.asarray(images, jnp.float32) / 255, jnp.asarray(labels)

    def images(self) -> Float[np.ndarray, "n h w c"]:
        """Returns all images, on the host."""
        return np.concatenate([np.asarray(images)[mask] for _, mask, images, _ in self.batches(np.arange(len(self.ids)))])

    def spread(self, tree: Any) -> Any:
        """Returns a batch with its rows spread over the devices."""
        return parallel.shard_rows(tree, self.mesh)

    def on_all_devices(self, places: np.ndarray, work: Callable[[np.ndarray, Array, Array], dict]) -> Iterator[tuple[np.ndarray, dict]]:
        """Yields (places, what `work` found of each), batch after batch; where memory runs out, in smaller ones from then on.

        Args:
            places: among the ids.
            work: (places, images, labels) -> arrays of one row for each, on the host.
        """

        def placed(chosen):
            images, labels = self.source.fetch(self.ids[chosen])
            return work(chosen, self.spread(images).astype(jnp.float32) / 255, self.spread(labels))

        while len(places):
            chosen, mask = next(batches.padded(places, self.rows))
            found, failed = memory.attempt(placed, chosen)
            if failed is not None:
                self.rows = memory.halved(self.rows, self.mesh.size, failed)
                continue
            yield chosen[mask], {name: values[mask] for name, values in found.items()}
            places = places[len(chosen) :]

    @functools.cached_property
    def clean(self) -> _Clean:
        """How the network does without an attack."""

        def work(chosen, images, labels):
            return {"labels": np.asarray(labels), "right": scores(self.networks[""], images, labels).right}

        parts = [found for _, found in self.on_all_devices(np.arange(len(self.ids)), work)]
        return _Clean(**{name: np.concatenate([part[name] for part in parts]) for name in _Clean._fields})

    def right(self, changed: Float[np.ndarray, "n h w c"]) -> Bool[np.ndarray, " n"]:
        """Returns on which of these images, in place of the test images, the network is right."""

        def work(chosen, _, labels):
            return {"right": scores(self.networks[""], self.spread(changed[chosen]), labels).right}

        return np.concatenate([found["right"] for _, found in self.on_all_devices(np.arange(len(self.ids)), work)])


def scores(logits_fn: Any, images: Float[Array, "b h w c"], labels: Int[Array, " b"]) -> _Scores:
    """Returns how a network does on a batch.

    Raises:
        InputError: where its outputs are not finite.
    """
    *found, finite = map(np.asarray, _score(logits_fn, images, labels))
    if not finite.all():
        raise InputError(f"the network's outputs are not finite on {(~finite).sum()} images; no number can be given.")
    return _Scores(*found)


@jax.jit
def _score(logits_fn, images: Float[Array, "b h w c"], labels: Int[Array, " b"]) -> tuple[Array, ...]:
    logits = logits_fn(images)
    finite = jnp.isfinite(logits).all(axis=1)
    logits = jnp.where(finite[:, None], logits, 0.0)
    right = jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels
    return right, margin(logits, labels), finite


def measure(subject: Subject, item: Item, key: Array, *, identity: dict, saved: StateFile, tell: Tell) -> Measured:
    """Attacks every example that is right without the attack.

    Args:
        subject: network and images.
        item: of a kind in KINDS.
        key: the item's; each example folds its id into it.
        identity: of the result, see run.py: a state of another one is refused.
        saved: where the state is kept.
        tell: is told how far it is.

    Raises:
        InputError: for a state that does not fit, or a network whose outputs are not finite.
    """
    began = time.perf_counter()
    result = KINDS[item.kind](subject, item, key, identity, saved, tell)
    flags = {name: np.asarray(stage["robust"]) for name, stage in result.stages.items()}
    clean, robust = flags["clean"], np.asarray(result.robust)
    if np.any(robust & ~clean) or not np.array_equal(robust, list(flags.values())[-1]):
        raise AssertionError(f"{item.name}: the flags after its stages contradict each other.")
    stages = [
        {"name": name} | {key: stage[key] for key in ("robust_accuracy", "examples", "seconds")}
        for name, stage in result.stages.items()
        if name != "clean"
    ]
    accuracy, n = float(robust.mean()), len(subject.ids)
    seconds = max(time.perf_counter() - began, sum(stage["seconds"] for stage in stages))
    peak, of = peak_memory()
    about = {
        "stages": stages,
        "majority": float(np.bincount(subject.clean.labels).max() / n),  # share of the commonest class
        "images_per_second": n / seconds,
        "peak_memory_bytes": peak,
        "peak_memory_of": of,
    }
    signs = {f"suspicious_{sign}": marks for sign, marks in suspicious(result).items()}
    arrays = {"ids": subject.ids, "labels": subject.clean.labels} | flags | signs
    again = None
    if result.images is not None:
        images = np.asarray(result.images)
        again = subject.right(images)
        arrays |= {"adversarial": images} if subject.keep_images else {}
    metrics = {"error": 1 - accuracy, "accuracy": accuracy, "clean_accuracy": float(clean.mean())}
    if item.kind == "transfer":  # how strong the attack was where it was made, on those that were attacked
        arrays["surrogate"] = list(result.stages.values())[-1]["surrogate"]
        metrics["surrogate_accuracy"] = float(arrays["surrogate"][clean].mean()) if clean.any() else 0.0
    return Measured(metrics, seconds, about, audit(result, correct_again=again), arrays)


def _autoattack(subject: Subject, item: Item, key: Array, identity: dict, saved: StateFile, tell: Tell) -> AttackResult:
    """The driver keeps its own state, and refuses one of another network, radius, data or version."""
    del identity
    options, state = item.options, saved.load()
    try:
        return attacks.autoattack(
            example_keys(key, subject.ids),
            subject.logits_fn,
            subject.images(),
            subject.clean.labels,
            ThreatModel(options["norm"], options["eps"]),
            version=options["version"],
            batch_size=subject.batch_size,
            state=state,
            on_state=saved,
            on_progress=lambda done, total, text: tell(done / max(1, total), text),
            check=False,  # run.py has looked
        )
    except InputError as error:
        if state is None or saved.handed:
            raise
        raise refused(saved.path, str(error)) from error


def _by_batches(subject: Subject, item: Item, key: Array, identity: dict, saved: StateFile, tell: Tell) -> AttackResult:
    """PGD, on this network or on a surrogate, batch after batch."""
    began, n = time.perf_counter(), len(subject.ids)
    clean = subject.clean.right
    unknown = np.full(n, np.nan, np.float32)  # where not attacked
    reached = {"robust": clean.copy(), "done": ~clean, "loss": unknown, "start_loss": unknown.copy(), "seconds": np.zeros(())}
    reached |= {"images": subject.images()} if subject.keep_images else {}
    reached |= {"surrogate": np.zeros(n, bool)} if item.kind == "transfer" else {}
    reached = taken_up(saved, json.dumps(identity | {"images_kept": subject.keep_images}, sort_keys=True), reached)
    before = float(reached["seconds"])
    attack = _attack_of(subject, item)

    def work(chosen, images, labels):
        return attack(subject.spread(example_keys(key, subject.ids[chosen])), images, labels)

    for places, found in subject.on_all_devices(np.flatnonzero(~reached["done"]), work):
        for name in reached.keys() & found.keys():
            reached[name][places] = found[name]
        reached["done"][places] = True
        reached["seconds"] = np.array(before + time.perf_counter() - began)
        saved(reached)
        tell(float(reached["done"].mean()), f"{reached['robust'].sum()} robust")
    robust = reached["robust"]
    about = {"seconds": before + time.perf_counter() - began, "loss": reached["loss"], "start_loss": reached["start_loss"]}
    about |= {"surrogate": reached["surrogate"]} if item.kind == "transfer" else {}
    stage = {"robust": robust, "robust_accuracy": float(robust.mean()), "examples": int(clean.sum()), **about}
    stages = {"clean": {"robust": clean, "robust_accuracy": float(clean.mean()), "seconds": 0.0, "examples": n}}
    name = f"{'cw' if item.options.get('objective') == 'cw' else 'pgd'}{item.options['steps']}"
    return AttackResult(reached.get("images"), robust, stages | {name: stage})


def taken_up(saved: StateFile, identity: str, fresh: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns what has been reached: what was saved, or nothing."""
    fresh = {"identity": np.array(identity), **fresh}
    state = saved.load()
    if state is None:
        return fresh
    if set(state) != set(fresh) or str(state["identity"]) != identity:
        raise refused(saved.path, "it is of another network, of other data or settings, or of another version.")
    return state


def _attack_of(subject: Subject, item: Item) -> Callable[[Array, Array, Array], dict[str, np.ndarray]]:
    """Returns (keys, images, labels) -> for each: the adversarial image, whether this network withstood it, the loss, ...

    `loss` and `start_loss` are margins of the network that the attack sees, on what it returns and where it began: not on the clean
    image, from which the random start alone moves them, and not cross-entropy, which is 0 at both ends of a healthy attack on an image
    that the network is sure of.
    """
    options = item.options
    threat = ThreatModel(options["norm"], options["eps"])
    settings = {name: options[name] for name in ("steps", "step_size", "objective", "best") if name in options}
    pgd = functools.partial(attacks.pgd, **settings)
    network, seen = subject.networks[""], subject.networks[options.get("surrogate", "")]

    def directly(keys, images, labels):
        adversarial = pgd(keys, network, images, labels, threat)
        right, loss = scores(network, adversarial, labels)
        return {"robust": right, "loss": loss, "images": np.asarray(adversarial)}

    def transferred(keys, images, labels):
        result = attacks.transfer(keys, pgd, seen, network, images, labels, threat, check=False)
        flags = {"robust": result.stages["transfer"]["robust"], "surrogate": result.stages["surrogate"]["robust"]}
        return {**flags, "loss": scores(seen, result.images, labels).margin, "images": np.asarray(result.images)}

    def attack(keys, images, labels):
        start = scores(seen, random_starts(keys, images, threat), labels).margin
        return (transferred if item.kind == "transfer" else directly)(keys, images, labels) | {"start_loss": start}

    return attack


KINDS = {"attack": _by_batches, "curve": _by_batches, "transfer": _by_batches, "autoattack": _autoattack}


def peak_memory() -> tuple[int, str]:
    """Returns the most bytes that a device held at once, where it tells, else this process; since it began, earlier items included."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    most = max(found.get("peak_bytes_in_use", 0) for found in stats)
    if most:
        return int(most), "device"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "process"
