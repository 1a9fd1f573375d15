"""Augmentations by name, all of one form: stage(keys, images, targets, *, options) -> (images, targets).

    stage = compose((("crop_flip", {"pad": 4}), ("spider", {"tau": 8.0, "xi": 0.3})))
    images, targets = stage(keys, images, targets)

`targets` are distributions (b, k), from which stages read the number of classes. Real numbers among the options may be traced.
Examples do not depend on each other, except in `mixup` and `cutmix`, which take partners from the batch, and in groups of `deepaugment`.
"""

import functools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from robustjax.augment import basic, color, geometry, noise
from robustjax.augment.augmix import augmix
from robustjax.augment.deepaugment import ALL, kept_or_distorted
from robustjax.augment.esp import esp
from robustjax.augment.mixup import cutmix, mixup
from robustjax.augment.partners import NEXT, Pairing, Partners
from robustjax.augment.pixmix import mixing_pictures, pixmix
from robustjax.augment.radius import known_number
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


def cutout(keys: KeysLike, images: ArrayLike, targets: ArrayLike, *, size: int) -> Pair:
    """`cutout`."""
    return basic.cutout(keys, images, size=size), _targets(targets)


def color_jitter(
    keys: KeysLike,
    images: ArrayLike,
    targets: ArrayLike,
    *,
    brightness: Scalar = 0.0,
    contrast: Scalar = 0.0,
    saturation: Scalar = 0.0,
    hue: Scalar = 0.0,
) -> Pair:
    """`color_jitter`."""
    out = color.color_jitter(keys, images, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)
    return out, _targets(targets)


def rotation(keys: KeysLike, images: ArrayLike, targets: ArrayLike, *, degrees: Scalar, fill: str = "black") -> Pair:
    """`rotation`."""
    return geometry.rotation(keys, images, degrees=degrees, fill=fill), _targets(targets)


def perspective(
    keys: KeysLike, images: ArrayLike, targets: ArrayLike, *, distortion_scale: Scalar = 0.5, p: Scalar = 0.5, fill: str = "black"
) -> Pair:
    """`perspective`."""
    return geometry.perspective(keys, images, distortion_scale=distortion_scale, p=p, fill=fill), _targets(targets)


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
    number = known_number("alpha", alpha)
    if number is not None and not 0 <= number <= 1:
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


def mixup_stage(
    keys: KeysLike, images: ArrayLike, targets: ArrayLike, pairing: Pairing = NEXT, *, alpha: Scalar, lam: str = "example"
) -> Pair:
    """`mixup` of each example with its partner: the next one of the batch, or whom `pairing` says.

    Softened targets are mixed as well, so it goes before or after SPIDER.
    """
    return _mixed(mixup, keys, images, targets, pairing, alpha=alpha, lam=lam)


def cutmix_stage(
    keys: KeysLike, images: ArrayLike, targets: ArrayLike, pairing: Pairing = NEXT, *, alpha: Scalar, lam: str = "example"
) -> Pair:
    """`cutmix`, with partners as `mixup_stage` has them."""
    return _mixed(cutmix, keys, images, targets, pairing, alpha=alpha, lam=lam)


def _mixed(mix: Callable, keys: KeysLike, images: ArrayLike, targets: ArrayLike, pairing: Pairing, *, alpha: Scalar, lam: str) -> Pair:
    images, targets = none(keys, images, targets)
    keys = pairing.first(check.check_keys(keys)) if lam == "batch" else keys
    return mix(keys, images, targets, *pairing.partners(images, targets), alpha=alpha, lam=lam)


def augmix_stage(
    keys: KeysLike,
    images: ArrayLike,
    targets: ArrayLike,
    *,
    severity: Scalar = 3.0,
    width: Any = 3,
    depth: Any = -1,
    alpha: Scalar = 1.0,
    all_ops: bool = False,
) -> Pair:
    """`augmix`: one view, without the consistency loss."""
    return augmix(keys, images, severity=severity, width=width, depth=depth, alpha=alpha, all_ops=all_ops), _targets(targets)


def pixmix_stage(
    keys: KeysLike,
    images: ArrayLike,
    targets: ArrayLike,
    *,
    k: Any = 4,
    beta: Scalar = 3.0,
    severity: Scalar = 3.0,
    mixers: Any = 10_000,
    pictures: Any = None,
) -> Pair:
    """`pixmix` with pictures out of a set of `mixers` of `fractals`, or of `pictures`, see `mixing_pictures`."""
    images = check.check_images(images)
    check.check_keys(keys, images.shape[0])
    pictures = mixing_pictures(stream(keys, 1), images.shape[1:], count=mixers, pictures=pictures)
    return pixmix(stream(keys, 0), images, pictures, k=k, beta=beta, severity=severity), _targets(targets)


def deepaugment_stage(
    keys: KeysLike,
    images: ArrayLike,
    targets: ArrayLike,
    *,
    layers: Any,
    params: Any,
    distortions: Sequence[str] = (),
    group_size: Any = 8,
) -> Pair:
    """`deepaugment` inside the training step: an image stays as it is or passes one of the networks, all equally probable.

    So an epoch sees what it would see on average of originals with a copy by each network, with new distortions each time.

    Args:
        keys, images, targets: of a stage.
        layers: the layers of each network.
        params: their params, of each network.
        distortions: which may be drawn; none for all.
        group_size: see `deepaugment`. A group shares the network, too.
    """
    images = kept_or_distorted(keys, images, layers, params, distortions=distortions or ALL, group_size=group_size)
    return images, _targets(targets)


TABLE: dict[str, Callable[..., Pair]] = {
    "none": none,
    "crop": crop,
    "flip": flip,
    "crop_flip": crop_flip,
    "cutout": cutout,
    "color_jitter": color_jitter,
    "rotation": rotation,
    "perspective": perspective,
    "spider": spider_stage,
    "esp": esp_stage,
    "no_ls": no_ls,
    "std_ls": std_ls,
    "l2_sphere": l2_sphere,
    "l2_ball": l2_ball,
    "gaussian_noise": gaussian_noise,
    "uniform_noise": uniform_noise,
    "mixup": mixup_stage,
    "cutmix": cutmix_stage,
    "augmix": augmix_stage,
    "pixmix": pixmix_stage,
    "deepaugment": deepaugment_stage,
}
MIXING = ("mixup", "cutmix")
"""Entries that take partners from the batch."""

# The options that must all be 0 for an entry to change nothing. Entries that are not listed have no such setting.
STRENGTH: dict[str, tuple[str, ...]] = {
    "crop": ("pad",),
    "cutout": ("size",),
    "color_jitter": ("brightness", "contrast", "saturation", "hue"),
    "rotation": ("degrees",),
    "perspective": ("distortion_scale",),
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
        A stage without options: (keys, images, targets) -> (images, targets). It also takes `arrays`, {name: {option: arrays}}, options
        that are not known yet or should be no constants of a compiled program; and `partners`, see `augment.partners`, for rows of a batch
        that is spread over devices.

    Raises:
        InputError: for an unknown name or option, with the nearest known one.

    >>> compose([("crop_flip", {}), ("spidr", {})])
    Traceback (most recent call last):
    robustjax.core.check.InputError: unknown augmentation 'spidr'; did you mean 'spider'? Known: ...
    """
    return _chain([(place, name, options, ()) for place, (name, options) in enumerate(stages)])


def compose_views(
    stages: Sequence[tuple[str, Mapping[str, Any]]], *, count: int = 3, perturbed: str = "all"
) -> tuple[Callable[[KeysLike, ArrayLike, ArrayLike], Pair], ...]:
    """Chains entries into views of one image: what stands before 'augmix' is drawn once for all, what comes after for each view.

    The first view is without it: AugMix's "clean" image, with the same crop and flip as the others (Hendrycks et al., ICLR 2020,
    section 3). Given the same keys, its stages up to there draw what `compose` draws.

    Args:
        stages: as for `compose`; 'augmix' is among them once.
        count: of views.
        perturbed: which views the stages after it act on: 'all', 'clean' (the first alone) or 'augmented' (the others alone). SPIDER and
            ESP do not say how they go with AugMix's three views. Mixup and CutMix act on all, with the same draws.

    Returns:
        `count` stages without options, as `compose` returns them.

    Raises:
        InputError: as `compose`; where 'augmix' is missing or twice there; for another `perturbed`.
    """
    places = [place for place, (name, _) in enumerate(stages) if name == "augmix"]
    if len(places) != 1:
        raise InputError(f"views differ by 'augmix', which must be in config.augment once, got {[name for name, _ in stages]}.")
    if perturbed not in ("all", "clean", "augmented"):
        raise InputError(f"perturbed must be 'all', 'clean' or 'augmented', got {perturbed!r}.")

    def chain(view: int) -> Callable:
        acts = perturbed == "all" or (perturbed == "clean") == (view == 0)
        chosen = []
        for place, (name, options) in enumerate(stages):
            # Views of one mixture, or their agreement would mean nothing: the same partners, shares and boxes.
            shared = place < places[0] or name in MIXING
            if shared or (view > 0 if place == places[0] else acts):
                chosen.append((place, name, options, () if shared else (view,)))
        return _chain(chosen)

    return tuple(map(chain, range(count)))


def _chain(stages: list[tuple[int, str, Mapping[str, Any], tuple[int, ...]]]) -> Callable[[KeysLike, ArrayLike, ArrayLike], Pair]:
    """Returns stages one after the other, each (its stream, name, options, the stream of this stream)."""
    made = [(place, name, registry.make(TABLE, name, kind="augmentation", **options), within) for place, name, options, within in stages]

    def stage(
        keys: KeysLike,
        images: ArrayLike,
        targets: ArrayLike,
        *,
        arrays: Mapping[str, Mapping[str, Any]] = types.MappingProxyType({}),
        partners: Partners = lambda place: NEXT,
    ) -> Pair:
        """Applies the stages one after the other."""
        images, targets = none(keys, images, targets)
        if made:
            check.check_keys(keys, images.shape[0])
        for place, name, one, within in made:
            pairing = (partners(place),) if name in MIXING else ()
            own = functools.reduce(stream, within, stream(keys, place))
            images, targets = one(own, images, targets, *pairing, **arrays.get(name, {}))
        return images, targets

    return stage


def _targets(targets: ArrayLike) -> Float[Array, "b k"]:
    num_classes = jnp.shape(targets)[-1] if jnp.ndim(targets) == 2 else 0
    if num_classes == 0:
        raise InputError(f"stages take targets (b, k), got shape {jnp.shape(targets)}; turn labels into jax.nn.one_hot(labels, k).")
    return as_targets(targets, num_classes=num_classes, dtype=numerics.lift(targets).dtype)
