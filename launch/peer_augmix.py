"""AugMix with Pillow, one image after the other, as data loaders of PyTorch run it: what benchmark_augment.py compares with.

The operations and their ranges are those of `robustjax.imaging.pil.DEFAULT_OPS`; severity 3, three chains of one to three operations.
"""

import numpy as np
from PIL import Image, ImageOps

SEVERITY, WIDTH, DEPTH = 3.0, 3, 3


def _affine(image: Image.Image, matrix: tuple) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR)


def operations(rng: np.random.Generator) -> list:
    """Returns the nine operations at levels drawn anew: functions of a picture."""

    def level(most: float) -> float:
        return rng.uniform(0.1, SEVERITY) * most / 10

    def signed(most: float) -> float:
        return level(most) * (-1 if rng.random() > 0.5 else 1)

    return [
        ImageOps.autocontrast,
        ImageOps.equalize,
        lambda image: ImageOps.posterize(image, 4 - int(level(4))),
        lambda image: ImageOps.solarize(image, 256 - int(level(256))),
        lambda image: image.rotate(int(signed(30)), resample=Image.Resampling.BILINEAR),
        lambda image: _affine(image, (1, signed(0.3), 0, 0, 1, 0)),
        lambda image: _affine(image, (1, 0, 0, signed(0.3), 1, 0)),
        lambda image: _affine(image, (1, 0, int(signed(image.size[0] / 3)), 0, 1, 0)),
        lambda image: _affine(image, (1, 0, 0, 0, 1, int(signed(image.size[1] / 3)))),
    ]


def augmix(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns one augmented view (h, w, c) in [0, 1] of pixels uint8 (h, w, c)."""
    mixed = np.zeros(pixels.shape, np.float32)
    for weight in rng.dirichlet([1.0] * WIDTH):
        image = Image.fromarray(pixels)
        for _ in range(rng.integers(1, DEPTH + 1)):
            image = operations(rng)[rng.integers(9)](image)
        mixed += weight * np.asarray(image, np.float32) / 255
    share = rng.beta(1.0, 1.0)
    return (1 - share) * pixels.astype(np.float32) / 255 + share * mixed
