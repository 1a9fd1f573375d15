"""What every attack checks before it begins, and how its inputs look from then on."""

import functools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from robustjax.attacks.network import as_network, count_classes
from robustjax.core.check import InputError, check_images, check_keys, check_labels, check_logits_fn, is_concrete
from robustjax.core.numerics import lift
from robustjax.core.types import ArrayLike, Keys, KeysLike, LogitsFn, Norm, ThreatModel

MANY = 64  # images on which a network is looked at


class Entered(NamedTuple):
    """Checked inputs of an attack."""

    keys: Keys
    network: jax.tree_util.Partial  # (images, keys) -> logits
    images: Float[Array, "b h w c"]  # at least float32
    labels: Int[Array, " b"]
    num_classes: int


def enter(
    keys: KeysLike,
    logits_fn: LogitsFn,
    images: ArrayLike,
    labels: ArrayLike,
    threat: ThreatModel,
    *,
    randomized: bool = False,
    unbounded: bool = False,
) -> Entered:
    """Checks what all attacks are given.

    Args:
        keys: one typed key per example.
        logits_fn: images -> logits (b, k); where `randomized`, (images, keys) -> logits.
        images: (b, h, w, c) in [0, 1].
        labels: (b,).
        threat: norm and radius.
        randomized: whether the network draws.
        unbounded: whether an L-inf radius over 1 makes sense: to an attack that looks for the nearest adversarial image.

    Raises:
        InputError: in one line, for whatever does not fit.
    """
    check_threat(threat, unbounded=unbounded)
    images = lift(check_images(images))
    keys = check_keys(keys, images.shape[0])
    network = as_network(logits_fn, randomized=randomized)
    num_classes = count_classes(network, images, keys)
    return Entered(keys, network, images, check_classes(labels, num_classes, images.shape[0]), num_classes)


def check_threat(threat: Any, *, unbounded: bool = False) -> None:
    """Refuses what is no threat model, and an L-inf radius that covers the whole box unless `unbounded`."""
    if not isinstance(threat, ThreatModel):
        raise InputError(f"threat must be core.ThreatModel(norm, eps), e.g. ThreatModel('linf', 8 / 255), got {threat!r}.")
    if threat.norm == "linf" and threat.eps > 1 and not unbounded:
        raise InputError(
            f"an L-inf radius is in units of [0, 1] pixels and {threat.eps:g} covers every image; write {threat.eps:g} / 255 for "
            f"{threat.eps:g} levels (usual: 8 / 255)."
        )


def check_classes(labels: Any, num_classes: int, b: int, *, name: str = "labels") -> Int[Array, " b"]:
    """Returns class numbers (b,) after checking them."""
    if labels is None:
        raise InputError(f"{name} must be class numbers (b,), got None, which will do only where targets are given.")
    labels = check_labels(labels, num_classes=num_classes, name=name)
    if labels.shape[0] != b:
        raise InputError(f"{name} must have shape ({b},), one for each image, got {labels.shape}.")
    return labels


def check_targets(targets: Any, labels: Int[Array, " b"], num_classes: int) -> Int[Array, "b t"]:
    """Returns the classes to aim at (b, t) after checking that they are classes other than the labels."""
    b = labels.shape[0]
    if np.ndim(targets) != 2 or np.shape(targets)[0] != b or not np.size(targets):
        raise InputError(f"targets must be classes ({b}, t), got shape {np.shape(targets)}; for one class an image give targets[:, None].")
    targets = jnp.stack([check_classes(column, num_classes, b, name="targets") for column in jnp.asarray(targets).T], axis=1)
    if is_concrete(targets, labels):
        same = (np.asarray(targets) == np.asarray(labels)[:, None]).any(1)
        if same.any():
            raise InputError(f"targets must differ from the labels; on {same.sum()} of {b} images they do not, first at {same.argmax()}.")
    return targets


def check_start(start: Any, images: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Returns the points to begin at, in the images' dtype."""
    start = jnp.asarray(start)
    if start.shape != images.shape or not jnp.issubdtype(start.dtype, jnp.floating):
        raise InputError(f"start must be floats of the images' shape {images.shape}, got {start.dtype} {start.shape}.")
    if is_concrete(start) and not np.isfinite(np.asarray(start, np.float64)).all():
        raise InputError("start holds NaN or infinite values; look at what made them.")
    return start.astype(images.dtype)


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Refuses what is no integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} must be an integer >= {least}, got {value!r}.")


def rounding(norm: Norm, eps: float, size: int) -> float:
    """Returns how far beyond the radius float32 may take an attack on images of `size` entries.

    1e-6 (1 + eps); in 'l1', where rounding errors of all entries add up, 2e-5 at 32x32x3 and radius 12, and more where either is larger.
    """
    return 2e-5 * max(1, eps / 12, size / 3072) if norm == "l1" else 1e-6 * (1 + eps)


@functools.partial(jax.jit, static_argnames="targeted")
def keep_mistakes(
    found: Float[Array, "b h w c"],
    success: Bool[Array, " b"],
    images: Float[Array, "b h w c"],
    aim: Int[Array, " b"],
    clean_logits: Float[Array, "b k"],
    *,
    targeted: bool = False,
) -> Float[Array, "b h w c"]:
    """Returns what an attack found, but the clean image where that succeeds and what was found does not.

    Args:
        found: the attack's images.
        success: whether they fool the network.
        images: the clean ones.
        aim: labels to leave; where `targeted`, classes to reach.
        clean_logits: of the clean images.
        targeted: see `aim`.
    """
    hit = jnp.argmax(clean_logits, axis=-1).astype(aim.dtype) == aim
    lost = ~success & (hit if targeted else ~hit)
    return jax.lax.stop_gradient(jnp.where(lost[:, None, None, None], images, found))


def warn_of(logits_fn: LogitsFn, images: ArrayLike, labels: ArrayLike, *, who: str = "", **options: Any) -> None:
    """Warns of what makes an attack on this network misleading.

    Args:
        logits_fn: the network.
        images: a few, clean.
        labels: theirs.
        who: begins each line, where there are several networks.
        options: of `check_logits_fn`.
    """
    for line in check_logits_fn(logits_fn, images, labels, **options):
        warnings.warn(who + line, stacklevel=3)


def check_finite(values: Array) -> None:
    """Fails where the network returned NaN, which `values` (b,) carry: such an example would count as robust or broken by accident."""
    if not is_concrete(values):
        return
    bad = np.isnan(np.asarray(values))
    if bad.any():
        raise InputError(
            f"logits_fn returned NaN or infinite logits, or gradients that are NaN, on {bad.sum()} of {bad.size} images, "
            f"first at position {bad.argmax()}; look at the network's weights."
        )
