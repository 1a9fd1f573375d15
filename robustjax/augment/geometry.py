"""Random rotations and perspectives, drawn for each image on its own; pixels are mixed bilinearly.

What comes in from outside is black, or with fill='edge' the nearest pixel of the image.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from robustjax.core import check, numerics
from robustjax.core.check import InputError
from robustjax.core.rng import stream
from robustjax.core.types import ArrayLike, Keys, KeysLike
from robustjax.imaging import bilinear

Images = Float[Array, "b h w c"]

FILLS = ("black", "edge")


def rotation(keys: KeysLike, images: ArrayLike, *, degrees: Any, fill: Any = "black") -> Images:
    """Turns each image about its middle by an angle ~ U(-degrees, degrees), anticlockwise where positive.

    Args:
        keys: one PRNG key for each image.
        images: float (b, h, w, c) in [0, 1], h and w at least 2.
        degrees: largest angle, 0 to 180; may be traced.
        fill: 'black' or 'edge'.

    Returns:
        Like `images`, at least float32, in [0, 1].

    Raises:
        InputError: for an option out of range, keys that are not one typed key for each image, or other images.

    >>> rotation(jax.random.split(jax.random.key(0), 2), jnp.ones((2, 8, 8, 1)), degrees=10.0).shape
    (2, 8, 8, 1)
    """
    _check_option("degrees", degrees, largest=180)
    return _rotated(keys, _prepare(keys, images, fill), jnp.asarray(degrees), fill=fill)


@functools.partial(jax.jit, static_argnames="fill")
def _rotated(keys: Keys, images: Images, degrees: Array, *, fill: str) -> Images:
    part = jax.vmap(lambda key: jax.random.uniform(key, (), images.dtype, -1, 1))(keys)
    return rotate(images, part * degrees.astype(images.dtype), fill=fill)


def rotate(images: Images, angles: Float[Array, " b"], *, fill: str) -> Images:
    """Turns each image about its middle by its angle in degrees, anticlockwise; 90 is `jnp.rot90` of a square."""
    h, w = images.shape[1:3]
    angles = angles[:, None, None] * (math.pi / 180)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    # From the middle; rows count downwards.
    down = (jnp.arange(h, dtype=images.dtype) - (h - 1) / 2)[None, :, None]
    right = (jnp.arange(w, dtype=images.dtype) - (w - 1) / 2)[None, None]
    rows = (h - 1) / 2 + cos * down + sin * right
    columns = (w - 1) / 2 + cos * right - sin * down
    return _sample(images, rows, columns, fill)


def perspective(keys: KeysLike, images: ArrayLike, *, distortion_scale: Any = 0.5, p: Any = 0.5, fill: Any = "black") -> Images:
    """Draws each image's corners inwards with probability p, as if it were seen from the side.

    Every corner moves by whole pixels, uniform in 0 .. int(distortion_scale w // 2) along rows and the same with h along columns:
    the draws of torchvision's RandomPerspective. There corners are half a pixel off; here the corners' pixels land where they were
    drawn to. Above a scale of 2/3 the four may form no convex figure, and the image is folded.

    Args:
        keys: one PRNG key for each image.
        images: float (b, h, w, c) in [0, 1], h and w at least 2.
        distortion_scale: in [0, 1]; may be traced.
        p: in [0, 1]; may be traced.
        fill: 'black' or 'edge'.

    Returns:
        Like `images`, at least float32, in [0, 1].

    Raises:
        InputError: for an option out of range, keys that are not one typed key for each image, or other images.

    >>> perspective(jax.random.split(jax.random.key(0), 2), jnp.ones((2, 8, 8, 1)), p=1.0).shape
    (2, 8, 8, 1)
    """
    _check_option("distortion_scale", distortion_scale, largest=1)
    _check_option("p", p, largest=1)
    images = _prepare(keys, images, fill)
    return _seen_from_aside(keys, images, jnp.asarray(distortion_scale), jnp.asarray(p), fill=fill)


@functools.partial(jax.jit, static_argnames="fill")
def _seen_from_aside(keys: Keys, images: Images, scale: Array, p: Array, *, fill: str) -> Images:
    h, w = images.shape[1:3]
    most = jnp.floor(scale.astype(images.dtype) * jnp.asarray([w // 2, h // 2], images.dtype)).astype(jnp.int32)
    inwards = jax.vmap(lambda key: jax.random.randint(key, (4, 2), 0, jnp.broadcast_to(most + 1, (4, 2)), jnp.int32))(stream(keys, 0))
    chosen = jax.vmap(lambda key: jax.random.uniform(key, (), images.dtype))(stream(keys, 1)) < p.astype(images.dtype)
    inwards = jnp.where(chosen[:, None, None], inwards, 0)
    corner, towards = (jnp.asarray(table, jnp.int32) for table in (_corners(h, w), [[1, 1], [-1, 1], [-1, -1], [1, -1]]))
    moved = project(images, (corner[None] + towards[None] * inwards).astype(images.dtype), fill=fill)
    return jnp.where((inwards == 0).all((1, 2))[:, None, None, None], images, moved)  # to the bit


def _corners(h: int, w: int) -> list[list[int]]:
    return [[0, 0], [w - 1, 0], [w - 1, h - 1], [0, h - 1]]


def project(images: Images, corners: Float[Array, "b 4 2"], *, fill: str) -> Images:
    """Shows each image in perspective.

    Args:
        images: float (b, h, w, c), h and w at least 2.
        corners: (x, y) in pixels of where the corners' pixels go: top left, top right, bottom right, bottom left.
        fill: 'black' or 'edge'.
    """
    h, w = images.shape[1:3]
    sides = jnp.asarray([w - 1, h - 1], images.dtype)
    matrix = _unit_square_of(corners / sides[None, None])
    x, y = (jnp.arange(size, dtype=images.dtype) / (size - 1) for size in (w, h))

    def along(row: Float[Array, "b 3"]) -> Float[Array, "b h w"]:
        return row[:, 0, None, None] * x[None, None] + row[:, 1, None, None] * y[None, :, None] + row[:, 2, None, None]

    across, down, depth = (along(matrix[:, i]) for i in range(3))
    depth = jnp.where(jnp.abs(depth) < 1e-6, 1e-6, depth)  # the horizon of a folded image
    return _sample(images, down / depth * (h - 1), across / depth * (w - 1), fill)


def _unit_square_of(corners: Float[Array, "b 4 2"]) -> Float[Array, "b 3 3"]:
    """Returns the projective maps that take four points to (0, 0), (1, 0), (1, 1), (0, 1), each up to a factor."""
    a, b, c, d = (corners[:, i] for i in range(4))

    def det(u, v):
        return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]

    # The map from the square: (u, v) -> (a + u (b - a + g b) + v (d - a + h d)) / (1 + g u + h v), which meets c by its g and h.
    rest, whole = a - b + c - d, det(b - c, d - c)
    whole = jnp.where(whole == 0, 1e-6, whole)
    g, h = (det(*pair) / whole for pair in ((rest, d - c), (b - c, rest)))
    one = jnp.ones_like(g)
    first, second = b - a + g[:, None] * b, d - a + h[:, None] * d
    rows = [jnp.stack([first[:, i], second[:, i], a[:, i]], axis=1) for i in range(2)]
    rows += [jnp.stack([g, h, one], axis=1)]
    # Its inverse up to a factor: the columns are cross products of the rows.
    return jnp.stack([jnp.cross(rows[1], rows[2]), jnp.cross(rows[2], rows[0]), jnp.cross(rows[0], rows[1])], axis=2)


def _sample(images: Images, rows: Float[Array, "b h w"], columns: Float[Array, "b h w"], fill: str) -> Images:
    h, w = images.shape[1:3]
    outside = 0 if fill == "edge" else 1  # from a pixel outside on, there is nothing but black
    rows, columns = jnp.clip(rows, -outside, h - 1 + outside), jnp.clip(columns, -outside, w - 1 + outside)
    return jnp.clip(bilinear(images, rows, columns, border="zero" if outside else "reflect"), 0, 1)


def _prepare(keys: KeysLike, images: ArrayLike, fill: str) -> Images:
    if fill not in FILLS:
        raise InputError(f"option fill must be {' or '.join(map(repr, FILLS))}, got {fill!r}.")
    images = numerics.lift(check.check_images(images))
    check.check_keys(keys, images.shape[0])
    if min(images.shape[1:3]) < 2:
        raise InputError(f"images must be at least 2 pixels high and wide, got {images.shape}.")
    return images


def _check_option(name: str, value: Any, *, largest: int) -> None:
    if not check.is_concrete(value):
        return
    number = check.as_number(value)
    if number is None or not 0 <= number <= largest:
        raise InputError(f"option {name} must be between 0 and {largest}, got {value!r}.")
