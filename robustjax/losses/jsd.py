"""AugMix's consistency of three views.

Hendrycks et al., "AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty", ICLR 2020.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from robustjax.core import check, numerics
from robustjax.core.check import InputError
from robustjax.core.types import ArrayLike

_LOW = 1e-7  # of the mixture, as in the released code


def jsd_consistency(clean: ArrayLike, aug1: ArrayLike, aug2: ArrayLike) -> Float[Array, " b"]:
    """Returns (KL(p1 || M) + KL(p2 || M) + KL(p3 || M)) / 3 for each example, p the softmax of the logits and M their mean, in nats.

    The paper's section 3, "JS(p_orig; p_augmix1; p_augmix2)", without the factor of the loss, which is 12. As in the released code M
    is clamped to [1e-7, 1] before its logarithm: where the clamp is active the value is a little less than the divergence, and M has
    no gradient. Gradients flow through all views otherwise: hold none of them constant. The released code passes the views through
    the network in one batch, with common batch statistics; its cross-entropy is of the clean view alone.

    Args:
        clean: logits of the clean view, (b, k). The three views count alike.
        aug1, aug2: logits of the augmented views, (b, k).

    Returns:
        (b,), at most ln 3, in the common dtype of the logits but at least float32. Views that agree give 0 to rounding, 1e-7 in
        float32, of either sign.

    Raises:
        InputError: for logits of another rank, or of different shapes.

    >>> [round(float(loss), 4) for loss in jsd_consistency(*(jnp.array([[0.0, x], [0.0, 0.0]]) for x in (-99.0, 0.0, 99.0)))]
    [0.4621, 0.0]
    """
    views = [check.check_logits(view, name=name) for name, view in (("clean", clean), ("aug1", aug1), ("aug2", aug2))]
    if len({view.shape for view in views}) > 1:
        raise InputError(f"the three views must have logits of one shape (b, k), got {', '.join(str(view.shape) for view in views)}.")
    log_p = jnp.stack([jax.nn.log_softmax(numerics.lift(view)) for view in views])
    p = jnp.exp(log_p)
    mixture = p.mean(0)
    # By selection, since clip would halve the gradient where M is 1 exactly.
    inside = (mixture >= _LOW) & (mixture <= 1)
    mixture = jnp.where(inside, mixture, jnp.clip(jax.lax.stop_gradient(mixture), _LOW, 1))
    some = p > 0  # logits of -inf: 0 * -inf would be NaN
    return jnp.sum(jnp.where(some, p * (jnp.where(some, log_p, 0) - jnp.log(mixture)[None]), 0), axis=2).mean(0)
