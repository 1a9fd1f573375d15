"""The ball of each norm: points drawn from it, the step of steepest ascent in it, and the way back into it and the box.

All sizes are per image, over all of its pixels and channels, in units of [0, 1] pixels.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from robustjax.core.numerics import image_norm
from robustjax.core.types import Keys, Norm, Scalar

TINY = 1e-12  # foolbox's guard: a gradient shorter than this makes a shorter step, and a zero one none


def _per_image(values: Float[Array, " b"]) -> Float[Array, "b 1 1 1"]:
    return values[:, None, None, None]


def unit_step(gradient: Float[Array, "b h w c"], *, norm: Norm) -> Float[Array, "b h w c"]:
    """Returns the step that an attack takes along a gradient, before its step size.

    'linf': the sign, 0 where the gradient is 0. 'l2' and 'l1': gradient / max(||gradient||, 1e-12). For 'l1' this is not the
    steepest ascent, which moves one pixel only and stalls at the box.

    Args:
        gradient: one per image, of the sum of the losses (the mean would make steps depend on the batch where the guard binds).
        norm: of the threat model.

    Returns:
        Steps of size 1 in that norm, or less where the gradient is nearly zero.
    """
    if norm == "linf":
        return jnp.sign(gradient)
    return gradient / _per_image(jnp.maximum(image_norm(gradient, norm), TINY))


def to_ball(delta: Float[Array, "b h w c"], eps: Scalar, *, norm: Norm) -> Float[Array, "b h w c"]:
    """Projects perturbations onto the ball of radius `eps`: the nearest point in the Euclidean sense.

    For 'l1' the soft threshold of Duchi et al., ICML 2008, Figure 1.

    >>> to_ball(jnp.array([[[[3.0, 4.0]]]]), 1.0, norm="l2").ravel()
    Array([0.6, 0.8], dtype=float32)
    >>> to_ball(jnp.array([[[[0.5, -2.0]]]]), 1.0, norm="l1").ravel()
    Array([ 0., -1.], dtype=float32)
    """
    eps = jnp.asarray(eps, delta.dtype)
    if norm == "linf":
        return jnp.clip(delta, -eps, eps)
    if norm == "l2":
        return delta * _per_image(jnp.minimum(1, eps / jnp.maximum(image_norm(delta), TINY)))
    return jnp.sign(delta) * _shrink(jnp.abs(delta), jnp.full_like(delta, jnp.inf), eps)


def l1_ball_and_box(
    delta: Float[Array, "b h w c"], images: Float[Array, "b h w c"], eps: Scalar | Float[Array, "b 1"]
) -> Float[Array, "b h w c"]:
    """Projects perturbations onto what the L1 ball and the box have in common: the nearest point of it in the Euclidean sense.

    The point sign(delta_i) min(max(|delta_i| - lambda, 0), u_i), where u_i is the way to the box in that direction and lambda the
    least number >= 0 that brings its L1 norm to `eps`: Croce and Hein, ICML 2021, Proposition 2.1. The official
    L1_projection(x, y, eps) returns how far that is from y: l1_ball_and_box(y, x, eps) - y.

    lambda is found by Newton and secant steps kept in a bracket, not by sorting the 2 h w c places where its equation bends: the same number
    to rounding, many times sooner. Not differentiable.

    Args:
        delta: perturbations; images + delta may lie outside of the box.
        images: (b, h, w, c) in [0, 1].
        eps: radius, or one for each image.

    Returns:
        The projected perturbations, of norm at most eps to rounding; added to the images they may leave [0, 1] by rounding.

    >>> l1_ball_and_box(jnp.array([[[[1.0, -1.0]]]]), jnp.array([[[[0.75, 0.75]]]]), 0.75).ravel()
    Array([ 0.25, -0.5 ], dtype=float32)
    """
    room = jnp.where(delta > 0, 1 - images, images)
    return jnp.sign(delta) * _shrink(jnp.abs(delta), jnp.maximum(room, 0), jnp.asarray(eps, delta.dtype))


class _Search(NamedTuple):
    """The search for lambda, one row an image."""

    count: Array  # () of steps
    at: Float[Array, "b 1"]
    low: Float[Array, "b 1"]  # the sum is above eps here, unless `found`
    high: Float[Array, "b 1"]  # and at most eps here
    over_low: Float[Array, "b 1"]  # by how much
    over_high: Float[Array, "b 1"]
    last: Float[Array, "b 1"]  # how far the sum was from eps one step ago
    slow: Int[Array, "b 1"]  # steps in a row that did not halve this
    found: Bool[Array, "b 1"]


def _shrink(size: Float[Array, "b h w c"], room: Float[Array, "b h w c"], eps: Array) -> Float[Array, "b h w c"]:
    """Returns min(max(size - lambda, 0), room) with the least lambda >= 0 such that each image's values sum to at most `eps`."""
    shape = size.shape
    size, room = jax.lax.stop_gradient((size.reshape(shape[0], -1), room.reshape(shape[0], -1)))
    rounding = jnp.finfo(size.dtype).eps

    def shrunk(at):
        return jnp.minimum(jnp.maximum(size - at, 0), room)

    def step(s: _Search) -> _Search:
        over = jnp.sum(shrunk(s.at), axis=1, keepdims=True) - eps
        slope = jnp.sum((size > s.at) & (size - room < s.at), axis=1, keepdims=True).astype(size.dtype)
        low, over_low = jnp.where(over > 0, s.at, s.low), jnp.where(over > 0, over, s.over_low)
        high, over_high = jnp.where(over > 0, s.high, s.at), jnp.where(over > 0, s.over_high, over)
        newton = s.at + over / jnp.maximum(slope, 1)
        # Where Newton creeps, from bend to bend or back and forth, the secant of the bracket helps once and halving it always.
        slow = jnp.where((low < newton) & (newton < high) & (jnp.abs(over) <= s.last / 2), 0, s.slow + 1)
        secant = low + (high - low) * (over_low / jnp.maximum(over_low - over_high, jnp.finfo(size.dtype).tiny))
        secant = jnp.where((low < secant) & (secant < high), secant, (low + high) / 2)
        at = jnp.where(slow == 0, newton, jnp.where(slow % 3 == 1, secant, (low + high) / 2))
        hit, narrow = jnp.abs(over) <= 8 * rounding * eps, high - low <= rounding * high
        at = jnp.where(hit, s.at, jnp.where(narrow, high, at))
        new = _Search(s.count + 1, at, low, high, over_low, over_high, jnp.abs(over), slow, s.found | hit | narrow)
        # An image that is done stays as it is: what it gets must not depend on the others.
        return _Search(new.count, *(jnp.where(s.found, a, b) for a, b in zip(s[1:], new[1:], strict=True)))

    zero = jnp.zeros_like(size[:, :1])
    start = jnp.sum(shrunk(zero), axis=1, keepdims=True) - eps
    # NaN would never be found: such an image stays NaN.
    done = (start <= 0) | jnp.isnan(size).any(1, keepdims=True)
    top = jnp.max(size, axis=1, keepdims=True)
    far, nothing = jnp.full_like(zero, jnp.inf), jnp.zeros_like(zero, jnp.int32)
    begun = _Search(jnp.int32(0), zero, zero, top, start, zero - eps, far, nothing, done)
    found = jax.lax.while_loop(lambda s: (s.count < 200) & ~s.found.all(), step, begun)
    return shrunk(jnp.where(found.found, found.at, found.high)).reshape(shape)


def to_ball_and_box(
    points: Float[Array, "b h w c"], images: Float[Array, "b h w c"], eps: Scalar, *, norm: Norm
) -> Float[Array, "b h w c"]:
    """Returns points within `eps` of the images and in [0, 1]: projected onto the ball, then clipped to the box.

    Clipping moves pixels towards the image, so the result stays in the ball. For 'linf' it is the nearest such point; for 'l2'
    and 'l1' it need not be, but it is what the reference implementations (foolbox, torchattacks) do.
    """
    return jnp.clip(images + to_ball(points - images, eps, norm=norm), 0, 1)


def to_box_and_ball(
    points: Float[Array, "b h w c"], images: Float[Array, "b h w c"], eps: Scalar, *, norm: Norm
) -> Float[Array, "b h w c"]:
    """Returns points in [0, 1] and within `eps` of the images: clipped to the box, then brought into the ball.

    The order of TRADES's released code; its L2 ball is torch.renorm's, whose guard of 1e-7 ends that much inside of the radius.
    """
    delta = jnp.clip(points, 0, 1) - images
    if norm == "l2":
        size = image_norm(delta)
        delta = delta * _per_image(jnp.where(size > eps, jnp.asarray(eps, delta.dtype) / (size + 1e-7), 1))
    else:
        delta = to_ball(delta, eps, norm=norm)
    return jnp.clip(images + delta, 0, 1)


def random_in_ball(keys: Keys, images: Float[Array, "b h w c"], eps: Scalar, *, norm: Norm) -> Float[Array, "b h w c"]:
    """Draws perturbations uniformly in the ball (by volume) of radius `eps`; the box is not looked at.

    For 'l2' and 'l1': a Gaussian or Laplacian direction and the radius eps u^(1/d), u ~ U(0, 1). So most of the mass lies near
    the surface, as in foolbox; torchattacks draws the L2 radius from U(0, eps) instead.

    Args:
        keys: one per example.
        images: read for shape and dtype only.
        eps: radius.
        norm: of the threat model.

    Returns:
        Perturbations like `images`.
    """
    eps = jnp.asarray(eps, images.dtype)
    if norm == "linf":
        draw = functools.partial(jax.random.uniform, shape=images.shape[1:], dtype=images.dtype, minval=-1, maxval=1)
        return eps * jax.vmap(draw)(keys)
    law = jax.random.normal if norm == "l2" else jax.random.laplace

    def draw(key):
        direction_key, radius_key = jax.random.split(key)
        return law(direction_key, images.shape[1:], images.dtype), jax.random.uniform(radius_key, (), images.dtype)

    direction, u = jax.vmap(draw)(keys)
    radius = eps * u ** (1 / math.prod(images.shape[1:]))
    return direction * _per_image(radius / jnp.maximum(image_norm(direction, norm), TINY))
