"""C-bar's distortions: pixels that are moved, turned, lensed. Mintun, Kirillov & Xie, NeurIPS 2021.

Levels L lie between 0 and 10; n is the side of the image. All but caustic_refraction are linear in the image, and that one is
up to its last clip; so the gradient is the transposed warp.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from robustjax.core.types import Keys
from robustjax.corruptions.draws import Draws, take, uniforms
from robustjax.corruptions.severity import pick
from robustjax.imaging.filters import gaussian_matrix
from robustjax.imaging.resample import separable
from robustjax.imaging.warp import bilinear, bilinear_between

Images = Float[Array, "b n n c"]

_HIGHEST = jax.lax.Precision.HIGHEST  # accelerators would round factors to fewer bits than 8-bit levels need


# --- Pinch and twirl, ripple -------------------------------------------------------------------------------------------------


def _cells(n: int) -> int:
    return 5 if n == 224 else 3  # as published, where no other sizes than 32 and 224 occur


@functools.lru_cache
def _pinched_cell(constants: tuple, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the pixels of a cell come from, (severities, 2 senses of turning, 2 axes, side, side).

    Whole pixels counted from the cell's first one, and the rest in [0, 1).
    """
    radius = side / 2
    y, x = np.mgrid[:side, :side] - radius
    distance = np.hypot(y, x)
    outside = (distance > radius) | (distance < 5e-4)
    d = np.where(outside, 1, distance / radius)
    tables = []
    for level in constants:
        pull = np.sin(np.pi / 2 * d) ** -(0.04 * level + 0.1)
        for sense in (1, -1):
            angle = np.where(outside, 0, sense * level * np.pi / 20 * (1 - d) ** 2)
            cos, sin = np.cos(angle), np.sin(angle)
            tables.append(np.stack([y * pull * cos - x * pull * sin, y * pull * sin + x * pull * cos]) + radius)
    points = np.stack(tables).reshape(len(constants), 2, 2, side, side)
    # Rounding would make 3 - 1e-15 of 3, a read over the border that weighs nothing in the end, but costs precision.
    points = points.round(12)
    return np.floor(points).astype(np.int32), points - np.floor(points)


def draw_pinch_and_twirl(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'sense': uniforms (b, k, k)} for k x k cells: 5 x 5 in images of side 224, else 3 x 3."""
    cells = _cells(shape[1])
    return {"sense": uniforms(keys, (cells, cells))}


def pinch_and_twirl(images: Images, draws: Draws, *, constants: tuple, severity: Int[Array, ""]) -> Images:
    """Pinches and turns a disk in each of 3 x 3 cells (5 x 5 in images of side 224). Linear.

    Within radius r = side / 2 of a cell's middle, a pixel at distance d r shows what lies at distance d r sin(pi d / 2)^-a, turned
    by (1 - d)^2 pi L / 20, a = 0.1 + 0.04 L. Bilinear. Cells are n // k pixels wide, so the last n mod k rows and columns stay as
    they are; for even sides the disk's middle is a pixel, and the disk reaches one pixel into the next cells. The published
    code writes cells one after the other into the image that it reads, but never reads what it has written.

    Args:
        images: in [0, 1], square.
        draws: {'sense': u by row and column of cells}: positive (from rows towards columns) where u < 1/2.
        constants: level L for each severity.
        severity: which of them.
    """
    b, n = images.shape[:2]
    cells = _cells(n)
    (sense,) = take(draws, {"sense": (b, cells, cells)}, images.dtype)
    side = n // cells
    positive = (sense < 0.5)[:, :, None, :, None]

    def everywhere(table):
        """Returns the two axes of (b, cells * side, cells * side) from the table's cells."""
        choice = pick(table, severity, images.dtype)[:, :, None, None, :, None]
        return [jnp.where(positive, choice[0, i], choice[1, i]).reshape(b, cells * side, -1) for i in range(2)]

    whole, rest = _pinched_cell(constants, side)
    (top, left), (down, right) = everywhere(whole), everywhere(rest)
    start = jnp.arange(cells * side, dtype=jnp.int32) // side * side
    top, left = top.astype(jnp.int32) + start[None, :, None], left.astype(jnp.int32) + start[None, None]
    warped = bilinear_between(images, top, left, down, right, border="zero")
    return jnp.clip(images.at[:, : cells * side, : cells * side].set(warped), 0, 1)


def draw_ripple(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'wavelength': uniforms (b, 2), 'phase': uniforms (b, 2)}, rows' and columns'."""
    return {"wavelength": uniforms(keys, (2,), 0), "phase": uniforms(keys, (2,), 1)}


def ripple(images: Images, draws: Draws, *, constants: tuple, severity: Int[Array, ""]) -> Images:
    """Reads pixel p at p + n L / 400 sin(2 pi p / w + phase), rows and columns each on their own, bilinear.

    Accident kept: what lies beyond the border is black, so borders darken.

    Args:
        images: in [0, 1], square.
        draws: {'wavelength': (w / n - 0.1) / 0.2, 'phase': phase / (2 pi)}.
        constants: level L for each severity.
        severity: which of them.
    """
    b, n = images.shape[:2]
    wavelength, phase = take(draws, {"wavelength": (b, 2), "phase": (b, 2)}, images.dtype)
    position = jnp.arange(n, dtype=images.dtype)[None, None]
    turns = position / (n * (0.1 + 0.2 * wavelength[..., None])) + phase[..., None]
    source = position + n / 400 * pick(constants, severity, images.dtype) * jnp.sin(2 * np.pi * turns)
    # Bilinear interpolation with zeros outside is a product with hat functions.
    hats = jnp.maximum(1 - abs(source[..., None] - position[:, :, None]), 0)
    images = jnp.einsum("bxk,bykc->byxc", hats[:, 1], images, precision=_HIGHEST)
    return jnp.clip(jnp.einsum("byk,bkxc->byxc", hats[:, 0], images, precision=_HIGHEST), 0, 1)


# --- Cubic splines: blur along circles, colours of different scale -----------------------------------------------------------


def _spline_taps(part: Array | np.ndarray) -> list:
    """Returns the cubic B-spline at the pixels -1, 0, 1 and 2 from the one before a point, `part` of a pixel further."""
    rest = 1 - part
    return [rest**3 / 6, (part**2 * (part - 2) * 3 + 4) / 6, (rest**2 * (rest - 2) * 3 + 4) / 6, part**3 / 6]


def _spline_matrix(points: np.ndarray, n: int) -> np.ndarray:
    """Returns (points, n): the B-splines of an axis' pixels, mirrored at both ends (reflect-101), at some points of it."""
    first = np.floor(points).astype(int)
    matrix = np.zeros((len(points), n))
    for i, tap in enumerate(_spline_taps(points - first), -1):
        place = (first + i) % (2 * n - 2)
        np.add.at(matrix, (np.arange(len(points)), np.minimum(place, 2 * n - 2 - place)), tap)
    return matrix


@functools.lru_cache
def _spline_coefficients(n: int) -> np.ndarray:
    """Returns the matrix (n, n) from the values of an axis to the coefficients of the cubic spline through them."""
    return np.linalg.inv(_spline_matrix(np.arange(n), n))


_STEPS = 10  # turns to each side


def circular_motion_blur(images: Images, *, constants: tuple, severity: Int[Array, ""]) -> Images:
    """The mean of 21 turns by 1.5 L t degrees around the middle, t = -1, -0.9, ..., 1, with weights exp(-2 t^2).

    Turned by cubic splines through the pixels. Accident kept: a turned image is black where the original has no pixels, so
    corners darken. Exact, and linear but for the last clip.

    Args:
        images: in [0, 1], square.
        constants: level L for each severity.
        severity: which of them.
    """
    b, n, _, c = images.shape
    dtype = images.dtype
    # Coefficients with a rim of 2, as rows of all images' values: what one pixel reads is then the same place of all images.
    inverse = jnp.asarray(_spline_coefficients(n), dtype)
    rim = jnp.pad(separable(images, inverse, inverse), ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    width = n + 4
    table = jnp.transpose(rim, (1, 2, 0, 3)).reshape(width * width, b * c)
    middle = (n - 1) / 2
    position = jnp.arange(n, dtype=dtype) - middle
    most = 1.5 * np.pi / 180 * pick(constants, severity, dtype)

    def add_turn(i, total):
        t = (i - _STEPS).astype(dtype) / _STEPS
        cos, sin = jnp.cos(most * t), jnp.sin(most * t)
        row = (cos * position[:, None] + sin * position[None]).reshape(-1, 1) + middle
        column = (cos * position[None] - sin * position[:, None]).reshape(-1, 1) + middle
        inside = (row >= 0) & (row <= n - 1) & (column >= 0) & (column <= n - 1)
        weight = jnp.where(inside, jnp.exp(-2 * t**2), 0)
        top, left = (jnp.floor(jnp.clip(x, 0, n - 1)) for x in (row, column))
        first = ((top + 1) * width + left + 1).astype(jnp.int32)[:, 0]
        columns = _spline_taps(column - left)
        for j, tap in enumerate(_spline_taps(row - top)):
            for k in range(4):
                total = total + (weight * tap * columns[k]) * jnp.take(table, first + (j * width + k), axis=0, mode="clip")
        return total

    total = jax.lax.fori_loop(0, 2 * _STEPS + 1, add_turn, jnp.zeros_like(table[: n * n]))
    total = jnp.transpose(total.reshape(n, n, b, c), (2, 0, 1, 3))
    return jnp.clip(total / np.exp(-2 * np.linspace(-1, 1, 2 * _STEPS + 1) ** 2).sum(), 0, 1)


@functools.lru_cache
def _enlarging(constants: tuple, n: int) -> np.ndarray:
    """Returns (severities, 3, n, n): the axis at scales 1, 1 + s / 2 and 1 + s, s = L / 20, its middle cut out."""
    matrices = []
    for level in constants:
        for scale in (1, 1 + level / 40, 1 + level / 20):
            size = round(n * scale)
            points = ((size - n) // 2 + np.arange(n)) * (n - 1) / (size - 1)
            matrices.append(_spline_matrix(points, n))
    return np.stack(matrices).reshape(len(constants), 3, n, n)


def draw_transverse_chromatic_abberation(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'order': uniforms (b, 3)}."""
    return {"order": uniforms(keys, (3,))}


def transverse_chromatic_abberation(images: Images, draws: Draws, *, constants: tuple, severity: Int[Array, ""], quantize: bool) -> Images:
    """Enlarges one channel by 1 + L / 20, another one by 1 + L / 40, and leaves the third one at its scale.

    The name is spelt as published. Accident kept: pixels are used as B-spline coefficients without the filter that would make
    the spline pass through them, so all channels are smoothed, that of scale 1 as well, by (1/6, 4/6, 1/6) along each axis.
    Linear. An image of one channel is treated as three equal ones.

    Args:
        images: in [0, 1], square, of three channels.
        draws: {'order': u}: the channel of the smallest u keeps its scale, that of the largest is enlarged most.
        constants: level L for each severity.
        severity: which of them.
        quantize: round to 8-bit levels, as published, half up. At scale 1 one value in 36 lies half-way between two, and float64
            rounding error decides in the published files; there they may be one level apart.
    """
    (order,) = take(draws, {"order": (images.shape[0], 3)}, images.dtype)
    rank = jnp.sum((order[:, None] < order[:, :, None]).astype(jnp.int32), axis=-1)  # (b, channel)
    matrices = pick(_enlarging(constants, images.shape[1]), severity, images.dtype)[rank]  # (b, channel, n, n)
    images = jnp.einsum("bcij,bjxc->bcix", matrices, images, precision=_HIGHEST)
    images = jnp.clip(jnp.einsum("bckx,bcix->bikc", matrices, images, precision=_HIGHEST), 0, 1)
    # The slack lets ties go up in spite of float32 rounding.
    return jnp.floor(images * 255 + (0.5 + 2.0**-14)) / 255 if quantize else images


# --- Caustic refraction ------------------------------------------------------------------------------------------------------

_ETA = 4.0


def _caustics(n: int, time: Float[Array, " b"], size: Float[Array, " b"]) -> Float[Array, "b n n"]:
    """Returns the brightness of light through waves, in [0, 1], of period `size` pixels, softened by a Gaussian of 1 pixel.

    The formula takes angles 2 pi position / size - 250. Only the weights need those as such, sines the rest modulo 2 pi.
    """
    turns = jnp.arange(n, dtype=time.dtype)[None] / size[:, None]
    far = (turns - jnp.floor(turns)) * 6.28318530718
    near = far - 250 % (2 * np.pi)
    start = jnp.broadcast_arrays(near[:, :, None], near[:, None])
    weights = [(x - 250) ** 2 for x in (far[:, :, None], far[:, None])]
    time = time[:, None, None]

    def refine(i, state):
        row, column, light = state
        t = time * (1 - 3.5 / (i + 1).astype(time.dtype))
        row, column = start[0] + jnp.cos(t - row) + jnp.sin(t + column), start[1] + jnp.sin(t - column) + jnp.cos(t + row)
        sin, cos = jnp.sin(row + t), jnp.cos(column + t)
        return row, column, light + abs(sin * cos) / (0.005 * jnp.sqrt(weights[0] * cos**2 + weights[1] * sin**2 + 1e-20))

    # A loop, since XLA would fuse the rounds into one expression that computes the first ones again and again.
    _, _, light = jax.lax.fori_loop(0, 5, refine, (*start, jnp.ones_like(start[0])))
    light = jnp.clip(abs(1.17 - (light / 5) ** 1.4) ** 8, 0, 1)
    soft = jnp.asarray(gaussian_matrix(n, 1.0, mode="reflect"), light.dtype)
    return separable(light[..., None], soft, soft)[..., 0]


def draw_caustic_refraction(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'time', 'size': uniforms (b,)}."""
    return {"time": uniforms(keys, (), 0), "size": uniforms(keys, (), 1)}


def caustic_refraction(images: Images, draws: Draws, *, constants: tuple, severity: Int[Array, ""]) -> Images:
    """The picture through water waves, which also light it from one side.

    With g the differences of a caustic light field between a pixel's two neighbours below and above, right and left, light from
    straight above meets a surface of normal v = (g, 1) / |(g, 1)| and is refracted to v' (by Snell's law, index 4). The pixel
    shows what lies n L / 20 times the components of v' along the image away, bilinear, plus L / 5 times (g down - g right).
    Slopes of cos > 0.999 do not refract. Accidents kept: the field and the image are black beyond the border, which gives borders
    steep slopes; ways are rounded to 1/1000 pixel. Linear in the image but for the last clip.

    Args:
        images: in [0, 1], square.
        draws: {'time': (time - 0.5) / 1.5, 'size': 2 (size / n - 3/4)}, the phase of the waves and their period.
        constants: level L for each severity.
        severity: which of them.
    """
    b, n = images.shape[:2]
    dtype = images.dtype
    time, size = take(draws, {"time": (b,), "size": (b,)}, dtype)
    level = pick(constants, severity, dtype)
    light = jnp.pad(_caustics(n, 0.5 + 1.5 * time, n * (0.75 + 0.5 * size)), ((0, 0), (1, 1), (1, 1)))
    down, right = light[:, 2:, 1:-1] - light[:, :-2, 1:-1], light[:, 1:-1, 2:] - light[:, 1:-1, :-2]
    square = down**2 + right**2
    cos = jax.lax.rsqrt(1 + square)
    # v' = v cos' + u sin', u the direction along the surface back to the vertical; along the image that is v (cos' - cos / eta).
    refracted_cos = jnp.sqrt(1 - square * cos**2 / _ETA**2)
    way = jnp.where(cos < 1 - 1e-3, n / 20 * level * cos * (refracted_cos - cos / _ETA), 0)
    position = jnp.arange(n, dtype=dtype)
    rows = position[None, :, None] + jnp.round(1000 * way * down) / 1000
    columns = position[None, None] + jnp.round(1000 * way * right) / 1000
    shown = bilinear(images, rows, columns, border="zero")
    return jnp.clip(shown + (level / 5 * (down - right))[..., None], 0, 1)
