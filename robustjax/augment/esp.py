"""ESP: perturbations of random direction and size, with labels that follow the size."""

import jax.numpy as jnp
import numpy as np

from robustjax.augment import radius as radii
from robustjax.augment.smoothing import as_targets, check_xi, exponential_confidence, soft_targets
from robustjax.augment.sphere import l2_noise
from robustjax.core import check, numerics
from robustjax.core.check import InputError
from robustjax.core.rng import stream
from robustjax.core.types import ArrayLike, KeysLike, Perturbed, Scalar


def esp(
    keys: KeysLike,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    epsilon: Scalar,
    tau: Scalar,
    xi: Scalar,
    num_classes: int,
    sigma: Scalar | None = None,
) -> Perturbed:
    """Moves each image in a random direction by a distance around ε, and softens the label where it is beyond ε.

    Algorithm 1 of ESP: size "k ~ N_trunc(ε, σ, ε + τ, ε - τ)", direction "u = v/‖v‖, v ~ N(0, I)", δ = k u; the
    confidence is 1 up to ε and falls exponentially so that it "interpolates (ε, 1) and (ε + τ, 1/C + ξ)" (section 3.2).
    The printed λ = ln(C/(1 + ξC))/(τ - ε) does not go through these points; ln(C/(1 + ξC))/τ does.
    The image stays in [0, 1] by clipping-aware rescaling, and the confidence is that of the distance really gone.
    SPIDER's curve is the one of ε = t/4, τ = 3t/4 here, with another law of the radius.

    Args:
        keys: one PRNG key for each image.
        images: float (b, h, w, c) in [0, 1].
        labels: (b,) whole numbers, or (b, num_classes) distributions.
        epsilon: ε, the mean L2 norm, in units of [0, 1] pixels, and where smoothing begins. May be traced, like the next three.
        tau: τ in [0, ε]: half the width of the law of sizes; the paper uses τ ≈ ε. At 0 every size is ε and labels stay hard.
        xi: ξ in [0, 1 - 1/C]; `xi_from_ratio` gives the paper's.
        num_classes: C, at least 2.
        sigma: σ of the Gaussian before it is cut; the paper's τ/2 if None.

    Returns:
        Perturbed(images, targets (b, C), size (b,)), in the dtype of `images` but at least float32.

    Raises:
        InputError: for tau < 0 or above epsilon, negative sigma, xi outside [0, 1 - 1/C], labels out of range, keys or labels
            that are not one for each image, or images that are not float (b, h, w, c) in [0, 1].
    """
    images = numerics.lift(check.check_images(images))
    check.check_keys(keys, images.shape[0])
    targets = as_targets(labels, num_classes=num_classes, dtype=images.dtype, b=images.shape[0])
    for name, value in (("epsilon", epsilon), ("tau", tau), *([] if sigma is None else [("sigma", sigma)])):
        radii.check_size(name, value)
    sigma = tau / 2 if sigma is None else sigma
    # As they will be computed with: 0.3 and float32(0.3) are one number then. In NumPy, since jax would stage it inside jit.
    if check.is_concrete(epsilon, tau) and not np.asarray(tau, images.dtype) <= np.asarray(epsilon, images.dtype):
        raise InputError(
            f"tau must not exceed epsilon (sizes are drawn from [epsilon - tau, epsilon + tau]), got tau {tau}, epsilon {epsilon}."
        )
    check_xi(xi, num_classes=num_classes)
    epsilon, tau, xi, sigma = (jnp.asarray(x).astype(images.dtype) for x in (epsilon, tau, xi, sigma))
    size = radii.truncated_normal_radius(stream(keys, 1), mean=epsilon, stddev=sigma, low=epsilon - tau, high=epsilon + tau)
    images, size = l2_noise(stream(keys, 0), images, size)
    confidence = exponential_confidence(size, start=epsilon, width=tau, floor=1 / num_classes + xi)
    return Perturbed(images, soft_targets(confidence, targets, num_classes=num_classes), size)
