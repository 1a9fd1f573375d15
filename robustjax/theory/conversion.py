"""From perturbed parameters to perturbed inputs of a linear classifier and back: SPIDER's Theorems 2, 3 and 4.

f(x) = softmax(W x + b) with W (m, n) of full row rank. A parameter perturbation Δ (m, n) and an input perturbation δ (n,) do
the same at x if "Wδ = Δx" (section 3.3.2). Norms of Δ are Frobenius norms. What is small in one space is small in the other:

    ‖Δ‖ <= γ  reaches exactly the ellipsoid of δ (in the row space of W) with `ellipsoid_semi_axes`             Theorem 2
    ‖δ‖ <= γ  answers every Δ of the ball of `parameter_ball_radius`, at all points of a data set at once          Theorem 3
              and no Δ outside of the ball of `parameter_superset_radius`                                          Theorem 4

Two provisos that the paper leaves out. The equality "σ(W(x + δ) + b) = σ((W + Δ)x + b) <=> Wδ = Δx" needs a bijective σ, as
the sigmoid is (ESP); softmax ignores a shift of all logits, so that Wδ = Δx is sufficient and not necessary. And its
Definition 2 asks a region of Δ to reach all of ‖δ‖ <= γ at every x, which none can where x_2 = 2 x_1; meant and used here is
its second half: R_Δ = {Δ: at every x of the data there is a ‖δ‖ <= γ with Wδ = Δx}.

Each radius has `form='printed'` for the expression in the paper, which is wrong as marked; 'corrected' is what the proofs give.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robustjax.core.check import InputError, is_concrete
from robustjax.core.numerics import safe_norm
from robustjax.core.types import ArrayLike, Scalar
from robustjax.theory.doors import as_floats, check_positive

MAX_CHOICES = 20_000  # of n points among N, tried one by one


def ellipsoid_semi_axes(W: ArrayLike, x: ArrayLike, gamma: ArrayLike | Scalar, *, form: str = "corrected") -> Float[Array, " m"]:
    """Returns the semi-axes of the ellipsoid of input perturbations that the parameter ball ‖Δ‖ <= γ amounts to at x.

    SPIDER, Theorem 2: "Given W, x, and parameter perturbation region {‖Δ‖ <= γ}, a m-dim rotated ellipsoid satisfies the
    definition of R_δ." From ‖Δx‖ <= ‖x‖γ and Σ V'δ = U'Δx: the i-th axis lies along the i-th right singular vector of W and has
    length ‖x‖ γ / σ_i. Every Δ of the ball has its δ = pinv(W) Δx in the ellipsoid, and every δ of it has such a Δ. Adding
    anything in the null space of W to δ changes nothing.

    Args:
        W: (m, n) weights, outputs first, of full row rank.
        x: (n,) one input, not zero.
        gamma: γ > 0, largest Frobenius norm of Δ.
        form: 'corrected'; or 'printed': "principal semi-axes have lengths (σ_1‖x‖γ)^-1, ..., (σ_m‖x‖γ)^-1" (appendix C), which
            is another length unless ‖x‖γ = 1.

    Returns:
        (m,) lengths in the units of x, in the order of descending singular values, so ascending; directions are the first m
        rows of the last result of `jnp.linalg.svd(W)`. Float64 in gives float64 out.

    Raises:
        InputError: for shapes that do not fit, an unknown form and, where values are known, an x of zeros, γ <= 0, or a W
            without full row rank.

    >>> ellipsoid_semi_axes(jnp.array([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), jnp.array([0.0, 3.0, 4.0]), 0.6).tolist()
    [1.0, 3.0]
    """
    W, x = as_floats(W=W, x=x)
    _check(W, x, gamma, form, ndim=1)
    return _semi_axes(W, x, jnp.asarray(gamma).astype(W.dtype), form=form)


@functools.partial(jax.jit, static_argnames="form")
def _semi_axes(W: Array, x: Array, gamma: Array, *, form: str) -> Array:
    reach, sigma = safe_norm(x) * gamma, _singular_values(W)
    return reach / sigma if form == "corrected" else 1 / (sigma * reach)


def parameter_ball_radius(W: ArrayLike, X: ArrayLike, gamma: ArrayLike | Scalar, *, form: str = "corrected") -> Float[Array, ""]:
    """Returns the radius of the largest ball of Δ each of which some ‖δ‖ <= γ imitates at every point of the data.

    SPIDER, Theorem 3: "let x_max := argmax ‖x_i‖ and λ_min := min{λ_1, ..., λ_m}. Then, {‖Δ‖ <= (‖x_max‖²/λ_min²)^-1} is the
    subset of R_Δ", with "λ_i := σ_i γ". Lemma 3 bounds d'd, the squared norm, so the radius is λ_min / ‖x_max‖. It is attained:
    Δ = λ_min/‖x_max‖² u_m x_max' needs ‖δ‖ = γ exactly. Corollary 1's b-flat minima have b >= this radius too (the paper prints the
    square), for a loss that is constant on the whole ball ‖δ‖ <= γ around every point.

    Args:
        W: (m, n) weights, outputs first, of full row rank.
        X: (N, n) data, one point a row, not all zero.
        gamma: γ > 0, largest L2 norm of δ.
        form: 'corrected'; or 'printed', the square: too small below 1, and above 1 wrong (the ball then holds Δ that need ‖δ‖ > γ).

    Returns:
        Scalar. Float64 in gives float64 out.

    Raises:
        InputError: as `ellipsoid_semi_axes`, where all of X is zero.

    >>> float(parameter_ball_radius(jnp.array([[3.0, 0.0], [0.0, 1.0]]), jnp.array([[3.0, 4.0], [1.0, 0.0]]), 10.0))
    2.0
    """
    W, X = as_floats(W=W, X=X)
    _check(W, X, gamma, form, ndim=2)
    return _ball_radius(W, X, jnp.asarray(gamma).astype(W.dtype), form=form)


@functools.partial(jax.jit, static_argnames="form")
def _ball_radius(W: Array, X: Array, gamma: Array, *, form: str) -> Array:
    radius = _singular_values(W)[-1] * gamma / jnp.max(safe_norm(X, axis=1))
    return radius if form == "corrected" else radius**2


def parameter_superset_radius(
    W: ArrayLike, X: ArrayLike, gamma: ArrayLike | Scalar, *, form: str = "corrected", subset: Sequence[int] | ArrayLike | None = None
) -> Float[Array, ""]:
    """Returns the radius of a ball that holds every Δ which some ‖δ‖ <= γ imitates at every point of the data.

    SPIDER, Theorem 4: "let R_i := {d'X_λ^(i) d <= 1} and Γ := {R_i}. Then {argmin_{R_1..R_n ∈ Γ} max_{ρ ∈ ∪R_i} ‖ρ‖²} is the superset
    of R_Δ". The union must be read as an intersection (one R_i alone is an unbounded cylinder), and the norm as not squared. n points
    A = [x_1 ... x_n] that span R^n bound Δ by ‖Δ‖ <= ‖ΔA‖ ‖A^-1‖_2, and each ‖Δx_i‖ <= λ_max = σ_1 γ, so

        radius = sqrt(n) λ_max ‖A^-1‖_2,  the least over the choice of n points.

    An upper bound of the paper's maximum, attained where the n points are orthogonal and of one length, loose by a small factor else.

    Args:
        W: (m, n) weights, outputs first, of full row rank.
        X: (N, n) data, one point a row, spanning R^n.
        gamma: γ > 0, largest L2 norm of δ.
        form: 'corrected'; or 'printed', the square (Figure 4: "{‖Δ‖ <= ρ²}"), which below 1 leaves Δ out.
        subset: (n,) rows of X to use; any that span R^n give a valid, perhaps larger, radius. None tries every choice, up to 20,000.

    Returns:
        Scalar. Float64 in gives float64 out. Infinite where values are traced and no choice spans R^n.

    Raises:
        InputError: as `ellipsoid_semi_axes`, for a subset that is not n different rows, more than 20,000 choices without a subset
            and, where values are known, points that do not span R^n.

    >>> round(float(parameter_superset_radius(jnp.eye(2), jnp.array([[1.0, 0.0], [0.0, 1.0], [0.1, 0.1]]), 2.0)), 4)
    2.8284
    """
    W, X = as_floats(W=W, X=X)
    _check(W, X, gamma, form, ndim=2)
    choices = jnp.asarray(_choices(*X.shape, subset))
    radius = _superset_radius(W, X, jnp.asarray(gamma).astype(W.dtype), choices, form=form)
    if is_concrete(radius) and np.isinf(radius):
        raise InputError(f"the points do not span R^{X.shape[1]}, so that some Δ changes nothing at any of them; add points.")
    return radius


@functools.partial(jax.jit, static_argnames="form")
def _superset_radius(W: Array, X: Array, gamma: Array, choices: Array, *, form: str) -> Array:
    n = X.shape[1]
    least = jax.lax.map(lambda rows: _singular_values(X[rows])[-1], choices)  # 1 / ‖A^-1‖_2
    least = jnp.max(jnp.where(least > n * jnp.finfo(X.dtype).eps * jnp.max(safe_norm(X, axis=1)), least, 0))
    radius = jnp.where(least > 0, math.sqrt(n) * _singular_values(W)[0] * gamma / jnp.where(least > 0, least, 1), jnp.inf)
    return radius if form == "corrected" else radius**2


def _singular_values(A: Float[Array, "m n"]) -> Float[Array, " k"]:
    """Returns the singular values, largest first."""
    return jnp.linalg.svd(A, compute_uv=False)


def _choices(N: int, n: int, subset: Sequence[int] | ArrayLike | None) -> np.ndarray:
    """Returns (choices, n) rows of X to try."""
    if subset is not None:
        rows = np.asarray(subset)
        if rows.shape != (n,) or not set(rows.tolist()) <= set(range(N)) or len(set(rows.tolist())) < n:
            raise InputError(f"subset must be n = {n} different row numbers of X below {N}, got {rows.tolist()}.")
        return rows[None].astype(np.int32)
    if n > N:
        raise InputError(f"X holds {N} points of dimension {n}; at least {n} are needed to span R^{n}.")
    if math.comb(N, n) > MAX_CHOICES:
        raise InputError(
            f"there are more than {MAX_CHOICES} choices of {n} among {N} points; pass subset=, "
            f"e.g. scipy.linalg.qr(X.T, mode='r', pivoting=True)[1][:{n}]."
        )
    return np.asarray(list(itertools.combinations(range(N), n)), np.int32)


def _check(W: Array, x: Array, gamma: ArrayLike | Scalar, form: str, *, ndim: int) -> None:
    """Checks what the theorems share; x is one point (n,) or the data (N, n)."""
    if W.ndim != 2 or W.shape[0] > W.shape[1]:
        raise InputError(f"W must have shape (m, n) with m <= n, outputs first, got {W.shape}; transpose a kernel of Flax.")
    if x.ndim != ndim or x.shape[-1] != W.shape[1]:
        name, shape = ("x", f"({W.shape[1]},)") if ndim == 1 else ("X", f"(N, {W.shape[1]})")
        raise InputError(f"{name} must have shape {shape} to fit W of shape {W.shape}, got {x.shape}.")
    if form not in ("corrected", "printed"):
        raise InputError(f"form must be 'corrected' or 'printed', got {form!r}.")
    check_positive(gamma=gamma)
    if is_concrete(x) and not np.asarray(x).any():
        raise InputError(f"{'x is' if ndim == 1 else 'all points of X are'} zero: no parameter perturbation changes anything there.")
    if is_concrete(W):
        sigma = np.linalg.svd(np.asarray(W), compute_uv=False)
        if sigma[-1] <= max(W.shape) * float(jnp.finfo(W.dtype).eps) * sigma[0]:
            raise InputError(
                f"W must have full row rank, got singular values from {sigma[0]:.4g} to {sigma[-1]:.4g}; drop dependent outputs."
            )
