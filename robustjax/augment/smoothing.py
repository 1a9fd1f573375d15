"""What becomes of a label when its image is moved: the farther, the softer."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robustjax.augment.radius import as_float, known_number
from robustjax.core import check
from robustjax.core.check import InputError
from robustjax.core.types import ArrayLike, Scalar


def exponential_confidence(size: ArrayLike, *, start: Scalar, width: Scalar, floor: Scalar) -> Float[Array, " b"]:
    """Returns the confidence s(size) in the true label: 1 up to `start`, then decaying exponentially.

    s(z) = exp(-λ (z - start)) for z > start, λ = ln(1/floor) / width, so that s(start + width) = floor. Beyond that it
    goes on decaying. SPIDER's "s(z) := clip(e^{-λ(z-ε)}, 0, 1)" (Algorithm 2) has start τ/4, width 3τ/4; ESP's
    (Algorithm 1) start ε, width τ; both floor 1/C + ξ. The printed λ of either paper is a misprint: this one goes
    through the end points that their texts name.

    Args:
        size: (b,) how far each image was moved.
        start: up to where the confidence is 1.
        width: how far beyond `start` it takes to reach `floor`, at least 0; at 0 the confidence steps down to `floor`.
        floor: confidence at start + width, in (0, 1]; 1 means no decay. All three may be traced.

    Returns:
        (b,) in (0, 1].

    Raises:
        InputError: for a negative width or a floor outside (0, 1].

    >>> [round(float(s), 4) for s in exponential_confidence(jnp.array([0.5, 1.0, 2.5, 4.0, 5.5]), start=1.0, width=3.0, floor=0.25)]
    [1.0, 1.0, 0.5, 0.25, 0.125]
    """
    known_number("start", start)
    known_width, known_floor = known_number("width", width), known_number("floor", floor)
    if known_width is not None and not known_width >= 0:
        raise InputError(f"width must be >= 0, got {width}.")
    # A little above 1 is what 1/C + (1 - 1/C) may round to.
    if known_floor is not None and not 0 < known_floor <= 1 + 1e-6:
        raise InputError(f"floor is the confidence at start + width and must lie in (0, 1], got {floor}.")
    size = as_float(size)
    start, width, floor = (jnp.asarray(x).astype(size.dtype) for x in (start, width, floor))
    beyond = jnp.maximum(size - start, 0)
    steps = jnp.where(width > 0, beyond / jnp.where(width > 0, width, 1), (beyond > 0).astype(size.dtype))
    return jnp.exp(jnp.log(jnp.clip(floor, jnp.finfo(size.dtype).tiny, 1)) * steps)


def soft_targets(confidence: ArrayLike, labels: ArrayLike, *, num_classes: int) -> Float[Array, "b k"]:
    """Gives the true label its confidence s, and the other classes equal shares of what is left.

    SPIDER's Algorithms 1 and 2, ESP's Algorithm 1: "s(‖δ‖) if i is the true label, (1 - s(‖δ‖))/(c - 1) otherwise". For labels
    that are soft already (after Mixup), s y + (1 - s) (1 - y) / (C - 1): the mixture of what each class would have got.

    Args:
        confidence: (b,) in [0, 1].
        labels: (b,) whole numbers in [0, num_classes), or (b, num_classes) distributions.
        num_classes: C, at least 2.

    Returns:
        (b, num_classes) distributions, in the dtype of `confidence` but at least float32.

    Raises:
        InputError: for labels out of range or targets that are no distributions, a confidence outside [0, 1], fewer than 2 classes.

    >>> [round(float(t), 4) for t in soft_targets(jnp.array([0.7]), jnp.array([1]), num_classes=4)[0]]
    [0.1, 0.7, 0.1, 0.1]
    """
    confidence = as_float(confidence)
    targets = as_targets(labels, num_classes=num_classes, dtype=confidence.dtype)
    if confidence.shape != targets.shape[:1]:
        raise InputError(f"confidence must hold one number for each label, {targets.shape[:1]}, got shape {confidence.shape}.")
    if check.is_concrete(confidence):
        known = np.asarray(confidence)
        if not ((known >= 0) & (known <= 1)).all():
            raise InputError(f"confidence must lie in [0, 1], got values from {known.min():.4g} to {known.max():.4g}.")
    confidence = confidence[:, None]
    return confidence * targets + (1 - confidence) * (1 - targets) / (num_classes - 1)


def as_targets(labels: ArrayLike, *, num_classes: int, dtype: jnp.dtype = jnp.float32, b: int | None = None) -> Float[Array, "b k"]:
    """Returns labels (b,) one-hot and targets (b, k) as they are, both as floats of `dtype`, checked.

    Raises:
        InputError: as `soft_targets`, and where there are not `b` of them (None: any number will do).
    """
    if not isinstance(num_classes, (int, np.integer)) or num_classes < 2:
        raise InputError(f"num_classes must be at least 2, got {num_classes!r}: there must be another class to doubt for.")
    if b is not None and jnp.ndim(labels) and len(labels) != b:
        raise InputError(f"labels must be one for each of the {b} images, got {len(labels)}.")
    if jnp.ndim(labels) == 1:
        return jax.nn.one_hot(check.check_labels(labels, num_classes=num_classes), num_classes, dtype=dtype)
    return check.check_targets(labels, num_classes=num_classes).astype(dtype)


def xi_from_ratio(gamma: Scalar, *, num_classes: int) -> Scalar:
    """Returns the ξ at which the true label, softened most, is `gamma` times as probable as each other class.

    ESP's section 4.2: "we have chosen ξ such that the maximally smoothed true label (C^-1 + ξ) is γ times higher than the
    other labels ((1 - C^-1 - ξ)/(C - 1))". Solved for ξ: γ/(γ + C - 1) - 1/C.

    Args:
        gamma: at least 1 (1: nothing is left of the label; infinity: it stays hard). The paper's are 10 to 200.
        num_classes: C, at least 2.

    Returns:
        ξ in [0, 1 - 1/C], of the kind `gamma` is.

    Raises:
        InputError: for a gamma below 1, fewer than 2 classes.

    >>> round(xi_from_ratio(10, num_classes=10), 3), round(xi_from_ratio(200, num_classes=200), 3)
    (0.426, 0.496)
    """
    if not isinstance(num_classes, (int, np.integer)) or num_classes < 2:
        raise InputError(f"num_classes must be at least 2, got {num_classes!r}.")
    number = known_number("gamma", gamma)
    if number is not None and not number >= 1:
        raise InputError(f"gamma must be >= 1, got {gamma}: below, a wrong class would be the more probable one.")
    return 1 / (1 + (num_classes - 1) / gamma) - 1 / num_classes


def check_xi(xi: Scalar, *, num_classes: int) -> None:
    """Raises InputError where ξ is known and 1/C + ξ is no confidence between chance and certainty."""
    number = known_number("xi", xi)
    # The slack is for a limit that was computed in float32.
    if number is not None and not 0 <= number <= 1 - 1 / num_classes + 1e-6:
        raise InputError(f"xi must lie in [0, 1 - 1/C] = [0, {1 - 1 / num_classes:.6g}] for {num_classes} classes, got {xi}.")
