"""PixMix: images mixed several times over with a structured picture, or with an altered copy of themselves."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from robustjax.augment.augmix import NO_OP, apply_ops, check_operable, check_severity, several
from robustjax.augment.basic import random_flip
from robustjax.augment.fractals import fractals
from robustjax.augment.mixup import check_positive, check_whole
from robustjax.augment.rows import moved
from robustjax.core import check, rng
from robustjax.core.check import InputError
from robustjax.core.types import ArrayLike, Keys, KeysLike
from robustjax.imaging import pil

Images = Float[Array, "b h w c"]

_SET = 20220315  # seed of the mixing pictures, the same in all runs
_LEAST = 1e-37  # what `multiply` takes powers of, at least


class Draws(NamedTuple):
    """What chance decides of one image, or of each of a batch. Picture 0 is the start, the others those of the k rounds."""

    rounds: Int[Array, ""]  # 0 to k
    own: Bool[Array, " k+1"]  # whether a picture is an altered copy of the image
    multiplies: Bool[Array, " k"]
    weights: Float[Array, "k 2"]  # a and b


def pixmix(keys: KeysLike, images: ArrayLike, mixers: ArrayLike, *, k: Any = 4, beta: Any = 3.0, severity: Any = 3.0) -> Images:
    """Mixes each image in 0 to k rounds with its mixing picture or an altered copy of itself.

    It starts with the image or, with probability 1/2, a copy altered by one operation of AugMix. Each of uniformly many rounds takes
    either a newly altered copy of the image or the mixing picture, with probability 1/2 each, mixes it in by `add` or `multiply`, and clips
    to [0, 1]. The weights of a round are a ~ Beta(beta, 1), b ~ Beta(1, beta) or, as often, a - 1 and -b ~ Beta(1, beta), as in the
    released code.

    Args:
        keys: one PRNG key for each image.
        images: float (b, h, w, 1 or 3) in [0, 1], h and w at least 3; copies are rounded to 1/255.
        mixers: of this shape, the mixing picture of each image, for all of its rounds. See `fractals`. No gradient reaches them.
        k: most rounds, at least 0; 4 in the paper.
        beta: above 0; the larger, the weaker the mixing; 3 in the paper for CIFAR. May be traced, like severity.
        severity: largest level of the operation, 0.1 to 10; 3 in the paper.

    Returns:
        Like `images`, at least float32, in [0, 1].

    Raises:
        InputError: for an option out of range, keys that are not one for each image, or other images.

    References:
        Hendrycks et al., "PixMix: Dreamlike Pictures Comprehensively Improve Safety Measures", CVPR 2022.
    """
    check_severity(severity)
    check_whole("k, the most rounds,", k, least=0)
    check_positive("beta", beta)
    images, mixers = check_operable(keys, images), check.check_images(mixers, name="mixers")
    if mixers.shape != images.shape:
        raise InputError(f"mixers must be one picture for each image, of shape {images.shape}, got {mixers.shape}.")
    return _pixmix(images, keys, mixers.astype(images.dtype), jnp.asarray(beta), jnp.asarray(severity), k=k)


@functools.partial(jax.jit, static_argnames="k")
def _pixmix(*given: Array, k: int) -> Images:
    return moved(functools.partial(_rounds, k=k), *given)


def _rounds(images: Images, keys: Keys, mixers: Images, beta: Array, severity: Array, *, k: int) -> Images:
    draws = jax.vmap(lambda key: draw(key, beta.astype(images.dtype), k=k))(rng.stream(keys, 0))
    # All copies are of the image itself, so one application serves the start and all rounds.
    of_copies = several(rng.stream(keys, 1), k + 1)
    needed = draws.own & (jnp.arange(k + 1, dtype=jnp.int32)[None] <= draws.rounds[:, None])
    op_index = jnp.where(needed.reshape(-1), pil.sample_op(rng.stream(of_copies, 0)), NO_OP)
    level = pil.sample_level(rng.stream(of_copies, 1), severity=severity)
    copies = apply_ops(jnp.repeat(images, k + 1, axis=0), op_index, level).reshape(len(images), k + 1, *images.shape[1:])

    def chosen(condition: Bool[Array, " b"], yes: Images, no: Images) -> Images:
        return jnp.where(condition[:, None, None, None], yes, no)

    out = chosen(draws.own[:, 0], copies[:, 0], images)
    for i in range(k):
        other = chosen(draws.own[:, i + 1], copies[:, i + 1], mixers)
        a, b = (draws.weights[:, i, j] for j in range(2))
        new = jnp.clip(chosen(draws.multiplies[:, i], multiply(out, other, a, b), add(out, other, a, b)), 0, 1)
        out = chosen(i < draws.rounds, new, out)
    return out


def draw(key: Key[Array, ""], beta: Array, *, k: int) -> Draws:
    """Returns what chance decides of one image."""
    rounds, own, multiplies, away, uniforms = jax.random.split(key, 5)
    # Beta(beta, 1) and Beta(1, beta) are powers of uniforms.
    power = jax.random.uniform(uniforms, (k, 2), beta.dtype) ** (1 / beta)
    towards = jnp.stack([power[:, 0], 1 - power[:, 1]], axis=1)
    beyond = jnp.stack([2 - power[:, 0], power[:, 1] - 1], axis=1)
    return Draws(
        jax.random.randint(rounds, (), 0, k + 1, jnp.int32),
        jax.random.bernoulli(own, 0.5, (k + 1,)),
        jax.random.bernoulli(multiplies, 0.5, (k,)),
        jnp.where(jax.random.bernoulli(away, 0.5, (k, 1)), beyond, towards),
    )


def add(images: Images, others: Images, a: Float[Array, " b"], b: Float[Array, " b"]) -> Images:
    """Returns a x + b x' of pictures in [-1, 1], brought back; not clipped."""
    a, b = a[:, None, None, None], b[:, None, None, None]
    return (a * (2 * images - 1) + b * (2 * others - 1) + 1) / 2


def multiply(images: Images, others: Images, a: Float[Array, " b"], b: Float[Array, " b"]) -> Images:
    """Returns (2 x)^a max(2 x', 1e-37)^b / 2, for a > 0; not clipped. Where b is negative and x' black it is up to 1e37."""
    a, b = a[:, None, None, None], b[:, None, None, None]
    black = images <= 0  # where the slope of x^a is infinite for a < 1, and 0 is taken
    grown = jnp.where(black, 0, jnp.where(black, 1, 2 * images) ** a)
    # The slope of a negative power overflows at black.
    return grown * jnp.maximum(2 * jax.lax.stop_gradient(others), _LEAST) ** b / 2


def mixing_pictures(keys: Keys, shape: tuple[int, int, int], *, count: Any = None, pictures: Any = None) -> Images:
    """Returns a mixing picture for each key: one of a set, cut out at a random place and mirrored with probability 1/2.

    The paper cuts only; mirroring is ours. Without `pictures` the set is that of `fractals` of fixed keys: a picture is made again where it is drawn, so the set takes no memory
    and may be large.

    Args:
        keys: one PRNG key for each picture.
        shape: (h, w, c), c = 1 or 3.
        count: pictures in the set, at least 1; smaller sets are the beginnings of larger ones. Of `pictures` all are in it.
        pictures: uint8 (n, *enlarged(shape)), pictures of the user's own.

    Raises:
        InputError: for another count, or pictures of another size.
    """
    if pictures is None:
        check_whole("mixers, the number of mixing pictures,", count, least=1)
    elif (
        not hasattr(pictures, "ndim")
        or pictures.ndim != 4
        or not len(pictures)
        or pictures.shape[1:] != enlarged(shape)
        or pictures.dtype != jnp.uint8
    ):
        raise InputError(
            f"pictures must be uint8 (n, {', '.join(map(str, enlarged(shape)))}), got {jnp.result_type(pictures)} {jnp.shape(pictures)}."
        )
    else:
        count = len(pictures)
    ids = jax.vmap(lambda key: jax.random.randint(key, (), 0, count, jnp.int32))(rng.stream(keys, 0))
    if pictures is None:
        large = fractals(rng.example_keys(jax.random.key(_SET, impl="threefry2x32"), ids), enlarged(shape))
    else:
        large = _picked(ids, jnp.asarray(pictures)).astype(jnp.float32) / 255
    return _cut(keys, large, shape=tuple(shape))


def enlarged(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Returns the shape (h, w, c) that mixing pictures of images of `shape` are cut from: an eighth larger, as in the paper.

    >>> enlarged((32, 32, 3))
    (36, 36, 3)
    """
    h, w, c = shape
    margin = max(1, max(h, w) // 16)
    return h + 2 * margin, w + 2 * margin, c


@jax.jit
def _picked(ids: Int[Array, " b"], pictures: UInt8[Array, "n H W c"]) -> UInt8[Array, "b H W c"]:
    return moved(lambda ids, pictures: pictures[ids], ids, pictures)


@functools.partial(jax.jit, static_argnames="shape")
def _cut(keys: Keys, large: Float[Array, "b H W c"], *, shape: tuple[int, int, int]) -> Images:
    margin = large.shape[1] - shape[0]
    corner = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, margin + 1, jnp.int32))(rng.stream(keys, 1))
    cut = jax.vmap(lambda picture, at: jax.lax.dynamic_slice(picture, (at[0], at[1], jnp.zeros_like(at[0])), shape))(large, corner)
    return random_flip(rng.stream(keys, 2), cut)
