"""What chance decides: how draws are made, one key for each example, and how given ones are read."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from robustjax.core.check import InputError, is_concrete
from robustjax.core.registry import option_names
from robustjax.core.rng import stream
from robustjax.core.types import Keys

Draws = dict[str, Array]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_MANY = 1024  # values of an example, from which on a loop over the examples pays on CPUs


def normals(keys: Keys, shape: tuple[int, ...], index: int = 0) -> Float[Array, "b *shape"]:
    """Returns standard normals of `shape` for each key, from its stream number `index`: those of jax.random.normal."""
    return _each(_normal, jax.random.normal, keys, shape, index)


def uniforms(keys: Keys, shape: tuple[int, ...] = (), index: int = 0) -> Float[Array, "b *shape"]:
    """Returns uniforms in [0, 1) of `shape` for each key, from its stream number `index`: those of jax.random.uniform."""
    return _each(_uniform, jax.random.uniform, keys, shape, index)


def _each(sample: Callable, library: Callable, keys: Keys, shape: tuple[int, ...], index: int) -> Array:
    # float32 whatever the images are: the draw belongs to the key, not to the precision of the experiment.
    keys = stream(keys, index)
    if "threefry" not in str(jax.random.key_impl(keys)):
        return jax.vmap(lambda key: library(key, shape, jnp.float32))(keys)
    size = math.prod(shape)

    def draw(key):
        return sample(_threefry(key, size))

    def one_by_one(data):
        return jax.lax.map(draw, data)

    data = jax.random.key_data(keys)
    together = jax.vmap(draw)
    # XLA for CPUs takes the reshape to (h, w, 3) into the loop that draws, whose innermost 3 steps are no work for vectors: ten times
    # slower. It cannot where a loop over the examples stands between. The numbers are the same.
    flat = jax.lax.platform_dependent(data, cpu=one_by_one, default=together) if size >= _MANY else together(data)
    return flat.reshape(*keys.shape, *shape)


def _threefry(key: UInt32[Array, "2"], size: int) -> UInt32[Array, " size"]:
    """Returns random bits, those of jax.random.bits (with jax_threefry_partitionable, jax's default).

    On CPUs jax runs the rounds as a loop over the whole array, which costs ten times as much as one pass. Salmon et al., "Parallel
    Random Numbers: As Easy as 1, 2, 3", SC 2011: Threefry-2x32 with 20 rounds, of the counters (0, i).
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    left = jnp.full((size,), key[0])
    right = jax.lax.iota(jnp.uint32, size) + key[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            left = left + right
            right = left ^ ((right << jnp.uint32(distance)) | (right >> jnp.uint32(32 - distance)))
        left = left + schedule[(group + 1) % 3]
        right = right + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return left ^ right


def _uniform(bits: UInt32[Array, " n"]) -> Float[Array, " n"]:
    one_to_two = jax.lax.bitcast_convert_type((bits >> jnp.uint32(9)) | jnp.uint32(0x3F800000), jnp.float32)
    return one_to_two - 1


def _normal(bits: UInt32[Array, " n"]) -> Float[Array, " n"]:
    low = np.nextafter(np.float32(-1), np.float32(0))  # at -1 it would be infinite
    symmetric = jnp.maximum(_uniform(bits) * (1 - low) + low, low)
    return np.float32(np.sqrt(2)) * jax.lax.erf_inv(symmetric)


def whole_numbers(ranges: Callable) -> Callable:
    """Declares which draws of a function are whole numbers, for `check_draws`.

    Args:
        ranges: (draws, shape, *[, options]) -> {name: (lowest, highest[, step])}; bounds may be arrays. Names that are not among
            the draws are passed over.
    """

    def declare(draw: Callable) -> Callable:
        draw.ranges = ranges
        return draw

    return declare


def check_draws(draws: Mapping[str, Any], draw: Callable | None, shape: tuple[int, ...], options: Mapping[str, Any]) -> Draws:
    """Returns given draws as JAX arrays; where they are known, looks at their values. Shapes are for `take` to check.

    Args:
        draws: a user's.
        draw: the function whose draws they stand for.
        shape: of the images.
        options: of the corruption.

    Raises:
        InputError: for what is no array of numbers, and for NaN, infinite or out of range values.
    """
    arrays = {}
    for name, value in draws.items():
        try:
            with jax.debug_nans(False):  # NaN gets our own message
                arrays[name] = None if isinstance(value, str) else jnp.asarray(value)
        except (TypeError, ValueError, OverflowError):
            arrays[name] = None
        if arrays[name] is None or not jnp.issubdtype(arrays[name].dtype, jnp.number) or jnp.iscomplexobj(arrays[name]):
            got = type(value).__name__ if arrays[name] is None else arrays[name].dtype
            raise InputError(f"draws[{name!r}] must be an array of numbers, got {got}.")
    if is_concrete(draws):
        for name, value in draws.items():
            with jax.ensure_compile_time_eval(), jax.debug_nans(False):
                finite = bool(_all_finite(jnp.asarray(value)))
            if not finite:
                raise InputError(f"draws[{name!r}] hold NaN or infinite values; look at what made them.")
        if hasattr(draw, "ranges"):
            _check_ranges({name: np.asarray(value) for name, value in draws.items()}, draw.ranges, shape, options)
    return arrays


@jax.jit
def _all_finite(values: Array) -> Array:
    return jnp.isfinite(values).all()


def _check_ranges(draws: Mapping[str, np.ndarray], ranges: Callable, shape: tuple[int, ...], options: Mapping[str, Any]) -> None:
    given = {option: options[option] for option in option_names(ranges)}
    for name, (low, high, *step) in ranges(draws, shape, **given).items():
        if name in draws:
            values = draws[name].astype(np.float64)
            wrong = (values < low) | (values > high) | ((values - low) % (step or [1])[0] != 0)
            if wrong.any():
                low, high, value = (np.broadcast_to(part, wrong.shape)[wrong][0] for part in (low, high, values))
                steps = f" in steps of {step[0]}" if step else ""
                raise InputError(f"draws[{name!r}] must be whole numbers from {low:g} to {high:g}{steps}, got {value:g}.")


def take(draws: Draws, shapes: Mapping[str, tuple[int, ...]], dtype: Any) -> list[Array]:
    """Returns the named draws in their order; float ones in `dtype`, whole numbers as they are.

    Raises:
        InputError: for other names or shapes.
    """
    if set(draws) != set(shapes) or any(draws[name].shape != tuple(shape) for name, shape in shapes.items()):
        wanted = ", ".join(f"{name!r} {tuple(shape)}" for name, shape in shapes.items())
        got = ", ".join(f"{name!r} {tuple(value.shape)}" for name, value in draws.items())
        raise InputError(f"draws must hold {wanted}; got {got or 'none'}.")
    found = [draws[name] for name in shapes]
    return [value.astype(dtype) if jnp.issubdtype(value.dtype, jnp.floating) else value for value in found]
