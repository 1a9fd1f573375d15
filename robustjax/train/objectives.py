"""Objectives: what a training step minimises, from the model's `apply` and a batch of augmented examples.

An objective is `(apply, params, batch_stats, images, targets, keys, axis_name) -> (loss, (batch_stats, logits))`; the loss
is the mean over the batch of this device, and the step averages gradients over devices.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from robustjax.core.types import Keys


def classification(loss_fn: Callable) -> Callable:
    """Returns the plain objective: one forward pass in training mode, which updates the batch-norm statistics.

    Args:
        loss_fn: (logits (b, k), targets (b, k)) -> (b,), e.g. losses.cross_entropy.
    """

    def objective(
        apply: Callable,
        params: dict,
        batch_stats: dict,
        images: Float[Array, "b h w c"],
        targets: Float[Array, "b k"],
        keys: Keys,
        axis_name: str,
    ):
        output, batch_stats = apply(params, batch_stats, images, True, axis_name=axis_name, key=keys)
        return jnp.mean(loss_fn(output.logits, targets)), (batch_stats, output.logits)

    return objective
