"""The pure-function form of a network: what it accepts, what it changes, and under which transformations it holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from robustjax import models
from robustjax.core import InputError, LogitsFn, example_keys
from robustjax.models import functional, layers

SHAPE = (8, 8, 2)


def images(size=8, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=(size, *SHAPE)), jnp.float32)


@pytest.fixture(scope="module")
def small():
    return models.split(models.make("small_cnn", num_classes=4, image_shape=SHAPE, width=3))


@pytest.fixture(scope="module")
def dropped():
    return models.split(models.make("mnist_cnn", num_classes=4, image_shape=(16, 16, 1)))


def test_names_and_not_order_decide(small):
    # Kills: rebuilding by the order of leaves. jax sorts dicts, checkpoints may do otherwise, and index 10 sorts before 2 as a string.
    apply, params, batch_stats = models.split(models.make("small_cnn", num_classes=4, image_shape=SHAPE, width=2, convs=11))

    def logits(params, batch_stats):
        return apply(params, batch_stats, images(2), False)[0].logits

    expected = jax.jit(logits)(params, batch_stats)
    mixed = dict(sorted(params.items())), dict(reversed(batch_stats.items()))
    np.testing.assert_allclose(logits(*mixed), expected, rtol=1e-5)
    # Kills: a name that is another array's. Kernels 9 and 10 of a block have one shape, so only the name tells them apart.
    swapped = {
        **params,
        "blocks.0.convs.9.kernel": params["blocks.0.convs.10.kernel"],
        "blocks.0.convs.10.kernel": params["blocks.0.convs.9.kernel"],
    }
    assert not np.allclose(logits(swapped, batch_stats), expected)
    assert isinstance(apply, functional.Apply)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("head.bias"), r"params do not fit this network: 1 of 11 wrong, first 'head.bias', which is missing"),
        (lambda p: p.update(extra=jnp.zeros(1)), r"1 of 11 wrong, first 'extra', which is not one of its names"),
        (lambda p: p.update({"head.bias": jnp.zeros(5)}), r"first 'head.bias', which has shape \(5,\) where \(4,\) is expected"),
        (lambda p: p.update({"head.extra": p.pop("head.kernel"), "a": 1.0}), r"3 of 11 wrong, first 'a'"),
    ],
)
def test_wrong_arrays_are_refused(small, change, message):
    # Kills: the silent acceptance of a wrong tree by nnx.merge; a count or a first name that is not so; checks of params only.
    apply, params, batch_stats = small
    params = dict(params)
    change(params)
    with pytest.raises(InputError, match=message):
        apply(params, batch_stats, images(2), False)


def test_wrong_statistics_and_trees_are_refused(small):
    # Kills: unchecked statistics; an nnx.State or nested dict taken for a flat one.
    apply, params, batch_stats = small
    with pytest.raises(InputError, match="batch_stats do not fit this network: 6 of 6 wrong"):
        apply(params, {}, images(2), False)
    with pytest.raises(InputError, match=r"params must be a flat dict.*got list"):
        apply(list(params.values()), batch_stats, images(2), False)


def test_statistics_are_the_batch_s_own():
    # Kills: unbiased or fast variance, momentum 0.1 for 0.9, moments over the wrong axes, statistics moved in evaluation,
    # normalising by the running statistics in training.
    norm = layers.BatchNorm(3, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(1000, 0.5, (4, 5, 6, 3)).astype(np.float32)
    y = np.asarray(norm(jnp.asarray(x)))
    mean, var = x.astype(float).mean((0, 1, 2)), x.astype(float).var((0, 1, 2))
    np.testing.assert_allclose(norm.mean[...], 0.1 * mean, rtol=1e-6)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * var, rtol=1e-4)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), atol=2e-3)
    norm.eval()
    kept = norm.mean[...], norm.var[...]
    np.testing.assert_allclose(
        norm(jnp.asarray(x)), (x - kept[0].reshape(1, 1, 1, 3)) / np.sqrt(kept[1].reshape(1, 1, 1, 3) + 1e-5), rtol=1e-5
    )
    np.testing.assert_array_equal(norm.mean[...], kept[0])


def test_training_returns_new_statistics_and_changes_nothing_else(small):
    # Kills: statistics updated in place, in evaluation, or not at all; the first layer's computed on images that are not normalised.
    apply, params, batch_stats = small
    before = jax.tree.map(np.asarray, batch_stats)
    _, after = apply(params, batch_stats, images(), True)
    assert after.keys() == batch_stats.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(batch_stats[name], value)
        assert not np.allclose(after[name], value), name
    x = jax.lax.conv_general_dilated(
        (images() - 0.5) / 0.5, params["blocks.0.convs.0.kernel"], (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(after["blocks.0.norms.0.mean"], 0.1 * x.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after["blocks.0.norms.0.var"], 0.9 + 0.1 * x.var((0, 1, 2)), rtol=1e-4)


def test_batch_norm_over_eight_devices_is_one_batch_norm(small):
    # Kills: an axis_name that is not passed on; local statistics; variances averaged without the spread of the local means.
    apply, params, batch_stats = small
    x = images(16) + jnp.arange(16.0).reshape(-1, 1, 1, 1) / 16  # devices differ in mean
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def step(params, batch_stats, x):
        output, batch_stats = apply(params, batch_stats, x, True, axis_name="data")
        return output.logits, batch_stats

    mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=(P("data"), P()), check_vma=False)
    many, one = jax.jit(mapped)(params, batch_stats, x), apply(params, batch_stats, x, True)
    np.testing.assert_allclose(many[0], one[0].logits, atol=1e-6, rtol=1e-5)
    for name, value in one[1].items():
        np.testing.assert_allclose(many[1][name], value, atol=1e-6)


def test_second_derivatives_and_maps_over_parameters(small):
    # Kills: a layer without a rule for jvp of jvp or vmap; shapes checked on mapped leaves; derivatives that stop at the statistics.
    with jax.enable_x64(True):
        apply, params, batch_stats = small
        params, batch_stats = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (params, batch_stats))
        x = jnp.asarray(images(3), jnp.float64)
        rng = np.random.default_rng(0)
        direction = {name: jnp.asarray(rng.normal(size=value.shape)) for name, value in params.items()}

        def along(t):
            moved = {name: value + t * direction[name] for name, value in params.items()}
            return apply(moved, batch_stats, x, True)[0].logits

        @jax.jit
        def first(t):
            return jax.jvp(along, (t,), (1.0,))[1]

        _, second = jax.jit(lambda t: jax.jvp(first, (t,), (1.0,)))(0.0)
        h = 1e-5
        steps = jax.jit(jax.vmap(along))(jnp.array([-h, 0.0, h]))
        np.testing.assert_allclose(first(0.0), (steps[2] - steps[0]) / (2 * h), rtol=1e-5, atol=1e-6)
        slopes = (first(h) - first(-h)) / (2 * h)
        np.testing.assert_allclose(second, slopes, rtol=1e-4, atol=1e-5)
        assert np.abs(second).max() > 1e-2


def test_dropout_belongs_to_the_example():
    # Kills: one mask for the batch; masks by row; one mask for all layers; a wrong scale; rows drawn from a single key unlike
    # example_keys of their numbers.
    first, second = layers.Dropout(0.25, index=0), layers.Dropout(0.25, index=1)
    first.train(), second.train()
    x = jnp.ones((6, 10, 10, 5))

    def keys():
        return example_keys(jax.random.key(0), jnp.arange(6))

    whole = first(x, keys())
    np.testing.assert_array_equal(np.unique(whole), [0, np.float32(1 / 0.75)])
    np.testing.assert_allclose(np.mean(whole == 0), 0.25, atol=0.03)
    assert not np.array_equal(whole[0], whole[1]) and not np.array_equal(whole, second(x, keys()))
    order = np.array([4, 0, 3])
    np.testing.assert_array_equal(first(x[:3], example_keys(jax.random.key(0), jnp.asarray(order))), whole[order])
    first.eval()
    np.testing.assert_array_equal(first(x, keys()), x)


def test_dropout_takes_one_key_or_one_per_example(dropped):
    # Kills: a key that is ignored or used up; dropout in evaluation; random state among the parameters; a missing key drawn from 0.
    apply, params, batch_stats = dropped
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(8, 16, 16, 1)), jnp.float32)
    run = jax.jit(lambda key, train: apply(params, batch_stats, x, train, key=key)[0].features, static_argnums=1)
    single, rows = run(jax.random.key(3), True), run(example_keys(jax.random.key(3), jnp.arange(8)), True)
    np.testing.assert_allclose(single, rows, rtol=1e-6)
    assert not np.allclose(single, run(jax.random.key(4), True))
    np.testing.assert_array_equal(run(None, False), run(jax.random.key(3), False))
    assert all(jnp.issubdtype(value.dtype, jnp.floating) for value in params.values())
    with pytest.raises(InputError, match="dropout: training mode needs `key`"):
        run(None, True)
    for wrong in (jax.random.split(jax.random.key(0), 3), jnp.zeros(2, jnp.uint32)):
        with pytest.raises(InputError, match="one for each of the 8 images"):
            run(wrong, True)


def test_new_weights_reuse_what_is_compiled(small):
    # Kills: a fresh function a call, which would compile every attack anew for every checkpoint; weights baked into the program;
    # training mode, or statistics left behind.
    apply, params, batch_stats = small
    traces = []

    @jax.jit
    def attacked(logits_fn, x):
        traces.append(1)
        return logits_fn(x)

    moved = {name: value + 0.1 for name, value in params.items()}
    stats = apply(params, batch_stats, images(), True)[1]
    for weights, statistics in ((params, batch_stats), (moved, batch_stats), (params, stats)):
        fn = models.logits_fn(apply, weights, statistics)
        expected = apply(weights, statistics, images(), False)[0].logits
        np.testing.assert_allclose(attacked(fn, images()), expected, rtol=1e-5, atol=1e-6)
    assert len(traces) == 1
    assert isinstance(fn, LogitsFn) and fn(images()).dtype == jnp.float32


class Plain(nnx.Module):
    """A user's own network: features and head, nothing else."""

    def __init__(self, rngs):
        self.head = nnx.Linear(2, 3, rngs=rngs)

    def features(self, images):
        return jnp.mean(images, axis=(1, 2))


def test_any_module_with_features_and_head_will_do():
    # Kills: dependence on this library's base class; blocks made up where there are none.
    apply, params, batch_stats = models.split(Plain(nnx.Rngs(0)))
    output, _ = apply(params, batch_stats, images(), True)
    np.testing.assert_allclose(output.logits, images().mean((1, 2)) @ params["head.kernel"], rtol=1e-5)
    with pytest.raises(InputError, match="Plain has no blocks"):
        apply(params, batch_stats, images(), False, blocks=True)


def test_frozen_random_state_is_refused():
    # Kills: nnx.Dropout's key closed over, which would drop the same values in every step.
    model = Plain(nnx.Rngs(0))
    model.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match=r"parameters and batch statistics only.*drop"):
        models.split(model)
