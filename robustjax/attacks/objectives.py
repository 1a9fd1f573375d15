"""What an attack climbs: one number per example, larger where the network is more wrong; and how it sees the network."""

import functools
import numbers
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from robustjax.core.check import check_output
from robustjax.core.numerics import lift, nll_from_logits
from robustjax.core.types import LogitsFn


def cross_entropy(logits: Float[Array, "b k"], labels: Int[Array, " b"]) -> Float[Array, " b"]:
    """Computes -log softmax(logits)_y per example, in nats: the objective of Madry et al., ICLR 2018, Eq. 2.1."""
    return nll_from_logits(logits, labels)


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
def forward(logits_fn: jax.tree_util.Partial, images: Float[Array, "b h w c"]) -> Any:
    """Calls the network in one compiled program; `count_classes` checks what it returns."""
    return logits_fn(images)


def count_classes(logits_fn: jax.tree_util.Partial, images: Float[Array, "b h w c"]) -> int:
    """Returns the number of classes k after checking that `logits_fn` maps images to float logits (b, k). Computes nothing.

    Raises:
        InputError: for another shape or dtype, or fewer than two classes.
    """
    # Through jit, whose cache spares a second trace.
    return check_output(jax.eval_shape(forward, logits_fn, images), images.shape[0])
