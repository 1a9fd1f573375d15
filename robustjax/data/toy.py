"""Points of the plane, for pictures of decision boundaries. They are floats and no images: not in the table of data sets."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from robustjax.core.check import InputError

INNER = 0.25  # where an arm begins, as a share of the radius: the arms do not meet in the middle


class Points(NamedTuple):
    """Labelled points of the unit square."""

    points: Float32[np.ndarray, "n 2"]
    labels: Int32[np.ndarray, " n"]


def spirals(*, classes: int = 2, points: int = 100, turns: float = 1.25, radius: float = 0.4, noise: float = 0.0, seed: int = 0) -> Points:
    """Returns interleaved spirals around (0.5, 0.5), an arm for each class; the same everywhere for the same options.

    r = radius s and angle = 2 pi (turns s + class / classes), with s from 0.25 to 1 such that the points of an arm are about
    equally far apart. Neighbouring arms are radius / (turns classes) apart.

    Args:
        classes: at least 2.
        points: of each arm, at least 2. Labels run through the classes in turn.
        turns: by which an arm would wind from the centre to its end, above 0.
        radius: of the end, above 0 and at most 0.5.
        noise: standard deviation of the Gaussian that moves each coordinate, at least 0; what leaves the square is clipped.
        seed: of the noise, at least 0.

    Raises:
        InputError: for an option out of these ranges.

    >>> spirals(points=2, radius=0.4, turns=1.0).points.round(2)
    array([[0.5, 0.6],
           [0.5, 0.4],
           [0.9, 0.5],
           [0.1, 0.5]], dtype=float32)
    """
    for name, value, least in (("classes", classes, 2), ("points", points, 2), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"option {name} of the spirals must be an integer and at least {least}, got {value!r}.")
    for name, value, allowed, what in (
        ("turns", turns, 0 < turns < math.inf, "above 0"),
        ("radius", radius, 0 < radius <= 0.5, "above 0 and at most 0.5"),
        ("noise", noise, 0 <= noise < math.inf, "at least 0"),
    ):
        if not allowed:
            raise InputError(f"option {name} of the spirals must be {what}, got {value!r}.")
    labels = np.tile(np.arange(classes, dtype=np.int32), points)
    # Arc length grows about as s^2: equal steps of s^2 are equal steps along the arm.
    s = np.repeat(np.sqrt(np.linspace(INNER**2, 1, points)), classes)
    angle = 2 * np.pi * (turns * s + labels / classes)
    places = 0.5 + radius * s[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return Points((places + noise * _gaussian(len(labels), seed)).clip(0, 1).astype(np.float32), labels)


def _gaussian(count: int, seed: int) -> np.ndarray:
    """Returns (count, 2) standard normal numbers, by Box and Muller from raw Philox words (see `fake`)."""
    words = np.random.Philox(np.random.SeedSequence(seed)).random_raw(2 * count)
    first, second = ((words >> np.uint64(11)).astype(np.float64) / 2**53).reshape(2, count)
    length = np.sqrt(-2 * np.log1p(-first))
    return length[:, None] * np.stack([np.cos(2 * np.pi * second), np.sin(2 * np.pi * second)], axis=1)
