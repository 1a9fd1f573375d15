"""First and second derivatives along a line through the inputs of a function, in one pass: Taylor arithmetic of order two.

Nested `jax.jvp` gives the same numbers, but carries the first derivative twice, once as the inner and once as the outer
tangent; going backwards through it costs a quarter more convolutions than are needed. Here every operation is differentiated by
itself, from (value, first, second) of its inputs to those of its outputs, so nothing exists twice, but for what lies inside of a
loop or branch, which counts as one operation. (`jax.experimental.jet` is the same idea, but has no rules for relu, maxima, clipping and
loops.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core as jex
from jaxtyping import Array


class _Jet(NamedTuple):
    """A value with its derivatives along the line; None is zero everywhere."""

    value: Any
    first: Any = None
    second: Any = None


def second_order(function: Callable, primals: Any, direction: Any) -> tuple[Any, Any, Any]:
    """Computes f(w), d/dt f(w + t u) and d^2/dt^2 f(w + t u) at t = 0.

    The second derivative is u^T H u, without the 1/2 of Taylor's formula. Composes with jit, grad, vmap and shard_map, and is meant to be
    called inside jit: eagerly it runs operation by operation. Blocks that `jax.checkpoint` wraps stay wrapped. A function with a
    `jax.custom_vjp` has no forward derivative, here as in jax.jvp.

    Args:
        function: of one tree of floating-point arrays; returns a tree of arrays.
        primals: w.
        direction: u, a tree like w.

    Returns:
        Three trees like the function's result. Derivatives of what is no float are zeros of its dtype.
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(primals)
    inputs = [_Jet(w, u) for w, u in zip(jax.tree.leaves(primals), jax.tree.leaves(direction), strict=True)]
    outputs = _evaluate(closed.jaxpr, closed.consts, inputs)
    columns = zip(*((j.value, *(jnp.zeros_like(j.value) if d is None else d for d in j[1:])) for j in outputs), strict=True)
    return tuple(jax.tree.unflatten(jax.tree.structure(shape), column) for column in columns)


def _evaluate(jaxpr: Any, consts: list[Any], inputs: list[_Jet]) -> list[_Jet]:
    known = dict(zip(jaxpr.constvars, map(_Jet, consts), strict=True)) | dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom) -> _Jet:
        return _Jet(atom.val) if isinstance(atom, jex.Literal) else known[atom]

    for equation in jaxpr.eqns:
        known |= zip(equation.outvars, _apply(equation, [read(atom) for atom in equation.invars]), strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _apply(equation: Any, inputs: list[_Jet]) -> list[_Jet]:
    """Takes one operation."""
    still = all(jet.first is None and jet.second is None for jet in inputs)
    if still or not any(jnp.issubdtype(var.aval.dtype, jnp.inexact) for var in equation.outvars):  # constants, comparisons
        return [_Jet(value) for value in _bind(equation, *(jet.value for jet in inputs))]
    if equation.primitive.name in ("jit", "pjit"):
        inner = equation.params["jaxpr"]
        return _evaluate(inner.jaxpr, inner.consts, inputs)
    if equation.primitive.name in ("checkpoint", "remat2"):
        inner = equation.params["jaxpr"]
        again = jax.checkpoint(
            lambda jets: _evaluate(inner, [], jets), prevent_cse=equation.params["prevent_cse"], policy=equation.params["policy"]
        )
        return again(inputs)
    return _differentiate(equation, inputs)


def _bind(equation: Any, *values: Any) -> list[Array]:
    bound = equation.primitive.get_bind_params(equation.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)  # jax has had both forms
    result = equation.primitive.bind(*functions, *values, **params)
    return result if equation.primitive.multiple_results else [result]


def _differentiate(equation: Any, inputs: list[_Jet]) -> list[_Jet]:
    """Takes one operation by nested jvp of it alone; inputs that do not move are constants, not zeros to multiply by."""
    moving = [i for i, jet in enumerate(inputs) if jet.first is not None or jet.second is not None]
    curved = [i for i in moving if inputs[i].second is not None]
    firsts = {i: jnp.zeros_like(inputs[i].value) if inputs[i].first is None else inputs[i].first for i in moving}

    def value(moved: list[Array]) -> list[Array]:
        at = dict(zip(moving, moved, strict=True))
        return _bind(equation, *(at.get(i, jet.value) for i, jet in enumerate(inputs)))

    def first(moved: list[Array], bent: list[Array]) -> tuple[list[Array], list]:  # derivatives of integers are of no JAX type
        along = firsts | dict(zip(curved, bent, strict=True))
        return jax.jvp(value, (moved,), ([along[i] for i in moving],))

    at = ([inputs[i].value for i in moving], [firsts[i] for i in curved])
    (values, once), (_, twice) = jax.jvp(first, at, ([firsts[i] for i in moving], [inputs[i].second for i in curved]))
    return [_Jet(v, a, b) if jnp.issubdtype(v.dtype, jnp.inexact) else _Jet(v) for v, a, b in zip(values, once, twice, strict=True)]
