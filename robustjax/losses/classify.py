"""Losses on logits, one value for each example."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from robustjax.core import check, numerics
from robustjax.core.check import InputError
from robustjax.core.types import ArrayLike


def cross_entropy(logits: ArrayLike, targets: ArrayLike) -> Float[Array, " b"]:
    """Returns -sum_k y_k log softmax(logits)_k for each example, in nats.

    Args:
        logits: (b, k), of any size: saturated ones stay finite.
        targets: (b, k) distributions, or (b,) whole numbers in [0, k).

    Returns:
        (b,), in the dtype of `logits` but at least float32. Where a label is out of range and only a traced value, NaN:
        training stops there, where a zero loss would go unseen.

    Raises:
        InputError: for logits of another rank, targets that do not fit them or are no distributions, labels out of range.

    >>> [round(float(loss), 4) for loss in cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3]))]
    [1.3863, 1.3863]
    """
    logits = numerics.lift(check.check_logits(logits))
    b, k = logits.shape
    if jnp.ndim(targets) == 1:
        return numerics.nll_from_logits(logits, _same_batch(check.check_labels(targets, num_classes=k), b))
    targets = _same_batch(check.check_targets(targets, num_classes=k), b).astype(logits.dtype)
    some = targets != 0  # elsewhere log softmax may be -inf, and 0 * -inf would be NaN
    return -jnp.sum(targets * jnp.where(some, jax.nn.log_softmax(logits), 0), axis=1)


def kl_divergence(p_logits: ArrayLike, q_logits: ArrayLike) -> Float[Array, " b"]:
    """Returns KL(p || q) = sum_k p_k (log p_k - log q_k) for each example, p and q the softmax of either logits, in nats.

    Gradients flow through both arguments. Accurate in float32 where the logits nearly agree and where they are saturated.

    Args:
        p_logits: (b, k).
        q_logits: (b, k).

    Returns:
        (b,), in the common dtype of the logits but at least float32.

    Raises:
        InputError: for logits of another rank, or of different shapes.

    >>> bool(kl_divergence(jnp.array([[0.0, 9.0]]), jnp.zeros((1, 2)))[0] < kl_divergence(jnp.zeros((1, 2)), jnp.array([[0.0, 9.0]]))[0])
    True
    """
    p_logits, q_logits = check.check_logits(p_logits, name="p_logits"), check.check_logits(q_logits, name="q_logits")
    if p_logits.shape != q_logits.shape:
        raise InputError(f"p_logits and q_logits must have one shape (b, k), got {p_logits.shape} and {q_logits.shape}.")
    return numerics.kl_p_from_logits(p_logits, q_logits)


def _same_batch(targets: Array, b: int) -> Array:
    if targets.shape[0] != b:
        raise InputError(f"there must be one target for each row of logits, got {targets.shape[0]} for {b}.")
    return targets
