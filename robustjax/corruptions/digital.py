"""Digital processing: contrast and resolution."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from robustjax.corruptions.severity import pick
from robustjax.imaging.resample import box_weights, separable


def contrast(images: Float[Array, "b h w c"], *, constants: tuple, severity: Int[Array, ""]) -> Float[Array, "b h w c"]:
    """clip((x - m) c + m, 0, 1), m the mean of the image over its pixels, for each channel. Differentiable (through m as well).

    Args:
        images: in [0, 1].
        constants: gain c for each severity.
        severity: which of them.
    """
    # One axis after the other: summed at once, a single 32x32 image's float32 mean comes out 4e-6 off.
    mean = jnp.mean(jnp.mean(images, axis=2, keepdims=True), axis=1, keepdims=True)
    return jnp.clip((images - mean) * pick(constants, severity, images.dtype) + mean, 0, 1)


@functools.lru_cache
def _down_and_up(constants: tuple, size: int) -> np.ndarray:
    """Returns (severities, size, size): resize to int(size * factor) pixels and back. Going up copies pixels."""
    return np.stack([box_weights(int(size * c), size) @ box_weights(size, int(size * c)) for c in constants])


def _round_to_levels(levels: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    return jnp.floor(levels + 0.5)


def pixelate(images: Float[Array, "b h w c"], *, constants: tuple, severity: Int[Array, ""], quantize: bool) -> Float[Array, "b h w c"]:
    """Box-filter resize to int(size * factor) pixels along each axis and back.

    Args:
        images: in [0, 1].
        constants: factor for each severity.
        severity: which of them.
        quantize: round to 8-bit levels where the published code (Pillow) does: on entry, after the horizontal and after the
            vertical pass, so the result is made of levels k / 255. Without, this is a linear map, differentiable, and nowhere
            more than 1.5 levels away.
    """
    rows, columns = (pick(_down_and_up(constants, size), severity, images.dtype) for size in images.shape[1:3])
    if not quantize:
        return jnp.clip(separable(images, rows, columns), 0, 1)
    # Going up only copies, so rounding after the way down and up together is rounding after the way down.
    return separable(_round_to_levels(images * 255), rows, columns, between=_round_to_levels) / 255
