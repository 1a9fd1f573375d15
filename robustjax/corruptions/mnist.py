"""MNIST-C: what is special to square grey images of digits. The rest of its 15 corruptions are those of the other benchmarks.

Sizes: the published code is made for 28x28 pixels. At others, what it says of the whole image (its centre, its quarters, a line
from side to side) follows the size; what it says in pixels (shifts, blurs, the width of a line, teeth) stays.

There is one strength, so `constants` has one entry everywhere.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from robustjax.core.types import Keys
from robustjax.corruptions.draws import Draws, normals, take, uniforms, whole_numbers
from robustjax.corruptions.severity import truncate
from robustjax.corruptions.weather import add_fog
from robustjax.imaging.canny import canny
from robustjax.imaging.filters import gaussian_matrix
from robustjax.imaging.noise_fields import plasma, plasma_draws
from robustjax.imaging.resample import separable
from robustjax.imaging.warp import bilinear_between

Images = Float[Array, "b s s 1"]
Shape = tuple[int, ...]

_LINE_END = 2.3  # pixels at which the line's brightness, 1 + log(1 - distance / 2.3), would fall to minus infinity
_TOOTH = 2  # half the length of a zigzag's tooth along the line, and its height
_RISE = 5  # a zigzag climbs by -5 to 4 pixels
_ROOM = 16  # rows above and below its start that a zigzag may touch
_FOG_SIZE = 256


def _signs(keys: Keys, shape: Shape = ()) -> Array:
    uniform = uniforms(keys, shape)
    return jnp.where(uniform < 0.5, -jnp.ones_like(uniform), 1)


def _whole(keys: Keys, count: int, shape: Shape = (), index: int = 0) -> Array:
    """Returns whole numbers from 0 to count - 1."""
    return jnp.floor(uniforms(keys, shape, index) * count).astype(jnp.int32)


# --- moved as a whole ---


def _affine(images: Images, sign: Shaped[Array, " b"], matrix_of, constants: tuple) -> Images:
    """Returns images whose pixel p is what lay at A (p - centre) + centre, bilinear, zeros outside; A = matrix_of(sign * constant)."""
    size, dtype = images.shape[1], images.dtype
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    tables = []
    for signed in (-constants[0], constants[0]):
        ((xx, xy), (yx, yy)) = matrix_of(signed)
        tables.append([yx * columns + yy * rows, xx * columns + xy * rows])
    points = np.array(tables) + (size - 1) / 2  # (2 signs, row and column, size, size)
    corners = np.floor(points)
    chosen = (sign > 0).astype(jnp.int32)
    corner = jnp.asarray(corners, jnp.int32)[chosen]
    rest = jnp.asarray(points - corners, dtype)[chosen]
    moved = bilinear_between(images, corner[:, 0], corner[:, 1], rest[:, 0], rest[:, 1], border="zero")
    return jnp.clip(moved, 0, 1)


_either_sign = whole_numbers(lambda draws, shape: {"sign": (-1, 1, 2)})


@_either_sign
def draw_sign(keys: Keys, shape: Shape) -> Draws:
    """Returns {'sign': (b,)}, -1 or 1."""
    return {"sign": _signs(keys)}


def shear(images: Images, draws: Draws, *, constants: tuple) -> Images:
    """Lets the digit lean by the angle s c to one side: the pixel (x, y) is what lay at (x - y sin(s c), y cos(s c)).

    From the centre, bilinear, zeros outside. An accident: the cosine also makes digits taller by 1 / cos(c). That is the shear
    of scikit-image in 2019, later versions shear by the tangent. Linear in the images, differentiable.

    Args:
        images: in [0, 1].
        draws: {'sign': s}.
        constants: angle c in radians.
    """
    (sign,) = take(draws, {"sign": images.shape[:1]}, images.dtype)
    return _affine(images, sign, lambda angle: ((1, -np.sin(angle)), (0, np.cos(angle))), constants)


def rotate(images: Images, draws: Draws, *, constants: tuple) -> Images:
    """Rotates by the angle s c around the centre, anticlockwise for s = 1; bilinear, zeros outside. Linear in the images.

    Args:
        images: in [0, 1].
        draws: {'sign': s}.
        constants: angle c in radians.
    """
    (sign,) = take(draws, {"sign": images.shape[:1]}, images.dtype)
    return _affine(images, sign, lambda a: ((np.cos(a), -np.sin(a)), (np.sin(a), np.cos(a))), constants)


@functools.lru_cache
def _shrinking(size: int, factor: float) -> np.ndarray:
    """Returns the matrix (size, size) that samples an axis at (i - centre) * factor + centre, with zeros outside."""
    distance = (np.arange(size) - (size - 1) / 2) * factor + (size - 1) / 2
    return np.maximum(0, 1 - abs(distance[:, None] - np.arange(size)))


def scale(images: Images, *, constants: tuple) -> Images:
    """Shrinks the digit towards the centre by the constant's factors (x, y), above 1; bilinear, zeros outside. Linear.

    Args:
        images: in [0, 1].
        constants: (horizontal, vertical) factor.
    """
    across, down = (jnp.asarray(_shrinking(images.shape[1], factor), images.dtype) for factor in constants[0])
    return jnp.clip(separable(images, down, across), 0, 1)


@_either_sign
def draw_translate(keys: Keys, shape: Shape) -> Draws:
    """Returns {'sign': (b, 2)}, each -1 or 1: horizontal and vertical."""
    return {"sign": _signs(keys, (2,))}


def translate(images: Images, draws: Draws, *, constants: tuple) -> Images:
    """Moves the image by c pixels, to the left where the first sign is 1 and up where the second is; zeros come in. Linear.

    Args:
        images: in [0, 1].
        draws: {'sign': (b, 2)}, horizontal and vertical.
        constants: c, whole pixels.
    """
    (sign,) = take(draws, {"sign": (len(images), 2)}, images.dtype)
    shift, size = constants[0], images.shape[1]
    for axis, along in ((2, sign[:, 0]), (1, sign[:, 1])):
        padded = jnp.pad(images, [(0, 0)] + [(shift, shift) if axis == i else (0, 0) for i in (1, 2)] + [(0, 0)])
        before, after = (padded.take(np.arange(size) + start, axis=axis) for start in (0, 2 * shift))
        images = jnp.where(along[:, None, None, None] > 0, after, before)
    return images


# --- drawn over ---


def stripe(images: Images) -> Images:
    """Inverts (1 - x) the left and the right quarter of the columns; the gradient there is -1.

    Args:
        images: in [0, 1].
    """
    size = images.shape[1]
    column = np.arange(size)[:, None]
    return jnp.where((column < size // 4) | (column >= size - size // 4), 1 - images, images)


def _brightness(distance, log, minimum, maximum):
    """Returns clip(1 + log(1 - d / 2.3), 0, 1), the brightness of a line at a distance d, by either numpy or jax.numpy."""
    return maximum(1 + log(1 - minimum(distance, 2) / _LINE_END), 0)  # 0 from 1.5 on; at 2.3 the logarithm ends


@whole_numbers(lambda draws, shape: {"row": (0, shape[1] - 2)})
def draw_dotted_line(keys: Keys, shape: Shape) -> Draws:
    """Returns {'row': int32 (b, 2)} from 0 to s - 2: where the line meets the first and the last column."""
    return {"row": _whole(keys, shape[1] - 1, (2,))}


def dotted_line(images: Images, draws: Draws) -> Images:
    """Adds a white dotted line from side to side, clipped: columns come in twos, the first two dark, the next two lit.

    Its brightness is 1 + log(1 - d / 2.3), d the vertical distance in pixels, so steep lines are thin. An accident: the last
    column never shows the line. The gradient is 1 where nothing is clipped.

    Args:
        images: in [0, 1].
        draws: {'row': whole numbers (b, 2)}.
    """
    (row,) = take(draws, {"row": (len(images), 2)}, images.dtype)
    size = images.shape[1]
    column = np.arange(size)
    lit = (column // 2 % 2 == 1) & (column < size - 1)
    column = jnp.asarray(column, images.dtype)
    start, end = (row[:, i, None, None].astype(images.dtype) for i in range(2))
    # Times size - 1, so whole numbers: exact in float32.
    below = (column[None, :, None] - start) * (size - 1) - (end - start) * column[None, None]
    distance = abs(below) / (size - 1)
    line = jnp.where(lit[None, None], _brightness(distance, jnp.log, jnp.minimum, jnp.maximum), 0)
    return jnp.minimum(images + line[..., None], 1)


@whole_numbers(lambda draws, shape: {"row": (0, shape[1] - 2), "rise": (-_RISE, _RISE - 1)})
def draw_zigzag(keys: Keys, shape: Shape) -> Draws:
    """Returns {'row': int32 (b,)} from 0 to s - 2, where the line starts, and {'rise': int32 (b,)} from -5 to 4, how far down it ends."""
    return {"row": _whole(keys, shape[1] - 1), "rise": _whole(keys, 2 * _RISE, index=1) - _RISE}


def _corners(length: float) -> tuple[list, list]:
    """Returns along and across: the corners of a zigzag around a level line of this length from (0, 0)."""
    teeth = int((length - _TOOTH) // (2 * _TOOTH)) + 1
    along = [0.0] + [(2 * i + 1.0) * _TOOTH for i in range(teeth)]
    across = [0.0] + [(-1.0) ** i * _TOOTH for i in range(teeth)]
    # The published code divides by twice the rest where it should multiply, so the last corner lies beside the line's end, at 28
    # pixels by up to 0.33. At other sizes that could be any distance: there not beyond a tooth's height, and 0 where nothing is left.
    rest = length % (2 * _TOOTH)
    along.append(length)
    across.append(float(np.clip(across[-1] / (2 * rest), -_TOOTH, _TOOTH)) if rest else 0.0)
    return along, across


@functools.lru_cache
def _zigzags(size: int) -> np.ndarray:
    """Returns the brightness (rise + 5, row - start + 16, column) of zigzags from column 2 to size - 3; it may exceed 1 where teeth meet."""
    row, column = np.arange(-_ROOM, _ROOM + 1)[:, None], np.arange(size)
    table = np.zeros((2 * _RISE, len(row), size))
    for rise in range(-_RISE, _RISE):
        angle = np.arctan(rise / (size - 5))
        along, across = map(np.array, _corners((size - 5) / np.cos(angle)))
        x, y = 2 + np.cos(angle) * along - np.sin(angle) * across, np.sin(angle) * along + np.cos(angle) * across
        for x0, x1, y0, y1 in zip(x, x[1:], y, y[1:], strict=False):
            if x0 < x1:
                distance = abs(row - (y0 + (y1 - y0) / (x1 - x0) * (column - x0)))
                within = (column >= np.floor(x0)) & (column < np.ceil(x1))
                table[rise + _RISE] += np.where(within, _brightness(distance, np.log, np.minimum, np.maximum), 0)
    return table


def zigzag(images: Images, draws: Draws) -> Images:
    """Adds a white zigzag from the third column to the third last, clipped; teeth 4 pixels long and 2 high, brightness as `dotted_line`'s.

    The gradient is 1 where nothing is clipped.

    Args:
        images: in [0, 1].
        draws: {'row': whole numbers (b,), 'rise': whole numbers (b,) from -5 to 4}.
    """
    b, size = images.shape[:2]
    row, rise = (draw.astype(jnp.int32) for draw in take(draws, {"row": (b,), "rise": (b,)}, images.dtype))
    place = jnp.clip(jnp.arange(size, dtype=jnp.int32)[None] - row[:, None] + _ROOM, 0, 2 * _ROOM)
    lines = jnp.asarray(_zigzags(size), images.dtype)[rise[:, None] + _RISE, place]
    return jnp.minimum(images + lines[..., None], 1)


def canny_edges(images: Images) -> Images:
    """White where Canny's detector finds an edge, black elsewhere; see `imaging.canny`. The gradient is 0.

    Args:
        images: in [0, 1].
    """
    return canny(images).astype(images.dtype)


# --- weather ---


def _fog_size(size: int) -> int:
    return max(_FOG_SIZE, 1 << (size - 1).bit_length())


def draw_fog(keys: Keys, shape: Shape) -> Draws:
    """Returns {'uniform': uniforms (b, 65535)}; more above 256 pixels."""
    return {"uniform": uniforms(keys, (plasma_draws(_fog_size(shape[1])),))}


def fog(images: Images, draws: Draws, *, constants: tuple) -> Images:
    """As `weather.fog`, but always the upper left corner of fog made for 256x256 pixels: smooth, and seldom from 0 to 1 (an accident).

    Args:
        images: in [0, 1].
        draws: {'uniform': u}, see `draw_fog`.
        constants: (thickness, decay of the fractal's detail).
    """
    size = _fog_size(images.shape[1])
    (uniform,) = take(draws, {"uniform": (len(images), plasma_draws(size))}, images.dtype)
    thickness, decay = jnp.asarray(constants[0], images.dtype)
    return add_fog(images, plasma(uniform, size=size, decay=decay, crop=images.shape[1]), thickness)


def draw_spatter(keys: Keys, shape: Shape) -> Draws:
    """Returns {'normal': standard normals (b, s, s, 1)}."""
    return {"normal": normals(keys, shape[1:])}


# --- shuffled ---


@whole_numbers(lambda draws, shape: {"move": (0, 3)})
def draw_glass_blur(keys: Keys, shape: Shape, *, constants: tuple) -> Draws:
    """Returns {'move': int32 (b, rounds, s, s)}: 0 stays (5 in 8), 1 swaps with the left, 2 with the upper, 3 with the upper left one."""
    rounds = constants[0][2]
    return {"move": jnp.maximum(_whole(keys, 8, (rounds, *shape[1:3])) - 4, 0)}


def glass_blur(images: Images, draws: Draws, *, constants: tuple) -> Images:
    """A blur, truncation to 8 bits, neighbours swapped, and the blur again.

    Pixels are visited from the last row and column to the third ones, each round; one visit swaps a pixel with itself, its left,
    upper or upper left neighbour as they are by then. Accidents: both blurs are vertical only (columns were taken for channels).
    Colour images of the other benchmarks are copied, not swapped. The gradient passes through the truncation as if it were not there.

    Args:
        images: in [0, 1].
        draws: {'move': whole numbers from 0 to 3 (b, rounds, s, s)}, of which the first two rows and columns are not used.
        constants: (standard deviation of the blur, 1, rounds).
    """
    sigma, _, rounds = constants[0]
    b, size = images.shape[:2]
    (move,) = take(draws, {"move": (b, rounds, size, size)}, images.dtype)
    matrix = jnp.asarray(gaussian_matrix(size, sigma), images.dtype)
    blur = functools.partial(jnp.einsum, "uh,bhwc->buwc", matrix, precision=jax.lax.Precision.HIGHEST)
    blurred = blur(images)
    levels = truncate(blurred) + (blurred - jax.lax.stop_gradient(blurred))
    return jnp.clip(blur(_swapped(levels, move.astype(jnp.int32))), 0, 1)


def _swapped(images: Images, move: Int[Array, "b r s s"]) -> Images:
    """Returns the images after all rounds of swaps, see `glass_blur`.

    A visit needs only what the visits to its right and below left behind, so all rows work at once, each two columns after the
    one below: about 3 s steps instead of s². Rows are stored with that shift, so that a step reads and writes whole columns.
    """
    size = images.shape[1]
    visited = np.arange(size) < size - 2  # counted from the end
    visited = visited[:, None] & visited
    pixels = jnp.transpose(images[:, ::-1, ::-1, 0], (1, 2, 0))
    moves = jnp.where(visited[..., None], jnp.transpose(move[:, :, ::-1, ::-1], (1, 2, 3, 0)), 0)

    def visit(window, new):
        here, left, up, corner = window  # in a row: its columns t to t + 3, of which the last two belong to the visit of the row below
        move, incoming = new
        up, corner = jnp.roll(up, -1, axis=0), jnp.roll(corner, -1, axis=0)
        done = jax.lax.select_n(move, here, left, up, corner)
        left = jnp.where(move == 1, here, left)
        up, corner = (jnp.roll(jnp.where(move == i, here, x), 1, axis=0) for i, x in ((2, up), (3, corner)))
        return (left, up, corner, incoming), done

    def one_round(pixels, moves):
        columns = jnp.pad(_shifted_rows(pixels), ((0, 4), (0, 0), (0, 0)))
        _, done = jax.lax.scan(visit, tuple(columns[:4]), (_shifted_rows(moves), columns[4:]))
        return _straight_rows(done, size), None

    pixels, _ = jax.lax.scan(one_round, pixels, moves)
    return jnp.transpose(pixels, (2, 0, 1))[:, ::-1, ::-1, None]


def _shifted_rows(x: Shaped[Array, "s s b"]) -> Shaped[Array, "columns s b"]:
    """Returns the columns of an image whose row i is moved to the right by 2 i, zeros around."""
    size, b = x.shape[1:]
    columns = size + 2 * (size - 1)
    # Rows that are two longer than they will be: read as one line and cut again, each starts two further on than the last.
    x = jnp.pad(x, ((0, 0), (0, columns + 2 - size), (0, 0))).reshape(-1, b)[: size * columns]
    return jnp.transpose(x.reshape(size, columns, b), (1, 0, 2))


def _straight_rows(x: Shaped[Array, "columns s b"], size: int) -> Shaped[Array, "{size} {size} b"]:
    """Inverse of `_shifted_rows`."""
    columns, _, b = x.shape
    x = jnp.pad(jnp.transpose(x, (1, 0, 2)).reshape(-1, b), ((0, 2 * size), (0, 0)))
    return x.reshape(size, columns + 2, b)[:, :size]
