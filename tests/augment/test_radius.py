"""Laws of the radius; their moments are in tests/goldens/test_smoothing.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robustjax import augment
from robustjax.core import InputError, example_keys


def keys(n, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(n))


def test_whole_laws():
    # Kills: another law with the same two moments; uniform for ball; d left out of the exponent.
    n = 4096
    uniform = np.asarray(augment.uniform_radius(keys(n), tau=3)) / 3
    assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-4
    ball = np.asarray(augment.ball_radius(keys(n), tau=3.0, dimension=12)) / 3
    assert scipy.stats.kstest(ball, lambda r: np.clip(r, 0, 1) ** 12).pvalue > 1e-4
    cut = np.asarray(augment.truncated_normal_radius(keys(n), mean=2.0, stddev=1.5, low=0.5, high=2.5))
    assert scipy.stats.kstest(cut, scipy.stats.truncnorm(-1, 1 / 3, loc=2, scale=1.5).cdf).pvalue > 1e-4


def test_degenerate_laws_are_points():
    # Kills: division by stddev 0; an empty interval; NaN at tau 0.
    np.testing.assert_array_equal(augment.uniform_radius(keys(3), tau=0), 0)
    np.testing.assert_array_equal(augment.ball_radius(keys(3), tau=0, dimension=5), 0)
    point = {"mean": 2.0, "low": 1.0, "high": 3.0}
    np.testing.assert_array_equal(augment.truncated_normal_radius(keys(3), stddev=0.0, **point), 2)
    np.testing.assert_array_equal(augment.truncated_normal_radius(keys(3), stddev=0.5, mean=2.0, low=2.0, high=2.0), 2)
    np.testing.assert_array_equal(augment.truncated_normal_radius(keys(3), stddev=0.0, mean=5.0, low=1.0, high=3.0), 3)


def test_dtype_is_that_of_the_numbers_at_least_float32():
    # Kills: draws in bfloat16 (256 different radii); float64 lost.
    assert augment.uniform_radius(keys(2), tau=jnp.bfloat16(2)).dtype == jnp.float32
    with jax.enable_x64(True):
        assert augment.uniform_radius(keys(2), tau=jnp.float64(2)).dtype == jnp.float64
        assert augment.uniform_radius(keys(2), tau=jnp.float32(2)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: augment.uniform_radius(keys(1), tau=-1), "tau is a size .* >= 0, got -1"),
        (lambda: augment.uniform_radius(keys(1), tau=float("nan")), "tau is a size .* finite"),
        (lambda: augment.ball_radius(keys(1), tau=-1, dimension=2), "tau is a size"),
        (lambda: augment.truncated_normal_radius(keys(1), mean=1.0, stddev=-1.0, low=0.0, high=1.0), "stddev is a size"),
        (lambda: augment.truncated_normal_radius(keys(1), mean=1.0, stddev=1.0, low=-1.0, high=1.0), "low is a size"),
        (lambda: augment.truncated_normal_radius(keys(1), mean=1.0, stddev=1.0, low=2.0, high=1.0), "low must not exceed high"),
    ],
)
def test_bad_input_gets_one_line(call, message):
    # Kills: each check left out.
    with pytest.raises(InputError, match=message):
        call()


DRAWS = {
    "uniform": lambda keys: augment.uniform_radius(keys, tau=1.0),
    "ball": lambda keys: augment.ball_radius(keys, tau=1.0, dimension=2),
    "truncated": lambda keys: augment.truncated_normal_radius(keys, mean=1.0, stddev=1.0, low=0.0, high=2.0),
}


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("wrong", [None, jax.random.key(0), jax.random.key_data(keys(2)), 0], ids=["none", "one", "raw", "seed"])
def test_wrong_keys_get_one_line(draw, wrong):
    # Kills: the check of keys left out, for a traceback from inside vmap.
    with pytest.raises(InputError, match="keys must be"):
        DRAWS[draw](wrong)


def test_known_numbers_are_checked_inside_a_traced_function_too():
    # Kills: comparing a constant array while tracing, which is a tracer and has no truth value.
    tau = jnp.float32(2.0)
    assert jax.jit(lambda keys: augment.uniform_radius(keys, tau=tau))(keys(2)).shape == (2,)
