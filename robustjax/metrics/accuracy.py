"""Per-example values behind accuracy, error and likelihood. Whoever holds the whole data set sums, counts and divides."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from robustjax.core.check import InputError, check_labels, check_logits
from robustjax.core.numerics import lift, nll_from_logits
from robustjax.core.types import ArrayLike


def correct(logits: ArrayLike, labels: ArrayLike) -> Bool[Array, " b"]:
    """Says of each example whether the largest logit is the label's.

    A row with a NaN is not correct: argmax would point at the NaN, and a broken network would score on one class.
    Equal largest logits count for the smallest class index.

    Args:
        logits: (b, k), any float dtype.
        labels: (b,) integers in [0, k).

    Returns:
        bool (b,).

    Raises:
        InputError: for wrong shapes or labels out of range.

    >>> correct(jnp.array([[0.0, 1.0], [0.0, 1.0]]), jnp.array([1, 0]))
    Array([ True, False], dtype=bool)
    """
    logits, labels = _checked(logits, labels)
    return (jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels) & ~jnp.any(jnp.isnan(logits), axis=-1)


def nll(logits: ArrayLike, labels: ArrayLike) -> Float[Array, " b"]:
    """Computes the negative log-likelihood of the label, -log softmax(logits)_y, in nats.

    Args:
        logits: (b, k), any float dtype; computed in at least float32.
        labels: (b,) integers in [0, k).

    Returns:
        (b,), at least 0. NaN where the logits hold one, and where a label is out of range and only a traced value.

    Raises:
        InputError: for wrong shapes or labels out of range.

    >>> nll(jnp.zeros((1, 4)), jnp.array([2])).round(4)  # log 4
    Array([1.3863], dtype=float32)
    """
    logits, labels = _checked(logits, labels)
    return nll_from_logits(logits, labels)


def confidence(logits: ArrayLike) -> Float[Array, " b"]:
    """Computes the largest softmax probability, what calibration compares with accuracy.

    Args:
        logits: (b, k), any float dtype; computed in at least float32.

    Returns:
        (b,) in [1/k, 1].

    Raises:
        InputError: if the logits are not (b, k).

    >>> confidence(jnp.zeros((1, 4)))
    Array([0.25], dtype=float32)
    """
    return jnp.max(jax.nn.softmax(lift(check_logits(logits))), axis=-1)


def _checked(logits: ArrayLike, labels: ArrayLike) -> tuple[Array, Array]:
    logits = lift(check_logits(logits))
    labels = check_labels(labels, num_classes=logits.shape[1])
    if labels.shape[0] != logits.shape[0]:
        raise InputError(f"one label an example: got {logits.shape[0]} rows of logits and {labels.shape[0]} labels.")
    return logits, labels
