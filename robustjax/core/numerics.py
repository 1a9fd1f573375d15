"""Norms, divisions and logarithms that stay finite, per image and per tree, and the direction of the KL divergence.

Everything computes in the dtype of its float input, at least float32. Guards are selections (`jnp.where`) on both sides of the
dangerous operation, since a NaN in the branch that is not taken still poisons the gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from robustjax.core.types import Scalar

Tree = Any


def lift(x: ArrayLike) -> Array:
    """Returns `x` in at least float32: bfloat16 and float16 are lifted, float32 and float64 kept; integers are left alone.

    >>> lift(jax.numpy.zeros(2, jax.numpy.bfloat16)).dtype
    dtype('float32')
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def safe_norm(x: Float[Array, "..."], axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Float[Array, "..."]:
    """Returns the L2 norm; its derivatives at zero are zero rather than NaN.

    The values are scaled by their largest magnitude first, so the squares neither overflow nor vanish: a gradient of 1e-25
    still has a direction in float32.

    Args:
        x: any shape.
        axis: the axes summed over; None for all.
        keepdims: keep these axes with size 1.
    """
    x = lift(x)
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis, keepdims=True))
    # Below `tiny` values are denormal, which some backends flush to zero: then there is nothing to scale by.
    scale = jnp.where((largest >= jnp.finfo(x.dtype).tiny) & jnp.isfinite(largest), largest, 1)
    squares = jnp.sum(jnp.square(x / scale), axis, keepdims=True)
    zero = squares == 0
    norm = scale * jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squares)))
    return norm if keepdims else jnp.squeeze(norm, axis)


def image_norm(images: Float[Array, "b ..."], norm: str = "l2") -> Float[Array, " b"]:
    """Returns one norm per image, over all of its pixels and channels.

    Args:
        images: (b, ...), usually perturbations (b, h, w, c) in units of [0, 1] pixels.
        norm: 'l2', 'linf' or 'l1'.
    """
    rows = lift(images).reshape(images.shape[0], -1)
    if norm == "l2":
        return safe_norm(rows, axis=1)
    return {"linf": lambda r: jnp.max(jnp.abs(r), 1), "l1": lambda r: jnp.sum(jnp.abs(r), 1)}[norm](rows)


def safe_divide(a: ArrayLike, b: ArrayLike) -> Array:
    """Returns a / b, and 0 with zero derivative where b is 0.

    >>> float(safe_divide(1.0, 0.0)), float(safe_divide(1.0, 4.0))
    (0.0, 0.25)
    """
    a, b = lift(a), lift(b)
    zero = b == 0
    return jnp.where(zero, 0, a / jnp.where(zero, 1, b))


def log_clamped(x: Float[Array, "..."], *, low: float = 1e-7) -> Float[Array, "..."]:
    """Returns log(min(max(x, low), 1)): the logarithm of a probability that may be 0."""
    return jnp.log(jnp.clip(lift(x), low, 1))


def nll_from_logits(logits: Float[Array, "b k"], labels: Int[Array, " b"]) -> Float[Array, " b"]:
    """Returns -log softmax(logits)_y per row, in nats; NaN where a label is not in [0, k)."""
    log_p = jax.nn.log_softmax(lift(logits))
    # Counted from the end, -1 would be the last class: sent out of range instead.
    labels = jnp.where(labels < 0, logits.shape[1], labels)
    return -jnp.take_along_axis(log_p, labels[:, None], axis=1, mode="fill", fill_value=jnp.nan)[:, 0]


def kl_p_from_logits(p_logits: Float[Array, "... k"], q_logits: Float[Array, "... k"]) -> Float[Array, "..."]:
    """Returns KL(softmax(p_logits) || softmax(q_logits)) = sum_k p (log p - log q), per row, in nats.

    With d = q_logits - p_logits less its mean under p, KL = log(sum_k p e^d) = log1p(sum_k p (e^d - 1 - d)): a sum of positive terms,
    which keeps its digits in float32 where KL is 1e-12, while the terms of the usual sum cancel. Where d spans more than 50, or a logit
    is infinite, the usual sum is taken, from log-softmax, so that nothing overflows; a class with p = 0 contributes 0.
    """
    p_logits, q_logits = lift(p_logits), lift(q_logits)
    log_p = jax.nn.log_softmax(p_logits)
    log_q = jax.nn.log_softmax(q_logits)
    p = jnp.exp(log_p)
    some = p > 0  # logits of -inf: 0 * (-inf - log q) would be NaN
    far = jnp.sum(jnp.where(some, p * (jnp.where(some, log_p, 0) - jnp.where(some, log_q, 0)), 0), axis=-1)
    # Of the logits, not of log_q and log_p, which are rounded at the size of the logits.
    d = jax.lax.stop_gradient(q_logits - p_logits)
    finite = jnp.isfinite(d)
    d = jnp.where(finite, d, 0)
    near = finite.all(-1) & (jnp.max(d, -1) - jnp.min(d, -1) < 50)
    d = jnp.where(near[..., None], q_logits - p_logits, 0)
    d = d - jnp.sum(p * d, axis=-1, keepdims=True)
    return jnp.where(near, jnp.log1p(jnp.sum(p * _expm1_minus(d), axis=-1)), far)


def _expm1_minus(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns e^x - 1 - x to rounding: near 0 by its series x^2 / 2 (1 + x / 3 (1 + x / 4 (...)))."""
    small = jnp.abs(x) < 1
    y = jnp.where(small, x, 0)
    series = jnp.ones_like(x)
    for n in range(20, 2, -1):
        series = 1 + y / n * series
    return jnp.where(small, y * y / 2 * series, jnp.expm1(jnp.where(small, 0, x)) - x)


@jax.custom_jvp
def entropy_from_logits(logits: Float[Array, "... k"]) -> Float[Array, "..."]:
    """Returns -sum_k p log p of p = softmax(logits), per row, in nats; accurate also where p is nearly one-hot or nearly uniform."""
    z = logits - jnp.max(logits, axis=-1, keepdims=True)
    p = jax.nn.softmax(z)
    others = jnp.where(jax.nn.one_hot(jnp.argmax(z, axis=-1), z.shape[-1], dtype=bool), 0, jnp.exp(z))
    return jnp.log1p(jnp.sum(others, axis=-1)) - jnp.sum(jnp.where(p > 0, p * z, 0), axis=-1)


@entropy_from_logits.defjvp
def _entropy_jvp(primals, tangents):
    # By hand: differentiated, the two terms of the value give p and -p, whose sum is rounding where the gradient is small.
    (logits,), (change,) = primals, tangents
    p = jax.nn.softmax(logits)
    z = jnp.where(p > 0, logits - jnp.max(logits, axis=-1, keepdims=True), 0)
    centred = z - jnp.sum(p * z, axis=-1, keepdims=True)
    return entropy_from_logits(logits), -jnp.sum(p * centred * change, axis=-1)


def tree_dot(a: Tree, b: Tree) -> Array:
    """Returns the inner product of two trees of the same structure, over all leaves."""
    products = jax.tree.map(lambda x, y: jnp.sum(lift(x) * lift(y)), a, b)
    return sum(jax.tree.leaves(products), start=jnp.zeros(()))


def tree_axpy(scale: Scalar, x: Tree, y: Tree) -> Tree:
    """Returns scale * x + y, leaf by leaf, in the dtypes of y."""
    return jax.tree.map(lambda u, v: jnp.asarray(scale, v.dtype) * u.astype(v.dtype) + v, x, y)


def tree_scale(scale: Scalar, x: Tree) -> Tree:
    """Returns scale * x, leaf by leaf, in the dtypes of x."""
    return jax.tree.map(lambda u: jnp.asarray(scale, u.dtype) * u, x)


def tree_norm(tree: Tree) -> Array:
    """Returns the L2 norm over the whole tree, with zero derivative at zero."""
    return safe_norm(jnp.stack([safe_norm(leaf) for leaf in jax.tree.leaves(tree)]))


def tree_normalize(tree: Tree) -> Tree:
    """Returns the tree divided by its norm over all leaves; a tree of zeros stays zero."""
    norm = tree_norm(tree)
    return jax.tree.map(lambda leaf: safe_divide(leaf, norm.astype(lift(leaf).dtype)), tree)
