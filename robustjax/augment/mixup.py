"""Mixup and CutMix: two examples in one, with the labels of both.

The second examples are arguments: which they are is for the caller to choose.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from robustjax.augment.rows import moved
from robustjax.core import check, numerics, rng
from robustjax.core.check import InputError
from robustjax.core.types import ArrayLike, Keys, KeysLike

Images = Float[Array, "b h w c"]
Targets = Float[Array, "b k"]
PerExample = Float[Array, " b"]

LAMS = ("example", "batch")


class Examples(NamedTuple):
    """Images and their targets."""

    images: Images
    targets: Targets


def mixup(
    keys: KeysLike,
    images: ArrayLike,
    targets: ArrayLike,
    partner_images: ArrayLike,
    partner_targets: ArrayLike,
    *,
    alpha: Any,
    lam: Any = "example",
) -> tuple[Images, Targets]:
    """Mixes each example with its partner: λ x + (1 - λ) x', λ y + (1 - λ) y', with λ ~ Beta(alpha, alpha).

    The cross-entropy with the mixed target is the mixture of the cross-entropies with either label.

    Args:
        keys: one PRNG key for each example.
        images: float (b, h, w, c) in [0, 1].
        targets: distributions (b, k), hard or soft.
        partner_images, partner_targets: like these; row i is mixed into row i.
        alpha: above 0; 1 makes λ uniform, small ones make it nearly 0 or 1. May be traced.
        lam: 'example' draws a λ for each; 'batch' draws one from the first key, as the usual implementations do, and what an example
            becomes then depends on which one comes first (on several devices, on each).

    Returns:
        (images, targets), in their dtypes but at least float32.

    Raises:
        InputError: for an alpha that is not above 0, an unknown lam, images that are not float (b, h, w, c) in [0, 1], targets that are
            no distributions (b, k), partners of other shapes, or keys that are not one for each example.

    References:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.

    >>> x, y = jnp.ones((2, 4, 4, 1)), jnp.eye(2)
    >>> images, targets = mixup(jax.random.split(jax.random.key(0), 2), x, y, 0 * x, y[::-1], alpha=1.0)
    >>> bool(jnp.allclose(images[:, 0, 0, 0], targets[jnp.arange(2), jnp.arange(2)]))
    True
    """
    own, partner = _checked(keys, images, targets, partner_images, partner_targets, alpha=alpha, lam=lam)
    return _mixup(keys, own, partner, jnp.asarray(alpha), per=lam)


@functools.partial(jax.jit, static_argnames="per")
def _mixup(keys: Keys, own: Examples, partner: Examples, alpha: Array, *, per: str) -> tuple[Images, Targets]:
    lam = _draw_lam(keys, alpha, own.images.dtype, per)
    return _blend(own.images, partner.images, lam[:, None, None, None]), _blend(own.targets, partner.targets, lam[:, None])


def cutmix(
    keys: KeysLike,
    images: ArrayLike,
    targets: ArrayLike,
    partner_images: ArrayLike,
    partner_targets: ArrayLike,
    *,
    alpha: Any,
    lam: Any = "example",
) -> tuple[Images, Targets]:
    """Puts a box of the partner's image into each image, and mixes the targets by the areas.

    With λ ~ Beta(alpha, alpha), the box has sqrt(1 - λ) of the image's height and width, rounded down to an even number of pixels,
    around a pixel that is uniform over the image; what lies outside is cut off. The share of the image that is left is its own label's.

    Args:
        keys: one PRNG key for each example.
        images: float (b, h, w, c) in [0, 1].
        targets: distributions (b, k), hard or soft.
        partner_images, partner_targets: like these.
        alpha: above 0; the paper's is 1. May be traced.
        lam: 'example' draws a box for each, 'batch' one for all from the first key, as the released code does; see `mixup`.

    Returns:
        (images, targets), in their dtypes but at least float32.

    Raises:
        InputError: as `mixup`.

    References:
        Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019.
    """
    own, partner = _checked(keys, images, targets, partner_images, partner_targets, alpha=alpha, lam=lam)
    return _cutmix(keys, own, partner, jnp.asarray(alpha), per=lam)


@functools.partial(jax.jit, static_argnames="per")
def _cutmix(keys: Keys, own: Examples, partner: Examples, alpha: Array, *, per: str) -> tuple[Images, Targets]:
    lam = _draw_lam(rng.stream(keys, 0), alpha, own.images.dtype, per)
    size = own.images.shape[1:3]
    centres = _shared(rng.stream(keys, 1), per)
    centre = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, jnp.asarray(size, jnp.int32), jnp.int32))(centres)
    return pasted(own, partner, lam, centre)


def pasted(own: Examples, partner: Examples, lam: PerExample, centre: Int[Array, "b 2"]) -> tuple[Images, Targets]:
    """Returns CutMix for given boxes.

    Args:
        own, partner: of equal shapes.
        lam: 1 - the share of the image that a whole box takes.
        centre: (row, column) of each box.
    """
    side = jnp.sqrt(1 - lam)
    rows, columns = (
        box_side(length, centre[:, axis], (length * side).astype(jnp.int32) // 2 * 2) for axis, length in enumerate(own.images.shape[1:3])
    )
    box = rows[:, :, None] & columns[:, None]
    images = jnp.where(box[..., None], partner.images, own.images)
    return images, _blend(own.targets, partner.targets, 1 - box.mean((1, 2), dtype=own.targets.dtype)[:, None])


def box_side(length: int, centre: Int[Array, " b"], size: Int[Array, " b"] | int) -> Array:
    """Returns which of `length` rows or columns lie in a box of `size` from centre - size // 2 on, bool (b, length)."""
    low = centre - size // 2
    places = jnp.arange(length, dtype=jnp.int32)[None]
    return (places >= low[:, None]) & (places < (low + size)[:, None])


def _blend(own: Array, partner: Array, lam: Array) -> Array:
    lam = lam.astype(own.dtype)
    return lam * own + (1 - lam) * partner


def _draw_lam(keys: Keys, alpha: Array, dtype: Any, per: str) -> PerExample:
    def drawn(keys: Keys, alpha: Array) -> PerExample:
        return jax.vmap(lambda key: jax.random.beta(key, alpha, alpha, (), dtype))(keys)

    return moved(drawn, _shared(keys, per), alpha.astype(dtype))


def _shared(keys: Keys, per: str) -> Keys:
    """Returns the first key for all where there is one draw a batch."""
    if per == "example":
        return keys
    return moved(lambda keys: rng.on_data(lambda data: jnp.broadcast_to(data[:1], data.shape), keys), keys)


def _checked(keys: KeysLike, *arrays: ArrayLike, alpha: Any, lam: Any) -> tuple[Examples, Examples]:
    check_positive("alpha", alpha)
    if lam not in LAMS:
        raise InputError(f"lam must be 'example' or 'batch', got {lam!r}.")
    own, partner = (_examples(*arrays[i : i + 2], name=name) for i, name in ((0, ""), (2, "partner_")))
    check.check_keys(keys, own.images.shape[0])
    for mine, other, what in zip(own, partner, Examples._fields, strict=True):
        if mine.shape != other.shape:
            raise InputError(f"partner_{what} must have the shape of {what}, {mine.shape}, got {other.shape}.")
    return own, Examples(*(other.astype(mine.dtype) for mine, other in zip(own, partner, strict=True)))


def _examples(images: ArrayLike, targets: ArrayLike, *, name: str) -> Examples:
    images = numerics.lift(check.check_images(images, name=f"{name}images"))
    if jnp.ndim(targets) != 2 or len(targets) != len(images):
        raise InputError(
            f"{name}targets must be distributions (b, k), one for each of the {len(images)} images, got shape {jnp.shape(targets)}; "
            "turn labels into jax.nn.one_hot(labels, k)."
        )
    return Examples(images, numerics.lift(check.check_targets(targets, num_classes=targets.shape[1])))


def check_positive(name: str, value: Any) -> None:
    """Raises InputError for an option that is known and not a finite number above 0."""
    if check.is_concrete(value):
        number = check.as_number(value)
        if number is None or not 0 < number < float("inf"):
            raise InputError(f"{name} must be a number above 0, got {value!r}.")


def check_whole(name: str, value: Any, *, least: int) -> None:
    """Raises InputError for an option that is no whole number, or less than `least`."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be a whole number, at least {least}, got {value!r}.")
