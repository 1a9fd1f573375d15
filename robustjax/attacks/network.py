"""How attacks see a network: as a pytree that jit takes as an argument, called with images and keys."""

import functools
import numbers
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robustjax.core.check import check_output
from robustjax.core.convolutions import widened
from robustjax.core.types import Keys, LogitsFn


class _Uncached:
    """Calls an object whose weights may change between calls. It equals itself only, so no compiled program is found again."""

    def __init__(self, call: Callable):
        self.call = call

    def __call__(self, *args):
        return self.call(*args)


def as_partial(logits_fn: LogitsFn) -> jax.tree_util.Partial:
    """Returns `logits_fn` as a pytree, which jit accepts as an argument.

    A Partial stays as it is: its arrays are arguments, so new weights reuse a compiled attack. A function of arrays is compiled
    once and keeps the weights that it closed over then. Any other callable (a Flax module or a method of one, which training
    changes in place, a function that reads one, an object that cannot be hashed) is compiled anew in each call of an attack:
    slower, but never out of date.

    >>> kinds = [lambda x: x, jax.tree_util.Partial(jnp.add, jnp.ones(())), {}.get]
    >>> [jax.tree.structure(as_partial(fn)) == jax.tree.structure(as_partial(fn)) for fn in kinds]
    [True, True, False]
    """
    if isinstance(logits_fn, jax.tree_util.Partial):
        return logits_fn
    return jax.tree_util.Partial(logits_fn if _is_fixed(logits_fn, set()) else _Uncached(logits_fn))


_FIXED = (
    *(jax.Array, np.ndarray, numbers.Number, str, type(None), type, types.ModuleType),
    *(jax.stages.Wrapped, jax.custom_jvp, jax.custom_vjp, jnp.ufunc),
)


def _is_fixed(value: Any, seen: set[int]) -> bool:
    """Returns whether nothing that `value` reads can be another thing in the next call, as far as can be seen.

    Arrays count as fixed, as they do to jax.jit. Of a function, what it closes over and the globals that it names are looked at,
    except functions of other files.
    """
    if id(value) in seen or isinstance(value, _FIXED):
        return True
    seen.add(id(value))  # functions may close over themselves
    if isinstance(value, tuple):
        parts = value
    elif isinstance(value, functools.partial):
        parts = (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, types.FunctionType):
        named = [value.__globals__[name] for name in value.__code__.co_names if name in value.__globals__]
        own = [part for part in named if getattr(part, "__globals__", value.__globals__) is value.__globals__]
        parts = (*(cell.cell_contents for cell in value.__closure__ or ()), *own)
    else:
        return False
    return all(_is_fixed(part, seen) for part in parts)


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
