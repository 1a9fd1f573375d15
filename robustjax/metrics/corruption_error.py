"""Mean corruption error: one number from the error under every corruption at every severity."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from robustjax.core.check import InputError
from robustjax.core.types import Scalar

CLEAN = "clean"  # the name under which `reference` holds its error without corruption


class CorruptionError(NamedTuple):
    """Fractions, not percent: 0.7 is what papers print as 70."""

    mce: float
    relative_mce: float | None  # None without clean_error or without the reference's
    per_corruption: dict[str, float]  # CE of each corruption, whose mean is mce


def mean_corruption_error(
    errors: Mapping[str, Any],
    *,
    clean_error: Scalar | None = None,
    reference: Mapping[str, Any] | None = None,
) -> CorruptionError:
    """Computes mCE, plain or normalised by a reference network, from complete inputs.

    Without `reference` (CIFAR-10-C, CIFAR-100-C, Tiny-ImageNet-C, C-bar): the mean over corruptions of the mean over severities.
    With it (ImageNet-C): CE_c = sum_s E(s, c) / sum_s E_ref(s, c), averaged over severities before dividing, and
    relative CE_c = (sum_s E(s, c) - 5 E_clean) / (sum_s E_ref(s, c) - 5 E_ref,clean); both then averaged over corruptions
    (Hendrycks and Dietterich, ICLR 2019, section 4.2).

    Args:
        errors: top-1 error in [0, 1] by corruption: one value for each severity, or one number where there are no severities.
            All of the benchmark's corruptions, each with the same number of severities.
        clean_error: error on the clean images in [0, 1].
        reference: the reference network's errors (AlexNet's for ImageNet-C) by the same names: one value for each severity, or
            their mean. Its clean error goes under 'clean', and is needed for relative_mce only.

    Returns:
        CorruptionError; relative_mce is None unless `clean_error` and `reference['clean']` are both given.

    Raises:
        InputError: for missing or surplus corruptions or severities, numbers that are not fractions, or a reference that is
            not worse on corrupted images than required to divide by it.

    >>> mean_corruption_error({"fog": [0.1, 0.3], "snow": [0.4, 0.4]}).per_corruption
    {'fog': 0.2, 'snow': 0.4}
    >>> mean_corruption_error({"fog": [0.25, 0.5]}, clean_error=0.125, reference={"fog": 0.5, "clean": 0.25})
    CorruptionError(mce=0.75, relative_mce=1.0, per_corruption={'fog': 0.75})
    """
    if not errors:
        raise InputError("errors holds no corruption; expected {'gaussian_noise': (error at severity 1, 2, ...), ...}.")
    table = {name: _fractions(f"errors[{name!r}]", values) for name, values in errors.items()}
    severities = {values.size for values in table.values()}
    if len(severities) > 1:
        few = min(table, key=lambda name: table[name].size)
        raise InputError(
            f"severities are missing: {few!r} has {table[few].size} errors, others have {max(severities)}; give one a severity."
        )
    mean = {name: float(values.mean()) for name, values in table.items()}
    clean = None if clean_error is None else float(_fractions("clean_error", clean_error, size=1)[0])
    if reference is None:
        return CorruptionError(_mean(mean), None, mean)
    reference_clean, reference_mean = _reference(reference, mean, severities.pop())
    per_corruption = {name: _ratio(name, mean[name], reference_mean[name]) for name in mean}
    relative = None
    if clean is not None and reference_clean is not None:
        relative = _mean({name: _ratio(name, mean[name] - clean, reference_mean[name] - reference_clean) for name in mean})
    return CorruptionError(_mean(per_corruption), relative, per_corruption)


def _mean(values: Mapping[str, float]) -> float:
    return float(np.mean(list(values.values())))


def _ratio(name: str, error: float, reference: float) -> float:
    if reference <= 0:
        raise InputError(
            f"the reference's error on {name!r} (less its clean error, for relative mCE) is {reference:g}; it must be > 0 to divide by."
        )
    return error / reference


def _fractions(name: str, values: Any, *, size: int | None = None) -> np.ndarray:
    """Returns the values as (n,) float64 after checking that they are fractions."""
    values = np.atleast_1d(np.asarray(values, np.float64))
    if values.ndim != 1 or values.size == 0 or (size is not None and values.size != size):
        raise InputError(f"{name} must be {'one number' if size == 1 else 'one number for each severity'}, got shape {values.shape}.")
    if not ((values >= 0) & (values <= 1)).all():  # also false for NaN
        raise InputError(f"{name} must be fractions in [0, 1], not percent or NaN, got {values.tolist()}.")
    return values


def _reference(reference: Mapping[str, Any], names: Mapping[str, float], severities: int) -> tuple[float | None, dict[str, float]]:
    """Returns the reference's clean error, if it has one, and its mean error by corruption."""
    table = {name: _fractions(f"reference[{name!r}]", values) for name, values in reference.items()}
    clean = table.pop(CLEAN, None)
    missing, surplus = sorted(table.keys() - names.keys()), sorted(names.keys() - table.keys())
    if missing:
        raise InputError(f"errors lacks {', '.join(missing)}: mCE is the mean over all corruptions of the reference.")
    if surplus:
        raise InputError(f"the reference has no {', '.join(surplus)}; leave them out of errors (mCE excludes the extra corruptions).")
    for name, values in table.items():
        if values.size not in (1, severities):
            raise InputError(
                f"reference[{name!r}] must be its mean error or one error for each of {severities} severities, got {values.size}."
            )
    if clean is not None and clean.size != 1:
        raise InputError(f"reference['clean'] must be one number, got {clean.size}.")
    return (None if clean is None else float(clean[0])), {name: float(values.mean()) for name, values in table.items()}
