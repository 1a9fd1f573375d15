"""What chance decides: how draws are made, one key for each example, and how given ones are read."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from robustjax.core.check import InputError
from robustjax.core.rng import stream
from robustjax.core.types import Keys

Draws = dict[str, Array]


def normals(keys: Keys, shape: tuple[int, ...], index: int = 0) -> Float[Array, "b *shape"]:
    """Returns standard normals of `shape` for each key, from its stream number `index`."""
    return _each(jax.random.normal, keys, shape, index)


def uniforms(keys: Keys, shape: tuple[int, ...] = (), index: int = 0) -> Float[Array, "b *shape"]:
    """Returns uniforms in [0, 1) of `shape` for each key, from its stream number `index`."""
    return _each(jax.random.uniform, keys, shape, index)


def _each(sample: Callable, keys: Keys, shape: tuple[int, ...], index: int) -> Array:
    # float32 whatever the images are: the draw belongs to the key, not to the precision of the experiment.
    return jax.vmap(lambda key: sample(key, shape, jnp.float32))(stream(keys, index))


def take(draws: Draws, shapes: Mapping[str, tuple[int, ...]], dtype: Any) -> list[Array]:
    """Returns the named draws in their order; float ones in `dtype`, whole numbers as they are.

    Raises:
        InputError: for other names or shapes.
    """
    if set(draws) != set(shapes) or any(draws[name].shape != tuple(shape) for name, shape in shapes.items()):
        wanted = ", ".join(f"{name!r} {tuple(shape)}" for name, shape in shapes.items())
        got = ", ".join(f"{name!r} {tuple(value.shape)}" for name, value in draws.items())
        raise InputError(f"draws must hold {wanted}; got {got or 'none'}.")
    found = [draws[name] for name in shapes]
    return [value.astype(dtype) if jnp.issubdtype(value.dtype, jnp.floating) else value for value in found]
