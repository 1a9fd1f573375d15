"""What goes wrong in a camera: noise, covered patches, lost resolution, dead stripes; alone or one after the other.

Nguyen et al., "Training More Robust Classification Model via Discriminative Loss and Gaussian Noise Injection", TMLR 2025,
section 7: their sizes, for images of 400 x 500 pixels, are the defaults here. Strengths are a user's to choose, there are no
severities, and nothing is cut to 8 bits.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Real

from robustjax.core.check import InputError, as_number, is_concrete
from robustjax.core.registry import option_names, unknown
from robustjax.core.types import Keys
from robustjax.corruptions.draws import Draws, normals, take, uniforms, whole_numbers

Images = Float[Array, "b h w c"]
Number = float | Real[Array, ""]

_MADE_FOR = (400, 500)  # height and width of the paper's images
_NOISE, _ROWS, _COLUMNS, _STRIPES = range(4)  # streams of randomness: a part of a chain draws what it would draw alone


def check_noise(shape: tuple[int, ...], *, std: Any = None, amplitude: Any = None) -> dict:
    """Returns the strength as an array; refuses anything but one, a number that is not negative."""
    options = {name: value for name, value in (("std", std), ("amplitude", amplitude)) if value is not None}
    if len(options) != 1:
        given = " and ".join(options) or "neither"
        raise InputError(f"noise takes either std= (Gaussian) or amplitude= (uniform), e.g. std=0.1, got {given}.")
    ((name, value),) = options.items()
    number = as_number(value) if is_concrete(value) else 0.0
    if number is None or jnp.ndim(value) or not 0 <= number < math.inf:
        raise InputError(f"{name} of noise must be a number, at least 0, in units of pixels in [0, 1], got {value!r}.")
    # Of one type, whether a float, an integer or one of NumPy's: each would be compiled for itself.
    return {name: jnp.asarray(number, float)} if is_concrete(value) else options


def draw_noise(keys: Keys, shape: tuple[int, ...], *, std: Number | None = None, amplitude: Number | None = None) -> Draws:
    """Returns {'normal': standard normals (b, h, w, c)} if there is a `std`, else {'uniform': uniforms in [0, 1)}."""
    if std is not None:
        return {"normal": normals(keys, shape[1:], _NOISE)}
    return {"uniform": uniforms(keys, shape[1:], _NOISE)}


def noise(images: Images, draws: Draws, *, std: Number | None = None, amplitude: Number | None = None) -> Images:
    """clip(x + std n, 0, 1) with n ~ N(0, 1), or clip(x + a (2 u - 1), 0, 1) with u ~ U(0, 1), for each value.

    Clipped as in the released code. The gradient is 1 where nothing is clipped; the strength may be traced.

    Args:
        images: in [0, 1].
        draws: {'normal': n} or {'uniform': u}.
        std: standard deviation of Gaussian noise, in units of pixels in [0, 1].
        amplitude: a, of uniform noise in [-a, a); exactly one of the two.
    """
    if std is not None:
        (normal,) = take(draws, {"normal": images.shape}, images.dtype)
        added = jnp.asarray(std, images.dtype) * normal
    else:
        (uniform,) = take(draws, {"uniform": images.shape}, images.dtype)
        added = jnp.asarray(amplitude, images.dtype) * (2 * uniform - 1)
    return jnp.clip(images + added, 0, 1)


def check_occlusion(shape: tuple[int, ...], *, patches: Any = 20, size: Any = (70, 70)) -> dict:
    """Returns the options with `size` as (height, width); refuses patches that are larger than the image."""
    height, width = size if isinstance(size, tuple | list) and len(size) == 2 else (size, size)
    found = {"patches": _whole("patches", patches), "size": (_whole("size", height), _whole("size", width))}
    if found["size"][0] > shape[1] or found["size"][1] > shape[2]:
        raise InputError(
            f"patches of {height}x{width} pixels are larger than the images, {shape[1]}x{shape[2]}; in proportion to the paper's "
            f"70x70 at 400x500 would be size={_in_proportion((70, 70), shape)}."
        )
    return found


def _first_places(draws: Mapping[str, Any], shape: tuple[int, ...]) -> dict:
    """Returns the ranges of those draws that are places, not uniforms; what begins inside the image may end outside."""
    sides = {"patch_rows": shape[1], "patch_columns": shape[2], "stripe_columns": shape[2]}
    return {name: (0, sides[name] - 1) for name, draw in draws.items() if name in sides and jnp.issubdtype(draw.dtype, jnp.integer)}


@whole_numbers(_first_places)
def draw_occlusion(keys: Keys, shape: tuple[int, ...], *, patches: int) -> Draws:
    """Returns {'patch_rows', 'patch_columns'}, uniforms (b, patches) in [0, 1)."""
    return {"patch_rows": uniforms(keys, (patches,), _ROWS), "patch_columns": uniforms(keys, (patches,), _COLUMNS)}


def occlusion(images: Images, draws: Draws, *, patches: int, size: tuple[int, int]) -> Images:
    """Sets rectangles to 0, which lie anywhere inside the image and may overlap. The gradient is 1 outside of them.

    Args:
        images: in [0, 1].
        draws: {'patch_rows': u, 'patch_columns': v} (b, patches): the upper row is floor(u (h + 1 - height)), the left column
            likewise. Integers are taken for rows and columns themselves, inside the image.
        patches: how many; 20 by default.
        size: their (height, width) in pixels, or one number for both; 70 by default.
    """
    (b, h, w, _), (height, width) = images.shape, size
    rows, columns = take(draws, {"patch_rows": (b, patches), "patch_columns": (b, patches)}, jnp.float32)
    # Products of 0 and 1 are exact in any precision, and a sum of them is above 0 wherever one patch covers.
    rows, columns = _covered(rows, height, h).astype(jnp.float32), _covered(columns, width, w).astype(jnp.float32)
    return _black(images, jnp.einsum("bph,bpw->bhw", rows, columns) > 0)


def check_stripes(shape: tuple[int, ...], *, stripes: Any = 10, width: Any = 6) -> dict:
    """Refuses stripes that are wider than the image."""
    found = {"stripes": _whole("stripes", stripes), "width": _whole("width", width)}
    if width > shape[2]:
        raise InputError(
            f"stripes of width {width} are wider than the images, {shape[1]}x{shape[2]}; in proportion to the paper's 6 of 500 "
            f"pixels would be width={_in_proportion((6, 6), shape)[1]}."
        )
    return found


@whole_numbers(_first_places)
def draw_stripes(keys: Keys, shape: tuple[int, ...], *, stripes: int) -> Draws:
    """Returns {'stripe_columns': uniforms (b, stripes) in [0, 1)}."""
    return {"stripe_columns": uniforms(keys, (stripes,), _STRIPES)}


def stripes(images: Images, draws: Draws, *, stripes: int, width: int) -> Images:
    """Sets vertical stripes to 0, which lie anywhere inside the image and may overlap. The gradient is 1 outside of them.

    Args:
        images: in [0, 1].
        draws: {'stripe_columns': u} (b, stripes): the left column is floor(u (w + 1 - width)). Integers are columns.
        stripes: how many; 10 by default.
        width: of each, in pixels; 6 by default.
    """
    b, _, w, _ = images.shape
    (columns,) = take(draws, {"stripe_columns": (b, stripes)}, jnp.float32)
    return _black(images, jnp.any(_covered(columns, width, w), axis=1)[:, None, :])


def check_down_up(shape: tuple[int, ...], *, scale: Any = 1 / 3) -> dict:
    """Refuses factors that leave no pixel, or that enlarge."""
    number = as_number(scale) if is_concrete(scale) else None
    if number is None or not 0 < number <= 1 or min(_fewer(shape[1], number), _fewer(shape[2], number)) < 1:
        raise InputError(f"scale of down_up must be a number in (0, 1] that leaves {shape[1]}x{shape[2]} images a pixel, got {scale!r}.")
    return {"scale": number}


def down_up(images: Images, *, scale: float) -> Images:
    """Resizes to floor(scale h) x floor(scale w) pixels and back. Linear in the image.

    The paper does not say how it interpolates: this is the bilinear resizing of Pillow and torchvision, which going down
    averages over each new pixel's neighbourhood.

    Args:
        images: in [0, 1].
        scale: of both sides, in (0, 1]; 1/3 by default.
    """
    b, h, w, channels = images.shape
    small = jax.image.resize(images, (b, _fewer(h, scale), _fewer(w, scale), channels), "linear", antialias=True)
    return jnp.clip(jax.image.resize(small, images.shape, "linear"), 0, 1)


DRAWS = {"noise": ("normal", "uniform"), "occlusion": ("patch_rows", "patch_columns"), "stripes": ("stripe_columns",)}
"""The names of the draws of each."""


def chain(parts: Mapping[str, Any]) -> Any:
    """Returns the entry that applies others one after the other, in their order.

    Each is given those options that it knows; the draws are merged, as their names differ.

    Args:
        parts: entries of the registry by name.
    """
    known = [key for name in parts for key in DRAWS.get(name, ())]

    def check(shape: tuple[int, ...], **given: Any) -> dict:
        return {option: value for part in parts.values() for option, value in _of(part.check, given)(shape).items()}

    @whole_numbers(_first_places)
    def draw(keys: Keys, shape: tuple[int, ...], **given: Any) -> Draws:
        return {key: value for part in parts.values() if part.draw for key, value in _of(part.draw, given)(keys, shape).items()}

    def apply(images: Images, draws: Draws, **given: Any) -> Images:
        for key in draws:
            if key not in known:
                raise unknown("draw", key, known)
        for name, part in parts.items():
            own = ({key: draws[key] for key in DRAWS[name] if key in draws},) if part.draw else ()
            images = _of(part.apply, given)(images, *own)
        return images

    # What the registry reads to know the options.
    options = dict.fromkeys(option for part in parts.values() for option in option_names(part.check))
    signature = inspect.Signature([inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY) for option in options])
    apply.__signature__ = draw.__signature__ = signature
    static = tuple(option for part in parts.values() for option in part.static)
    return next(iter(parts.values()))._replace(apply=apply, draw=draw, check=check, static=static)


def _of(function: Callable, given: dict) -> Callable:
    """Binds those of the given options that the function knows."""
    return functools.partial(function, **{option: value for option, value in given.items() if option in option_names(function)})


def _whole(name: str, value: Any) -> int:
    number = as_number(value) if is_concrete(value) else None
    if number is None or not math.isfinite(number) or number != int(number) or number < 1:
        raise InputError(f"{name} must be a whole number, at least 1, got {value!r}.")
    return int(number)


def _in_proportion(size: tuple[int, int], shape: tuple[int, ...]) -> tuple[int, int]:
    height, width = (max(1, round(s * side / made)) for s, side, made in zip(size, shape[1:3], _MADE_FOR, strict=True))
    return height, width


def _fewer(size: int, scale: float) -> int:
    return math.floor(size * scale + 1e-6)  # 3 n pixels times the float nearest to 1/3 are n


def _covered(starts: Real[Array, "b n"], length: int, side: int) -> Bool[Array, "b n side"]:
    """Returns which places along one side each of n pieces covers; `starts` are uniforms, or the first places themselves."""
    if jnp.issubdtype(starts.dtype, jnp.floating):
        starts = jnp.minimum(jnp.floor(starts * (side - length + 1)).astype(jnp.int32), side - length)
    offset = jnp.arange(side, dtype=jnp.int32)[None, None] - starts.astype(jnp.int32)[:, :, None]
    return (offset >= 0) & (offset < length)


def _black(images: Images, mask: Bool[Array, "b h2 w"]) -> Images:
    return jnp.where(mask[..., None], 0, images)
