"""Doors of the Taylor terms, the noise of the weights and adversarial weight perturbation; the numbers are in tests/goldens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import jet

from robustjax import losses
from robustjax.core.check import InputError

W = {"conv1.kernel": jnp.full((2, 3), 0.5), "conv10.bias": jnp.ones(3), "head.kernel": jnp.full((3, 2), -0.5)}
X, Y = jnp.array([[1.0, -2.0]]), jnp.array([[0.5, 1.0]])


def apply_fn(w, x):
    return jnp.tanh(x @ w["conv1.kernel"] + w["conv10.bias"][None]) @ w["head.kernel"], x.shape


def noise(**options):
    return losses.weight_noise(jax.random.key(0), W, **{"stddev": 0.1, **options})


@pytest.mark.parametrize("reading", [name for name in losses.READINGS if name != "cross_entropy"])
def test_no_noise_no_terms(reading):
    # Kills: a reading that does not vanish with its arguments (cross-entropy does not, and is log k there: see the next line).
    still = jax.tree.map(jnp.zeros_like, W)
    terms = losses.taylor_regularizer(apply_fn, W, still, X, Y, order=2, reading=reading)
    assert float(terms.first[0]) == 0.0 and float(terms.second[0]) == 0.0
    other = losses.taylor_regularizer(apply_fn, W, still, X, Y, order=2, reading="cross_entropy")
    np.testing.assert_allclose([other.first[0], other.second[0]], np.log(2), rtol=1e-6)


def test_lower_orders_are_the_beginning_of_higher_ones():
    # Kills: terms of an order that was not asked for; other logits with another order; aux of one view only.
    u = noise()
    found = [losses.taylor_regularizer(apply_fn, W, u, X, Y, order=order) for order in (0, 1, 2)]
    for terms in found:
        np.testing.assert_allclose(terms.clean_logits, apply_fn(W, X)[0], rtol=1e-6)
        np.testing.assert_allclose(terms.adversarial_logits, apply_fn(W, Y)[0], rtol=1e-6)
        assert terms.aux == ((1, 2), (1, 2))
    assert [float(terms.first[0]) > 0 for terms in found] == [False, True, True]
    assert [float(terms.second[0]) > 0 for terms in found] == [False, False, True]
    np.testing.assert_allclose(found[1].first, found[2].first, rtol=1e-5)
    assert losses.taylor_derivatives(lambda w: apply_fn(w, X)[0], W, u, order=1)[2] is None
    assert losses.taylor_derivatives(lambda w: apply_fn(w, X)[0], W, u, order=0)[1:] == (None, None)


def test_derivatives_equal_those_of_jet():
    # Kills: the 1/2 of Taylor's formula. An implementation of others, which carries Taylor coefficients through each operation.
    u = noise()

    def along(t):
        return apply_fn(jax.tree.map(lambda w, d: w + t * d, W, u), X)[0]

    value, (first, second) = jet.jet(along, (0.0,), ((1.0, 0.0),))
    found = losses.taylor_derivatives(lambda w: apply_fn(w, X)[0], W, u, order=2)
    for ours, theirs in zip(found, (value, first, second), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_gradient_of_the_expansion_of_the_divergence():
    # Kills: a gradient that stops in either view or in the derivatives. Central differences in float64.
    with jax.enable_x64(True):
        w, u = ({name: jnp.asarray(leaf, jnp.float64) for name, leaf in tree.items()} for tree in (W, noise()))

        def value(t):
            at = {name: leaf + t * np.cos(3.0 * np.arange(leaf.size)).reshape(leaf.shape) for name, leaf in w.items()}
            terms = losses.taylor_regularizer(apply_fn, at, u, np.asarray(X, float), np.asarray(Y, float), order=2, reading="kl_expansion")
            return terms.first[0] + terms.second[0]

        slope = jax.grad(value)(0.0)
        np.testing.assert_allclose(slope, (value(1e-5) - value(-1e-5)) / 2e-5, rtol=1e-7)
        assert abs(slope) > 1e-4


def test_noise_is_gaussian_on_the_groups_that_are_named():
    # Kills: groups by a part of the name ('conv1' is not in 'conv10'); noise of variance stddev; a draw that moves with the other names.
    some = noise(groups=("conv1",))
    assert not some["head.kernel"].any() and not some["conv10.bias"].any()
    np.testing.assert_array_equal(some["conv1.kernel"], noise()["conv1.kernel"])
    assert not noise(groups=("head.kernel",))["conv1.kernel"].any()
    large = losses.weight_noise(jax.random.key(1), {"a": jnp.zeros((100, 100)), "b": jnp.zeros((100, 100))}, stddev=0.01)
    assert abs(float(jnp.std(large["a"])) - 0.01) < 3e-4 and abs(np.corrcoef(large["a"].ravel(), large["b"].ravel())[0, 1]) < 0.05
    assert not any(leaf.any() for leaf in noise(stddev=0.0).values())


def test_perturbed_weights_are_as_far_as_gamma_says():
    # Kills: biases that move; a norm over all weights; NaN where a gradient is zero; gamma that cannot be traced.
    grads = {"conv1.kernel": jnp.ones((2, 3)), "conv10.bias": jnp.ones(3), "head.kernel": jnp.zeros((3, 2))}
    moved = jax.jit(lambda gamma: losses.adversarial_weight_perturbation(W, grads, gamma=gamma))(0.1)
    np.testing.assert_allclose(
        jnp.linalg.norm(moved["conv1.kernel"] - W["conv1.kernel"]), 0.1 * jnp.linalg.norm(W["conv1.kernel"]), rtol=1e-5
    )
    np.testing.assert_array_equal(moved["conv10.bias"], W["conv10.bias"])
    np.testing.assert_array_equal(moved["head.kernel"], W["head.kernel"])
    unmoved = losses.adversarial_weight_perturbation(W, grads, gamma=0.0)
    jax.tree.map(np.testing.assert_array_equal, unmoved, W)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.taylor_regularizer(apply_fn, W, noise(), X, Y, order=3), "order of the Taylor expansion must be 0, 1 or 2, got 3"),
        (lambda: losses.taylor_regularizer(apply_fn, W, noise(), X, Y, order=1, reading="squarred"), "did you mean 'squared'"),
        (lambda: losses.taylor_regularizer(apply_fn, W, {"a": X}, X, Y, order=1), "direction must be a tree of the parameters' names"),
        (lambda: noise(stddev=-1.0), "stddev of the weight noise must be finite and at least 0"),
        (lambda: noise(stddev=float("nan")), "stddev of the weight noise must be finite"),
        (lambda: noise(groups=("con",)), "no parameter is called 'con'"),
        (lambda: noise(groups="conv1"), "groups must be a sequence of names"),
        (lambda: losses.adversarial_weight_perturbation(W, W, gamma=-0.1), "gamma is the relative size"),
        (lambda: losses.trades_regularizer(X, jnp.zeros((1, 3))), "must have one shape"),
        (lambda: losses.released_heuristic(X, Y, X[0], Y[0], jnp.array([0]), confusion=1.5), "confusion is the share"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
