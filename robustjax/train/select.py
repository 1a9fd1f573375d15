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
from robustjax.train.build import Experiment


def make_validator(experiment: Experiment, mesh: Mesh, data: tuple[Array, Array] | None) -> Callable:
    """Returns validate(params, batch_stats) -> (accuracy, mean loss) over the validation split, each example counted once.

    Args:
        experiment: see train.build.
        mesh: batches are split over its devices.
        data: images and labels of the training source on the devices, or None to stream them; see train.feed.
    """
    apply, source, ids = experiment.evaluate, experiment.dataset.train, experiment.validation_ids
    batch_size = max(1, min(experiment.config["evaluation"]["batch_size"], len(ids)) // mesh.size) * mesh.size

    @jax.jit
    def sums(params, batch_stats, images: Array, labels: Int[Array, " b"], mask: Bool[Array, " b"]) -> tuple[Array, Array]:
        logits = models.logits_fn(apply, params, batch_stats)(images.astype(jnp.float32) / 255)
        correct = jnp.where(mask, jnp.argmax(logits, -1) == labels, False)
        return jnp.sum(correct), jnp.sum(jnp.where(mask, losses.cross_entropy(logits, labels), 0.0))

    @jax.jit
    def gathered(params, batch_stats, data: tuple[Array, Array], ids: Int[Array, " b"], mask: Bool[Array, " b"]) -> tuple[Array, Array]:
        return sums(params, batch_stats, data[0][ids], data[1][ids], mask)

    def results(params, batch_stats) -> Iterator[tuple[Array, Array]]:
        if data is None:
            processes = {"process": jax.process_index(), "processes": jax.process_count()}
            for batch in stream.eval_stream(source, ids, batch_size, **processes):
                placed: Batch = parallel.shard_rows(batch, mesh)
                yield sums(params, batch_stats, placed.images, placed.labels, placed.mask)
            return
        for chosen, mask in batches.padded(ids, batch_size):
            yield gathered(params, batch_stats, data, *parallel.shard_rows(parallel.own_rows((chosen, mask)), mesh))

    def validate(params: dict, batch_stats: dict) -> tuple[float, float]:
        correct = loss = 0.0
        for batch_correct, batch_loss in list(results(params, batch_stats)):
            correct += float(batch_correct)
            loss += float(batch_loss)
        return correct / len(ids), loss / len(ids)

    return validate
