"""Which shapes of images each benchmark takes, and the sizes that its constants were made for."""

import numbers
import warnings
from typing import Any

import numpy as np

from robustjax.core.check import InputError

_SMALLEST = 16  # pixels; below it the constants mean nothing any more

# The side from which on a benchmark's constants are the nearest of its kin: geometric means of the sides they were made for. C-bar:
# SPIDER, appendix E.
_MADE_FOR: dict[str, dict[str, tuple[int, int]]] = {
    "c": {"cifar_c": (0, 32), "tiny_imagenet_c": (46, 64), "imagenet_c": (120, 224)},
    "cbar": {"cifar_cbar": (0, 32), "imagenet_cbar": (64, 224)},
    "mnist_c": {"mnist_c": (0, 28), "tiny_imagenet_c": (46, 64), "imagenet_c": (120, 224)},
}


def nearest(kin: str, height: int, width: int) -> str:
    """Returns the benchmark of a kin ('c' or 'cbar') whose constants were made for the size nearest to height x width.

    >>> nearest("cbar", 32, 32), nearest("cbar", 64, 64)
    ('cifar_cbar', 'imagenet_cbar')
    """
    return [benchmark for benchmark, (start, _) in _MADE_FOR[kin].items() if start <= (height * width) ** 0.5][-1]


def as_shape(shape: Any) -> tuple[int, ...]:
    """Returns a user's shape as a tuple of int.

    Raises:
        InputError: unless it is four whole numbers, at least 1.
    """
    shape = shape.tolist() if isinstance(shape, np.ndarray) else shape
    four = isinstance(shape, tuple | list) and len(shape) == 4
    if not four or not all(isinstance(side, numbers.Integral) and side >= 1 for side in shape):
        raise InputError(f"shape must be (b, h, w, c) of images, four whole numbers, got {shape!r}.")
    return tuple(map(int, shape))


def check_shape(shape: tuple[int, ...], benchmark: str) -> None:
    """Refuses shapes (b, h, w, c) of images that a benchmark is not made for.

    Raises:
        InputError: for tiny images, other numbers of channels than 1 and 3, and what a benchmark itself does not take.
    """
    h, w, channels = shape[1:]
    if min(h, w) < _SMALLEST:
        raise InputError(f"images must be at least {_SMALLEST}x{_SMALLEST} pixels to be corrupted, got {h}x{w}; enlarge them first.")
    benchmark = benchmark.removesuffix("_extra")
    if channels not in (1, 3):
        raise InputError(f"images must have 1 or 3 channels to be corrupted, got {channels}.")
    if benchmark == "mnist_c" and channels != 1:
        raise InputError(f"mnist_c is made for grey images, these have {channels} channels; take 'cifar_c' or turn them to grey.")
    if h != w and benchmark in ("mnist_c", "cifar_cbar", "imagenet_cbar"):
        raise InputError(f"{benchmark} is defined for square images only, got {h}x{w}; cut or resize them first.")


def warn_of_size(shape: tuple[int, ...], benchmark: str) -> None:
    """Warns if another benchmark was made for a size nearer to that of the images."""
    h, w = shape[1:3]
    benchmark = benchmark.removesuffix("_extra")
    kin, sizes = next(((kin, sizes) for kin, sizes in _MADE_FOR.items() if benchmark in sizes), (None, {}))
    closest = nearest(kin, h, w) if kin else benchmark
    if closest != benchmark:
        made_for, other = sizes[benchmark][1], sizes[closest][1]
        warnings.warn(
            f"the constants of {benchmark} were made for {made_for}x{made_for} pixels, these images have {h}x{w}: "
            f"{closest} ({other}x{other}) is nearer.",
            stacklevel=4,  # the line that called corrupt or apply
        )
