"""Randomness belongs to the example, not to its place in a batch."""

import jax
from jaxtyping import Array, Int, Key

from robustjax.core.check import InputError


def example_keys(key: Key[Array, ""], ids: Int[Array, " b"]) -> Key[Array, " b"]:
    """Derives one key for each example from a key and the example's id.

    Draws made with these keys do not depend on batch size, order or device count. That is exact for threefry keys only:
    with 'rbg' keys a vmapped draw depends on how the batch is split, so other kinds are refused.

    Args:
        key: one typed key (`jax.random.key`).
        ids: any integers that name the examples, usually their positions in the data set.

    Raises:
        InputError: if the key is not a threefry key.

    >>> example_keys(jax.random.key(0), jax.numpy.arange(3)).shape
    (3,)
    """
    implementation = str(jax.random.key_impl(key))
    if "threefry" not in implementation:
        raise InputError(
            f"example_keys needs threefry keys, got {implementation}: its draws depend on the batch. Use jax.random.key(seed, impl='threefry2x32')."
        )
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, ids)
