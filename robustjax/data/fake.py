"""Made-up images that a network can learn: for tests, and to try a configuration without its data."""

import numpy as np

from robustjax.core.check import InputError
from robustjax.data.source import ArraySource, Dataset

PATCHES = 4  # a class's pattern is made of 4 x 4 patches, coarse enough to survive a shift of a few pixels


def fake(*, num_classes: int = 10, size: int = 16, channels: int = 3, train: int = 512, test: int = 256, seed: int = 0) -> Dataset:
    """Returns patchy patterns, one for each class, under uniform noise; the same everywhere for the same options.

    Args:
        num_classes: at least 2.
        size: height and width, at least 4.
        channels: 1 or 3.
        train: training examples; labels run through the classes in turn.
        test: test examples, of the same patterns under other noise.
        seed: of patterns and noise, at least 0.

    Raises:
        InputError: for an option out of these ranges.
    """
    for name, value, least in (
        ("num_classes", num_classes, 2),
        ("size", size, PATCHES),
        ("train", train, 1),
        ("test", test, 1),
        ("seed", seed, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"option {name} of the fake data set must be an integer and at least {least}, got {value!r}.")
    if channels not in (1, 3):
        raise InputError(f"option channels of the fake data set must be 1 or 3, got {channels!r}.")
    patterns = 64 + 0.5 * _bytes((num_classes, PATCHES, PATCHES, channels), seed, 0)
    patch = np.arange(size) * PATCHES // size
    patterns = patterns[:, patch][:, :, patch]

    def split(count: int, purpose: int, name: str) -> ArraySource:
        labels = np.arange(count) % num_classes
        noise = _bytes((count, size, size, channels), seed, purpose) - 127.5
        return ArraySource((patterns[labels] + 0.5 * noise).clip(0, 255).astype(np.uint8), labels, name=name)

    return Dataset(
        "fake",
        "made-up patterns",
        split(train, 1, "the fake training split"),
        split(test, 2, "the fake test split"),
        num_classes,
        (size, size, channels),
        tuple(f"pattern {label}" for label in range(num_classes)),
    )


def _bytes(shape: tuple[int, ...], seed: int, purpose: int) -> np.ndarray:
    """Returns uniform bytes. Raw Philox words are the part of NumPy's randomness that no version may change."""
    count = int(np.prod(shape))
    words = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(purpose,))).random_raw(-(-count // 8))
    return words.astype("<u8").view(np.uint8)[:count].reshape(shape)
