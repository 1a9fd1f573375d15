"""Measurements: per-example values and sums that the evaluation adds up, and aggregates that take complete inputs."""

from robustjax.metrics.accuracy import confidence, correct, nll
from robustjax.metrics.calibration import CalibrationSums, calibration_error, calibration_sums, expected_calibration_error
from robustjax.metrics.corruption_error import CorruptionError, mean_corruption_error
from robustjax.metrics.reference import Reference, corruption_reference

__all__ = [
    "CalibrationSums",
    "CorruptionError",
    "Reference",
    "calibration_error",
    "calibration_sums",
    "confidence",
    "correct",
    "corruption_reference",
    "expected_calibration_error",
    "mean_corruption_error",
    "nll",
]
