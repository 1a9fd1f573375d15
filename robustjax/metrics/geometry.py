"""How the classes lie in feature space: their spread, their distance from the boundaries, and what noise does to features and loss.

"Discriminative loss with Gaussian noise injection", Definitions 3.1, 5.1 and 6.1. Features are the input of the last linear layer, whose
logits are features @ kernel + bias. Dispersion and margin are a maximum and a minimum over all examples: they take complete inputs, or
are put together over batches of which each has all of a class (dispersion) or any (margin, by the minimum).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from robustjax.core import check, numerics
from robustjax.core.check import InputError, as_number, is_concrete
from robustjax.core.types import ArrayLike, Scalar

ROWS = 64  # of examples that are measured at once


class LossStability(NamedTuple):
    """The loss where the features leave the ball, per example; see `loss_stability`."""

    outside: Float[Array, " b"]  # l_out, the mean over the draws that leave it
    change: Float[Array, " b"]  # |l_out - l|
    count: Int[Array, " b"]  # of the draws that leave it


def class_dispersion(features: ArrayLike, labels: ArrayLike, k: int | np.integer) -> Float[Array, " k"]:
    """Returns for each class the largest distance between two of its examples in feature space: Definition 3.1.

    All n^2 pairs are looked at, a few rows at a time: 7 s for 10,000 rows of 128 on two CPU cores.

    Args:
        features: (n, d), of the whole data set.
        labels: (n,) in [0, k).
        k: number of classes. Static.

    Returns:
        (k,), at least 0; exactly 0 for a class of one example or none, so that the maximum over classes is that of the others.

    Raises:
        InputError: for shapes that do not fit, labels out of range, no class.

    >>> class_dispersion(jnp.array([[0.0, 0.0], [3.0, 4.0], [9.0, 9.0]]), jnp.array([0, 0, 2]), 3).tolist()
    [5.0, 0.0, 0.0]
    """
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise InputError(f"k is the number of classes, an integer >= 1, got {k!r}.")
    features, labels = _rows(features, labels, int(k))
    return _dispersion(features, labels, k=int(k))


@functools.partial(jax.jit, static_argnames="k")
def _dispersion(features: Array, labels: Array, *, k: int) -> Array:
    def reach(row: tuple[Array, Array]) -> Array:
        feature, label = row
        distances = jnp.where(labels == label, jnp.sum(jnp.square(features - feature[None]), axis=1), -1)
        return features[jnp.argmax(distances)] - feature

    # Squares find the pair, its norm is taken with care.
    farthest = numerics.safe_norm(jax.lax.map(reach, (features, labels), batch_size=ROWS), axis=1)
    return jnp.max(jnp.where(labels[:, None] == jnp.arange(k, dtype=labels.dtype)[None], farthest[:, None], 0), axis=0)


def class_margins(
    features: ArrayLike, labels: ArrayLike, kernel: ArrayLike, bias: ArrayLike, *, signed: bool = False
) -> Float[Array, " k"]:
    """Returns for each class the least distance of its examples from their nearest boundary: Definition 5.1.

    min over examples of the class c and over classes i != c of |z_c - z_i| / ||W_c - W_i||. As defined the distance has no sign, so that
    an example far on the wrong side does not make the margin small.

    Args:
        features: (n, d).
        labels: (n,) in [0, k).
        kernel: (d, k) of the last layer, as Flax has it.
        bias: (k,).
        signed: count the distance of an example from a boundary that it is on the wrong side of as negative. Static.

    Returns:
        (k,); infinite for a class without examples, so that the minimum over classes, or over batches, is that of the others. Where two
        classes have one kernel there is no boundary between them (infinite), or with one bias too nothing else (0).

    Raises:
        InputError: for shapes that do not fit, fewer than two classes, labels out of range.

    >>> class_margins(jnp.array([[3.0], [1.0], [0.5]]), jnp.array([0, 0, 1]), jnp.array([[1.0, -1.0]]), jnp.zeros(2)).tolist()
    [1.0, 0.5]
    """
    kernel, bias = numerics.lift(kernel), numerics.lift(bias)
    if kernel.ndim != 2 or kernel.shape[1] < 2 or bias.shape != kernel.shape[1:]:
        raise InputError(f"kernel and bias must have shapes (d, k) and (k,) with k > 1, got {kernel.shape} and {bias.shape}.")
    features, labels = _rows(features, labels, kernel.shape[1])
    if features.shape[1] != kernel.shape[0]:
        raise InputError(f"features (n, d) and kernel (d, k) must have the same d, got {features.shape} and {kernel.shape}.")
    return _margins(features, labels, kernel.astype(features.dtype), bias.astype(features.dtype), signed=signed)


@functools.partial(jax.jit, static_argnames="signed")
def _margins(features: Array, labels: Array, kernel: Array, bias: Array, *, signed: bool) -> Array:
    classes = jnp.arange(kernel.shape[1], dtype=labels.dtype)

    def nearest(row: tuple[Array, Array]) -> Array:
        feature, label = row
        normals = kernel[:, label][:, None] - kernel
        gaps = jnp.sum(feature[:, None] * normals, axis=0) + (bias[label] - bias)
        lengths = numerics.safe_norm(normals, axis=0)
        nowhere = jnp.where(gaps > 0, jnp.inf, jnp.where(gaps < 0, -jnp.inf, 0))
        distances = jnp.where(lengths > 0, gaps / jnp.where(lengths > 0, lengths, 1), nowhere)
        distances = distances if signed else jnp.abs(distances)
        return jnp.min(jnp.where(classes == label, jnp.inf, distances))

    each = jax.lax.map(nearest, (features, labels), batch_size=ROWS)
    return jnp.min(jnp.where(labels[:, None] == classes[None], each[:, None], jnp.inf), axis=0)


def feature_stability(features: ArrayLike, noisy_features: ArrayLike, *, delta: ArrayLike | Scalar) -> Float[Array, " b"]:
    """Returns the share of noisy copies whose features stay within delta of the clean ones: the eta of Definition 6.1, estimated.

    Args:
        features: of the images, (b, d).
        noisy_features: of copies of each with noise of N(0, sigma^2), (draws, b, d).
        delta: radius of the (closed) ball, one or (b,), at least 0; the paper's choice is 2 delta_v.

    Returns:
        (b,) in [0, 1].

    Raises:
        InputError: for shapes that do not fit, no draw, a negative delta.

    >>> feature_stability(jnp.zeros((1, 2)), jnp.array([[[0.1, 0.0]], [[0.0, 2.0]]]), delta=1.0).tolist()
    [0.5]
    """
    return jnp.mean(_inside(features, noisy_features, delta), axis=0, dtype=numerics.lift(features).dtype)


def loss_stability(
    features: ArrayLike, noisy_features: ArrayLike, losses: ArrayLike, noisy_losses: ArrayLike, *, delta: ArrayLike | Scalar
) -> LossStability:
    """Returns the mean loss of the noisy copies whose features leave the ball, and by how much it differs from the clean loss.

    Definition 6.1's l_out and |l_out - l(x)|; the loss is stable where the latter is small.

    Args:
        features: as for `feature_stability`.
        noisy_features: as for `feature_stability`.
        losses: of the images, (b,).
        noisy_losses: of the copies, (draws, b).
        delta: as for `feature_stability`.

    Returns:
        LossStability(outside, change, count), (b,) each. Where no copy leaves the ball l_out is not defined: `outside` is then the clean
        loss, `change` 0 and `count` 0.

    Raises:
        InputError: for shapes that do not fit, no draw, a negative delta.

    >>> found = loss_stability(jnp.zeros((1, 1)), jnp.array([[[0.5]], [[2.0]]]), jnp.array([1.0]), jnp.array([[7.0], [4.0]]), delta=1.0)
    >>> found.outside.tolist(), found.change.tolist(), found.count.tolist()
    ([4.0], [3.0], [1])
    """
    left = ~_inside(features, noisy_features, delta)
    losses, noisy_losses = numerics.lift(losses), numerics.lift(noisy_losses)
    if noisy_losses.shape != left.shape or losses.shape != left.shape[1:]:
        shapes = f"{losses.shape} and {noisy_losses.shape}"
        raise InputError(f"losses and noisy_losses must have shapes {left.shape[1:]} and {left.shape} as the features have, got {shapes}.")
    count = jnp.sum(left, axis=0, dtype=jnp.int32)
    mean = jnp.sum(jnp.where(left, noisy_losses, 0), axis=0) / jnp.maximum(count, 1).astype(losses.dtype)
    outside = jnp.where(count > 0, mean, losses)
    return LossStability(outside, jnp.abs(outside - losses), count)


def _inside(features: ArrayLike, noisy_features: ArrayLike, delta: ArrayLike | Scalar) -> Array:
    """Returns (draws, b) bool."""
    features, noisy_features = numerics.lift(features), numerics.lift(noisy_features)
    if features.ndim != 2 or noisy_features.shape[1:] != features.shape or noisy_features.shape[0] == 0:
        shapes = f"{features.shape} and {noisy_features.shape}"
        raise InputError(f"features and noisy_features must have shapes (b, d) and (draws, b, d) with at least one draw, got {shapes}.")
    if jnp.shape(delta) not in ((), features.shape[:1]):
        raise InputError(f"delta must be one number or one for each of {features.shape[0]} examples, got shape {jnp.shape(delta)}.")
    if is_concrete(delta) and not (np.asarray(delta) >= 0).all():
        raise InputError(f"delta is a radius and must be at least 0, got {as_number(np.min(delta))}.")
    radius = jnp.broadcast_to(jnp.asarray(delta).astype(features.dtype), features.shape[:1])
    return numerics.safe_norm(noisy_features - features[None], axis=2) <= radius[None]


def _rows(features: ArrayLike, labels: ArrayLike, k: int) -> tuple[Array, Array]:
    features, labels = numerics.lift(features), check.check_labels(labels, num_classes=k)
    if features.ndim != 2 or features.shape[:1] != labels.shape or not jnp.issubdtype(features.dtype, jnp.floating):
        raise InputError(
            f"features must be floats (n, d), one row a label, got {features.dtype} {features.shape} and {labels.shape} labels."
        )
    return features, labels
