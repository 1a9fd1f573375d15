"""TRADES: Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy", ICML 2019."""

from jaxtyping import Array, Float

from robustjax.core.types import ArrayLike
from robustjax.losses.classify import kl_divergence


def trades_regularizer(clean_logits: ArrayLike, adversarial_logits: ArrayLike) -> Float[Array, " b"]:
    """Returns KL(softmax(f(x)) || softmax(f(x'))) for each example, in nats: the second term of TRADES, Eq. 5, without its 1 / lambda.

    Gradients flow through both arguments, as in the released code: hold neither of them constant. The two views are two forward
    passes in training mode (each with its own batch statistics); x' comes from `attacks.pgd(..., objective='kl', start=...)`.

    Args:
        clean_logits: f(x), (b, k).
        adversarial_logits: f(x'), (b, k).

    Returns:
        (b,), accurate in float32 also where the two hardly differ.

    Raises:
        InputError: for logits of another rank, or of different shapes.
    """
    return kl_divergence(clean_logits, adversarial_logits)
