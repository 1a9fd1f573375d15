"""Curvature of the loss over the image: how much its gradient changes along a direction, without second derivatives.

With H the Hessian of the loss in the pixels, ||H d||^2 is approximated by ||grad l(x + t d) - grad l(x)||^2 / t^2. Its mean over
d ~ N(0, I) is the sum of the squared eigenvalues of H.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robustjax.core import loops
from robustjax.core.check import InputError, as_number, check_images, check_keys, is_concrete
from robustjax.core.convolutions import widened
from robustjax.core.functions import as_partial, output_of
from robustjax.core.numerics import lift
from robustjax.core.rng import stream
from robustjax.core.types import ArrayLike, Keys, KeysLike, Scalar


class _Context(NamedTuple):
    """What all examples share; t is None where second derivatives are computed exactly."""

    loss: jax.tree_util.Partial
    t: Array | None
    std: Array


class _State(NamedTuple):
    """One row an example."""

    images: Array
    labels: Array
    along: Any  # the directions, or the keys that they are drawn with
    gradient: Array  # at the images
    total: Array  # of ||H d||^2 over directions


def directional_curvature(
    loss_fn: Callable,
    images: ArrayLike,
    labels: ArrayLike,
    direction: ArrayLike,
    *,
    t: Scalar | None = 1e-2,
    std: Scalar = 1.0,
) -> Float[Array, " b"]:
    """Measures how much the gradient of the loss changes along a direction: ||grad l(x + t d) - grad l(x)||^2 / t^2.

    Images are not clipped to [0, 1] at x + t d, as in the paper. The direction is not normalised: a direction twice as long gives
    about four times as much.

    Args:
        loss_fn: (images, labels) -> (b,), each example's loss depending on that example alone. A
            `jax.tree_util.Partial(fn, weights)` reuses the compiled program for new weights; a plain function of arrays is compiled
            once, anything that may change is compiled anew.
        images: (b, h, w, c) in [0, 1].
        labels: (b,) integers, or whatever `loss_fn` takes: arrays (b, ...).
        direction: (b, h, w, c), in units of [0, 1] pixels (of `std` pixels if given).
        t: length of the step, above 0; None for ||H d||^2 exactly, by a Hessian-vector product. Traced: sweeping compiles nothing.
        std: measures in images divided by it, as the official code does, whose networks take normalised images: 0.2 gives about
            CIFAR-10's numbers. Derivatives, directions and t are then in these units. 1 for [0, 1] pixels.

    Returns:
        (b,), at least 0.

    Raises:
        InputError: for bad images, labels or a direction of another shape, a t or std that is not positive, a loss that is not (b,).

    References:
        Discriminative loss and Gaussian noise injection, section 7.1, inside of Eq. 21.

    >>> x, d = jnp.full((1, 1, 2, 1), 0.5), jnp.array([[[[1.0], [2.0]]]])
    >>> directional_curvature(lambda x, y: 1.5 * jnp.sum(x**2, axis=(1, 2, 3)), x, jnp.array([0]), d, t=None)  # H = 3 I
    Array([45.], dtype=float32)
    """
    context, images, labels = _enter(loss_fn, images, labels, t, std)
    if jnp.shape(direction) != images.shape:
        raise InputError(f"direction must have the shape of the images, {images.shape}, got {jnp.shape(direction)}.")
    direction = jnp.asarray(direction).astype(images.dtype)
    return _run(context, images, labels, direction, 1)


def input_curvature(
    keys: KeysLike,
    loss_fn: Callable,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    t: Scalar | None = 1e-2,
    draws: int | np.integer = 20,
    std: Scalar = 1.0,
) -> Float[Array, " b"]:
    """Estimates the sum of the squared eigenvalues of the Hessian of the loss in the pixels.

    1/K sum_j ||grad l(x + t eps_j) - grad l(x)||^2 / t^2 with eps_j from N(0, I), not of unit length, drawn for each example.
    One example's estimate is off by tens of percent at K = 20 where one eigenvalue dominates; means over a data set are not.

    Args:
        keys: one typed key for each example (`core.example_keys`). More draws add to those of fewer.
        loss_fn: (images, labels) -> (b,), as for `directional_curvature`.
        images: (b, h, w, c) in [0, 1].
        labels: (b,) integers, or whatever `loss_fn` takes.
        t: length of the step, the paper's 1e-2 by default; None for exact second derivatives.
        draws: K, at least 1, the paper's 20 by default. Static.
        std: measures in images divided by it; see `directional_curvature`. The result grows with its fourth power.

    Returns:
        (b,), at least 0.

    Raises:
        InputError: for bad keys, images or labels, fewer than one draw, a t or std that is not positive, a loss that is not (b,).

    References:
        Discriminative loss and Gaussian noise injection, Eq. 21.

    >>> keys, x = jax.random.split(jax.random.key(0), 1), jnp.full((1, 8, 8, 1), 0.5)
    >>> curvature = input_curvature(keys, lambda x, y: jnp.sum(x**2, axis=(1, 2, 3)), x, jnp.array([0]), t=None, draws=100)
    >>> bool(abs(curvature[0] - 64 * 2**2) < 16)  # 64 eigenvalues of 2
    True
    """
    if not isinstance(draws, int | np.integer) or isinstance(draws, bool) or draws < 1:
        raise InputError(f"draws is the number of random directions an example, an integer >= 1, got {draws!r}.")
    context, images, labels = _enter(loss_fn, images, labels, t, std)
    return _run(context, images, labels, check_keys(keys, images.shape[0]), int(draws)) / draws


def loss_gradient(loss: jax.tree_util.Partial, images: Float[Array, "b h w c"], labels: Array) -> Float[Array, "b h w c"]:
    """Returns the gradient of each example's loss in its pixels."""
    return jax.grad(lambda x: jnp.sum(widened(loss, x, labels)))(images)


def check_loss_fn(loss_fn: Any, images: Array, labels: Any) -> tuple[jax.tree_util.Partial, Array, Any]:
    """Returns the loss as a pytree, the labels and the dtype of the loss, after checking that it is one float an example."""
    b = images.shape[0]
    labels = jnp.asarray(labels)
    if labels.shape[:1] != (b,):
        raise InputError(f"labels must have one row for each of {b} images, got shape {labels.shape}.")
    loss = as_partial(loss_fn)
    out = output_of(loss, images, labels)
    if getattr(out, "shape", None) != (b,) or not jnp.issubdtype(out.dtype, jnp.floating):
        what = f"{out.dtype} of shape {out.shape}" if hasattr(out, "shape") else type(out).__name__
        raise InputError(f"loss_fn must return one float for each of {b} images, got {what}; leave out the mean over examples.")
    return loss, labels, out.dtype


def _enter(loss_fn: Any, images: Any, labels: Any, t: Any, std: Any) -> tuple[_Context, Array, Array]:
    images = lift(check_images(images))
    loss, labels, _ = check_loss_fn(loss_fn, images, labels)
    for name, value in (("t", t), ("std", std)):
        if value is None and name == "t":
            continue
        if jnp.shape(value) != () or (is_concrete(value) and not 0 < (as_number(value) or 0) < np.inf):
            exact = "; None computes second derivatives" if name == "t" else ""
            raise InputError(f"{name} must be one finite number > 0, got {value!r}{exact}.")
    t = None if t is None else jnp.asarray(t).astype(images.dtype)
    return _Context(loss, t, jnp.asarray(std).astype(images.dtype)), images, labels


def _run(context: _Context, images: Array, labels: Array, along: Any, draws: int) -> Array:
    state = _State(images, labels, along, jnp.zeros_like(images), jnp.zeros_like(images[:, 0, 0, 0]))
    if context.t is not None:
        state = loops.repeat(_look, context, state, 1, config=None)
    return loops.repeat(_add, context, state, draws, config=None, chunk=1).total


def _look(context: _Context, i: Array, state: _State, config: None) -> _State:
    """Notes the gradient at the images, which all directions share."""
    del i, config
    return state._replace(gradient=loss_gradient(context.loss, state.images, state.labels))


def _add(context: _Context, i: Array, state: _State, config: None) -> _State:
    del config
    loss, t, std = context
    images, labels, along, gradient, total = state
    direction = _directions(along, i, images) if jax.dtypes.issubdtype(along.dtype, jax.dtypes.prng_key) else along
    direction = std * direction  # in pixels
    if t is None:
        change = jax.jvp(lambda x: loss_gradient(loss, x, labels), (images,), (direction,))[1]
    else:
        change = (loss_gradient(loss, images + t * direction, labels) - gradient) / t
    return state._replace(total=total + jnp.sum((std * change) ** 2, axis=(1, 2, 3)))


def _directions(keys: Keys, i: Array, images: Array) -> Array:
    return jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(stream(keys, i))
