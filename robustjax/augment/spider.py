"""SPIDER: smoothing perturbations in decreasing radii."""

import jax.numpy as jnp

from robustjax.augment import radius as radii
from robustjax.augment.smoothing import as_targets, check_xi, exponential_confidence, soft_targets
from robustjax.augment.sphere import l2_noise
from robustjax.core import check, numerics
from robustjax.core.rng import stream
from robustjax.core.types import ArrayLike, KeysLike, Perturbed, Scalar


def spider(keys: KeysLike, images: ArrayLike, labels: ArrayLike, *, tau: Scalar, xi: Scalar, num_classes: int) -> Perturbed:
    """Moves each image in a random direction by a random radius, and trusts its label less the farther it went.

    Algorithm 2 of "Utilizing Label Smoothing as a Tool for Embedding Perturbation Uncertainty": "δ = ε/‖ε‖ · r,
    ε ~ N(0, I), r ~ Uniform(0, τ)"; the confidence s(‖δ‖) is 1 up to τ/4, then falls exponentially to 1/C + ξ at τ.
    The image stays in [0, 1] by clipping-aware rescaling (appendix E.1.1; see `rescale_to_box`). Where the box ends
    before r, s takes the distance that was really gone; the paper does not say.

    Args:
        keys: one PRNG key for each image.
        images: float (b, h, w, c) in [0, 1].
        labels: (b,) whole numbers, or (b, num_classes) distributions, so that it composes with Mixup.
        tau: τ, the largest L2 norm, in units of [0, 1] pixels; 0 changes neither image nor label. The paper searched
            [0, 20] for CIFAR and [0, 30] for Tiny-ImageNet. May be traced: a schedule does not recompile.
        xi: ξ in [0, 1 - 1/C]: confidence above chance at τ; the upper end leaves labels hard. May be traced.
        num_classes: C, at least 2.

    Returns:
        Perturbed(images, targets (b, C), size (b,)), in the dtype of `images` but at least float32.

    Raises:
        InputError: for tau < 0, xi outside [0, 1 - 1/C], labels out of range, keys or labels that are not one for each image,
            or images that are not float (b, h, w, c) in [0, 1].
    """
    images = numerics.lift(check.check_images(images))
    check.check_keys(keys, images.shape[0])
    targets = as_targets(labels, num_classes=num_classes, dtype=images.dtype, b=images.shape[0])
    radii.check_size("tau", tau)
    check_xi(xi, num_classes=num_classes)
    tau, xi = (jnp.asarray(x).astype(images.dtype) for x in (tau, xi))
    images, size = l2_noise(stream(keys, 0), images, radii.uniform_radius(stream(keys, 1), tau=tau))
    confidence = exponential_confidence(size, start=tau / 4, width=3 * tau / 4, floor=1 / num_classes + xi)
    return Perturbed(images, soft_targets(confidence, targets, num_classes=num_classes), size)
