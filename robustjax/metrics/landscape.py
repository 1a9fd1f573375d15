"""The loss on grids: around images in the space of pixels, and around parameters in the space of weights. Numbers, no pictures."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robustjax.core.check import InputError, check_images, check_keys, is_concrete
from robustjax.core.convolutions import widened
from robustjax.core.numerics import lift, tree_axpy
from robustjax.core.rng import on_data
from robustjax.core.types import ArrayLike, KeysLike
from robustjax.metrics.curvature import check_loss_fn, loss_gradient
from robustjax.metrics.flatness import check_loss, check_params, check_scaling, gaussian_direction, scaled
from robustjax.metrics.sweeps import each, over_points


def input_landscape(
    keys: KeysLike,
    loss_fn: Callable,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    gradient_sizes: ArrayLike,
    random_sizes: ArrayLike,
    clip: bool = False,
) -> Float[Array, "b g1 g2"]:
    """Computes the loss around each image on the plane of two directions: the sign of its gradient, and random signs.

    l(x + p sign(grad l(x)) + q r), with p from `gradient_sizes`, q from `random_sizes` and r of independent entries +-1, each
    equally likely: "the x and y axes represent the magnitude of the perturbation added in the directions of sign grad_s f(s) and
    Rademacher(0.5)". Sizes are therefore L-inf norms. A pixel without gradient does not move in the first direction.

    Args:
        keys: one typed key for each image (`core.example_keys`); the same keys compare networks on the same plane.
        loss_fn: (images, labels) -> (b,), each example's loss depending on that example alone. The gradient is that of this loss.
        images: (b, h, w, c) in [0, 1]; one image is images[None].
        labels: (b,) integers, or whatever `loss_fn` takes.
        gradient_sizes: (g1,) in units of [0, 1] pixels, of either sign; their number is static, their values are not.
        random_sizes: (g2,) likewise.
        clip: clip the moved images to [0, 1]. Not by default: the paper does not speak of it, and the plane would be bent where it
            leaves the box, which shows as a flat region whatever the network.

    Returns:
        (b, g1, g2), in the dtype of the loss; entry [n, p, q] is image n moved by gradient_sizes[p] and random_sizes[q].

    Raises:
        InputError: for bad keys, images or labels, sizes that are not finite (g,), a loss that is not (b,).

    References:
        Randomized Adversarial Training via Taylor Expansion, figure 2.

    >>> keys, x = jax.random.split(jax.random.key(0), 1), jnp.full((1, 1, 1, 1), 0.5)
    >>> input_landscape(keys, lambda x, y: x[:, 0, 0, 0], x, jnp.array([0]), gradient_sizes=jnp.array([0, 0.25, 0.5]), random_sizes=jnp.zeros(1))
    Array([[[0.5 ],
            [0.75],
            [1.  ]]], dtype=float32)
    """
    images = lift(check_images(images))
    keys = check_keys(keys, images.shape[0])
    loss, labels, dtype = check_loss_fn(loss_fn, images, labels)
    grid = _grid(("gradient_sizes", gradient_sizes), ("random_sizes", random_sizes), images.dtype)
    rows = (images, labels, *_directions(loss, keys, images, labels))
    values = over_points(_clipped if clip else _moved, loss, rows, grid.reshape(-1, 2), dtype=dtype)
    return values.reshape(images.shape[0], *grid.shape[:2])


def weight_landscape(
    keys: KeysLike,
    loss_of_params: Callable,
    params: Any,
    *,
    first_sizes: ArrayLike,
    second_sizes: ArrayLike,
    scaling: str = "tree",
) -> Float[Array, "g1 g2"]:
    """Computes the loss around params on the plane of two random directions.

    The directions are Gaussian, and nearly orthogonal where there are many parameters. One compiled program, called once for
    each point of the grid (in the graph where something is traced).

    Args:
        keys: two typed keys, one for each direction; the same keys compare networks on the same plane.
        loss_of_params: params -> scalar, as for `flatness.loss_at_distance`.
        params: pytree of float arrays.
        first_sizes: (g1,) along the first direction, of either sign: L2 distances ('tree') or multiples of each filter's norm
            ('filter', where -1 to 1 is usual).
        second_sizes: (g2,) along the second.
        scaling: 'tree' directions have length 1 over the whole tree; 'filter' they are filter-normalised.

    Returns:
        (g1, g2), in the dtype of the loss.

    Raises:
        InputError: for other than two keys, sizes that are not finite (g,), a loss that is not one number.

    References:
        Li et al., Visualizing the loss landscape of neural nets, NeurIPS 2018, sections 3 and 4.

    >>> keys, sizes = jax.random.split(jax.random.key(0), 2), jnp.array([0.0, 2.0])
    >>> weight_landscape(keys, lambda p: jnp.sum(p**2), jnp.zeros((30, 30)), first_sizes=sizes, second_sizes=sizes[:1]).round(4)
    Array([[0.],
           [4.]], dtype=float32)
    """
    params = check_params(params)
    keys = check_keys(keys, 2)
    loss, dtype = check_loss(loss_of_params, params)
    grid = _grid(("first_sizes", first_sizes), ("second_sizes", second_sizes), jax.tree.leaves(params)[0].dtype)
    plane = [_direction(on_data(lambda data, j=j: data[j], keys), params, check_scaling(scaling)) for j in range(2)]
    values = each(_at, (loss, params, *plane, grid.reshape(-1, 2)), grid.shape[0] * grid.shape[1], dtype=dtype)
    return values.reshape(grid.shape[:2])


@jax.jit
def _directions(loss: jax.tree_util.Partial, keys: Array, images: Array, labels: Array) -> tuple[Array, Array]:
    random = jax.vmap(lambda key: jax.random.rademacher(key, images.shape[1:], images.dtype))(keys)
    return jnp.sign(loss_gradient(loss, images, labels)), random


def _moved(loss: jax.tree_util.Partial, rows: Any, sizes: Array, *, clip: bool = False) -> Array:
    images, labels, first, second = rows
    p, q = (sizes[:, j, None, None, None] for j in range(2))
    moved = images + p * first + q * second
    return widened(loss, jnp.clip(moved, 0, 1) if clip else moved, labels)


def _clipped(loss: jax.tree_util.Partial, rows: Any, sizes: Array) -> Array:
    return _moved(loss, rows, sizes, clip=True)


@functools.partial(jax.jit, static_argnames="scaling")
def _direction(key: Array, params: Any, scaling: str) -> Any:
    return scaled(gaussian_direction(key, params), params, scaling)


def _at(context: Any, i: Array, option: None) -> Array:
    del option
    loss, params, first, second, grid = context
    return loss(tree_axpy(grid[i, 1], second, tree_axpy(grid[i, 0], first, params)))


def _grid(first: tuple[str, Any], second: tuple[str, Any], dtype: Any) -> Float[Array, "g1 g2 2"]:
    sizes = []
    for name, values in (first, second):
        if jnp.ndim(values) != 1 or jnp.shape(values)[0] == 0:
            raise InputError(f"{name} must be magnitudes of shape (g,), at least one, got shape {jnp.shape(values)}.")
        if is_concrete(values) and not np.isfinite(np.asarray(values, np.float64)).all():
            raise InputError(f"{name} must be finite.")
        sizes.append(jnp.asarray(values).astype(dtype))
    return jnp.stack(jnp.meshgrid(*sizes, indexing="ij"), axis=-1)
