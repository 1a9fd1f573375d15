"""How many times more points the other class must have to win: ESP's Theorem 1.

Two classes are clusters about x_1 (a points) and x_2 (b = a M points); every point is perturbed by ESP's law: a size k from the normal
law N(ε, σ²) truncated to [ε - τ, ε + τ], and a uniform direction. Class 2 wins at x once M is large enough.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robustjax.core.check import InputError, as_number, is_concrete
from robustjax.core.numerics import safe_norm
from robustjax.core.types import ArrayLike, Scalar
from robustjax.theory.doors import as_floats, check_positive

NODES = 64  # of Gauss and Legendre, on each of four intervals
REACH = 12  # standard deviations beyond which the normal law is nothing in float64


class ImbalanceThreshold(NamedTuple):
    """The smallest M from which on class 2 is the more probable one: n' for labels as they are, n for ESP's."""

    hard: Float[Array, " b"]
    smoothed: Float[Array, " b"]


class _Law(NamedTuple):
    """ESP's perturbation size and label, and the extent of the clusters."""

    epsilon: Scalar
    tau: Scalar
    decay: Scalar
    sigma: Scalar
    spread: Scalar

    def log_size(self, z: Array) -> Array:
        """Returns the log density of size z up to a constant, -inf outside of [ε - τ, ε + τ]."""
        inside = jnp.abs(z - self.epsilon) <= self.tau
        return jnp.where(inside, -0.5 * jnp.square((z - self.epsilon) / self.sigma), -jnp.inf)

    def lead(self, z: Array) -> Array:
        """Returns 2 s(z) - 1: by how much the label prefers its class; s(ε + τ) = 1/2 + ξ."""
        return 2 * jnp.exp(-self.decay * jnp.maximum(z - self.epsilon, 0)) - 1


def imbalance_threshold(
    x: ArrayLike,
    x_1: ArrayLike,
    x_2: ArrayLike,
    *,
    epsilon: float,
    tau: float,
    xi: float,
    sigma: float | None = None,
    spread: float = 0.0,
) -> ImbalanceThreshold:
    """Computes from which imbalance on the larger class wins at x, without and with ESP's smoothed labels.

    ESP, Theorem 1: "For any x, let n' be the number such that for all M >= n', E[y_δ2|X_δ = x] >= 0.5 holds, and let n be the number
    such that for all M >= n, E[y_E2|X_E = x] >= 0.5 holds. Then, n >= n'." With w_c the density at x of the perturbed points of class c,
    and q_c the same weighted by 2 s - 1,

        n' = w_1 / w_2,    n = q_1 / q_2.

    For clusters without extent n/n' = (2 s(r_1) - 1)/(2 s(r_2) - 1), r_c = ‖x - x_c‖. So n >= n' holds where x is no farther from the
    smaller class than from the larger one; "for any x" is too much: elsewhere n <= n', that is, smoothing moves the boundary towards
    the middle from both sides.

    Args:
        x: (b, m) places, m >= 2.
        x_1: (m,) centre of the smaller class.
        x_2: (m,) centre of the M times larger class.
        epsilon: ε, mean size of the perturbation and size up to which the label stays hard.
        tau: 0 < τ <= ε, half the width of the law of sizes; at ε + τ the label's confidence is 1/2 + ξ.
        xi: ξ in [0, 1/2] (two classes). None of these numbers may be traced.
        sigma: σ of the normal law before truncation; None for the paper's τ/2.
        spread: radius of the balls about x_1 and x_2 in which the points lie uniformly. 0 is the paper's "letting ε_i -> 0" and exact;
            above, w and q are integrals over the size, w_c = ∫ p(k) P(x - k u in the ball) dk, to about 1e-12 in float64, for up to
            some tens of dimensions. The paper fixes no law of its "‖ε_i‖ <= 0.25" (Figure 2): the uniform one is a choice.

    Returns:
        ImbalanceThreshold (hard, smoothed), each (b,), in [0, inf]: inf where class 2 does not reach x (with ξ = 0: only with labels of
        1/2) or where M is too large for the dtype, 0 where class 1 does not reach x, NaN where neither does and the expectation is not
        defined. Float64 in gives float64 out.

    Raises:
        InputError: for shapes that do not fit, equal centres, τ > ε, or numbers outside of their range.

    >>> hard, smoothed = imbalance_threshold(jnp.array([[1.0, 0.0]]), jnp.zeros(2), jnp.array([2.25, 0.0]), epsilon=1.0, tau=1.0, xi=0.1)
    >>> round(float(hard[0]), 4), round(float(smoothed[0]), 4)
    (1.4164, 1.8632)
    """
    x, x_1, x_2 = as_floats(x=x, x_1=x_1, x_2=x_2)
    if x.ndim != 2 or x.shape[1] < 2 or x_1.shape != x.shape[1:] or x_2.shape != x.shape[1:]:
        raise InputError(f"expected x (b, m) with m >= 2 and centres (m,), got {x.shape}, {x_1.shape} and {x_2.shape}.")
    if is_concrete(x_1, x_2) and (np.asarray(x_1) == np.asarray(x_2)).all():
        raise InputError("x_1 and x_2 are the same point: the classes must have different centres.")
    law = _check(epsilon, tau, xi, sigma, spread)
    return _thresholds(x, x_1, x_2, _Law(*(jnp.asarray(number, x.dtype) for number in law)), extended=law.spread > 0)


@functools.partial(jax.jit, static_argnames="extended")
def _thresholds(x: Array, x_1: Array, x_2: Array, law: _Law, *, extended: bool) -> ImbalanceThreshold:
    r_1, r_2 = (safe_norm(x - centre[None, :], axis=1) for centre in (x_1, x_2))
    (w_1, q_1), (w_2, q_2) = [_ball(r, law, x.shape[1]) for r in (r_1, r_2)] if extended else _points(r_1, r_2, law, x.shape[1])
    nowhere = (w_1 == 0) & (w_2 == 0)
    return ImbalanceThreshold(*(jnp.where(nowhere, jnp.nan, _least_multiple(a, b)) for a, b in ((w_1, w_2), (q_1, q_2))))


def _least_multiple(a: Array, b: Array) -> Array:
    """Returns the least M >= 0 with M b >= a, for a, b >= 0 that are not both 0."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), jnp.inf)


def _points(r_1: Array, r_2: Array, law: _Law, dim: int) -> list[tuple[Array, Array]]:
    """Returns (w, q) of clusters without extent, up to a factor common to all four numbers of a place."""
    # At a centre itself the density is infinite where k may be 0: there it is only huge.
    logs = [law.log_size(r) - (dim - 1) * jnp.log(jnp.maximum(r, jnp.finfo(r.dtype).tiny)) for r in (r_1, r_2)]
    # The larger of both becomes 1, so that 3072 dimensions neither overflow nor vanish before they are divided.
    largest = jnp.maximum(*logs)
    masses = [jnp.exp(log - jnp.where(jnp.isfinite(largest), largest, 0)) for log in logs]
    return [(w, w * law.lead(r)) for w, r in zip(masses, (r_1, r_2), strict=True)]


def _ball(r: Float[Array, " b"], law: _Law, dim: int) -> tuple[Array, Array]:
    """Returns ∫ p(k) F(k) dk and ∫ p(k) (2 s(k) - 1) F(k) dk, F the share of the sphere of radius k about x that lies in the ball."""
    reach = jnp.minimum(law.tau, REACH * law.sigma)
    low, high = law.epsilon - reach, law.epsilon + reach
    # Between these the integrand is smooth: s bends at ε, F at |r - spread| and r + spread.
    bends = [jnp.clip(edge, low, high) for edge in (jnp.abs(r - law.spread), r + law.spread)]
    edges = jnp.sort(jnp.stack([*(jnp.broadcast_to(edge, r.shape) for edge in (low, law.epsilon, high)), *bends]), axis=0)
    nodes, weights = (jnp.asarray(v, r.dtype)[:, None, None] for v in np.polynomial.legendre.leggauss(NODES))
    # k = middle - half cos(π (1 + node)/2): F starts and ends like a root, which is smooth in that angle.
    angle = jnp.pi * (1 + nodes) / 2
    middle, half = (edges[1:] + edges[:-1])[None] / 2, (edges[1:] - edges[:-1])[None] / 2
    k = middle - half * jnp.cos(angle)
    mass = weights * (jnp.pi / 2) * half * jnp.sin(angle) * jnp.exp(law.log_size(k)) * _share(k, r[None, None, :], law.spread, dim)
    return jnp.sum(mass, axis=(0, 1)), jnp.sum(mass * law.lead(k), axis=(0, 1))


def _share(k: Array, r: Array, spread: Array, dim: int) -> Array:
    """Returns which share of the sphere of radius k about x lies within `spread` of a centre at distance r from x."""
    # With c the cosine between the direction and the centre, inside means (1 - c)/2 <= h, and (1 - c)/2 has a Beta law on a sphere.
    product = 4 * r * k
    h = (spread - (r - k)) * (spread + (r - k)) / jnp.where(product > 0, product, 1)
    h = jnp.where(product > 0, jnp.clip(h, 0, 1), (jnp.abs(r - k) <= spread).astype(k.dtype))
    if dim == 2:  # the arcsine law, and betainc takes fifty times as long
        return jnp.arcsin(jnp.sqrt(h)) * (2 / jnp.pi)
    half = jnp.full_like(h, (dim - 1) / 2)
    return jax.scipy.special.betainc(half, half, h)


def _check(epsilon: float, tau: float, xi: float, sigma: float | None, spread: float) -> _Law:
    """Returns ε, τ, the rate of decay of the label, σ and the radius of the clusters, checked."""
    sigma = tau / 2 if sigma is None else sigma
    check_positive(epsilon=epsilon, tau=tau, sigma=sigma)
    if tau > epsilon:
        raise InputError(f"tau must be at most epsilon = {epsilon}, got {tau}: a size below 0 would turn the direction.")
    if (number := as_number(xi)) is None or not 0 <= number <= 0.5:
        raise InputError(f"xi must lie in [0, 1/2] for two classes, got {xi!r}.")
    if (number := as_number(spread)) is None or not 0 <= number < float("inf"):
        raise InputError(f"spread is the radius of a cluster and must be at least 0, got {spread!r}.")
    return _Law(float(epsilon), float(tau), -math.log(0.5 + xi) / tau, float(sigma), float(spread))
