"""The small parts of attacks against the official code's values (units.npz). Each test names the mutants it kills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks.objectives import evaluate
from tests.goldens import reference


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-6)])
@pytest.mark.parametrize(("name", "stored"), [("dlr", ""), ("dlr_targeted", "_targeted")])
def test_difference_of_logits_ratios(name, stored, dtype, tolerance):
    # Kills: the sign, the second largest logit for the largest other one, the second or fourth in the denominator for the third, the
    # denominator taken as a constant, label and target swapped.
    units = reference.load("attacks/units.npz")
    with jax.enable_x64():
        logits = jnp.asarray(units["dlr/logits"], dtype)
        labels, targets = (jnp.asarray(units[f"dlr/{n}"], jnp.int32) for n in ("y", "y_target"))
        values, gradient = jax.jit(lambda z: jax.vjp(lambda z: evaluate(name, z, labels, targets), z))(logits)
        (gradient,) = gradient(jnp.ones_like(values))
        assert values.dtype == gradient.dtype == dtype
        # Relative: rounding of the logits is magnified where the three largest meet.
        np.testing.assert_allclose(values, units[f"dlr/loss{stored}"], rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(gradient, units[f"dlr/grad{stored}"], rtol=10 * tolerance, atol=10 * tolerance)
