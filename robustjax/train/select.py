"""Validation during training, by which the best checkpoint is selected."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int

from robustjax import losses, models
from robustjax.core import parallel
from robustjax.core.types import Batch
from robustjax.data import batches, stream


def make_validator(
    apply: Callable, source, ids: np.ndarray, *, batch_size: int, mesh: Mesh, resident: tuple[Array, Array] | None
) -> Callable:
    """Returns validate(params, batch_stats) -> (accuracy, mean loss) over the examples `ids`, each counted once.

    Args:
        apply: the model.
        source: data set that `ids` point into.
        ids: the validation split.
        batch_size: at most; made a multiple of the device count.
        mesh: batches are split over its devices.
        resident: (images, labels) of the whole source on the devices, or None to stream from `source`.
    """
    devices = mesh.size
    batch_size = max(1, min(batch_size, len(ids)) // devices) * devices

    @jax.jit
    def sums(params, batch_stats, images: Array, labels: Int[Array, " b"], mask: Bool[Array, " b"]) -> tuple[Array, Array]:
        logits = models.logits_fn(apply, params, batch_stats)(images.astype(jnp.float32) / 255)
        correct = jnp.where(mask, jnp.argmax(logits, -1) == labels, False)
        return jnp.sum(correct), jnp.sum(jnp.where(mask, losses.cross_entropy(logits, labels), 0.0))

    @jax.jit
    def gathered(params, batch_stats, data, ids: Int[Array, " b"], mask: Bool[Array, " b"]) -> tuple[Array, Array]:
        return sums(params, batch_stats, data[0][ids], data[1][ids], mask)

    def results(params, batch_stats) -> Iterator[tuple[Array, Array]]:
        if resident is None:
            processes = {"process": jax.process_index(), "processes": jax.process_count()}
            for batch in stream.eval_stream(source, ids, batch_size, **processes):
                placed: Batch = parallel.shard_rows(batch, mesh)
                yield sums(params, batch_stats, placed.images, placed.labels, placed.mask)
            return
        for chosen, mask in batches.padded(ids, batch_size):
            yield gathered(params, batch_stats, resident, *parallel.shard_rows(parallel.own_rows((chosen, mask)), mesh))

    def validate(params: dict, batch_stats: dict) -> tuple[float, float]:
        correct = loss = 0.0
        for batch_correct, batch_loss in list(results(params, batch_stats)):
            correct += float(batch_correct)
            loss += float(batch_loss)
        return correct / len(ids), loss / len(ids)

    return validate
