"""Noise: what sensors add, what counting photons adds, and dead pixels.

Draws do not depend on the severity, so one draw serves all five: stronger noise is then the same noise, stronger.
"""

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Float, Int

from robustjax.core.types import Keys
from robustjax.corruptions.draws import Draws, normals, take, uniforms, whole_numbers
from robustjax.corruptions.severity import pick

Images = Float[Array, "b h w c"]

_SMALL_RATE = 10.0  # below it the Poisson distribution is summed term by term ...
_TERMS = 36  # ... as far as this, beyond which lie 1e-10 of it


def draw_gaussian_noise(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'normal': standard normals (b, h, w, c)}."""
    return {"normal": normals(keys, shape[1:])}


def gaussian_noise(images: Images, draws: Draws, *, constants: tuple, severity: Int[Array, ""]) -> Images:
    """clip(x + c n, 0, 1), with n ~ N(0, 1) for each value. The gradient is 1 where nothing is clipped.

    Args:
        images: in [0, 1].
        draws: {'normal': n}.
        constants: standard deviation c for each severity.
        severity: which of them.
    """
    (normal,) = take(draws, {"normal": images.shape}, images.dtype)
    return jnp.clip(images + pick(constants, severity, images.dtype) * normal, 0, 1)


def draw_speckle_noise(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'normal': standard normals (b, h, w, c)}."""
    return {"normal": normals(keys, shape[1:])}


def speckle_noise(images: Images, draws: Draws, *, constants: tuple, severity: Int[Array, ""]) -> Images:
    """clip(x + x c n, 0, 1), with n ~ N(0, 1) for each value: black stays black. The gradient is 1 + c n where nothing is clipped.

    Args:
        images: in [0, 1].
        draws: {'normal': n}.
        constants: standard deviation c at intensity 1, for each severity.
        severity: which of them.
    """
    (normal,) = take(draws, {"normal": images.shape}, images.dtype)
    return jnp.clip(images + images * (pick(constants, severity, images.dtype) * normal), 0, 1)


@whole_numbers(lambda draws, shape: {"counts": (0, np.inf)})
def draw_shot_noise(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'normal': standard normals (b, h, w, c)}, whose ranks Φ(n) in (0, 1) decide the photon counts."""
    return {"normal": normals(keys, shape[1:])}


def shot_noise(images: Images, draws: Draws, *, constants: tuple, severity: Int[Array, ""]) -> Images:
    """clip(N / c, 0, 1), with N ~ Poisson(c x) photons for each value. The gradient is 0: counts are whole numbers.

    Args:
        images: in [0, 1].
        draws: {'normal': n}, and N is the Poisson quantile at Φ(n); or {'counts': N} to replay published counts.
        constants: photons c at intensity 1, for each severity.
        severity: which of them.
    """
    photons = pick(constants, severity, images.dtype)
    if "counts" in draws:
        (counts,) = take(draws, {"counts": images.shape}, images.dtype)
        counts = counts.astype(images.dtype)
    else:
        (normal,) = take(draws, {"normal": images.shape}, images.dtype)
        counts = poisson_quantile(normal, images * photons)
    return jnp.clip(counts / photons, 0, 1)


def poisson_quantile(normal: Float[Array, "..."], rate: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns the smallest n with P(N <= n) >= Φ(normal), N ~ Poisson(rate): a Poisson count where `normal` is standard normal.

    One pass without rejection, about ten times faster on CPUs than a batched rejection sampler, which waits for its slowest
    value. Rates below 10 are inverted exactly. From there on the Cornish-Fisher expansion is used,
        n = floor(r + w sqrt(r) + (w^2 + 2) / 6 - (w^3 + 2 w) / (72 sqrt(r)) + (w^4 / 270 + 7 w^2 / 810 - 8 / 405) / r),
    with rate r and w = normal, whose law is within 2e-4 (total variation) of Poisson's at r = 10 and nearer above. Giles,
    "Algorithm 955: Approximation of the Inverse Poisson Cumulative Distribution Function", ACM TOMS 2016, section 2.

    Args:
        normal: any values.
        rate: at least 0.
    """
    small, large = jnp.minimum(rate, _SMALL_RATE), jnp.maximum(rate, _SMALL_RATE)
    above, terms = ndtr(-normal), [jnp.exp(-small)]
    for n in range(1, _TERMS):
        terms.append(terms[-1] * (small / n))
    # Counted are the n with P(N >= n) > 1 - Φ(normal), summed from the smallest term on: sums from below would round to 1 in float32
    # long before the last n.
    tail = exact = jnp.zeros_like(small)
    for term in terms[:0:-1]:
        tail = tail + term
        exact = exact + jnp.where(tail > above, 1, 0)
    root, square = jnp.sqrt(large), normal**2
    expansion = large + normal * root + (square + 2) / 6 - normal * (square + 2) / (72 * root)
    expansion = expansion + (square * square / 270 + 7 * square / 810 - 8 / 405) / large
    return jnp.where(rate < _SMALL_RATE, exact, jnp.maximum(jnp.floor(expansion), 0))


def draw_impulse_noise(keys: Keys, shape: tuple[int, ...]) -> Draws:
    """Returns {'hit': uniforms, 'salt': uniforms}, (b, h, w, c) in [0, 1)."""
    return {"hit": uniforms(keys, shape[1:], 0), "salt": uniforms(keys, shape[1:], 1)}


def impulse_noise(images: Images, draws: Draws, *, constants: tuple, severity: Int[Array, ""]) -> Images:
    """Sets a share c of all values (channels on their own) to 1 or 0, each with probability 1/2. The gradient is 1 elsewhere.

    Args:
        images: in [0, 1].
        draws: {'hit': u, 'salt': v}, uniform; u < c is hit, and becomes 1 where v < 1/2.
        constants: share c for each severity.
        severity: which of them.
    """
    hit, salt = take(draws, {"hit": images.shape, "salt": images.shape}, images.dtype)
    extreme = (salt < 0.5).astype(images.dtype)
    return jnp.where(hit < pick(constants, severity, images.dtype), extreme, images)
