"""Motion blur: what a camera that moves straight on sees."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from robustjax.core.types import Keys
from robustjax.corruptions.draws import Draws, take, uniforms
from robustjax.corruptions.severity import pick
from robustjax.imaging.motion import streak, streak_table


@functools.lru_cache
def _taps(constants: tuple) -> np.ndarray:
    return streak_table(constants)


def draw_motion_blur(keys: Keys, shape: tuple[int, int, int, int]) -> Draws:
    """Returns {'uniform': (b,)} in [0, 1): the angle of the motion is -45 + 90 uniform degrees."""
    return {"uniform": uniforms(keys)}


def motion_blur(
    images: Float[Array, "b h w c"], draws: Draws, *, constants: tuple, severity: Int[Array, ""], quantize: bool
) -> Float[Array, "b h w c"]:
    """Each pixel becomes a mean over those to its right (within 45 degrees, one way only), weighted by half a Gaussian.

    Args:
        images: in [0, 1].
        draws: {'uniform': (b,)}, see `draw_motion_blur`.
        constants: (radius, standard deviation) of the Gaussian in pixels for each severity.
        severity: which of them.
        quantize: round to 8-bit levels on entry, and cut down at the end as ImageMagick with 16 bits a pixel does, whose
            results the published code reads. Without, a linear map, differentiable.
    """
    b, dtype = images.shape[0], images.dtype
    (uniform,) = take(draws, {"uniform": (b,)}, dtype)
    levels = jnp.floor(images * 255 + 0.5) if quantize else images * 255
    taps = pick(_taps(constants), severity, dtype)
    return jnp.clip(streak(levels, 90 * uniform - 45, taps, quantize=quantize) / 255, 0, 1)
