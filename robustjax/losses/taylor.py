"""Taylor terms of randomised weights: "Randomized Adversarial Training via Taylor Expansion", CVPR 2023, Eqs. 6-8 and Algorithm 1.

    direction = weight_noise(key, params, stddev=0.01)
    terms = taylor_regularizer(apply_fn, params, direction, images, adversarial, order=2)
    loss = mean(ce + beta * trades_regularizer(terms.clean_logits, terms.adversarial_logits) + eta * terms.first + eta / 2 * terms.second)

The paper's released code computes other things than Eq. 8 (see `heuristic`); these are its derivatives, exact to rounding.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from robustjax.core import jets, numerics, registry
from robustjax.core.check import InputError, as_number, is_concrete
from robustjax.core.types import ArrayLike, Scalar
from robustjax.losses.classify import kl_divergence


class Derivatives(NamedTuple):
    """Logits with their derivatives along a direction of the weights; None beyond the order that was asked for."""

    logits: Float[Array, "b k"]
    first: Float[Array, "b k"] | None = None
    second: Float[Array, "b k"] | None = None


class TaylorTerms(NamedTuple):
    """What one pass over each view gives; terms beyond the order are 0."""

    clean_logits: Float[Array, "b k"]
    adversarial_logits: Float[Array, "b k"]
    first: Float[Array, " b"]
    second: Float[Array, " b"]
    aux: tuple[Any, Any]  # of the clean and of the adversarial view


def weight_noise(key: Key[Array, ""], params: dict[str, Array], *, stddev: Scalar, groups: Sequence[str] = ()) -> dict[str, Array]:
    """Draws u ~ N(0, stddev^2 I) over the weights: "w = vectorised weights", "sigma = 0.01", read as a standard deviation.

    Args:
        key: one typed key; not one per example, since all examples of a step share u.
        params: flat dict of names to arrays.
        stddev: sigma. At 0 every Taylor term is exactly 0.
        groups: names of parameters, or beginnings of names such as 'conv1' or 'blocks.0'; the others get no noise. Empty for all weights.

    Returns:
        A dict like params; a name's draw depends on the sorted place of the name alone.

    Raises:
        InputError: for a negative stddev, or a group that no parameter belongs to.
    """
    if is_concrete(stddev) and not 0 <= (-1 if as_number(stddev) is None else as_number(stddev)) < math.inf:
        raise InputError(f"stddev of the weight noise must be finite and at least 0, got {stddev!r}.")
    if isinstance(groups, str):
        raise InputError(f"groups must be a sequence of names of parameters, or of their beginnings, such as ('conv1',), got {groups!r}.")
    for group in groups:
        if not any(_belongs(name, group) for name in params):
            raise InputError(f"no parameter is called {group!r} or begins with it; there are {', '.join(sorted(params)[:4])}, ...")

    def draw(place: int, name: str) -> Array:
        array = params[name]
        if groups and not any(_belongs(name, group) for group in groups):
            return jnp.zeros_like(array)
        return jnp.asarray(stddev, array.dtype) * jax.random.normal(jax.random.fold_in(key, place), array.shape, array.dtype)

    return {name: draw(place, name) for place, name in enumerate(sorted(params))}


def _belongs(name: str, group: str) -> bool:
    return name == group or name.startswith(group.rstrip(".") + ".")


def taylor_derivatives(logits_of_params: Callable, params: Any, direction: Any, *, order: int, has_aux: bool = False) -> tuple:
    """Computes the logits and their derivatives along a direction u of the weights: Eq. 6's g(w), g'(w)^T u and u^T g''(w) u.

    Meant for use inside jit. One pass for all of them (see core.jets), of 1, 3 and 5 convolutions for each of the network's, and 3, 8 and 13 with a gradient
    with respect to the weights after it. In training mode the batch statistics are functions of the weights like all else, so the
    derivatives go through them.

    Args:
        logits_of_params: params -> logits (b, k), or with has_aux -> (logits, aux).
        params: w, a tree of arrays.
        direction: u, a tree like params; gradients with respect to it flow.
        order: 0, 1 or 2.
        has_aux: whether the function returns something beside the logits, such as batch statistics.

    Returns:
        (logits, first, second), (b, k) each, or with has_aux (logits, first, second, aux). `second` is without the 1/2 of Eq. 6.
        What is beyond `order` is None. At kinks of relu and max pooling the derivative is that of the branch that jax takes.

    Raises:
        InputError: for another order, or a direction that is no tree like params.

    >>> first = taylor_derivatives(lambda w: w**2, jnp.array([[3.0]]), jnp.array([[0.5]]), order=2)
    >>> [float(part[0, 0]) for part in first]
    [9.0, 3.0, 0.5]
    """
    _check_order(order)
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (params, direction)]
    if shapes[0] != shapes[1]:
        raise InputError("the direction must be a tree of the parameters' names and shapes; losses.weight_noise draws one.")
    direction = jax.tree.map(lambda w, u: jnp.asarray(u, jnp.asarray(w).dtype), params, direction)
    if order == 0:
        value = logits_of_params(params)
        logits, aux = value if has_aux else (value, None)
        found = Derivatives(numerics.lift(logits))
    elif order == 1:
        logits, first, *aux = jax.jvp(logits_of_params, (params,), (direction,), has_aux=has_aux)
        aux, found = (aux[0] if aux else None), Derivatives(numerics.lift(logits), numerics.lift(first))
    else:
        value, first, second = jets.second_order(logits_of_params, params, direction)
        aux = value[1] if has_aux else None
        found = Derivatives(*(numerics.lift(part[0] if has_aux else part) for part in (value, first, second)))
    return (*found, aux) if has_aux else tuple(found)


def taylor_regularizer(
    apply_fn: Callable,
    params: Any,
    direction: Any,
    images: ArrayLike,
    adversarial_images: ArrayLike,
    *,
    order: int,
    reading: str = "kl_logits",
) -> TaylorTerms:
    """Computes the first- and second-order terms of Eq. 8 / Algorithm 1, with the logits that TRADES's own term needs.

    L(g'_s(w)^T u, g'_s'(w)^T u) and L(u^T g''_s(w) u, u^T g''_s'(w) u), s clean and s' adversarial. What L compares is not defined in
    the paper (g' has the shape of a scalar function's, L is KL, "multi-class calibrated" and "cross-entropy" by turns): see `READINGS`.

    Each view is one pass of its own, so batch norm in training mode takes each view's statistics (one pass over both views put
    together would be another function). Gradients with respect to params flow through both views.

    Args:
        apply_fn: (params, images) -> (logits (b, k), aux).
        params: w.
        direction: u, as from `weight_noise`; 0 gives terms of exactly 0.
        images: s, (b, h, w, c).
        adversarial_images: s'; constants for the gradient, as attacks return them.
        order: 0 (terms are 0: TRADES), 1 or 2.
        reading: name in `READINGS`.

    Returns:
        TaylorTerms(clean_logits, adversarial_logits, first (b,), second (b,), aux): without their weights, which Algorithm 1 has as eta and
        eta / 2 (the zeroth alone gets 1 / lambda); `aux` holds both views' (clean, adversarial).

    Raises:
        InputError: for an unknown order or reading, or a direction that does not fit the parameters.
    """
    views = [
        taylor_derivatives(lambda w, view=view: apply_fn(w, view), params, direction, order=order, has_aux=True)
        for view in (images, adversarial_images)
    ]
    (*clean, clean_aux), (*adversarial, adversarial_aux) = views
    first, second = taylor_divergence(Derivatives(*clean), Derivatives(*adversarial), reading=reading)
    return TaylorTerms(clean[0], adversarial[0], first, second, (clean_aux, adversarial_aux))


def taylor_divergence(
    clean: Derivatives, adversarial: Derivatives, *, reading: str = "kl_logits"
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Compares the derivatives of two views; see `taylor_regularizer`.

    Args:
        clean: of s.
        adversarial: of s', of the same order.
        reading: name in `READINGS`.

    Returns:
        (first, second), (b,) each; 0 for what is None.

    Raises:
        InputError: for an unknown reading.
    """
    if reading not in READINGS:
        raise registry.unknown("reading of the Taylor terms", reading, READINGS)
    nothing = jnp.zeros(clean.logits.shape[:1], numerics.lift(clean.logits).dtype)
    if clean.first is None:
        return nothing, nothing
    first, second = READINGS[reading](clean, adversarial)
    return first, nothing if clean.second is None else second


def _compared(divergence: Callable, *, factor: float = 1.0) -> Callable:
    def read(clean: Derivatives, adversarial: Derivatives) -> tuple[Array, Array | None]:
        first = divergence(clean.first, adversarial.first)
        return first, None if clean.second is None else divergence(factor * clean.second, factor * adversarial.second)

    return read


def _cross_entropy(a: Array, b: Array) -> Array:
    # Entropy and divergence apart: both keep their digits, and so do their gradients, where a and b are tiny.
    return numerics.entropy_from_logits(a) + kl_divergence(a, b)


def _squared(a: Array, b: Array) -> Array:
    return jnp.sum(jnp.square(a - b), axis=-1)


def _kl_expansion(clean: Derivatives, adversarial: Derivatives) -> tuple[Array, Array | None]:
    """Derivatives of t -> KL(f_{w + t u}(s) || f_{w + t u}(s')) at 0, from those of the logits."""
    values, firsts = (clean.logits, adversarial.logits), (clean.first, adversarial.first)
    if clean.second is None:
        return jax.jvp(kl_divergence, values, firsts)[1], None
    seconds = (clean.second, adversarial.second)
    first, second = jax.jvp(lambda v, f: jax.jvp(kl_divergence, v, f)[1], (values, firsts), (firsts, seconds))
    return first, second


READINGS: dict[str, Callable] = {
    # KL(softmax(J u) || softmax(J' u)): the derivatives of the logits are taken for logits, clean first as in Eq. 2 and TRADES, 1/2 of the
    # second term outside as Algorithm 1 prints it.
    "kl_logits": _compared(kl_divergence),
    # The same with u^T g'' u / 2 for an argument, as Eq. 6 has it; KL is not homogeneous, so this is another number.
    "kl_logits_half_inside": _compared(kl_divergence, factor=0.5),
    # H(softmax(a), softmax(b)): section 5.1's "with L as the cross-entropy loss". Differs from KL by the entropy of a, hence in its gradient;
    # log k where the derivatives vanish.
    "cross_entropy": _compared(_cross_entropy),
    # ||a - b||^2 over the classes: what KL is for small arguments, up to its metric.
    "squared": _compared(_squared),
    # The expansion of KL(f_{w+u}(s) || f_{w+u}(s')) itself: its first and second derivative along u; the first may be negative.
    "kl_expansion": _kl_expansion,
}


def _check_order(order: Any) -> None:
    if isinstance(order, bool) or order not in (0, 1, 2):
        raise InputError(f"order of the Taylor expansion must be 0, 1 or 2, got {order!r}.")
