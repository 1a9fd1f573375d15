"""Measurements: per-example values and sums that the evaluation adds up, and aggregates that take complete inputs."""

from robustjax.metrics.accuracy import confidence, correct, nll
from robustjax.metrics.calibration import CalibrationSums, calibration_error, calibration_sums, expected_calibration_error
from robustjax.metrics.corruption_error import CorruptionError, mean_corruption_error
from robustjax.metrics.curvature import directional_curvature, input_curvature
from robustjax.metrics.flatness import (
    filter_normalize,
    gaussian_direction,
    hessian_top_eigenvalue,
    hessian_trace,
    loss_at_distance,
    weight_space_loss,
)
from robustjax.metrics.geometry import LossStability, class_dispersion, class_margins, feature_stability, loss_stability
from robustjax.metrics.landscape import input_landscape, weight_landscape
from robustjax.metrics.reference import Reference, corruption_reference
from robustjax.metrics.thickness import boundary_thickness, other_classes, segment_gaps, thickness_of_gaps

__all__ = [
    "CalibrationSums",
    "CorruptionError",
    "LossStability",
    "Reference",
    "boundary_thickness",
    "calibration_error",
    "calibration_sums",
    "class_dispersion",
    "class_margins",
    "confidence",
    "correct",
    "corruption_reference",
    "directional_curvature",
    "expected_calibration_error",
    "feature_stability",
    "filter_normalize",
    "gaussian_direction",
    "hessian_top_eigenvalue",
    "hessian_trace",
    "input_curvature",
    "input_landscape",
    "loss_at_distance",
    "loss_stability",
    "mean_corruption_error",
    "nll",
    "other_classes",
    "segment_gaps",
    "thickness_of_gaps",
    "weight_landscape",
    "weight_space_loss",
]
