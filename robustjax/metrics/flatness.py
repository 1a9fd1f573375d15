"""Flatness in the space of weights: the loss some way off, and the eigenvalues of its Hessian.

    loss = jax.tree_util.Partial(mean_loss, batch_stats, images, labels)     # params -> scalar is what is left: put params last
    weight_space_loss(example_keys(key, jnp.arange(50)), loss, params, radius=30.0).mean()

Trees of parameters are any pytrees of float arrays. "Norm" is the L2 norm over the whole tree, biases and the weights of batch
norm included, running statistics (which are no parameters) not.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from robustjax.core import loops
from robustjax.core.check import InputError, as_number, check_keys, is_concrete
from robustjax.core.functions import as_partial, output_of
from robustjax.core.numerics import lift, safe_divide, safe_norm, tree_axpy, tree_dot
from robustjax.core.rng import is_key, on_data
from robustjax.core.types import KeysLike, Scalar
from robustjax.metrics.sweeps import each

Tree = Any
Scaling = Literal["tree", "filter"]


def loss_at_distance(loss_of_params: Callable, params: Tree, direction: Tree, *, radius: Scalar, scaling: str = "tree") -> Float[Array, ""]:
    """Computes the loss at params + radius * direction / ||direction||, the norm taken over the whole tree.

    The radius is traced: all radii and directions share one compiled program. Differentiable in params, direction and radius.

    Args:
        loss_of_params: params -> scalar, e.g. the mean loss over a data set. A `jax.tree_util.Partial(fn, data)` reuses the
            compiled program for other data; a plain function is compiled once for each function object.
        params: pytree of float arrays; bfloat16 is lifted to float32.
        direction: like `params`, of any length above 0.
        radius: at least 0, L2 distance in the space of weights (SPIDER's figure 2: 30 and more).
        scaling: 'tree' as above; 'filter' moves by radius * `filter_normalize(direction, params)` instead: a radius of 1 is then
            as long as each filter itself, and biases stay where they are.

    Returns:
        Scalar.

    Raises:
        InputError: for a direction of another structure or of zeros, a negative radius, a loss that is not one number.

    References:
        Cha et al., SWAD: domain generalization by seeking flat minima, NeurIPS 2021 (one vector over all parameters, divided by
        its total norm); SPIDER section 3.3.

    >>> loss_at_distance(lambda p: jnp.sum(p["w"] ** 2), {"w": jnp.zeros(2)}, {"w": jnp.array([3.0, 4.0])}, radius=2.0).round(5)
    Array(4., dtype=float32)
    """
    params, direction = check_params(params), check_params(direction, name="direction")
    check_alike(params, direction)
    if is_concrete(direction) and not any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(direction)):
        raise InputError("direction is zero everywhere: it points nowhere.")
    loss, _ = check_loss(loss_of_params, params)
    return _loss_along(loss, params, direction, _radius(radius, params), check_scaling(scaling))


def weight_space_loss(
    keys: KeysLike, loss_of_params: Callable, params: Tree, *, radius: Scalar, scaling: str = "tree"
) -> Float[Array, " draws"]:
    """Computes the loss at a distance from params in Gaussian directions, one for each key.

    Random directions are uniform on the sphere of that radius around params ('tree'). The mean over draws, and over networks
    trained alike, is what SPIDER's figure 2 shows: 50 draws for each of three networks at radii 30, 32.5, 35, ...

    All draws and radii share one compiled program, called once for each draw (in the graph where something is traced).

    Args:
        keys: one typed key for each draw; the same keys give the same directions at every radius, so a curve over radii walks
            along rays, as in SWAD.
        loss_of_params: params -> scalar, as for `loss_at_distance`.
        params: pytree of float arrays.
        radius: at least 0.
        scaling: 'tree' or 'filter', see `loss_at_distance`.

    Returns:
        (draws,), one loss for each key, independent of the other keys.

    Raises:
        InputError: for keys that are not typed keys (draws,), a negative radius, a loss that is not one number.

    References:
        Cha et al., NeurIPS 2021; SPIDER appendix E.1.3.

    >>> keys = jax.random.split(jax.random.key(0), 3)
    >>> weight_space_loss(keys, lambda p: jnp.sum(p**2), jnp.zeros((2, 3)), radius=2.0).round(5)
    Array([4., 4., 4.], dtype=float32)
    """
    keys, params = _check_draws(keys), check_params(params)
    loss, dtype = check_loss(loss_of_params, params)
    context = (loss, params, keys, _radius(radius, params))
    return each(_loss_of_draw, context, keys.shape[0], dtype=dtype, option=check_scaling(scaling))


def gaussian_direction(key: Any, params: Tree) -> Tree:
    """Draws a direction from N(0, I) over all parameters.

    Args:
        key: one typed key.
        params: pytree of float arrays, read for shapes and dtypes only.

    Returns:
        A tree like `params`, at least float32.

    Raises:
        InputError: for keys or params of another kind.

    >>> gaussian_direction(jax.random.key(0), {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)})["w"].shape
    (2, 3)
    """
    if not is_key(key) or jnp.ndim(key):
        raise InputError("gaussian_direction needs one typed key: jax.random.key(seed).")
    return _gaussian(key, check_params(params))


def filter_normalize(direction: Tree, params: Tree) -> Tree:
    """Scales a direction so that each filter is as long as the filter of params that it belongs to.

    d_ij <- d_ij / ||d_ij|| * ||w_ij||, where a filter is what makes one output: all entries at one place of the last axis, as
    Flax lays out kernels (h, w, in, out) and (in, out). Leaves of fewer than two axes (biases, batch norm) become 0, as in the
    official code's `ignore='biasbn'`. Networks whose weights differ by a scale that batch norm undoes can be compared so.

    Args:
        direction: pytree of float arrays.
        params: like `direction`.

    Returns:
        The direction, scaled; 0 where a filter of either is 0.

    Raises:
        InputError: for trees that are not alike or do not hold floats.

    References:
        Li et al., Visualizing the loss landscape of neural nets, NeurIPS 2018, section 4.

    >>> w, d = jnp.array([[3.0, 0.0], [4.0, 0.0]]), jnp.array([[0.0, 1.0], [2.0, 1.0]])
    >>> filter_normalize({"w": d}, {"w": w})["w"]
    Array([[0., 0.],
           [5., 0.]], dtype=float32)
    """
    direction, params = check_params(direction, name="direction"), check_params(params)
    check_alike(params, direction)
    return _filter_normalized(direction, params)


def hessian_top_eigenvalue(key: Any, loss_of_params: Callable, params: Tree, *, steps: int | np.integer = 30) -> Float[Array, ""]:
    """Estimates the largest eigenvalue of the Hessian of the loss, the sharpness of a minimum, by Lanczos' method.

    From a Gaussian start, one Hessian-vector product a step (forward over reverse). The estimate grows with `steps` towards the
    largest eigenvalue and never passes it but by rounding; networks, whose largest eigenvalues stand out, need 10 to 30. It is the
    largest, not the largest magnitude. Without re-orthogonalisation, which would keep `steps` copies of the parameters: that
    makes copies of eigenvalues and leaves the extreme ones accurate (Paige 1980).

    Args:
        key: one typed key, for the start.
        loss_of_params: params -> scalar, as for `loss_at_distance`; twice differentiable.
        params: pytree of float arrays.
        steps: at least 1. Static.

    Returns:
        Scalar.

    Raises:
        InputError: for keys or params of another kind, fewer than one step, a loss that is not one number.

    References:
        Lanczos, An iteration method for the solution of the eigenvalue problem, 1950; Ghorbani et al., ICML 2019.

    >>> hessian_top_eigenvalue(jax.random.key(0), lambda w: w[0] ** 2 - 3 * w[1] ** 2, jnp.ones(2)).round(4)
    Array(2., dtype=float32)
    """
    if not isinstance(steps, int | np.integer) or isinstance(steps, bool) or steps < 1:
        raise InputError(f"steps is how many products with the Hessian are computed, an integer >= 1, got {steps!r}.")
    params = check_params(params)
    loss, _ = check_loss(loss_of_params, params)
    state = _lanczos_start(gaussian_direction(key, params), int(steps))
    *_, alphas, betas = loops.repeat(_lanczos, (loss, params), state, int(steps), config=None, chunk=1)
    return _largest(alphas[0], betas[0])


def hessian_trace(keys: KeysLike, loss_of_params: Callable, params: Tree) -> Float[Array, " draws"]:
    """Estimates the trace of the Hessian of the loss by Hutchinson's method, one estimate v^T H v for each key.

    v has entries +-1, each equally likely. The mean over draws is unbiased, with variance 2 sum_{a != b} H_ab^2 / draws.

    Args:
        keys: one typed key for each draw.
        loss_of_params: params -> scalar, as for `loss_at_distance`; twice differentiable.
        params: pytree of float arrays.

    Returns:
        (draws,); take the mean, and the deviation for its error.

    Raises:
        InputError: for keys or params of another kind, a loss that is not one number.

    References:
        Hutchinson, A stochastic estimator of the trace of the influence matrix, 1989; Yao et al., PyHessian, 2020.

    >>> hessian_trace(jax.random.split(jax.random.key(0), 2), lambda w: w[0] ** 2 - 3 * w[1] ** 2, jnp.ones(2))
    Array([-4., -4.], dtype=float32)
    """
    keys, params = _check_draws(keys), check_params(params)
    loss, _ = check_loss(loss_of_params, params)
    dtype = jnp.result_type(*(leaf.dtype for leaf in jax.tree.leaves(params)))
    return each(_quadratic_form, (loss, params, keys), keys.shape[0], dtype=dtype)


def _loss_of_draw(context: Any, i: Array, scaling: Scaling) -> Array:
    loss, params, keys, radius = context
    direction = _draw(on_data(lambda data: data[i], keys), params, jax.random.normal)
    return _loss_along(loss, params, direction, radius, scaling)


@functools.partial(jax.jit, static_argnames="scaling")
def _loss_along(loss: jax.tree_util.Partial, params: Tree, direction: Tree, radius: Array, scaling: Scaling) -> Array:
    return loss(tree_axpy(radius, scaled(direction, params, scaling), params))


def scaled(direction: Tree, params: Tree, scaling: Scaling) -> Tree:
    """Returns the direction of length 1 over the whole tree, or filter-normalised."""
    if scaling == "filter":
        return _filter_normalized(direction, params)
    flat, unravel = ravel_pytree(direction)  # one norm rather than one for each leaf, which compiles faster
    return unravel(safe_divide(flat, safe_norm(flat)))


@jax.jit
def _filter_normalized(direction: Tree, params: Tree) -> Tree:
    def one(d, w):
        if d.ndim < 2:
            return jnp.zeros_like(d)
        axes = tuple(range(d.ndim - 1))
        return d * safe_divide(safe_norm(w, axes, keepdims=True).astype(d.dtype), safe_norm(d, axes, keepdims=True))

    return jax.tree.map(one, direction, params)


def _draw(key: Array, params: Tree, sampler: Callable) -> Tree:
    flat, unravel = ravel_pytree(params)
    return unravel(sampler(key, flat.shape, flat.dtype))  # at once: a generator for each leaf takes XLA seconds to compile


@jax.jit
def _gaussian(key: Array, params: Tree) -> Tree:
    return _draw(key, params, jax.random.normal)


def _product(loss: jax.tree_util.Partial, params: Tree, direction: Tree) -> Tree:
    """Returns the Hessian times the direction, forward over reverse."""
    return jax.jvp(jax.grad(loss), (params,), (direction,))[1]


def _quadratic_form(context: Any, i: Array, option: None) -> Array:
    del option
    loss, params, keys = context
    direction = _draw(on_data(lambda data: data[i], keys), params, jax.random.rademacher)
    return tree_dot(direction, _product(loss, params, direction))


@functools.partial(jax.jit, static_argnames="steps")
def _lanczos_start(direction: Tree, steps: int) -> Any:
    """Returns the state before the first step: this vector of length 1, none before it, no coefficients."""
    flat, _ = ravel_pytree(direction)
    v = safe_divide(flat, safe_norm(flat))[None]
    coefficients = jnp.zeros((1, steps), v.dtype)
    return v, jnp.zeros_like(v), jnp.zeros((1,), v.dtype), coefficients, coefficients


@jax.jit
def _largest(alphas: Array, betas: Array) -> Array:
    side = jnp.diag(betas[:-1], 1)  # the last one would couple to the step that is not made
    return jnp.linalg.eigvalsh(jnp.diag(alphas) + side + side.T)[-1]


def _lanczos(context: Any, i: Array, state: Any, config: None) -> Any:
    """One step of the three-term recurrence H v_i = beta_{i-1} v_{i-1} + alpha_i v_i + beta_i v_{i+1}, on flat vectors."""
    del config
    loss, params = context
    (v,), (previous,), (beta,), (alphas,), (betas,) = state
    unravel = ravel_pytree(params)[1]
    product, _ = ravel_pytree(_product(loss, params, unravel(v)))
    alpha = jnp.dot(v, product, precision="highest")
    rest = product - beta * previous - alpha * v
    # Where no direction is left, what the vectors span is closed under H and what remains is rounding. From then on v is 0 and
    # the first quotient stands in for alpha: it lies among the eigenvalues, which 0 might not.
    length = safe_norm(rest)
    size = jnp.maximum(jnp.max(jnp.abs(alphas)), jnp.abs(alpha)) + jnp.max(jnp.abs(betas))
    length = jnp.where(length > 10 * jnp.finfo(v.dtype).eps * size, length, 0)
    alpha = jnp.where((i > 0) & (beta == 0), alphas[0], alpha)
    new = (safe_divide(rest, length), v, length, alphas.at[i].set(alpha), betas.at[i].set(length))
    return jax.tree.map(lambda leaf: leaf[None], new)


def check_params(params: Any, *, name: str = "params") -> Tree:
    """Returns a tree of float arrays in at least float32; refuses others."""
    leaves, structure = jax.tree.flatten(params)
    if not leaves:
        raise InputError(f"{name} hold no arrays.")
    for leaf in leaves:
        if is_key(leaf) or not jnp.issubdtype(getattr(leaf, "dtype", type(leaf)), jnp.floating):
            raise InputError(f"{name} must hold floats, got {getattr(leaf, 'dtype', type(leaf).__name__)}; leave out counters and keys.")
    return structure.unflatten([lift(leaf) for leaf in leaves])


def check_alike(params: Tree, direction: Tree) -> None:
    """Refuses a direction that does not have the structure and shapes of the parameters."""
    if jax.tree.structure(params) != jax.tree.structure(direction):
        raise InputError("direction must be a tree like params: its names or structure differ.")
    for w, d in zip(jax.tree.leaves(params), jax.tree.leaves(direction), strict=True):
        if w.shape != d.shape:
            raise InputError(f"direction must be a tree like params, got an array of shape {d.shape} where params have {w.shape}.")


def check_loss(loss_of_params: Any, params: Tree) -> tuple[jax.tree_util.Partial, Any]:
    """Returns the loss as a pytree, and its dtype, after checking that it is one float."""
    loss = as_partial(loss_of_params)
    out = output_of(loss, params)
    if getattr(out, "shape", None) != () or not jnp.issubdtype(out.dtype, jnp.floating):
        what = f"{out.dtype} of shape {out.shape}" if hasattr(out, "shape") else type(out).__name__
        raise InputError(f"loss_of_params must return one float, got {what}; take the mean over examples.")
    return loss, out.dtype


def check_scaling(scaling: Any) -> Scaling:
    """Refuses other names than 'tree' and 'filter'."""
    if scaling not in ("tree", "filter"):
        raise InputError(f"scaling must be 'tree' (one norm over all parameters) or 'filter' (one for each filter), got {scaling!r}.")
    return scaling


def _check_draws(keys: Any) -> Array:
    keys = check_keys(keys)
    if keys.shape[0] == 0:
        raise InputError("keys are empty: at least one draw is needed.")
    return keys


def _radius(radius: Any, params: Tree) -> Array:
    if jnp.shape(radius) != () or (is_concrete(radius) and not 0 <= (as_number(radius) or 0) < np.inf):
        raise InputError(f"radius is a distance in the space of weights, one finite number >= 0, got {radius!r}.")
    # An array, so that numbers of Python and of NumPy share one compiled program.
    return jnp.asarray(radius).astype(jnp.result_type(*(leaf.dtype for leaf in jax.tree.leaves(params))))
