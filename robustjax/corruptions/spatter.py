"""Spatter: drops of water or mud on the lens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from robustjax.core.types import Keys
from robustjax.corruptions.draws import Draws, normals, take
from robustjax.corruptions.severity import pick
from robustjax.imaging import edges
from robustjax.imaging.filters import gaussian_taps, smooth

_WATER = (175, 238, 238)  # levels of pale turquoise
_MUD = (63, 42, 20)  # and of brown
_EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])  # drops are lit from one corner
_FAR = 20  # pixels from a rim on which a drop is flat
_LEVEL = (1 + 2.0**-50) / 255  # a hair more: a whole level that came out below itself would be truncated to the one before
_THIN = 0.8  # mud that covers less of a pixel than this is left out

Field = Float[Array, "b h w"]


def draw_spatter(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'normal': standard normals (b, h, w)}."""
    return {"normal": normals(keys, shape[1:3])}


@functools.lru_cache
def _taps(sigmas: tuple) -> np.ndarray:
    """Returns Gaussians cut at 4 standard deviations, padded with zeros to one size."""
    reaches = [int(4 * sigma + 0.5) for sigma in sigmas]
    taps = [gaussian_taps(2 * reach + 1, sigma) for reach, sigma in zip(reaches, sigmas, strict=True)]
    return np.stack([np.pad(tap, max(reaches) - reach) for tap, reach in zip(taps, reaches, strict=True)])


def _smooth(field: Field, sigmas: tuple, severity: Int[Array, ""]) -> Field:
    return smooth(field[..., None], pick(_taps(sigmas), severity, field.dtype))[..., 0]


def spatter(images: Float[Array, "b h w 3"], draws: Draws, *, constants: tuple, severity: Int[Array, ""]) -> Float[Array, "b h w 3"]:
    """Drops where smooth noise is above a threshold: water brightens by clip(x + m (175, 238, 238) / 255), mud covers.

    Water: the noise, cut to 8 bits, is lit by an embossed map of the distance to the drops' Canny edges; m is that light, its
    largest value made `intensity`. Mud: x (1 - m) + m (63, 42, 20) / 255, m the drops softened and set to 0 below 0.8.
    Gradient: 1 under water where the result is below 1, and 1 - m in mud.

    Published accidents, kept: noise of 256/255 and more wraps around to a thin drop; Canny sees 8-bit steps inside the drops.
    Changed: without any drop the published code divides by 0 and the image turns black; here it stays as it is.

    Args:
        images: in [0, 1].
        draws: {'normal': n} standard normal, (b, h, w).
        constants: (mean and standard deviation of the noise, its smoothness in pixels, threshold, intensity of water or
            smoothness of mud in pixels, 0 for water or 1 for mud) for each severity.
        severity: which of them.
    """
    (normal,) = take(draws, {"normal": images.shape[:3]}, images.dtype)
    mean, deviation, smoothness, threshold, strength, kind = zip(*constants, strict=True)
    # Smoothing without the mean, which it would leave as it is: float32 keeps more digits of what remains.
    noise = pick(mean, severity, images.dtype) + pick(deviation, severity, images.dtype) * _smooth(normal, smoothness, severity)
    threshold = pick(threshold, severity, images.dtype)

    # Sums of levels, not of fractions: those that are whole numbers stay so.
    def water(levels, noise):
        light, brightest = _light(jnp.where(noise < threshold, 0, noise))
        colour = pick(np.multiply.outer(strength, _WATER), severity, levels.dtype)
        return levels + light[..., None] * colour.reshape(1, 1, 1, 3) / brightest[..., None]

    def mud(levels, noise):
        sigmas = tuple(sigma if mud else 1.0 for sigma, mud in zip(strength, kind, strict=True))
        cover = _smooth((noise > threshold).astype(levels.dtype), sigmas, severity)
        cover = jnp.where(cover < _THIN, 0, cover)[..., None]
        return levels * (1 - cover) + cover * jnp.asarray(_MUD, levels.dtype).reshape(1, 1, 1, 3)

    levels = jax.lax.cond(pick(kind, severity, images.dtype) == 0, water, mud, images * 255, noise)
    return jnp.clip(levels * _LEVEL, 0, 1)


def _light(drops: Field) -> tuple[Field, Float[Array, "b 1 1"]]:
    """Returns how bright water shines, and how bright at the brightest pixel (1 where there are no drops at all)."""
    levels = jnp.floor(drops * 255).astype(jnp.int32) & 255
    rims = edges.canny(levels, low=50, high=150)
    depth = edges.box_sum(edges.distance(rims, limit=_FAR)) // (9 * edges.DISTANCE_ONE)
    relief = edges.filter_levels(edges.equalize(depth, levels=_FAR + 1), _EMBOSS)
    light = levels * ((edges.box_sum(relief) + 4) // 9)  # to the nearest level
    brightest = jnp.maximum(jnp.max(light, axis=(1, 2), keepdims=True), 1)
    return light.astype(drops.dtype), brightest.astype(drops.dtype)
