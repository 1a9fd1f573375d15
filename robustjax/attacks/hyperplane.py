"""The least change that takes a point of the box onto a hyperplane without leaving the box, in each norm.

Let w be the hyperplane's normal, turned so that <w, z> must fall. Pixel i can fall by its room m_i (what is left of the box in
the direction -sign(w_i)), and falling by u_i gains |w_i| u_i. The best u follows from one number per point:

    'linf'  u_i = min(lam, m_i)           'l2'  u_i = min(lam |w_i|, m_i)          'l1'  u_i = m_i where |w_i| > tau, 0 where below

In 'linf' and 'l2' the gain is concave, rising and piecewise linear in lam: Newton's method from lam = 0 never overshoots, and it
ends at the exact answer after a few steps (5 to 10 for pictures), because it stays where it is once the set of exhausted pixels
is right. In 'l1' the best exchange is spent first: tau is one of the |w_i|, found by bisecting the ordered set of floats. So
nothing is sorted, which on CPU costs more than a small network.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from robustjax.core.types import Norm


def to_hyperplane(
    points: Float[Array, "... d"], normals: Float[Array, "... d"], excess: Float[Array, "..."], *, norm: Norm
) -> Float[Array, "... d"]:
    """Returns the least changes that bring points onto hyperplanes within the box [0, 1].

    Where the box does not meet the hyperplane: the change that comes nearest to it. Pixels of weight 0 do not move. Only the
    ratio of normal to excess matters; it may span the range of the dtype. (The official code leaves pixels of weight below 1e-8
    alone in 'l2' and 'l1', so that it stalls where all gradients are that small.)

    Args:
        points: in [0, 1].
        normals: w, of the points' rank; axes of size 1 are shared.
        excess: <w, point> minus the hyperplane's value, which is how much is to be lost.
        norm: in which the change is least.

    Returns:
        Changes like `points`; points + changes lies in [0, 1] up to rounding.

    References:
        Croce and Hein, Minimally distorted adversarial examples with a fast adaptive boundary attack, ICML 2020, section 3.1
        and appendix: the box-constrained projections onto the decision hyperplane.

    >>> point, normal = jnp.array([[0.5, 0.1]]), jnp.array([[1.0, 1.0]])
    >>> for norm in ("linf", "l2"):
    ...     to_hyperplane(point, normal, jnp.array([0.4]), norm=norm)
    Array([[-0.3, -0.1]], dtype=float32)
    Array([[-0.3, -0.1]], dtype=float32)
    """
    # Downhill is where the excess shrinks.
    downhill = jnp.where(excess[..., None] >= 0, -1, 1).astype(normals.dtype) * jnp.sign(normals)
    room = jnp.where(downhill > 0, 1 - points, jnp.where(downhill < 0, points, 0))
    largest = jnp.max(jnp.abs(normals), -1, keepdims=True)
    scale = jnp.where(largest > 0, largest, 1)
    weight = jnp.abs(normals) / scale
    # No more than all pixels can gain, and a bit: out of reach all the same, and finite.
    wanted = jnp.minimum(jnp.abs(excess[..., None]) / scale, 2 * points.shape[-1])
    if norm == "l1":
        return downhill * _steepest_first(weight, room, wanted)
    speed = jnp.ones_like(weight) if norm == "linf" else weight
    return downhill * jnp.minimum(_multiplier(weight, speed, room, wanted) * speed, room)


def _multiplier(weight: Array, speed: Array, room: Array, wanted: Array) -> Array:
    """Returns lam (..., 1) with sum weight min(lam speed, room) = wanted, or a very large one where there is none."""
    huge = jnp.finfo(wanted.dtype).max

    def newton(lam):
        free = lam * speed < room
        spent = jnp.sum(jnp.where(free, 0, weight * room), -1, keepdims=True)
        slope = jnp.sum(jnp.where(free, weight * speed, 0), -1, keepdims=True)
        some = slope > 0
        # Never back: once the set of free pixels is right, rounding must not change it.
        return jnp.maximum(lam, jnp.where(some, jnp.minimum((wanted - spent) / jnp.where(some, slope, 1), huge), huge))

    def rising(last_two):
        before, lam = last_two
        return jnp.any(lam > before)  # NaN, of a network that returns it, ends the loop

    start = jnp.zeros_like(wanted)
    return jax.lax.while_loop(rising, lambda last_two: (last_two[1], newton(last_two[1])), (start, newton(start)))[1]


def _steepest_first(weight: Array, room: Array, wanted: Array) -> Array:
    """Returns u (..., d) that exhausts the pixels of largest weight and shares the rest among those of weight tau."""
    gain = weight * room
    integers = jnp.int64 if wanted.dtype == jnp.float64 else jnp.int32

    def as_float(bits):
        return jax.lax.bitcast_convert_type(bits, wanted.dtype)

    def halve(_, bounds):
        low, high = bounds  # pixels from `low` up gain enough (or it is 0), those from `high` up do not
        middle = low + (high - low) // 2
        enough = jnp.sum(jnp.where(weight >= as_float(middle), gain, 0), -1, keepdims=True) >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    # Floats from 0 to 1, which is the largest weight, are ordered as their bits are.
    low = jnp.zeros_like(wanted, integers)
    one = jax.lax.bitcast_convert_type(jnp.ones_like(wanted), integers)
    steps = 30 if integers == jnp.int32 else 62  # the bits of 1.0 and one are less than 2 ** steps
    tau = as_float(jax.lax.fori_loop(0, steps, halve, (low, one + 1))[0])
    spent = jnp.sum(jnp.where(weight > tau, gain, 0), -1, keepdims=True)
    last = jnp.sum(jnp.where(weight == tau, gain, 0), -1, keepdims=True)
    some = last > 0
    share = jnp.clip(jnp.where(some, (wanted - spent) / jnp.where(some, last, 1), 0), 0, 1)
    return jnp.where(weight > tau, room, jnp.where(weight == tau, share * room, 0))
