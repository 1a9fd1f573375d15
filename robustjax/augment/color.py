"""Random changes of brightness, contrast, saturation and hue, as torchvision's ColorJitter defines them.

Images are float (b, h, w, 1 or 3) in [0, 1]. Images of one channel have neither saturation nor hue: these two leave them alone.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from robustjax.core import check, numerics
from robustjax.core.check import InputError
from robustjax.core.rng import stream
from robustjax.core.types import ArrayLike, Keys, KeysLike
from robustjax.imaging import hsv_to_rgb, rgb_to_hsv

Images = Float[Array, "b h w c"]

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def color_jitter(
    keys: KeysLike, images: ArrayLike, *, brightness: Any = 0.0, contrast: Any = 0.0, saturation: Any = 0.0, hue: Any = 0.0
) -> Images:
    """Changes the four in an order drawn for each image, each by a factor f ~ U(max(0, 1 - x), 1 + x), the hue by a turn ~ U(-x, x).

        brightness    f image                               contrast    f image + (1 - f) mean of its grey
        saturation    f image + (1 - f) its grey            hue         added to that of HSV, modulo 1

    Grey is 0.2989 R + 0.587 G + 0.114 B; every step is clipped to [0, 1].

    Args:
        keys: one PRNG key for each image.
        images: float (b, h, w, 1 or 3) in [0, 1].
        brightness, contrast, saturation: x above, at least 0; may be traced.
        hue: x above, in [0, 0.5], in turns of the circle of colours; may be traced.

    Returns:
        Like `images`, at least float32, in [0, 1].

    Raises:
        InputError: for an option out of range, keys that are not one typed key for each image, or other images.

    >>> color_jitter(jax.random.split(jax.random.key(0), 2), jnp.ones((2, 4, 4, 3)), brightness=0.4, hue=0.1).shape
    (2, 4, 4, 3)
    """
    for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation), ("hue", hue)):
        _check_strength(name, value, largest=0.5 if name == "hue" else float("inf"))
    images = numerics.lift(check.check_images(images))
    check.check_keys(keys, images.shape[0])
    if images.shape[3] not in (1, 3):
        raise InputError(f"color_jitter takes images of 1 or 3 channels, got {images.shape}.")
    strength = jnp.stack([jnp.asarray(value).astype(images.dtype) for value in (brightness, contrast, saturation, hue)])
    return _jitter(keys, images, strength)


@jax.jit
def _jitter(keys: Keys, images: Images, strength: Float[Array, "4"]) -> Images:
    order = jax.vmap(lambda key: jnp.argsort(jax.random.uniform(key, (4,))).astype(jnp.int32))(stream(keys, 0))
    centre = jnp.asarray([1, 1, 1, 0], images.dtype)
    low = jnp.concatenate([jnp.maximum(1 - strength[:HUE], 0), -strength[HUE:]])
    high = centre + strength
    part = jax.vmap(lambda key: jax.random.uniform(key, (4,), images.dtype))(stream(keys, 1))
    return adjust(images, order, low[None] + part * (high - low)[None])


def adjust(images: Images, order: Int[Array, "b 4"], factors: Float[Array, "b 4"]) -> Images:
    """Changes brightness, contrast, saturation and hue by given factors in a given order.

    Args:
        images: float (b, h, w, 1 or 3) in [0, 1].
        order: a permutation of 0 to 3 for each image: BRIGHTNESS, CONTRAST, SATURATION, HUE.
        factors: of the four, by these numbers and not by the order; 1, 1, 1 and 0 change nothing.
    """
    # The hue is turned once: what an image has before it comes first, and then what it has behind it.
    place = jnp.argmax(order == HUE, axis=1).astype(jnp.int32)
    slots = [jnp.where(slot < place, order[:, slot], order[:, slot + 1]) for slot in range(3)]
    for slot, operation in enumerate(slots):
        images = _mixed(images, operation, factors, slot < place)
    if images.shape[3] == 3:
        turn = factors[:, HUE, None, None, None]
        images = jax.lax.cond(jnp.any(turn != 0), _turned, lambda images, _: images, images, turn)
    for slot, operation in enumerate(slots):
        images = _mixed(images, operation, factors, slot >= place)
    return images


def _mixed(images: Images, operation: Int[Array, " b"], factors: Float[Array, "b 4"], active: Any) -> Images:
    """Mixes active images with black, their mean or their grey."""
    factor = jnp.take_along_axis(factors, operation[:, None], axis=1)[:, 0]
    kind, factor, active = (value[:, None, None, None] for value in (operation, factor, active))
    if images.shape[3] == 1:  # mixed with itself it is itself but for rounding
        active = active & (kind != SATURATION)
    grey = _grey(images)
    mean = grey.mean((1, 2, 3), keepdims=True)
    other = jnp.where(kind == SATURATION, grey, jnp.where(kind == CONTRAST, mean, 0))
    return jnp.where(active, jnp.clip(factor * images + (1 - factor) * other, 0, 1), images)


def _grey(images: Images) -> Float[Array, "b h w 1"]:
    if images.shape[3] == 1:
        return images
    return 0.2989 * images[..., :1] + 0.587 * images[..., 1:2] + 0.114 * images[..., 2:]


def _turned(images: Images, turn: Float[Array, "b 1 1 1"]) -> Images:
    hsv = rgb_to_hsv(images)
    turned = hsv_to_rgb(jnp.concatenate([jnp.mod(hsv[..., :1] + turn, 1), hsv[..., 1:]], axis=-1))
    return jnp.where(turn == 0, images, jnp.clip(turned, 0, 1))  # the way there and back rounds


def _check_strength(name: str, value: Any, *, largest: float) -> None:
    if not check.is_concrete(value):
        return
    number = check.as_number(value)
    if number is None or not 0 <= number <= largest or number == float("inf"):
        limits = "finite and at least 0" if largest == float("inf") else f"between 0 and {largest}"
        raise InputError(f"option {name} of color_jitter must be {limits}, got {value!r}.")
