"""Squares cut out of images of differing sizes, on the host: at random for training, at the centre for evaluation.

Both are those of torchvision on Pillow's images: RandomResizedCrop, and Resize followed by CenterCrop; with Pillow's bilinear filter, which
averages where it shrinks. Flips are stages of augmentation, on the device.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from robustjax.core.check import InputError
from robustjax.data import splits

CROPS = ("none", "random_resized")
AREA = (0.08, 1.0)  # of the image, that a random crop takes
LOG_RATIO = (math.log(3 / 4), math.log(4 / 3))  # of its width to its height
ATTEMPTS = 10  # to fit such a crop into the image
SHORTER = 8 / 7  # side that evaluation brings the shorter one to, in sides of the square: 256 for 224


class Draw(NamedTuple):
    """What a random crop follows from, whatever was drawn before, on this process or another."""

    seed: int
    step: int
    example: int


class Box(NamedTuple):
    """A part of an image, in pixels; right and bottom lie outside."""

    left: int
    top: int
    right: int
    bottom: int


def random_box(width: int, height: int, draw: Draw) -> Box:
    """Returns a random part of an image: its area uniform in AREA, the logarithm of its ratio uniform in LOG_RATIO, its place uniform.

    What does not fit into the image is drawn again; after ATTEMPTS the largest centred part with a ratio in the range is taken.

    Args:
        width: of the image, at least 1.
        height: likewise.
        draw: what it follows from.
    """
    # Raw words, as in `splits.permutation`: NumPy promises these for all versions.
    seed = np.random.SeedSequence(draw.seed, spawn_key=(splits.CROP, draw.step, draw.example))
    words = np.random.Philox(seed).random_raw(2 * ATTEMPTS + 2) >> np.uint64(11)
    *uniform, down, across = (words * 2.0**-53).tolist()
    for of_area, of_ratio in zip(uniform[::2], uniform[1::2], strict=True):
        area = (AREA[0] + (AREA[1] - AREA[0]) * of_area) * width * height
        ratio = math.exp(LOG_RATIO[0] + (LOG_RATIO[1] - LOG_RATIO[0]) * of_ratio)
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = int(across * (width - wide + 1)), int(down * (height - high + 1))
            return Box(left, top, left + wide, top + high)
    least, most = map(math.exp, LOG_RATIO)
    wide = width if width / height <= most else round(height * most)
    high = height if width / height >= least else round(width / least)
    left, top = (width - wide) // 2, (height - high) // 2
    return Box(left, top, left + wide, top + high)


def cut(image: Any, prepare: Callable[[Any], Any], draw: Draw | None, *, size: int) -> Any:
    """Returns a square of an image: a random part of it where there is a draw, else its centre.

    For a random part of a JPEG the file is decoded at a half, quarter or eighth of its resolution where that part stays as large as the
    square: half of the time from 1000x800 pixels on, for half a level of difference (root mean square) in pictures with a natural
    spectrum and about three in fine patterns, which come out softer. Evaluation decodes all.

    Args:
        image: as Pillow opened it, not yet decoded.
        prepare: brings it to its colours, and does not turn it.
        draw: what the random part follows from, or None.
        size: side of the square in pixels.
    """
    if draw is None:
        return _centre(prepare(image), size)
    width, height = image.size
    box = random_box(width, height, draw)
    finer = min(box.right - box.left, box.bottom - box.top) / size
    coarse = image.draft(None, (int(width / finer), int(height / finer))) if finer >= 2 else None
    # What Pillow says of the file's extent in coarse pixels is a fraction; the image has whole ones, of which the last lies partly outside.
    scale = coarse[1][2] / width if coarse else 1.0
    return _resized(prepare(image), box, scale, size)


def cut_array(pixels: np.ndarray, draw: Draw) -> np.ndarray:
    """Returns a random part of a square uint8 (h, h, 1 or 3), brought back to its size; for copies that have no file."""
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return np.asarray(_resized(image, random_box(*image.size, draw), 1.0, len(pixels))).reshape(pixels.shape)


def check(crop: Any, size: Any, *, name: str) -> None:
    """Refuses options of a data set.

    Args:
        crop: its option crop, of CROPS.
        size: its option size, which must be the side of a square if there is a crop.
        name: of the data set, for messages.
    """
    if crop not in CROPS:
        raise InputError(f"option crop of {name} must be {' or '.join(map(repr, CROPS))}, got {crop!r}.")
    if crop != "none" and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise InputError(f"option crop of {name} cuts out squares: it needs the option size, one number of pixels, e.g. 224, got {size!r}.")


def _resized(image: Any, box: Box, scale: float, size: int) -> Any:
    from PIL import Image

    if scale == 1:
        return image.crop(box).resize((size, size), Image.Resampling.BILINEAR)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=[scale * place for place in box])


def _centre(image: Any, size: int) -> Any:
    from PIL import Image

    shorter = round(size * SHORTER)
    width, height = (int(shorter * side / min(image.size)) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
