"""Batches that may be too large for the memory of a device: what is tried, and how much less is tried next."""

import warnings
from collections.abc import Callable
from typing import Any

import jax

from robustjax.core.check import InputError


def attempt(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
    """Returns the result and None; or, where the memory does not suffice, None and what the device said of it.

    `function` must wait for what it computes (read it on the host), or the error comes later. The error itself is let go here, with
    the arrays that its traceback holds.

    >>> attempt(sum, [1, 2])
    (3, None)
    """
    try:
        return function(*arguments), None
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        text = str(error).strip() or type(error).__name__
        if not isinstance(error, MemoryError) and not any(sign in text.lower() for sign in ("resource_exhausted", "out of memory")):
            raise
        return None, text.splitlines()[0]


def rounded(rows: int, devices: int) -> int:
    """Returns the least multiple of the number of devices that holds so many rows.

    >>> rounded(9, 4)
    12
    """
    return -(-rows // devices) * devices


def halved(rows: int, devices: int, failed: str) -> int:
    """Returns the size of batch to go on with after one of `rows` did not fit, and warns of it.

    Args:
        rows: on all devices together.
        devices: how many; the new size divides by it.
        failed: from `attempt`.

    Raises:
        InputError: where there was one row a device already.
    """
    if rows <= devices:
        raise InputError(f"the device is out of memory with one image at a time ({failed}): free memory or take a smaller network.")
    fewer = rounded(rows // 2, devices)
    warnings.warn(f"out of memory with batches of {rows}: going on with {fewer}; batch_size={fewer} avoids this.", stacklevel=3)
    return fewer
