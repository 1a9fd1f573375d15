"""Convolutions of colour images, rewritten on CPU. Each test names the mutants it kills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from jax.tree_util import Partial

from robustjax.core.convolutions import widened

NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")


def data(layout, outputs, inputs=3, dtype=np.float32):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(8, 6, 6, inputs)), rng.normal(size=(3, 3, inputs, outputs))
    if layout is NCHW:
        x, kernel = x.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1)
    return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


def shapes(function, *arguments):
    """Returns the (input channels, output channels) of every NHWC convolution, also of those in what is jitted."""

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "conv_general_dilated":
                yield equation.invars[1].aval.shape[2:]
            for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "jaxpr")):
                if hasattr(inner, "jaxpr"):
                    yield from walk(inner.jaxpr)

    return list(walk(jax.make_jaxpr(function)(*arguments).jaxpr))


@pytest.mark.parametrize("layout", [NHWC, NCHW])
@pytest.mark.parametrize("options", [{}, {"window_strides": (2, 2), "padding": "VALID"}, {"rhs_dilation": (2, 2)}])
def test_values_and_gradients_stay(layout, options):
    # Kills: the wrong axis padded or cut, outputs that are not dropped, another padding or stride; a derivative of the padding.
    x, kernel = data(layout, 5)

    def convolve(kernel, x):
        chosen = {"window_strides": (1, 1), "padding": "SAME"} | options
        return jnp.tanh(jax.lax.conv_general_dilated(x, kernel, dimension_numbers=layout, **chosen))

    network = Partial(convolve, kernel)
    np.testing.assert_allclose(jax.jit(widened)(network, x), network(x), atol=2e-6)
    for argument in (0, 1):
        expected = jax.grad(lambda kernel, x: convolve(kernel, x).sum(), argument)(kernel, x)
        found = jax.grad(lambda kernel, x: widened(Partial(convolve, kernel), x).sum(), argument)(kernel, x)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "expected"),
    [(3, 8, 1, (4, 24)), (3, 32, 1, (4, 32)), (3, 40, 1, (3, 40)), (1, 8, 1, (1, 8)), (4, 8, 1, (4, 8)), (6, 8, 2, (3, 8))],
)
def test_only_slow_ones_are_widened_wherever_they_stand(inputs, outputs, groups, expected):
    # Kills: a rewriting that is never done or stops at what is jitted; convolutions that were fast made larger; groups mixed up.
    x, kernel = data(NHWC, outputs, inputs // groups)
    x = jnp.tile(x, (1, 1, 1, groups))

    @jax.jit
    def network(x):
        return jax.lax.conv_general_dilated(jax.nn.relu(x), kernel, (1, 1), "SAME", dimension_numbers=NHWC, feature_group_count=groups)

    assert shapes(lambda x: widened(network, x), x) == [expected]


def test_trees_dtypes_and_meshes():
    # Kills: float64 cut to float32; outputs or arguments put into another order; a rewriting that forgets over which axes rows vary.
    with jax.enable_x64():
        x, kernel = data(NHWC, 4, dtype=np.float64)

        def network(tree, shift):
            out = jax.lax.conv_general_dilated(tree["x"], kernel, (1, 1), "SAME", dimension_numbers=NHWC)
            return {"b": out + shift, "a": (tree["y"], shift)}

        found = jax.jit(lambda *a: widened(network, *a))({"y": x + 1, "x": x}, x[:1, :1, :1, :1])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, network({"x": x, "y": x + 1}, x[:1, :1, :1, :1]))
        assert found["b"].dtype == jnp.float64
    x, kernel = data(NHWC, 4)
    plain = Partial(lambda kernel, x: jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC), kernel)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    specs = (PartitionSpec(), PartitionSpec("data"))
    sharded = jax.jit(jax.shard_map(lambda f, x: widened(f, x), mesh=mesh, in_specs=specs, out_specs=specs[1]))
    np.testing.assert_allclose(sharded(plain, x), plain(x), atol=2e-6)
