"""Rematerialisation: less is kept for the backward pass, and nothing else changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from robustjax import models
from robustjax.core import example_keys
from robustjax.models import layers
from robustjax.models.wide_resnet import PreActivationBlock

# XLA on CPU takes the barriers out that keep a second computation apart from the first, and then merges the two: memory does not
# fall there. Without that pass a CPU shows what an accelerator does.
KEEP_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}


SHAPE = (8, 8, 1)


class Tiny(layers.Classifier):
    """Blocks with batch norm, dropout and shortcut, and little around them."""

    def __init__(self, *, blocks, dropout, remat):
        spec = layers.make_spec("tiny", num_classes=3, image_shape=SHAPE, mean=0.5, std=0.5, dtype="float32", remat=remat)
        super().__init__(spec, smallest=1)
        rngs, sizes = nnx.Rngs(params=jax.random.key(0)), [1] + [4] * blocks
        self.blocks = nnx.List(
            [PreActivationBlock(sizes[i], sizes[i + 1], 1, spec=spec, rngs=rngs, dropout=dropout, index=i) for i in range(blocks)]
        )
        self.head = layers.linear(4, 3, rngs=rngs)

    def trunk(self, x, keys):
        for block in self.blocks:
            x = self.run(block, x, keys)
        return layers.global_pool(x), ()


def images(size):
    return jnp.asarray(np.random.default_rng(0).uniform(size=(size, *SHAPE)), jnp.float32)


def test_gradients_statistics_and_dropout_stay_and_memory_falls():
    # Kills: blocks that are not recomputed; statistics lost, or moved twice, by the second computation; other dropout masks in it.
    compiled, results = [], []
    for remat in (False, True):
        apply, params, batch_stats = models.split(Tiny(blocks=2, dropout=0.3, remat=remat))

        def loss(params, images, keys, apply=apply, batch_stats=batch_stats):
            output, after = apply(params, batch_stats, images, True, key=keys)
            return -jnp.mean(jax.nn.log_softmax(output.logits)[:, 0]), after

        arguments = params, images(64), example_keys(jax.random.key(0), jnp.arange(64))
        lowered = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)).lower(*arguments)
        compiled.append(lowered.compile(compiler_options=KEEP_BARRIERS))
        results.append(compiled[-1](*arguments))
        (_, after), _ = results[-1]
        assert all(not np.allclose(after[name], value) for name, value in batch_stats.items())
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), *results)
    plain, remat = (program.memory_analysis().temp_size_in_bytes for program in compiled)
    assert remat < 0.8 * plain


def test_second_derivatives_and_their_gradient_stay():
    # Kills: a block that cannot be differentiated twice forwards and once backwards, as Taylor terms are.
    results = []
    for remat in (False, True):
        apply, params, batch_stats = models.split(Tiny(blocks=1, dropout=0.0, remat=remat))
        direction = {name: jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape) for name, value in params.items()}

        def second(params, apply=apply, batch_stats=batch_stats, direction=direction):
            def along(t):
                moved = {name: value + t * direction[name] for name, value in params.items()}
                return apply(moved, batch_stats, images(3), True)[0].logits

            return jnp.sum(jnp.square(jax.jvp(lambda t: jax.jvp(along, (t,), (1.0,))[1], (0.0,), (1.0,))[1]))

        results.append(jax.jit(jax.value_and_grad(second))(params))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), *results)
    assert results[0][0] > 1e-2


def test_eight_devices_are_one():
    # Kills: a mapped axis that the recomputed block does not know; statistics of one device.
    apply, params, batch_stats = models.split(Tiny(blocks=1, dropout=0.0, remat=True))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x = images(16) + jnp.arange(16.0).reshape(-1, 1, 1, 1) / 16  # devices differ in mean

    def step(params, x, axis_name):
        def loss(params):
            output, after = apply(params, batch_stats, x, True, axis_name=axis_name)
            return -jnp.mean(jax.nn.log_softmax(output.logits)[:, 0]), after

        gradient, after = jax.grad(loss, has_aux=True)(params)
        return (jax.lax.pmean(gradient, axis_name) if axis_name else gradient), after

    mapped = jax.shard_map(lambda p, x: step(p, x, "data"), mesh=mesh, in_specs=(P(), P("data")), out_specs=P(), check_vma=False)
    many, one = jax.jit(mapped)(params, x), jax.jit(lambda p, x: step(p, x, None))(params, x)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), many, one)


def test_depthwise_convolution_is_bilinear():
    # Kills: groups that are ignored or mixed; a rule for its higher derivatives that is missing or wrong on this platform.
    spec = layers.make_spec("x", num_classes=2, image_shape=(6, 6, 5), mean=0.0, std=1.0, dtype="float32")
    conv = layers.conv(5, 5, 3, stride=2, groups=5, spec=spec, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(conv)
    assert conv.kernel.shape == (3, 3, 1, 5)
    kernel, x = conv.kernel[...], jnp.asarray(np.random.default_rng(0).uniform(size=(2, 6, 6, 5)), jnp.float32)
    dims = ("NHWC", "HWIO", "NHWC")
    single = jax.lax.conv_general_dilated(x[..., 3:4], kernel[..., 3:4], (2, 2), ((1, 1), (1, 1)), dimension_numbers=dims)
    np.testing.assert_allclose(conv(x)[..., 3:4], single, rtol=1e-5, atol=1e-6)

    def twice(kernel_step):
        def along(t):
            moved = jax.tree.map(lambda k: k + t * kernel_step, state)
            return nnx.merge(graphdef, moved)(x * (1 + t))

        return jax.jvp(lambda t: jax.jvp(along, (t,), (1.0,))[1], (0.0,), (1.0,))[1]

    step = jnp.cos(jnp.arange(45.0)).reshape(3, 3, 1, 5)
    second, pull = jax.vjp(twice, step)
    np.testing.assert_allclose(second, 2 * nnx.merge(graphdef, jax.tree.map(lambda k: step, state))(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jnp.vdot(pull(second)[0], step), jnp.vdot(second, second), rtol=1e-5)
