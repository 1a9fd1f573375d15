"""What an attack climbs: one number per example, larger where the network is more wrong.

`OBJECTIVES` names them and says what each reads besides the logits; `evaluate` passes that on, so attacks call all of them alike.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from robustjax.core import registry
from robustjax.core.numerics import kl_p_from_logits, lift, nll_from_logits

SLACK = 1e-12  # the official code's guard of the DLR's denominator


def cross_entropy(logits: Float[Array, "b k"], labels: Int[Array, " b"]) -> Float[Array, " b"]:
    """Computes -log softmax(logits)_y per example, in nats: the objective of Madry et al., ICLR 2018, Eq. 2.1."""
    return nll_from_logits(logits, labels)


def margin(logits: Float[Array, "b k"], labels: Int[Array, " b"]) -> Float[Array, " b"]:
    """Computes max_{j != y} z_j - z_y per example: above 0 where the network is wrong.

    The function f_6 of Carlini and Wagner, IEEE S&P 2017, section V.A, with the opposite sign and without its kappa and its
    cut at zero, so the attack goes on once the example is misclassified.
    """
    logits = lift(logits)
    is_label = jnp.arange(logits.shape[-1], dtype=labels.dtype)[None, :] == labels[:, None]
    others = jnp.max(jnp.where(is_label, -jnp.inf, logits), axis=-1)
    return others - jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]


def dlr(logits: Float[Array, "b k"], labels: Int[Array, " b"]) -> Float[Array, " b"]:
    """Computes the difference of logits ratio -(z_y - max_{j != y} z_j) / (z_pi1 - z_pi3 + 1e-12), pi sorting z downwards.

    Croce and Hein, ICML 2020, Eq. 6. Shifting or scaling the logits does not change it. It lies in [-1, 0] where the network is
    right and grows without bound where it is wrong and the three largest logits meet. Needs three classes to be computed, and
    four to mean something: of three, max - min is all that the denominator sees.
    """
    logits = lift(logits)
    top, which = jax.lax.top_k(logits, 3)
    other = jnp.where(which[:, 0] == labels, top[:, 1], top[:, 0])
    return (other - _pick(logits, labels)) / (top[:, 0] - top[:, 2] + SLACK)


def dlr_targeted(logits: Float[Array, "b k"], labels: Int[Array, " b"], targets: Int[Array, " b"]) -> Float[Array, " b"]:
    """Computes -(z_y - z_t) / (z_pi1 - (z_pi3 + z_pi4) / 2 + 1e-12): Croce and Hein, ICML 2020, Eq. 7. Needs four classes."""
    logits = lift(logits)
    top, _ = jax.lax.top_k(logits, 4)
    return logit_difference(logits, labels, targets) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + SLACK)


def logit_difference(logits: Float[Array, "b k"], labels: Int[Array, " b"], targets: Int[Array, " b"]) -> Float[Array, " b"]:
    """Computes z_t - z_y per example: above 0 where the target class beats the label."""
    logits = lift(logits)
    return _pick(logits, targets) - _pick(logits, labels)


def kl_from_clean(logits: Float[Array, "b k"], clean_logits: Float[Array, "b k"]) -> Float[Array, " b"]:
    """Computes KL(softmax(clean_logits) || softmax(logits)) per example, in nats: Zhang et al. (TRADES), ICML 2019, Eq. 5.

    Its gradient is zero at the clean image, so an attack has to begin elsewhere.
    """
    return kl_p_from_logits(clean_logits, logits)


def _pick(logits: Float[Array, "b k"], classes: Int[Array, " b"]) -> Float[Array, " b"]:
    return jnp.take_along_axis(logits, classes[:, None], axis=-1)[:, 0]


class Objective(NamedTuple):
    """An objective and what it needs."""

    compute: Callable[..., Array]  # (logits, *reads) -> (b,)
    reads: tuple[str, ...]  # of 'labels' (b,), 'targets' (b,) and 'clean_logits' (b, k), in this order
    least_classes: int = 2
    instead: str = ""  # which objective to climb where there are fewer classes


OBJECTIVES: dict[str, Objective] = {
    "ce": Objective(cross_entropy, ("labels",)),
    "cw": Objective(margin, ("labels",)),
    "dlr": Objective(dlr, ("labels",), 4, "cw"),
    "dlr_targeted": Objective(dlr_targeted, ("labels", "targets"), 4, "logit_difference"),
    "logit_difference": Objective(logit_difference, ("labels", "targets")),
    "kl": Objective(kl_from_clean, ("clean_logits",)),
}


def evaluate(
    name: str,
    logits: Float[Array, "b k"],
    labels: Int[Array, " b"] | None = None,
    targets: Int[Array, " b"] | None = None,
    clean_logits: Float[Array, "b k"] | None = None,
) -> Float[Array, " b"]:
    """Returns the objective called `name`, per example; what it does not read may be None.

    >>> evaluate("logit_difference", jnp.array([[0.0, 3.0, 1.0]]), jnp.array([1]), jnp.array([2]))
    Array([-2.], dtype=float32)
    """
    given = {"labels": labels, "targets": targets, "clean_logits": clean_logits}
    objective = OBJECTIVES[name]
    return objective.compute(logits, *(given[read] for read in objective.reads))


def for_classes(name: str, num_classes: int) -> str:
    """Returns the objective to climb with that many classes: `name`, or with a warning what stands in for it.

    Raises:
        InputError: for an unknown name.
    """
    if name not in OBJECTIVES:
        raise registry.unknown("objective", name, OBJECTIVES)
    objective = OBJECTIVES[name]
    if num_classes >= objective.least_classes:
        return name
    warnings.warn(
        f"the objective {name!r} compares {objective.least_classes} classes and the network has {num_classes}: climbing "
        f"{objective.instead!r} instead.",
        stacklevel=3,
    )
    return objective.instead
