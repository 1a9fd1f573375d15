"""How attacks see a network: as a pytree that jit takes as an argument, called with images and keys."""

from typing import Any

import jax
from jaxtyping import Array, Float

from robustjax.core.check import check_output
from robustjax.core.convolutions import widened
from robustjax.core.functions import as_partial
from robustjax.core.types import Keys, LogitsFn


@jax.jit
def forward(network: jax.tree_util.Partial, *inputs: Array) -> Any:
    """Calls the network in one compiled program; `count_classes` checks what it returns."""
    return network(*inputs)


def count_classes(network: jax.tree_util.Partial, images: Float[Array, "b h w c"], *keys: Keys) -> int:
    """Returns the number of classes k after checking that the network maps its inputs to float logits (b, k). Computes nothing.

    Raises:
        InputError: for another shape or dtype, or fewer than two classes.
    """
    # Through jit, whose cache spares a second trace.
    return check_output(jax.eval_shape(forward, network, images, *keys), images.shape[0])


def as_network(logits_fn: LogitsFn, *, randomized: bool) -> jax.tree_util.Partial:
    """Returns (images, keys) -> logits, so that attacks call deterministic and randomized networks alike.

    A deterministic network ignores the keys, whose computation then falls away in compilation. On CPU the first convolution of
    colour images is computed in a faster way where there is one, see core/convolutions.py.

    Args:
        logits_fn: images -> logits; where `randomized`, (images, keys) -> logits.
        randomized: whether it draws, by one key per example.
    """
    network = as_partial(logits_fn)
    return jax.tree_util.Partial(_with_keys if randomized else _without_keys, network)


def _with_keys(network: jax.tree_util.Partial, images: Array, keys: Any) -> Array:
    return widened(network, images, keys)


def _without_keys(network: jax.tree_util.Partial, images: Array, keys: Any) -> Array:
    del keys
    return widened(network, images)
