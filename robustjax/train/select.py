"""Validation during training, by which the best checkpoint is selected."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int

from robustjax import losses, models
from robustjax.core import parallel
from robustjax.core.types import Batch
from robustjax.data import batches, stream
from robustjax.io import log
from robustjax.train import augmented
from robustjax.train.build import Experiment

_KEPT_BYTES = 2 * 2**30  # of corrupted validation images on the devices; more are computed anew at each validation


def make_validator(experiment: Experiment, mesh: Mesh, data: tuple[Array, Array] | None, *, quiet: bool = False) -> Callable:
    """Returns validate(params, batch_stats) -> (accuracy, mean loss) over the validation split, each image counted once.

    With config.selection.data = 'cbar' these are the images under the corruptions of C-bar, one each; with 'all' each image is
    counted once for every corruption and severity. They are computed here, once, and kept where they fit.

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

    @jax.jit
    def sums(params, batch_stats, images: Array, labels: Int[Array, " b"], mask: Bool[Array, " b"]) -> tuple[Array, Array]:
        logits = models.logits_fn(apply, params, batch_stats)(images.astype(jnp.float32) / 255)
        correct = jnp.where(mask, jnp.argmax(logits, -1) == labels, False)
        return jnp.sum(correct), jnp.sum(jnp.where(mask, losses.cross_entropy(logits, labels), 0.0))

    @jax.jit
    def gathered(params, batch_stats, data: tuple[Array, Array], ids: Int[Array, " b"], mask: Bool[Array, " b"]) -> tuple[Array, Array]:
        return sums(params, batch_stats, data[0][ids], data[1][ids], mask)

    def resident(params, batch_stats) -> Iterator[tuple[Array, Array]]:
        for chosen, mask in batches.padded(ids, batch_size):
            yield gathered(params, batch_stats, data, *parallel.shard_rows(parallel.own_rows((chosen, mask)), mesh))

    def streamed() -> Iterator[Batch]:
        processes = {"process": jax.process_index(), "processes": jax.process_count()}
        return (parallel.shard_rows(batch, mesh) for batch in stream.eval_stream(source, ids, batch_size, **processes))

    count, placed = len(ids), streamed
    if selection != "clean":
        count, placed = _augmented(experiment, mesh, selection, most, read_ahead=data is None, quiet=quiet)

    def validate(params: dict, batch_stats: dict) -> tuple[float, float]:
        if selection == "clean" and data is not None:
            results = resident(params, batch_stats)
        else:
            results = (sums(params, batch_stats, batch.images, batch.labels, batch.mask) for batch in placed())
        correct = loss = 0.0
        for result in results:
            # Fetched before the next batch is begun: many that wait at once can block the devices of a CPU for ever.
            batch_correct, batch_loss = jax.device_get(result)
            correct += float(batch_correct)
            loss += float(batch_loss)
        return correct / count, loss / count

    return validate


def _augmented(
    experiment: Experiment, mesh: Mesh, selection: str, most: int, *, read_ahead: bool, quiet: bool
) -> tuple[int, Callable[[], Iterator[Batch]]]:
    """Returns how many corrupted validation images there are, and a function that yields their batches on the devices."""
    dataset, ids = experiment.dataset, experiment.validation_ids
    shape = dataset.image_shape
    parts = augmented.plan(ids, selection, shape, most=most, multiple=mesh.size)
    count = sum(int(part.mask.sum()) for part in parts)

    def computed() -> Iterator[Batch]:
        for batch in augmented.corrupted(dataset.train, parts, shape, read_ahead=read_ahead):
            yield parallel.shard_rows(parallel.own_rows(batch), mesh)

    if len(parts) * len(parts[0].ids) * shape[0] * shape[1] * shape[2] > _KEPT_BYTES:
        return count, computed
    kept = []
    with log.progress("corrupting the validation images", len(parts), quiet=quiet) as show:
        for batch in computed():
            kept.append(batch)
            show(len(kept))
    return count, lambda: iter(kept)
