"""Balls, boxes and draws in them. Each test names the mutants it kills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robustjax.attacks.projections import l1_ball_and_box, random_in_ball, to_ball, to_ball_and_box, unit_step
from robustjax.core import example_keys
from robustjax.core.numerics import image_norm

NORMS = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
BOTH = pytest.mark.parametrize("wrap", [lambda f: f, lambda f: jax.jit(f, static_argnames="norm")], ids=["eager", "jit"])


def normal(seed, shape=(6, 4, 3, 2)):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def keys(n, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(n))


@NORMS
@BOTH
def test_projection_is_the_nearest_point_of_the_ball(wrap, norm):
    # Kills: scaling instead of the soft threshold (l1), one radius a batch, inside points moved. A projection p of x onto a convex
    # set is characterised by <x - p, q - p> <= 0 for every q of the set.
    delta = normal(0) * jnp.array([0.01, 0.1, 0.5, 1.0, 3.0, 10.0])[:, None, None, None]
    p = wrap(to_ball)(delta, 1.0, norm=norm)
    size, before = np.asarray(image_norm(p, norm)), np.asarray(image_norm(delta, norm))
    np.testing.assert_allclose(size, np.minimum(before, 1), rtol=1e-5)
    np.testing.assert_array_equal(p[0], delta[0])
    others = random_in_ball(keys(64), jnp.zeros((64, 4, 3, 2)), 1.0, norm=norm)
    corners = jnp.concatenate([jnp.eye(24), -jnp.eye(24)]).reshape(48, 4, 3, 2)  # in every ball, extreme points of l1
    ball = np.asarray(jnp.concatenate([others, corners])).reshape(-1, 1, 24)
    outward, p = np.asarray(delta - p).reshape(1, 6, 24), np.asarray(p).reshape(1, 6, 24)
    assert ((outward * (ball - p)).sum(-1) <= 1e-4).all()


@NORMS
@BOTH
def test_zero_radius_and_zero_perturbation(wrap, norm):
    # Kills: 0/0 in the norms, an index of -1 in the sorted sums (l1), a radius with a floor.
    images = jnp.asarray(np.random.default_rng(1).uniform(size=(3, 4, 3, 2)), jnp.float32)
    np.testing.assert_array_equal(wrap(to_ball_and_box)(images + normal(2, images.shape), images, 0.0, norm=norm), images)
    np.testing.assert_array_equal(wrap(to_ball)(jnp.zeros_like(images), 1.0, norm=norm), 0)
    np.testing.assert_array_equal(wrap(unit_step)(jnp.zeros_like(images), norm=norm), 0)


@NORMS
def test_steps_have_size_one_per_image(norm):
    # Kills: a norm over the batch, or over the last axis; a guard so large that small gradients shrink.
    gradient = normal(3) * jnp.array([1e-10, 1e-6, 1e-3, 1, 1e3, 1e6])[:, None, None, None]
    step = unit_step(gradient, norm=norm)
    np.testing.assert_allclose(image_norm(step, norm), 1, rtol=1e-5)
    assert (jnp.sum(step * gradient, (1, 2, 3)) > 0).all()


@NORMS
def test_draws_are_uniform_in_the_ball(norm):
    # Kills: radius uniform in [0, eps], points on the surface, a Gaussian direction in l1 or a Laplacian one in l2, one draw a batch,
    # one key for direction and radius. Uniform by volume: (size / eps)^d is uniform; one coordinate has a known law.
    n, d, eps = 3000, 6, 0.4
    points = np.asarray(random_in_ball(keys(n), jnp.zeros((n, 2, 1, 3)), eps, norm=norm)).reshape(n, d)
    size = np.linalg.norm(points, {"linf": np.inf, "l2": 2, "l1": 1}[norm], axis=1)
    assert scipy.stats.kstest((size / eps) ** d, "uniform").pvalue > 1e-3
    laws = {
        "linf": lambda t: t,
        "l2": lambda t: scipy.stats.beta(1 / 2, (d + 1) / 2).cdf(t**2),
        "l1": lambda t: 1 - (1 - t) ** d,
    }
    for i in (0, d - 1):
        assert scipy.stats.kstest(np.abs(points[:, i]) / eps, laws[norm]).pvalue > 1e-3
        assert abs(np.mean(points[:, i] > 0) - 0.5) < 5 * 0.5 / np.sqrt(n)
    assert abs(scipy.stats.spearmanr(points[:, 0], points[:, 1]).statistic) < 5 / np.sqrt(n)
    few = random_in_ball(keys(7), jnp.zeros((7, 2, 1, 3)), eps, norm=norm)
    np.testing.assert_allclose(few.reshape(7, d), points[:7], atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ball_and_box_together_give_the_nearest_point(dtype):
    # Kills: projecting onto one after the other; a multiplier below 0, which moves points that lie inside; a search that stops early,
    # or that runs on with the images that need longer; room taken on the wrong side. See the characterisation above.
    rng = np.random.default_rng(4)
    with jax.enable_x64():
        images = jnp.asarray(rng.uniform(size=(8, 4, 3, 2)).round(1), dtype)  # with pixels at 0 and 1
        delta = jnp.asarray(rng.standard_cauchy(images.shape), dtype) * jnp.asarray(np.geomspace(1e-3, 100, 8)[:, None, None, None], dtype)
        both = jax.jit(l1_ball_and_box)
        p = both(delta, images, 2.0)
        slack = 1e-5 if dtype == np.float32 else 1e-12
        assert (image_norm(p, "l1") <= 2 + slack).all() and (images + p >= -slack).all() and (images + p <= 1 + slack).all()
        box = rng.uniform(size=(4000, 24)) - np.asarray(images).reshape(8, 1, 24)
        box *= np.minimum(1, 2 / np.abs(box).sum(-1, keepdims=True)) * rng.uniform(0.5, 1, (8, 4000, 1))  # towards the image: inside
        outward, flat = (np.asarray(a, np.float64).reshape(8, 1, 24) for a in (delta - p, p))
        steepest = np.abs(outward).max()
        assert ((outward * (box - flat)).sum(-1) <= 10 * slack * (1 + steepest)).all()
        np.testing.assert_array_equal(p[0], np.clip(delta[0], -images[0], 1 - images[0]))
        for i in range(8):
            np.testing.assert_allclose(both(delta[i : i + 1], images[i : i + 1], 2.0)[0], p[i], atol=slack / 10)
        np.testing.assert_array_equal(both(delta, images, 0.0), 0)


def test_a_lost_image_stays_lost_and_alone():
    # Kills: a search that never ends on NaN, or returns 0 for it, or takes the other images with it.
    delta, both = normal(5), jax.jit(l1_ball_and_box)
    with jax.debug_nans(False):
        p = both(delta.at[2, 0, 0, 0].set(jnp.nan), jnp.full_like(delta, 0.5), 1.0)
    assert np.isnan(p[2]).any()
    np.testing.assert_array_equal(np.delete(p, 2, 0), np.delete(both(delta, jnp.full_like(delta, 0.5), 1.0), 2, 0))
