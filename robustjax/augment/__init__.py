"""Augmentations as pure functions of keys and images: SPIDER, ESP, what they are made of, and what they are compared with.

    perturbed = spider(keys, images, labels, tau=8.0, xi=0.3, num_classes=10)
    loss = losses.cross_entropy(logits_fn(perturbed.images), perturbed.targets)

One PRNG key for each example (`core.example_keys`); images float (b, h, w, c) in [0, 1] before and after. `TABLE`
and `compose` are for configurations: augmentations by name, and in chains.
"""

from robustjax.augment.augmix import augmix
from robustjax.augment.basic import cutout, random_crop, random_flip
from robustjax.augment.color import color_jitter
from robustjax.augment.deepaugment import deepaugment
from robustjax.augment.esp import esp
from robustjax.augment.fractals import fractals
from robustjax.augment.geometry import perspective, rotation
from robustjax.augment.mixup import cutmix, mixup
from robustjax.augment.noise import gaussian_noise, l2_ball, l2_sphere, l2_uniform_radius, uniform_noise
from robustjax.augment.pixmix import pixmix
from robustjax.augment.radius import ball_radius, truncated_normal_radius, uniform_radius
from robustjax.augment.registry import STRENGTH, TABLE, compose, compose_views
from robustjax.augment.smoothing import exponential_confidence, soft_targets, xi_from_ratio
from robustjax.augment.sphere import rescale_to_box, sphere_directions
from robustjax.augment.spider import spider

__all__ = [
    "STRENGTH",
    "TABLE",
    "augmix",
    "ball_radius",
    "color_jitter",
    "compose",
    "compose_views",
    "cutmix",
    "cutout",
    "deepaugment",
    "esp",
    "exponential_confidence",
    "fractals",
    "gaussian_noise",
    "l2_ball",
    "l2_sphere",
    "l2_uniform_radius",
    "mixup",
    "perspective",
    "pixmix",
    "random_crop",
    "random_flip",
    "rescale_to_box",
    "rotation",
    "soft_targets",
    "sphere_directions",
    "spider",
    "truncated_normal_radius",
    "uniform_noise",
    "uniform_radius",
    "xi_from_ratio",
]
