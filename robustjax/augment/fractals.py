"""Mixing pictures: fractals and clouds in random colours, made on the device from keys."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from robustjax.core import check
from robustjax.core.check import InputError
from robustjax.core.types import Keys, KeysLike

Matrices = tuple[tuple[Array, Array], tuple[Array, Array]]

_MAPS = 4
_SQUEEZE = (0.45, 0.9)  # larger singular value of a map; below, the picture is dust
_ASPECT = (0.4, 1.0)  # smaller singular value in units of the larger; below, it is lines
_ROUGHNESS = (0.7, 2.0)  # exponent of the clouds' amplitude against frequency
_TURNS = (0.3, 1.5)  # of the colour wheel, from one end of a palette to the other


def fractals(keys: KeysLike, shape: Any) -> Float[Array, "b h w c"]:
    """Draws one picture for each key: a fractal, on black or on clouds, or clouds alone (a quarter of the pictures).

    The fractal is the attractor of four random affine maps (an iterated function system): all compositions of equal length of
    the maps, applied to one point, as many as there are pixels or up to four times more. A pixel's opacity grows with the logarithm of
    the number of points in it, its colour tells the maps that led there. Clouds are noise whose amplitude falls as a power of the frequency. Colours are
    drawn palettes; of one channel, shades of grey. PixMix's set of fractals is of this kind, and not this set.

    Args:
        keys: one PRNG key for each picture.
        shape: (h, w, c) of a picture, c = 1 or 3; h and w at least 2.

    Returns:
        float32 (b, h, w, c) in [0, 1].

    Raises:
        InputError: for another shape, or keys that are no array of typed keys.

    >>> fractals(jax.random.split(jax.random.key(0), 2), (16, 24, 3)).shape
    (2, 16, 24, 3)
    """
    check.check_keys(keys)
    if len(shape) != 3 or min(shape[:2]) < 2 or shape[2] not in (1, 3):
        raise InputError(f"shape of a picture must be (h, w, 1 or 3) with h and w at least 2, got {tuple(shape)}.")
    return _fractals(keys, shape=tuple(shape))


@functools.partial(jax.jit, static_argnames="shape")
def _fractals(keys: Keys, *, shape: tuple[int, int, int]) -> Float[Array, "b h w c"]:
    return jax.vmap(lambda key: _picture(key, shape))(keys)


def _picture(key: Array, shape: tuple[int, int, int]) -> Float[Array, "h w c"]:
    maps, shifts, colours, noise, ground, kind = jax.random.split(key, 6)
    shift = jax.random.uniform(shifts, (2, _MAPS, 1), jnp.float32, -1, 1)
    opacity, address = attractor(_matrices(maps), shift, *shape[:2])
    kind = jax.random.randint(kind, (), 0, 4, jnp.int32)  # 0: clouds, 1: fractal, otherwise both
    opacity = jnp.where(kind == 0, 0, opacity)[..., None]
    behind = jnp.where(kind == 1, 0, _coloured(ground, clouds(noise, *shape[:2]), shape[2]))
    return (1 - opacity) * behind + opacity * _coloured(colours, address, shape[2])


def attractor(matrices: Matrices, shift: Float[Array, "2 m 1"], height: int, width: int) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    """Returns how opaque the attractor of affine maps is in each pixel, and the mean address of the points there, both in [0, 1].

    The address of a point counts the maps that led to it like the digits of a number, the last map first, over 4^steps.

    Args:
        matrices: ((xx, xy), (yx, yy)), each (4, 1).
        shift: of x and y.
        height, width: of the picture that the points just fill.
    """
    x, y, address = (jnp.zeros((1,), jnp.float32) for _ in range(3))
    for _ in range(math.ceil(math.log(height * width, _MAPS))):
        x, y = ((row[0] * x[None] + row[1] * y[None] + by).reshape(-1) for row, by in zip(matrices, shift, strict=True))
        address = ((address[None] + jnp.arange(_MAPS, dtype=x.dtype)[:, None]) / _MAPS).reshape(-1)
    flat = _cell(y, height) * width + _cell(x, width)
    counts = jnp.zeros((height * width,), jnp.float32).at[flat].add(1, mode="promise_in_bounds")
    addresses = jnp.zeros((height * width,), jnp.float32).at[flat].add(address, mode="promise_in_bounds")
    log = jnp.log1p(counts)
    opacity = jnp.sqrt(log / jnp.max(log))  # single points are to be seen
    return opacity.reshape(height, width), (addresses / jnp.maximum(counts, 1)).reshape(height, width)


def _matrices(key: Array) -> Matrices:
    """Draws, for each map, a turn after diag(s, t) after a turn."""
    angles, squeezes = jax.random.split(key)
    angles = jax.random.uniform(angles, (2, _MAPS, 1), jnp.float32, 0, 2 * jnp.pi)
    (c, other_c), (s, other_s) = jnp.cos(angles), jnp.sin(angles)
    first, ratio = jax.random.uniform(squeezes, (2, _MAPS, 1), jnp.float32)
    first = _SQUEEZE[0] + (_SQUEEZE[1] - _SQUEEZE[0]) * first
    second = first * (_ASPECT[0] + (_ASPECT[1] - _ASPECT[0]) * ratio)
    top = (c * first * other_c - s * second * other_s, -c * first * other_s - s * second * other_c)
    bottom = (s * first * other_c + c * second * other_s, -s * first * other_s + c * second * other_c)
    return top, bottom


def _cell(values: Float[Array, " n"], count: int) -> Array:
    """Returns in which of `count` cells, from the least to the greatest, values lie."""
    low, spread = values.min(), jnp.maximum(values.max() - values.min(), 1e-6)
    return jnp.clip((values - low) / spread * count, 0, count - 1).astype(jnp.int32)


def clouds(key: Array, height: int, width: int) -> Float[Array, "h w"]:
    """Returns noise whose amplitude is frequency^-r, r ~ U(0.7, 2), scaled to fill [0, 1]. It wraps around."""
    normal, rough = jax.random.split(key)
    rows = jnp.fft.fftfreq(height, dtype=jnp.float32)[:, None]
    columns = jnp.fft.rfftfreq(width, dtype=jnp.float32)[None]
    frequency = jnp.sqrt(rows**2 + columns**2).at[0, 0].set(1)  # of the mean, which the scaling takes away
    roughness = jax.random.uniform(rough, (), jnp.float32, *_ROUGHNESS)
    white = jnp.fft.rfft2(jax.random.normal(normal, (height, width), jnp.float32))
    spectrum = white * (frequency**-roughness).astype(white.dtype)
    field = jnp.fft.irfft2(spectrum, (height, width))
    return (field - field.min()) / (field.max() - field.min())


def _coloured(key: Array, values: Float[Array, "h w"], channels: int) -> Float[Array, "h w c"]:
    """Returns values in [0, 1] in a palette: in each channel a cosine of drawn frequency and phase."""
    turns, phase = jax.random.split(key)
    turns = jax.random.uniform(turns, (channels,), jnp.float32, *_TURNS)[None, None]
    phase = jax.random.uniform(phase, (channels,), jnp.float32)[None, None]
    return (1 + jnp.cos(2 * jnp.pi * (turns * values[..., None] + phase))) / 2
