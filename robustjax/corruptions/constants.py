"""Severity constants of the corruption benchmarks, severities 1 to 5, as released by their authors.

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019: the
CIFAR-10-C, Tiny-ImageNet-C and ImageNet-C constants. Meaning: gaussian_noise standard deviation in units of [0, 1] pixels;
shot_noise photons at intensity 1; impulse_noise share of values hit; defocus_blur (radius of the disk, standard deviation of the
Gaussian that softens its rim), pixels; brightness offset of the HSV value; contrast gain; pixelate size factor.
"""

CONSTANTS: dict[str, dict[str, tuple]] = {
    "cifar_c": {
        "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
        "shot_noise": (500, 250, 100, 75, 50),
        "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
        "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
        "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
        "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    },
    "tiny_imagenet_c": {
        "gaussian_noise": (0.04, 0.08, 0.12, 0.15, 0.18),
        "shot_noise": (250, 100, 50, 30, 15),
        "impulse_noise": (0.01, 0.02, 0.05, 0.08, 0.14),
        "defocus_blur": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
        "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
        "pixelate": (0.9, 0.8, 0.7, 0.6, 0.5),
    },
    "imagenet_c": {
        "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
        "shot_noise": (60, 25, 12, 5, 3),
        "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
        "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
        "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
        "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    },
}

SIZES: dict[str, int] = {"cifar_c": 32, "tiny_imagenet_c": 64, "imagenet_c": 224}
"""Side of the images, in pixels, for which each benchmark's constants were made."""
