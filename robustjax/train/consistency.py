"""AugMix's objective: cross-entropy of the image, and agreement with two augmented views of it.

Hendrycks et al., "AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty", ICLR 2020, Eq. 1.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from robustjax import losses
from robustjax.core import rng
from robustjax.core.check import InputError, as_number
from robustjax.train.objectives import Given, Loss, Network, Objective

Setting = Any
"""A value from a configuration, of whatever kind: checked here, and refused in one line."""


def augmix_jsd(*, weight: Setting = 12.0, perturbed: str = "all") -> Objective:
    """CE(f(x), y) + weight JSD(f(x); f(x_1); f(x_2)): x_1 and x_2 go through the stage 'augmix', x does not.

    One forward pass over the three views together, with one normalisation, as in the released code. With SPIDER or ESP after 'augmix'
    the cross-entropy takes the softened target of x. The training accuracy that is logged is that on x.

    Args:
        weight: of the consistency, lambda in the paper; 12.
        perturbed: which views the stages after 'augmix' act on, see augment.compose_views.
    """
    number = as_number(weight)
    if number is None or not 0 <= number < math.inf:
        raise InputError(f"config.objective.weight must be a number of at least 0, got {weight!r}.")

    def loss(network: Network, params: dict, batch_stats: dict, given: Given, prepared: None) -> Loss:
        images = jnp.concatenate([given.images, *(images for images, _ in given.others)])
        keys = jnp.concatenate([given.keys, *(rng.stream(given.keys, 1 + view) for view in range(len(given.others)))])
        output, batch_stats = network.train(params, batch_stats, images, keys)
        clean, *augmented = jnp.split(output.logits, 1 + len(given.others))
        terms = {
            "cross_entropy": jnp.mean(losses.cross_entropy(clean, given.targets)),
            "consistency": jnp.mean(losses.jsd_consistency(clean, *augmented)),
        }
        return Loss(terms["cross_entropy"] + weight * terms["consistency"], batch_stats, clean, terms)

    return Objective(lambda *given: None, loss, loss, ("cross_entropy", "consistency"), views=3, mixed=perturbed)


TABLE: dict[str, Callable[..., Objective]] = {"augmix_jsd": augmix_jsd}
