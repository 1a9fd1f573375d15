"""Geometry of the classes in feature space. Each test names the mutants it kills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import metrics
from robustjax.core import InputError

N, D, K = 150, 3, 5  # more rows than are measured at once; class 3 is absent, class 4 has one example
RNG = np.random.default_rng(0)
Q = RNG.normal(size=(N, D))
Y = np.append(RNG.integers(0, 3, N - 1), 4).astype(np.int32)
KERNEL, BIAS = RNG.normal(size=(D, K)), RNG.normal(size=K)


def brute_margins(*, signed):
    """Returns the margins by Definition 5.1, one hyperplane after another."""
    found = np.full(K, np.inf)
    for q, c in zip(Q, Y, strict=True):
        for i in set(range(K)) - {int(c)}:
            normal = KERNEL[:, c] - KERNEL[:, i]
            distance = (normal @ q + BIAS[c] - BIAS[i]) / np.linalg.norm(normal)
            found[c] = min(found[c], distance if signed else abs(distance))
    return found


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_dispersion_and_margins_are_those_of_brute_force(dtype, tolerance):
    # Kills: pairs across classes; squared distances; the mean for an extreme; rows lost or doubled at the end of a chunk; margins by a
    # norm of W_c alone, of absent classes as 0 or NaN, with a sign where none is defined.
    apart = np.linalg.norm(Q[:, None] - Q[None], axis=2)
    wanted = [apart[np.ix_(c == Y, c == Y)].max(initial=0) for c in range(K)]
    assert wanted[3] == wanted[4] == 0
    with jax.enable_x64(dtype is np.float64):
        arrays = [a.astype(dtype) for a in (Q, KERNEL, BIAS)]
        found = metrics.class_dispersion(arrays[0], Y, K)
        assert found.dtype == dtype and found[3] == found[4] == 0
        np.testing.assert_allclose(found, wanted, rtol=tolerance)
        for signed in (False, True):
            margins = metrics.class_margins(arrays[0], Y, *arrays[1:], signed=signed)
            assert np.isinf(margins[3]) and np.isfinite(margins[4])
            np.testing.assert_allclose(margins, brute_margins(signed=signed), rtol=100 * tolerance, atol=tolerance)
    assert brute_margins(signed=True).min() < 0


def test_extremes_over_batches():
    # Kills: a result that depends on the order of rows; margins that cannot be put together over batches; functions that cannot be traced.
    q, kernel, bias = (a.astype(np.float32) for a in (Q, KERNEL, BIAS))
    whole = metrics.class_margins(q, Y, kernel, bias)
    parts = [metrics.class_margins(q[i::2], Y[i::2], kernel, bias) for i in (0, 1)]
    np.testing.assert_allclose(jnp.minimum(*parts), whole, rtol=1e-6)
    order = np.random.default_rng(1).permutation(N)
    np.testing.assert_allclose(metrics.class_dispersion(q[order], Y[order], K), metrics.class_dispersion(q, Y, K), rtol=1e-6)
    traced = jax.jit(lambda *a: (metrics.class_dispersion(*a[:2], K), metrics.class_margins(*a)))(q, Y, kernel, bias)
    np.testing.assert_allclose(traced[0], metrics.class_dispersion(q, Y, K), rtol=1e-6)
    np.testing.assert_allclose(traced[1], whole, rtol=1e-5)


def test_classes_without_a_boundary():
    # Kills: NaN of 0 / 0; a distance from a hyperplane that does not exist.
    q, y = jnp.zeros((2, 1)), jnp.array([0, 2])
    kernel = jnp.array([[1.0, 1.0, 1.0]])
    assert metrics.class_margins(q, y, kernel, jnp.array([1.0, 0.0, 1.0])).tolist() == [0.0, np.inf, 0.0]
    assert metrics.class_margins(q, y, kernel, jnp.array([1.0, 0.0, -1.0]), signed=True).tolist() == [np.inf, np.inf, -np.inf]


def test_stability_of_a_linear_map_has_its_closed_form():
    # Kills: an open or a squared radius; draws and examples swapped; l_out over all draws, or divided by all draws; NaN where nothing
    # leaves the ball. In one dimension q = 2 x and l = x: the share is that of |noise| <= delta / 2.
    draws = np.random.default_rng(0).normal(size=(20_000, 2, 1)).astype(np.float32)
    clean = np.array([[1.0], [-3.0]], np.float32)
    noisy = 2 * (clean[None] + draws)
    share = metrics.feature_stability(2 * clean, noisy, delta=np.array([1.0, 4.0], np.float32))
    np.testing.assert_allclose(share, [0.382925, 0.954500], atol=0.02)  # erf(1 / sqrt(8)), erf(sqrt(2))
    losses = clean[:, 0] ** 2
    found = metrics.loss_stability(2 * clean, noisy, losses, noisy[:, :, 0] ** 2 / 4, delta=2.0)
    out = abs(draws[:, :, 0]) > 1
    np.testing.assert_array_equal(found.count, out.sum(0))
    np.testing.assert_allclose(found.outside, losses + 2.525, rtol=0.05)  # E[noise^2 | |noise| > 1] = 1 + 2 phi(1) / (1 - erf(sqrt(1/2)))
    np.testing.assert_allclose(found.change, abs(found.outside - losses), rtol=1e-6)
    still = metrics.loss_stability(clean, np.repeat(clean[None], 3, 0), losses, np.full((3, 2), 9, np.float32), delta=0.0)
    assert still.count.tolist() == [0, 0] and still.outside.tolist() == losses.tolist() and not still.change.any()
    assert metrics.feature_stability(clean, np.repeat(clean[None], 3, 0), delta=0.0).tolist() == [1.0, 1.0]
    gone = metrics.loss_stability(clean, clean[None] + 1, losses, np.full((1, 2), 4, np.float32), delta=0.5)
    assert gone.change.tolist() == [3.0, 5.0]


F = np.zeros((2, D), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.class_dispersion(F, Y[:3], K), "features must be floats (n, d), one row a label, got float32 (2, 3) and (3,)"),
        (lambda: metrics.class_dispersion(F, np.array([0, 5]), K), "labels must lie in [0, 4], got 5"),
        (lambda: metrics.class_dispersion(F, Y[:2], 0), "k is the number of classes, an integer >= 1, got 0"),
        (lambda: metrics.class_margins(F, Y[:2], KERNEL.T, BIAS), "(d, k) and (k,) with k > 1, got (5, 3) and (5,)"),
        (lambda: metrics.class_margins(F[:, :2], Y[:2], KERNEL, BIAS), "must have the same d, got (2, 2) and (3, 5)"),
        (lambda: metrics.feature_stability(F, F, delta=1.0), "(draws, b, d) with at least one draw, got (2, 3) and (2, 3)"),
        (lambda: metrics.feature_stability(F, F[None], delta=-1.0), "delta is a radius and must be at least 0, got -1.0"),
        (lambda: metrics.feature_stability(F, F[None], delta=np.ones(3)), "one for each of 2 examples, got shape (3,)"),
        (lambda: metrics.loss_stability(F, F[None], F[:, 0], F[:, 0], delta=1.0), "must have shapes (2,) and (1, 2)"),
    ],
)
def test_bad_input_says_so(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)
