"""Whom Mixup and CutMix mix an example with: another of its batch, which may be spread over devices."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from robustjax.augment.rows import moved
from robustjax.core import rng
from robustjax.core.check import InputError
from robustjax.core.types import Keys


class Pairing(NamedTuple):
    """What a stage that mixes examples needs to know of the whole batch."""

    partners: Callable[..., tuple[Array, ...]]  # arrays, of a row for each example -> the same of each one's partner
    first: Callable[[Keys], Keys]  # keys -> keys that begin with that of the first example of the batch


Partners = Callable[[int], Pairing]
"""The place of a stage in its chain -> its pairing: stages differ in their partners, views of an example do not."""


def _following(*arrays: Array) -> tuple[Array, ...]:
    _check_several(arrays[0].shape[0])
    return tuple(map(_rolled, arrays))


NEXT = Pairing(_following, lambda keys: keys)
"""Pairs each example of a batch that is in one place with the next one, the last with the first."""


def over_devices(key: Key[Array, ""], axis: str) -> Partners:
    """Pairs the examples of a batch whose rows are split over the devices of a mapped axis, as one device would pair them.

    Going from each example to its partner leads through the whole batch and back, in an order that the key draws: nobody is mixed with
    itself, and everybody once into another.

    Args:
        key: equal on all devices; a stage derives its own from it.
        axis: name of the axis, whose devices have equally many rows.
    """

    def pairing(place: int) -> Pairing:
        own = jax.random.fold_in(key, place)

        def partners(*arrays: Array) -> tuple[Array, ...]:
            rows = arrays[0].shape[0]
            chosen = _circle(own, rows * jax.lax.axis_size(axis))
            chosen = jax.lax.dynamic_slice_in_dim(chosen, rows * jax.lax.axis_index(axis), rows)
            return tuple(jax.lax.all_gather(array, axis, tiled=True)[chosen] for array in arrays)

        def first(keys: Keys) -> Keys:
            def of_all(data: Array) -> Array:
                return jnp.broadcast_to(jax.lax.all_gather(data[:1], axis, tiled=True)[:1], data.shape)

            return rng.on_data(of_all, keys)

        return Pairing(partners, first)

    return pairing


def _circle(key: Key[Array, ""], count: int) -> Int[Array, " n"]:
    """Returns the partner of each of `count` examples, all on one circle in random order."""
    _check_several(count)
    order = jnp.argsort(jax.random.bits(key, (count,)))  # ties, one in 2^32, are broken by number
    return jnp.zeros_like(order).at[order].set(jnp.roll(order, -1))


def _check_several(count: int) -> None:
    if count < 2:
        raise InputError("mixup and cutmix take partners from the batch, and here that is one example; take larger batches.")


@jax.jit
def _rolled(rows: Array) -> Array:
    return moved(lambda rows: jnp.roll(rows, -1, axis=0), rows)
