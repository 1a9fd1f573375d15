"""The papers' theorems as numbers: each statement computed, corrected where its print is wrong, and tested by drawing."""

from robustjax.theory.conversion import ellipsoid_semi_axes, parameter_ball_radius, parameter_superset_radius
from robustjax.theory.curvature import CurvatureBounds, curvature_bounds
from robustjax.theory.feature_scaling import rescale_features
from robustjax.theory.generalization import js_divergence_lower_bound, mapping_error_bound, margin_error
from robustjax.theory.imbalance import ImbalanceThreshold, imbalance_threshold
from robustjax.theory.thickness import OptimumThickness, SegmentOptimum, optimum_on_segment, thickness_of_optimum

__all__ = [
    "CurvatureBounds",
    "ImbalanceThreshold",
    "OptimumThickness",
    "SegmentOptimum",
    "curvature_bounds",
    "ellipsoid_semi_axes",
    "imbalance_threshold",
    "js_divergence_lower_bound",
    "mapping_error_bound",
    "margin_error",
    "optimum_on_segment",
    "parameter_ball_radius",
    "parameter_superset_radius",
    "rescale_features",
    "thickness_of_optimum",
]
