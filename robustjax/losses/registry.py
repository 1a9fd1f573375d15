"""Losses by name, all of one form: loss(logits (b, k), targets (b, k)) -> (b,)."""

from collections.abc import Callable

from robustjax.losses.classify import cross_entropy

TABLE: dict[str, Callable] = {
    "cross_entropy": cross_entropy,
}
