"""The papers' theorems as numbers: each statement computed, corrected where its print is wrong, and tested by drawing."""

from robustjax.theory.conversion import ellipsoid_semi_axes, parameter_ball_radius, parameter_superset_radius
from robustjax.theory.imbalance import ImbalanceThreshold, imbalance_threshold
from robustjax.theory.thickness import OptimumThickness, SegmentOptimum, optimum_on_segment, thickness_of_optimum

__all__ = [
    "ImbalanceThreshold",
    "OptimumThickness",
    "SegmentOptimum",
    "ellipsoid_semi_axes",
    "imbalance_threshold",
    "optimum_on_segment",
    "parameter_ball_radius",
    "parameter_superset_radius",
    "thickness_of_optimum",
]
