"""The small parts of attacks against the official code's values (units.npz). Each test names the mutants it kills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from robustjax.attacks.objectives import evaluate
from robustjax.attacks.projections import l1_ball_and_box
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


@pytest.mark.parametrize("eps", [0.5, 2.0, 8.0])
def test_projection_onto_the_l1_ball_and_the_box(eps):
    # Kills: projecting onto one after the other; a ball around another point; a search that ends early. The official code computes in
    # float32 and leaves the sets by up to 1.5e-5, so beside it stands the root of the equation for the multiplier by scipy.
    units = reference.load("attacks/units.npz")
    x, y, official = (units[f"l1proj/{n}"].astype(np.float64) for n in ("x", "y", f"delta_eps{eps}"))
    room, exact = np.where(y > 0, 1 - x, x), np.empty_like(y)

    def over(multiplier, i):
        return np.clip(np.abs(y[i]) - multiplier, 0, room[i]).sum() - eps

    for i in range(len(y)):
        root = scipy.optimize.brentq(over, 0, np.abs(y[i]).max(), args=(i,), xtol=1e-14) if over(0, i) > 0 else 0
        exact[i] = np.sign(y[i]) * np.clip(np.abs(y[i]) - root, 0, room[i])
    with jax.enable_x64():
        projected = jax.jit(l1_ball_and_box)(jnp.asarray(y), jnp.asarray(x), eps)
        assert projected.dtype == jnp.float64
        np.testing.assert_allclose(projected, exact, atol=1e-12)
    projected = jax.jit(l1_ball_and_box)(jnp.asarray(y, jnp.float32), jnp.asarray(x, jnp.float32), eps)
    np.testing.assert_allclose(projected, exact, atol=1e-6)
    np.testing.assert_allclose(projected - y, official, atol=2e-5)
