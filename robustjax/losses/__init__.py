"""Losses as pure functions, per example: what a step averages, and nothing about models or data.

Those of discriminative.py are means over classes, of the batch of all devices.
"""

from robustjax.losses.awp import adversarial_weight_perturbation
from robustjax.losses.classify import cross_entropy, kl_divergence
from robustjax.losses.discriminative import (
    CentroidState,
    CentroidUpdate,
    DiscriminativeTerms,
    centroid_norm,
    class_balanced_mean,
    class_margin,
    compactness,
    discriminative_loss,
    no_centroids,
    update_centroids,
)
from robustjax.losses.heuristic import confused_labels, head_gradient, released_heuristic
from robustjax.losses.jsd import jsd_consistency
from robustjax.losses.registry import TABLE
from robustjax.losses.stability import stability
from robustjax.losses.taylor import (
    READINGS,
    Derivatives,
    TaylorTerms,
    taylor_derivatives,
    taylor_divergence,
    taylor_regularizer,
    weight_noise,
)
from robustjax.losses.trades import trades_regularizer

__all__ = [
    "READINGS",
    "TABLE",
    "CentroidState",
    "CentroidUpdate",
    "Derivatives",
    "DiscriminativeTerms",
    "TaylorTerms",
    "adversarial_weight_perturbation",
    "centroid_norm",
    "class_balanced_mean",
    "class_margin",
    "compactness",
    "confused_labels",
    "cross_entropy",
    "discriminative_loss",
    "head_gradient",
    "jsd_consistency",
    "kl_divergence",
    "no_centroids",
    "released_heuristic",
    "stability",
    "taylor_derivatives",
    "taylor_divergence",
    "taylor_regularizer",
    "trades_regularizer",
    "update_centroids",
    "weight_noise",
]
