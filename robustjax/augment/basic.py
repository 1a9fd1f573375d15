"""Crop, flip and cutout, drawn for each example on its own."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from robustjax.augment.mixup import box_side, check_whole
from robustjax.core import check
from robustjax.core.types import ArrayLike, Keys, KeysLike


def random_crop(keys: KeysLike, images: ArrayLike, *, pad: int = 4) -> Float[Array, "b h w c"]:
    """Surrounds each image with `pad` rows and columns of black and cuts a window of the old size out at a uniform place.

    Args:
        keys: one PRNG key for each image.
        images: float (b, h, w, c) in [0, 1].
        pad: pixels on each side, at least 0; 4 is usual for 32 x 32 pictures. At 0 images stay as they are.

    Returns:
        Like `images`: pixels are copied, never mixed.

    Raises:
        InputError: for a pad that is no whole number or negative, or images that are not float (b, h, w, c) in [0, 1].

    >>> random_crop(jax.random.split(jax.random.key(0), 2), jnp.ones((2, 8, 8, 1)), pad=2).shape
    (2, 8, 8, 1)
    """
    images = check.check_images(images)
    check.check_keys(keys, images.shape[0])
    check_whole("pad", pad, least=0)
    return _crop(keys, images, pad=pad)


# Compiled as a whole: by themselves the slices fail on rows that lie on several devices.
@functools.partial(jax.jit, static_argnames="pad")
def _crop(keys: Keys, images: Float[Array, "b h w c"], *, pad: int) -> Float[Array, "b h w c"]:
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))

    # A slice for each example: on CPU a third faster than gathering rows and columns.
    def cut(key, image):
        top, left = jax.random.randint(key, (2,), 0, 2 * pad + 1)
        return jax.lax.dynamic_slice(image, (top, left, jnp.zeros_like(top)), images.shape[1:])

    return jax.vmap(cut)(keys, padded)


def random_flip(keys: KeysLike, images: ArrayLike) -> Float[Array, "b h w c"]:
    """Mirrors each image left to right with probability 1/2. Not for digits, where it makes other signs.

    Args:
        keys: one PRNG key for each image.
        images: float (b, h, w, c) in [0, 1].

    Returns:
        Like `images`.

    Raises:
        InputError: for images that are not float (b, h, w, c) in [0, 1].
    """
    images = check.check_images(images)
    check.check_keys(keys, images.shape[0])
    mirrored = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def cutout(keys: KeysLike, images: ArrayLike, *, size: int) -> Float[Array, "b h w c"]:
    """Blackens a square of each image, around a pixel that is uniform over it; what lies outside is cut off.

    DeVries & Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout". The released code blackens normalised
    images, whose 0 is the mean of the data; here it is black.

    Args:
        keys: one PRNG key for each image.
        images: float (b, h, w, c) in [0, 1].
        size: side of the square in pixels, at least 0; the paper's is 16 for CIFAR-10 and 8 for CIFAR-100. At 0 images stay as they are.

    Returns:
        Like `images`.

    Raises:
        InputError: for a size that is no whole number or negative, or images that are not float (b, h, w, c) in [0, 1].

    >>> int(jnp.sum(1 - cutout(jax.random.split(jax.random.key(0), 1), jnp.ones((1, 9, 9, 1)), size=1)))
    1
    """
    images = check.check_images(images)
    check.check_keys(keys, images.shape[0])
    check_whole("size", size, least=0)
    shape = images.shape[1:3]
    centre = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, jnp.asarray(shape, jnp.int32), jnp.int32))(keys)
    rows, columns = (box_side(length, centre[:, axis], size) for axis, length in enumerate(shape))
    return jnp.where((rows[:, :, None] & columns[:, None])[..., None], 0, images)
