"""Colour spaces.

The order of operations is that of the published corruption code, so that float64 results agree to the last bit where no
compiler fuses them. Divisions that may meet 0 are guarded on both sides, so gradients are finite everywhere.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_LUMA = (0.299, 0.587, 0.114)


def luma(images: Float[Array, "b h w 3"]) -> Float[Array, "b h w 1"]:
    """Returns 0.299 R + 0.587 G + 0.114 B."""
    # Slices rather than a sum over an axis, which XLA would repeat for each channel that uses it: ten times slower on CPUs.
    return sum(share * images[..., i : i + 1] for i, share in enumerate(_LUMA))


def rgb_to_hsv(images: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Returns hue, saturation and value, each in [0, 1]; hue 0 is red, 1/3 green, 2/3 blue, and grey has hue and saturation 0.

    Where channels tie for the largest, the later one decides the hue. Derivatives are exact where no two channels are equal;
    at grey pixels those of hue and saturation are 0.

    Args:
        images: RGB in [0, 1].
    """
    red, green, blue = images[..., 0], images[..., 1], images[..., 2]
    value = jnp.max(images, axis=-1)
    spread = value - jnp.min(images, axis=-1)
    grey = spread == 0
    divisor = jnp.where(grey, 1, spread)
    sixths = jnp.where(
        blue == value,
        4 + (red - green) / divisor,
        jnp.where(green == value, 2 + (blue - red) / divisor, (green - blue) / divisor),
    )
    # By one number XLA would divide as it multiplies by its reciprocal, which rounds otherwise.
    hue = jnp.where(grey, 0, jnp.mod(sixths / jnp.where(grey, 1.0, 6.0).astype(images.dtype), 1))
    saturation = jnp.where(grey, 0, spread / jnp.where(grey, 1, value))
    return jnp.stack([hue, saturation, value], axis=-1)


def hsv_to_rgb(hsv: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Inverse of `rgb_to_hsv`.

    Args:
        hsv: hue, saturation and value in [0, 1].
    """
    hue, saturation, value = hsv[..., 0], hsv[..., 1], hsv[..., 2]
    floor = jnp.floor(hue * 6)
    part = hue * 6 - floor
    low = value * (1 - saturation)
    falling = value * (1 - part * saturation)
    rising = value * (1 - (1 - part) * saturation)
    sextant = jnp.mod(floor.astype(jnp.int32), 6)
    channels = (
        (value, falling, low, low, rising, value),
        (rising, value, value, falling, low, low),
        (low, low, rising, value, value, falling),
    )
    return jnp.stack([jax.lax.select_n(sextant, *cases) for cases in channels], axis=-1)


def room_for_square(size: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns 2**80 where `size` is below 2**-40, and 1 elsewhere.

    A quotient's derivative divides by the square of the denominator, which vanishes in float32 below 1e-19. Numerator and
    denominator times this are the same quotient, to the bit, with room for the square.
    """
    return jnp.where(size < 2.0**-40, 2.0**80, 1.0).astype(size.dtype)
