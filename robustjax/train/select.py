"""Validation during training, by which the best checkpoint is selected."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int

from robustjax import attacks, losses, models
from robustjax.core import ThreatModel, parallel
from robustjax.core.rng import example_keys
from robustjax.core.types import Batch
from robustjax.data import batches, stream
from robustjax.io import log
from robustjax.train import augmented
from robustjax.train.build import Experiment

_KEPT_BYTES = 2 * 2**30  # of corrupted validation images on the devices; more are computed anew at each validation


class Validation(NamedTuple):
    """What validation measured; accuracies are fractions, the loss is the mean over the images."""

    accuracy: float
    loss: float
    robust_accuracy: float | None = None  # under config.selection.attack

    @property
    def selects_by(self) -> float:
        """The accuracy by which the best checkpoint is chosen."""
        return self.accuracy if self.robust_accuracy is None else self.robust_accuracy


def make_validator(experiment: Experiment, mesh: Mesh, data: tuple[Array, Array] | None, *, quiet: bool = False) -> Callable:
    """Returns validate(params, batch_stats) -> Validation over the validation split, each image counted once.

    With config.selection.data = 'cbar' these are the images under the corruptions of C-bar, one each; with 'all' each image is
    counted once for every corruption and severity. They are computed here, once, and kept where they fit. With config.selection.attack
    every image is also attacked, from the same random starts at every validation.

    Args:
        experiment: see train.build.
        mesh: batches are split over its devices.
        data: images and labels of the training source on the devices, or None to stream them; see train.feed.
        quiet: no progress line.
    """
    apply, source, ids = experiment.evaluate, experiment.dataset.train, experiment.validation_ids
    most = experiment.config["evaluation"]["batch_size"]
    selection = experiment.config["selection"]["data"]
    batch_size = max(1, min(most, len(ids)) // mesh.size) * mesh.size

    attack = _attack(experiment.config["selection"]["attack"])

    @jax.jit
    def sums(params, batch_stats, batch: Batch) -> tuple[Array, ...]:
        network = models.logits_fn(apply, params, batch_stats)
        images = batch.images.astype(jnp.float32) / 255
        logits = network(images)
        counted = [_correct(logits, batch), jnp.sum(jnp.where(batch.mask, losses.cross_entropy(logits, batch.labels), 0.0))]
        if attack is not None:
            counted.append(_correct(network(attack(network, images, batch)), batch))
        return tuple(counted)

    @jax.jit
    def gathered(params, batch_stats, data: tuple[Array, Array], ids: Int[Array, " b"], mask: Bool[Array, " b"]) -> tuple[Array, ...]:
        return sums(params, batch_stats, Batch(data[0][ids], data[1][ids], ids, mask))

    def resident(params, batch_stats) -> Iterator[tuple[Array, ...]]:
        for chosen, mask in batches.padded(ids, batch_size):
            yield gathered(params, batch_stats, data, *parallel.shard_rows(parallel.own_rows((chosen, mask)), mesh))

    def streamed() -> Iterator[Batch]:
        processes = {"process": jax.process_index(), "processes": jax.process_count()}
        return (parallel.shard_rows(batch, mesh) for batch in stream.eval_stream(source, ids, batch_size, **processes))

    count, placed = len(ids), streamed
    if selection != "clean":
        count, placed = _augmented(experiment, mesh, selection, most, read_ahead=data is None, quiet=quiet)

    def validate(params: dict, batch_stats: dict) -> Validation:
        if selection == "clean" and data is not None:
            results = resident(params, batch_stats)
        else:
            results = (sums(params, batch_stats, batch) for batch in placed())
        # Fetched before the next batch is begun: many that wait at once can block the devices of a CPU for ever.
        totals = [sum(map(float, column)) for column in zip(*map(jax.device_get, results), strict=True)]
        return Validation(*(total / count for total in totals))

    return validate


def _correct(logits: Array, batch: Batch) -> Array:
    return jnp.sum(jnp.where(batch.mask, jnp.argmax(logits, -1) == batch.labels, False))


def _attack(options: dict) -> Callable | None:
    """Returns (network, images, batch) -> adversarial images by PGD on cross-entropy, or None for no attack."""
    if not options:
        return None
    threat = ThreatModel(options["norm"], options["eps"])

    def attack(network, images: Array, batch: Batch) -> Array:
        keys = example_keys(jax.random.key(0), batch.ids)
        return attacks.pgd(keys, network, images, batch.labels, threat, steps=options["steps"], step_size=options["step_size"])

    return attack


def _augmented(
    experiment: Experiment, mesh: Mesh, selection: str, most: int, *, read_ahead: bool, quiet: bool
) -> tuple[int, Callable[[], Iterator[Batch]]]:
    """Returns how many corrupted validation images there are, and a function that yields their batches on the devices."""
    dataset, ids = experiment.dataset, experiment.validation_ids
    shape = dataset.image_shape
    parts = augmented.plan(ids, selection, shape, most=most, multiple=mesh.size)
    count = sum(int(part.mask.sum()) for part in parts)
    bytes_of_all = len(parts) * len(parts[0].ids) * shape[0] * shape[1] * shape[2]
    # Each process reads and corrupts its own rows; draws follow from the ids.
    parts = [augmented.Part(part.cell, *parallel.own_rows((part.ids, part.mask))) for part in parts]

    def computed() -> Iterator[Batch]:
        for batch in augmented.corrupted(dataset.train, parts, shape, read_ahead=read_ahead):
            yield parallel.shard_rows(batch, mesh)

    if bytes_of_all > _KEPT_BYTES:
        return count, computed
    kept = []
    with log.progress("corrupting the validation images", len(parts), quiet=quiet) as show:
        for batch in computed():
            kept.append(batch)
            show(len(kept))
    return count, lambda: iter(kept)
