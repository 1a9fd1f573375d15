"""Spatter: drops of water or mud on the lens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from robustjax.core.types import Keys
from robustjax.corruptions.draws import Draws, normals, take
from robustjax.corruptions.severity import pick
from robustjax.imaging import edges
from robustjax.imaging.filters import cut_gaussian_taps, smooth

_WATER = (175, 238, 238)  # levels of pale turquoise
_MUD = (63, 42, 20)  # and of brown; grey images take the first
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
    taps = [cut_gaussian_taps(sigma) for sigma in sigmas]
    longest = max(map(len, taps))
    return np.stack([np.pad(tap, (longest - len(tap)) // 2) for tap in taps])


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
    *_, strength, kind = zip(*constants, strict=True)
    noise, threshold = _noise(normal, constants, severity)

    # Sums of levels, not of fractions: those that are whole numbers stay so.
    def water(levels, noise):
        light, brightest = _light(jnp.where(noise < threshold, 0, noise))
        colour = pick(np.multiply.outer(strength, _WATER), severity, levels.dtype)
        return levels + light[..., None] * colour.reshape(1, 1, 1, 3) / brightest[..., None]

    def mud(levels, noise):
        sigmas = tuple(sigma if mud else 1.0 for sigma, mud in zip(strength, kind, strict=True))
        return _covered(levels, np.array(_MUD), noise > threshold, sigmas, severity)

    levels = jax.lax.cond(pick(kind, severity, images.dtype) == 0, water, mud, images * 255, noise)
    return jnp.clip(levels * _LEVEL, 0, 1)


def grey_mud(images: Float[Array, "b h w 1"], draws: Draws, *, constants: tuple) -> Float[Array, "b h w 1"]:
    """The mud of `spatter` in grey images, of level 63. The gradient is 1 - m.

    Args:
        images: in [0, 1].
        draws: {'normal': n} standard normal, (b, h, w, 1).
        constants: one entry as those of `spatter`, for mud.
    """
    (normal,) = take(draws, {"normal": images.shape}, images.dtype)
    severity = jnp.int32(1)
    noise, threshold = _noise(normal[..., 0], constants, severity)
    return jnp.clip(_covered(images, np.array(_MUD[:1]) / 255, noise > threshold, (constants[0][4],), severity), 0, 1)


def _noise(normal: Field, constants: tuple, severity: Int[Array, ""]) -> tuple[Field, Float[Array, ""]]:
    """Returns the smooth noise, and the threshold above which there are drops."""
    mean, deviation, smoothness, threshold, *_ = zip(*constants, strict=True)
    mean, deviation, threshold = (pick(values, severity, normal.dtype) for values in (mean, deviation, threshold))
    # Smoothing without the mean, which it would leave as it is: float32 keeps more digits of what remains.
    return mean + deviation * _smooth(normal, smoothness, severity), threshold


def _covered(
    images: Float[Array, "b h w c"], colour: np.ndarray, drops: Bool[Array, "b h w"], sigmas: tuple, severity: Int[Array, ""]
) -> Float[Array, "b h w c"]:
    """Returns the images under mud of a colour, in the images' units, as thick as the softened drops."""
    cover = _smooth(drops.astype(images.dtype), sigmas, severity)
    cover = jnp.where(cover < _THIN, 0, cover)[..., None]
    return images * (1 - cover) + cover * jnp.asarray(colour, images.dtype).reshape(1, 1, 1, -1)


def _light(drops: Field) -> tuple[Field, Float[Array, "b 1 1"]]:
    """Returns how bright water shines, and how bright at the brightest pixel (1 where there are no drops at all)."""
    levels = jnp.floor(drops * 255).astype(jnp.int32) & 255
    rims = edges.canny_opencv(levels, low=50, high=150)
    depth = edges.box_sum(edges.distance(rims, limit=_FAR)) // (9 * edges.DISTANCE_ONE)
    relief = edges.filter_levels(edges.equalize(depth, levels=_FAR + 1), _EMBOSS)
    light = levels * ((edges.box_sum(relief) + 4) // 9)  # to the nearest level
    brightest = jnp.maximum(jnp.max(light, axis=(1, 2), keepdims=True), 1)
    return light.astype(drops.dtype), brightest.astype(drops.dtype)
