"""Mean and standard deviation, which live inside the model: nothing else in the library knows them.

They are constants of the architecture (static tuples, written in the config and thus in every checkpoint), not parameters,
so no optimiser, weight decay or averaging of weights can touch them.
"""

import math
import numbers
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robustjax.core.check import InputError

Constant = numbers.Real | Sequence[numbers.Real] | np.ndarray
"""One number for all channels, or one for each."""


def constants(mean: Constant, std: Constant, *, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Checks the constants and repeats single numbers over the channels.

    Args:
        mean: in units of [0, 1] pixels, one number or one a channel.
        std: likewise, above 0.
        channels: of the images.

    Returns:
        (mean, std), tuples of `channels` floats.

    Raises:
        InputError: for another number of channels, a value that is not finite, or a standard deviation that is not positive.

    >>> constants(0.5, (0.2, 0.3, 0.4), channels=3)
    ((0.5, 0.5, 0.5), (0.2, 0.3, 0.4))
    """
    full = []
    for name, value in (("mean", mean), ("std", std)):
        values = (value,) * channels if isinstance(value, numbers.Real) else tuple(value)
        if len(values) != channels:
            raise InputError(f"{name} has {len(values)} values, the images have {channels} channels; give one number, or one a channel.")
        if not all(math.isfinite(v) for v in values) or (name == "std" and min(values) <= 0):
            raise InputError(f"{name} must be finite{' and above 0' if name == 'std' else ''}, in units of [0, 1] pixels, got {values}.")
        full.append(tuple(map(float, values)))
    return full[0], full[1]


def normalize(images: Float[Array, "b h w c"], *, mean: tuple[float, ...], std: tuple[float, ...]) -> Float[Array, "b h w c"]:
    """Returns (images - mean) / std, channel by channel, in the dtype of `images`.

    Args:
        images: in [0, 1].
        mean: one number a channel, in the same units.
        std: likewise, above 0.

    >>> float(normalize(jnp.ones((1, 2, 2, 1)), mean=(0.5,), std=(0.25,))[0, 0, 0, 0])
    2.0
    """
    center, scale = (jnp.asarray(c, images.dtype).reshape(1, 1, 1, -1) for c in (mean, std))
    return (images - center) / scale
