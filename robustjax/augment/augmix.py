"""AugMix: chains of simple operations, mixed with each other and with the image."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt8

from robustjax.augment.mixup import check_positive, check_whole
from robustjax.augment.rows import moved
from robustjax.core import check, numerics, rng
from robustjax.core.check import InputError
from robustjax.core.types import ArrayLike, Keys, KeysLike
from robustjax.imaging import pil

Images = Float[Array, "b h w c"]
Levels = UInt8[Array, "b c h w"]

_LONGEST = 3  # of chains of random length
_ROWS, _PARTS = 32, 4  # in a part of a batch of operations on CPUs, and parts of it elsewhere; see `apply_ops`
NO_OP = -1
"""In place of a position in pil.OPS: the image stays."""
_RANKS = np.array([[name in names for names in pil.KERNELS].index(True) for name in pil.OPS] + [len(pil.KERNELS)])
"""Which kernel an operation is of; the last is that of NO_OP."""


def augmix(
    keys: KeysLike,
    images: ArrayLike,
    *,
    severity: Any = 3.0,
    width: Any = 3,
    depth: Any = -1,
    alpha: Any = 1.0,
    all_ops: bool = False,
) -> Images:
    """Mixes each image with `width` chains of operations on it: (1 - m) x + m sum_i w_i chain_i(x).

    w ~ Dirichlet(alpha, ..., alpha), m ~ Beta(alpha, alpha); a chain is 1 to 3 operations, drawn with replacement from Pillow's
    autocontrast, equalize, posterize, rotate, solarize, shear and translate, each at a level of its own (`imaging.pil`). As in the
    released code chains are computed in 8 bits, and their mixture is not rounded. That code mixes after the normalisation; as this is
    linear and the weights sum to 1, mixing before it is the same.

    This is one augmented view. The consistency loss (`losses.jsd_consistency`) compares two of them, by keys of their own, with the image.

    Args:
        keys: one PRNG key for each image.
        images: float (b, h, w, 1 or 3) in [0, 1], h and w at least 3; chains begin with them rounded to 1/255.
        severity: largest level, 0.1 to 10; the paper's is 3 for CIFAR. May be traced, like alpha.
        width: number of chains, at least 1.
        depth: operations in each chain; -1 draws 1, 2 or 3 for each.
        alpha: above 0.
        all_ops: draw from color, contrast, brightness and sharpness as well, which overlap with the corruptions of -C benchmarks.

    Returns:
        Like `images`, at least float32, in [0, 1].

    Raises:
        InputError: for an option out of range, keys that are not one for each image, or other images.

    References:
        Hendrycks et al., "AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty", ICLR 2020.

    >>> augmix(jax.random.split(jax.random.key(0), 2), jnp.full((2, 8, 8, 3), 0.5), width=1, depth=1).shape
    (2, 8, 8, 3)
    """
    check_severity(severity)
    check_positive("alpha", alpha)
    check_whole("width", width, least=1)
    if depth != -1:
        check_whole("depth, where not -1,", depth, least=1)
    if not isinstance(all_ops, bool):
        raise InputError(f"all_ops must be True or False, got {all_ops!r}.")
    images = check_operable(keys, images)
    ops = pil.OPS if all_ops else pil.DEFAULT_OPS
    return _augmix(images, keys, jnp.asarray(severity), jnp.asarray(alpha), width=width, depth=depth, ops=ops)


@functools.partial(jax.jit, static_argnames=("width", "depth", "ops"))
def _augmix(*given: Array, **options: Any) -> Images:
    return moved(functools.partial(_mixed_chains, **options), *given)


def _mixed_chains(images: Images, keys: Keys, severity: Array, alpha: Array, *, width: int, depth: int, ops: tuple[str, ...]) -> Images:
    b, dtype = images.shape[0], images.dtype
    alpha = jnp.broadcast_to(alpha.astype(dtype), (width,))
    weights = jax.vmap(lambda key: jax.random.dirichlet(key, alpha, (), dtype))(rng.stream(keys, 0))
    share = jax.vmap(lambda key: jax.random.beta(key, alpha[0], alpha[0], (), dtype))(rng.stream(keys, 1))
    of_chains = several(rng.stream(keys, 2), width)
    length = jax.vmap(lambda key: jax.random.randint(key, (), 1, _LONGEST + 1, jnp.int32))(rng.stream(of_chains, 0))
    steps = jnp.arange(_LONGEST if depth == -1 else depth, dtype=jnp.int32)

    def one(chains: Levels, step: Array) -> tuple[Levels, None]:
        draws = rng.stream(of_chains, 1 + step)
        op_index = pil.sample_op(rng.stream(draws, 0), ops=ops)
        if depth == -1:
            op_index = jnp.where(step < length, op_index, NO_OP)
        level = pil.sample_level(rng.stream(draws, 1), severity=severity)
        return apply_to_levels(chains, op_index, level.astype(dtype)), None

    # Bytes between the operations, which are cheaper to move about than floats.
    start = pil.to_levels(images)
    chains, _ = jax.lax.scan(one, jnp.repeat(start, width, axis=0), steps)
    return mixed(images, pil.from_levels(chains, dtype).reshape(b, width, *images.shape[1:]), weights, share)


def mixed(images: Images, chains: Float[Array, "b n h w c"], weights: Float[Array, "b n"], share: Float[Array, " b"]) -> Images:
    """Returns (1 - share) images + share sum_i weights_i chains_i, in [0, 1]."""
    # Written out: on CPUs XLA is slow to sum over an axis in the middle.
    chain = sum(weights[:, i, None, None, None] * chains[:, i] for i in range(chains.shape[1]))
    share = share[:, None, None, None]
    return jnp.clip((1 - share) * images + share * chain, 0, 1)


def apply_ops(images: Images, op_index: Int[Array, " b"], level: Float[Array, " b"]) -> Images:
    """Does what pil.apply_op does, in parts of the batch that hold like operations, so that an image pays for its own only.

    Args:
        images: float (b, h, w, 1 or 3) in [0, 1].
        op_index: positions in pil.OPS, or NO_OP, which rounds the image to 1/255 only.
        level: from pil.sample_level.
    """
    return pil.from_levels(apply_to_levels(pil.to_levels(images), op_index, level.astype(images.dtype)), images.dtype)


def apply_to_levels(levels: Levels, op_index: Int[Array, " b"], level: Float[Array, " b"]) -> Levels:
    """Does what `apply_ops` does, to levels 0 .. 255; warps are computed in the dtype of `level`."""
    # An accelerator waits for the host before each part.
    few, small = (functools.partial(_in_parts, size=size) for size in (-(-len(levels) // _PARTS), _ROWS))
    return jax.lax.platform_dependent(levels, op_index, level, cpu=small, default=few)


def _in_parts(levels: Levels, op_index: Int[Array, " b"], level: Float[Array, " b"], *, size: int) -> Levels:
    """Returns the levels after one kernel for every `size` rows that need it; a last part may have fewer."""
    b, kernels = len(levels), len(pil.KERNELS)
    rank = jnp.asarray(_RANKS)[op_index]
    order = jnp.argsort(rank)
    count = (rank[:, None] == jnp.arange(kernels, dtype=rank.dtype)[None]).sum(0, dtype=jnp.int32)
    parts = -(-count // size)
    start, end = jnp.cumsum(count) - count, jnp.cumsum(parts)

    def done(part: Array, flat: UInt8[Array, "b chw"]) -> UInt8[Array, "b chw"]:
        kernel = (part >= end).sum(dtype=jnp.int32)
        place = (part - end[kernel] + parts[kernel]) * size + jnp.arange(size, dtype=jnp.int32)
        row = order[jnp.minimum(start[kernel] + place, b - 1)]
        new = pil.apply_kernel(kernel, flat[row].reshape(size, *levels.shape[1:]), op_index[row], level[row])
        return flat.at[jnp.where(place < count[kernel], row, b)].set(new.reshape(size, -1), mode="drop")

    return jax.lax.fori_loop(0, end[-1], done, levels.reshape(b, -1)).reshape(levels.shape)


def several(keys: Keys, count: int) -> Key[Array, " n"]:
    """Returns `count` keys in place of each."""
    return jax.vmap(lambda key: jax.random.split(key, count))(keys).reshape(-1)


def check_operable(keys: KeysLike, images: ArrayLike) -> Images:
    """Returns images in at least float32 that Pillow's operations can be applied to, one key for each.

    Raises:
        InputError: for others.
    """
    images = numerics.lift(check.check_images(images))
    check.check_keys(keys, images.shape[0])
    if images.shape[3] not in (1, 3) or min(images.shape[1:3]) < 3:
        raise InputError(f"operations take images (b, h, w, c) of 1 or 3 channels and at least 3 x 3 pixels, got {images.shape}.")
    return images


def check_severity(severity: Any) -> None:
    """Raises InputError for a level that is known and not one of `pil.sample_level`'s."""
    if check.is_concrete(severity):
        number = check.as_number(severity)
        if number is None or not 0.1 <= number <= 10:
            raise InputError(f"severity must be between 0.1 and 10, got {severity!r}.")
