"""Expected calibration error. Each test names the mutants it kills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from robustjax.core import InputError
from robustjax.metrics import calibration_error, calibration_sums, expected_calibration_error


def by_hand(confidence, correct, bins):
    """Sorts into ((m - 1)/M, m/M] one example at a time."""
    total, n = 0.0, len(confidence)
    for m in range(1, bins + 1):
        inside = [i for i in range(n) if (m - 1) / bins < confidence[i] <= m / bins or (m == 1 and confidence[i] == 0)]
        if inside:
            total += len(inside) / n * abs(np.mean(correct[inside]) - np.mean(confidence[inside]))
    return total


def draws(n, seed=0):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.1, 1, n)
    return confidence, rng.uniform(size=n) < confidence**2


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_against_bins_filled_by_hand(bins):
    # Kills: a mean over bins without weights, squared gaps, the number of bins ignored, empty bins that give NaN.
    confidence, correct = draws(200)
    with jax.enable_x64():
        np.testing.assert_allclose(
            expected_calibration_error(confidence, correct, bins=bins), by_hand(confidence, correct, bins), rtol=1e-12
        )
    np.testing.assert_allclose(
        expected_calibration_error(confidence.astype(np.float32), correct, bins=bins), by_hand(confidence, correct, bins), atol=2e-6
    )


def test_closed_forms():
    # Kills: the sign lost (over- and under-confidence cancel across bins but not within one), accuracy instead of the gap.
    sure = np.ones(8, np.float32)
    assert expected_calibration_error(sure, np.ones(8, bool)) == 0
    assert expected_calibration_error(sure, np.zeros(8, bool)) == 1
    mixed = np.array([0.25, 0.25, 0.75, 0.75], np.float32)  # right where unsure, wrong where sure: gaps of 0.75 that must not cancel
    assert expected_calibration_error(mixed, np.array([True, True, False, False]), bins=2) == 0.75


def test_edges_belong_to_the_lower_bin():
    # Kills: floor(confidence * bins), which puts 3/15 into the fourth bin and 1 outside of the last; edges in another dtype.
    for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
        with jax.enable_x64(dtype == jnp.float64):
            edges = jnp.asarray(np.arange(16) / 15, dtype)
            counts = calibration_sums(edges, jnp.ones(16, bool)).count
            # bfloat16 rounds k/15 before it is lifted, so an edge may fall to either side there; the ends may not.
            if dtype == jnp.bfloat16:
                assert counts[0] >= 1 and counts[-1] >= 1 and counts.sum() == 16
            else:
                np.testing.assert_array_equal(counts, [2] + [1] * 14)


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: jax.jit(f, static_argnames="bins")], ids=["eager", "jit"])
def test_batches_add_up_and_padding_does_not_count(wrap):
    # Kills: averaging batch errors (0.32 instead of 0.19 here or so), padded rows counted, NaN in padding that spreads.
    confidence, correct = draws(50)
    confidence = confidence.astype(np.float32)
    whole = expected_calibration_error(confidence, correct)
    sums = None
    with jax.debug_nans(False):
        for first in range(0, 50, 20):
            part, right = confidence[first : first + 20], correct[first : first + 20]
            pad = 20 - len(part)
            mask = np.arange(20) < len(part)
            part = np.concatenate([part, np.full(pad, np.nan, np.float32)])
            right = np.concatenate([right, np.ones(pad, bool)])
            new = wrap(calibration_sums)(jnp.asarray(part), jnp.asarray(right), mask=jnp.asarray(mask))
            sums = new if sums is None else jax.tree.map(jnp.add, sums, new)
    assert sums.count.sum() == 50
    np.testing.assert_allclose(calibration_error(sums), whole, atol=1e-6)


def test_bins_may_be_a_number_of_numpy():
    # Kills: isinstance(bins, int).
    confidence, correct = draws(50)
    whole = expected_calibration_error(confidence, correct, bins=15)
    assert expected_calibration_error(confidence, correct, bins=np.int64(15)) == whole


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: expected_calibration_error(np.array([1.5, 0.5]), np.ones(2, bool)), "probabilities"),
        (lambda: expected_calibration_error(np.array([np.nan]), np.ones(1, bool)), "probabilities"),
        (lambda: expected_calibration_error(np.ones((2, 3)), np.ones(2, bool)), "shape"),
        (lambda: expected_calibration_error(np.ones(2), np.ones(3, bool)), "correct must be bool"),
        (lambda: expected_calibration_error(np.ones(2), np.ones(2)), "correct must be bool"),
        (lambda: calibration_sums(np.ones(2), np.ones(2, bool), bins=0), "bins"),
        (lambda: expected_calibration_error(np.ones(0), np.ones(0, bool)), "no examples"),
    ],
)
def test_bad_input_says_so(call, message):
    # Kills: an error of 0, 'perfect', for no examples or for NaN.
    with jax.debug_nans(False), pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_rows_sharded_over_an_explicit_mesh(wrap):
    # Kills: searchsorted and scatters, which have no rule for rows that carry their sharding in their type.
    confidence, correct = draws(16)
    confidence = confidence.astype(np.float32)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    rows = jax.device_put((confidence, correct), NamedSharding(mesh, PartitionSpec("data")))
    alone = calibration_sums(confidence, correct)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), wrap(calibration_sums)(*rows), alone)
