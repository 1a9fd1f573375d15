"""The types that cross package borders.

Whatever passes through jit, vmap or shard_map is a NamedTuple: dataclasses with checked fields break when jax rebuilds
them with batched or abstract leaves. Protocols are runtime_checkable, so that type-checked signatures accept them.
"""

import dataclasses
import math
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Key

from robustjax.core.check import InputError, as_number, is_concrete

Scalar = float | int | np.floating | np.integer | Float[Array, ""] | Integer[Array, ""]
"""A number that may be a Python or NumPy number, or traced."""

Keys = Key[Array, " b"]
"""One typed PRNG key for each example, from `rng.example_keys`."""

KeysLike = Any
"""What user-facing functions are given as keys: one typed key for each example; `check.check_keys` says what is wrong with others."""

ArrayLike = jax.Array | np.ndarray
"""What user-facing functions accept; `check.check_images` and its kin say what is wrong with it."""

Norm = Literal["linf", "l2", "l1"]


class Batch(NamedTuple):
    """A batch of examples. `ids` are positions in the data set: randomness is keyed by them. Padding has mask False."""

    images: Array  # (b, h, w, c): uint8 in data/, float in [0, 1] everywhere else
    labels: Int[Array, " b"]
    ids: Int[Array, " b"]
    mask: Bool[Array, " b"]


class Perturbed(NamedTuple):
    """Perturbed images with their softened labels; `size` is the L2 norm of each perturbation in units of [0, 1] pixels."""

    images: Float[Array, "b h w c"]
    targets: Float[Array, "b k"]
    size: Float[Array, " b"]


class AttackResult(NamedTuple):
    """Adversarial images, whether each example withstood, and per stage what happened."""

    images: Float[Array, "b h w c"]
    robust: Bool[Array, " b"]
    stages: dict


@dataclasses.dataclass(frozen=True)
class ThreatModel:
    """What an attacker may do: a ball of radius `eps` around the image, within the box [0, 1]. Static and hashable.

    Args:
        norm: 'linf', 'l2' or 'l1', over all pixels of one image in units of [0, 1].
        eps: radius, at least 0; 8 levels of 255 are written 8 / 255. Any number whose value is known; kept as a float.

    Raises:
        InputError: for an unknown norm, or a radius that is negative, not a number, or traced.
    """

    norm: str
    eps: Any  # any number is taken, a float is kept

    def __post_init__(self):
        if self.norm not in ("linf", "l2", "l1"):
            raise InputError(f"norm must be 'linf', 'l2' or 'l1', got {self.norm!r}.")
        if not is_concrete(self.eps):
            raise InputError("eps is traced: inside jit the radius must be a Python number, since a threat model is static.")
        eps = as_number(self.eps)
        if eps is None or not 0 <= eps < math.inf:
            raise InputError(f"eps is a radius in units of [0, 1] pixels and must be finite and >= 0, got {self.eps!r}.")
        object.__setattr__(self, "eps", eps)  # frozen; arrays of jax would not be hashable


@runtime_checkable
class LogitsFn(Protocol):
    """images (b, h, w, c) in [0, 1] -> logits (b, k). Normalisation is inside. Randomised ones also take keys (b,).

    A `jax.tree_util.Partial(fn, params, batch_stats)` lets new weights reuse a compiled attack; plain callables work too.
    """

    def __call__(self, images: Array, /, *args) -> Array:
        """Returns the logits."""
        ...
