"""Weather: snow and fog before the scene, and light that falls on it."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from robustjax.core.check import InputError
from robustjax.core.types import Keys
from robustjax.corruptions.draws import Draws, normals, take, uniforms
from robustjax.corruptions.severity import pick
from robustjax.imaging.color import hsv_to_rgb, luma, rgb_to_hsv, room_for_square
from robustjax.imaging.motion import streak, streak_table
from robustjax.imaging.noise_fields import plasma, plasma_draws
from robustjax.imaging.resample import clipped_zoom, zoom_points


@functools.lru_cache
def _flakes(constants: tuple) -> tuple[np.ndarray, ...]:
    """Returns, a row for each severity, (mean, deviation, threshold, weight) of the flakes and the weights of their fall."""
    mean, deviation, _, threshold, radius, sigma, weight = zip(*constants, strict=True)
    return np.stack([mean, deviation, threshold, weight], axis=-1), streak_table(tuple(zip(radius, sigma, strict=True)))


@functools.lru_cache
def _zooms(constants: tuple, size: int) -> tuple[np.ndarray, ...]:
    return tuple(map(np.stack, zip(*(zoom_points(size, zoom) for _, _, zoom, *_ in constants), strict=True)))


def draw_snow(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'normal': (b, h, w), the flakes; 'uniform': (b,), the direction of their fall}."""
    return {"normal": normals(keys, shape[1:3], 0), "uniform": uniforms(keys, (), 1)}


def snow(images: Float[Array, "b h w 3"], draws: Draws, *, constants: tuple, severity: Int[Array, ""]) -> Float[Array, "b h w 3"]:
    """clip(a x + (1 - a) max(x, 1.5 g + 0.5) + s + s', 0, 1): a paler scene, g its luma, behind flakes s that fall twice.

    The flakes: noise m + d n, its middle enlarged by a zoom, 0 below a threshold, drawn out along a line at -135 to -45 degrees
    (upwards: ImageMagick's lines go one way only). s' is s turned by 180 degrees: an accident of the published code by which flakes
    fall from both sides, and snow is the same for an image and its own half turn. The layer is cut to 8 bits before and after it is
    drawn out, quantised or not. The gradient in x is exact.

    Args:
        images: in [0, 1].
        draws: {'normal': n (b, h, w), 'uniform': u (b,)}; the angle is -135 + 90 u degrees.
        constants: (m, d, zoom, threshold, radius and standard deviation of the fall, a) for each severity.
        severity: which of them.
    """
    b, h, w, _ = images.shape
    normal, uniform = take(draws, {"normal": (b, h, w), "uniform": (b,)}, images.dtype)
    table, falls = _flakes(constants)
    mean, deviation, threshold, weight = pick(table, severity, images.dtype)
    rows, columns = (
        tuple(pick(values, severity, dtype) for values, dtype in zip(_zooms(constants, size), (jnp.int32, images.dtype), strict=True))
        for size in (h, w)
    )
    flakes = clipped_zoom(mean + deviation * normal[..., None], rows, columns)
    levels = jnp.floor(255 * jnp.where(flakes < threshold, 0, jnp.clip(flakes, 0, 1)))
    layer = streak(levels, 90 * uniform - 135, pick(falls, severity, images.dtype)) / 255
    scene = weight * images + (1 - weight) * jnp.maximum(images, 1.5 * luma(images) + 0.5)
    return jnp.clip(scene + (layer + jnp.flip(layer, (1, 2))), 0, 1)


def _fog_size(h: int, w: int) -> int:
    """Returns the side of the fog that is cut to h x w: the next power of two, so 256 for 224."""
    return 1 << (max(h, w) - 1).bit_length()


def draw_fog(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'uniform': uniforms (b, s² - 1)}, s the power of two from the longer side on: 1023 for 32x32, 65535 for 224x224."""
    return {"uniform": uniforms(keys, (plasma_draws(_fog_size(*shape[1:3])),))}


def fog(images: Float[Array, "b h w c"], draws: Draws, *, constants: tuple, severity: Int[Array, ""]) -> Float[Array, "b h w c"]:
    """Adds a plasma fractal f in [0, 1] to all channels, and scales back to the image's range: clip((x + t f) M / (M + t)).

    M is the largest value of the image. The fractal is normalised before it is cut to the image, so at 224 pixels its extremes may
    lie outside. The gradient is exact, that of M included (split evenly where values tie for it).

    Args:
        images: in [0, 1].
        draws: {'uniform': u}; in order those of the published code, three arrays a level.
        constants: (thickness t, decay of the fractal's detail) for each severity.
        severity: which of them.
    """
    size = _fog_size(*images.shape[1:3])
    (uniform,) = take(draws, {"uniform": (len(images), plasma_draws(size))}, images.dtype)
    thickness, decay = pick(constants, severity, images.dtype)
    return add_fog(images, plasma(uniform, size=size, decay=decay, crop=max(images.shape[1:3])), thickness)


def add_fog(images: Float[Array, "b h w c"], field: Float[Array, "b s s"], thickness: Float[Array, ""]) -> Float[Array, "b h w c"]:
    """Returns clip((x + t f) M / (M + t), 0, 1), with M the largest value of the image and f the upper left corner of a field."""
    top = images.max(axis=(1, 2, 3), keepdims=True)
    field = field[:, : images.shape[1], : images.shape[2], None]
    return jnp.clip((images + thickness * field) * (top / (top + thickness)), 0, 1)


def brightness(images: Float[Array, "b h w c"], *, constants: tuple, severity: Int[Array, ""]) -> Float[Array, "b h w c"]:
    """Adds an offset to the value V of HSV, clipped to 1; hue and saturation stay. Grey images: clip(x + offset).

    That scales the channels of a pixel alike, x min(V + offset, 1) / V, so dark pixels gain as much as bright ones in V. Black
    becomes grey. Computed so, 25 times faster than through HSV; float64 goes through HSV as the published code does, whose
    rounding decides to which side of a whole level truncation falls. The gradient is exact where a pixel's largest channel is one.

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
    if images.dtype == jnp.float64:
        hsv = rgb_to_hsv(images)
        value = jnp.clip(hsv[..., 2] + offset, 0, 1)
        return jnp.clip(hsv_to_rgb(jnp.stack([hsv[..., 0], hsv[..., 1], value], axis=-1)), 0, 1)
    # maximum rather than max: on CPUs a reduction over three neighbours costs more than all the rest.
    value = jnp.maximum(jnp.maximum(images[..., :1], images[..., 1:2]), images[..., 2:])
    brighter = jnp.minimum(value + offset, 1)
    room = room_for_square(value)
    scaled = jnp.minimum((images * room) * (brighter / jnp.where(value > 0, value * room, 1)), 1)
    # The largest channel is taken as it is (so black is grey): through the quotient its derivative would be 1 as what is left of two
    # terms of offset / V, nothing in the dark.
    return jnp.where(images == value, brighter, scaled)
