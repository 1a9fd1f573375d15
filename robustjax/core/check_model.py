"""What makes a model's evaluation misleading, found with a handful of calls: a line each, which names the likely cause.

`check.check_logits_fn` is the door: it checks shapes and that values are known. Nothing here raises because of what a model
computes.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

FEW, MANY = 8, 64  # images looked at: for behaviour, and for accuracy
ENOUGH = 32  # labelled images, below which accuracy says little
FAINT = 1e-12  # L2 norm of a gradient per image under which normalised steps shrink (attacks.projections.unit_step)
NUDGE = 1e-5  # of a pixel: smooth outputs show it in float32, and hardly a pixel crosses the edge of a rounded level

Call = Callable[..., jax.Array]  # (images, seed=0) -> logits; the seed matters to randomized models only


def as_call(logits_fn: Callable, *, randomized: bool) -> Call:
    """Returns (images, seed=0) -> logits, which makes the keys of a randomized model anew in each call."""

    def call(images, seed=0):
        if not randomized:
            return logits_fn(images)
        return logits_fn(images, jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(len(images))))

    return call


def behaviour(call: Call, images: jax.Array, logits: jax.Array, *, randomized: bool, gradients: bool = True) -> list[str]:
    """Returns warnings about outputs and gradients on a few images.

    Args:
        call: from `as_call`.
        images: at most FEW, concrete.
        logits: call(images), finite.
        randomized: whether the model draws by keys.
        gradients: whether to differentiate.
    """
    first = _numpy(logits)
    warnings = []
    if (first >= 0).all() and (first <= 1).all() and np.allclose(first.sum(1), 1, atol=1e-3):
        warnings.append("outputs look like softmax probabilities (rows sum to 1): attacks and losses expect logits; leave the softmax out.")
    slack = 1e-3 * max(1.0, float(abs(first).max()))
    unsteady = _unsteady(call, images, first, slack, randomized)
    if unsteady:
        return [*warnings, unsteady]
    # Another batch around the first image, of the same size where that is 3 or more: its logits must not move.
    company = jnp.concatenate([images[:1], 1 - images[:1], jnp.zeros_like(images[:1]), images[3:]])
    others = _numpy(call(company))
    if abs(others[0] - first[0]).max() > slack:
        return [
            *warnings,
            "logits of an image depend on the rest of its batch: batch norm in train mode? Pass the model in evaluation mode.",
        ]
    if len(images) > 2 and (others == first[:1]).all():
        return [*warnings, "outputs are the same whatever the image: dead units, or weights that were not loaded."]
    return warnings + (_gradients(call, images, logits) if gradients else [])


def _unsteady(call: Call, images: jax.Array, first: np.ndarray, slack: float, randomized: bool) -> str | None:
    again = abs(_numpy(call(images)) - first).max() > slack
    if randomized and again:
        return "outputs differ between two calls with the same keys: the model draws from elsewhere too (a global generator, hidden state)."
    if again:
        return (
            "outputs are random (two calls differ): average over draws in the attack (randomized=True, eot), or switch dropout "
            "and noise off."
        )
    if randomized and (_numpy(call(images, 1)) == first).all():
        return "outputs do not change with the keys: dropout or noise is off, or the keys are not used; drop randomized=True."
    return None


def _gradients(call: Call, images: jax.Array, logits: jax.Array) -> list[str]:
    """Looks at the gradients of cross-entropy, which rounding of the softmax can lose, and of the margin, which it cannot."""
    lifted = logits.astype(jnp.float32) if jnp.finfo(logits.dtype).bits < 32 else logits  # as attacks do
    _, order = jax.lax.top_k(lifted, 2)
    top, second = (jax.nn.one_hot(order[:, j], logits.shape[1], dtype=lifted.dtype) for j in (0, 1))
    try:
        _, pull = jax.vjp(call, images)
        cross_entropy, margin = (_norms(pull(g.astype(logits.dtype))[0]) for g in (jax.nn.softmax(lifted) - top, second - top))
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0][:120]
        return [f"logits_fn cannot be differentiated ({reason}): of the attacks only Square can run."]

    def counted(which):
        return f"{int(which.sum())} of {len(which)} images"

    warnings = []
    bad = ~np.isfinite(cross_entropy) | ~np.isfinite(margin)
    zero, saturated = (cross_entropy == 0) & (margin == 0), (cross_entropy < FAINT) & (margin >= FAINT)
    faint = (margin > 0) & (margin < FAINT)
    if bad.any():
        warnings.append(
            f"the loss has NaN or infinite input gradients on {counted(bad)}: guard roots, divisions and logarithms in the model."
        )
    if zero.any():
        warnings.append(f"the loss has an input gradient of exactly zero on {counted(zero)}{_cause_of_zero(call, images, logits, zero)}.")
    if saturated.any():
        warnings.append(
            f"the input gradient of cross-entropy is lost to rounding on {counted(saturated)}, that of the margin is not: saturated "
            "logits (a large scale or a small temperature); attack with 'cw' or 'dlr', or divide the logits."
        )
    if faint.any():
        warnings.append(
            f"the input gradient vanishes (norm under {FAINT:g}) on {counted(faint)}: saturated sigmoid or tanh units, or logits of a "
            "tiny scale; gradient attacks will overstate robustness."
        )
    return warnings


def _cause_of_zero(call: Call, images: jax.Array, logits: jax.Array, zero: np.ndarray) -> str:
    nudge = max(NUDGE, 2 * float(jnp.finfo(images.dtype).eps))
    inward = jnp.where(images < 0.5, nudge, -nudge).astype(images.dtype)
    moved = (_numpy(call(images + inward)) != _numpy(logits)).any(1)[zero]
    if moved.mean() > 0.5:  # an edge may lie within a nudge of some image
        return (
            " although its outputs move with the pixels: stop_gradient, or an operation without slope (round, sign, argmax) in the "
            "model; gradient attacks will overstate robustness"
        )
    return (
        f", and outputs stay as they are when pixels move by {nudge:g}: inputs or features are rounded (quantisation, sign, step, "
        "argmax, one-hot); gradient attacks will overstate robustness"
    )


def accuracy(call: Call, images: jax.Array, labels: jax.Array, num_classes: int) -> list[str]:
    """Returns at most one warning: of inputs that the model wants otherwise, of labels in another order, or of mere guessing.

    Args:
        call: from `as_call`.
        images: (n, h, w, c), concrete; nothing is said of fewer than ENOUGH.
        labels: (n,).
        num_classes: k.
    """
    n, labels = len(images), np.asarray(labels)
    if n < ENOUGH:
        return []
    predicted = _numpy(call(images)).argmax(1)
    right = predicted == labels
    if right.mean() >= 0.9:
        return []
    found = f"accuracy on {n} clean images is {right.mean():.0%}"
    most_common = np.bincount(labels).max() / n  # what a model that always says the same may reach
    way, otherwise = _other_inputs(call, images, labels, right)
    if _better(otherwise, right) and otherwise.mean() >= most_common + 0.2:
        return [
            f"{found}, and {otherwise.mean():.0%} if they are {way}: the model expects that; put it inside logits_fn, since attacks "
            "work in [0, 1]."
        ]
    renamed = _renamed(predicted, labels)
    if _better(renamed, right) and renamed.mean() >= max(0.6, most_common + 0.3):
        return [f"{found}, and {renamed.mean():.0%} with classes renamed: the labels are in another order than the model's outputs."]
    guessing = 1 / num_classes
    if right.mean() <= guessing + np.sqrt(guessing * (1 - guessing) / n):
        return [
            f"{found}, no better than guessing among {num_classes} classes: weights that were not loaded, other labels, or inputs that "
            "the model wants otherwise (range, order of channels)."
        ]
    return []


def _other_inputs(call: Call, images: jax.Array, labels: np.ndarray, right: np.ndarray) -> tuple[str, np.ndarray]:
    """Returns the usual normalisation that the model does best with."""
    x = np.asarray(images, np.float32)
    mean, std = x.mean((0, 1, 2)), np.maximum(x.std((0, 1, 2)), 1e-3)
    ways = {
        "normalised by mean and standard deviation of each channel": (x - mean) / std,
        "scaled to [-1, 1]": 2 * x - 1,
        "given as levels from 0 to 255": 255 * x,
    }
    best = "", np.zeros_like(right)
    for way, changed in ways.items():
        try:
            scored = _numpy(call(jnp.asarray(changed, images.dtype))).argmax(1) == labels
        except Exception:  # whatever a model does with inputs that it was not made for: then it does not expect them
            continue
        best = max(best, (way, scored), key=lambda pair: pair[1].sum())
    return best


def _renamed(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns who is right if each output means the label that it meets most often, learnt on one half and scored on the other."""
    right = np.zeros(len(labels), bool)
    for half in (0, 1):
        scored = np.arange(len(labels)) % 2 == half
        for output in np.unique(predicted[scored]):
            met = labels[~scored & (predicted == output)]
            if len(met):
                here = scored & (predicted == output)
                right[here] = labels[here] == np.bincount(met).argmax()
    return right


def _better(new: np.ndarray, old: np.ndarray) -> bool:
    """Returns whether `new` is right on many more, beyond three standard deviations of a sign test on those that changed."""
    gain = int(new.sum()) - int(old.sum())
    return bool(gain >= max(0.2 * len(new), 3 * np.sqrt((new != old).sum())))


def _norms(gradients: jax.Array) -> np.ndarray:
    return np.sqrt(np.square(_numpy(gradients)).sum((1, 2, 3)))


def _numpy(values: jax.Array) -> np.ndarray:
    return np.asarray(values, np.float64)
