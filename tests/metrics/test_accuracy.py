"""Per-example accuracy, likelihood and confidence. Each test names the mutants it kills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.core import InputError
from robustjax.metrics import confidence, correct, nll

LOGITS = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 3.0, 2.0]], np.float32)
LABELS = np.array([0, 1, 1])


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_against_the_formulas(wrap):
    # Kills: argmin, the wrong axis, a sum or mean over the batch, probabilities for log-probabilities, a base-2 logarithm.
    logits, labels = jnp.asarray(LOGITS), jnp.asarray(LABELS)
    p = np.exp(LOGITS.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    np.testing.assert_array_equal(wrap(correct)(logits, labels), [True, False, True])
    np.testing.assert_allclose(wrap(nll)(logits, labels), -np.log(p[range(3), LABELS]), rtol=1e-6)
    np.testing.assert_allclose(wrap(confidence)(logits), p.max(1), rtol=1e-6)


def test_saturated_and_broken_logits():
    # Kills: log(softmax), which is infinite here; a NaN row that counts for the class where argmax finds the NaN;
    # labels counted from the end.
    saturated = jnp.array([[0.0, 500.0]])
    np.testing.assert_array_equal(nll(saturated, jnp.array([0])), [500.0])
    with jax.debug_nans(False):
        broken = jnp.full((1, 3), jnp.nan)
        assert not correct(broken, jnp.array([0]))[0] and jnp.isnan(nll(broken, jnp.array([0])))[0]
        # Traced labels cannot be checked; -1 must not be the last class.
        assert jnp.isnan(jax.jit(nll)(LOGITS, jnp.array([-1, 3, -4]))).all()


@pytest.mark.parametrize(("dtype", "expected"), [(jnp.bfloat16, jnp.float32), (jnp.float32, jnp.float32), (jnp.float64, jnp.float64)])
def test_dtype_is_at_least_float32(dtype, expected):
    # Kills: bfloat16 results, float64 cut to float32, int64 against int32 under strict promotion.
    with jax.enable_x64(dtype == jnp.float64):
        logits, labels = jnp.asarray(LOGITS, dtype), jnp.asarray(LABELS)
        assert nll(logits, labels).dtype == confidence(logits).dtype == expected
        np.testing.assert_array_equal(correct(logits, labels), [True, False, True])


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (LOGITS, LABELS[:2], "3 rows of logits and 2 labels"),
        (LOGITS, np.array([0, 1, 3]), r"\[0, 2\], got 3"),
        (LOGITS[0], LABELS, r"shape \(b, k\)"),
        (LOGITS.astype(int), LABELS, "floats"),
    ],
)
def test_bad_input_says_so(logits, labels, message):
    # Kills: broadcasting one label over all rows; labels wrapped round by indexing.
    for function in (correct, nll):
        with pytest.raises(InputError, match=message):
            function(logits, labels)
