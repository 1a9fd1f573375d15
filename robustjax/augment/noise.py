"""What SPIDER and ESP are compared with: other noise, and noise or smoothing alone. Labels are left to the caller here.

    fixed-radius L2 noise      l2_sphere: every image goes equally far
    uniform in the L2 ball     l2_ball: nearly the same in many dimensions (SPIDER, section 3.1)
    SPIDER's perturbation      l2_uniform_radius: with hard labels the 'No LS' of SPIDER's ablation (section 4.3)
    Gaussian, uniform          gaussian_noise, uniform_noise: independent pixels, clipped to [0, 1]

The L2 kinds keep their norm inside the box by rescaling (`rescale_to_box`); the others lose some of theirs to clipping.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from robustjax.augment import radius as radii
from robustjax.augment.sphere import l2_noise
from robustjax.core import check, numerics
from robustjax.core.rng import stream
from robustjax.core.types import ArrayLike, KeysLike, Scalar

Images = Float[Array, "b h w c"]


def l2_uniform_radius(keys: KeysLike, images: ArrayLike, *, tau: Scalar) -> Images:
    """Moves each image in a random direction by r ~ Uniform(0, τ): the very images that `spider` makes from the same keys.

    Args:
        keys: one PRNG key for each image.
        images: float (b, h, w, c) in [0, 1].
        tau: largest L2 norm, at least 0, in units of [0, 1] pixels; may be traced.

    Returns:
        Like `images`, at least float32, in [0, 1].

    Raises:
        InputError: for a negative tau, keys that are not one typed key for each image, or images that are not float (b, h, w, c) in [0, 1].
    """
    images = _prepare(keys, images, tau=tau)
    return l2_noise(stream(keys, 0), images, radii.uniform_radius(stream(keys, 1), tau=jnp.asarray(tau).astype(images.dtype)))[0]


def l2_ball(keys: KeysLike, images: ArrayLike, *, tau: Scalar) -> Images:
    """Moves each image to a point uniform in the L2 ball of radius τ around it, r = τ u^(1/d), d = h w c.

    Where the ball leaves the box, the point is brought back by clipping-aware rescaling: its norm is kept, uniformity is not.
    Arguments, result and errors are those of `l2_uniform_radius`.
    """
    images = _prepare(keys, images, tau=tau)
    tau = jnp.asarray(tau).astype(images.dtype)
    return l2_noise(stream(keys, 0), images, radii.ball_radius(stream(keys, 1), tau=tau, dimension=math.prod(images.shape[1:])))[0]


def l2_sphere(keys: KeysLike, images: ArrayLike, *, radius: Scalar) -> Images:
    """Moves each image by exactly `radius` in a random direction, or as far as the box allows.

    Arguments, result and errors are those of `l2_uniform_radius`, with `radius` in place of `tau`.
    """
    images = _prepare(keys, images, radius=radius)
    return l2_noise(stream(keys, 0), images, jnp.full(images.shape[:1], radius, images.dtype))[0]


def gaussian_noise(keys: KeysLike, images: ArrayLike, *, std: Scalar) -> Images:
    """Adds N(0, std^2) to each pixel and clips to [0, 1]: near the faces of the box the noise is weaker and not centred.

    Args:
        keys: one PRNG key for each image.
        images: float (b, h, w, c) in [0, 1].
        std: standard deviation, at least 0, in units of [0, 1] pixels; may be traced.

    Returns:
        Like `images`, at least float32, in [0, 1].

    Raises:
        InputError: for a negative std, keys that are not one typed key for each image, or images that are not float (b, h, w, c) in [0, 1].
    """
    images = _prepare(keys, images, std=std)
    noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)
    return jnp.clip(images + jnp.asarray(std).astype(images.dtype) * noise, 0, 1)


def uniform_noise(keys: KeysLike, images: ArrayLike, *, amplitude: Scalar) -> Images:
    """Adds Uniform(-amplitude, amplitude) to each pixel and clips to [0, 1].

    Arguments, result and errors are those of `gaussian_noise`, with `amplitude` in place of `std`.
    """
    images = _prepare(keys, images, amplitude=amplitude)
    noise = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:], images.dtype, -1, 1))(keys)
    return jnp.clip(images + jnp.asarray(amplitude).astype(images.dtype) * noise, 0, 1)


def _prepare(keys: KeysLike, images: ArrayLike, **sizes: Scalar) -> Images:
    images = numerics.lift(check.check_images(images))
    check.check_keys(keys, images.shape[0])
    for name, value in sizes.items():
        radii.check_size(name, value)
    return images
