"""The best classifier between two perturbed points, with and without smoothed labels: SPIDER's Theorem 1.

Two points x_i, x_j of different classes at distance d are perturbed isotropically; given that the perturbed image lies on the segment
x(t) = (1 - t) x_i + t x_j, the best prediction there is the expected label (appendix B.1), a mixture of the two points' labels with weights

    w = p_η(t) / (p_η(t) + p_η(1 - t)),   p_η(t) ∝ p_γ(d t) / S_n(d t),   S_n(r) ∝ r^(n - 1).

Only the ratio of p_η(t) and p_η(1 - t) matters, which is well: for n > 1 and p_γ(0) > 0 the printed "pdf" p_η cannot be normalised.
With u = 1 - 2t the log-ratio is log p_γ(d t) - log p_γ(d (1 - t)) + 2 (n - 1) artanh(u), so that for a flat p_γ (SPIDER's radius
U(0, τ), where d <= τ) g_ij = f_i - f_j = tanh((n - 1) artanh(u)): at n = 3072 the whole boundary is some 1e-3 of the segment.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robustjax.core.check import InputError, is_concrete
from robustjax.core.types import ArrayLike, Scalar
from robustjax.theory.doors import as_floats, check_positive

Curve = Callable[[Float[Array, " k"]], Float[Array, " k"]]
BISECTIONS = 64


class SegmentOptimum(NamedTuple):
    """Predicted probabilities of the two points' classes along the segment; each other class shares what is left."""

    class_i: Float[Array, "..."]
    class_j: Float[Array, "..."]


class OptimumThickness(NamedTuple):
    """Boundary thickness of the best classifier for labels as they are and for smoothed labels, in the units of the distance."""

    hard: Float[Array, "..."]
    smoothed: Float[Array, "..."]


def optimum_on_segment(
    t: ArrayLike | Scalar,
    distance: ArrayLike | Scalar,
    *,
    dim: int,
    num_classes: int,
    confidence: Curve | None = None,
    log_density: Curve | None = None,
) -> SegmentOptimum:
    """Predicts like the best classifier at x(t): the expected label of what is perturbed onto that point of the segment.

    SPIDER, appendix B.1: "f*_LS(x(t))_i = (s(d_i) p_η(t) + r_j p_η(1 - t)) / (p_η(t) + p_η(1 - t))" with d_i = d t, d_j = d (1 - t) and
    r = (1 - s)/(c - 1); f* is the same with s = 1.

    Args:
        t: any shape, in [0, 1]; 0 is x_i.
        distance: d = ‖x_i - x_j‖ > 0, a scalar or of the shape of t.
        dim: n, the number of input values (3072 for CIFAR).
        num_classes: c >= 2.
        confidence: s, from perturbation norms (k,) to confidences (k,), never increasing, in [1/c, 1] (as
            `augment.exponential_confidence`); None for labels as they are.
        log_density: log p_γ of the perturbation norm, from (k,) to (k,), up to a constant; never increasing; -inf beyond the largest
            norm. None for a flat one (uniform radius).

    Returns:
        SegmentOptimum, of the shape of t.

    Raises:
        InputError: for shapes, dim or num_classes that do not fit and, where values are known, t outside [0, 1], a confidence that
            increases or leaves [1/c, 1], or a density that is 0 at d/2: no perturbed image then reaches the middle of the segment.

    >>> [round(float(p), 4) for p in optimum_on_segment(0.25, 1.0, dim=2, num_classes=10)]
    [0.75, 0.25]
    """
    t, distance = as_floats(t=t, distance=distance)
    if distance.shape not in ((), t.shape):
        raise InputError(f"distance must be a scalar or have the shape of t, {t.shape}, got {distance.shape}.")
    if is_concrete(t) and not ((np.asarray(t) >= 0) & (np.asarray(t) <= 1)).all():
        raise InputError("t must lie in [0, 1], from x_i to x_j.")
    _check(distance, dim, num_classes, confidence, log_density)
    return _optimum(t, distance, jnp.asarray(dim - 1, t.dtype), num_classes, confidence, log_density)


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _optimum(t: Array, d: Array, power: Array, num_classes: int, confidence: Curve | None, log_density: Curve | None) -> SegmentOptimum:
    near, far = (d * t).ravel(), (d * (1 - t)).ravel()
    w = jax.nn.sigmoid(_log_ratio(near, far, (1 - 2 * t).ravel(), power, log_density))
    s_near, s_far = (jnp.ones_like(near), jnp.ones_like(far)) if confidence is None else (confidence(near), confidence(far))
    rest = num_classes - 1
    class_i = s_near * w + (1 - s_far) / rest * (1 - w)
    class_j = (1 - s_near) / rest * w + s_far * (1 - w)
    return SegmentOptimum(class_i.reshape(t.shape), class_j.reshape(t.shape))


def thickness_of_optimum(
    distance: ArrayLike | Scalar,
    *,
    dim: int,
    num_classes: int,
    confidence: Curve,
    log_density: Curve | None = None,
    alpha: float = 0.0,
    beta: float = 0.75,
) -> OptimumThickness:
    """Computes the boundary thickness of the best classifiers between two points, without and with smoothed labels.

    SPIDER, Theorem 1: "∀ -1 <= α <= 0 < β <= 1, Θ(f*, α, β, x_i, x_j) <= Θ(f*_LS, α, β, x_i, x_j)", where
    "Θ(f, α, β, x_i, x_j) := ‖x_i - x_j‖ ∫_0^1 I{α < g_ij(x(t)) < β} dt" and g_ij = f_i - f_j falls along the segment (Lemma 1), so
    that Θ = d (t_α - t_β), found by bisection to the precision of the dtype.

    The theorem is an approximation: Lemma 2 (|g_LS| <= |g|) drops what is (t/(1-t))^(n-1) small. Exactly, it holds for all α and β if
    and only if q(d t) >= q(d (1 - t)) for all t < 1/2, q(r) = (1 - s(r)) p_γ(r)/r^(n-1). SPIDER's s is 1 up to τ/4, where q is 0, so
    it can fail: by a tenth of the thickness in two or three dimensions; at n = 3072 by 1e-4 of it, for d within 0.1 % of τ/2 only
    (β = 0.75).

    Args:
        distance: d = ‖x_i - x_j‖ > 0, a scalar or (b,), in the units of the perturbation norms.
        dim: n, the number of input values (3072 for CIFAR).
        num_classes: c >= 2. Static.
        confidence: s, from perturbation norms (k,) to confidences (k,), never increasing, in [1/c, 1]. Another function, be it the
            same lambda written again, compiles another program. SPIDER's is
            `augment.exponential_confidence(r, start=tau / 4, width=3 * tau / 4, floor=1 / c + xi)`.
        log_density: log p_γ of the perturbation norm, from (k,) to (k,), up to a constant; never increasing; -inf beyond the largest
            norm. None for a flat one: SPIDER's U(0, τ) for d <= τ; `lambda r: jnp.where(r <= tau, 0.0, -jnp.inf)` up to d = 2 τ.
        alpha: lower bound, in [-1, 0].
        beta: upper bound, in (0, 1]. At 1 the strict bound is decided exactly, not by a softmax that rounds to 1.

    Returns:
        OptimumThickness (hard, smoothed), each of the shape of `distance`. Float64 in gives float64 out.

    Raises:
        InputError: for α or β outside of the theorem's range, and as `optimum_on_segment`.

    >>> hard, smoothed = thickness_of_optimum(8.0, dim=3, num_classes=10, confidence=lambda r: jnp.maximum(1 - r / 8, 0.5), beta=0.8)
    >>> round(float(hard), 4), round(float(smoothed), 4)
    (2.0, 2.8254)
    """
    (distance,) = as_floats(distance=distance)
    if distance.ndim > 1:
        raise InputError(f"distance must be a scalar or have shape (b,), got {distance.shape}.")
    if not -1 <= alpha <= 0 < beta <= 1:
        raise InputError(f"expected -1 <= alpha <= 0 < beta <= 1, as Theorem 1 does, got alpha={alpha} and beta={beta}.")
    _check(distance, dim, num_classes, confidence, log_density)
    bounds, power = jnp.asarray([beta, -alpha], distance.dtype), jnp.asarray(dim - 1, distance.dtype)
    return OptimumThickness(*(_thickness(distance, bounds, power, num_classes, s, log_density) for s in (None, confidence)))


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _thickness(
    distance: Array, bounds: Array, power: Array, num_classes: int, confidence: Curve | None, log_density: Curve | None
) -> Array:
    # In u = 1 - 2t, of which g is an odd, rising function: on the side of x_i g reaches beta, on that of x_j -g reaches -alpha.
    d = jnp.atleast_1d(distance)
    upper, lower = jnp.split(_first_u(jnp.tile(d, 2), jnp.repeat(bounds, d.size), power, num_classes, confidence, log_density), 2)
    # With alpha = 0, what counts begins where g > 0.
    return (d * (upper + jnp.where(bounds[1] > 0, lower, -lower)) / 2).reshape(distance.shape)


def _log_ratio(near: Array, far: Array, u: Array, power: Array, log_density: Curve | None) -> Array:
    """Returns log p_η(t) - log p_η(1 - t) for the norms near = d t and far = d (1 - t), u = 1 - 2 t, power = n - 1."""
    surface = jnp.where(power > 0, 2 * power * jnp.arctanh(u), 0)  # artanh(1) is infinite
    return surface if log_density is None else log_density(near) - log_density(far) + surface


def _first_u(
    d: Float[Array, " k"], level: Float[Array, " k"], power: Array, num_classes: int, confidence: Curve | None, log_density: Curve | None
) -> Float[Array, " k"]:
    """Returns the smallest u in [0, 1] with g >= level, for level 0 with g > 0; 1 where there is none.

    g = γ_i w - γ_j (1 - w) with γ = (c s - 1)/(c - 1), so g >= level says that the log-ratio of the densities is at least
    log((level + γ_j)/(γ_i - level)): no probability is rounded to 1.
    """

    def margin(radius: Float[Array, " k"]) -> Float[Array, " k"]:
        # So written that it is 1 exactly where s is; rounding must not take it below 0.
        doubt = jnp.zeros_like(radius) if confidence is None else 1 - confidence(radius)
        return jnp.maximum(1 - doubt * (num_classes / (num_classes - 1)), 0)

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        u = (low + high) / 2
        near, far = d * (1 - u) / 2, d * (1 + u) / 2
        ratio, room = _log_ratio(near, far, u, power, log_density), margin(near) - level
        needed = jnp.where(room > 0, jnp.log((level + margin(far)) / jnp.where(room > 0, room, 1)), jnp.inf)
        reached = jnp.where(level > 0, (room >= 0) & (ratio >= needed), (room > 0) & (ratio > needed))
        return jnp.where(reached, low, u), jnp.where(reached, u, high)

    return jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.zeros_like(d), jnp.ones_like(d)))[1]


def _check(distance: Array, dim: int, num_classes: int, confidence: Curve | None, log_density: Curve | None) -> None:
    """Checks what both functions share, and the curves at 33 norms from 0 to the largest distance."""
    if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)) or dim < 1:
        raise InputError(f"dim must be a whole number of input values, at least 1, got {dim!r}.")
    if num_classes < 2:
        raise InputError(f"num_classes must be at least 2, got {num_classes}.")
    if not is_concrete(distance):
        return
    largest = float(np.max(distance))
    check_positive(distance=float(np.min(distance)))
    radii = jnp.asarray(np.linspace(0, largest, 33), distance.dtype)
    if confidence is not None:
        s = confidence(radii)
        if is_concrete(s):
            s, slack = np.asarray(s, np.float64), 1e-6
            if s.shape != radii.shape or not ((s >= 1 / num_classes - slack) & (s <= 1 + slack)).all() or (np.diff(s) > slack).any():
                raise InputError(
                    f"confidence must map norms (k,) to values (k,) in [1/c, 1] = [{1 / num_classes:.4g}, 1] that never increase, "
                    f"got shape {s.shape} with values from {s.min():.4g} to {s.max():.4g} for norms from 0 to {largest:.4g}."
                )
    if log_density is not None:
        middle = log_density(jnp.atleast_1d(distance) / 2)
        if is_concrete(middle) and not (np.asarray(middle) > -np.inf).all():
            raise InputError(
                f"log_density is -inf at half of the distance {largest:.4g}: no perturbed image reaches the middle of the segment, "
                "where the best classifier is not defined; pass nearer points or larger perturbations."
            )
