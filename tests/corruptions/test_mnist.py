"""MNIST-C's own corruptions where the reference data cannot go: other sizes, each step of the shuffle, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import corruptions
from robustjax.core import InputError, example_keys
from robustjax.corruptions import mnist

SIZES = (16, 28, 33)


def corrupted(name, images, draws=None, **options):
    return np.asarray(corruptions.apply(jnp.asarray(images, jnp.float32), draws, name=name, benchmark="mnist_c", **options))


def ramp(size):
    """An image that tells each pixel from each other, of whole levels."""
    image = np.arange(size * size).reshape(1, size, size, 1) * 7919 % 256
    return image / 255


def test_spatter_belongs_to_the_fifteen():
    # Kills: the extra corruptions of the other benchmarks taken for extra here.
    assert len(corruptions.NAMES["mnist_c"]) == 15 and "mnist_c_extra" not in corruptions.NAMES


def test_swaps_one_after_another():
    # Kills: rows at work too early or too late (values lost or doubled); the shift of rows by one column; rounds that start from the
    # same image; visits to the first two rows or columns; left for upper.
    rng = np.random.RandomState(0)
    size, b, rounds = 17, 3, 2
    images, move = rng.rand(b, size, size, 1).astype(np.float32), rng.randint(0, 4, (b, rounds, size, size))
    expected = images.copy()
    for i in range(b):
        for number in range(rounds):
            for y in range(size - 1, 1, -1):
                for x in range(size - 1, 1, -1):
                    up, left = divmod(move[i, number, y, x], 2)
                    here, there = (i, y, x, 0), (i, y - up, x - left, 0)
                    expected[here], expected[there] = expected[there], expected[here]
    np.testing.assert_array_equal(mnist._swapped(jnp.asarray(images), jnp.asarray(move, jnp.int32)), expected)


def test_glass_blur_has_a_gradient_and_keeps_columns_that_do_not_move():
    # Kills: a truncation without gradient; a blur along rows.
    stay = {"move": np.zeros((1, 2, 28, 28), int)}
    image = np.zeros((1, 28, 28, 1))
    image[:, 14, 9] = 1
    assert set(np.nonzero(corrupted("glass_blur", image, stay))[2]) == {9}
    total = lambda x: corruptions.apply(x, stay, name="glass_blur", benchmark="mnist_c", quantize=False).sum()  # noqa: E731
    np.testing.assert_allclose(jax.grad(total)(jnp.full((1, 28, 28, 1), 0.4))[0, 8:-8], 1, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_moves_follow_the_size(size):
    # Kills: the centre of 28 pixels for all sizes; a shear or turn to the same side for both signs; wrap-around for zeros.
    image = ramp(size)
    for name, axis in (("shear", 1), ("rotate", 1)):
        one, other = (corrupted(name, x, {"sign": [sign]}, quantize=False) for x, sign in ((image, 1), (np.flip(image, axis), -1)))
        np.testing.assert_allclose(one, np.flip(other, axis), atol=1e-5)
        assert abs(one - corrupted(name, image, {"sign": [-1]}, quantize=False)).max() > 0.1
        white = corrupted(name, np.ones_like(image), {"sign": [1]}, quantize=False)
        assert white[0, size // 2, size // 2] == pytest.approx(1, abs=1e-5) and white[0, 0, -1] < 0.5
    small = corrupted("scale", np.ones_like(image), quantize=False)
    np.testing.assert_allclose(small, small[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(small.sum() ** 0.5 / size, 0.7, atol=0.02)
    left_up = corrupted("translate", image, {"sign": [[1, 1]]})
    np.testing.assert_allclose(left_up[:, :-3, :-3], image[:, 3:, 3:], atol=1e-6)
    right_up = corrupted("translate", image, {"sign": [[-1, 1]]})
    np.testing.assert_allclose(right_up[:, :-3, 3:], image[:, 3:, :-3], atol=1e-6)
    assert not left_up[:, -3:].any() and not left_up[:, :, -3:].any() and not right_up[:, :, :3].any()


@pytest.mark.parametrize("size", SIZES)
def test_what_is_drawn_over_follows_the_size(size):
    # Kills: stripes, dots or teeth that end at column 28; a zigzag that does not fit its table; one that does not reach its end.
    black = np.zeros((1, size, size, 1))
    lit = corrupted("stripe", black)[0, 0, :, 0]
    assert np.array_equal(lit, lit[::-1]) and lit.sum() == 2 * (size // 4) and lit[0] == 1
    row = size // 2
    dots = corrupted("dotted_line", black, {"row": [[row, row]]}, quantize=False)[0, row, :, 0]
    np.testing.assert_array_equal(np.flatnonzero(dots), [i for i in range(size - 1) if i % 4 in (2, 3)])
    table = mnist._zigzags(size)
    assert not table[:, [0, -1]].any() and table.max() <= 2
    for rise in range(-5, 5):
        line = corrupted("zigzag", black, {"row": [row], "rise": [rise]}, quantize=False)[0, ..., 0]
        columns = np.flatnonzero(line.any(0))
        middle = (line * np.arange(size)[:, None]).sum(0)[columns] / line.sum(0)[columns]
        assert columns[0] == 2 and columns[-1] in (size - 3, size - 4)
        assert abs(middle - row - rise * (columns - 2) / (size - 5)).max() < 3.5


def test_draws_reach_all_values_and_no_others():
    # Kills: rows that leave the image; a rise that is symmetric; moves with equal chances; one number used for two draws.
    keys = example_keys(jax.random.key(0), jnp.arange(2000))
    of = lambda name: {k: np.asarray(v) for k, v in corruptions.draw(keys, (2000, 28, 28, 1), name=name, benchmark="mnist_c").items()}  # noqa: E731
    zigzag, dots, sign = of("zigzag"), of("dotted_line")["row"], of("translate")["sign"]
    assert set(zigzag["rise"]) == set(range(-5, 5)) and set(zigzag["row"]) == set(range(27)) == set(dots.ravel())
    for pair in ((zigzag["rise"], zigzag["row"]), dots.T, sign.T):
        assert abs(np.corrcoef(*pair)[0, 1]) < 0.1
    assert set(sign.ravel()) == {-1, 1} and abs(sign.mean()) < 0.1
    shares = np.bincount(of("glass_blur")["move"].ravel()) / (2000 * 2 * 28 * 28)
    np.testing.assert_allclose(shares, [5 / 8, 1 / 8, 1 / 8, 1 / 8], atol=2e-3)


def test_fog_is_cut_from_a_large_one():
    # Kills: fog made for the next power of two, which spans all of [0, 1] at 28 pixels.
    keys = example_keys(jax.random.key(0), jnp.arange(8))
    white = corruptions.corrupt(keys, jnp.ones((8, 28, 28, 1)), name="fog", benchmark="mnist_c", quantize=False)
    spread = np.ptp(np.asarray(white), axis=(1, 2, 3)) * (1 + 3) / 3
    assert np.all(spread < 0.9) and np.median(spread) < 0.5


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 28, 28, 3), "mnist_c is made for grey images, these have 3 channels"), ((1, 28, 32, 1), "square images only, got 28x32")],
)
def test_grey_and_square_only(shape, message):
    # Kills: colour or oblong images that get as far as a kernel that mixes their axes.
    with pytest.raises(InputError, match=message):
        corrupted("stripe", np.zeros(shape))
    with pytest.raises(InputError, match="'stripe' has no severities here"):
        corrupted("stripe", np.zeros((1, 28, 28, 1)), severity=3)
