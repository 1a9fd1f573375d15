"""Weather: light that falls on the scene."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from robustjax.core.check import InputError
from robustjax.corruptions.severity import pick
from robustjax.imaging.color import hsv_to_rgb, rgb_to_hsv


def brightness(images: Float[Array, "b h w c"], *, constants: tuple, severity: Int[Array, ""]) -> Float[Array, "b h w c"]:
    """Adds an offset to the value V of HSV, clipped to 1; hue and saturation stay. Grey images: clip(x + offset).

    The channels of a pixel are scaled alike, x (V + offset) / V, so dark pixels gain as much as bright ones in V. The gradient
    is exact where no two channels of a pixel are equal.

    Args:
        images: in [0, 1], with 1 or 3 channels.
        constants: offset for each severity.
        severity: which of them.

    Raises:
        InputError: for another number of channels.
    """
    offset = pick(constants, severity, images.dtype)
    channels = images.shape[-1]
    if channels == 1:
        return jnp.clip(images + offset, 0, 1)
    if channels != 3:
        raise InputError(f"brightness works on the HSV value and needs images of 1 or 3 channels, got {channels}.")
    hsv = rgb_to_hsv(images)
    value = jnp.clip(hsv[..., 2] + offset, 0, 1)
    return jnp.clip(hsv_to_rgb(jnp.stack([hsv[..., 0], hsv[..., 1], value], axis=-1)), 0, 1)
