"""Boundary thickness: how far one travels between two images while the classifier hesitates between their classes.

    targets = other_classes(keys, labels, num_classes=10)
    x_j = attack(keys, logits_fn, images, labels, targets)     # the caller's: targeted PGD in the papers
    boundary_thickness(logits_fn, images, x_j, labels, targets, alpha=0, beta=0.75, std=0.2)

Several (alpha, beta) from one pass through the network: `segment_gaps` once, then `thickness_of_gaps` for each.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from robustjax.core.check import InputError, as_number, check_images, check_keys, check_labels, check_output, is_concrete
from robustjax.core.convolutions import widened
from robustjax.core.functions import as_partial, output_of
from robustjax.core.numerics import image_norm, lift
from robustjax.core.types import ArrayLike, KeysLike, LogitsFn, Scalar
from robustjax.metrics.sweeps import over_points


def boundary_thickness(
    logits_fn: LogitsFn,
    x_i: ArrayLike,
    x_j: ArrayLike,
    class_i: ArrayLike,
    class_j: ArrayLike,
    *,
    alpha: Scalar,
    beta: Scalar,
    points: int | np.integer = 128,
    std: Scalar = 1.0,
) -> Float[Array, " b"]:
    """Measures the thickness of the boundary between two classes along the segment from x_i to x_j.

    ||x_i - x_j||_2 * integral over t in [0, 1] of I{alpha < g_ij(x(t)) < beta}, where x(t) = (1 - t) x_i + t x_j and g_ij is the
    difference of the softmax probabilities of classes i and j. The integral is the fraction of `points` equidistant points,
    both ends among them, at which both strict inequalities hold, as in the official code (not a trapezoid rule).

    Class i is the label in SPIDER and the predicted class in the official code: pass the one that is meant. Where i = j the gap
    is 0 and, with alpha = 0, so is the thickness. With beta = 1 the upper bound excludes only g = 1, which a confident network
    reaches by rounding: sooner in float32 than in float64, whose thickness is then larger.

    `points` is static; alpha, beta and std are not, so sweeping over them compiles nothing. Constant almost everywhere: of no
    use to gradients.

    Args:
        logits_fn: images -> logits (b, k), in evaluation mode. A `jax.tree_util.Partial(fn, weights)` reuses the compiled
            program for new weights; a plain function of arrays is compiled once, anything that may change is compiled anew.
        x_i: (b, h, w, c) in [0, 1].
        x_j: like x_i; in the papers the result of an attack on x_i that targets class j.
        class_i: (b,) integers in [0, k).
        class_j: (b,) integers in [0, k).
        alpha: lower end, at least -1. Yang et al. and SPIDER take 0.
        beta: upper end, at most 1, above alpha: 0.75, or 1 for what generalises the margin.
        points: on the segment, at least 2.
        std: distances are divided by it. 1 for L2 units of [0, 1] pixels; 0.2 for the papers' units, those of normalised images.

    Returns:
        (b,), at least 0 and at most ||x_i - x_j|| / std. NaN where the network returns NaN.

    Raises:
        InputError: for images of other shapes or ranges, classes out of range, alpha not below beta, fewer than 2 points, a std
            that is not positive.

    References:
        Yang et al., Boundary thickness and robustness in learning models, NeurIPS 2020, section 2; SPIDER section 3.2.

    >>> def logits_fn(x):  # the logit of class 0 grows with the first pixel: g = tanh((2 pixel - 1) / 2)
    ...     return jnp.stack([2 * x[:, 0, 0, 0], jnp.ones(len(x))], axis=1)
    >>> white, black = jnp.ones((1, 1, 1, 1)), jnp.zeros((1, 1, 1, 1))
    >>> zero, one = jnp.array([0]), jnp.array([1])
    >>> boundary_thickness(logits_fn, white, black, zero, one, alpha=0, beta=0.25, points=5)  # only at 3/4, where g = 0.245
    Array([0.2], dtype=float32)
    """
    _check_interval(alpha, beta, std)
    gaps = segment_gaps(logits_fn, x_i, x_j, class_i, class_j, points=points)
    return thickness_of_gaps(gaps, x_i, x_j, alpha=alpha, beta=beta, std=std)


def segment_gaps(
    logits_fn: LogitsFn,
    x_i: ArrayLike,
    x_j: ArrayLike,
    class_i: ArrayLike,
    class_j: ArrayLike,
    *,
    points: int | np.integer = 128,
) -> Float[Array, "b points"]:
    """Computes g_ij = softmax(logits)_i - softmax(logits)_j at equidistant points from x_i to x_j, both ends among them.

    Driven from Python in compiled pieces of a bounded number of images, unless something is traced.

    Args:
        logits_fn: images -> logits (b, k), as for `boundary_thickness`.
        x_i: (b, h, w, c) in [0, 1].
        x_j: like x_i.
        class_i: (b,) integers in [0, k).
        class_j: (b,) integers in [0, k).
        points: on the segment, at least 2. Static.

    Returns:
        (b, points) in [-1, 1]; the first column is at x_i. NaN where a class is out of range and only a traced value.

    Raises:
        InputError: for images of other shapes or ranges, classes out of range, fewer than 2 points.

    >>> def logits_fn(x):
    ...     return jnp.stack([x[:, 0, 0, 0], 0 * x[:, 0, 0, 0]], axis=1)
    >>> white, black = jnp.ones((1, 1, 1, 1)), jnp.zeros((1, 1, 1, 1))
    >>> segment_gaps(logits_fn, white, black, jnp.array([0]), jnp.array([1]), points=3).round(3)  # tanh(1/2), tanh(1/4), 0
    Array([[0.462, 0.245, 0.   ]], dtype=float32)
    """
    if not isinstance(points, int | np.integer) or isinstance(points, bool) or points < 2:
        raise InputError(f"points is how many lie on a segment, both ends among them: an integer >= 2, got {points!r}.")
    x_i, x_j = _check_pair(x_i, x_j)
    b = x_i.shape[0]
    network = as_partial(logits_fn)
    logits = output_of(network, x_i)
    num_classes = check_output(logits, b)
    classes = [check_labels(c, num_classes=num_classes, name=name) for name, c in (("class_i", class_i), ("class_j", class_j))]
    for name, c in zip(("class_i", "class_j"), classes, strict=True):
        if c.shape[0] != b:
            raise InputError(f"{name} must have shape ({b},), one class for each image, got {c.shape}.")
    t = jnp.asarray(np.linspace(0, 1, points)[:, None], x_i.dtype)
    return over_points(_gap, network, (x_i, x_j, *classes), t, dtype=lift(jnp.zeros((), logits.dtype)).dtype)


def thickness_of_gaps(
    gaps: ArrayLike, x_i: ArrayLike, x_j: ArrayLike, *, alpha: Scalar, beta: Scalar, std: Scalar = 1.0
) -> Float[Array, " b"]:
    """Computes boundary thickness from the gaps along segments, for as many (alpha, beta) as wanted.

    Args:
        gaps: (b, points), from `segment_gaps`.
        x_i: (b, h, w, c) in [0, 1], the images that the segments begin at.
        x_j: those that they end at.
        alpha: lower end, at least -1.
        beta: upper end, at most 1, above alpha.
        std: distances are divided by it; see `boundary_thickness`.

    Returns:
        (b,) ||x_i - x_j||_2 / std times the fraction of the points with alpha < gap < beta; NaN where a gap is NaN.

    Raises:
        InputError: for gaps that do not fit the images, alpha not below beta, a std that is not positive.

    >>> white, black = jnp.ones((1, 1, 1, 1)), jnp.zeros((1, 1, 1, 1))
    >>> thickness_of_gaps(jnp.array([[1.0, 0.5, 0.0, -0.5]]), white, black, alpha=0, beta=1, std=0.2)  # one of four, of 5
    Array([1.25], dtype=float32)
    """
    _check_interval(alpha, beta, std)
    x_i, x_j = _check_pair(x_i, x_j)
    gaps = lift(gaps)
    if gaps.ndim != 2 or gaps.shape[0] != x_i.shape[0] or not jnp.issubdtype(gaps.dtype, jnp.floating):
        raise InputError(f"gaps must be floats of shape ({x_i.shape[0]}, points), got {gaps.dtype} of shape {gaps.shape}.")
    alpha, beta, std = (jnp.asarray(number) for number in (alpha, beta, std))
    return _thickness(gaps, x_i, x_j, alpha, beta, std)


def other_classes(keys: KeysLike, classes: ArrayLike, *, num_classes: int | np.integer) -> Int[Array, " b"]:
    """Draws for each example one of the other classes, each equally likely: "a randomly selected class j that differs from i".

    Args:
        keys: one typed key for each example (`core.example_keys`).
        classes: (b,) integers in [0, num_classes), the class not to draw.
        num_classes: k, at least 2.

    Returns:
        (b,) int32 in [0, num_classes), nowhere equal to `classes`.

    Raises:
        InputError: for classes out of range, fewer than two of them, or not one key for each.

    References:
        SPIDER appendix E.1.2.

    >>> other_classes(jax.random.split(jax.random.key(0), 3), jnp.array([0, 1, 0]), num_classes=2)
    Array([1, 0, 1], dtype=int32)
    """
    if not isinstance(num_classes, int | np.integer) or num_classes < 2:
        raise InputError(f"num_classes must be an integer >= 2, so that there is another class to draw, got {num_classes!r}.")
    classes = check_labels(classes, num_classes=int(num_classes), name="classes")
    keys = check_keys(keys, classes.shape[0])
    return _other(keys, classes, int(num_classes))


@functools.partial(jax.jit, static_argnames="num_classes")
def _other(keys: Array, classes: Array, num_classes: int) -> Array:
    drawn = jax.vmap(lambda key: jax.random.randint(key, (), 0, num_classes - 1, jnp.int32))(keys)
    return drawn + (drawn >= classes).astype(jnp.int32)


def _gap(network: jax.tree_util.Partial, rows: Any, t: Float[Array, "b 1"]) -> Float[Array, " b"]:
    x_i, x_j, class_i, class_j = rows
    t = t[:, :, None, None]
    logits = lift(widened(network, (1 - t) * x_i + t * x_j))
    # Not as a difference of two quotients, which XLA may contract to a fused multiply-add: the gap of a class with itself would then
    # be a rounding error of either sign, which counts where alpha = 0.
    shares = jnp.exp(logits - jnp.max(logits, axis=1, keepdims=True))
    return (_pick(shares, class_i) - _pick(shares, class_j)) / jnp.sum(shares, axis=1)  # a sum of at least 1


def _pick(rows: Float[Array, "b k"], index: Int[Array, " b"]) -> Float[Array, " b"]:
    # Counted from the end, -1 would be the last class: sent out of range instead.
    index = jnp.where(index < 0, rows.shape[1], index)
    return jnp.take_along_axis(rows, index[:, None], axis=1, mode="fill", fill_value=jnp.nan)[:, 0]


@jax.jit
def _thickness(gaps: Array, x_i: Array, x_j: Array, alpha: Array, beta: Array, std: Array) -> Array:
    between = (alpha.astype(gaps.dtype) < gaps) & (gaps < beta.astype(gaps.dtype))
    thickness = image_norm(x_i - x_j) / std.astype(x_i.dtype) * jnp.mean(between, axis=1, dtype=x_i.dtype)
    # Comparisons with NaN are false: a broken network would have a boundary of no thickness.
    return jnp.where(jnp.any(jnp.isnan(gaps), axis=1), jnp.nan, thickness)


def _check_pair(x_i: Any, x_j: Any) -> tuple[Array, Array]:
    x_i, x_j = lift(check_images(x_i, name="x_i")), lift(check_images(x_j, name="x_j"))
    if x_i.shape != x_j.shape:
        raise InputError(f"x_i and x_j must have one shape, got {x_i.shape} and {x_j.shape}.")
    dtype = jnp.promote_types(x_i.dtype, x_j.dtype)
    return x_i.astype(dtype), x_j.astype(dtype)


def _check_interval(alpha: Any, beta: Any, std: Any) -> None:
    for name, value in (("alpha", alpha), ("beta", beta), ("std", std)):
        if jnp.shape(value) != ():
            raise InputError(f"{name} must be one number, got shape {jnp.shape(value)}.")
    if is_concrete(alpha, beta):
        low, high = as_number(alpha), as_number(beta)
        if low is None or high is None or not -1 <= low < high <= 1:
            raise InputError(f"thickness needs -1 <= alpha < beta <= 1, differences of probabilities, got alpha={alpha!r}, beta={beta!r}.")
    if is_concrete(std) and not 0 < (as_number(std) or 0) < np.inf:
        raise InputError(f"std divides distances and must be finite and > 0, got {std!r}; 1 measures in units of [0, 1] pixels.")
