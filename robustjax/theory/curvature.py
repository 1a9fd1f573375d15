"""Between stable features and small curvature over the image: Theorem 6.1 of "Discriminative loss with Gaussian noise injection".

With noise of N(0, σ²I) let η be the probability that the features stay within δ of the clean ones (`metrics.feature_stability`), and l_out
the mean loss where they do not (`metrics.loss_stability`). λ_i are the eigenvalues of the Hessian of the cross-entropy l in the pixels:

    Σ λ_i²                <=  8/σ⁴ (η ‖W‖²_{2,∞} δ² + 4 (1 - η) K_max²)              Eq. 15
    2 Σ λ_i² + (Σ |λ_i|)² >=  4/σ⁴ ((1 - η) (l_out - l)² - σ² ‖∇l‖²)                 Eq. 16

Both are proved for a loss that is quadratic wherever the noise reaches, while the bounds on it are those of the cross-entropy, which is
not. So they hold in the limit of small σ alone: Eq. 15 cannot hold for large σ, where its right side falls like 1/σ⁴ and the Hessian
at x stays what it is; for small σ its right side may be many thousand times the left. Eq. 16 is mostly void: its right side is negative
unless the loss outside differs by much more than the gradient explains. Read them as diagnostics. C(f(x), δ), "the hypersphere", is the
closed ball, and the proof of Eq. 16 has the smaller left side with (Σ λ_i)², a sharper statement than the printed one.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robustjax.core.check import InputError, is_concrete
from robustjax.core.numerics import safe_norm
from robustjax.core.types import ArrayLike, Scalar
from robustjax.theory.doors import as_floats, check_positive


class CurvatureBounds(NamedTuple):
    """The right sides of Theorem 6.1, of the shape of its arguments."""

    upper: Float[Array, "..."]  # of Σ λ_i²
    lower: Float[Array, "..."]  # of 2 Σ λ_i² + (Σ λ_i)², and so of 2 Σ λ_i² + (Σ |λ_i|)²; may be negative


def curvature_bounds(
    kernel: ArrayLike,
    *,
    sigma: ArrayLike | Scalar,
    delta: ArrayLike | Scalar,
    eta: ArrayLike | Scalar,
    logit_bound: ArrayLike | Scalar,
    loss: ArrayLike | Scalar,
    outside_loss: ArrayLike | Scalar,
    gradient_norm: ArrayLike | Scalar,
) -> CurvatureBounds:
    """Computes both bounds of Theorem 6.1; see above for when they hold.

    Args:
        kernel: (d, k) of the last layer, as Flax has it; ‖W‖_{2,∞} is the largest norm of a column.
        sigma: standard deviation of the noise, above 0.
        delta: radius of the ball in feature space, at least 0.
        eta: probability to stay in it, in [0, 1].
        logit_bound: K_max >= |z_j| for all images, above 0.
        loss: l(x), the cross-entropy at the image.
        outside_loss: l_out; where eta is 1 it is not defined, and any finite number does.
        gradient_norm: ‖∇l(x)‖, in the pixels.

    All but the kernel are numbers, or arrays of one shape such as one value an image.

    Returns:
        CurvatureBounds(upper, lower). Float64 in gives float64 out.

    Raises:
        InputError: for a kernel that is no matrix, shapes that do not fit and, where values are known, values out of range.

    >>> ball = dict(sigma=1.0, delta=2.0, eta=0.5, logit_bound=1.0, loss=1.0, outside_loss=4.0, gradient_norm=1.0)
    >>> [float(bound) for bound in curvature_bounds(jnp.array([[3.0, 0.0], [4.0, 1.0]]), **ball)]
    [416.0, 14.0]
    """
    given = dict(sigma=sigma, delta=delta, eta=eta, logit_bound=logit_bound, loss=loss, outside_loss=outside_loss)
    given |= dict(gradient_norm=gradient_norm)
    kernel, *values = as_floats(kernel=kernel, **given)
    given = dict(zip(given, values, strict=True))
    _check(kernel, given)
    sigma, delta, eta, logit_bound, loss, outside_loss, gradient_norm = values
    row = jnp.max(safe_norm(kernel, axis=0))
    upper = 8 / sigma**4 * (eta * (row * delta) ** 2 + 4 * (1 - eta) * logit_bound**2)
    lower = 4 / sigma**4 * ((1 - eta) * (outside_loss - loss) ** 2 - (sigma * gradient_norm) ** 2)
    return CurvatureBounds(upper, lower)


def _check(kernel: Array, given: dict[str, Any]) -> None:
    if kernel.ndim != 2:
        raise InputError(f"kernel must have shape (d, k), got {kernel.shape}.")
    shapes = {value.shape for value in given.values() if value.ndim}
    if len(shapes) > 1:
        raise InputError(f"all but the kernel must be numbers or arrays of one shape, got shapes {sorted(shapes)}.")
    for name in ("sigma", "logit_bound"):
        check_positive(**{name: jnp.min(given[name])})
    for name, high in (("delta", np.inf), ("eta", 1.0), ("gradient_norm", np.inf)):
        value = given[name]
        if is_concrete(value) and not (np.min(value) >= 0 and np.max(value) <= high):
            bounds = "at least 0" if high == np.inf else f"in [0, {high:g}]"
            raise InputError(f"{name} must be {bounds}, got values from {np.min(value):.4g} to {np.max(value):.4g}.")
