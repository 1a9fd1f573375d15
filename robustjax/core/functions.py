"""How kernels see the functions that users pass: as pytrees that jit takes as arguments, compiled once, and never out of date."""

import functools
import numbers
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class _Uncached:
    """Calls an object whose weights may change between calls. It equals itself only, so no compiled program is found again."""

    def __init__(self, call: Callable):
        self.call = call

    def __call__(self, *args):
        return self.call(*args)


def as_partial(function: Callable) -> jax.tree_util.Partial:
    """Returns `function` as a pytree, which jit accepts as an argument.

    A Partial stays as it is: its arrays are arguments, so new weights reuse a compiled program. A function of arrays is compiled
    once and keeps the weights that it closed over then. Any other callable (a Flax module or a method of one, which training
    changes in place, a function that reads one, an object that cannot be hashed) is compiled anew in each call of a kernel:
    slower, but never out of date.

    >>> kinds = [lambda x: x, jax.tree_util.Partial(jnp.add, jnp.ones(())), {}.get]
    >>> [jax.tree.structure(as_partial(fn)) == jax.tree.structure(as_partial(fn)) for fn in kinds]
    [True, True, False]
    """
    if isinstance(function, jax.tree_util.Partial):
        return function
    return jax.tree_util.Partial(function if _is_fixed(function, set()) else _Uncached(function))


@jax.jit
def _call(function: jax.tree_util.Partial, *arguments: Any) -> Any:
    return function(*arguments)


def output_of(function: jax.tree_util.Partial, *arguments: Any) -> Any:
    """Returns shapes and dtypes of what `function` returns for these arguments. Computes nothing, and traces once for each shape."""
    return jax.eval_shape(_call, function, *arguments)


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
