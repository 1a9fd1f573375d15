"""Seeded permutations and the training/validation split, the same for everyone who names the same seed."""

import numpy as np
from jaxtyping import Int32

from robustjax.core.check import InputError

# What a permutation is for is part of its seed, so that the split of seed 0 says nothing about the epochs of seed 0.
VALIDATION, EPOCH, DIGITS, SUBSET, CROP = 1, 2, 3, 4, 5


def permutation(size: int, *, seed: int, purpose: tuple[int, ...]) -> Int32[np.ndarray, " n"]:
    """Returns a permutation of 0 .. size - 1 that depends on its arguments alone.

    It sorts raw Philox words. NumPy promises those, and the seeding, for all versions; it does not promise the stream of
    `Generator.permutation`, with which a new version could silently mix validation into training on resuming.

    Args:
        size: at least 0.
        seed: at least 0.
        purpose: what it is for, e.g. (EPOCH, 3); other purposes give unrelated permutations.

    Raises:
        InputError: for a seed that is negative or no integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"a seed must be an integer and at least 0, got {seed!r}.")
    words = np.random.Philox(np.random.SeedSequence(int(seed), spawn_key=purpose)).random_raw(size)
    return np.argsort(words, kind="stable").astype(np.int32)


def train_validation(labels: np.ndarray | int, *, fraction: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Splits ids into a training and a validation part, uniformly at random ("20% of the training data"), not by class.

    Args:
        labels: (n,) labels of the whole training split, or n: only their number matters, and large sets are slow to list labels.
        fraction: part that goes to validation, in (0, 1); rounded to the nearest number of examples.
        seed: at least 0.

    Returns:
        train_ids, validation_ids: sorted int32 ids; disjoint, together 0 .. n - 1.

    Raises:
        InputError: for a fraction outside (0, 1), or one that leaves a part empty.

    >>> [ids.tolist() for ids in train_validation(np.zeros(5), fraction=0.4)]
    [[0, 1, 4], [2, 3]]
    """
    if not 0 < fraction < 1:
        raise InputError(f"the validation fraction must lie between 0 and 1, both excluded, got {fraction}.")
    size = int(labels) if isinstance(labels, (int, np.integer)) else len(labels)
    held_out = round(size * fraction)
    if not 0 < held_out < size:
        raise InputError(
            f"a validation fraction of {fraction} splits {size} examples into {size - held_out} and {held_out}; "
            "neither part may be empty, choose another fraction or a larger data set."
        )
    order = permutation(size, seed=seed, purpose=(VALIDATION,))
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def subset(size: int, limit: int) -> Int32[np.ndarray, " m"]:
    """Returns the sorted ids of at most `limit` of `size` examples, the same for everyone; all of them for a limit of 0.

    They are drawn at random and are not the first ones: a set may be sorted by class.

    >>> subset(5, 0).tolist(), len(subset(100, 7))
    ([0, 1, 2, 3, 4], 7)
    """
    return np.sort(permutation(size, seed=0, purpose=(SUBSET,))[: limit or size])
