"""What an attack climbs: one number per example, larger where the network is more wrong; and how it sees the network."""

import functools
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from robustjax.core.check import InputError
from robustjax.core.numerics import lift
from robustjax.core.types import LogitsFn


def cross_entropy(logits: Float[Array, "b k"], labels: Int[Array, " b"]) -> Float[Array, " b"]:
    """Computes -log softmax(logits)_y per example, in nats: the objective of Madry et al., ICLR 2018, Eq. 2.1."""
    return -jnp.take_along_axis(jax.nn.log_softmax(lift(logits)), labels[:, None], axis=-1)[:, 0]


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


class _Uncached:
    """Calls an object whose weights may change between calls. It equals itself only, so no compiled program is found again."""

    def __init__(self, call: Callable):
        self.call = call

    def __call__(self, *args):
        return self.call(*args)


def as_partial(logits_fn: LogitsFn) -> jax.tree_util.Partial:
    """Returns `logits_fn` as a pytree, which jit accepts as an argument.

    A Partial stays as it is: its arrays are arguments, so new weights reuse a compiled attack. A function is compiled once
    and keeps the weights that it closed over then. Any other callable (a Flax module or a method of one, which training changes
    in place, or an object that cannot be hashed) is compiled anew in each call of an attack: slower, but never out of date.

    >>> kinds = [lambda x: x, jax.tree_util.Partial(jnp.add, jnp.ones(())), {}.get]
    >>> [jax.tree.structure(as_partial(fn)) == jax.tree.structure(as_partial(fn)) for fn in kinds]
    [True, True, False]
    """
    if isinstance(logits_fn, jax.tree_util.Partial):
        return logits_fn
    pure = isinstance(logits_fn, types.FunctionType | functools.partial | jax.stages.Wrapped)
    return jax.tree_util.Partial(logits_fn if pure else _Uncached(logits_fn))


@jax.jit
def forward(logits_fn: jax.tree_util.Partial, images: Float[Array, "b h w c"]) -> Any:
    """Calls the network in one compiled program; what it returns is checked by `count_classes`."""
    return logits_fn(images)


def count_classes(logits_fn: jax.tree_util.Partial, images: Float[Array, "b h w c"]) -> int:
    """Returns the number of classes k after checking that `logits_fn` maps images to float logits (b, k). Computes nothing.

    Raises:
        InputError: for another shape or dtype, or fewer than two classes.
    """
    out = jax.eval_shape(forward, logits_fn, images)  # through jit, whose cache spares a second trace
    shape, dtype = getattr(out, "shape", None), getattr(out, "dtype", None)
    if shape is None:
        raise InputError(f"logits_fn must return one array of logits (b, k), got {type(out).__name__}; return its logits only.")
    if len(shape) != 2 or shape[0] != images.shape[0] or shape[1] < 2 or not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f"logits_fn must return float logits (b, k) with k > 1, got {dtype} {shape} for {images.shape[0]} images.")
    return shape[1]
