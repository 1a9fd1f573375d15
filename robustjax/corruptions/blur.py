"""Blur: linear filters, so the gradient is the transposed filter."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from robustjax.corruptions.severity import pick
from robustjax.imaging.filters import correlate, gaussian_taps

_SMALL_RADIUS = 8  # up to it the disk is drawn on a 17x17 grid and softened by 3 taps, beyond by 5


def disk_kernel(radius: float | int, sigma: float | int) -> np.ndarray:
    """Returns a disk of `radius` pixels with sum 1, softened by a Gaussian of `sigma`; square, trimmed to where it is not 0.

    The grid is mirrored at its rim (reflect-101) when softened, and sums are rounded to float32 where the published code
    rounds them: a kernel whose sum is 1 - 1e-8 truncates white to level 254.

    >>> disk_kernel(1, 0.01)
    array([[0. , 0.2, 0. ],
           [0.2, 0.2, 0.2],
           [0. , 0.2, 0. ]], dtype=float32)
    """
    reach = _SMALL_RADIUS if radius <= _SMALL_RADIUS else int(radius)
    taps = gaussian_taps(3 if radius <= _SMALL_RADIUS else 5, sigma).astype(np.float32).astype(np.float64)
    x = np.arange(-reach, reach + 1)
    disk = (x[:, None] ** 2 + x**2 <= radius**2).astype(np.float32)
    disk = np.pad((disk / disk.sum()).astype(np.float64), len(taps) // 2, mode="reflect")
    for _ in range(2):  # along one axis, then, transposed, along the other
        disk = sum(tap * disk[:, i : i + len(x)] for i, tap in enumerate(taps)).T
    kernel = disk.astype(np.float32)
    rim = np.flatnonzero(kernel.any(axis=0))[0]
    return kernel[rim : len(x) - rim, rim : len(x) - rim]


@functools.lru_cache
def _disk_kernels(constants: tuple) -> np.ndarray:
    """Returns the kernels of all severities, padded with zeros to one size."""
    kernels = [disk_kernel(radius, sigma) for radius, sigma in constants]
    size = max(len(kernel) for kernel in kernels)
    return np.stack([np.pad(kernel, (size - len(kernel)) // 2) for kernel in kernels])


def defocus_blur(images: Float[Array, "b h w c"], *, constants: tuple, severity: Int[Array, ""]) -> Float[Array, "b h w c"]:
    """Correlation with a softened disk, borders mirrored. Differentiable; the final clip only cuts rounding.

    Args:
        images: in [0, 1].
        constants: (radius, sigma) in pixels for each severity.
        severity: which of them.
    """
    return jnp.clip(correlate(images, pick(_disk_kernels(constants), severity, images.dtype)), 0, 1)
