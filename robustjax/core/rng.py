"""Randomness belongs to the example, not to its place in a batch."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Integer, Key

from robustjax.core.check import InputError
from robustjax.core.types import ArrayLike, KeysLike


def example_keys(key: KeysLike, ids: ArrayLike | Sequence[int]) -> Key[Array, " b"]:
    """Derives one key for each example from a key and the example's id.

    Draws made with these keys do not depend on batch size, order or device count. That is exact for threefry keys only:
    with 'rbg' keys a vmapped draw depends on how the batch is split, so other kinds are refused.

    Args:
        key: one typed key (`jax.random.key`).
        ids: (b,) any integers that name the examples, usually their positions in the data set; a list will do.

    Returns:
        Typed keys (b,).

    Raises:
        InputError: if the key is not one typed threefry key, or the ids are not integers (b,).

    >>> example_keys(jax.random.key(0), jax.numpy.arange(3)).shape
    (3,)
    """
    if not is_key(key) or jnp.ndim(key):
        what = f"{key.dtype} of shape {key.shape}" if hasattr(key, "dtype") else type(key).__name__
        raise InputError(f"example_keys needs one typed key, got {what}; make it with jax.random.key(seed).")
    implementation = str(jax.random.key_impl(key))
    if "threefry" not in implementation:
        raise InputError(
            f"example_keys needs threefry keys, got {implementation}: its draws depend on the batch. Use jax.random.key(seed, impl='threefry2x32')."
        )
    ids = jnp.asarray(ids)
    if ids.ndim != 1 or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise InputError(f"ids must be integers of shape (b,), one for each example, got {ids.dtype} of shape {ids.shape}.")
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, ids)


def is_key(leaf: Any) -> bool:
    """Returns whether `leaf` is an array of typed keys."""
    return jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key)


def on_data(function: Callable[..., Any], *leaves: Any) -> Any:
    """Applies `function` to arrays; typed keys go in as their integers (..., 2) and come out as keys.

    For moving keys about: jax counts selecting, slicing and gathering keys as using them up.

    >>> on_data(lambda a: a[:2], jax.random.split(jax.random.key(0), 3)).shape
    (2,)
    """
    if not is_key(leaves[0]):
        return function(*leaves)
    data = function(*map(jax.random.key_data, leaves))
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaves[0]))


def stream(keys: Key[Array, " b"], index: Integer[Array, ""] | int) -> Key[Array, " b"]:
    """Returns the keys number `index` of independent streams, one for each example: one for each thing that is drawn."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, index)
