"""What every statement checks before it computes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from robustjax.core.check import InputError, as_number, is_concrete
from robustjax.core.numerics import lift


def as_floats(**arrays: Any) -> list[Array]:
    """Returns the named arrays in one float dtype: the widest among them, at least float32; Python numbers follow.

    Raises:
        InputError: for what is no array of real numbers, is empty, or (when concrete) holds NaN or infinities.
    """
    out, dtypes = [], []
    for name, value in arrays.items():
        try:
            array = value if isinstance(value, jax.Array) else np.asarray(value)
        except ValueError:  # rows of unequal length
            array = np.asarray(None)
        if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
            raise InputError(f"{name} must be an array of real numbers, got {type(value).__name__} of {array.dtype}.")
        if array.size == 0:
            raise InputError(f"{name} is empty: its shape is {array.shape}.")
        if is_concrete(array) and not np.isfinite(np.asarray(array, np.float64)).all():
            raise InputError(f"{name} holds NaN or infinite values; look at what made it.")
        out.append(lift(array))
        if jnp.issubdtype(out[-1].dtype, jnp.floating) and not isinstance(value, float):
            dtypes.append(out[-1].dtype)
    widest = max(dtypes or [jnp.ones(()).dtype], key=lambda dtype: jnp.finfo(dtype).bits)
    return [array.astype(widest) for array in out]


def check_positive(**numbers: Any) -> None:
    """Raises InputError for a known number that is not finite and above 0."""
    for name, value in numbers.items():
        number = as_number(value) if is_concrete(value) else 1.0
        if number is None or not 0 < number < float("inf"):
            raise InputError(f"{name} must be one finite number above 0, got {value!r}.")
