"""Kernels that move rows of a batch about."""

from collections.abc import Callable

import jax
from jaxtyping import Array


def moved(kernel: Callable[..., Array], images: Array, *rest: Array) -> Array:
    """Returns kernel(images, *rest), which has the shape of `images`; to be called inside jit.

    On a mesh of the kind that jax makes by default, sorting, gathering and reshaping of the rows are refused. There the kernel is
    given to the compiler to distribute, and the result lies where `images` did.
    """
    sharding = jax.typeof(images).sharding
    if not sharding.mesh.empty and sharding.mesh.are_all_axes_explicit:
        kernel = jax.sharding.auto_axes(kernel, out_sharding=sharding)
    return kernel(images, *rest)
