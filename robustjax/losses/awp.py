"""Adversarial weight perturbation: Wu, Xia and Wang, "Adversarial Weight Perturbation Helps Robust Generalization", NeurIPS 2020."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from robustjax.core import numerics
from robustjax.core.check import InputError, as_number, is_concrete
from robustjax.core.types import Scalar

_GUARD = 1e-20  # the released code's: a weight without gradient stays where it is


def adversarial_weight_perturbation(params: Any, grads: Any, *, gamma: Scalar) -> Any:
    """Moves every weight matrix along the gradient of the loss by `gamma` times its own norm.

    w + gamma ||w|| g / (||g|| + 1e-20), array by array: Eqs. 8 and 10 for one ascent step, as released. Only arrays of two and more
    dimensions move: the kernels of convolutions and linear layers, no bias and no parameter of batch norm.

    How it is used: x' is made on the unmoved weights; the gradient of the loss on x' is taken here for `grads`, then once more at the
    moved weights; the optimiser steps from there (its weight decay sees the moved weights), and what was added is taken off again.

    Args:
        params: any tree of arrays.
        grads: a tree like params, of the loss to be raised; its size does not matter.
        gamma: at least 0; the paper has 5e-3 for TRADES and 1e-2 for adversarial training. May be traced; 0 gives `params` back.

    Returns:
        The moved parameters, a tree like params.

    Raises:
        InputError: for a gamma below 0, or gradients that are no tree like params.

    >>> moved = adversarial_weight_perturbation({"kernel": jnp.ones((1, 4)), "bias": jnp.ones(4)}, {"kernel": jnp.ones((1, 4)), "bias": jnp.ones(4)}, gamma=0.5)
    >>> moved["kernel"].tolist(), moved["bias"].tolist()
    ([[1.5, 1.5, 1.5, 1.5]], [1.0, 1.0, 1.0, 1.0])
    """
    if is_concrete(gamma) and not 0 <= (-1 if as_number(gamma) is None else as_number(gamma)) < math.inf:
        raise InputError(f"gamma is the relative size of the perturbation and must be at least 0, got {gamma!r}.")

    if jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, grads):
        raise InputError("the gradients must be a tree of the parameters' names and shapes.")

    def move(weight, gradient):
        if jnp.ndim(weight) < 2:
            return weight
        scale = jnp.asarray(gamma, weight.dtype) * numerics.safe_norm(weight) / (numerics.safe_norm(gradient) + _GUARD)
        return weight + (scale * gradient).astype(weight.dtype)

    return jax.tree.map(move, params, grads)
