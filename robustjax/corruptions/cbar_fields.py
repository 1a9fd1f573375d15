"""C-bar's noise: random fields that are added to images or masked by. Mintun, Kirillov & Xie, NeurIPS 2021.

Levels L lie between 0 and 10; n is the side of the image. Images are in [0, 1], while the published amplitudes count levels of
255. No field depends on the image, so where nothing is clipped gradients are those of the mixing: 1, the mask, or 1 - weight.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from robustjax.core.types import Keys
from robustjax.corruptions.draws import Draws, take, uniforms
from robustjax.corruptions.severity import pick

Images = Float[Array, "b n n c"]


# --- Fields of a given spectrum ----------------------------------------------------------------------------------------------


def _phase_shapes(n: int, fields: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    shapes = {"phase": (*fields, n, n // 2)}
    return shapes | {"middle": (*fields, n // 2)} if n % 2 else shapes


def _draw_phases(keys: Keys, n: int, fields: tuple[int, ...]) -> Draws:
    return {name: uniforms(keys, shape, i) for i, (name, shape) in enumerate(_phase_shapes(n, fields).items())}


@functools.lru_cache
def _amplitudes(n: int, brown: bool) -> np.ndarray:
    """Returns the amplitudes, the distance from (n/2, n/2) or 1 / (1 + its square), with frequency 0 moved to the corner."""
    distance = np.hypot(*np.meshgrid(np.arange(n) - n / 2, np.arange(n) - n / 2))
    return np.roll(1 / (distance**2 + 1) if brown else distance, n // 2, axis=(0, 1))


def _field(draws: Draws, shape: tuple[int, ...], dtype: Any, *, brown: bool) -> Float[Array, "... n n"]:
    """Returns fields of standard deviation 1 with a given amplitude and drawn phase, 2 pi u, at each frequency.

    The phases of the right half are those of the left one turned by 180 degrees. That is one frequency off the Hermitian
    symmetry of a real field, and not the negative, so the real part is taken, as published. For odd n the column between the
    halves is mirrored likewise around a 0.
    """
    n = shape[-1]
    shapes = _phase_shapes(n, shape[:-2])
    draws = dict(zip(shapes, take(draws, shapes, dtype), strict=True))
    phase = draws["phase"]
    halves = [phase, phase[..., ::-1, ::-1]]
    if n % 2:
        middle = draws["middle"]
        halves.insert(1, jnp.concatenate([middle, jnp.zeros_like(middle[..., :1]), middle[..., ::-1]], axis=-1)[..., None])
    angle = 2 * np.pi * jnp.roll(jnp.concatenate(halves, axis=-1), n // 2, axis=(-2, -1))
    amplitude = jnp.asarray(_amplitudes(n, brown), phase.dtype).reshape((1,) * (angle.ndim - 2) + (n, n))
    noise = jnp.real(jnp.fft.ifft2(jax.lax.complex(amplitude * jnp.cos(angle), amplitude * jnp.sin(angle))))
    return noise / jnp.std(noise, axis=(-2, -1), keepdims=True)


def draw_blue_noise_sample(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'phase': uniforms (b, n, n // 2)}; for odd n {'middle': uniforms (b, n // 2)} as well."""
    return _draw_phases(keys, shape[1], ())


def blue_noise_sample(images: Images, draws: Draws, *, constants: tuple, severity: Int[Array, ""]) -> Images:
    """Keeps the pixels where blue noise of standard deviation 1 exceeds 0.3 L - 2.5, the others become black.

    Blue: the amplitude grows as the frequency. One mask for all channels; the gradient is the mask.

    Args:
        images: in [0, 1], square.
        draws: of `draw_blue_noise_sample`; the phases are 2 pi times these.
        constants: level L for each severity.
        severity: which of them.
    """
    noise = _field(draws, images.shape[:3], images.dtype, brown=False)
    return jnp.where((noise > 0.3 * pick(constants, severity, images.dtype) - 2.5)[..., None], images, 0)


def draw_brownish_noise(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'phase': uniforms (b, c, n, n // 2)}; for odd n {'middle': uniforms (b, c, n // 2)} as well."""
    return _draw_phases(keys, shape[1], (shape[3],))


def brownish_noise(images: Images, draws: Draws, *, constants: tuple, severity: Int[Array, ""]) -> Images:
    """clip(x + 6.4/255 L z), z noise of standard deviation 1 for each channel, of amplitude 1 / (1 + f^2) at frequency f.

    f counts periods over the image. The gradient is 1 where nothing is clipped.

    Args:
        images: in [0, 1], square.
        draws: of `draw_brownish_noise`; the phases are 2 pi times these.
        constants: level L for each severity.
        severity: which of them.
    """
    b, n, _, c = images.shape
    noise = jnp.moveaxis(_field(draws, (b, c, n, n), images.dtype, brown=True), 1, -1)
    return jnp.clip(images + (6.4 / 255) * pick(constants, severity, images.dtype) * noise, 0, 1)


# --- Waves -------------------------------------------------------------------------------------------------------------------


def _turns(frequency: Float[Array, " b"], n: int) -> Float[Array, "b n"]:
    """Returns 2 pi ((frequency * k) mod 1) for k = 0..n-1, as precise in float32 for the last as for the first."""
    coarse = jnp.round(frequency * 4096) / 4096  # few enough bits that its products are exact
    k = jnp.arange(n, dtype=frequency.dtype)[None]
    whole = coarse[:, None] * k
    return 2 * np.pi * (whole - jnp.floor(whole) + (frequency - coarse)[:, None] * k)


def draw_single_frequency_greyscale(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'frequency': uniforms (b, 2), 'order': uniforms (b,), 'phase': uniforms (b,)}."""
    return {"frequency": uniforms(keys, (2,), 0), "order": uniforms(keys, (), 1), "phase": uniforms(keys, (), 2)}


def single_frequency_greyscale(images: Images, draws: Draws, *, constants: tuple, severity: Int[Array, ""]) -> Images:
    """clip(x + 19.6/255 L sin(f_x column + f_y row + phase)), the same wave in all channels.

    One of the frequencies, in radians a pixel, is uniform between -pi and pi, the other one between minus and plus that.
    The gradient is 1 where nothing is clipped.

    Args:
        images: in [0, 1], square.
        draws: {'frequency': (u, v), 'order': s, 'phase': w}: f = pi (2 u - 1) is that of the columns if s < 1/2, else that of the
            rows; the other one is |f| (2 v - 1); the phase is 2 pi w.
        constants: level L for each severity.
        severity: which of them.
    """
    b, n = images.shape[:2]
    frequency, order, phase = take(draws, {"frequency": (b, 2), "order": (b,), "phase": (b,)}, images.dtype)
    larger = frequency[:, 0] - 0.5  # in turns
    smaller = abs(larger) * (2 * frequency[:, 1] - 1)
    column = _turns(jnp.where(order < 0.5, larger, smaller), n)
    row = _turns(jnp.where(order < 0.5, smaller, larger), n) + 2 * np.pi * phase[:, None]
    wave = jnp.sin(row[:, :, None] + column[:, None])[..., None]
    return jnp.clip(images + (19.6 / 255) * pick(constants, severity, images.dtype) * wave, 0, 1)


def draw_cocentric_sine_waves(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'centre': uniforms (b, 2), 'frequency', 'amplitude', 'ring': uniforms (b,)}."""
    names = ("frequency", "amplitude", "ring")
    return {"centre": uniforms(keys, (2,), 0)} | {name: uniforms(keys, (), i) for i, name in enumerate(names, 1)}


def cocentric_sine_waves(images: Images, draws: Draws, *, constants: tuple, severity: Int[Array, ""]) -> Images:
    """clip(x + 12.8/255 L (((r + a sin(f phi)) mod d) / d - 1/2)): wavy rings around a point, sawtooth across.

    The name is spelt as published. phi = atan2(column, row) from the centre; f is no whole number, so the rings do not meet on
    the ray where phi jumps. The gradient is 1 where nothing is clipped.

    Args:
        images: in [0, 1], square.
        draws: {'centre': (column, row) in units of n, 'frequency': f / 10, 'amplitude': 10 a / n, 'ring': 10 d / n}, uniform.
        constants: level L for each severity.
        severity: which of them.
    """
    b, n = images.shape[:2]
    shapes = {"centre": (b, 2), "frequency": (b,), "amplitude": (b,), "ring": (b,)}
    centre, frequency, amplitude, ring = take(draws, shapes, images.dtype)
    frequency, amplitude, ring = (x[:, None, None] for x in (10 * frequency, n / 10 * amplitude, n / 10 * ring))
    position = jnp.arange(n, dtype=images.dtype)[None]
    column, row = ((position - n * centre[:, i, None]) for i in range(2))
    column, row = jnp.broadcast_arrays(column[:, None], row[:, :, None])
    distance = jnp.sqrt(row**2 + column**2) + amplitude * jnp.sin(frequency * jnp.arctan2(column, row))
    rings = distance / jnp.where(ring > 0, ring, 1)
    saw = (rings - jnp.floor(rings) - 0.5)[..., None]
    return jnp.clip(images + (12.8 / 255) * pick(constants, severity, images.dtype) * saw, 0, 1)


def draw_plasma_noise(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'time', 'rounds', 'sharpness', 'scale': uniforms (b,)}."""
    return {name: uniforms(keys, (), i) for i, name in enumerate(("time", "rounds", "sharpness", "scale"))}


def plasma_noise(images: Images, draws: Draws, *, constants: tuple, severity: Int[Array, ""]) -> Images:
    """clip((1 - w) x + w z) with w = 6.4/255 L; z in [-1, 1] are sines, of other phases in each channel, of warped coordinates.

    The coordinates (column, row) / scale are moved 4 to 6 times by a = (cos(row f + t/d), sin(column f + t/d)) / s plus 0.3 times
    a turned by 90 degrees, while f grows by 1.93, d by 1.15 and s by 2.25 - sharpness. Dark parts come out
    black: z has mean 0, not grey. An image of one channel is treated as three equal ones. The gradient is 1 - w where nothing is
    clipped.

    Args:
        images: in [0, 1], square, of three channels.
        draws: {'time': t / (6 pi), 'rounds': 4 + floor(3 u), 'sharpness': 2 sharpness - 1, 'scale': (scale / n - 0.075) / 0.125}.
        constants: level L for each severity.
        severity: which of them.
    """
    b, n = images.shape[:2]
    values = take(draws, dict.fromkeys(("time", "rounds", "sharpness", "scale"), (b,)), images.dtype)
    time, rounds, sharpness, scale = (value[:, None, None] for value in values)
    time, rounds = 6 * np.pi * time, 4 + jnp.floor(3 * rounds)
    position = jnp.arange(n, dtype=images.dtype)[None] / (n * (0.075 + 0.125 * scale[..., 0]))
    column, row = jnp.broadcast_arrays(position[:, None], position[:, :, None])

    def warp(i, state):
        row, column, grow, divide_time, divide = state
        first = jnp.cos(row * grow + time / divide_time) / divide
        second = jnp.sin(column * grow + time / divide_time) / divide
        moving = i.astype(time.dtype) < rounds
        row = row + jnp.where(moving, second + 0.3 * first, 0)
        column = column + jnp.where(moving, first - 0.3 * second, 0)
        return row, column, grow * 1.93, divide_time * 1.15, divide * (1.75 - sharpness / 2)  # 2.25 - (1 + u) / 2

    # A loop, since XLA would fuse the rounds into one expression that computes the first ones again and again.
    one = jnp.ones_like(time)
    row, column, *_ = jax.lax.fori_loop(0, 6, warp, (row, column, one, one, one))
    noise = jnp.stack([jnp.sin(column - time), jnp.sin((column + row + jnp.sin(time)) / 2), jnp.sin(row + time)], axis=-1)
    weight = (6.4 / 255) * pick(constants, severity, images.dtype)
    return jnp.clip((1 - weight) * images + weight * noise, 0, 1)


# --- Gradient noise ----------------------------------------------------------------------------------------------------------

_TABLE = 256  # gradients
_CELLS = 7  # of the coarsest lattice along an axis
_OCTAVES = 5


@functools.lru_cache
def _lattice_weights(n: int, octave: int) -> np.ndarray:
    """Returns (2, n, points): smooth weights of the lattice points at each pixel of an axis, and these times the way from them."""
    position = np.arange(n) * (_CELLS / n) * octave
    cell, way = position.astype(int), position % 1
    smooth = way**2 * (3 - 2 * way)
    weights = np.zeros((2, n, cell[-1] + 2))
    for side, weight in enumerate((1 - smooth, smooth)):
        weights[0, np.arange(n), cell + side] = weight
        weights[1, np.arange(n), cell + side] = weight * (way - side)
    return weights


def draw_perlin_noise(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'rank': uniforms (b, 256), 'gradient': uniforms (b, 256, 2)}."""
    return {"rank": uniforms(keys, (_TABLE,), 0), "gradient": uniforms(keys, (_TABLE, 2), 1)}


def perlin_noise(images: Images, draws: Draws, *, constants: tuple, severity: Int[Array, ""]) -> Images:
    """(1 - a) x + a z with a = 0.05 L, z = clip(1/2 + t/2) the same in all channels, t the turbulence of 5 octaves.

    t = sum |g(f p)| / f over f = 1, 2, 4, 8, 16, with p the pixel on a lattice of 7x7 cells and g gradient noise: from each
    corner of a cell the scalar product of its gradient with the way from there, times 3/2, interpolated by 3 s^2 - 2 s^3. Corner (i, j)
    has gradient number P(P(i) + j), P a permutation of 256; so one table serves all octaves, and corner (i, j)
    has the same gradient in each. t is not negative: images only become brighter than (1 - a) x + a/2. The gradient is 1 - a.

    Args:
        images: in [0, 1], square.
        draws: {'rank': numbers whose order is P, 'gradient': (u, v), the gradients being (2 u - 1, 2 v - 1) at length 1}. The
            published code shuffles by 256 swaps of any two, which favours some permutations a little.
        constants: level L for each severity.
        severity: which of them.
    """
    b, n = images.shape[:2]
    rank, gradient = take(draws, {"rank": (b, _TABLE), "gradient": (b, _TABLE, 2)}, images.dtype)
    order = jnp.argsort(rank, axis=1)
    gradient = 2 * gradient - 1
    square = jnp.sum(gradient**2, axis=-1, keepdims=True)
    gradient = gradient * jax.lax.rsqrt(jnp.where(square > 0, square, 1))
    turbulence = jnp.zeros_like(images[..., 0])
    for octave in (2**i for i in range(_OCTAVES)):
        weights = _lattice_weights(n, octave)
        points = weights.shape[2]
        # points reaches 113 and P 255, so sums need P's second period.
        place = (order[:, :points, None] + jnp.arange(points)[None, None]) % _TABLE
        number = jnp.take_along_axis(order, place.reshape(b, -1), axis=1, mode="promise_in_bounds")
        near, far = (jnp.asarray(w, images.dtype) for w in weights)
        noise = jnp.zeros_like(turbulence)
        for i, (rows, columns) in enumerate(((far, near), (near, far))):
            slopes = jnp.take_along_axis(gradient[..., i], number, axis=1, mode="promise_in_bounds").reshape(b, points, points)
            # 'highest' as everywhere: accelerators round factors.
            noise = noise + jnp.einsum("yi,bij,xj->byx", rows, slopes, columns, precision=jax.lax.Precision.HIGHEST)
        turbulence = turbulence + abs(1.5 * noise) / octave
    noise = jnp.clip(0.5 + 0.5 * turbulence, 0, 1)[..., None]
    weight = 0.05 * pick(constants, severity, images.dtype)
    return (1 - weight) * images + weight * noise
