"""numerics: right at ordinary values, finite with finite derivatives at the edges; each test names the mutants it kills."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats

from robustjax.core import numerics

RNG = np.random.default_rng(0)
BOTH = pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])


def array(*shape, scale=1.0):
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape) * scale, jnp.float32)


@pytest.mark.parametrize(("dtype", "lifted"), [("bfloat16", "float32"), ("float16", "float32"), ("float32", "float32"), ("int32", "int32")])
def test_lift(dtype, lifted):
    # Kills: float32 for everything (labels too); nothing lifted.
    assert numerics.lift(jnp.zeros(2, dtype)).dtype == lifted


def test_float64_stays_float64():
    # Kills: a cast to float32, or a promotion that the strict setting refuses, anywhere on the way.
    with jax.enable_x64(True):
        x = jnp.asarray(RNG.normal(size=(3, 4)))
        for value in (
            numerics.lift(x),
            numerics.safe_norm(x),
            numerics.image_norm(x),
            numerics.safe_divide(x, x),
            numerics.kl_p_from_logits(x, 2 * x),
            numerics.log_clamped(abs(x)),
            numerics.tree_dot({"a": x}, {"a": x}),
            numerics.tree_norm({"a": x}),
            numerics.tree_normalize({"a": x})["a"],
            numerics.tree_axpy(jnp.float32(2), {"a": x}, {"a": x})["a"],
            numerics.tree_scale(jnp.float32(2), {"a": x})["a"],
        ):
            assert value.dtype == jnp.float64
        np.testing.assert_allclose(numerics.safe_norm(x), np.linalg.norm(x), rtol=1e-14)


@BOTH
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_safe_norm_is_the_norm(wrap, axis, keepdims):
    # Kills: a norm over the wrong axes; axes of size one lost.
    x = array(2, 1, 5)
    wanted = np.sqrt(np.sum(np.asarray(x, np.float64) ** 2, axis=axis, keepdims=keepdims))
    got = wrap(lambda x: numerics.safe_norm(x, axis, keepdims))(x)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


@BOTH
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e30])
def test_safe_norm_has_the_direction_as_derivative_at_any_scale(wrap, scale):
    # Kills: squares that vanish or overflow in float32 (PGD's direction for a gradient of 1e-30); a derivative through the scale.
    x = array(7) * scale
    value, grad = wrap(jax.value_and_grad(numerics.safe_norm))(x)
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(value, np.linalg.norm(exact), rtol=1e-6)
    np.testing.assert_allclose(grad, exact / np.linalg.norm(exact), rtol=1e-5, atol=1e-6)


@BOTH
def test_derivatives_at_zero_are_zero(wrap):
    # Kills: sqrt'(0) times 0, which is NaN, to first and second order, for one zero row among others.
    x = jnp.zeros((2, 3)).at[1].set(1.0)
    gradient = jax.grad(lambda x: numerics.safe_norm(x, axis=1).sum())
    np.testing.assert_allclose(wrap(gradient)(x), [[0] * 3, [3**-0.5] * 3], rtol=1e-6)
    _, second = wrap(lambda x: jax.jvp(gradient, (x,), (jnp.ones_like(x),)))(x)
    np.testing.assert_allclose(second, 0, atol=1e-6)
    np.testing.assert_array_equal(wrap(jax.grad(lambda t: numerics.tree_norm(t)))({"a": jnp.zeros(2)})["a"], 0)
    np.testing.assert_array_equal(wrap(jax.grad(lambda b: numerics.safe_divide(jnp.ones(2), b).sum()))(jnp.zeros(2)), 0)


def test_infinite_values_have_an_infinite_norm():
    # Kills: inf / inf from the scaling.
    assert np.isinf(numerics.safe_norm(jnp.array([1.0, jnp.inf])))


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("linf", np.inf), ("l1", 1)])
def test_image_norm(norm, order):
    # Kills: a norm per channel, over the batch, or another norm.
    x = array(3, 4, 5, 2)
    np.testing.assert_allclose(numerics.image_norm(x, norm), np.linalg.norm(np.reshape(x, (3, -1)), order, axis=1), rtol=1e-5)


def test_safe_divide():
    # Kills: division guarded by adding or clipping, which moves ordinary values.
    np.testing.assert_array_equal(
        numerics.safe_divide(jnp.array([1.0, -3.0, 0.0, 2.0]), jnp.array([4.0, 1e-20, 0.0, 0.0])),
        [0.25, np.float32(-3) / np.float32(1e-20), 0, 0],
    )


def test_log_clamped():
    # Kills: no clamp at either end; a shift in place of a clamp.
    np.testing.assert_allclose(numerics.log_clamped(jnp.array([0.0, 0.5, 1.0 + 1e-6])), [np.log(1e-7), np.log(0.5), 0], rtol=1e-6)
    assert np.isfinite(jax.grad(lambda x: numerics.log_clamped(x).sum())(jnp.zeros(2))).all()


@BOTH
def test_kl_has_its_direction(wrap):
    # Kills: KL(q || p); a mean over classes; natural logarithm replaced; rows mixed.
    p, q = array(5, 4), array(5, 4)[::-1] * 2
    wanted = scipy.stats.entropy(
        scipy.special.softmax(np.asarray(p, np.float64), 1), scipy.special.softmax(np.asarray(q, np.float64), 1), axis=1
    )
    np.testing.assert_allclose(wrap(numerics.kl_p_from_logits)(p, q), wanted, rtol=1e-5)


@BOTH
def test_kl_at_saturated_logits(wrap):
    # Kills: log(softmax), which is -inf; 0 * inf; gradients that are NaN there.
    p, q = jnp.array([[500.0, -500.0, 0.0]]), jnp.array([[-500.0, 500.0, 0.0]])
    value, grads = wrap(jax.value_and_grad(lambda p, q: numerics.kl_p_from_logits(p, q).sum(), (0, 1)))(p, q)
    np.testing.assert_allclose(value, 1000)
    assert all(np.isfinite(g).all() for g in grads)
    # A class that p excludes contributes nothing, even where q excludes it too.
    excluded = jnp.array([[0.0, 0.0, -jnp.inf]])
    np.testing.assert_allclose(wrap(numerics.kl_p_from_logits)(excluded, excluded), 0)


def trees():
    return {"a": array(3, 2), "b": [array(4)]}, {"a": array(3, 2) + 1, "b": [array(4) * 3]}


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)


def test_trees_are_their_flat_vectors():
    # Kills: norms per leaf in place of one over the tree; x and y of axpy swapped; a sum over leaves of norms.
    x, y = trees()
    np.testing.assert_allclose(numerics.tree_dot(x, y), flat(x) @ flat(y), rtol=1e-5)
    np.testing.assert_allclose(numerics.tree_norm(x), np.linalg.norm(flat(x)), rtol=1e-6)
    np.testing.assert_allclose(numerics.tree_norm(x), optax.tree.norm(x), rtol=1e-6)
    np.testing.assert_allclose(flat(numerics.tree_axpy(0.5, x, y)), 0.5 * flat(x) + flat(y), rtol=1e-6)
    np.testing.assert_allclose(flat(numerics.tree_scale(-2, x)), -2 * flat(x), rtol=1e-6)
    np.testing.assert_allclose(flat(numerics.tree_normalize(x)), flat(x) / np.linalg.norm(flat(x)), rtol=1e-5)
    np.testing.assert_array_equal(flat(numerics.tree_normalize(jax.tree.map(jnp.zeros_like, x))), 0)


def test_axpy_keeps_the_dtypes_of_y_with_a_traced_scale():
    # Kills: parameters that change their dtype in an update; a scale that must be a Python number.
    x, y = {"a": jnp.ones(2, jnp.float32)}, {"a": jnp.ones(2, jnp.bfloat16)}
    got = jax.jit(numerics.tree_axpy)(jnp.float32(2), x, y)["a"]
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got.astype(jnp.float32), 3)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 10.0])
def test_kl_and_its_gradient_keep_their_digits_in_float32(scale):
    # Kills: p (log p - log q) summed as it is, whose terms cancel: at 1e-12 nothing of the value is left. Against float64.
    rng = np.random.default_rng(0)
    p = (2 * rng.normal(size=(4, 10))).astype(np.float32)
    q = (p + scale * rng.normal(size=p.shape)).astype(np.float32)

    @jax.jit
    def both(p, q):
        return numerics.kl_p_from_logits(p, q), *jax.grad(lambda p, q: numerics.kl_p_from_logits(p, q).sum(), (0, 1))(p, q)

    found = both(jnp.asarray(p), jnp.asarray(q))
    with jax.enable_x64(True):
        wanted = both(jnp.asarray(p, jnp.float64), jnp.asarray(q, jnp.float64))
        log_p, log_q = (jax.nn.log_softmax(jnp.asarray(x, jnp.float64)) for x in (p, q))
        np.testing.assert_allclose(
            wanted[0], jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1), rtol=1e-8, atol=1e-15
        )  # rounding of the usual sum
    for ours, exact in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, exact, rtol=3e-6, atol=2e-7 * np.abs(exact).max())


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 30.0])
def test_entropy_and_its_gradient_keep_their_digits_in_float32(scale):
    # Kills: log k less a rounding for a tiny gradient; 1 - 1 for a nearly one-hot row.
    logits = (scale * np.random.default_rng(0).normal(size=(4, 5))).astype(np.float32)

    @jax.jit
    def both(x):
        return numerics.entropy_from_logits(x), jax.grad(lambda x: numerics.entropy_from_logits(x).sum())(x)

    found = both(jnp.asarray(logits))
    with jax.enable_x64(True):
        log_p = jax.nn.log_softmax(jnp.asarray(logits, jnp.float64))
        p = jnp.exp(log_p)
        value = -jnp.sum(p * log_p, -1)
        np.testing.assert_allclose(found[0], value, rtol=3e-6)
        gradient = -p * (log_p + value[:, None]) if scale else 0 * p
    np.testing.assert_allclose(found[1], gradient, rtol=1e-5, atol=1e-6 * max(float(np.abs(gradient).max()), 1e-30))
