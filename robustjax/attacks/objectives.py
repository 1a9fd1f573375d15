"""What an attack climbs: one number per example, larger where the network is more wrong."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from robustjax.core.numerics import lift, nll_from_logits


def cross_entropy(logits: Float[Array, "b k"], labels: Int[Array, " b"]) -> Float[Array, " b"]:
    """Computes -log softmax(logits)_y per example, in nats: the objective of Madry et al., ICLR 2018, Eq. 2.1."""
    return nll_from_logits(logits, labels)


def margin(logits: Float[Array, "b k"], labels: Int[Array, " b"]) -> Float[Array, " b"]:
    """Computes max_{j != y} z_j - z_y per example: above 0 where the network is wrong.

    The function f_6 of Carlini and Wagner, IEEE S&P 2017, section V.A, with the opposite sign and without its kappa and its
    cut at zero, so the attack goes on once the example is misclassified.
    """
    logits = lift(logits)
    is_label = jnp.arange(logits.shape[-1], dtype=labels.dtype)[None, :] == labels[:, None]
    others = jnp.max(jnp.where(is_label, -jnp.inf, logits), axis=-1)
    return others - jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]


OBJECTIVES: dict[str, Callable] = {"ce": cross_entropy, "cw": margin}
