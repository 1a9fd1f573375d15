"""MobileNetV3, and networks with an embedding, are the published ones: counts, initial laws, dropout; see test_torch_training.py too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import models
from robustjax.models import mobilenet_v3
from tests.models.test_torch_import import GOLDEN


def test_parameter_counts_of_torchvision_are_those_of_the_reference():
    # The counts themselves are in test_architectures.py. Kills: a table that has drifted from what torchvision counts.
    assert GOLDEN["parameters"] == {"mobilenet_v3_large": [4_214_842, 5_483_032], "mobilenet_v3_small": [1_528_106, 2_542_856]}


def test_channels_are_rounded_as_in_torchvision():
    # Kills: plain rounding; a width of 0; more than a tenth lost.
    pairs = {(16, 0.1): 8, (24, 0.5): 16, (40, 0.5): 24, (40, 0.75): 32, (72, 0.25): 24, (88, 0.25): 24, (184, 1): 184, (120, 0.35): 40}
    assert {pair: mobilenet_v3.scaled(*pair) for pair in pairs} == pairs


def test_initial_law():
    # Kills: torch's default for He normal; fan_out of one channel in depthwise convolutions; biases drawn.
    model = models.make("mobilenet_v3_large", num_classes=10, image_shape=(32, 32, 3), width=0.5, blocks=(1, 1, 1))
    params = models.split(model)[1]
    np.testing.assert_allclose(jnp.std(params["blocks.2.conv1.kernel"]), (2 / 40) ** 0.5, rtol=0.1)
    np.testing.assert_allclose(jnp.std(params["blocks.2.conv2.kernel"]), (2 / (25 * 40)) ** 0.5, rtol=0.1)
    np.testing.assert_allclose(jnp.std(params["hidden.kernel"]), 0.01, rtol=0.02)
    np.testing.assert_allclose(jnp.std(params["head.kernel"]), 0.01, rtol=0.05)
    assert not any(value.any() for name, value in params.items() if name.endswith("bias"))


def test_dropout_goes_by_the_example():
    # Kills: no dropout, or in evaluation mode; a draw that depends on the batch; dropout before the hidden layer; another rate.
    model = models.make("mobilenet_v3_small", num_classes=3, image_shape=(8, 8, 1), width=0.2, blocks=(1, 1))
    apply, params, batch_stats = models.split(model)
    params["hidden.bias"] = jnp.ones_like(params["hidden.bias"])  # no feature is 0 by itself
    keys = jax.random.split(jax.random.key(0), 4)
    run = jax.jit(
        lambda keys, train: apply(params, batch_stats, jnp.full((4, 8, 8, 1), 0.5), train, key=keys)[0].features, static_argnums=1
    )
    dropped = run(keys, True)
    zero = dropped == 0
    assert abs(jnp.mean(zero) - 0.2) < 0.06 and not jnp.array_equal(zero[0], zero[1])
    np.testing.assert_array_equal(run(jax.random.clone(keys)[::-1], True)[::-1] == 0, zero)
    assert jnp.all(run(jax.random.clone(keys), False) != 0)


@pytest.mark.parametrize("name", ["resnet18", "small_cnn"])
def test_embedding_is_a_layer_more_between_pooling_and_head(name):
    # Kills: features before the embedding; other blocks; other weights below it; an activation behind it.
    shared = {"num_classes": 3, "image_shape": (8, 8, 3), "width": 4}
    plain, wide = models.make(name, **shared), models.make(name, **shared, embedding=6)
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(5, 8, 8, 3)), jnp.float32)
    (before, maps), (features, same) = (jax.jit(lambda x, model=model: model.embed(x))(x) for model in (plain, wide))
    expected = before @ wide.embedding.kernel[...] + wide.embedding.bias[...][None]
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
    assert features.shape == (5, 6) and features.dtype == jnp.float32 and jnp.any(features < 0)
    jax.tree.map(np.testing.assert_array_equal, maps, same)
    assert wide.head.kernel.shape == (6, 3)
