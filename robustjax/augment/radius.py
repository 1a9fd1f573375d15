"""How far images are moved: laws of the radius, one draw for each image, in L2 units of [0, 1] pixels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from robustjax.core import check, numerics
from robustjax.core.check import InputError
from robustjax.core.types import ArrayLike, KeysLike, Scalar

Radius = Float[Array, " b"]


def uniform_radius(keys: KeysLike, *, tau: Scalar) -> Radius:
    """Draws "r ~ Uniform(0, τ)" (SPIDER, Algorithm 2): as many perturbations of each size, small ones included.

    Args:
        keys: one PRNG key for each image.
        tau: largest radius, at least 0. May be traced: a schedule does not recompile.

    Returns:
        (b,) in [0, tau), in the dtype of `tau` but at least float32.

    Raises:
        InputError: for a tau that is negative or not finite, or keys that are not typed keys (b,).

    >>> bool((uniform_radius(jax.random.split(jax.random.key(0), 9), tau=2.0) < 2.0).all())
    True
    """
    check.check_keys(keys)
    check_size("tau", tau)
    tau = as_float(tau)
    return tau * jax.vmap(lambda key: jax.random.uniform(key, (), tau.dtype))(keys)


def ball_radius(keys: KeysLike, *, tau: Scalar, dimension: int) -> Radius:
    """Draws the norm of a point uniform in the ball of radius tau: r = τ u^(1/d), u ~ Uniform(0, 1).

    What SPIDER's section 3.1 argues against: "random L2 ball sampling approximates L2 sphere sampling, resulting in
    perturbations mostly at a fixed L2 distance". For d = 3072, 95 of 100 lie beyond 0.999 tau.

    Args:
        keys: one PRNG key for each image.
        tau: radius of the ball, at least 0; may be traced.
        dimension: number of pixels times channels of one image.

    Returns:
        (b,) in [0, tau], in the dtype of `tau` but at least float32.

    Raises:
        InputError: for a tau that is negative or not finite, or keys that are not typed keys (b,).
    """
    check.check_keys(keys)
    check_size("tau", tau)
    tau = as_float(tau)
    return tau * jax.vmap(lambda key: jax.random.uniform(key, (), tau.dtype))(keys) ** (1 / dimension)


def truncated_normal_radius(keys: KeysLike, *, mean: Scalar, stddev: Scalar, low: Scalar, high: Scalar) -> Radius:
    """Draws from a Gaussian cut to [low, high]: "N_trunc" of ESP's Algorithm 1 (which lists the upper bound first).

    The Gaussian is cut, not clipped: no mass gathers at the bounds. `mean` and `stddev` are those of the uncut one. In
    float32 the draws are good where [low, high] comes within about 4 stddev of the mean; further out the tail is too thin.

    Args:
        keys: one PRNG key for each image.
        mean: centre of the uncut Gaussian.
        stddev: its standard deviation, at least 0; at 0 every draw is the mean, brought into [low, high].
        low: smallest draw, at least 0: a negative radius would turn the direction round.
        high: largest draw, at least `low`. All four may be traced.

    Returns:
        (b,) in [low, high], in the common dtype of the bounds but at least float32.

    Raises:
        InputError: for a negative `low` or `stddev`, `low` above `high`, or keys that are not typed keys (b,).

    >>> [float(r) for r in truncated_normal_radius(jax.random.split(jax.random.key(0), 2), mean=2.0, stddev=0.0, low=1.0, high=3.0)]
    [2.0, 2.0]
    """
    check.check_keys(keys)
    check_size("stddev", stddev)
    check_size("low", low)
    known_number("mean", mean)
    least, largest = known_number("low", low), known_number("high", high)
    if None not in (least, largest) and not least <= largest:
        raise InputError(f"low must not exceed high, got low {low} and high {high}.")
    mean, stddev, low, high = map(as_float, (mean, stddev, low, high))
    dtype = jnp.result_type(mean, stddev, low, high)
    mean, stddev, low, high = (x.astype(dtype) for x in (mean, stddev, low, high))
    spread = jnp.where(stddev > 0, stddev, 1)
    bounds = (low - mean) / spread, (high - mean) / spread
    unit = jax.vmap(lambda key: jax.random.truncated_normal(key, *bounds, (), dtype))(keys)
    return jnp.clip(jnp.where(stddev > 0, mean + spread * unit, mean), low, high)


def check_size(name: str, value: Scalar) -> None:
    """Raises InputError where a size is known and not one: negative, infinite, NaN or no number."""
    number = known_number(name, value)
    if number is not None and not 0 <= number < float("inf"):
        raise InputError(f"{name} is a size in units of [0, 1] pixels and must be finite and >= 0, got {value}.")


def known_number(name: str, value: Scalar) -> float | None:
    """Returns an option as a number of Python; None where it is traced.

    Raises:
        InputError: for what is no real number: None, a text, an array with axes.
    """
    # As a Python number: a constant of jax compared inside a traced function would be a tracer.
    if not check.is_concrete(value):
        return None
    number = check.as_number(value)
    if number is None:
        raise InputError(f"{name} must be a number, got {value!r}.")
    return number


def as_float(value: Scalar | ArrayLike) -> Float[Array, "..."]:
    """Returns a number or an array as an array of floats, in its own dtype but at least float32; whole numbers become the default float."""
    value = numerics.lift(value)
    # Also for a float that is there already: the numbers of Python are only weakly of their dtype.
    return value.astype(value.dtype if jnp.issubdtype(value.dtype, jnp.floating) else jnp.asarray(0.0).dtype)
