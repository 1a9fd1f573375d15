"""rng: an example's draws are its own; each test names the mutants it kills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.core import example_keys, rng
from robustjax.core.check import InputError

SAMPLERS = {
    "normal": lambda key: jax.random.normal(key, (5,)),
    "uniform": lambda key: jax.random.uniform(key, (5,)),
    "permutation": lambda key: jax.random.permutation(key, 6),
}


def draws(sampler, ids, seed=0):
    return jax.vmap(SAMPLERS[sampler])(example_keys(jax.random.key(seed), jnp.asarray(ids)))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_draws_belong_to_the_example(sampler):
    # Kills: split(key, b), whose keys depend on the place; a key folded with the position in place of the id.
    ids = np.array([3, 0, 17, 5, 250, 8, 9])
    whole = draws(sampler, ids)
    np.testing.assert_array_equal(np.concatenate([draws(sampler, ids[:3]), draws(sampler, ids[3:])]), whole)
    order = np.array([6, 1, 0, 5, 2, 4, 3])
    np.testing.assert_array_equal(draws(sampler, ids[order]), whole[order])
    np.testing.assert_array_equal(jax.jit(lambda i: draws(sampler, i))(ids), whole)


def test_ids_and_seeds_give_different_draws():
    # Kills: an id or a key that is ignored.
    values = np.concatenate([draws("normal", np.arange(100)), draws("normal", np.arange(100), seed=1)])
    assert len(np.unique(values)) == values.size


@pytest.mark.parametrize("kind", ["rbg", "unsafe_rbg"])
def test_other_generators_are_refused(kind):
    # Kills: a check of the key's shape only; vmapped rbg draws depend on the split of the batch.
    with pytest.raises(InputError, match=f"threefry keys, got .*{kind}.*threefry2x32"):
        example_keys(jax.random.key(0, impl=kind), jnp.arange(2))


@pytest.mark.parametrize(
    ("key", "ids", "message"),
    [
        (lambda: jax.random.PRNGKey(0), [0], r"one typed key, got uint32 of shape \(2,\); make it with jax.random.key"),
        (lambda: jax.random.split(jax.random.key(0), 2), [0], r"one typed key, got key.* of shape \(2,\)"),
        (lambda: 0, [0], "one typed key, got int"),
        (lambda: jax.random.key(0), np.ones(2), r"ids must be integers of shape \(b,\), .* got float32 of shape \(2,\)"),
        (lambda: jax.random.key(0), np.ones((2, 1), int), r"ids must be integers .* of shape \(2, 1\)"),
        (lambda: jax.random.key(0), np.array(3), r"ids must be integers .* of shape \(\)"),
    ],
)
def test_bad_input_gets_one_line(key, ids, message):
    # Kills: each check left out, for a traceback of jax; float ids, which would be cut to integers and collide.
    with pytest.raises(InputError, match=message) as error:
        example_keys(key(), ids)
    assert "\n" not in str(error.value)


def test_a_list_of_ids_will_do():
    # Kills: lists taken for trees of scalars.
    found = [jax.random.key_data(example_keys(jax.random.key(0), ids)) for ids in ([4, 2], np.array([4, 2]))]
    np.testing.assert_array_equal(*found)


def test_moving_keys_is_not_using_them():
    # Kills: slicing the keys themselves, which jax's key-reuse check (on in these tests) counts as a use.
    keys = example_keys(jax.random.key(0), jnp.arange(4))
    half = rng.on_data(lambda a: a[2:], keys)
    assert rng.is_key(half) and not rng.is_key(jnp.zeros(2)) and not rng.is_key(3)
    np.testing.assert_array_equal(jax.vmap(SAMPLERS["normal"])(half), draws("normal", [2, 3]))
    np.testing.assert_array_equal(jax.vmap(SAMPLERS["normal"])(keys), draws("normal", np.arange(4)))
    np.testing.assert_array_equal(rng.on_data(lambda a, b: a + b, jnp.ones(2), jnp.ones(2)), 2)
