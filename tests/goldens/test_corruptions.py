"""Corruptions against outputs of the official code: exact ones by bytes, random ones by replayed draws and by their statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import corruptions
from robustjax.core import example_keys
from robustjax.corruptions import noise, weather
from robustjax.corruptions.constants import CONSTANTS
from tests.goldens import reference

RANDOM = ("gaussian_noise", "shot_noise", "impulse_noise")
EXACT = ("defocus_blur", "brightness", "contrast", "pixelate")
# Position in the seed rule of the reference data.
POSITION = {"gaussian_noise": 0, "shot_noise": 1, "impulse_noise": 2}
# Values this near to a whole level before truncation may fall to either side of it.
NEAR = 1e-3


def replay(name, images, constant, seed):
    """Returns the draws that the official code made, one RandomState an image; `seed` is that of image 0."""
    draws = []
    for i, image in enumerate(images):
        state = np.random.RandomState(seed + i)
        if name == "gaussian_noise":
            draws.append({"normal": state.standard_normal(image.shape)})
        elif name == "shot_noise":
            draws.append({"counts": state.poisson(image * constant)})
        else:
            draws.append({"hit": state.random_sample(image.shape), "salt": state.random_sample(image.shape)})
    return {key: np.stack([draw[key] for draw in draws]) for key in draws[0]}


def assert_bytes(images, draws, expected, *, name, severity, benchmark="cifar_c"):
    """The rule of the reference data: 99.9% of bytes equal; where values sit on whole levels, one level apart is allowed."""
    got = corruptions.apply(images, draws, name=name, severity=severity, benchmark=benchmark)
    difference = abs(np.rint(np.asarray(got) * 255).astype(int) - expected)
    assert difference.max() <= 1
    if name in ("defocus_blur", "brightness"):  # a fifth of their values and more may sit on whole levels
        before = corruptions.apply(images, draws, name=name, severity=severity, benchmark=benchmark, quantize=False)
        before = np.asarray(before) * 255
        difference = difference[abs(before - np.rint(before)) >= NEAR]
    assert (difference != 0).mean() <= (0 if name == "pixelate" else 1e-3)  # pixelate: whole numbers throughout


def outputs(file):
    data = reference.load(file)
    return data["images"] / 255, data


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("name", EXACT)
def test_exact_corruptions_of_photographs(name, severity):
    # Kills: any wrong constant; edge repeated at the border of the blur; hue ties; a mean over channels; rounding for truncation.
    images, data = outputs("corruptions_photos/cifar_c_32.npz")
    assert_bytes(images.astype(np.float32), {}, data[name][severity - 1], name=name, severity=severity)


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("name", RANDOM)
def test_random_corruptions_of_photographs(name, severity):
    # Kills: variance for standard deviation; noise before clipping the wrong way; salt for pepper; one draw for all channels.
    images, data = outputs("corruptions_photos/cifar_c_32.npz")
    draws = replay(name, images, CONSTANTS["cifar_c"][name][severity - 1], 3_000_000 + 10_000 * POSITION[name] + 1000 * severity)
    assert_bytes(images.astype(np.float32), draws, data[name][severity - 1], name=name, severity=severity)


@pytest.mark.parametrize("name", RANDOM + EXACT)
def test_float64_is_exact(name):
    # Kills: kernels or constants cast to float32 on the way; slack in the truncation of float64; operations in another order.
    # Compiled code multiplies by 1/6 for division by 6, which moves ties of the HSV round trip: brightness gets the allowance.
    images, data = outputs("corruptions_photos/cifar_c_32.npz")
    wrong = []
    with jax.enable_x64(True):
        for severity in range(1, 6):
            constant = CONSTANTS["cifar_c"][name][severity - 1]
            seed = 3_000_000 + 10_000 * POSITION.get(name, 0) + 1000 * severity
            draws = replay(name, images, constant, seed) if name in RANDOM else {}
            got = corruptions.apply(images, draws, name=name, severity=severity)
            assert got.dtype == jnp.float64
            wrong.append((np.rint(np.asarray(got) * 255) != data[name][severity - 1]).mean())
    assert max(wrong) <= (2e-3 if name == "brightness" else 0), wrong


@pytest.mark.parametrize("name", RANDOM + EXACT)
def test_cifar_pictures(name):
    # Kills: what eight photographs cannot show (rare hues, saturated borders): 64 pictures, all severities.
    images, _ = outputs("corruptions/cifar_inputs.npz")
    expected = reference.load("corruptions/cifar_c_outputs.npz")[name]
    for severity in range(1, 6):
        seed = 1_000_000 + 10_000 * POSITION.get(name, 0) + 1000 * severity
        draws = replay(name, images, CONSTANTS["cifar_c"][name][severity - 1], seed) if name in RANDOM else {}
        assert_bytes(images.astype(np.float32), draws, expected[severity - 1], name=name, severity=severity)


@pytest.mark.parametrize("name", ["defocus_blur", "brightness", "contrast"])
def test_values_before_truncation(name):
    # Kills: quantize=False that truncates all the same, or that skips the clip.
    images, _ = outputs("corruptions/cifar_inputs.npz")
    expected = reference.load("corruptions/cifar_c_float.npz")[name]
    for severity in range(1, 6):
        got = corruptions.apply(images[:8].astype(np.float32), {}, name=name, severity=severity, quantize=False)
        np.testing.assert_allclose(np.asarray(got) * 255, expected[severity - 1], atol=NEAR)


@pytest.mark.parametrize("file", ["corruptions/tiny_c_exact.npz", "corruptions/imagenet_c_exact.npz"])
def test_other_sizes(file):
    # Kills: CIFAR constants for every benchmark; a kernel grid or box sizes that only fit 32 pixels.
    images, data = outputs(file)
    benchmark = "tiny_imagenet_c" if "tiny" in file else "imagenet_c"
    for name in EXACT:
        for severity in range(1, 6):
            assert_bytes(images.astype(np.float32), {}, data[name][severity - 1], name=name, severity=severity, benchmark=benchmark)


@pytest.mark.parametrize("file", ["corruptions_photos/tiny_imagenet_c_64.npz", "corruptions_photos/imagenet_c_224.npz"])
def test_noise_of_other_sizes(file):
    # Kills: CIFAR's noise constants for every benchmark.
    images, data = outputs(file)
    benchmark, severities = ("tiny_imagenet_c", range(1, 6)) if "tiny" in file else ("imagenet_c", (1, 3, 5))
    for name in RANDOM:
        for i, severity in enumerate(severities):
            seed = 3_000_000 + 10_000 * POSITION[name] + 1000 * severity
            draws = replay(name, images, CONSTANTS[benchmark][name][severity - 1], seed)
            assert_bytes(images.astype(np.float32), draws, data[name][i], name=name, severity=severity, benchmark=benchmark)


def test_constants_are_the_released_ones():
    # Kills: a mistyped constant whose effect hides under the tolerances.
    released = reference.load("corruptions/severities.json")
    for benchmark, table in CONSTANTS.items():
        for name, values in table.items():
            assert np.array_equal(values, released[benchmark][name]), (benchmark, name)


def test_grey_digits():
    # Kills: noise or brightness that needs three channels; another order of draws. MNIST-C runs the same functions on one channel.
    data = reference.load("corruptions/mnist_c_outputs.npz")
    images = (data["images"] / 255)[..., None]
    x = jnp.asarray(images, jnp.float32)

    def compare(got, name, **tolerance):
        np.testing.assert_allclose(np.asarray(got)[..., 0] * 255, data[name], **tolerance)

    severity = jnp.asarray(1)
    for position, name, constant in ((201, "shot_noise", 3), (202, "impulse_noise", 0.17)):
        draws = replay(name, images, constant, 1_000_000 + 10_000 * position)
        draws = {key: jnp.asarray(value) for key, value in draws.items()}
        compare(getattr(noise, name)(x, draws, constants=(constant,), severity=severity), name, atol=1e-3)
    compare(weather.brightness(x, constants=(0.5,), severity=severity), "brightness", atol=1e-3)


def statistics(images, corrupted):
    """Returns the statistics of the reference data for uint8 images; see its README for their definitions."""
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
    }


@pytest.mark.parametrize("name", RANDOM)
def test_own_draws_have_the_official_statistics(name):
    # Kills: draws that are right when replayed and wrong when made here: one draw for all channels or images, keys used twice,
    # the normal's rank read the wrong way, the Poisson expansion off.
    images, _ = outputs("corruptions/cifar_inputs.npz")
    official = reference.load("corruptions/cifar_c_stats.npz")
    seeds, official_seeds = 4, 16
    for severity in range(1, 6):
        runs = []
        for seed in range(seeds):
            keys = example_keys(jax.random.key(seed), jnp.arange(len(images)))
            got = corruptions.corrupt(keys, images.astype(np.float32), name=name, severity=severity)
            runs.append(statistics(images * 255, np.rint(np.asarray(got, np.float64) * 255)))
        for stat in runs[0]:
            difference = np.mean([run[stat] for run in runs], axis=0) - official[f"{name}/{stat}"][severity - 1]
            # Under the null hypothesis both have the same spread over seeds, so the official one, from more seeds, serves both.
            error = official[f"{name}/{stat}_se"][severity - 1] * np.sqrt(1 + official_seeds / seeds)
            floor = 0.005 * abs(official[f"{name}/{stat}"][severity - 1])
            assert np.all(abs(difference) < np.maximum(5 * error, floor)), (severity, stat, difference / error)
