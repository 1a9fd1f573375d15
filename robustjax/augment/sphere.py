"""Perturbations of a given L2 norm that keep the image inside [0, 1].

    directions = sphere_directions(keys, images)             # uniform on the unit sphere
    delta = rescale_to_box(images, directions, radius)       # ||delta||_2 = radius, images + delta in [0, 1]

Norms are over all pixels of one image, in units of [0, 1] pixels. How large the radius should be is in `radius.py`, what
becomes of the label in `smoothing.py`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from robustjax.core import check, numerics
from robustjax.core.check import InputError
from robustjax.core.types import ArrayLike, Keys, KeysLike, Scalar

Images = Float[Array, "b h w c"]


def sphere_directions(keys: KeysLike, images: ArrayLike) -> Images:
    """Draws for each image a direction uniform on the unit sphere of all its pixels.

    A Gaussian vector divided by its norm: "ε/‖ε‖, ε ~ N(0, I)" of SPIDER's Algorithm 2 and "u = v/‖v‖" of ESP's Algorithm 1.

    Args:
        keys: one PRNG key for each image.
        images: (b, h, w, c), read for shape and dtype only.

    Returns:
        Unit vectors (b, h, w, c), in the dtype of `images` but at least float32: 3072 squares summed in bfloat16 lose the norm.

    Raises:
        InputError: where there is not one typed key for each image, or for images of another rank or not floats.

    References:
        Muller, "A note on a method for generating points uniformly on n-dimensional spheres", Communications of the ACM, 1959.

    >>> directions = sphere_directions(jax.random.split(jax.random.key(0), 2), jnp.zeros((2, 4, 4, 3)))
    >>> [round(float(norm), 5) for norm in jnp.sqrt(jnp.sum(directions**2, axis=(1, 2, 3)))]
    [1.0, 1.0]
    """
    images = numerics.lift(images)
    if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"images must be floats of shape (b, h, w, c), got {images.dtype} of shape {images.shape}.")
    check.check_keys(keys, images.shape[0])
    gauss = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)
    norm = numerics.image_norm(gauss)
    return gauss * numerics.safe_divide(jnp.ones_like(norm), norm)[:, None, None, None]


def rescale_to_box(images: ArrayLike, directions: ArrayLike, radius: ArrayLike | Scalar) -> Images:
    """Scales directions so that, clipped where the image meets the box, they have exactly the norm that was asked for.

    Returns delta = clip(images + t * directions, 0, 1) - images with t such that ||delta||_2 = radius ("the rescaling and
    clipping algorithm by Rauber", SPIDER appendix E.1.1): what clipping takes from one pixel the others make up for. Where
    no t reaches the radius, delta has the largest norm that this direction can reach: every pixel that may move is at 0 or 1.

    With w = |direction| and room = the way to the face of the box, sum min(t w, room)^2 is piecewise linear, increasing and
    concave in t^2. Newton's method from t = 0 therefore climbs to the root without passing it, and ends exactly once no
    further pixel meets the box. In practice that takes 2 to 9 passes over the pixels; on CPU, 40 halvings cost 4 times and
    sorting the pixels 50 times as much. An image that is done does not change while others go on, so the batch
    does not matter.

    Gradients flow to all three arguments (those of the pieces met) and are finite, also at radius 0 and direction 0.

    Args:
        images: float (b, h, w, c) in [0, 1].
        directions: like `images`; any scale. Entries below about 1e-19 of the image's largest (1e-154 in float64) count as
            zeros, whose pixels never move. An all-zero direction gives delta 0.
        radius: (b,) or one number, at least 0, in L2 units of [0, 1] pixels.

    Returns:
        delta (b, h, w, c), in the dtype of `images` but at least float32. `images + delta` lies in [0, 1], also after rounding.

    Raises:
        InputError: for images outside [0, 1], directions of another shape or not finite, a negative radius.

    References:
        Rauber and Bethge, "Fast differentiable clipping-aware normalization and rescaling", arXiv:2007.07677, 2020.

    >>> delta = rescale_to_box(jnp.array([[[[0.9], [0.5]]]]), jnp.ones((1, 1, 2, 1)), 0.3)
    >>> [round(float(d), 4) for d in delta.ravel()]
    [0.1, 0.2828]
    """
    images = numerics.lift(check.check_images(images))
    if jnp.shape(directions) != images.shape:
        raise InputError(f"directions must have the shape of the images, {images.shape}, got {jnp.shape(directions)}.")
    if jnp.shape(radius) not in ((), images.shape[:1]):
        raise InputError(f"radius must be one number or one for each image, {images.shape[:1]}, got shape {jnp.shape(radius)}.")
    # In NumPy, which computes at once also where something else is being traced.
    if check.is_concrete(directions) and not np.isfinite(np.asarray(directions, np.float64)).all():
        raise InputError("directions hold NaN or infinity; drop or repair them before rescaling.")
    if check.is_concrete(radius):
        wrong = [r for r in np.ravel(np.asarray(radius, np.float64)) if not 0 <= r < np.inf]
        if wrong:
            raise InputError(f"radius is an L2 norm in units of [0, 1] pixels and must be finite and >= 0, got {wrong[0]}.")
    radius = jnp.broadcast_to(jnp.asarray(radius).astype(images.dtype), images.shape[:1])
    return _rescale(images, jnp.asarray(directions).astype(images.dtype), radius)


def l2_noise(keys: Keys, images: Images, radius: Float[Array, " b"]) -> tuple[Images, Float[Array, " b"]]:
    """Moves each image in a random direction by `radius`, or as far as the box allows, and returns it with the distance."""
    delta = _rescale(images, sphere_directions(keys, images), radius)
    # The norm is the radius up to rounding, or less where the box ends. Rounding must not lift it above: labels are read from it.
    return images + delta, jnp.minimum(numerics.image_norm(delta), radius)


# Compiled on its own: a loop met outside of jit would be compiled anew at each call.
@jax.jit
def _rescale(images: Images, directions: Images, radius: Float[Array, " b"]) -> Images:
    # Largest entry 1, so that squares neither overflow nor vanish. The result does not depend on the scale, so no gradient does.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(directions), axis=(1, 2, 3), keepdims=True))
    directions = directions / jnp.where(largest > 0, largest, 1)
    room = jnp.where(directions > 0, 1 - images, images)
    room = jnp.where(jnp.abs(directions) > jnp.finfo(images.dtype).tiny ** 0.5, room, 0)
    # No pixel moves by more than 1. A larger radius is out of reach all the same, and its square might overflow.
    radius = jnp.minimum(radius, 2 * math.prod(images.shape[1:]) ** 0.5)

    fixed = jax.lax.stop_gradient((directions, room, radius))

    def climb(state):
        t, _ = state
        higher = _newton(*fixed, t)
        return jnp.maximum(t, higher), jnp.any(higher > t)

    # The first pass is made here: what a loop carries must vary over a mesh as the images do, which a constant would not.
    t, _ = jax.lax.while_loop(lambda state: state[1], climb, climb((jnp.zeros_like(fixed[2]), None)))
    # The last step again, where it can be differentiated: which pixels met the box is constant around here.
    t = _newton(directions, room, radius, t)
    at_face = jnp.where(directions > 0, room, -room)
    return jnp.where(_met(directions, room, t), at_face, t[:, None, None, None] * directions)


def _met(directions: Images, room: Images, t: Float[Array, " b"]) -> Bool[Array, "b h w c"]:
    """Returns which pixels are at a face of the box at `t`."""
    return jnp.abs(directions) * t[:, None, None, None] >= room


def _newton(directions: Images, room: Images, radius: Float[Array, " b"], t: Float[Array, " b"]) -> Float[Array, " b"]:
    """Solves sum_met room^2 + t'^2 sum_free directions^2 = radius^2 for t', with the pixels met at `t`; `t` where there is no root."""
    met = _met(directions, room, t)
    spent = jnp.sum(jnp.where(met, room, 0) ** 2, axis=(1, 2, 3))
    slope = jnp.sum(jnp.where(met, 0, directions) ** 2, axis=(1, 2, 3))
    left = radius**2 - spent
    clipped, solvable = spent > 0, (left > 0) & (slope > 0)
    root = jnp.sqrt(jnp.where(solvable, left, 1) / jnp.where(slope > 0, slope, 1))
    # Without the detour through squares where nothing is clipped: exact, and with the right derivative at radius 0.
    straight = radius / jnp.sqrt(jnp.where(slope > 0, slope, 1))
    return jnp.where(clipped, jnp.where(solvable, root, t), jnp.where(slope > 0, straight, t))
