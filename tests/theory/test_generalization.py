"""Theorems 6.2 and 6.3 of the discriminative-loss paper against brute force and closed forms. Each test names the mutants it kills."""

import itertools

import jax
import numpy as np
import pytest

from robustjax import theory
from robustjax.core import InputError

BALL = dict(radius=2.0, rho=3.0, feature_bound=0.5, center_bound=1.5, delta=0.1)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def complexity(n, feature_bound, center_bound):
    """Returns the empirical Rademacher complexity of the theorem's functions in one dimension, over all signs.

    Given m, where the sign is -1 the best feature is the one farthest from m, where it is 1 the nearest one to m.
    """
    m = np.linspace(0, center_bound, 301)
    far, near = (feature_bound + m) ** 2, np.maximum(m - feature_bound, 0) ** 2
    signs = np.array(list(itertools.product((-1, 1), repeat=n)))
    minus, plus = (signs == -1).sum(1)[:, None], (signs == 1).sum(1)[:, None]
    return ((minus * far - plus * near) / n).max(1).mean()


@pytest.mark.parametrize(("feature_bound", "center_bound"), [(1.0, 1.0), (0.2, 2.0), (3.0, 0.5)])
@pytest.mark.parametrize("n", [1, 4, 10])
def test_complexity_of_theorem_6_2_holds_and_is_not_loose(n, feature_bound, center_bound):
    # Kills: a term of Eq. 26 left out, 1/N for 1/sqrt(N), a factor 2 that is missing or too much, rho in the numerator.
    options = dict(radius=2.0, rho=3.0, delta=0.1)
    bound = theory.mapping_error_bound(np.zeros(n), feature_bound=feature_bound, center_bound=center_bound, **options)
    found = (float(bound) - 3 * np.sqrt(np.log(20) / (2 * n))) * 3.0 / 2
    brute = complexity(n, feature_bound, center_bound)
    np.testing.assert_allclose(found, feature_bound**2 + 2 * feature_bound * center_bound + center_bound**2 / np.sqrt(n), rtol=1e-10)
    assert brute <= found <= 3 * brute


def test_margin_error_and_what_the_bound_adds_up():
    # Kills: distances that are not squared; rho for its root; an inside that costs something; a sum for the mean; the confidence term's
    # 1/N, log 1/delta, or missing 3.
    distances = np.linspace(0, 3, 31)
    phi = np.array([1 if d >= 2 else 0 if d <= 1 else 1 - (4 - d**2) / 3 for d in distances])
    np.testing.assert_allclose(theory.margin_error(distances, radius=2.0, rho=3.0), phi, atol=1e-12)
    np.testing.assert_allclose(theory.margin_error(distances, radius=2.0, rho=1e-9), distances >= 2, atol=1e-6)
    bounds = [float(theory.mapping_error_bound(d, **BALL)) for d in (distances, np.zeros(31))]
    np.testing.assert_allclose(bounds[0] - bounds[1], phi.mean(), rtol=1e-10)
    sure = float(theory.mapping_error_bound(np.zeros(31), **BALL | dict(delta=0.01)))
    np.testing.assert_allclose(sure - bounds[1], 3 * (np.sqrt(np.log(200) / 62) - np.sqrt(np.log(20) / 62)), rtol=1e-10)
    # What is left with any number of examples.
    many = float(theory.mapping_error_bound(np.zeros(10**6), **BALL))
    np.testing.assert_allclose(many, 2 / 3 * (0.25 + 1.5), atol=6e-3)


def test_divergence_of_two_classes():
    # Kills: bits for nats, 2 or 1/4 for 1/2, tau not centred. Two features, tau of each class on its own: D_JS = ln 2 - H(tau), from
    # above, and the bound becomes exact where tau goes to 1/2.
    tau = np.linspace(0.5, 1, 51)[1:-1]
    divergence = np.log(2) + tau * np.log(tau) + (1 - tau) * np.log(1 - tau)
    bound = np.asarray(theory.js_divergence_lower_bound(tau))
    assert (bound <= divergence).all()
    np.testing.assert_allclose(bound[0], divergence[0], rtol=1e-3)
    np.testing.assert_allclose(theory.js_divergence_lower_bound(1.0), 0.5)
    assert theory.js_divergence_lower_bound(0.5) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.js_divergence_lower_bound(0.4), "tau is a probability of at least 1/2 and must lie in [0.5, 1]"),
        (lambda: theory.margin_error(np.zeros(3), radius=1.0, rho=1.0), "rho must be below radius**2 = 1, got 1"),
        (lambda: theory.margin_error(np.zeros((3, 1)), radius=1.0, rho=0.5), "distances must have shape (n,), got (3, 1)"),
        (lambda: theory.margin_error(np.array([-1.0]), radius=1.0, rho=0.5), "distances must be at least 0, got -1"),
        (
            lambda: theory.mapping_error_bound(np.zeros(3), **BALL | dict(delta=1.0)),
            "delta is a probability and must lie in (0, 1), got 1.0",
        ),
        (
            lambda: theory.mapping_error_bound(np.zeros(3), **BALL | dict(center_bound=0.0)),
            "center_bound must be one finite number above 0",
        ),
    ],
)
def test_bad_input_says_so(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)
