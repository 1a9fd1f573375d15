"""AllConvNet beside what its weights in torch show (test_torch_import.py): dropout by the example, and images of other sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import models
from robustjax.models import layers


def test_dropout_goes_by_the_example():
    # Kills: no dropout, or in evaluation mode; a draw that depends on the batch; the same draw in both places; another rate.
    model = models.make("allconv", num_classes=3, image_shape=(12, 12, 1), width=8)
    assert (model.dropout1.rate, model.dropout2.rate) == (0.5, 0.5) and model.dropout1.index != model.dropout2.index
    apply, params, batch_stats = models.split(model)
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(4, 12, 12, 1)), jnp.float32)
    run = jax.jit(lambda images, keys, train: apply(params, batch_stats, images, train, key=keys)[0].logits, static_argnums=2)
    keys, others = (jax.random.split(jax.random.key(seed), 4) for seed in range(2))
    dropped = run(images, keys, True)
    np.testing.assert_allclose(run(images[::-1], jax.random.clone(keys)[::-1], True)[::-1], dropped, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(run(images, jax.random.clone(others), False), run(images, jax.random.clone(keys), False))


@pytest.mark.parametrize("off", ["dropout1", "dropout2"])
def test_dropout_is_behind_both_poolings(off):
    # Kills: one of the two left out, or put before the convolutions of its own group.
    model = models.make("allconv", num_classes=3, image_shape=(12, 12, 1), width=4)
    getattr(model, off).rate = 0.0
    apply, params, batch_stats = models.split(model)
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(4, 12, 12, 1)), jnp.float32)
    run = jax.jit(lambda key: apply(params, batch_stats, images, True, key=key, blocks=True)[0].blocks)
    changed = [not jnp.allclose(*pair) for pair in zip(run(jax.random.key(0)), run(jax.random.key(1)), strict=True)]
    assert changed == [False, off == "dropout2", True]


def test_features_of_other_sizes_are_means_over_a_quarter_of_the_image():
    # Kills: a window of 8 whatever the size; all of the padded map; a crop of rows only. (From the other end the mean is the same.)
    model = models.make("allconv", num_classes=3, image_shape=(13, 20, 1), width=2)
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 13, 20, 1)), jnp.float32)
    features, maps = jax.jit(model.embed)(x)
    assert [block.shape[1:] for block in maps] == [(6, 10, 2), (3, 5, 4), (5, 7, 4)]
    np.testing.assert_allclose(features, layers.global_pool(maps[2][:, :3, :5]), rtol=1e-6)
