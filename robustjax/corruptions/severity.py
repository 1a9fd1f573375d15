"""What a severity is, and the truncation to 8 bits: shared by every corruption."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from robustjax.core.check import InputError, is_concrete

_SLACK = 2.0**-14  # levels of 255


def check_severity(severity: Any, *, name: str, severities: int = 5) -> Int[Array, ""]:
    """Returns the severity as an integer array, so that all five run in one program; 1 where there are none.

    Args:
        severity: what a user gave.
        name: of the corruption, for the message.
        severities: how many there are: 5, or 1 for corruptions of one strength, whose severity is None.

    Raises:
        InputError: unless it is an integer from 1 to 5, or a traced integer, whose value cannot be seen.
    """
    if severities == 1:
        if severity is not None:
            raise InputError(f"{name!r} has no severities here: leave severity at None, got {severity!r}.")
        return jnp.int32(1)
    # bool is an int to Python, so it is refused by name.
    integer = not isinstance(severity, bool | np.bool) and jnp.issubdtype(getattr(severity, "dtype", type(severity)), jnp.integer)
    if not integer or jnp.ndim(severity):
        raise InputError(f"severity of {name!r} must be an integer from 1 to 5, got {severity!r}.")
    if is_concrete(severity) and not 1 <= int(severity) <= 5:
        raise InputError(f"severity of {name!r} must be from 1 to 5, got {int(severity)}.")
    return jnp.asarray(severity, jnp.int32)


def pick(values: tuple | np.ndarray, severity: Int[Array, ""], dtype: Any) -> Num[Array, "..."]:
    """Returns the entry of `values` (one for each severity) that belongs to `severity`, which is clipped to what there is."""
    table = jnp.asarray(np.asarray(values, np.float64), dtype)
    return jax.lax.dynamic_index_in_dim(table, jnp.clip(severity - 1, 0, len(table) - 1), keepdims=False)


def truncate(images: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Cuts images in [0, 1] down to the next of the levels k / 255, as a cast to 8-bit integers does.

    The published files were computed in float64. Many of their values are whole levels before the cut (untouched pixels of
    impulse_noise, say), and float32 rounding would drop those by one level; so below float64 a value within 2**-14 of the next
    level counts as having reached it. The results are half a level darker than rounding would make them, as published.

    >>> round(float(truncate(jnp.full((1, 1, 1, 1), 100.9 / 255))[0, 0, 0, 0]) * 255, 3)
    100.0
    """
    slack = 0.0 if images.dtype == jnp.float64 else _SLACK
    return jnp.floor(images * 255 + slack) / 255
