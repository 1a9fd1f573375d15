"""What the released code of "Randomized Adversarial Training via Taylor Expansion" computes where Eq. 8 has Taylor terms.

Kept apart from `taylor`, so that the two can be compared: no random weights enter these terms, and they are no derivatives of the
logits along anything. In the released code's own words they are first and second order.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from robustjax.core import check, numerics
from robustjax.core.check import InputError, as_number, is_concrete
from robustjax.core.types import ArrayLike, Scalar


def head_gradient(features: ArrayLike, logits: ArrayLike, labels: ArrayLike, *, axis_name: str | None = None) -> Float[Array, " k"]:
    """Returns the gradient of the mean cross-entropy with respect to the head's kernel, summed over the features: one number a class.

    (1 / n) sum_i (softmax(z_i)_c - [c = y_i]) sum_d h_id: in closed form what the released code takes by a backward pass.

    Args:
        features: what the head reads, (b, d).
        logits: (b, k).
        labels: (b,).
        axis_name: mapped axis over whose devices the mean is taken.

    Returns:
        (k,), a constant for gradients.

    Raises:
        InputError: for labels that are no class numbers.
    """
    features, logits = numerics.lift(features), numerics.lift(logits)
    labels = check.check_labels(labels, num_classes=logits.shape[1])
    errors = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    gradient = jax.lax.stop_gradient(jnp.mean(errors * jnp.sum(features, axis=1, keepdims=True), axis=0))
    return gradient if axis_name is None else jax.lax.pmean(gradient, axis_name)


def confused_labels(change: Float[Array, " k"], labels: Int[Array, " b"], *, confusion: Scalar) -> Float[Array, "b k"]:
    """Returns targets with 1 - confusion on the label and the rest on the other classes, in proportion to `change` less its minimum.

    Args:
        change: one number a class.
        labels: (b,).
        confusion: "cc" of the released code: 0.8 for 10 classes, 0.98 for 100, so that the label itself gets 0.2 or 0.02.

    Returns:
        (b, k), rows that sum to 1; where no other class has anything, all of `confusion` is spread evenly (there the released code divides
        by zero).
    """
    own = jax.nn.one_hot(labels, len(change), dtype=bool)
    others = jnp.where(own, 0, (change - jnp.min(change))[None])
    total = jnp.sum(others, axis=1, keepdims=True)
    even = jnp.where(own, 0, 1 / (len(change) - 1))
    share = jnp.where(total > 0, others / jnp.where(total > 0, total, 1), even)
    return jnp.where(own, 1 - confusion, confusion * share).astype(change.dtype)


def released_heuristic(
    clean_logits: ArrayLike,
    adversarial_logits: ArrayLike,
    clean_gradient: Float[Array, " k"],
    adversarial_gradient: Float[Array, " k"],
    labels: ArrayLike,
    *,
    confusion: Scalar = 0.8,
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Computes the two terms of the released code, per example: half the sum of KL(made-up labels || view) over both views.

    With a = |clean gradient| and b = |adversarial gradient|, the labels of the first term come from a - b for the adversarial view and from
    b - a for the clean one; those of the second from b^2 - a^2 for both ("Hadamard instead of Kronecker product").

    Args:
        clean_logits: (b, k).
        adversarial_logits: (b, k).
        clean_gradient: `head_gradient` of the clean view; constants for gradients, as is all that is made of them.
        adversarial_gradient: of the adversarial view.
        labels: (b,).
        confusion: see `confused_labels`.

    Returns:
        (first, second), (b,) each.

    Raises:
        InputError: for a confusion outside [0, 1], or labels that do not fit.
    """
    if is_concrete(confusion) and (as_number(confusion) is None or not 0 <= as_number(confusion) <= 1):
        raise InputError(f"confusion is the share taken from the label and must lie in [0, 1], got {confusion!r}.")
    clean_logits, adversarial_logits = numerics.lift(clean_logits), numerics.lift(adversarial_logits)
    labels = check.check_labels(labels, num_classes=clean_logits.shape[1])
    a, b = jnp.abs(clean_gradient), jnp.abs(adversarial_gradient)

    def divergence(change: Array, logits: Array) -> Array:
        targets = jax.lax.stop_gradient(confused_labels(change, labels, confusion=confusion))
        own = targets * jnp.log(jnp.where(targets > 0, targets, 1))
        return jnp.sum(own - targets * jax.nn.log_softmax(logits), axis=1)

    first = divergence(a - b, adversarial_logits) + divergence(b - a, clean_logits)
    squares = b**2 - a**2
    second = divergence(squares, adversarial_logits) + divergence(squares, clean_logits)
    return first / 2, second / 2
