"""The official corruptions' reference data: the seed rule, the draws that the official code made, the rules of comparison, and statistics."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from robustjax import corruptions
from robustjax.core import example_keys
from robustjax.corruptions.constants import CONSTANTS
from tests.goldens import reference

# Position of a corruption in the seed rule of the reference data.
NAMES = tuple(CONSTANTS["cifar_c"])
# Values this near to a whole level before truncation may fall to either side of it.
NEAR = 1e-3
# Those that round on their way instead of truncating at the end have no such values.
ROUNDS = ("pixelate", "jpeg_compression")


def _impulse(state, image, constant):
    return {"hit": state.random_sample(image.shape), "salt": state.random_sample(image.shape)}


def _glass(state, image, constant):
    (h, w), (_, reach, rounds) = image.shape[:2], constant
    offset = np.zeros((3, h, w, 2), int)  # no benchmark has more than three rounds
    for i in range(rounds):
        for y in range(h - reach, reach, -1):
            for x in range(w - reach, reach, -1):
                offset[i, y, x] = state.randint(-reach, reach, size=2)
    return {"offset": offset}


def _elastic(state, image, constant):
    return {"affine": state.random_sample((3, 2)), "dx": state.random_sample(image.shape[:2]), "dy": state.random_sample(image.shape[:2])}


# name -> (RandomState, image in [0, 1], severity's constant) -> the draws of `corruptions.apply` for it, in the official order.
REPLAYS: dict[str, Callable] = {
    "gaussian_noise": lambda state, image, constant: {"normal": state.standard_normal(image.shape)},
    "shot_noise": lambda state, image, constant: {"counts": state.poisson(image * constant)},
    "impulse_noise": _impulse,
    "speckle_noise": lambda state, image, constant: {"normal": state.standard_normal(image.shape)},
    "glass_blur": _glass,
    "motion_blur": lambda state, image, constant: {"uniform": state.random_sample()},
    "snow": lambda state, image, constant: {"normal": state.standard_normal(image.shape[:2]), "uniform": state.random_sample()},
    "fog": lambda state, image, constant: {"uniform": state.random_sample((1 << (len(image) - 1).bit_length()) ** 2 - 1)},
    "elastic_transform": _elastic,
    "spatter": lambda state, image, constant: {"normal": state.standard_normal(image.shape[:2])},
}


def replay(name, images, constant, seed):
    """Returns the draws that the official code made, one RandomState an image; `seed` is that of image 0."""
    draws = [REPLAYS[name](np.random.RandomState(seed + i), image, constant) for i, image in enumerate(images)]
    return {key: np.stack([draw[key] for draw in draws]) for key in draws[0]}


def levels(images, draws, *, near=True, **arguments):
    """Returns the 0-255 result of `apply`, and where the value before truncation was not near a whole level."""
    got = np.rint(np.asarray(corruptions.apply(images, draws, **arguments)) * 255).astype(int)
    if not near:
        return got, np.full(got.shape, True)
    before = np.asarray(corruptions.apply(images, draws, **arguments, quantize=False)) * 255
    return got, abs(before - np.rint(before)) >= NEAR


def assert_bytes(images, draws, expected, **arguments):
    """The rule of the reference data: where values sit on whole levels they may be one apart; of all others 99.9% are equal."""
    got, clear = levels(images.astype(np.float32), draws, near=arguments["name"] not in ROUNDS, **arguments)
    difference = abs(got - expected)
    share = (difference != 0)[clear].sum() / max(1, clear.sum())
    assert share <= (0 if arguments["name"] in ROUNDS else 1e-3), (arguments, share, difference.max())
    assert difference[~clear].max(initial=0) <= 1, arguments


def statistics(images, corrupted):
    """Returns the statistics of the reference data for images of 0-255 levels; see its README for their definitions."""
    difference = corrupted - images
    size = images.shape[1]
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    bins = np.minimum((frequency / np.sqrt(0.5) * 16).astype(int), 15).ravel()
    power = (abs(np.fft.fft2(difference / 255, axes=(1, 2), norm="ortho")) ** 2).mean(axis=(0, 3)).ravel()
    return {
        "mean": corrupted.mean(axis=(0, 1, 2)),
        "std": corrupted.std(axis=(0, 1, 2)),
        "mac": abs(difference).mean(),
        "changed": (difference != 0).mean(),
        "l2_mean": np.sqrt((difference**2).sum(axis=(1, 2, 3))).mean() / 255,
        "psd": np.bincount(bins, power, 16) / np.bincount(bins, minlength=16),
        "absdiff_map": abs(difference).mean(axis=(0, 3)),
    }


def assert_statistics(images, official, official_seeds, *, name, severity, row, seeds=4, whole=True, **arguments):
    """Compares corruptions drawn by our keys with the official statistics, |z| < 5 with a floor of 0.5%.

    Args:
        images: (n, h, w, c) in [0, 1].
        official: arrays '<name>/<stat>' and '<name>/<stat>_se'.
        official_seeds: how many runs those are means of.
        name, severity, **arguments: for `corrupt`.
        row: place of the severity in the arrays.
        seeds: runs of our own.
        whole: the official results are whole levels.
    """
    runs = []
    for seed in range(seeds):
        keys = example_keys(jax.random.key(seed), jnp.arange(len(images)))
        got = corruptions.corrupt(keys, images.astype(np.float32), name=name, severity=severity, **arguments)
        got = np.asarray(got, np.float64) * 255
        near = whole | (abs(got - np.rint(got)) < 1e-5)  # k / 255 in float32 is not quite k / 255
        runs.append(statistics(images * 255, np.where(near, np.rint(got), got)))
    for stat in runs[0]:
        expected = official[f"{name}/{stat}"][row]
        difference = np.mean([run[stat] for run in runs], axis=0) - expected
        if seeds > official_seeds:  # our spread, position by position, is the better known one
            error = np.std([run[stat] for run in runs], axis=0, ddof=1) * np.sqrt(1 / seeds + 1 / official_seeds)
        elif f"{name}/{stat}_se" in official:
            # Under the null hypothesis both have the same spread over seeds, so the official one, from more seeds, serves both.
            error = official[f"{name}/{stat}_se"][row] * np.sqrt(1 + official_seeds / seeds)
        else:  # maps come without errors: the spread of our own runs, pooled over positions, serves
            spread = np.sqrt(np.mean(np.var([run[stat] for run in runs], axis=0, ddof=1)))
            error = spread * np.sqrt(1 / seeds + 1 / official_seeds)
        # 1024 positions, whose spreads differ, share one error: 7 for 5.
        limit = 5 if f"{name}/{stat}_se" in official else 7
        wrong = abs(difference) > np.maximum(limit * error, 0.005 * abs(expected))
        assert not np.any(wrong), (name, severity, stat, abs(difference / error).max())


def cifar_pictures():
    """Returns the 64 CIFAR-10 pictures (uint8) that the full reference data were made of."""
    return reference.load("corruptions/cifar_inputs.npz")["images"]
