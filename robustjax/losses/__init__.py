"""Losses as pure functions, per example: what a step averages, and nothing about models or data."""

from robustjax.losses.classify import cross_entropy, kl_divergence
from robustjax.losses.registry import TABLE

__all__ = ["TABLE", "cross_entropy", "kl_divergence"]
