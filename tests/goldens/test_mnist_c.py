"""MNIST-C against outputs of the official code: by replayed draws, and by the statistics of our own draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import corruptions
from robustjax.corruptions import mnist, weather
from robustjax.corruptions.constants import CONSTANTS
from robustjax.corruptions.registry import TABLE
from tests.goldens import official, reference

NAMES = tuple(CONSTANTS["mnist_c"])  # in the order of the seed rule, where 'identity' comes before them
RANDOM = [name for name in NAMES if TABLE["mnist_c"][name].draw]
SEEDS = 32


def _glass(state, image, constant):
    _, shift, rounds = constant
    size = len(image)
    move = np.zeros((rounds, size, size), int)
    for i in range(rounds):
        for row in range(size - shift, shift, -1):
            for column in range(size - shift, shift, -1):
                if state.choice([True, False], 1)[0]:
                    right, down = state.randint(-shift, shift, size=2)
                    move[i, row, column] = -right - 2 * down
    return {"move": move}


# As official.REPLAYS.
REPLAYS = {
    "shot_noise": official.REPLAYS["shot_noise"],
    "impulse_noise": official.REPLAYS["impulse_noise"],
    "glass_blur": _glass,
    "motion_blur": lambda state, image, constant: {"uniform": state.random_sample()},
    "shear": lambda state, image, constant: {"sign": state.choice([-1, 1], 1)[0]},
    "rotate": lambda state, image, constant: {"sign": state.choice([-1, 1], 1)[0]},
    "translate": lambda state, image, constant: {"sign": state.choice([-1, 1], 2)},
    "fog": lambda state, image, constant: {"uniform": state.random_sample(256**2 - 1)},
    "spatter": lambda state, image, constant: {"normal": state.standard_normal(image.shape)},
    "dotted_line": lambda state, image, constant: {"row": state.randint(0, 27, size=2)},
    "zigzag": lambda state, image, constant: {"row": state.randint(0, 27), "rise": state.randint(-5, 5)},
}


def digits():
    return reference.load("corruptions/mnist_c_outputs.npz")["images"][..., None] / 255


def replayed(name, images):
    if TABLE["mnist_c"][name].draw is None:
        return {}
    seed = 1_000_000 + 10_000 * (201 + NAMES.index(name))
    constant = CONSTANTS["mnist_c"][name][0]
    draws = [REPLAYS[name](np.random.RandomState(seed + i), image, constant) for i, image in enumerate(images)]
    return {key: np.stack([draw[key] for draw in draws]) for key in draws[0]}


@pytest.mark.parametrize("name", NAMES)
def test_digits(name):
    # Kills: any wrong constant; the tangent for the sine in shear; a turn to the other side; x for y; fog made for 32 pixels; blur
    # of glass along both axes, or copies for swaps; a line that reaches the last column; teeth of another shape; Canny's borders.
    # glass_blur truncates half-way, where float32 falls to either side of whole levels: bytes there, floats in float64.
    images, expected = digits(), reference.load("corruptions/mnist_c_outputs.npz")[name][..., None]
    arguments = {"name": name, "benchmark": "mnist_c"}
    draws = replayed(name, images)
    if name == "motion_blur":  # ends in whole levels by itself
        np.testing.assert_array_equal(official.levels(images.astype(np.float32), draws, near=False, **arguments)[0], expected)
        return
    if name == "glass_blur":
        official.assert_bytes(images, draws, np.floor(expected), **arguments)
    with jax.enable_x64(name == "glass_blur"):
        images = images.astype(np.float64 if name == "glass_blur" else np.float32)
        got = corruptions.apply(images, draws, **arguments, quantize=False)
        assert got.dtype == images.dtype
        np.testing.assert_allclose(np.asarray(got) * 255, expected, rtol=0, atol=official.NEAR)


def test_other_strengths():
    # Kills: a factor or an offset that is right for the published strength only.
    images, data = jnp.asarray(digits()[:16], jnp.float32), reference.load("corruptions/mnist_c_outputs.npz")
    strengths = reference.load("corruptions/severities.json")["mnist_c"]
    for row in range(5):
        constant = strengths["scale"]["all_five"][row], strengths["brightness"]["all_five"][row]
        for name, got in (
            ("scale", mnist.scale(images, constants=(tuple(constant[0]),))),
            ("brightness", weather.brightness(images, constants=(constant[1],), severity=jnp.int32(1))),
        ):
            np.testing.assert_allclose(np.asarray(got)[..., 0] * 255, data[f"{name}__all5"][row], atol=1e-3)


@pytest.mark.parametrize("name", RANDOM)
def test_own_draws_have_the_official_statistics(name):
    # Kills: draws that are right when replayed and wrong when made here: one sign for all, a visit of glass_blur that is sure, a row
    # that is never drawn, rise and row from the same number.
    official.assert_statistics(
        digits(),
        reference.load("corruptions/mnist_c_stats.npz"),
        SEEDS,
        name=name,
        benchmark="mnist_c",
        severity=None,
        row=0,
        quantize=name == "motion_blur",
        whole=False,
    )
