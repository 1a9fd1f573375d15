"""Kernels that move rows of a batch about."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array


def moved(kernel: Callable[..., Array], rows: Array, *rest: Any) -> Array:
    """Returns kernel(rows, *rest), an array of the shape of `rows`; to be called inside jit.

    Where rows lie on a mesh of the kind that jax makes by default, sorting, gathering and reshaping them is refused. There the
    kernel is left to the compiler to distribute, and the result lies where the rows did.

    Args:
        kernel: pure; closed over numbers only, no arrays on the mesh.
        rows: images (b, h, w, c), or keys (b,).
        rest: further arguments, trees of arrays.
    """
    sharding = jax.typeof(rows).sharding
    if not sharding.mesh.empty and sharding.mesh.are_all_axes_explicit:
        kernel = jax.sharding.auto_axes(kernel, out_sharding=sharding)
    return kernel(rows, *rest)
