"""Stability training on features: Zheng et al., "Improving the Robustness of Deep Neural Networks via Stability Training", CVPR 2016."""

from jaxtyping import Array, Float

from robustjax.core import numerics
from robustjax.core.check import InputError
from robustjax.core.types import ArrayLike


def stability(features: ArrayLike, noisy_features: ArrayLike) -> Float[Array, " n"]:
    """Returns ||q(x) - q(x + noise)|| for each example: the distance itself, not its square.

    The baseline of "Discriminative loss with Gaussian noise injection", section 7.1, as printed there, with a weight of 1.
    Each noisy image is drawn to its own clean one, where the discriminative loss draws it to its class. Gradients flow through both
    views: hold neither of them constant.

    Args:
        features: of the clean images, (n, d).
        noisy_features: of the same images with noise, (n, d), from a forward pass of their own.

    Returns:
        (n,), at least 0. Where both views have the same features the gradient is 0.

    Raises:
        InputError: for features of another rank, or of different shapes.

    >>> import jax.numpy as jnp
    >>> stability(jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2))).tolist()
    [5.0]
    """
    features, noisy_features = numerics.lift(features), numerics.lift(noisy_features)
    if features.ndim != 2 or features.shape != noisy_features.shape:
        raise InputError(f"both views must have features of one shape (n, d), got {features.shape} and {noisy_features.shape}.")
    return numerics.safe_norm(features - noisy_features, axis=1)
