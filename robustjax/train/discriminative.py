"""Objectives of "Discriminative loss with Gaussian noise injection" (section 7.1): its own, and what it compares with.

Each is `name(**options) -> Objective`. The noisy view of a batch has the same examples; crops, flips and the stages after them are drawn
once more for it (the released code does so; classes are aligned, not images), or are those of the clean view with `shared_crop`. Gaussian
noise is then added, and clipped to [0, 1]. Where views are forwarded one by one, each pass moves the running statistics of batch norm, the
clean one first. The paper's "normal" and "noisy only" are plain classification, with the methods 'none' and 'gaussian_noise'.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from robustjax import losses
from robustjax.augment.noise import gaussian_noise
from robustjax.core import rng
from robustjax.core.check import InputError, as_number
from robustjax.models.functional import Output
from robustjax.train.objectives import Given, Loss, Network, Objective

Setting = Any
"""A value from a configuration, of whatever kind: checked here, and refused in one line."""


def clean_and_noisy(*, stddev: Setting = 0.06, shared_crop: Setting = False) -> Objective:
    """Cross-entropy over one batch of the clean images and their noisy copies: one forward pass of twice the batch, one normalisation.

    The training accuracy that is logged is that on clean images.

    Args:
        stddev: of the noise, in units of [0, 1] pixels.
        shared_crop: whether the noisy view has the crop and flip of the clean one.
    """
    views = _views(stddev, shared_crop)

    def loss(network: Network, params: dict, batch_stats: dict, given: Given, prepared: tuple[Array, Array]) -> Loss:
        images = jnp.concatenate([given.images, prepared[0]])
        keys = jnp.concatenate([given.keys, _noisy_keys(given)])
        output, batch_stats = network.train(params, batch_stats, images, keys)
        value = jnp.mean(losses.cross_entropy(output.logits, jnp.concatenate([given.targets, prepared[1]])))
        return Loss(value, batch_stats, output.logits[: len(given.images)], {})

    return Objective(_noisy(stddev, shared_crop), loss, loss, views=views)


def stability(*, stddev: Setting = 0.06, weight: Setting = 1.0, shared_crop: Setting = True) -> Objective:
    """CE(f(x), y) + weight ||q(x) - q(x + noise)||: stability training (Zheng et al., CVPR 2016) on the features, as the paper compares.

    Args:
        stddev: of the noise, in units of [0, 1] pixels.
        weight: of the distance, which is not squared; 1 as printed.
        shared_crop: as elsewhere; True here, since the method is about one image and its noisy copy.
    """
    views = _views(stddev, shared_crop)
    _check(weight=weight)

    def loss(network: Network, params: dict, batch_stats: dict, given: Given, prepared: tuple[Array, Array]) -> Loss:
        clean, noisy, batch_stats = _both(network, params, batch_stats, given, prepared)
        terms = {
            "cross_entropy": jnp.mean(losses.cross_entropy(clean.logits, given.targets)),
            "distance": jnp.mean(losses.stability(clean.features, noisy.features)),
        }
        return Loss(terms["cross_entropy"] + weight * terms["distance"], batch_stats, clean.logits, terms)

    return Objective(_noisy(stddev, shared_crop), loss, loss, ("cross_entropy", "distance"), views)


def discriminative(
    *,
    stddev: Setting = 0.06,
    delta_v: Setting = 0.5,
    delta_d: Setting = 5.0,
    momentum: Setting = 0.99,
    alpha: Setting = 0.5,
    noisy: Setting = 0.5,
    beta: Setting = 1.0,
    gamma_reg: Setting = 1e-3,
    shared_crop: Setting = False,
) -> Objective:
    """CE(f(x), y) + alpha L_compact + noisy L_noisy + beta L_margin + gamma_reg L_reg: Eqs. 7 to 13; see losses.discriminative_loss.

    Two forward passes, clean and then noisy; with noisy = 0 the first alone (the clean ablations of Table 5). Terms are averaged by class
    over the batch of all devices, and centroids go from step to step in the training state: both are the same on any count of devices.

    Args:
        stddev: of the noise, in units of [0, 1] pixels.
        delta_v: radius around a class's centroid within which nothing pulls.
        delta_d: distance of a centroid from the other classes from which on nothing pushes.
        momentum: of the centroids; the paper says "such as 0.9", its released code has 0.99.
        alpha: weight of compactness. 1/2 with noisy = 1/2 is the released code's, 1 with 1 what the paper prints.
        noisy: weight of the noisy alignment, the paper's lambda.
        beta: weight of the margin.
        gamma_reg: weight of the centroids' norm.
        shared_crop: whether the noisy view has the crop and flip of the clean one.
    """
    _check(delta_v=delta_v, delta_d=delta_d, alpha=alpha, noisy=noisy, beta=beta, gamma_reg=gamma_reg)
    if not 0 <= (-1 if as_number(momentum) is None else as_number(momentum)) <= 1:
        raise InputError(f"config.objective.momentum must be a number in [0, 1], got {momentum!r}.")
    views = _views(stddev, shared_crop)
    parts = ("compact", "noisy", "margin", "norm") if noisy else ("compact", "margin", "norm")
    options = dict(delta_v=delta_v, delta_d=delta_d, momentum=momentum, alpha=alpha, lam=noisy, beta=beta, gamma=gamma_reg)

    def loss(network: Network, params: dict, batch_stats: dict, given: Given, prepared: tuple[Array, Array] | None) -> Loss:
        if prepared is None:
            clean, batch_stats = network.train(params, batch_stats, given.images, given.keys)
            other = clean
        else:
            clean, other, batch_stats = _both(network, params, batch_stats, given, prepared)
        head = (params["head.kernel"], params["head.bias"])
        ours = losses.discriminative_loss(
            clean.features, other.features, given.labels, given.memory, *head, axis_name=network.axis_name, **options
        )
        terms = {"cross_entropy": jnp.mean(losses.cross_entropy(clean.logits, given.targets))}
        terms |= {name: getattr(ours, name) for name in parts}
        return Loss(terms["cross_entropy"] + ours.total, batch_stats, clean.logits, terms, ours.state)

    def no_centroids(params: dict) -> losses.CentroidState:
        if "head.kernel" not in params or "head.bias" not in params:
            raise InputError("the objective 'discriminative' reads a last linear layer 'head' with kernel and bias; this network has none.")
        features, classes = params["head.kernel"].shape
        return losses.no_centroids(classes, features)

    prepare = _noisy(stddev, shared_crop) if noisy else lambda *given: None
    return Objective(prepare, loss, loss, ("cross_entropy", *parts), views if noisy else 1, no_centroids)


def _views(stddev: Setting, shared_crop: Setting) -> int:
    """Returns how often each example is augmented, after checking the options of the noisy view."""
    _check(stddev=stddev)
    if not isinstance(shared_crop, bool):
        raise InputError(f"config.objective.shared_crop must be True or False, got {shared_crop!r}.")
    return 1 if shared_crop else 2


def _noisy(stddev: Setting, shared_crop: bool) -> Callable:
    """Returns the `prepare` of an objective, which makes the noisy view: (images, targets)."""

    def prepare(network: Network, params: dict, batch_stats: dict, given: Given) -> tuple[Array, Array]:
        images, targets = (given.images, given.targets) if shared_crop else given.others[0]
        return gaussian_noise(given.attack_keys, images, std=stddev), targets

    return prepare


def _both(
    network: Network, params: dict, batch_stats: dict, given: Given, prepared: tuple[Array, Array]
) -> tuple[Output, Output, dict[str, Array]]:
    """Returns the outputs of the clean and of the noisy view, each from a pass of its own, and the statistics after both."""
    clean, batch_stats = network.train(params, batch_stats, given.images, given.keys)
    noisy, batch_stats = network.train(params, batch_stats, prepared[0], _noisy_keys(given))
    return clean, noisy, batch_stats


def _noisy_keys(given: Given) -> Any:
    """Returns the keys of the network on the noisy view, whose dropout is its own."""
    return rng.stream(given.keys, 1)


def _check(**numbers: Setting) -> None:
    for name, value in numbers.items():
        number = as_number(value)
        if number is None or not 0 <= number < math.inf:
            raise InputError(f"config.objective.{name} must be a number of at least 0, got {value!r}.")


TABLE: dict[str, Callable[..., Objective]] = {
    "clean_and_noisy": clean_and_noisy,
    "stability": stability,
    "discriminative": discriminative,
}
