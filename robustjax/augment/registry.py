"""Augmentations by name, all of one form: stage(keys, images, targets, *, options) -> (images, targets).

    stage = compose((("crop_flip", {"pad": 4}), ("spider", {"tau": 8.0, "xi": 0.3})))
    images, targets = stage(keys, images, targets)

`targets` are distributions (b, k), from which stages read the number of classes. Numbers among the options may be traced,
except `pad`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from robustjax.augment import basic, noise
from robustjax.augment.esp import esp
from robustjax.augment.smoothing import as_targets, soft_targets
from robustjax.augment.spider import spider
from robustjax.core import check, numerics, registry
from robustjax.core.check import InputError
from robustjax.core.rng import stream
from robustjax.core.types import ArrayLike, KeysLike, Scalar

Pair = tuple[Float[Array, "b h w c"], Float[Array, "b k"]]


def none(keys: KeysLike, images: ArrayLike, targets: ArrayLike) -> Pair:
    """Changes nothing."""
    return check.check_images(images), _targets(targets)


def crop(keys: KeysLike, images: ArrayLike, targets: ArrayLike, *, pad: int = 4) -> Pair:
    """`random_crop`."""
    return basic.random_crop(keys, images, pad=pad), _targets(targets)


def flip(keys: KeysLike, images: ArrayLike, targets: ArrayLike) -> Pair:
    """`random_flip`."""
    return basic.random_flip(keys, images), _targets(targets)


def crop_flip(keys: KeysLike, images: ArrayLike, targets: ArrayLike, *, pad: int = 4) -> Pair:
    """`random_crop`, then `random_flip`: what CIFAR is usually trained with."""
    check.check_keys(keys)
    return basic.random_flip(stream(keys, 1), basic.random_crop(stream(keys, 0), images, pad=pad)), _targets(targets)


def spider_stage(keys: KeysLike, images: ArrayLike, targets: ArrayLike, *, tau: Scalar, xi: Scalar) -> Pair:
    """`spider`."""
    return spider(keys, images, targets, tau=tau, xi=xi, num_classes=_targets(targets).shape[1])[:2]


def esp_stage(
    keys: KeysLike, images: ArrayLike, targets: ArrayLike, *, epsilon: Scalar, tau: Scalar, xi: Scalar, sigma: Scalar | None = None
) -> Pair:
    """`esp`."""
    return esp(keys, images, targets, epsilon=epsilon, tau=tau, xi=xi, sigma=sigma, num_classes=_targets(targets).shape[1])[:2]


def no_ls(keys: KeysLike, images: ArrayLike, targets: ArrayLike, *, tau: Scalar) -> Pair:
    """SPIDER's perturbation with the label as it was: 'No LS' of its ablation."""
    return noise.l2_uniform_radius(keys, images, tau=tau), _targets(targets)


def std_ls(keys: KeysLike, images: ArrayLike, targets: ArrayLike, *, alpha: Scalar) -> Pair:
    """Standard label smoothing of unmoved images: 'STD LS' of SPIDER's ablation.

    Args:
        keys: not used.
        images: float (b, h, w, c) in [0, 1].
        targets: (b, k).
        alpha: "assigns 1 - α for the true label and α/(C - 1) for the other labels" (ESP, section 3.1), in [0, 1].

    Returns:
        The images and the smoothed targets.

    Raises:
        InputError: for an alpha outside [0, 1].
    """
    if check.is_concrete(alpha) and not 0 <= float(alpha) <= 1:
        raise InputError(f"alpha is the share taken from the true label and must lie in [0, 1], got {alpha}.")
    images, targets = check.check_images(images), _targets(targets)
    confidence = jnp.full(targets.shape[:1], 1 - alpha, targets.dtype)
    return images, soft_targets(confidence, targets, num_classes=targets.shape[1])


def l2_sphere(keys: KeysLike, images: ArrayLike, targets: ArrayLike, *, radius: Scalar) -> Pair:
    """L2 noise of one fixed radius."""
    return noise.l2_sphere(keys, images, radius=radius), _targets(targets)


def l2_ball(keys: KeysLike, images: ArrayLike, targets: ArrayLike, *, tau: Scalar) -> Pair:
    """Noise uniform in the L2 ball."""
    return noise.l2_ball(keys, images, tau=tau), _targets(targets)


def gaussian_noise(keys: KeysLike, images: ArrayLike, targets: ArrayLike, *, std: Scalar) -> Pair:
    """Gaussian noise, clipped to [0, 1]."""
    return noise.gaussian_noise(keys, images, std=std), _targets(targets)


def uniform_noise(keys: KeysLike, images: ArrayLike, targets: ArrayLike, *, amplitude: Scalar) -> Pair:
    """Uniform noise, clipped to [0, 1]."""
    return noise.uniform_noise(keys, images, amplitude=amplitude), _targets(targets)


TABLE: dict[str, Callable[..., Pair]] = {
    "none": none,
    "crop": crop,
    "flip": flip,
    "crop_flip": crop_flip,
    "spider": spider_stage,
    "esp": esp_stage,
    "no_ls": no_ls,
    "std_ls": std_ls,
    "l2_sphere": l2_sphere,
    "l2_ball": l2_ball,
    "gaussian_noise": gaussian_noise,
    "uniform_noise": uniform_noise,
}

# The options that must all be 0 for an entry to change nothing. Entries that are not listed have no such setting.
STRENGTH: dict[str, tuple[str, ...]] = {
    "crop": ("pad",),
    "spider": ("tau",),
    "esp": ("epsilon", "tau"),
    "no_ls": ("tau",),
    "std_ls": ("alpha",),
    "l2_sphere": ("radius",),
    "l2_ball": ("tau",),
    "gaussian_noise": ("std",),
    "uniform_noise": ("amplitude",),
}


def compose(stages: Sequence[tuple[str, Mapping[str, Any]]]) -> Callable[[KeysLike, ArrayLike, ArrayLike], Pair]:
    """Chains entries of the table; each draws from its own stream, which depends on its place in the chain.

    Args:
        stages: pairs (name, options), in the order they act. May be empty.

    Returns:
        A stage without options: (keys, images, targets) -> (images, targets).

    Raises:
        InputError: for an unknown name or option, with the nearest known one.

    >>> compose([("crop_flip", {}), ("spidr", {})])
    Traceback (most recent call last):
    robustjax.core.check.InputError: unknown augmentation 'spidr'; did you mean 'spider'? Known: ...
    """
    made = [registry.make(TABLE, name, kind="augmentation", **options) for name, options in stages]

    def stage(keys: KeysLike, images: ArrayLike, targets: ArrayLike) -> Pair:
        """Applies the stages one after the other."""
        images, targets = none(keys, images, targets)
        if made:
            check.check_keys(keys, images.shape[0])
        for place, one in enumerate(made):
            images, targets = one(stream(keys, place), images, targets)
        return images, targets

    return stage


def _targets(targets: ArrayLike) -> Float[Array, "b k"]:
    num_classes = jnp.shape(targets)[-1] if jnp.ndim(targets) == 2 else 0
    if num_classes == 0:
        raise InputError(f"stages take targets (b, k), got shape {jnp.shape(targets)}; turn labels into jax.nn.one_hot(labels, k).")
    return as_targets(targets, num_classes=num_classes, dtype=numerics.lift(targets).dtype)
