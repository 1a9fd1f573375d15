"""SPIDER's Theorems 2 to 4 against reference data (see data/losses_metrics/README.md)."""

import contextlib

import jax
import numpy as np
import pytest

from robustjax import theory
from tests.goldens import reference

CASE = pytest.mark.parametrize("case", ["small_lambda", "big_lambda"])
PRECISION = pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-5), (np.float64, 1e-9)])


def stored(case):
    data = reference.load("losses_metrics/theory.npz")
    return {key.removeprefix(f"conv.{case}."): data[key] for key in data if key.startswith(f"conv.{case}.")}


def precision(dtype):
    return jax.enable_x64(True) if dtype is np.float64 else contextlib.nullcontext()


@CASE
@PRECISION
def test_radii_and_axes(case, dtype, tolerance):
    # Kills: a printed form under the corrected name or the other way; another choice of points; another order of axes.
    data = stored(case)
    W, X, x, gamma = (data[key].astype(dtype) for key in ("W", "X", "T2.x", "gamma"))
    with precision(dtype):
        for form, suffix in (("corrected", ""), ("printed", "_printed")):
            axes = theory.ellipsoid_semi_axes(W, x, gamma, form=form)
            assert axes.dtype == dtype
            np.testing.assert_allclose(axes, data[f"T2.semi_axes{suffix}"], rtol=tolerance)
            radius = theory.parameter_ball_radius(W, X, gamma, form=form)
            np.testing.assert_allclose(radius, data[f"T3.radius{suffix}"], rtol=tolerance)
        superset = np.asarray(theory.parameter_superset_radius(W, X, gamma))
        np.testing.assert_allclose(superset, data["T4.radius_upper"], rtol=tolerance)
        np.testing.assert_allclose(theory.parameter_superset_radius(W, X, gamma, subset=data["T4.subset"]), superset, rtol=tolerance)
        np.testing.assert_allclose(theory.parameter_superset_radius(W, X, gamma, form="printed"), superset**2, rtol=tolerance)
    # The farthest Δ that a maximisation found.
    assert data["T4.radius_found"] <= superset * (1 + tolerance) and data["T4.radius_found"] > superset / 2


@CASE
def test_stored_perturbations_lie_on_and_in_the_ellipsoid(case):
    # Kills: axes too long or too short by a factor of 2, for perturbations drawn by someone else.
    data = stored(case)
    with precision(np.float64):
        axes = np.asarray(theory.ellipsoid_semi_axes(data["W"], data["T2.x"], data["gamma"]))
    np.testing.assert_allclose(data["T2.sample_delta_minnorm"] @ data["W"].T, data["T2.sample_Delta"] @ data["T2.x"], atol=1e-9)
    inside = (data["T2.sample_delta_minnorm"] @ data["Vt"][:3].T / axes) ** 2
    assert inside.sum(1).max() <= 1 < 4 * inside.sum(1).max()
