"""Names of corruptions, and the three doors: `corrupt` is `apply` after `draw`."""

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from robustjax.core.check import InputError, check_images, check_keys
from robustjax.core.numerics import lift
from robustjax.core.registry import unknown
from robustjax.core.types import ArrayLike
from robustjax.corruptions import blur, digital, noise, weather
from robustjax.corruptions.constants import CONSTANTS, SIZES
from robustjax.corruptions.severity import check_severity, truncate

_SMALLEST = 16  # pixels; below it the constants mean nothing any more


class Corruption(NamedTuple):
    """One entry of the table.

    Attributes:
        apply: (images[, draws], *, constants, severity[, quantize]) -> images before truncation.
        draw: (keys, shape) -> draws; None where nothing is random, and then `apply` takes no draws.
        rounds: `apply` takes `quantize`, and then does its own rounding, to the end.
    """

    apply: Callable
    draw: Callable | None = None
    rounds: bool = False


TABLE: dict[str, Corruption] = {
    "gaussian_noise": Corruption(noise.gaussian_noise, noise.draw_gaussian_noise),
    "shot_noise": Corruption(noise.shot_noise, noise.draw_shot_noise),
    "impulse_noise": Corruption(noise.impulse_noise, noise.draw_impulse_noise),
    "defocus_blur": Corruption(blur.defocus_blur),
    "brightness": Corruption(weather.brightness),
    "contrast": Corruption(digital.contrast),
    "pixelate": Corruption(digital.pixelate, rounds=True),
}

NAMES: dict[str, tuple[str, ...]] = {benchmark: tuple(constants) for benchmark, constants in CONSTANTS.items()}
"""The corruptions of each benchmark, in the order of its paper."""


def corrupt(
    keys: Array | None,
    images: ArrayLike,
    *,
    name: str,
    severity: Any = None,
    benchmark: str = "cifar_c",
    quantize: bool = True,
    **options: Any,
) -> Float[Array, "b h w c"]:
    """Corrupts images as a benchmark does: `apply` after `draw`.

    One program is compiled for each name, benchmark and shape; all severities share it.

    Args:
        keys: one typed PRNG key for each image; None will do where nothing is random.
        images: float (b, h, w, c) in [0, 1], at least 16x16. A size nearer to that of another benchmark brings a warning,
            since constants are made for a size (a kernel in pixels means less in a larger image).
        name: one of NAMES[benchmark].
        severity: integer from 1 to 5, possibly traced; a traced one out of range is clipped.
        benchmark: whose constants: a key of NAMES.
        quantize: truncate to the levels k / 255, as the published files are; its derivative is 0. Without, floats before that,
            differentiable where the corruption is: see the functions in noise, blur, weather and digital.
        **options: none for the corruptions here.

    Returns:
        Images in [0, 1], in the dtype of `images` and at least float32.

    Raises:
        InputError: for an unknown name, benchmark or option, a severity out of range, or images or keys that cannot be used.

    >>> from robustjax import core
    >>> keys = core.example_keys(jax.random.key(0), jnp.arange(2))
    >>> images = jnp.full((2, 32, 32, 3), 0.5)
    >>> corrupt(keys, images, name="gaussian_noise", severity=3).shape
    (2, 32, 32, 3)
    """
    entry, severity = _entry(name, severity, benchmark, options)
    images = _check_size(images, benchmark)
    draws = _draws(entry, keys, images.shape, name)
    return _apply(images, draws, severity, name=name, benchmark=benchmark, quantize=quantize)


def draw(
    keys: Array | None, shape: tuple[int, ...], *, name: str, severity: Any = None, benchmark: str = "cifar_c", **options: Any
) -> dict[str, Array]:
    """Draws what a corruption needs to know of chance, for images of `shape`.

    The draws (float32) are those of the published code where it has any: unit normals, uniforms. shot_noise draws normals too,
    whose ranks decide the counts, since counts themselves depend on the image. Nothing here depends on the severity.

    Args:
        keys: one typed PRNG key for each image; None will do where nothing is random.
        shape: (b, h, w, c).
        name, severity, benchmark, **options: as in `corrupt`.

    Returns:
        Arrays with leading axis b, by name; empty where nothing is random.

    Raises:
        InputError: as in `corrupt`.
    """
    entry, _ = _entry(name, severity, benchmark, options)
    if len(shape) != 4 or min(shape) < 1:
        raise InputError(f"shape must be (b, h, w, c) of images, got {tuple(shape)}.")
    return _draws(entry, keys, tuple(shape), name)


def apply(
    images: ArrayLike,
    draws: Any,
    *,
    name: str,
    severity: Any = None,
    benchmark: str = "cifar_c",
    quantize: bool = True,
    **options: Any,
) -> Float[Array, "b h w c"]:
    """Corrupts images with given draws, from `draw` or recorded elsewhere. Deterministic.

    Args:
        images: as in `corrupt`.
        draws: what `draw` returns: {'normal'} for gaussian_noise and shot_noise, {'hit', 'salt'} for impulse_noise, each of the
            images' shape. shot_noise also takes {'counts'}, photon counts. Empty or None where nothing is random.
        name, severity, benchmark, quantize, **options: as in `corrupt`.

    Returns:
        Images in [0, 1], in the dtype of `images` and at least float32.

    Raises:
        InputError: as in `corrupt`, and for draws of other names or shapes.
    """
    entry, severity = _entry(name, severity, benchmark, options)
    images = _check_size(images, benchmark)
    if draws is not None and not isinstance(draws, Mapping):
        raise InputError(f"draws must be a dict of arrays by name, as `draw` returns, got {type(draws).__name__}.")
    if entry.draw is None and draws:
        raise InputError(f"{name!r} is not random: its draws must be empty or None, got {', '.join(map(repr, draws))}.")
    draws = {key: jnp.asarray(value) for key, value in (draws or {}).items()}
    return _apply(images, draws, severity, name=name, benchmark=benchmark, quantize=quantize)


def _entry(name: str, severity: Any, benchmark: str, options: Mapping) -> tuple[Corruption, Int[Array, ""]]:
    if benchmark not in NAMES:
        raise unknown("benchmark", benchmark, NAMES)
    if name not in NAMES[benchmark]:
        raise unknown(f"corruption of {benchmark}:", name, NAMES[benchmark])
    for option in options:
        raise unknown(f"option of the corruption {name!r}:", option, [])
    return TABLE[name], check_severity(severity, name=name)


def _check_size(images: ArrayLike, benchmark: str) -> Float[Array, "b h w c"]:
    """Returns the images in at least float32; refuses tiny ones, warns if another benchmark was made for a nearer size."""
    images = lift(check_images(images))
    h, w = images.shape[1:3]
    if min(h, w) < _SMALLEST:
        raise InputError(f"images must be at least {_SMALLEST}x{_SMALLEST} pixels to be corrupted, got {h}x{w}; enlarge them first.")
    nearest = min(SIZES, key=lambda other: (abs(math.log(math.sqrt(h * w) / SIZES[other])), other != benchmark))
    if nearest != benchmark:
        warnings.warn(
            f"the constants of {benchmark} were made for {SIZES[benchmark]}x{SIZES[benchmark]} pixels, these images have {h}x{w}: "
            f"{nearest} ({SIZES[nearest]}x{SIZES[nearest]}) is nearer.",
            stacklevel=3,  # the line that called corrupt or apply
        )
    return images


def _draws(entry: Corruption, keys: Array | None, shape: tuple[int, ...], name: str) -> dict[str, Array]:
    if keys is None and entry.draw is None:
        return {}
    keys = check_keys(keys, shape[0])
    return _draw(keys, name=name, shape=shape) if entry.draw else {}


@functools.partial(jax.jit, static_argnames=("name", "shape"))
def _draw(keys, *, name, shape):
    return TABLE[name].draw(keys, shape)


@functools.partial(jax.jit, static_argnames=("name", "benchmark", "quantize"))
def _apply(images, draws, severity, *, name, benchmark, quantize):
    entry = TABLE[name]
    # What the check takes for rounding, truncation would carry down to -1/255. jnp.clip would change the gradient at 0 and 1.
    images = jnp.where(images < 0, 0, jnp.where(images > 1, 1, images))
    inputs = (images, draws) if entry.draw else (images,)
    parameters = {"constants": CONSTANTS[benchmark][name], "severity": severity}
    if entry.rounds:
        return entry.apply(*inputs, **parameters, quantize=quantize)
    result = entry.apply(*inputs, **parameters)
    return truncate(result) if quantize else result
