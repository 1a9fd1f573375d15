"""Errors that say what was wrong, what was expected and how to mend it.

The checks stand at the doors of the library (attacks, corruptions, metrics, augmentations). Shapes and dtypes are always
checked; values only where they are known, that is outside of `jax.jit`, `vmap` and their kin. The checks return what they
were given as JAX arrays, so NumPy arrays are welcome at every door.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.core import check_model

TOLERANCE = 1e-6  # how far rounding may carry a pixel or a probability out of [0, 1]


class InputError(ValueError):
    """What a user passed cannot be used; the message is one line. Launchers print it without a traceback."""


def is_concrete(*trees: Any) -> bool:
    """Returns whether every leaf has known values, that is, none is traced by jit, grad, vmap or shard_map.

    >>> is_concrete({"a": 1.0}, jax.numpy.zeros(2)), jax.eval_shape(lambda x: jax.numpy.asarray(is_concrete(x)), 1.0).dtype
    (True, dtype('bool'))
    """
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def as_number(value: Any) -> float | None:
    """Returns a number of Python, NumPy or JAX whose value is known as a float; None for anything else, strings included.

    >>> as_number(np.float32(0.5)), as_number(jax.numpy.int32(2)), as_number("8/255"), as_number([1.0]), as_number([[1], [2, 3]])
    (0.5, 2.0, None, None, None)
    """
    # In NumPy, which computes at once also where something else is being traced.
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):  # rows of unequal length, PRNG keys
        return None
    return float(array) if array.ndim == 0 and jnp.issubdtype(array.dtype, jnp.number) and not np.iscomplexobj(array) else None


def _as_array(value: Any) -> jax.Array:
    """Returns a JAX array; what was concrete stays so, even while something else is being traced."""
    if isinstance(value, jax.Array):
        return value
    with jax.ensure_compile_time_eval(), jax.debug_nans(False):  # NaN gets our own message
        return jnp.asarray(value)


@jax.jit
def _summary(values):
    """Returns (all finite, least, largest), non-finite values counted as 0 so that NaN checks of jax stay quiet."""
    finite = jnp.isfinite(values)
    values = jnp.where(finite, values, 0)
    return finite.all(), values.min(), values.max()


def _summarise(values: jax.Array) -> tuple[bool, float, float]:
    with jax.ensure_compile_time_eval():
        finite, low, high = _summary(values)
        return bool(finite), float(low), float(high)


def check_images(images: Any, *, name: str = "images") -> jax.Array:
    """Checks that images are a batch of floats (b, h, w, c) in [0, 1].

    Args:
        images: array of JAX or NumPy.
        name: what the message calls them.

    Returns:
        The images as a JAX array, of the dtype that they had.

    Raises:
        InputError: for another rank or dtype, an empty batch and, where values are known, NaN or values outside [0, 1];
            the message names the likely cause.
    """
    images = _as_array(images)
    if images.ndim == 3:
        raise InputError(f"{name} are unbatched: expected (b, h, w, c), got {images.shape}; add an axis with {name}[None].")
    if images.ndim != 4:
        raise InputError(f"{name} must have shape (b, h, w, c), got {images.shape}.")
    if 0 in images.shape:
        raise InputError(f"{name} are empty: their shape is {images.shape}; at least one example is needed.")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        mend = "divide by 255" if images.dtype == jnp.uint8 else "convert them to float32 in [0, 1]"
        raise InputError(f"{name} must be floats in [0, 1], got {images.dtype}; {mend}.")
    if not is_concrete(images):
        return images
    finite, low, high = _summarise(images)
    if not finite:
        raise InputError(f"{name} hold NaN or infinite values; look at what made them.")
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        raise InputError(f"{name} must lie in [0, 1], got values from {low:.4g} to {high:.4g}; {_cause(low, high)}.")
    return images


def _cause(low: float, high: float) -> str:
    if low >= -TOLERANCE and 2 < high <= 256:
        return "they look like levels of 255: divide by 255"
    if low >= -1 - TOLERANCE and high <= 1 + TOLERANCE:
        return "they look scaled to [-1, 1]: pass (x + 1) / 2 and put that scaling inside the model"
    if low < -TOLERANCE and max(-low, high) <= 8:
        return "they look normalised by mean and standard deviation: normalisation belongs inside the model"
    return "rescale or clip them"


def check_labels(labels: Any, *, num_classes: int, name: str = "labels") -> jax.Array:
    """Checks class numbers (b,) in [0, num_classes).

    Args:
        labels: integers (b,).
        num_classes: k.
        name: what the message calls them.

    Returns:
        The labels as int32 (b,).

    Raises:
        InputError: for another rank or dtype and, where values are known, the first label out of range.
    """
    labels = _as_array(labels)
    if labels.ndim == 2:
        raise InputError(f"{name} must be class numbers (b,), got {labels.shape}; use argmax over the last axis for one-hot rows.")
    if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise InputError(f"{name} must be integers of shape (b,), got {labels.dtype} of shape {labels.shape}.")
    if is_concrete(labels):
        values = np.asarray(labels)
        wrong = np.flatnonzero((values < 0) | (values >= num_classes))
        if len(wrong):
            hint = " (-1 often marks unlabelled examples: leave them out)" if values[wrong[0]] == -1 else ""
            raise InputError(
                f"{name} must lie in [0, {num_classes - 1}], got {values[wrong[0]]} at position {wrong[0]} "
                f"and {len(wrong)} of {len(values)} out of range{hint}."
            )
        with jax.ensure_compile_time_eval():
            return labels.astype(jnp.int32)
    return labels.astype(jnp.int32)


def check_targets(targets: Any, *, num_classes: int) -> jax.Array:
    """Checks that targets are distributions over the classes, (b, k).

    Args:
        targets: floats (b, k), rows sum to 1.
        num_classes: k.

    Returns:
        The targets as a JAX array, of the dtype that they had.

    Raises:
        InputError: for another shape or dtype and, where values are known, rows that are no distribution.
    """
    targets = _as_array(targets)
    if not jnp.issubdtype(targets.dtype, jnp.floating):
        raise InputError(f"targets must be float distributions (b, {num_classes}), got {targets.dtype}; use jax.nn.one_hot for labels.")
    if targets.ndim != 2 or targets.shape[1] != num_classes:
        raise InputError(f"targets must have shape (b, {num_classes}), got {targets.shape}.")
    if is_concrete(targets) and targets.shape[0]:
        values = np.asarray(targets, np.float64)
        # Each value is rounded relative to itself, so the sum is off by about eps, whatever k. NaN fails every comparison.
        slack = 1e-5 + 4 * float(jnp.finfo(targets.dtype).eps)
        wrong = ~((values >= -slack).all(1) & (abs(values.sum(1) - 1) <= slack))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise InputError(
                f"targets must be distributions: row {row} holds values from {values[row].min():.4g} to {values[row].max():.4g} "
                f"and sums to {values[row].sum():.6g}; expected values >= 0 that sum to 1."
            )
    return targets


def check_keys(keys: Any, b: int | None = None) -> jax.Array:
    """Checks that there is one typed PRNG key for each of `b` examples.

    Args:
        keys: typed keys (b,).
        b: number of examples; None where keys alone say how many there are.

    Returns:
        The keys.

    Raises:
        InputError: for raw uint32 keys, a single key, or another number of keys.
    """
    if not isinstance(keys, jax.Array) or not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        what = f"{keys.dtype} of shape {keys.shape}" if hasattr(keys, "dtype") else type(keys).__name__
        raise InputError(f"keys must be typed PRNG keys, got {what}; use core.example_keys(jax.random.key(seed), ids).")
    if keys.ndim == 0:
        raise InputError("keys must be one key an example, got a single key; use core.example_keys(key, ids).")
    if keys.ndim != 1 or b not in (None, keys.shape[0]):
        raise InputError(f"keys must have shape ({'b' if b is None else b},), one for each example, got {keys.shape}.")
    return keys


def check_logits(logits: Any, *, name: str = "logits") -> jax.Array:
    """Checks that logits are floats (b, k).

    Args:
        logits: array of JAX or NumPy.
        name: what the message calls them.

    Returns:
        The logits as a JAX array, of the dtype that they had.

    Raises:
        InputError: for another rank or dtype.
    """
    logits = _as_array(logits)
    if logits.ndim != 2 or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise InputError(f"{name} must be floats of shape (b, k), got {logits.dtype} of shape {logits.shape}.")
    return logits


def check_output(out: Any, b: int) -> int:
    """Checks the (abstract) output of a model for `b` images and returns the number of classes k.

    Raises:
        InputError: unless it is one float array (b, k) with k > 1.
    """
    shape, dtype = getattr(out, "shape", None), getattr(out, "dtype", None)
    if shape is None:
        raise InputError(f"logits_fn must return one array of logits (b, k), got {type(out).__name__}; return its logits only.")
    if len(shape) != 2 or shape[0] != b or shape[1] < 2:
        raise InputError(f"logits_fn must return logits (b, k) with k > 1, got {shape} for {b} images.")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f"logits_fn must return floats, got {dtype}; return logits rather than predicted classes.")
    return shape[1]


def check_logits_fn(
    logits_fn: Any, images: Any, labels: Any = None, *, dlr: bool = False, randomized: bool = False, gradients: bool = True
) -> list[str]:
    """Checks a model on a few images before it is evaluated: its shape always, its behaviour where values are known.

    A handful of calls: 8 images for behaviour, up to 64 for accuracy where there are labels of at least 32.

    Args:
        logits_fn: images (b, h, w, c) -> logits (b, k), in evaluation mode; where `randomized`, (images, keys) -> logits.
        images: a batch of floats in [0, 1], clean.
        labels: int (b,), or None.
        dlr: whether the DLR objective is wanted, which needs four classes.
        randomized: whether the model draws by one key per example.
        gradients: whether to look at input gradients; False for a model that is only ever called.

    Returns:
        One line for each thing that makes attacks or metrics misleading, with the likely cause: outputs that are
        probabilities, that depend on the rest of the batch, on chance or (where `randomized`) not on the keys, or that are the
        same for all images; input gradients that are zero, vanish, are lost in saturated logits, are not finite or do not exist;
        accuracy that is much better with normalised inputs or other names of the classes, or no better than guessing. Empty
        where all is well or values are traced.

    Raises:
        InputError: if the output is not a float (b, k) with k > 1, labels do not fit, `dlr` meets k < 4, or logits are not
            finite.
    """
    images = check_images(images)
    b = images.shape[0]
    call = check_model.as_call(logits_fn, randomized=randomized)
    k = check_output(jax.eval_shape(call, images), b)
    if dlr and k < 4:
        raise InputError(f"the DLR objective compares four classes and the model has {k}; use objective='ce'.")
    if labels is not None:
        labels = check_labels(labels, num_classes=k)
        if labels.shape[0] != b:
            raise InputError(f"labels must have shape ({b},), one for each image, got {labels.shape}.")
    images, few = images[: check_model.MANY], images[: check_model.FEW]
    logits = call(few)
    if not is_concrete(images, labels, logits):
        return []
    finite = np.isfinite(np.asarray(logits, np.float64)).all(1)
    if not finite.all():
        raise InputError(f"logits_fn returns NaN or infinite values for {(~finite).sum()} of {len(finite)} images.")
    found = check_model.behaviour(call, few, logits, randomized=randomized, gradients=gradients)
    return found if labels is None else found + check_model.accuracy(call, images, labels[: check_model.MANY], k)
