"""The discriminative loss: compact classes, wide margins, noisy features among the clean ones of their class.

"Discriminative loss with Gaussian noise injection", Eqs. 7-13 and section 4.4. It acts on features q (n, d), the input of the last linear
layer, whose logits are q @ kernel + bias, and is added to the cross-entropy of the clean images:

    alpha * compact (Eq. 8) + lam * noisy (Eq. 12) + beta * margin (Eq. 9) + gamma * norm (Eq. 11)

All terms are means over the classes present in the batch, so they are not means over its examples: with `axis_name` the sums run over
the batch of all devices, and every device returns the loss of the whole batch. Then `pmean` of the devices' gradients is its gradient.

Centroids are a state that is passed in and out (the released code changes it inside of the forward pass, in evaluation too).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from robustjax.core import check, numerics
from robustjax.core.check import InputError, as_number, is_concrete
from robustjax.core.types import ArrayLike, Scalar


class CentroidState(NamedTuple):
    """The centroids that batches hand on; a row of a class that was never seen is 0."""

    centroids: Float[Array, "k d"]
    seen: Bool[Array, " k"]


class CentroidUpdate(NamedTuple):
    """What a batch makes of the centroids. Rows of absent classes: 0 in `batch`, the stored ones in `momentum`."""

    state: CentroidState  # for the next batch; a constant for gradients
    batch: Float[Array, "k d"]  # means of the batch, which the margin reads
    momentum: Float[Array, "k d"]  # moving means, which compactness and the norm read
    present: Bool[Array, " k"]  # classes that the batch has


class DiscriminativeTerms(NamedTuple):
    """The weighted sum, its parts without their weights, and the centroids for the next batch."""

    total: Float[Array, ""]
    compact: Float[Array, ""]
    noisy: Float[Array, ""]
    margin: Float[Array, ""]
    norm: Float[Array, ""]
    state: CentroidState


def no_centroids(k: int | np.integer, d: int | np.integer, *, dtype: Any = jnp.float32) -> CentroidState:
    """Returns the state before the first batch, of k classes and d features.

    >>> no_centroids(2, 3).seen.tolist()
    [False, False]
    """
    return CentroidState(jnp.zeros((k, d), dtype), jnp.zeros(k, bool))


def update_centroids(
    state: CentroidState, features: ArrayLike, labels: ArrayLike, *, momentum: Scalar, axis_name: str | None = None
) -> CentroidUpdate:
    """Moves the centroids of the classes in a batch: the paper's partial momentum (section 4.4).

    m_c = momentum * stored + (1 - momentum) * mean of the batch. Gradients flow through the batch alone, so those of `momentum` are
    1 - momentum times those of `batch` (Proposition 4.1); hence the margin reads `batch`, and compactness, which wants a steady target,
    `momentum`. A class's first centroid is the batch's mean, with the whole gradient; the paper does not say, the released code does so.

    Args:
        state: of the batch before; `no_centroids` at first.
        features: of the clean images, (n, d).
        labels: (n,) in [0, k).
        momentum: weight of the past, in [0, 1]; the paper says "such as 0.9", the released code trains with 0.99. May be traced.
        axis_name: mapped axis over whose devices the batch is spread.

    Returns:
        CentroidUpdate(state, batch, momentum, present); the same on all devices. NaN where a traced label is out of range.

    Raises:
        InputError: for shapes that do not fit, labels out of range, a momentum outside [0, 1].

    >>> update = update_centroids(no_centroids(3, 1), jnp.array([[1.0], [3.0]]), jnp.array([0, 0]), momentum=0.9)
    >>> update = update_centroids(update.state, jnp.array([[4.0], [5.0]]), jnp.array([0, 1]), momentum=0.5)
    >>> update.state.centroids.ravel().tolist(), update.batch.ravel().tolist(), update.present.tolist()
    ([3.0, 5.0, 0.0], [4.0, 5.0, 0.0], [True, True, False])
    """
    features, labels, stored = _rows(features, labels, state.centroids)
    momentum = _number("momentum", momentum, features.dtype, high=1.0)
    one_hot, counts = _members(labels, stored.shape[0], features.dtype, axis_name)
    present = counts != 0  # NaN too: see `_members`
    # 'highest': by default accelerators multiply matrices in fewer digits than the features have.
    sums = _summed(jnp.matmul(one_hot.T, features, precision="highest"), axis_name)
    batch = sums / jnp.maximum(counts, 1)[:, None]
    stored = jax.lax.stop_gradient(stored)
    moved = jnp.where(state.seen[:, None], momentum * stored + (1 - momentum) * batch, batch)
    moved = jnp.where(present[:, None], moved, stored)
    return CentroidUpdate(CentroidState(jax.lax.stop_gradient(moved), state.seen | present), batch, moved, present)


def compactness(features: ArrayLike, labels: ArrayLike, centroids: ArrayLike, *, delta_v: Scalar) -> Float[Array, " n"]:
    """Returns max(0, ||m_y - q|| - delta_v)^2 for each example: the summand of Eq. 8, and with noisy features that of Eq. 12.

    Gradients flow into features and centroids. With delta_v = 0 this is the center loss (Wen et al. 2016), without its factor 1/2.

    Args:
        features: (n, d); clean, or of noisy images, which the centroids of the clean ones attract.
        labels: (n,) in [0, k).
        centroids: (k, d), the moving ones (`CentroidUpdate.momentum`).
        delta_v: radius within which nothing pulls, at least 0; the paper's 0.5. May be traced.

    Returns:
        (n,); `class_balanced_mean` averages it. Exactly at the centroid the gradient is 0. NaN for a label out of range where its
        value is traced.

    Raises:
        InputError: for shapes that do not fit, labels out of range, a negative delta_v.

    >>> compactness(jnp.array([[3.0, 4.0], [0.1, 0.0]]), jnp.array([0, 0]), jnp.zeros((2, 2)), delta_v=1.0).tolist()
    [16.0, 0.0]
    """
    features, labels, centroids = _rows(features, labels, centroids)
    delta_v = _number("delta_v", delta_v, features.dtype)
    # Counted from the end, -1 would be the last class: sent out of range instead.
    own = jnp.where(labels < 0, centroids.shape[0], labels)
    centers = jnp.take(centroids, own, axis=0, mode="fill", fill_value=jnp.nan)
    return jnp.square(jax.nn.relu(numerics.safe_norm(features - centers, axis=1) - delta_v))


def class_margin(centroids: ArrayLike, present: ArrayLike, kernel: ArrayLike, bias: ArrayLike, *, delta_d: Scalar) -> Float[Array, ""]:
    """Returns the mean over present classes of max_{i != c} max(0, delta_d + (z_i - z_c)(m_c) / ||W_c - W_i||): Eqs. 9 and 10.

    The fraction is the signed distance of the centroid from the hyperplane between classes c and i, negative on the right side. All
    other classes count, those absent from the batch included. Memory: k^2 d numbers, where the compiler does not fuse them away.

    Args:
        centroids: (k, d), the batch's means (`CentroidUpdate.batch`).
        present: (k,) bool, the classes averaged over.
        kernel: (d, k) of the last layer, as Flax has it.
        bias: (k,).
        delta_d: distance from which on nothing pushes, at least 0; the paper's 5. May be traced.

    Returns:
        Scalar; 0 if no class is present. Classes of one and the same kernel have no hyperplane between them and count as at distance
        0, without a gradient (as in a head that starts at zero).

    Raises:
        InputError: for shapes that do not fit, fewer than two classes, a negative delta_d.

    >>> float(class_margin(jnp.array([[2.0], [-1.0]]), jnp.array([True, True]), jnp.array([[1.0, -1.0]]), jnp.zeros(2), delta_d=3.0))
    1.5
    """
    centroids, present = _present(centroids, present)
    kernel, bias = (numerics.lift(jnp.asarray(array)).astype(centroids.dtype) for array in (kernel, bias))
    k, d = centroids.shape
    if k < 2 or kernel.shape != (d, k) or bias.shape != (k,):
        shapes = f"{centroids.shape}, {kernel.shape} and {bias.shape}"
        raise InputError(f"centroids, kernel and bias must have shapes (k, d), (d, k) and (k,) with k > 1, got {shapes}.")
    delta_d = _number("delta_d", delta_d, centroids.dtype)
    # Differences first: the difference of two logits has lost digits that its distance should have.
    normals = kernel.T[None] - kernel.T[:, None]  # [c, i] = W_i - W_c
    gaps = jnp.sum(normals * centroids[:, None], axis=-1) + (bias[None] - bias[:, None])
    distances = numerics.safe_divide(gaps, numerics.safe_norm(normals, axis=-1))
    hinges = jnp.where(jnp.eye(k, dtype=bool), 0, jax.nn.relu(delta_d + distances))
    return _mean_of_present(jnp.max(hinges, axis=1), present)


def centroid_norm(centroids: ArrayLike, present: ArrayLike) -> Float[Array, ""]:
    """Returns the mean over present classes of ||m_c||, not squared: Eq. 11, which keeps margins from being had by growing.

    Args:
        centroids: (k, d). The paper does not say which; the released code takes the moving ones (`CentroidUpdate.momentum`), which
            makes this gradient 1 - momentum times smaller than that of the batch's.
        present: (k,) bool, the classes averaged over.

    Returns:
        Scalar; 0 if no class is present. The gradient at a centroid of 0 is 0.

    Raises:
        InputError: for shapes that do not fit.

    >>> float(centroid_norm(jnp.array([[3.0, 4.0], [9.0, 9.0]]), jnp.array([True, False])))
    5.0
    """
    centroids, present = _present(centroids, present)
    return _mean_of_present(numerics.safe_norm(centroids, axis=1), present)


def class_balanced_mean(values: ArrayLike, labels: ArrayLike, present: ArrayLike, *, axis_name: str | None = None) -> Float[Array, ""]:
    """Returns 1 / |C| sum_{c in C} 1 / n_c sum_{y = c} values: the mean over present classes of the means of their examples.

    Args:
        values: (n,) one number an example.
        labels: (n,) in [0, k).
        present: (k,) bool, C; examples of other classes are left out.
        axis_name: mapped axis over whose devices the batch is spread; n_c and the sums are then those of all devices.

    Returns:
        Scalar, the same on all devices; 0 if no class is present, NaN where a traced label is out of range.

    Raises:
        InputError: for shapes that do not fit, labels out of range.

    >>> float(class_balanced_mean(jnp.array([1.0, 2.0, 6.0]), jnp.array([0, 2, 2]), jnp.array([True, False, True])))
    2.5
    """
    values, present = numerics.lift(jnp.asarray(values)), jnp.asarray(present)
    if present.ndim != 1 or present.dtype != bool:
        raise InputError(f"present must be bool (k,), got {present.dtype} of shape {present.shape}.")
    labels = check.check_labels(labels, num_classes=present.shape[0])
    if values.shape != labels.shape or not jnp.issubdtype(values.dtype, jnp.floating):
        raise InputError(f"values must be floats {labels.shape}, one for each label, got {values.dtype} of shape {values.shape}.")
    one_hot, counts = _members(labels, present.shape[0], values.dtype, axis_name)
    # Chosen, not multiplied: what is left out may be NaN.
    sums = _summed(jnp.sum(jnp.where(one_hot > 0, values[:, None], 0), axis=0), axis_name)
    return _mean_of_present(sums / jnp.maximum(counts, 1), present)


def discriminative_loss(
    features: ArrayLike,
    noisy_features: ArrayLike,
    labels: ArrayLike,
    state: CentroidState,
    kernel: ArrayLike,
    bias: ArrayLike,
    *,
    delta_v: Scalar = 0.5,
    delta_d: Scalar = 5.0,
    momentum: Scalar = 0.99,
    alpha: Scalar = 0.5,
    lam: Scalar = 0.5,
    beta: Scalar = 1.0,
    gamma: Scalar = 1e-3,
    axis_name: str | None = None,
) -> DiscriminativeTerms:
    """Computes L_ours of Eq. 13 for a batch; the cross-entropy of the clean view is added by whoever calls.

    alpha * compact + lam * noisy + beta * margin + gamma * norm. As printed alpha = lam = 1; the released code averages over the clean
    and the noisy features of a class together, which is alpha = lam = 1/2 and halves their pull beside the margin's. The defaults are
    the released ones: as far as the code shows, what the paper's tables were made with. A weight of 0 takes a term out.

    Args:
        features: of the clean view, (n, d), from a forward pass of its own.
        noisy_features: of the noisy view, (n, d), in the order of the same labels.
        labels: (n,) in [0, k).
        state: centroids, see `update_centroids`.
        kernel: (d, k) of the last layer; gradients flow.
        bias: (k,).
        delta_v: see `compactness`.
        delta_d: see `class_margin`.
        momentum: see `update_centroids`.
        alpha: weight of compactness.
        lam: weight of the noisy alignment, the paper's lambda.
        beta: weight of the margin.
        gamma: weight of the centroids' norm, the paper's gamma_reg.
        axis_name: mapped axis over whose devices the batch is spread.

    Returns:
        DiscriminativeTerms(total, compact, noisy, margin, norm, state): of the whole batch, the same on all devices. NaN where a traced
        label is out of range: training stops there, where an example left out would go unseen.

    Raises:
        InputError: as the functions that it is made of.
    """
    update = update_centroids(state, features, labels, momentum=momentum, axis_name=axis_name)

    def attraction(view: ArrayLike) -> Array:
        values = compactness(view, labels, update.momentum, delta_v=delta_v)
        return class_balanced_mean(values, labels, update.present, axis_name=axis_name)

    compact, noisy = attraction(features), attraction(noisy_features)
    margin = class_margin(update.batch, update.present, kernel, bias, delta_d=delta_d)
    norm = centroid_norm(update.momentum, update.present)
    total = jnp.zeros_like(compact)
    for weight, term in zip((alpha, lam, beta, gamma), (compact, noisy, margin, norm), strict=True):
        if not (is_concrete(weight) and float(weight) == 0):  # 0 times a term that is not finite is NaN
            total = total + jnp.asarray(weight).astype(compact.dtype) * term
    return DiscriminativeTerms(total, compact, noisy, margin, norm, update.state)


def _rows(features: ArrayLike, labels: ArrayLike, centroids: ArrayLike) -> tuple[Array, Array, Array]:
    """Returns features (n, d), labels (n,) and centroids (k, d) of one dtype."""
    features, centroids = numerics.lift(features), numerics.lift(centroids)
    if features.ndim != 2 or centroids.ndim != 2 or features.shape[1] != centroids.shape[1]:
        raise InputError(f"features and centroids must have shapes (n, d) and (k, d), got {features.shape} and {centroids.shape}.")
    labels = check.check_labels(labels, num_classes=centroids.shape[0])
    if labels.shape != features.shape[:1]:
        raise InputError(f"there must be one label for each row of features, got {labels.shape[0]} for {features.shape[0]}.")
    return features, labels, centroids.astype(features.dtype)


def _present(centroids: ArrayLike, present: ArrayLike) -> tuple[Array, Array]:
    centroids, present = numerics.lift(centroids), jnp.asarray(present)
    if centroids.ndim != 2 or present.shape != centroids.shape[:1] or present.dtype != bool:
        shapes = f"{centroids.shape} and {present.dtype} {present.shape}"
        raise InputError(f"centroids must have shape (k, d) and present be bool (k,), got {shapes}.")
    return centroids, present


def _number(name: str, value: Scalar, dtype: Any, *, high: float = np.inf) -> Array:
    if is_concrete(value):
        number = as_number(value)
        if number is None or not 0 <= number <= high or number == np.inf:
            bounds = "be finite and at least 0" if high == np.inf else f"lie in [0, {high:g}]"
            raise InputError(f"{name} must {bounds}, got {value!r}.")
    return jnp.asarray(value).astype(dtype)


def _members(labels: Array, k: int, dtype: Any, axis_name: str | None) -> tuple[Float[Array, "n k"], Float[Array, " k"]]:
    """Returns which example is of which class, and how many each class has on all devices; all NaN if a label is of no class."""
    one_hot = jax.nn.one_hot(labels, k, dtype=dtype)
    known = jnp.all((labels >= 0) & (labels < k))
    return one_hot, _summed(jnp.where(known, jnp.sum(one_hot, axis=0), jnp.nan), axis_name)


def _summed(values: Array, axis_name: str | None) -> Array:
    return values if axis_name is None else jax.lax.psum(values, axis_name)


def _mean_of_present(values: Float[Array, " k"], present: Bool[Array, " k"]) -> Float[Array, ""]:
    count = jnp.maximum(jnp.sum(present, dtype=values.dtype), 1)
    return jnp.sum(jnp.where(present, values, 0)) / count
