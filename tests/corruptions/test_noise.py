"""The laws of the draws, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robustjax import corruptions
from robustjax.core import example_keys
from robustjax.core.rng import stream
from robustjax.corruptions.constants import CONSTANTS
from robustjax.corruptions.draws import normals, uniforms
from robustjax.corruptions.noise import poisson_quantile


@pytest.mark.parametrize("shape", [(), (5,), (40, 9, 3)])
def test_draws_are_those_of_jax(shape):
    # Kills: a wrong rotation, key schedule or counter of the cipher; another transform; the loop over examples that differs from none.
    for ours, theirs in ((normals, jax.random.normal), (uniforms, jax.random.uniform)):
        keys = lambda: example_keys(jax.random.key(5), jnp.arange(3))  # noqa: E731
        expected = jax.vmap(lambda key: theirs(key, shape))(stream(keys(), 2))  # noqa: B023
        np.testing.assert_array_equal(ours(keys(), shape, 2), expected)
        np.testing.assert_array_equal(jax.jit(ours, static_argnums=(1, 2))(keys(), shape, 2), expected)
    other = jax.random.split(jax.random.key(5, impl="rbg"), 3)
    assert normals(other, shape).shape == (3, *shape)


@pytest.mark.parametrize("rate", [0.0, 0.3, 4.0, 9.99, 10.0, 25.0, 100.0, 500.0])
def test_poisson_quantile_is_scipys(rate):
    # Kills: an off-by-one in either branch; too few terms; a wrong coefficient of the expansion.
    normal = np.linspace(-5, 5, 20001)
    with jax.enable_x64(True):
        got = np.asarray(poisson_quantile(jnp.asarray(normal), jnp.full(normal.shape, rate)))
    expected = scipy.stats.poisson.ppf(scipy.stats.norm.cdf(normal), rate)
    density = scipy.stats.norm.pdf(normal) * (normal[1] - normal[0])
    assert density[got != expected].sum() < (4e-4 if rate >= 10 else 1e-12) and abs(got - expected).max() <= 1


def test_poisson_quantile_of_rare_normals_in_float32():
    # Kills: ranks that are 1 in float32 and pass every term (35 photons); sums that stay below or reach 1 too early; tails off by one.
    rates = np.array([0.01, 0.3, 1, 3, 5, 8, 9.99], np.float32)
    for normal in (4.9, 5.1, 5.5, 6.0):
        got = poisson_quantile(jnp.full(rates.shape, normal, jnp.float32), jnp.asarray(rates))
        expected = scipy.stats.poisson.isf(scipy.stats.norm.sf(normal), rates)
        assert got.dtype == jnp.float32
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("rate", [0.5, 8.0, 12.0, 300.0])
def test_poisson_counts_in_float32(rate):
    # Kills: a rank that loses its upper tail in float32 beyond what a million counts can show.
    normal = jax.random.normal(jax.random.key(0), (1_000_000,))
    counts = np.asarray(jax.jit(poisson_quantile)(normal, jnp.full(normal.shape, rate))).astype(int)
    law = scipy.stats.poisson(rate)
    edges = np.unique(law.ppf(np.linspace(1e-4, 1 - 1e-4, 30)))
    expected = np.diff(np.concatenate([[0], law.cdf(edges), [1]])) * counts.size
    observed = np.bincount(np.searchsorted(edges, counts), minlength=len(expected))
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-4


def corrupted(name, level, severity, shape=(64, 32, 32, 3)):
    keys = example_keys(jax.random.key(severity), jnp.arange(shape[0]))
    return np.asarray(
        corruptions.corrupt(keys, np.full(shape, level, np.float32), name=name, severity=severity, quantize=False), np.float64
    )


@pytest.mark.parametrize("severity", [1, 5])
def test_moments(severity):
    # Kills: variance for standard deviation; photons that scale the wrong way; salt for pepper; whole pixels hit instead of values.
    level, n = 0.5, 64 * 32 * 32 * 3
    constants = {name: CONSTANTS["cifar_c"][name][severity - 1] for name in ("gaussian_noise", "shot_noise", "impulse_noise")}
    for name, variance in (("gaussian_noise", constants["gaussian_noise"] ** 2), ("shot_noise", level / constants["shot_noise"])):
        got = corrupted(name, level, severity)
        assert abs(got.mean() - level) < 5 * np.sqrt(variance / n)
        assert abs(got.var() / variance - 1) < 0.02  # five standard errors of a variance from n values, and clipping
        together = got - got.mean()
        for axis in (1, 2, 3):  # neighbours are independent
            assert abs((together * np.roll(together, 1, axis)).mean() / variance) < 5 / np.sqrt(n)
        assert abs((together[1:] * together[:-1]).mean() / variance) < 5 / np.sqrt(n)
    got = corrupted("impulse_noise", level, severity)
    share = constants["impulse_noise"] / 2
    for extreme in (0, 1):
        assert abs((got == extreme).mean() - share) < 5 * np.sqrt(share / n)
    both = ((got[..., 0] != level) & (got[..., 1] != level)).mean()
    assert abs(both - 4 * share**2) < 5 * np.sqrt(4 * share**2 / n) + 1e-5
