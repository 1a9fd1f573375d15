"""Losses as pure functions, per example: what a step averages, and nothing about models or data."""

from robustjax.losses.awp import adversarial_weight_perturbation
from robustjax.losses.classify import cross_entropy, kl_divergence
from robustjax.losses.heuristic import confused_labels, head_gradient, released_heuristic
from robustjax.losses.registry import TABLE
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
    "Derivatives",
    "TaylorTerms",
    "adversarial_weight_perturbation",
    "confused_labels",
    "cross_entropy",
    "head_gradient",
    "kl_divergence",
    "released_heuristic",
    "taylor_derivatives",
    "taylor_divergence",
    "taylor_regularizer",
    "trades_regularizer",
    "weight_noise",
]
