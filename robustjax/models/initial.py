"""Initial parameters, by the laws of the networks' released torch code.

Values are drawn in chunks of one size and cut to shape. jax compiles a sampler anew for every shape, which is most of what
making a network costs the first time: ResNet-18 took 5 s that way where it takes 0.7 s this way (two CPU cores).
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from robustjax.core.types import Scalar

CHUNK = 1 << 16


@functools.partial(jax.jit, static_argnames="sample")
def _chunk(key: Array, scale: Scalar, *, sample: Callable) -> Array:
    return scale * sample(key, (CHUNK,), jnp.float32)


@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def _cut(chunks: list[Array], *, shape: tuple[int, ...], dtype) -> Array:
    return jnp.concatenate(chunks)[: math.prod(shape)].reshape(shape).astype(dtype)


def _draw(key: Array, scale: float, sample: Callable, shape: tuple[int, ...], dtype) -> Array:
    count = -(-math.prod(shape) // CHUNK)
    chunks = [_chunk(jax.random.fold_in(key, i), scale, sample=sample) for i in range(count)]
    return _cut(chunks, shape=tuple(shape), dtype=jnp.dtype(dtype))


def _symmetric(key: Array, shape: tuple[int, ...], dtype) -> Array:
    return jax.random.uniform(key, shape, dtype, -1.0, 1.0)


def _fan_in(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-1])


def _fan_out(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-2]) * shape[-1]


def he_fan_out(key: Array, shape: tuple[int, ...], dtype=jnp.float32, *_) -> Array:
    """N(0, 2 / (k k outputs)) for a kernel (k, k, inputs, outputs): torch's kaiming_normal_(mode='fan_out'), used by ResNet and WRN."""
    return _draw(key, (2 / _fan_out(shape)) ** 0.5, jax.random.normal, shape, dtype)


def he_fan_in(key: Array, shape: tuple[int, ...], dtype=jnp.float32, *_) -> Array:
    """N(0, 2 / (k k inputs)): torch's kaiming_normal_()."""
    return _draw(key, (2 / _fan_in(shape)) ** 0.5, jax.random.normal, shape, dtype)


def torch_default(key: Array, shape: tuple[int, ...], dtype=jnp.float32, *_) -> Array:
    """U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)): the kernels of torch's nn.Linear and nn.Conv2d."""
    return _draw(key, _fan_in(shape) ** -0.5, _symmetric, shape, dtype)


def uniform(bound: float) -> Callable:
    """Returns an initialiser U(-bound, bound): biases of torch's nn.Linear have bound 1 / sqrt(inputs)."""

    def init(key: Array, shape: tuple[int, ...], dtype=jnp.float32, *_) -> Array:
        return _draw(key, bound, _symmetric, shape, dtype)

    return init
