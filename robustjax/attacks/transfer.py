"""Attacks made on one network and tried on another: what an attacker can do who does not see the weights."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.attacks.doors import MANY, check_classes, check_finite, check_threat, rounding, warn_of
from robustjax.attacks.network import as_partial, count_classes, forward
from robustjax.attacks.objectives import cross_entropy
from robustjax.core.check import InputError, check_images, check_keys, is_concrete
from robustjax.core.numerics import lift
from robustjax.core.types import ArrayLike, AttackResult, KeysLike, LogitsFn, ThreatModel


def transfer(
    keys: KeysLike,
    attack: Callable[..., Any],
    surrogate_fn: LogitsFn,
    defender_fn: LogitsFn,
    images: ArrayLike,
    labels: ArrayLike,
    threat: ThreatModel,
    *,
    check: bool = True,
) -> AttackResult:
    """Attacks a surrogate and judges another network, the defender, by the images found.

    The defender is only ever called, never differentiated. Not for use inside jit: it looks at what the attack returns.

    Args:
        keys: one typed key per example, handed to the attack.
        attack: (keys, logits_fn, images, labels, threat) -> images or AttackResult, e.g. `functools.partial(pgd, steps=20,
            step_size=2 / 255)` or the attack of a preset.
        surrogate_fn: images -> logits (b, k), what the attack sees.
        defender_fn: images -> logits (b, k), what is judged.
        images: (b, h, w, c) in [0, 1].
        labels: (b,) integers.
        threat: norm and radius in units of [0, 1] pixels.
        check: whether to look first, on up to 64 images, for what makes the result misleading (`core.check.check_logits_fn`; of
            the defender no gradients); each finding is a warning. For a call a batch, the first is enough.

    Returns:
        The images that the attack returned; `robust`, where the defender is right on the clean and on the attacked image; and stages
        'clean' (the defender on the clean images), 'surrogate' (the surrogate's own robustness, which says how strong the attack
        was) and 'transfer'. The last two also hold the cross-entropy of their network on the clean images (`start_loss`) and on the
        attacked ones (`loss`).

    Raises:
        InputError: for bad inputs, networks that return NaN, or an attack whose images leave the ball, the box or the batch.

    References:
        Liu et al., Delving into Transferable Adversarial Examples and Black-box Attacks, ICLR 2017.

    >>> def logits_fn(x):
    ...     return jnp.stack([x.sum((1, 2, 3)) - 0.5, 0.5 - x.sum((1, 2, 3))], axis=1)
    >>> grey, threat = jnp.full((1, 1, 1, 1), 0.625), ThreatModel("linf", 0.25)
    >>> darken = lambda keys, fn, images, labels, threat: images - threat.eps
    >>> keys = jax.random.split(jax.random.key(0), 1)
    >>> transfer(keys, darken, logits_fn, logits_fn, grey, jnp.array([0]), threat).stages["transfer"]["robust_accuracy"]
    0.0
    """
    check_threat(threat, unbounded=True)
    images = lift(check_images(images))
    if not is_concrete(images, labels):
        raise InputError("transfer looks at the images that the attack returns and cannot run inside jit; attack inside, judge outside.")
    keys = check_keys(keys, images.shape[0])
    surrogate, defender = as_partial(surrogate_fn), as_partial(defender_fn)
    num_classes = count_classes(defender, images)
    if count_classes(surrogate, images) != num_classes:
        raise InputError(f"surrogate and defender must have the same classes, got {count_classes(surrogate, images)} and {num_classes}.")
    labels = check_classes(labels, num_classes, images.shape[0])

    begun = time.perf_counter()
    clean, clean_loss = _judge(defender, images, labels)
    judged = time.perf_counter()
    surrogate_clean, surrogate_start = _judge(surrogate, images, labels)
    if check:
        some = images[:MANY], labels[:MANY]
        warn_of(surrogate_fn, *some, who="surrogate: ")
        warn_of(defender_fn, *some, who="defender: ", gradients=False)
    attacked = attack(keys, surrogate_fn, images, labels, threat)
    attacked = _check_attacked(attacked.images if isinstance(attacked, AttackResult) else attacked, images, threat)
    withstood, surrogate_loss = _judge(surrogate, attacked, labels)
    made = time.perf_counter()
    right, loss = _judge(defender, attacked, labels)
    robust = clean & right
    done = time.perf_counter()
    stages = {
        "clean": _stage(clean, len(clean), judged - begun),
        "surrogate": _stage(surrogate_clean & withstood, len(clean), made - judged, surrogate_loss, surrogate_start),
        "transfer": _stage(robust, int(clean.sum()), done - made, loss, clean_loss),
    }
    return AttackResult(attacked, jnp.asarray(robust), stages)


@jax.jit
def _judged(network, images, labels):
    logits = forward(network, images)
    return jnp.argmax(logits, axis=1).astype(labels.dtype) == labels, cross_entropy(logits, labels)


def _judge(network: jax.tree_util.Partial, images: jax.Array, labels: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Returns whether the network is right, and its cross-entropy."""
    with jax.debug_nans(False):
        right, loss = _judged(network, images, labels)
        check_finite(loss)
    return np.asarray(right), np.asarray(loss)


def _stage(robust, examples, seconds, loss=None, start_loss=None) -> dict[str, Any]:
    stage = {"robust": robust, "robust_accuracy": float(robust.mean()), "seconds": seconds, "examples": examples}
    return stage if loss is None else {**stage, "loss": loss, "start_loss": start_loss}


def _check_attacked(attacked: Any, images: jax.Array, threat: ThreatModel) -> jax.Array:
    """Returns the attacked images after checking that the threat model allows them."""
    if np.shape(attacked) != images.shape:
        raise InputError(f"the attack must return images of shape {images.shape}, got {np.shape(attacked)}.")
    attacked = lift(check_images(attacked, name="the attack's images"))
    # In float64: the sum of thousands of rounded pixels would itself be off by more than what is allowed.
    moved = np.abs(np.asarray(attacked, np.float64) - np.asarray(images, np.float64)).reshape(len(images), -1)
    size = {"linf": moved.max(1), "l2": np.sqrt((moved**2).sum(1)), "l1": moved.sum(1)}[threat.norm]
    outside = size > threat.eps + rounding(threat.norm, threat.eps, moved.shape[1])
    if outside.any():
        raise InputError(
            f"the attack left the {threat.norm} ball of radius {threat.eps:g} on {outside.sum()} of {len(images)} images, by up to "
            f"{(size - threat.eps).max():.3g}; project onto the ball and the box before returning."
        )
    return attacked
