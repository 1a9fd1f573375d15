"""Partners from a batch whose rows lie on several devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robustjax.augment import partners
from robustjax.core import InputError, example_keys, parallel
from robustjax.core.parallel import AXIS

N = 16


@functools.cache
def mapped(place, devices, mode):
    """Returns (nothing, key, rows) -> (nothing, (partners of two arrays, key data of the first example)), for all rows."""

    def step(state, key, sharded):
        ids, keys = sharded
        pairing = partners.over_devices(key, AXIS)(place)
        rows, halves = pairing.partners(ids, ids[:, None] / 2)
        found = rows, halves, jax.random.key_data(pairing.first(keys))
        return state, jax.tree.map(lambda own: jax.lax.all_gather(own, AXIS, tiled=True), found)

    return parallel.data_parallel(step, parallel.data_mesh(jax.devices()[:devices]), mode=mode, donate=False)


def paired(seed, *, place=0, count=N, devices=8, mode="shard_map"):
    mesh = parallel.data_mesh(jax.devices()[:devices])
    ids = jnp.arange(count, dtype=jnp.float32)
    key = parallel.replicate(jax.random.key(seed), mesh)
    rows = parallel.shard_rows((ids, example_keys(jax.random.key(1), jnp.arange(count))), mesh)
    found = mapped(place, devices, mode)(parallel.replicate(jnp.zeros(()), mesh), key, rows)[1]
    return tuple(map(np.asarray, found))


@pytest.mark.parametrize(("devices", "mode"), [(1, "shard_map"), (2, "shard_map"), (8, "pmap")])
def test_partners_do_not_depend_on_the_number_of_devices(devices, mode):
    # Kills: partners out of a device's own rows; rows gathered in another order; a permutation by each device.
    for found, expected in zip(paired(3, devices=devices, mode=mode), paired(3), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_everybody_is_mixed_once_and_nobody_with_itself():
    # Kills: a permutation with fixed points; several circles, or two examples of one partner; arrays paired differently.
    for seed in range(20):
        rows, halves, first = paired(seed)
        assert sorted(rows.tolist()) == list(range(N)) and not (rows == np.arange(N)).any()
        np.testing.assert_array_equal(halves[:, 0], rows / 2)
        at, seen = 0, []
        for _ in range(N):
            at = int(rows[at])
            seen.append(at)
        assert sorted(seen) == list(range(N))
        np.testing.assert_array_equal(first[0], jax.random.key_data(example_keys(jax.random.key(1), jnp.arange(1)))[0])


def test_every_other_example_is_as_probable():
    # Kills: neighbours in the batch; an order that ignores the key or the place.
    draws = np.stack([paired(seed)[0] for seed in range(400)])
    for row in (0, N - 1):
        counts = np.bincount(draws[:, row].astype(int), minlength=N)
        assert counts[row] == 0 and scipy.stats.chisquare(np.delete(counts, row)).pvalue > 1e-4
    assert (paired(0, place=1)[0] != draws[0]).any()


def test_a_batch_of_one_is_refused():
    # Kills: an example mixed with itself; the check on each device's rows, which one example a device would not pass.
    with pytest.raises(InputError, match="take partners from the batch, and here that is one example; take larger batches"):
        paired(0, count=1, devices=1)
    with pytest.raises(InputError, match="take partners from the batch, and here that is one example; take larger batches"):
        partners.NEXT.partners(jnp.ones((1, 2, 2, 1)))
    assert sorted(paired(0, count=8)[0].tolist()) == list(range(8))
