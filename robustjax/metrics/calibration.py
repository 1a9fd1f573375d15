"""Expected calibration error, from complete inputs or from sums that add up over batches.

    sums = None
    for batch in batches:
        part = calibration_sums(confidence(logits), correct(logits, labels), mask=batch.mask)
        sums = part if sums is None else jax.tree.map(jnp.add, sums, part)
    calibration_error(sums)

The error itself does not add up: a mean of the errors of batches is larger than the error of their union.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robustjax.core.check import InputError, is_concrete
from robustjax.core.numerics import lift
from robustjax.core.types import ArrayLike


class CalibrationSums(NamedTuple):
    """Sums over the examples of each bin; those of two batches add up leaf by leaf (`jax.tree.map(jnp.add, a, b)`)."""

    count: Array  # (bins,) int32
    confidence: Array  # (bins,) sum of the confidences
    correct: Array  # (bins,) int32, number of right predictions


def calibration_sums(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int | np.integer = 15, mask: ArrayLike | None = None
) -> CalibrationSums:
    """Sorts examples into equal bins of confidence and sums each bin up.

    Bin m of M is ((m - 1)/M, m/M], as in Guo et al. 2017, section 2; a confidence of 0 falls into the first.

    Args:
        confidence: (b,) in [0, 1], the probability of the predicted class (`accuracy.confidence`).
        correct: (b,) bool (`accuracy.correct`).
        bins: how many, at least 1. Static: another number compiles another program.
        mask: (b,) bool, False for padding; None counts every example.

    Returns:
        The sums; add those of all batches, then call `calibration_error`.

    Raises:
        InputError: for wrong shapes or dtypes, or (when concrete) confidences that are not in [0, 1].

    >>> calibration_sums(jnp.array([0.9, 0.6, 1.0]), jnp.array([True, False, True]), bins=2).count
    Array([0, 3], dtype=int32)
    """
    confidence, correct = jnp.asarray(confidence), jnp.asarray(correct)
    mask = jnp.ones(confidence.shape, bool) if mask is None else jnp.asarray(mask)
    _check(confidence, correct, mask, bins)
    confidence = lift(confidence)
    # Edges are k / bins rounded once, so that a confidence given as 3/15 lies on the edge whatever its dtype.
    edges = jnp.asarray((np.arange(1, bins) / bins).astype(confidence.dtype))
    # Comparisons and sums rather than a search and a scatter: they also take rows that are sharded over an Explicit mesh.
    index = jnp.sum(edges[None, :] < confidence[:, None], axis=1, dtype=jnp.int32)
    inside = (index[:, None] == jnp.arange(bins, dtype=jnp.int32)[None, :]) & mask[:, None]

    def total(values):
        return jnp.sum(jnp.where(inside, values[:, None], 0), axis=0, dtype=values.dtype)

    return CalibrationSums(total(jnp.ones_like(index)), total(confidence), total(correct.astype(jnp.int32)))


def calibration_error(sums: CalibrationSums) -> Float[Array, ""]:
    """Computes the expected calibration error from the sums over a whole data set.

    ECE = sum_m |B_m|/n |acc(B_m) - conf(B_m)| (Guo et al., On Calibration of Modern Neural Networks, ICML 2017, Eq. 3),
    which is sum_m |correct_m - confidence_m| / n in terms of the bins' sums.

    Args:
        sums: of all examples. The error of a part, or a mean over parts, is another number.

    Returns:
        Scalar in [0, 1].

    Raises:
        InputError: if no example was counted (seen only when concrete; NaN when traced).
    """
    n = jnp.sum(sums.count)
    if is_concrete(sums) and int(n) == 0:
        raise InputError("the calibration error of no examples is not defined; the sums count none.")
    gap = jnp.abs(sums.correct.astype(sums.confidence.dtype) - sums.confidence)
    return jnp.sum(gap) / n.astype(sums.confidence.dtype)  # unguarded: 0 would say 'perfectly calibrated'


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, *, bins: int | np.integer = 15) -> Float[Array, ""]:
    """Computes the expected calibration error of complete inputs: every example of the data set at once.

    Args:
        confidence: (n,) in [0, 1], the probability of the predicted class.
        correct: (n,) bool.
        bins: number of equal bins, 15 as in Guo et al. 2017.

    Returns:
        Scalar in [0, 1]; 0.05 is 5 percentage points.

    Raises:
        InputError: for wrong shapes, confidences that are not in [0, 1], or no examples.

    >>> expected_calibration_error(jnp.array([0.75] * 4), jnp.array([True, True, True, False]))
    Array(0., dtype=float32)
    """
    return calibration_error(calibration_sums(confidence, correct, bins=bins))


def _check(confidence: Array, correct: Array, mask: Array, bins: int | np.integer) -> None:
    if not isinstance(bins, int | np.integer) or bins < 1:
        raise InputError(f"bins is how many bins of confidence there are, an integer >= 1, got {bins!r}.")
    if confidence.ndim != 1 or not jnp.issubdtype(confidence.dtype, jnp.floating):
        raise InputError(f"confidence must be floats of shape (n,), got {confidence.dtype} {confidence.shape}.")
    for name, array in (("correct", correct), ("mask", mask)):
        if array.shape != confidence.shape or array.dtype != bool:
            raise InputError(f"{name} must be bool of shape {confidence.shape} like confidence, got {array.dtype} {array.shape}.")
    if is_concrete(confidence, mask):
        values = np.asarray(confidence, np.float64)[np.asarray(mask)]
        if not ((values >= 0) & (values <= 1 + 1e-6)).all():  # softmax sums may round above 1; NaN fails the comparison
            raise InputError("confidence must be probabilities in [0, 1]; these are not (logits, percent or NaN?).")
