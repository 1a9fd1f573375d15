"""Elastic transforms: the image as if printed on rubber."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from robustjax.core.check import InputError
from robustjax.core.types import Keys
from robustjax.corruptions.draws import Draws, take, uniforms
from robustjax.corruptions.severity import pick
from robustjax.imaging.filters import gaussian_matrix
from robustjax.imaging.resample import separable
from robustjax.imaging.warp import bilinear_between

_FINE = 1024  # OpenCV's affine coordinates are whole multiples of 1 / 1024 pixel before they are rounded to the grid

Images = Float[Array, "b h w c"]
Field = Float[Array, "b h w"]


def check_elastic_transform(shape: tuple[int, ...], *, affine_grid: Any = 32) -> dict:
    """Returns the options of `elastic_transform`.

    Raises:
        InputError: if the grid is neither None nor a power of two from 1 to 512.
    """
    fits = isinstance(affine_grid, int | np.integer) and not isinstance(affine_grid, bool)
    if affine_grid is not None and not (fits and 1 <= affine_grid < _FINE and affine_grid & (affine_grid - 1) == 0):
        raise InputError(
            f"affine_grid must be a power of two from 1 to {_FINE // 2}, the steps in a pixel (32 as published), "
            f"or None for exact coordinates, got {affine_grid!r}."
        )
    return {"affine_grid": None if affine_grid is None else int(affine_grid)}


def draw_elastic_transform(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns uniforms in [0, 1): {'affine': (b, 3, 2), 'dx': (b, h, w), 'dy': (b, h, w)}."""
    h, w = shape[1:3]
    return {"affine": uniforms(keys, (3, 2), 0), "dx": uniforms(keys, (h, w), 1), "dy": uniforms(keys, (h, w), 2)}


def elastic_transform(images: Images, draws: Draws, *, constants: tuple, severity: Int[Array, ""], affine_grid: int | None = 32) -> Images:
    """A random affine map, then displacement by smooth random fields, both bilinear.

    The affine map moves three corners of a square in the middle, a third of the image to each side, by U(-j, j) pixels along
    each axis. The fields are U(-1, 1) for each pixel, smoothed by a Gaussian cut at 3 sigma, times alpha. The affine map mirrors
    the image at its border (reflect-101), the displacement mirrors it and repeats the edge. Linear in the image, so the gradient
    is the transposed sampling; the draws, through rounding to the grid, have none that means anything.

    Published accidents, kept: severity 1 of CIFAR and Tiny ImageNet displaces nothing (alpha = 0); the middle of an image that
    is not square is taken with its height along the x axis; and `affine_grid`.

    Args:
        images: in [0, 1].
        draws: uniforms in [0, 1): {'affine': (b, 3, 2), 'dx': (b, h, w), 'dy': (b, h, w)}; u stands for 2 u - 1 in [-1, 1). The
            three corners are bottom right, top right, top left, each (x, y). dx moves to the right, dy down.
        constants: (alpha in pixels, sigma, j) for each severity.
        severity: which of them.
        affine_grid: the affine map reads between pixels in steps of 1 / affine_grid, as the OpenCV that made the published files
            does (up to version 4). None is exact, as OpenCV 5: about 15% of the bytes differ by 1 to 3 levels.
    """
    (b, h, w, _), dtype = images.shape, images.dtype
    affine, dx, dy = take(draws, {"affine": (b, 3, 2), "dx": (b, h, w), "dy": (b, h, w)}, dtype)
    alphas, sigmas, jitters = zip(*constants, strict=True)
    alpha = pick(alphas, severity, dtype)
    corners = (2 * affine - 1) * pick(jitters, severity, dtype)
    images = bilinear_between(images, *_affine_places(corners, (h, w), affine_grid), border="mirror")

    def displaced(images):
        rows, columns = (pick(_smoothing(sigmas, size), severity, dtype) for size in (h, w))
        down, right = (_smooth(2 * field - 1, rows, columns) * alpha for field in (dy, dx))
        top, down = _split(down, jnp.arange(h, dtype=jnp.int32).reshape(1, h, 1))
        left, right = _split(right, jnp.arange(w, dtype=jnp.int32).reshape(1, 1, w))
        return bilinear_between(images, top, left, down, right, border="reflect")

    # A branch, not a product with 0: severities without displacement save the work, and the first map is not computed anew for
    # each pixel that the second one reads.
    return jnp.clip(jax.lax.cond(alpha > 0, displaced, lambda images: images, images), 0, 1)


def _smooth(field: Field, rows: Float[Array, "h h"], columns: Float[Array, "w w"]) -> Field:
    return separable(field[..., None], rows, columns)[..., 0]


@functools.lru_cache
def _smoothing(sigmas: tuple, size: int) -> np.ndarray:
    matrices = [gaussian_matrix(size, sigma, mode="reflect", truncate=3.0) if sigma else np.eye(size) for sigma in sigmas]
    return np.stack(matrices)


def _split(way: Field, start: Int[Array, "..."]) -> tuple[Int[Array, "b h w"], Field]:
    """Returns start + way as whole pixels and the rest; the sum would lose digits of the way."""
    whole = jnp.floor(way)
    return start + whole.astype(jnp.int32), way - whole


def _affine_places(corners: Float[Array, "b 3 2"], size: tuple[int, int], grid: int | None) -> tuple[Array, Array, Array, Array]:
    """Returns where output pixels are read, (top, left, down, right), if the corners of the square move by `corners`.

    All of it is about what differs from the identity, I + F: that keeps float32 coordinates exact to 1e-6 pixels at 32x32.
    """
    x, y = jnp.arange(size[1], dtype=jnp.int32).reshape(1, 1, -1), jnp.arange(size[0], dtype=jnp.int32).reshape(1, -1, 1)
    ((xx, xy, x0), (yx, yy, y0)) = _inverse_affine(corners, size)
    real_x, real_y = x.astype(corners.dtype), y.astype(corners.dtype)
    if grid is None:
        top, down = _split(yx * real_x + yy * real_y + y0, y)
        left, right = _split(xx * real_x + xy * real_y + x0, x)
        return top, left, down, right

    def fine(value):
        return jnp.rint(value * _FINE).astype(jnp.int32)

    # In steps of 1 / 1024, rounded for the column and for the row apart, and the sum again to the grid.
    bits, half = (_FINE // grid).bit_length() - 1, _FINE // grid // 2
    down = (y * _FINE + fine(yy * real_y + y0) + fine(yx * real_x) + half) >> bits
    right = (x * _FINE + fine(xx * real_x) + fine(xy * real_y + x0) + half) >> bits
    part = [(value & (grid - 1)).astype(corners.dtype) / grid for value in (down, right)]
    bits = grid.bit_length() - 1
    return down >> bits, right >> bits, *part


def _inverse_affine(corners: Float[Array, "b 3 2"], size: tuple[int, int]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Returns F of the inverse map p -> p + F (p, 1), for x and for y, each number (b, 1, 1); F = 0 where it has no inverse."""
    third = min(size) // 3
    corner = np.array([[1, 1], [1, -1], [-1, -1]])
    square = (np.array([size[0] // 2, size[1] // 2]) + third * corner).astype(np.float32)
    # The published code adds in float32.
    moved = jnp.asarray(square)[None] + corners.astype(jnp.float32)
    moves = (moved - jnp.asarray(square)[None]).astype(corners.dtype)
    moved = moved.astype(corners.dtype)
    # Column vectors of E, if the map is p -> (I + E) p + const.
    along_x, along_y = (moves[:, 1] - moves[:, 2]) / (2 * third), (moves[:, 0] - moves[:, 1]) / (2 * third)
    (a, c), (b, d) = along_x.T, along_y.T
    small = a * d - b * c
    determinant = 1 + a + d + small
    singular = determinant == 0
    scale = jnp.where(singular, 0, 1 / jnp.where(singular, 1, determinant))
    inverse = [[-(a + small) * scale, -b * scale], [-c * scale, -(d + small) * scale]]
    result = []
    for i, row in enumerate(inverse):
        offset = -moves[:, 2, i] - row[0] * moved[:, 2, 0] - row[1] * moved[:, 2, 1]
        result.append(tuple(value[:, None, None] for value in (*row, offset)))
    return tuple(result)
