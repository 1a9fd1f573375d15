"""Names of corruptions, and the three doors: `corrupt` is `apply` after `draw`."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from robustjax.core.check import InputError, check_images, check_keys
from robustjax.core.numerics import lift
from robustjax.core.registry import option_names, unknown
from robustjax.core.types import ArrayLike
from robustjax.corruptions import (
    blur,
    cbar_fields,
    cbar_masks,
    cbar_warps,
    digital,
    elastic,
    frost,
    mnist,
    motion,
    noise,
    sensor,
    spatter,
    weather,
)
from robustjax.corruptions.constants import CONSTANTS, EXTRA
from robustjax.corruptions.draws import check_draws
from robustjax.corruptions.severity import check_severity, truncate
from robustjax.corruptions.shapes import as_shape, check_shape, warn_of_size
from robustjax.imaging.color import luma

_OURS = ("constants", "severity", "quantize")  # what entries are given by us, not by users


class Corruption(NamedTuple):
    """One entry of the table. `apply` and `draw` are given those of our keywords that they name; their others are a user's options.

    Attributes:
        apply: (images[, draws], *[, constants, severity, quantize, options]) -> images before truncation. One that takes
            `quantize` does its own rounding, to the end.
        draw: (keys, shape, *[, constants, options]) -> draws; None where nothing is random, and then `apply` takes no draws.
        check: (shape, **options) -> options, called before anything is compiled; raises InputError.
        colour: needs three channels. A grey image becomes three equal ones, and the result is its luma.
        quantized: whether published files hold 8-bit levels; sensors' do not.
        static: options that are compiled in.
    """

    apply: Callable
    draw: Callable | None = None
    check: Callable | None = None
    colour: bool = False
    quantized: bool = True
    static: tuple[str, ...] = ()


def _frost(scale: float | int) -> Corruption:
    """Returns frost whose photographs are first made smaller by `scale`."""
    return Corruption(frost.frost, frost.draw_frost, functools.partial(frost.check_frost, scale=scale), colour=True)


_COMMON: dict[str, Corruption] = {
    "gaussian_noise": Corruption(noise.gaussian_noise, noise.draw_gaussian_noise),
    "shot_noise": Corruption(noise.shot_noise, noise.draw_shot_noise),
    "impulse_noise": Corruption(noise.impulse_noise, noise.draw_impulse_noise),
    "defocus_blur": Corruption(blur.defocus_blur),
    "glass_blur": Corruption(blur.glass_blur, blur.draw_glass_blur),
    "motion_blur": Corruption(motion.motion_blur, motion.draw_motion_blur),
    "zoom_blur": Corruption(blur.zoom_blur),
    "snow": Corruption(weather.snow, weather.draw_snow, colour=True),
    "fog": Corruption(weather.fog, weather.draw_fog),
    "brightness": Corruption(weather.brightness),
    "contrast": Corruption(digital.contrast),
    "elastic_transform": Corruption(
        elastic.elastic_transform, elastic.draw_elastic_transform, elastic.check_elastic_transform, static=("affine_grid",)
    ),
    "pixelate": Corruption(digital.pixelate),
    "jpeg_compression": Corruption(digital.jpeg_compression),
    "speckle_noise": Corruption(noise.speckle_noise, noise.draw_speckle_noise),
    "gaussian_blur": Corruption(blur.gaussian_blur),
    "spatter": Corruption(spatter.spatter, spatter.draw_spatter, colour=True),
    "saturate": Corruption(digital.saturate, colour=True),
}

_CBAR: dict[str, Corruption] = {
    "inverse_sparkles": Corruption(cbar_masks.inverse_sparkles, cbar_masks.draw_inverse_sparkles),
    "sparkles": Corruption(cbar_masks.sparkles, cbar_masks.draw_sparkles),
    "blue_noise_sample": Corruption(cbar_fields.blue_noise_sample, cbar_fields.draw_blue_noise_sample),
    "checkerboard_cutout": Corruption(cbar_masks.checkerboard_cutout, cbar_masks.draw_checkerboard_cutout),
    "brownish_noise": Corruption(cbar_fields.brownish_noise, cbar_fields.draw_brownish_noise),
}

TABLE: dict[str, dict[str, Corruption]] = {
    "cifar_c": _COMMON | {"frost": _frost(0.2)},
    "tiny_imagenet_c": _COMMON | {"frost": _frost(0.3)},
    "imagenet_c": _COMMON | {"frost": _frost(1)},
    "mnist_c": {
        "shot_noise": Corruption(noise.shot_noise, noise.draw_shot_noise),
        "impulse_noise": Corruption(noise.impulse_noise, noise.draw_impulse_noise),
        "glass_blur": Corruption(mnist.glass_blur, mnist.draw_glass_blur),
        "motion_blur": Corruption(motion.motion_blur, motion.draw_motion_blur),
        "shear": Corruption(mnist.shear, mnist.draw_sign),
        "scale": Corruption(mnist.scale),
        "rotate": Corruption(mnist.rotate, mnist.draw_sign),
        "brightness": Corruption(weather.brightness),
        "translate": Corruption(mnist.translate, mnist.draw_translate),
        "stripe": Corruption(mnist.stripe),
        "fog": Corruption(mnist.fog, mnist.draw_fog),
        "spatter": Corruption(spatter.grey_mud, mnist.draw_spatter),
        "dotted_line": Corruption(mnist.dotted_line, mnist.draw_dotted_line),
        "zigzag": Corruption(mnist.zigzag, mnist.draw_zigzag),
        "canny_edges": Corruption(mnist.canny_edges),
    },
    "cifar_cbar": _CBAR
    | {
        "pinch_and_twirl": Corruption(cbar_warps.pinch_and_twirl, cbar_warps.draw_pinch_and_twirl),
        "ripple": Corruption(cbar_warps.ripple, cbar_warps.draw_ripple),
        "circular_motion_blur": Corruption(cbar_warps.circular_motion_blur),
        "lines": Corruption(cbar_masks.lines, cbar_masks.draw_lines),
        "transverse_chromatic_abberation": Corruption(
            cbar_warps.transverse_chromatic_abberation, cbar_warps.draw_transverse_chromatic_abberation, colour=True
        ),
    },
    "imagenet_cbar": _CBAR
    | {
        "caustic_refraction": Corruption(cbar_warps.caustic_refraction, cbar_warps.draw_caustic_refraction),
        "perlin_noise": Corruption(cbar_fields.perlin_noise, cbar_fields.draw_perlin_noise),
        "plasma_noise": Corruption(cbar_fields.plasma_noise, cbar_fields.draw_plasma_noise, colour=True),
        "cocentric_sine_waves": Corruption(cbar_fields.cocentric_sine_waves, cbar_fields.draw_cocentric_sine_waves),
        "single_frequency_greyscale": Corruption(cbar_fields.single_frequency_greyscale, cbar_fields.draw_single_frequency_greyscale),
    },
    "sensor": {
        "noise": Corruption(sensor.noise, sensor.draw_noise, sensor.check_noise, quantized=False),
        "occlusion": Corruption(
            sensor.occlusion, sensor.draw_occlusion, sensor.check_occlusion, quantized=False, static=("patches", "size")
        ),
        "down_up": Corruption(sensor.down_up, check=sensor.check_down_up, quantized=False, static=("scale",)),
        "stripes": Corruption(sensor.stripes, sensor.draw_stripes, sensor.check_stripes, quantized=False, static=("stripes", "width")),
    },
}


def _names() -> dict[str, tuple[str, ...]]:
    names = {}
    for benchmark, table in TABLE.items():
        known = [name for name in CONSTANTS.get(benchmark, table) if name in table]
        extra = () if benchmark == "mnist_c" else EXTRA  # spatter is one of its 15
        names[benchmark] = tuple(name for name in known if name not in extra)
        if len(known) > len(names[benchmark]):
            names[f"{benchmark}_extra"] = tuple(name for name in known if name in extra)
    return names


NAMES: dict[str, tuple[str, ...]] = _names()
"""The corruptions of each benchmark, in the order of its paper. A benchmark's own functions also know those of its '_extra'."""


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
        images: float (b, h, w, c) in [0, 1], at least 16x16, with 1 or 3 channels. A size nearer to that of another benchmark
            brings a warning, since constants are made for a size (a kernel in pixels means less in a larger image).
        name: one of NAMES[benchmark], or of NAMES[benchmark + '_extra']. Those of 'sensor' may be chained: 'noise+occlusion'.
        severity: integer from 1 to 5, possibly traced; a traced one out of range is clipped. None for 'mnist_c' and 'sensor'.
        benchmark: whose constants: a key of NAMES.
        quantize: truncate to the levels k / 255, as the published files are; its derivative is 0. Without, floats before that,
            differentiable where the corruption is: see the function of that name. 'sensor' is never quantised.
        **options: of the corruption, see the function of that name: those of 'sensor', `frost_images` of frost, and
            `affine_grid` of elastic_transform.

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
    images = _check_images(images, benchmark)
    options = _checked(entry, images.shape, options)
    draws = _draws(entry, keys, images.shape, name, benchmark, options)
    return _applied(entry, images, draws, severity, name, benchmark, quantize, options)


def draw(
    keys: Array | None, shape: tuple[int, ...], *, name: str, severity: Any = None, benchmark: str = "cifar_c", **options: Any
) -> dict[str, Array]:
    """Draws what a corruption needs to know of chance, for images of `shape`.

    The draws are those of the published code where it has any: unit normals, uniforms, float32. shot_noise draws normals too,
    whose ranks decide the counts, since counts themselves depend on the image. Nothing here depends on the severity.

    Args:
        keys: one typed PRNG key for each image; None will do where nothing is random.
        shape: (b, h, w, c) of images that `apply` takes.
        name, severity, benchmark, **options: as in `corrupt`.

    Returns:
        Arrays with leading axis b, by name; empty where nothing is random. The function draw_<name> says what they are.

    Raises:
        InputError: as in `corrupt`.
    """
    entry, _ = _entry(name, severity, benchmark, options)
    shape = as_shape(shape)
    check_shape(shape, benchmark)
    options = _checked(entry, shape, options)
    return _draws(entry, keys, shape, name, benchmark, options)


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
        draws: what `draw` returns, e.g. {'normal': (b, h, w, c)} for gaussian_noise. Where the published code draws something
            else, `apply` takes that as well, and the docstring of the corruption's function says so: shot_noise takes
            {'counts'}, photon counts. Empty or None where nothing is random.
        name, severity, benchmark, quantize, **options: as in `corrupt`.

    Returns:
        Images in [0, 1], in the dtype of `images` and at least float32.

    Raises:
        InputError: as in `corrupt`, and for draws of other names or shapes, NaN, or whole numbers out of range.
    """
    entry, severity = _entry(name, severity, benchmark, options)
    images = _check_images(images, benchmark)
    if draws is not None and not isinstance(draws, Mapping):
        raise InputError(f"draws must be a dict of arrays by name, as `draw` returns, got {type(draws).__name__}.")
    if entry.draw is None and draws:
        raise InputError(f"{name!r} is not random: its draws must be empty or None, got {', '.join(map(repr, draws))}.")
    options = _checked(entry, images.shape, options)
    draws = check_draws(draws or {}, entry.draw, images.shape, options)
    return _applied(entry, images, draws, severity, name, benchmark, quantize, options)


def _find(name: str, benchmark: str) -> Corruption:
    table, parts = TABLE[benchmark.removesuffix("_extra")], _parts(name, benchmark)
    return table[name] if len(parts) == 1 else sensor.chain({part: table[part] for part in parts})


def _parts(name: str, benchmark: str) -> list[str]:
    return name.split("+") if benchmark == "sensor" else [name]


def _constants(name: str, benchmark: str) -> tuple:
    return CONSTANTS.get(benchmark.removesuffix("_extra"), {}).get(name, (None,))


def _entry(name: Any, severity: Any, benchmark: Any, options: Mapping) -> tuple[Corruption, Int[Array, ""]]:
    for what, given in (("name", name), ("benchmark", benchmark)):
        if not isinstance(given, str):
            raise InputError(f"{what} must be a string, got {given!r}.")
    if benchmark not in NAMES:
        raise unknown("benchmark", benchmark, NAMES)
    known = [*NAMES[benchmark], *NAMES.get(f"{benchmark}_extra", ())]
    parts = _parts(name, benchmark)
    for part in parts:
        if part not in known:
            raise unknown(f"corruption of {benchmark}:", part, known)
    if len(set(parts)) < len(parts):
        raise InputError(f"each corruption may be in a chain once, got {name!r}.")
    entry = _find(name, benchmark)
    known = [option for option in dict.fromkeys(_options_of(entry)) if option not in _OURS]
    for option in options:
        if option not in known:
            raise unknown(f"option of the corruption {name!r}:", option, known)
    return entry, check_severity(severity, name=name, severities=len(_constants(name, benchmark)))


def _options_of(entry: Corruption) -> list[str]:
    return option_names(entry.apply) + (option_names(entry.draw) if entry.draw else [])


def _checked(entry: Corruption, shape: tuple[int, ...], options: dict) -> dict:
    return entry.check(shape, **options) if entry.check else options


def _check_images(images: ArrayLike, benchmark: str) -> Float[Array, "b h w c"]:
    """Returns the images in at least float32; warns if another benchmark was made for a nearer size."""
    images = lift(check_images(images))
    check_shape(images.shape, benchmark)
    warn_of_size(images.shape, benchmark)
    return images


def _draws(entry: Corruption, keys: Array | None, shape: tuple[int, ...], name: str, benchmark: str, options: dict) -> dict[str, Array]:
    if keys is None and entry.draw is None:
        return {}
    keys = check_keys(keys, shape[0])
    if entry.draw is None:
        return {}
    dynamic, static = _split(entry, options)
    return _draw(keys, dynamic, name=name, benchmark=benchmark, shape=shape, static=static)


def _applied(entry, images, draws, severity, name, benchmark, quantize, options) -> Float[Array, "b h w c"]:
    dynamic, static = _split(entry, options)
    return _apply(images, draws, severity, dynamic, name=name, benchmark=benchmark, quantize=quantize, static=static)


def _split(entry: Corruption, options: dict) -> tuple[dict, tuple]:
    dynamic = {option: value for option, value in options.items() if option not in entry.static}
    return dynamic, tuple(sorted((option, value) for option, value in options.items() if option in entry.static))


def _taken(function: Callable, **values: Any) -> dict:
    return {name: value for name, value in values.items() if name in option_names(function)}


@functools.partial(jax.jit, static_argnames=("name", "benchmark", "shape", "static"))
def _draw(keys, dynamic, *, name, benchmark, shape, static):
    function = _find(name, benchmark).draw
    return function(keys, shape, **_taken(function, constants=_constants(name, benchmark), **dynamic, **dict(static)))


@functools.partial(jax.jit, static_argnames=("name", "benchmark", "quantize", "static"))
def _apply(images, draws, severity, dynamic, *, name, benchmark, quantize, static):
    entry = _find(name, benchmark)
    # What the check takes for rounding, truncation would carry down to -1/255. jnp.clip would change the gradient at 0 and 1.
    images = jnp.where(images < 0, 0, jnp.where(images > 1, 1, images))
    grey = entry.colour and images.shape[-1] == 1
    if grey:
        images = jnp.repeat(images, 3, axis=-1)
    constants = _constants(name, benchmark)
    parameters = _taken(entry.apply, constants=constants, severity=severity, quantize=quantize, **dynamic, **dict(static))
    result = entry.apply(*((images, draws) if entry.draw else (images,)), **parameters)
    if grey:
        result = luma(result)
    return truncate(result) if quantize and entry.quantized and (grey or "quantize" not in parameters) else result
