"""SPIDER's Theorems 2, 3 and 4: what they say holds for drawn perturbations, and only for the values returned.

Each check is a function of the value, so that the test can show that it refuses twice the value, half of it, and the printed form.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import theory
from robustjax.core import InputError

DRAWS = 10_000
TIGHT = 1 + 1e-9


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def unit(rng, *shape):
    """Draws directions, uniform over all but the first axis together."""
    draws = rng.standard_normal(shape)
    return draws / np.sqrt((draws**2).sum(axis=tuple(range(1, draws.ndim)), keepdims=True))


def setting(seed, *, m=3, n=6, N=8, scale=1.0):
    rng = np.random.default_rng(seed)
    return rng, scale * rng.standard_normal((m, n)), rng.standard_normal((N, n)) * rng.uniform(0.5, 2, (N, 1))


def needed(W, Delta, X):
    """Returns per Δ the largest, over the points, of the norms that the smallest δ with Wδ = Δx must have."""
    return np.linalg.norm(np.einsum("nm,kmj,ij->kin", np.linalg.pinv(W), Delta, X), axis=2).max(1)


@pytest.mark.parametrize("seed", range(3))
def test_theorem_2(seed):
    # Kills: the printed inverse; gamma or the norm of x left out or squared; singular values of W^2; axes in another order.
    rng, W, (x, *_) = setting(seed)
    gamma = 0.7
    U, sigma, Vt = np.linalg.svd(W)
    Delta = gamma * unit(rng, DRAWS, 3, 6)
    delta = Delta @ x @ np.linalg.pinv(W).T
    extremal = gamma * np.einsum("mi,n->imn", U, x / np.linalg.norm(x)) @ x @ np.linalg.pinv(W).T
    sphere = unit(rng, DRAWS, 3)

    def holds(axes):
        inside = ((delta @ Vt[:3].T / axes) ** 2).sum(1) <= TIGHT
        reached = abs(np.diag(extremal @ Vt[:3].T)) / axes
        # The smallest Δ with Δx = Wδ is Wδ x'/‖x‖², whose norm is ‖Wδ‖/‖x‖; points of the null space add nothing.
        surface = (sphere * axes) @ Vt[:3] + rng.standard_normal((DRAWS, 3)) @ Vt[3:]
        cost = np.linalg.norm(surface @ W.T, axis=1) / np.linalg.norm(x) / gamma
        return inside.all() and np.allclose(reached, 1, atol=1e-9) and np.allclose(cost, 1, atol=1e-9)

    axes = np.asarray(theory.ellipsoid_semi_axes(W, x, gamma))
    printed = np.asarray(theory.ellipsoid_semi_axes(W, x, gamma, form="printed"))
    assert axes.dtype == np.float64 and holds(axes)
    assert not holds(2 * axes) and not holds(axes / 2) and not holds(axes[::-1]) and not holds(printed)
    # Where ‖x‖γ = 1 the printed form is right.
    both = [np.asarray(theory.ellipsoid_semi_axes(W, x, 1 / np.linalg.norm(x), form=form)) for form in ("corrected", "printed")]
    np.testing.assert_allclose(*both, rtol=1e-12)
    np.testing.assert_allclose(printed, 1 / (sigma * np.linalg.norm(x) * gamma), rtol=1e-12)


def test_perturbations_that_match_predict_the_same_and_softmax_hides_a_shift():
    # Kills: a δ that is not the Δ's; a claim that Wδ = Δx is necessary for softmax.
    rng, W, (x, *_) = setting(0)
    bias, Delta = rng.standard_normal(3), unit(rng, DRAWS, 3, 6)
    delta = Delta @ x @ np.linalg.pinv(W).T
    moved = jax.nn.softmax((x + delta) @ W.T + bias)
    np.testing.assert_allclose(moved, jax.nn.softmax((W + Delta) @ x + bias), atol=1e-12)
    shift = 2 * np.ones((3, 1)) * x / (x @ x)  # Δx = 2 for every class: no δ is needed
    np.testing.assert_allclose(jax.nn.softmax((W + shift) @ x + bias), jax.nn.softmax(W @ x + bias), atol=1e-12)


@pytest.mark.parametrize("scale", [0.2, 20.0], ids=["lambda_min < x_max", "lambda_min > x_max"])
@pytest.mark.parametrize("seed", range(2))
def test_theorem_3(seed, scale):
    # Kills: the printed square; λ_max; the smallest, first or mean point; gamma left out or squared.
    rng, W, X = setting(seed, scale=scale)
    gamma = 1.5
    U = np.linalg.svd(W)[0]
    longest = X[np.argmax(np.linalg.norm(X, axis=1))]
    directions = unit(rng, DRAWS, 3, 6)
    extremal = np.outer(U[:, 2], longest / np.linalg.norm(longest))[None]

    def inside(radius):
        return (needed(W, radius * directions, X) <= gamma * TIGHT).all() and needed(W, radius * extremal, X)[0] <= gamma * TIGHT

    def largest(radius):
        return needed(W, radius * extremal, X)[0] >= gamma / TIGHT

    radius = float(theory.parameter_ball_radius(W, X, gamma))
    printed = float(theory.parameter_ball_radius(W, X, gamma, form="printed"))
    assert inside(radius) and largest(radius)
    assert not inside(2 * radius) and not largest(radius / 2)
    # Below 1 the square is a ball that could be larger, above 1 it is not inside of R_Δ at all.
    assert printed == pytest.approx(radius**2) and (radius < 1) == (scale < 1)
    assert inside(printed) == (radius < 1) and largest(printed) == (radius > 1)


@pytest.mark.parametrize("seed", range(2))
def test_theorem_4_where_it_is_attained(seed):
    # Kills: sqrt(n) left out or n; λ_min; ‖A‖ for ‖A^-1‖; a factor of 2. Orthogonal points of one length, and weaker constraints.
    rng, W, _ = setting(seed)
    gamma, length = 0.3, 1.7
    A = length * np.linalg.qr(rng.standard_normal((6, 6)))[0]
    X = np.concatenate([A.T, 0.01 * rng.standard_normal((2, 6))])
    U, sigma, _ = np.linalg.svd(W)
    # R_Δ is {Δ = Y A^-1, each column of Y in the ellipsoid Wδ, ‖δ‖ <= γ}: draw the columns on its surface.
    Y = np.moveaxis(gamma * unit(rng, DRAWS * 6, 3).reshape(DRAWS, 6, 3) * sigma @ U.T, 1, 2)
    extremal = gamma * sigma[0] * np.outer(U[:, 0], np.ones(6))
    Delta = np.concatenate([Y, extremal[None]]) @ np.linalg.inv(A)
    np.testing.assert_allclose(needed(W, Delta, X), gamma, rtol=1e-9)

    def holds(radius):
        norms = np.linalg.norm(Delta, axis=(1, 2))
        return (norms <= radius * TIGHT).all() and norms[-1] >= radius / TIGHT

    radius = float(theory.parameter_superset_radius(W, X, gamma))
    assert holds(radius) and not holds(2 * radius) and not holds(radius / 2)


@pytest.mark.parametrize("seed", range(3))
def test_theorem_4_in_general(seed):
    # Kills: the first n points for the best n; the largest of the choices; a radius that leaves drawn Δ out, or is loose by 4.
    rng, W, X = setting(seed)
    gamma = 0.3
    directions = unit(rng, DRAWS, 3, 6)
    # The direction in which the points say least about Δ, and λ_max: near the farthest Δ.
    directions[0] = np.outer(np.linalg.svd(W)[0][:, 0], np.linalg.svd(X)[2][-1])
    norms = gamma / needed(W, directions, X)  # of the Δ on the boundary of R_Δ
    radius = float(theory.parameter_superset_radius(W, X, gamma))
    choices = list(itertools.combinations(range(8), 6))
    every = [np.sqrt(6) * gamma * np.linalg.norm(W, 2) * np.linalg.norm(np.linalg.inv(X[list(rows)]), 2) for rows in choices]
    assert radius == pytest.approx(min(every), rel=1e-9)
    np.testing.assert_allclose([theory.parameter_superset_radius(W, X, gamma, subset=rows) for rows in choices[:3]], every[:3], rtol=1e-9)
    assert norms.max() <= radius * TIGHT and norms.max() > radius / 4
    assert norms.min() >= float(theory.parameter_ball_radius(W, X, gamma)) / TIGHT
    # As printed: one cylinder of the union is unbounded, and the square leaves Δ out where the radius is small.
    far = 1e6 * np.outer(np.ones(3), np.linalg.svd(X[:1])[2][-1])[None]
    assert needed(W, far, X[:1])[0] < gamma < needed(W, far, X)[0]
    small = 0.01 / radius
    printed = float(theory.parameter_superset_radius(W, X, gamma * small, form="printed"))
    assert printed == pytest.approx(1e-4) and norms.max() * small > printed


def test_definition_2_has_no_region_but_its_second_clause():
    # Kills: a claim that R_Δ reaches every ‖δ‖ <= γ at every point: at x_1 = x_2 / 2 it reaches half.
    rng, W, _ = setting(0, m=2, n=2)
    x = np.array([1.0, 0.5])
    X = np.stack([x, 2 * x])
    directions = unit(rng, DRAWS, 2, 2)
    Delta = directions / needed(W, directions, X)[:, None, None]
    assert needed(W, Delta, X[:1]).max() == pytest.approx(0.5)


@pytest.mark.parametrize(
    "f", [theory.ellipsoid_semi_axes, theory.parameter_ball_radius, theory.parameter_superset_radius], ids=lambda f: f.__name__
)
def test_jit_dtype_and_scaling(f):
    # Kills: values read while tracing; float64 inside of float32; a result not homogeneous in γ and W.
    _, W, X = setting(3)
    x = X[0] if f is theory.ellipsoid_semi_axes else X
    eager = np.asarray(f(W, x, 0.5))
    np.testing.assert_allclose(jax.jit(f)(W, x, 0.5), eager, rtol=1e-12)
    np.testing.assert_allclose(f(W, x, 1.5), 3 * eager, rtol=1e-12)
    single = f(W.astype(np.float32), x.astype(np.float32), np.float32(0.5))
    assert single.dtype == np.float32 and f(W, x, jnp.float32(0.5)).dtype == np.float64
    np.testing.assert_allclose(single, eager, rtol=1e-5)
    assert f(jnp.asarray(W, jnp.bfloat16), jnp.asarray(x, jnp.bfloat16), 0.5).dtype == np.float32


def test_points_that_do_not_span_when_traced():
    # Kills: a division by zero, or a finite radius, where no choice spans.
    X = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    assert jax.jit(theory.parameter_superset_radius)(np.eye(2), X, 1.0) == np.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.ellipsoid_semi_axes(np.ones((3, 2)), np.ones(2), 1.0), "transpose a kernel"),
        (lambda: theory.ellipsoid_semi_axes(np.eye(2), np.ones(3), 1.0), r"x must have shape \(2,\)"),
        (lambda: theory.ellipsoid_semi_axes(np.ones((2, 3)), np.ones(3), 1.0), "full row rank"),
        (lambda: theory.ellipsoid_semi_axes(np.eye(2), np.zeros(2), 1.0), "x is zero"),
        (lambda: theory.ellipsoid_semi_axes(np.eye(2), np.ones(2), 0.0), "gamma must be one finite number above 0"),
        (lambda: theory.ellipsoid_semi_axes(np.eye(2), np.ones(2), 1.0, form="proven"), "'corrected' or 'printed'"),
        (lambda: theory.ellipsoid_semi_axes(np.eye(2), np.array([1.0, np.nan]), 1.0), "x holds NaN"),
        (lambda: theory.ellipsoid_semi_axes(np.eye(2), np.array(["a", "b"]), 1.0), "real numbers"),
        (lambda: theory.parameter_ball_radius(np.eye(2), np.ones(2), 1.0), r"X must have shape \(N, 2\)"),
        (lambda: theory.parameter_ball_radius(np.eye(2), np.ones((0, 2)), 1.0), "X is empty"),
        (lambda: theory.parameter_superset_radius(np.eye(2), np.ones((1, 2)), 1.0), "at least 2 are needed"),
        (lambda: theory.parameter_superset_radius(np.eye(2), np.ones((4, 2)), 1.0), "do not span"),
        (lambda: theory.parameter_superset_radius(np.eye(2), np.ones((300, 2)), 1.0), "pass subset="),
        (lambda: theory.parameter_superset_radius(np.eye(2), np.eye(2), 1.0, subset=(0, 0)), "different row numbers"),
        (lambda: theory.parameter_superset_radius(np.eye(2), np.eye(2), 1.0, subset=np.array([0, 2])), "different row numbers"),
    ],
)
def test_refusals(call, message):
    # Kills: a check left out; a message that does not say what to do, or runs over lines.
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
