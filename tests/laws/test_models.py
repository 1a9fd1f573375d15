"""Laws that every network of the registry obeys; a new one is tested by being listed in ENTRIES."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import models
from robustjax.core import InputError

ENTRIES = {
    "allconv": ((12, 12, 3), {"width": 4}, 3),
    "densenet_40_12": ((8, 8, 3), {"depth": 10, "growth": 3}, 3),
    "densenet_bc_100_12": ((8, 8, 3), {"depth": 10, "growth": 3}, 3),
    "mnist_cnn": ((16, 16, 1), {}, 2),
    "mobilenet_v2": ((8, 8, 3), {"width": 0.2, "blocks": (1, 1)}, 2),
    "mobilenet_v3_large": ((8, 8, 3), {"width": 0.2, "blocks": (1, 1)}, 2),
    "mobilenet_v3_small": ((8, 8, 3), {"width": 0.2, "blocks": (1, 1)}, 2),
    "preact_resnet18": ((8, 8, 3), {"width": 4, "blocks": (1, 1)}, 2),
    "resnet18": ((8, 8, 3), {"width": 4, "blocks": (1, 1)}, 2),
    "resnet50": ((8, 8, 3), {"width": 2, "blocks": (1, 1)}, 2),
    "small_cnn": ((8, 8, 3), {"width": 4}, 3),
    "vgg16_bn": ((8, 8, 3), {"width": 4, "groups": (1, 2)}, 2),
    "wide_resnet": ((8, 8, 3), {"depth": 10, "width": 1, "dropout": 0.3}, 3),
}
NAMES = pytest.mark.parametrize("name", ENTRIES)
# Of blocks that others have too, and long to compile: the slower laws of theirs are of the slow half.
LONG = {"allconv", "densenet_40_12", "densenet_bc_100_12", "mobilenet_v3_large", "resnet50"}
SHORTLY = pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in ENTRIES])


def make(name, **options):
    shape, small, _ = ENTRIES[name]
    return models.make(name, **{"num_classes": 5, "image_shape": shape, "mean": 0.4, "std": 0.25, **small, **options})


@functools.cache
def split(name, **options):
    """(apply, params, batch_stats) with last layers that are not zero, as mnist_cnn's is at first, or nearly so, as mobilenet_v3's are."""
    apply, params, batch_stats = models.split(make(name, **options))
    for key in {"head.kernel", "hidden.kernel"} & params.keys():
        params[key] = jax.random.normal(jax.random.key(7), params[key].shape)
    return apply, params, batch_stats


# One compiled program for each network and setting serves all laws.
evaluate = jax.jit(lambda apply, *arrays: apply(*arrays, False, blocks=True)[0], static_argnums=0)


def images_for(name, size=6):
    return jnp.asarray(np.random.default_rng(0).uniform(size=(size, *ENTRIES[name][0])), jnp.float32)


def test_every_network_is_listed():
    # Kills: a new network that no law sees.
    assert set(ENTRIES) == set(models.TABLE)


@NAMES
def test_output_is_features_head_logits_and_pooled_blocks(name):
    # Kills: features taken before a layer that the head sees; block maps not pooled, or one short; blocks returned unasked;
    # a module that computes another function than its pure form; statistics moved by evaluating.
    model = make(name)
    apply, params, batch_stats = models.split(model)
    images = images_for(name)
    output, after = jax.jit(lambda: apply(params, batch_stats, images, False))()
    assert output.blocks == ()
    for key, value in batch_stats.items():
        np.testing.assert_array_equal(after[key], value)
    features, logits = jax.jit(lambda x: (model.features(x), model(x)))(images)
    np.testing.assert_allclose(logits, output.logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.head(features), output.logits, rtol=1e-5, atol=1e-6)

    apply, params, batch_stats = split(name)
    output = evaluate(apply, params, batch_stats, images)
    assert output.features.shape == (6, params["head.kernel"].shape[0]) and output.logits.shape == (6, 5)
    assert output.features.dtype == output.logits.dtype == jnp.float32
    assert len(output.blocks) == ENTRIES[name][2] and all(block.ndim == 2 and len(block) == 6 for block in output.blocks)
    expected = output.features @ params["head.kernel"] + params["head.bias"].reshape(1, -1)
    np.testing.assert_allclose(output.logits, expected, rtol=1e-4, atol=1e-5)


@SHORTLY
def test_evaluation_treats_every_image_by_itself(name):
    # Kills: batch statistics in evaluation mode; a fixed batch size; padding rows that change others; jit unlike eager.
    apply, params, batch_stats = split(name)
    images = images_for(name)

    def logits(x):
        return evaluate(apply, params, batch_stats, x).logits

    whole = logits(images)
    order = np.array([3, 0, 5, 1, 4, 2])
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(logits(images[order]), whole[order], **close)
    np.testing.assert_allclose(logits(images[4:5]), whole[4:5], **close)
    np.testing.assert_allclose(logits(images.at[2:].set(1.0))[:2], whole[:2], **close)
    np.testing.assert_allclose(apply(params, batch_stats, images, False)[0].logits, whole, **close)
    # NumPy's float64 and bfloat16 do not change what is computed.
    assert jax.eval_shape(logits, images.astype(jnp.bfloat16)).dtype == jnp.float32
    np.testing.assert_allclose(logits(np.asarray(images, np.float64)), whole, **close)


@NAMES
def test_normalisation_is_inside(name):
    # Kills: no normalisation; mean and std swapped or ignored; a network that normalises twice; constants among the parameters.
    apply, params, batch_stats = split(name)
    images, identity = images_for(name), split(name, mean=0.0, std=1.0)[0]
    logits = evaluate(apply, params, batch_stats, images).logits
    normalised = (images - 0.4) / 0.25
    np.testing.assert_allclose(evaluate(identity, params, batch_stats, normalised).logits, logits, rtol=1e-4, atol=1e-4)
    twice = evaluate(apply, params, batch_stats, normalised).logits
    assert jnp.max(jnp.abs(twice - logits)) > 0.1 * min(1, jnp.max(jnp.abs(logits)))
    assert not any("mean" in key or "std" in key for key in params)


@NAMES
def test_seed_decides_the_parameters(name):
    # Kills: an ignored seed; parameters that depend on the process's kind of key, on the dtype or on x64.
    params = models.split(make(name))[1]
    with jax.default_prng_impl("rbg"):
        again = models.split(make(name, dtype="bfloat16"))[1]
    with jax.enable_x64(True):
        double = models.split(make(name))[1]
    other = models.split(make(name, seed=1))[1]
    assert list(params) == list(again) == list(double)
    for key, value in params.items():
        assert value.dtype == again[key].dtype == double[key].dtype == jnp.float32
        np.testing.assert_array_equal(value, again[key])
        np.testing.assert_array_equal(value, double[key])
        # Biases, scales and mnist_cnn's head begin at a constant.
        assert value.size == 1 or np.ptp(value) == 0 or not np.array_equal(value, other[key])
    assert not np.array_equal(*(p[next(k for k in p if k.endswith("kernel"))] for p in (params, other)))


@NAMES
def test_training_gives_finite_gradients_for_all(name):
    # Kills: a layer that is made and not used; NaN where a channel is constant (an all-black image has variance 0).
    apply, params, batch_stats = split(name)
    images = images_for(name).at[0].set(0)

    def loss(params, images):
        output, _ = apply(params, batch_stats, images, True, key=jax.random.key(0))
        return -jnp.mean(jax.nn.log_softmax(output.logits)[:, 0])

    gradient = jax.jit(jax.grad(loss))
    for key, value in gradient(params, images).items():
        assert jnp.all(jnp.isfinite(value)) and jnp.any(value != 0), key
    black = gradient(params, jnp.zeros_like(images))
    assert all(jnp.all(jnp.isfinite(value)) for value in black.values())


@SHORTLY
def test_rematerialisation_keeps_less_and_changes_no_parameter(name):
    # Kills: a network whose blocks do not pass through Classifier.run; other names or values. (Values: tests/models/test_remat.py.)
    kept, params = [], []
    for remat in (False, True):
        apply, weights, batch_stats = split(name, remat=remat)

        def backward(weights, apply=apply, batch_stats=batch_stats):
            return jax.vjp(lambda w: apply(w, batch_stats, images_for(name), True, key=jax.random.key(0))[0].logits, weights)[1]

        residuals = jax.tree.leaves(jax.eval_shape(backward, weights))
        kept.append(sum(leaf.size for leaf in residuals) - sum(value.size for value in weights.values()))
        params.append(weights)
    assert kept[1] < 0.8 * kept[0]
    assert list(params[0]) == list(params[1])
    jax.tree.map(np.testing.assert_array_equal, *params)


@SHORTLY
def test_bfloat16_is_close_and_keeps_float32_outside(name):
    # Kills: an ignored dtype; parameters, statistics or logits in bfloat16; batch norm whose mixed dtypes raise in training mode.
    apply, params, batch_stats = split(name)
    low = split(name, dtype="bfloat16")[0]
    key = jax.random.key(0)
    run = jax.jit(lambda f, p, s, x: f(p, s, x, True, key=key), static_argnums=0)
    (exact, stats), (rough, low_stats) = run(apply, params, batch_stats, images_for(name)), run(low, params, batch_stats, images_for(name))
    assert rough.logits.dtype == rough.features.dtype == jnp.float32
    assert all(value.dtype == jnp.float32 for value in low_stats.values())
    error = jnp.linalg.norm(rough.logits - exact.logits) / jnp.linalg.norm(exact.logits)
    assert 1e-4 < error < 0.1
    for name, value in stats.items():
        np.testing.assert_allclose(low_stats[name], value, rtol=0.05, atol=0.05)


@NAMES
def test_images_that_do_not_fit_are_named(name):
    # Kills: other sizes or channels computed in silence or refused by a convolution's shape error; integers taken as they are.
    model, (h, w, c) = make(name), ENTRIES[name][0]
    for wrong in ((2, h + 1, w, c), (2, h, w, 4 - c), (h, w, c)):
        with pytest.raises(InputError, match=rf"\({wrong[0]}, .*do not fit this {name}.*\(b, {h}, {w}, {c}\)"):
            model(jnp.zeros(wrong))
    with pytest.raises(InputError, match=r"images are uint8.*divide uint8 images by 255"):
        model(jnp.zeros((2, h, w, c), jnp.uint8))
    with pytest.raises(InputError, match=r"images of \(2, 2, 1\).*too small for"):
        models.make(name, num_classes=5, image_shape=(2, 2, 1))
