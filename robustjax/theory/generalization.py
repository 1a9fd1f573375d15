"""Compactness beyond the training set and before the last layer: Theorems 6.2 and 6.3 of "Discriminative loss with Gaussian noise injection".

Theorem 6.2 bounds the probability that an example of a class is mapped outside of the ball of radius r about a center m, from
distances ‖f(x) - m‖ of N training examples. Theorem 6.3: if each class has a share τ of its features in a ball of its own,
then the features of two classes differ in every layer before, by a Jensen-Shannon divergence of at least (2τ - 1)²/2.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robustjax.core.check import InputError, is_concrete
from robustjax.core.types import ArrayLike, Scalar
from robustjax.theory.doors import as_floats, check_positive


def margin_error(distances: ArrayLike, *, radius: Scalar, rho: Scalar) -> Float[Array, " n"]:
    """Returns Φ_ρ(r² - ‖f(x) - m‖²) for each example, Eqs. 17 and 18: 1 outside of the ball, 0 from sqrt(r² - ρ) inwards.

    Between, it falls linearly in the squared distance. With ρ to 0 it counts the examples on or outside of the sphere.

    Args:
        distances: ‖f(x) - m‖, (n,), at least 0.
        radius: r, above 0.
        rho: ρ, in (0, r²), how deep inside an example must be to cost nothing.

    Returns:
        (n,) in [0, 1]. Float64 in gives float64 out.

    Raises:
        InputError: for distances that are not (n,) and, where values are known, values out of range.

    >>> margin_error(jnp.array([0.0, 1.5, 2.0, 3.0]), radius=2.0, rho=3.5).tolist()
    [0.0, 0.5, 1.0, 1.0]
    """
    distances, radius, rho = _ball(distances, radius, rho)
    return jnp.clip(1 - (radius**2 - distances**2) / rho, 0, 1)


def mapping_error_bound(
    distances: ArrayLike, *, radius: Scalar, rho: Scalar, feature_bound: Scalar, center_bound: Scalar, delta: Scalar
) -> Float[Array, ""]:
    """Computes the right side of Theorem 6.2, Eq. 19: a bound on P(‖f(X) - m‖ > r) for the class that the training examples are of.

    mean of `margin_error` + 2/ρ (Λ² + 2RΛ + R²/√N) + 3 sqrt(ln(2/δ) / (2N)), which holds with probability at least 1 - δ over the
    training set, for all f and m at once. The paper says that it falls as N grows, which is true of two of the terms only: with
    infinitely many examples 2/ρ (Λ² + 2RΛ) is left, since f may be any bounded function at all. As ρ < r², the bound says
    something (is below 1) only if Λ² + 2RΛ < r²/2, far from what a network with Λ of the size of R + r allows.

    Args:
        distances: ‖f(x) - m‖ of the N training examples, (n,).
        radius: r, above 0.
        rho: ρ, in (0, r²).
        feature_bound: Λ >= ‖f(x)‖ for all x, above 0.
        center_bound: R >= ‖m‖, above 0.
        delta: δ in (0, 1), probability that the training set misleads.

    Returns:
        Scalar, not cut off at 1. Float64 in gives float64 out.

    Raises:
        InputError: for distances that are not (n,) and, where values are known, values out of range.

    >>> round(float(mapping_error_bound(jnp.zeros(200), radius=3.0, rho=8.0, feature_bound=0.5, center_bound=1.0, delta=0.1)), 4)
    0.5898
    """
    empirical = jnp.mean(margin_error(distances, radius=radius, rho=rho))
    check_positive(feature_bound=feature_bound, center_bound=center_bound, delta=delta)
    if is_concrete(delta) and not delta < 1:
        raise InputError(f"delta is a probability and must lie in (0, 1), got {delta!r}.")
    rho, feature_bound, center_bound, delta = (
        jnp.asarray(value).astype(empirical.dtype) for value in (rho, feature_bound, center_bound, delta)
    )
    n = np.size(distances)
    complexity = feature_bound**2 + 2 * center_bound * feature_bound + center_bound**2 / n**0.5
    return empirical + 2 / rho * complexity + 3 * jnp.sqrt(jnp.log(2 / delta) / (2 * n))


def js_divergence_lower_bound(tau: ArrayLike | Scalar) -> Float[Array, "..."]:
    """Returns (2τ - 1)²/2 nats: Theorem 6.3, Eq. 20, a lower bound on D_JS of the features of two classes, in any layer.

    Assumes that the features of each class at the last layer lie with probability τ or more in a ball of its own, and that the balls
    are disjoint (the proof says so, hypothesis (H) does not). By Pinsker's inequality there and by data processing in the layers before;
    the proof prints Pinsker's inequality without its square: 1/2 D_KL >= d_TV² is meant. The best bound that holds is
    ln 2 - H(τ), H the binary entropy; the theorem's nearly reaches it for τ near 1/2 and has 0.5 for 0.693 at τ = 1.

    Args:
        tau: τ in [1/2, 1], a number or an array.

    Returns:
        Of the shape of tau. Float64 in gives float64 out.

    Raises:
        InputError: where values are known, for a tau outside of [1/2, 1], below which the theorem says nothing.

    >>> js_divergence_lower_bound(jnp.array([0.5, 0.75, 1.0])).tolist()
    [0.0, 0.125, 0.5]
    """
    (tau,) = as_floats(tau=tau)
    if is_concrete(tau) and not (np.min(tau) >= 0.5 and np.max(tau) <= 1):
        raise InputError(f"tau is a probability of at least 1/2 and must lie in [0.5, 1], got values from {np.min(tau)} to {np.max(tau)}.")
    return jnp.asarray((2 * tau - 1) ** 2 / 2)


def _ball(distances: ArrayLike, radius: Scalar, rho: Scalar) -> list[Array]:
    check_positive(radius=radius, rho=rho)
    distances, radius, rho = as_floats(distances=distances, radius=radius, rho=rho)
    if distances.ndim != 1:
        raise InputError(f"distances must have shape (n,), got {distances.shape}.")
    if is_concrete(distances) and np.min(distances) < 0:
        raise InputError(f"distances must be at least 0, got {np.min(distances):.4g}.")
    if is_concrete(radius, rho) and not rho < radius**2:
        raise InputError(f"rho must be below radius**2 = {float(radius) ** 2:.4g}, got {float(rho):.4g}.")
    return [distances, radius, rho]
