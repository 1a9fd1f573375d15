"""Theorem 6.1 of the discriminative-loss paper where it can be computed in closed form, and its doors; numbers are in tests/goldens."""

import jax
import numpy as np
import pytest
import scipy.stats

from robustjax import theory
from robustjax.core import InputError

GIVEN = dict(sigma=0.5, delta=0.4, eta=0.7, logit_bound=3.0, loss=1.0, outside_loss=2.5, gradient_norm=0.3)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("t", [1e-3, 0.5, 1.0, 2.0])
def test_lower_bound_of_a_quadratic(t):
    # Kills: a factor 2 in Eq. 16, sigma to another power, eta for 1 - eta, l_out not less l, a gradient that is added.
    # l(x + e) = l + g e + h e^2 / 2 in one dimension, features = x: the theorem's own assumption holds. With delta = t sigma
    # E[e^2 | out] = sigma^2 (1 + t phi(t) / (1 - Phi(t))), and the noise's odd moments vanish.
    h, g, sigma, loss = 3.0, 0.2, 0.7, 1.5
    out = 2 * scipy.stats.norm.sf(t)
    ratio = 1 + t * scipy.stats.norm.pdf(t) / scipy.stats.norm.sf(t)
    given = dict(sigma=sigma, delta=t * sigma, eta=1 - out, logit_bound=1.0, loss=loss, outside_loss=loss + h / 2 * sigma**2 * ratio)
    lower = float(theory.curvature_bounds(np.ones((1, 2)), gradient_norm=g, **given).lower)
    np.testing.assert_allclose(lower, h**2 * out * ratio**2 - 4 * g**2 / sigma**2, rtol=1e-10)
    assert lower <= 2 * h**2 + h**2
    flat = float(theory.curvature_bounds(np.ones((1, 2)), gradient_norm=0.0, **given).lower)
    assert t != 1.0 or 2 * h**2 + h**2 < 2 * flat  # twice the bound would be wrong


def test_upper_bound_by_hand_and_its_ends():
    # Kills: rows of the kernel for columns, the mean or Frobenius norm; K not squared; the factors 8 and 4.
    kernel = np.array([[3.0, 0.0, 1.0], [4.0, 1.0, 1.0]])
    bounds = theory.curvature_bounds(kernel, **GIVEN)
    np.testing.assert_allclose(bounds.upper, 8 / 0.5**4 * (0.7 * 25 * 0.16 + 4 * 0.3 * 9), rtol=1e-12)
    # "In the extreme case of feature stability ... the input loss curvature is zero": eta = 1 with delta = 0; any l_out does.
    extreme = theory.curvature_bounds(kernel, **GIVEN | dict(eta=1.0, delta=0.0, outside_loss=99.0))
    assert extreme.upper == 0
    np.testing.assert_allclose(extreme.lower, -4 / 0.5**4 * (0.5 * 0.3) ** 2, rtol=1e-12)
    rows = {name: np.full(2, value) for name, value in GIVEN.items()}
    np.testing.assert_allclose(theory.curvature_bounds(kernel, **rows).lower, np.full(2, bounds.lower), rtol=1e-12)
    np.testing.assert_allclose(jax.jit(theory.curvature_bounds)(kernel, **GIVEN), np.stack(bounds), rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(sigma=0.0), "must be one finite number above 0"),
        (dict(eta=1.2), "eta must be in [0, 1], got values from 1.2 to 1.2"),
        (dict(delta=-1.0), "delta must be at least 0"),
        (dict(loss=np.ones(2), eta=np.full(3, 0.5)), "arrays of one shape, got shapes [(2,), (3,)]"),
        (dict(outside_loss=np.nan), "outside_loss holds NaN"),
        (dict(kernel=np.ones(3)), "kernel must have shape (d, k), got (3,)"),
    ],
)
def test_bad_input_says_so(change, message):
    with pytest.raises(InputError) as error:
        theory.curvature_bounds(**{"kernel": np.ones((2, 3)), **GIVEN, **change})
    assert message in str(error.value) and "\n" not in str(error.value)
