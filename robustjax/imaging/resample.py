"""Resampling along one axis at a time, as multiplication by constant matrices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def box_weights(size: int, new_size: int) -> np.ndarray:
    """Returns the matrix (new_size, size), float64, that resizes one axis by a box filter as Pillow does.

    Going down, an output pixel is the plain mean of the input pixels whose centres lie in its stretch of the axis; going up, it
    copies the nearest one. A centre on the left border of the stretch is out, one on the right border is in.

    Args:
        size: pixels along the axis.
        new_size: pixels wanted, at least 1.

    >>> box_weights(4, 2)
    array([[0.5, 0.5, 0. , 0. ],
           [0. , 0. , 0.5, 0.5]])
    """
    centres = (np.arange(new_size) + 0.5) * size / new_size
    offsets = (np.arange(size) + 0.5 - centres[:, None]) / max(size / new_size, 1.0)
    weights = ((offsets > -0.5) & (offsets <= 0.5)).astype(np.float64)
    return weights / weights.sum(axis=1, keepdims=True)


def separable(
    images: Float[Array, "b h w c"],
    rows: Float[Array, "h2 h"],
    columns: Float[Array, "w2 w"],
    *,
    between: Callable[[Array], Array] = lambda x: x,
) -> Float[Array, "b h2 w2 c"]:
    """Multiplies the columns' axis by one matrix, then the rows' axis by another.

    Args:
        images: any range.
        rows: matrix for the vertical axis.
        columns: matrix for the horizontal axis, which goes first.
        between: applied after each of the two, for code that rounds half-way.
    """
    # 'highest': accelerators would round the factors to fewer bits than 8-bit levels need.
    images = between(jnp.einsum("vw,bhwc->bhvc", columns, images, precision=jax.lax.Precision.HIGHEST))
    return between(jnp.einsum("uh,bhwc->buwc", rows, images, precision=jax.lax.Precision.HIGHEST))
