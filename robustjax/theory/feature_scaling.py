"""One network, many margins: Proposition 5.3 of "Discriminative loss with Gaussian noise injection".

Features, and with them every class margin and dispersion, can be scaled by any ν > 0 without a change of any prediction. So a loss that
only asks for compact classes, or only for wide margins, can be satisfied for nothing; one that asks for both cannot, since
T_ν(Θ) - Θ = (ν - 1) u has opposite directions for ν > 1 and ν < 1 (Corollary 5.1).
"""

import jax.numpy as jnp
from jaxtyping import Array

from robustjax.core.check import InputError
from robustjax.core.types import Scalar
from robustjax.theory.doors import check_positive


def rescale_features(params: dict[str, Array], nu: Scalar, *, layer: str = "embedding", head: str = "head") -> dict[str, Array]:
    """Applies T_ν: multiplies by ν all parameters of the layer that makes the features, and the bias of the head; nothing else.

    The layer is linear or a convolution, with relu, pooling or nothing else that ν passes through behind it. Batch norm with its scale and
    bias is such a layer too (name it, not the convolution before it, whose factor it would take away). Features and logits are then ν times
    what they were: predictions stay, while confidences, and the cross-entropy, do not.

    Args:
        params: flat dict of names to arrays, "layer.kernel", "layer.bias", ..., "head.kernel", "head.bias", as from models.functional.split.
        nu: ν > 0.
        layer: name of the layer whose output, through nothing but relu and pooling, is what the head reads.
        head: name of the last layer, linear.

    Returns:
        A dict like params.

    Raises:
        InputError: for names that no parameter belongs to and, where known, a nu that is not above 0.

    >>> params = {name: jnp.ones(()) for name in ("conv.kernel", "embedding.kernel", "embedding.bias", "head.kernel", "head.bias")}
    >>> [float(value) for value in rescale_features(params, 2.0).values()]
    [1.0, 2.0, 2.0, 1.0, 2.0]
    """
    check_positive(nu=nu)
    for name in (layer, head):
        if not any(key.startswith(f"{name}.") for key in params):
            groups = sorted({key.rpartition(".")[0] for key in params})
            raise InputError(f"no parameter belongs to {name!r}; there are {', '.join(groups)}.")

    def scaled(key: str, value: Array) -> Array:
        if not key.startswith(f"{layer}.") and key != f"{head}.bias":
            return value
        return jnp.asarray(nu).astype(value.dtype) * value

    return {key: scaled(key, value) for key, value in params.items()}
