"""The ball of each norm: points drawn from it, the step of steepest ascent in it, and the way back into it and the box.

All sizes are per image, over all of its pixels and channels, in units of [0, 1] pixels.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

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
    size = jnp.abs(delta).reshape(delta.shape[0], -1)
    falling = -jnp.sort(-size, axis=1)
    # The threshold theta solves sum max(size - theta, 0) = eps, over the k largest of the sizes.
    sums = jnp.cumsum(falling, axis=1)
    rank = jnp.arange(1, size.shape[1] + 1, dtype=size.dtype)[None, :]
    k = jnp.maximum(jnp.sum(falling * rank > sums - eps, axis=1, keepdims=True), 1)
    theta = (jnp.take_along_axis(sums, k - 1, axis=1) - eps) / k.astype(size.dtype)
    return jnp.sign(delta) * jnp.maximum(jnp.abs(delta) - _per_image(jnp.maximum(theta[:, 0], 0)), 0)


def to_ball_and_box(
    points: Float[Array, "b h w c"], images: Float[Array, "b h w c"], eps: Scalar, *, norm: Norm
) -> Float[Array, "b h w c"]:
    """Returns points within `eps` of the images and in [0, 1]: projected onto the ball, then clipped to the box.

    Clipping moves pixels towards the image, so the result stays in the ball. For 'linf' it is the nearest such point; for 'l2'
    and 'l1' it need not be, but it is what the reference implementations (foolbox, torchattacks) do.
    """
    return jnp.clip(images + to_ball(points - images, eps, norm=norm), 0, 1)


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
