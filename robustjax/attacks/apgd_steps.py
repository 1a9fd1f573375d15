"""Where Auto-PGD begins and how it moves in each norm. A radius or step size is (b, 1, 1, 1): one for each image."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from robustjax.attacks.projections import l1_ball_and_box
from robustjax.core.numerics import image_norm
from robustjax.core.types import Keys, Norm

TINY = 1e-12  # the official code's guard where it divides by a norm


def draw_start(keys: Keys, clean: Float[Array, "b h w c"], radius: Float[Array, "b 1 1 1"], *, norm: Norm) -> Float[Array, "b h w c"]:
    """Returns the random point at which a run begins, in the box.

    'linf': uniform draws scaled so that the largest is the radius. 'l2': a Gaussian direction of that length. 'l1': standard
    Gaussian noise, projected onto ball and box. The box is applied last, as in the official code.
    """
    law = functools.partial(jax.random.uniform, minval=-1, maxval=1) if norm == "linf" else jax.random.normal
    noise = jax.vmap(functools.partial(law, shape=clean.shape[1:], dtype=clean.dtype))(keys)
    if norm == "l1":
        return project(clean + noise, clean, radius, norm=norm)
    size = jnp.max(jnp.abs(noise), (1, 2, 3), keepdims=True) if norm == "linf" else length(noise)
    return jnp.clip(clean + radius * noise / (size + TINY), 0, 1)


def enter(
    start: Float[Array, "b h w c"], clean: Float[Array, "b h w c"], radius: Float[Array, "b 1 1 1"], *, norm: Norm
) -> Float[Array, "b h w c"]:
    """Returns a given start in the box; in the ball too if it is outside by more than rounding, and unchanged otherwise."""
    start = jnp.clip(start, 0, 1)
    outside = image_norm(start - clean, norm) > radius[:, 0, 0, 0] + 1e-6 * (1 + radius[:, 0, 0, 0])
    return select(outside, project(start, clean, radius, norm=norm), start)


def project(
    points: Float[Array, "b h w c"], clean: Float[Array, "b h w c"], radius: Float[Array, "b 1 1 1"], *, norm: Norm
) -> Float[Array, "b h w c"]:
    """Returns points in the ball and the box: the nearest ones, except that 'l2' goes to the ball and then clips.

    In 'l1' the way there is added as the official code adds it, which leaves some entries of value 0 a rounding error away from the
    clean image. They count as changed, so the sparsity of the next steps depends on it.
    """
    if norm == "linf":
        return jnp.clip(points, jnp.maximum(clean - radius, 0), jnp.minimum(clean + radius, 1))
    delta = points - clean
    if norm == "l1":
        way = l1_ball_and_box(delta, clean, radius[:, :, 0, 0]) - delta
        return jnp.where(radius == 0, clean, jnp.clip((clean + delta) + way, 0, 1))
    size = length(delta)
    return jnp.clip(clean + delta / (size + TINY) * jnp.minimum(radius, size), 0, 1)


def move(
    points: Float[Array, "b h w c"],
    gradient: Float[Array, "b h w c"],
    before: Float[Array, "b h w c"],
    clean: Float[Array, "b h w c"],
    step_size: Float[Array, "b 1 1 1"],
    share: Float[Array, "b 1 1 1"],
    radius: Float[Array, "b 1 1 1"],
    *,
    norm: Norm,
) -> Float[Array, "b h w c"]:
    """Takes a step with momentum in 'linf' or 'l2': lines 7 and 8 of Algorithm 1 (Croce and Hein, ICML 2020).

    Args:
        points: where the step begins.
        gradient: of the objective there.
        before: where the last step began.
        clean: centre of the ball.
        step_size: of the gradient step.
        share: of the gradient step; the rest goes on along points - before.
        radius: of the ball.
        norm: 'linf' or 'l2'.
    """
    direction = jnp.sign(gradient) if norm == "linf" else gradient / (length(gradient) + TINY)
    stepped = project(points + step_size * direction, clean, radius, norm=norm)
    return project(points + share * (stepped - points) + (1 - share) * (points - before), clean, radius, norm=norm)


def sparse_direction(gradient: Float[Array, "b h w c"], rank: Int[Array, " b"]) -> Float[Array, "b h w c"]:
    """Returns the step of 'l1', of length 1: the signs of the entries whose gradient is as large as the one at a rank.

    Args:
        gradient: of the objective.
        rank: among the magnitudes, 0 being the smallest.
    """
    size = jnp.abs(gradient)
    least = nth_smallest(size.reshape(size.shape[0], -1), rank)
    signs = jnp.where(size >= least[:, None, None, None], jnp.sign(gradient), 0)
    return signs / (jnp.sum(jnp.abs(signs), (1, 2, 3), keepdims=True) + 1e-10)


def nth_smallest(values: Float[Array, "b d"], rank: Int[Array, " b"]) -> Float[Array, " b"]:
    """Returns from each row the value that sorting would put at place `rank`; values must not be negative.

    Exact, by bisection on the bits, whose order as integers is that of the numbers: one pass over the values for each bit, where
    sorting costs several times more.

    >>> nth_smallest(jnp.array([[3.0, 0.0, 2.0, 5.0]]), jnp.array([2]))
    Array([3.], dtype=float32)
    """
    bits = jax.lax.bitcast_convert_type(values, jnp.int32 if values.dtype.itemsize == 4 else jnp.int64)
    top = 8 * values.dtype.itemsize - 2  # the bit below the sign

    def body(i, found):
        candidate = found | jax.lax.shift_left(jnp.ones_like(found), (top - i).astype(found.dtype))
        smaller = jnp.sum(bits < candidate[:, None], axis=1, dtype=jnp.int32)
        return jnp.where(smaller <= rank, candidate, found)

    found = jax.lax.fori_loop(0, top + 1, body, jnp.zeros_like(bits[:, 0]))
    return jax.lax.bitcast_convert_type(found, values.dtype)


def count_changed(points: Float[Array, "b h w c"], clean: Float[Array, "b h w c"]) -> Int[Array, " b"]:
    """Returns the number of entries in which each image differs from the clean one."""
    return jnp.sum(points != clean, (1, 2, 3), dtype=jnp.int32)


def length(delta: Float[Array, "b h w c"]) -> Float[Array, "b 1 1 1"]:
    """Returns L2 norms. What vanishes when squared is far below `TINY`, so nothing is scaled."""
    return jnp.sqrt(jnp.sum(jnp.square(delta), (1, 2, 3), keepdims=True))


def select(condition: Bool[Array, " b"], yes: Float[Array, "b h w c"], no: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Chooses per image."""
    return jnp.where(condition[:, None, None, None], yes, no)
