"""The consistency of three views: bounds, symmetry, the clamp."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import losses
from robustjax.core import InputError

JSD = jax.jit(losses.jsd_consistency)


def views(scale=2.0, b=7, k=4):
    return jnp.asarray(np.random.default_rng(0).normal(size=(3, b, k)) * scale, jnp.float32)


def test_it_is_the_entropy_of_the_mixture_less_the_mean_entropy():
    # Kills: KL(M || p); a sum for the mean; a mean over classes; the factor 12.
    p = np.asarray(jax.nn.softmax(views()), np.float64)
    entropy = lambda q: -np.sum(q * np.log(q), -1)  # noqa: E731
    np.testing.assert_allclose(JSD(*views()), entropy(p.mean(0)) - entropy(p).mean(0), atol=1e-6)


def test_views_count_alike_and_three_different_ones_reach_ln_3():
    # Kills: weights other than 1/3; the clean view held constant; 0 log 0.
    a, b, c = views()
    np.testing.assert_allclose(JSD(a, b, c), JSD(c, a, b), rtol=1e-5)
    corner = jnp.where(jnp.eye(3, dtype=bool), 0, -jnp.inf)[:, None]
    np.testing.assert_allclose(JSD(*corner), np.log(3), rtol=1e-6)
    gradients = jax.jit(jax.grad(lambda *v: JSD(*v).sum(), argnums=(0, 1, 2)))
    swapped = gradients(c, a, b)
    for view, other in zip(gradients(a, b, c), (swapped[1], swapped[2], swapped[0]), strict=True):
        np.testing.assert_allclose(view, other, atol=1e-6)


def test_the_clamp_acts_from_below_and_blocks_the_gradient():
    # Kills: no clamp; a clamp of p instead of M; a gradient through the clamp; half of it where M is exactly 1.
    sure = jnp.asarray([[0.0, -18.0, -200.0]])  # p = 1.5e-8 in the second class
    p, low = np.exp(-18.0), 1e-7
    np.testing.assert_allclose(JSD(sure, sure, sure)[0], p * (-18 - np.log(low)), rtol=1e-3)
    slope = jax.jit(jax.grad(lambda x: JSD(x, x, x)[0]))(sure)[0, 1]
    np.testing.assert_allclose(
        slope, p * (1 - 18 - np.log(low)), rtol=1e-3
    )  # of p (log p - log 1e-7); the first class, where M is 1, has none


def test_inputs_that_do_not_fit_are_refused():
    # Kills: broadcasting of one view against the others; a message that does not say which view is wrong.
    a, b, c = views()
    with pytest.raises(InputError, match=r"one shape \(b, k\), got \(7, 4\), \(7, 4\), \(1, 4\)"):
        losses.jsd_consistency(a, b, c[:1])
    with pytest.raises(InputError, match=r"aug1 must be floats of shape \(b, k\)"):
        losses.jsd_consistency(a, b[0], c)
