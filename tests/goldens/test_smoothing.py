"""SPIDER's and ESP's label smoothing, radii and clipping-aware rescaling against reference data (see data/losses_metrics/README.md)."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robustjax import augment
from robustjax.core import example_keys
from tests.goldens import reference

PRECISION = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def precision(dtype):
    return jax.enable_x64(True) if dtype is np.float64 else contextlib.nullcontext()


def keys(seed, n):
    return example_keys(jax.random.key(seed), jnp.arange(n))


@PRECISION
@pytest.mark.parametrize("method", ["spider", "esp"])
def test_confidence_and_labels_match_the_tables(method, dtype):
    # Kills: either paper's printed lambda; tau for tau/4 as threshold; clipping at the floor; shares of 1/C instead of 1/(C - 1).
    table = reference.load("losses_metrics/smoothing.npz")[f"{method}_table"]
    tolerance = 1e-6 if dtype is np.float32 else 1e-10
    names = 3 if method == "spider" else 4
    for setting in np.unique(table[:, :names], axis=0):
        rows = table[(table[:, :names] == setting).all(1)]
        z, expected, other = rows[:, names : names + 3].T
        k, xi = int(setting[0]), setting[-1]
        start, width = (setting[1] / 4, 3 * setting[1] / 4) if method == "spider" else setting[1:3]
        with precision(dtype):
            confidence = augment.exponential_confidence(z.astype(dtype), start=start, width=width, floor=1 / k + xi)
            targets = augment.soft_targets(confidence, np.ones(len(rows), np.int32), num_classes=k)
        assert targets.dtype == dtype
        np.testing.assert_allclose(confidence, expected, rtol=0, atol=tolerance)
        np.testing.assert_allclose(targets, np.where(np.arange(k) == 1, expected[:, None], other[:, None]), rtol=0, atol=tolerance)


def test_xi_of_a_ratio():
    # Kills: gamma/(gamma + C); a forgotten 1/C. The paper prints three digits.
    for classes, gamma, xi, printed in reference.load("losses_metrics/smoothing.npz")["xi_from_gamma"]:
        mine = augment.xi_from_ratio(gamma, num_classes=int(classes))
        np.testing.assert_allclose(mine, xi, atol=1e-12)
        assert abs(mine - printed) < 5.1e-4


def assert_mean(draws, mean, variance):
    """Four standard errors of the mean: a wrong law passes only if it is wrong by less than about 2 percent of a deviation."""
    assert abs(draws.mean() - mean) < 4 * np.sqrt(variance / draws.size)


@pytest.mark.parametrize("row", range(3))
def test_moments_of_uniform_radius(row):
    # Kills: r = tau u^(1/d); tau as a mean; a confidence that does not use the drawn radius.
    classes, tau, xi, mean, variance, mean_s, variance_s = reference.load("losses_metrics/smoothing.npz")["spider_radius_moments"][row]
    radius = np.asarray(jax.jit(augment.uniform_radius)(keys(row, 40_000), tau=tau), np.float64)
    assert_mean(radius, mean, variance)
    # The fourth central moment of a uniform law of variance v is 9/5 v^2.
    assert_mean((radius - mean) ** 2, variance, 0.8 * variance**2)
    confidence = augment.exponential_confidence(jnp.asarray(radius, jnp.float32), start=tau / 4, width=3 * tau / 4, floor=1 / classes + xi)
    assert_mean(np.asarray(confidence, np.float64), mean_s, variance_s)


@pytest.mark.parametrize("row", range(4))
def test_moments_and_quantiles_of_truncated_normal_radius(row):
    # Kills: clipping in place of truncation; sigma = tau; variance for standard deviation; an interval of one side.
    _, epsilon, tau, _, mean, variance, _, *quantiles = reference.load("losses_metrics/smoothing.npz")["esp_radius_moments"][row]
    draw = jax.jit(augment.truncated_normal_radius)
    size = np.asarray(draw(keys(row, 40_000), mean=epsilon, stddev=tau / 2, low=epsilon - tau, high=epsilon + tau), np.float64)
    assert epsilon - tau <= size.min() and size.max() <= epsilon + tau
    assert_mean(size, mean, variance)
    assert_mean((size - mean) ** 2, variance, np.var((size - mean) ** 2))
    for share, quantile in zip([0.05, 0.25, 0.5, 0.75, 0.95], quantiles, strict=True):
        assert_mean(size <= quantile, share, share * (1 - share))


@pytest.mark.parametrize("row", range(4))
def test_confidence_that_esp_gives_on_average(row):
    # Kills: a confidence of the wrong end, epsilon - tau; sigma not tau/2 by default; labels that ignore the size.
    classes, epsilon, tau, xi, *_, mean_s = reference.load("losses_metrics/smoothing.npz")["esp_radius_moments"][row][:7]
    n = 4096
    # Grey images of 16 x 16 x 3: room for norms up to 13.8, more than any size here.
    images, labels = jnp.full((n, 16, 16, 3), 0.5), jnp.zeros(n, jnp.int32)
    out = jax.jit(augment.esp, static_argnames="num_classes")(
        keys(row, n), images, labels, epsilon=epsilon, tau=tau, xi=xi, num_classes=int(classes)
    )
    confidence = np.asarray(out.targets[:, 0], np.float64)
    assert_mean(confidence, mean_s, confidence.var())


@PRECISION
def test_rescaling_of_small_images(dtype):
    # Kills: scaling before clipping; room to the wrong face; a stop one Newton step early; NCHW is only another order of pixels.
    data = reference.load("losses_metrics/smoothing.npz")
    nhwc = lambda a: np.moveaxis(a, 1, -1).astype(dtype)  # noqa: E731
    images, directions = nhwc(data["rescale_x"]), nhwc(data["rescale_delta"])
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype is np.float32 else {"rtol": 1e-10, "atol": 1e-12}
    for eps, out, norm in zip(data["rescale_eps"], data["rescale_out"], data["rescale_norm"], strict=True):
        with precision(dtype):
            delta = np.asarray(jax.jit(augment.rescale_to_box)(images, directions, np.full(len(images), eps, dtype)))
        assert delta.dtype == dtype
        np.testing.assert_allclose(np.linalg.norm(delta.astype(np.float64).reshape(len(delta), -1), axis=1), norm, rtol=tolerance["rtol"])
        np.testing.assert_allclose(images + delta, nhwc(out), **tolerance)


@pytest.mark.parametrize("file", ["l2_clipping_synthetic", "l2_clipping_aware_rescaling"])
@pytest.mark.parametrize("kind", ["gauss", "sign", "outward", "sparse10pct", "cauchy"])
@PRECISION
def test_rescaling_of_saturated_images(kind, file, dtype):
    # Kills: pixels at the faces counted as free; zero entries that divide; one unreachable row that spoils the others;
    # heavy tails that need more passes than were made.
    data = reference.load(f"attacks/{file}.npz")
    images, directions = data["x"].astype(dtype), data[f"{kind}/delta"].astype(dtype)
    with precision(dtype):
        rescale = jax.jit(augment.rescale_to_box)
        for name in [name for name in data if name.startswith(f"{kind}/eps") and name.endswith("/norm_f64")]:
            eps = float(name.split("/eps")[1].split("/")[0])
            delta = np.asarray(rescale(images, directions, np.full(len(images), eps, dtype)))
            norm = np.linalg.norm(delta.astype(np.float64).reshape(len(delta), -1), axis=1)
            np.testing.assert_allclose(norm, data[name], rtol=1e-5 if dtype is np.float32 else 1e-10)
            moved = images + delta
            assert moved.min() >= 0 and moved.max() <= 1
            # The stored factor is that of the same pixels, so the whole image is known, not only its norm.
            eta = data[name.replace("norm", "eta")][:, None, None, None]
            expected = np.clip(data["x"] + eta * data[f"{kind}/delta"].astype(np.float64), 0, 1)
            # Near the largest reachable norm few pixels are free, and rounding of the norm falls on them alone.
            np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-5 if dtype is np.float32 else 1e-10)


def test_the_z_test_can_fail():
    # Kills: an assert_mean that accepts anything: a deviation of 3 percent of sigma must be refused at this sample size.
    draws = scipy.stats.norm(0.03, 1).rvs(40_000, random_state=0)
    with pytest.raises(AssertionError):
        assert_mean(draws, 0, 1)
