"""Mixup, CutMix and Cutout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robustjax import augment
from robustjax.augment.mixup import box_side
from robustjax.core import InputError, example_keys

K = 4
MIXES = pytest.mark.parametrize("name", ["mixup", "cutmix"])


@functools.cache
def jitted(name, lam="example"):
    return jax.jit(functools.partial(getattr(augment, name), lam=lam))


def keys(n, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(n))


def black_and_white(n, height=6, width=10):
    """Black images of class 0 with white partners of class 1: the mixed picture and target show the shares."""
    images, targets = jnp.zeros((n, height, width, 1)), jnp.tile(jnp.eye(K)[:1], (n, 1))
    return images, targets, images + 1, jnp.roll(targets, 1, axis=1)


def partners_share(targets):
    """Returns 1 - lambda, having checked that targets are of classes 0 and 1."""
    targets = np.asarray(targets, np.float64)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
    assert not targets[:, 2:].any()
    return targets[:, 1]


@MIXES
def test_label_shares_are_pixel_shares(name):
    # Kills: 1 - lambda on one side only; the sampled lambda kept after the box was cut off; one draw a batch.
    images, targets = jitted(name)(keys(200), *black_and_white(200), alpha=1.0)
    share = partners_share(targets)
    np.testing.assert_allclose(np.asarray(images).mean((1, 2, 3)), share, atol=1e-6)
    assert len(set(share.tolist())) > 10


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_law_of_lambda(alpha):
    # Kills: Beta(alpha, 1); alpha ignored; max(lambda, 1 - lambda).
    _, targets = jitted("mixup")(keys(3000), *black_and_white(3000, 1, 1), alpha=alpha)
    share = np.clip(partners_share(targets), 1e-6, 1 - 1e-6)  # in float32, 1 - lambda ends there
    assert scipy.stats.kstest(share, scipy.stats.beta(alpha, alpha).cdf).pvalue > 1e-4


def test_boxes_of_cutmix_are_rectangles_with_centres_anywhere():
    # Kills: rows for columns; a centre that keeps the box inside; one centre a batch; a box of side 1 - lambda.
    n, height, width = 3000, 6, 10
    images = np.asarray(jitted("cutmix")(keys(n), *black_and_white(n), alpha=1.0)[0])[..., 0]
    rows, columns = images.max(2), images.max(1)
    np.testing.assert_array_equal(images, rows[:, :, None] * columns[:, None])
    # Of a box of full sides (λ = 0) columns 0 to 9 are covered as often as the centre is within 5; the mean over λ in closed form.
    u = np.linspace(0, 1, 20001)
    for cover, length in ((rows, height), (columns, width)):
        half = (length * np.sqrt(u)).astype(int) // 2
        centre, place = np.arange(length)[:, None, None], np.arange(length)[:, None]
        expected = ((place >= centre - half) & (place < centre + half)).mean((0, 2))
        np.testing.assert_allclose(cover.mean(0), expected, atol=4 * 0.5 / np.sqrt(n))


@MIXES
def test_one_lambda_a_batch(name):
    # Kills: 'batch' that still draws for each; a key other than the first; a centre for each in one batch.
    images, targets = jitted(name, "batch")(keys(5), *black_and_white(5), alpha=1.0)
    assert len(set(partners_share(targets).tolist())) == 1
    np.testing.assert_array_equal(images, jnp.broadcast_to(images[:1], images.shape))
    first, _ = jitted(name)(keys(5), *black_and_white(5), alpha=1.0)
    np.testing.assert_array_equal(images[0], first[0])


@MIXES
def test_stage_takes_the_next_example_of_the_batch(name):
    # Kills: a partner that is the example itself; images and targets rolled in opposite ways; softened targets made hard.
    n = 6
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.uniform(size=(n, 6, 8, 1)), jnp.float32)
    targets = jnp.asarray(rng.dirichlet(np.ones(K), size=n), jnp.float32)
    following = np.arange(1, n + 1) % n
    stage = augment.compose([(name, {"alpha": 0.7})])
    direct = jitted(name)(
        jax.vmap(jax.random.fold_in, (0, None))(keys(n), 0), images, targets, images[following], targets[following], alpha=0.7
    )
    for found, expected in zip(jax.jit(stage)(keys(n), images, targets), direct, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@MIXES
def test_gradients_reach_both_images(name):
    # Kills: a selection by multiplication; a draw whose derivative is NaN.
    images, targets, others, other_targets = black_and_white(8)
    total = lambda x, p: jitted(name)(keys(8), x, targets, p, other_targets, alpha=1.0)[0].sum()  # noqa: E731
    gradients = jax.grad(total, argnums=(0, 1))(images, others)
    np.testing.assert_allclose(gradients[0] + gradients[1], jnp.ones_like(images), rtol=1e-6)
    assert gradients[0].any() and gradients[1].any()


@pytest.mark.parametrize("height", [5, 8])
def test_cutout_blackens_a_square_around_any_pixel(height):
    # Kills: a square kept inside; rows for columns; one centre a batch; a side one pixel short where odd.
    n, width, size = 4000, 7, 3
    images = np.asarray(augment.cutout(keys(n), jnp.ones((n, height, width, 2)), size=size))
    assert set(np.unique(images)) == {0, 1}
    hole = 1 - images[..., 0]
    np.testing.assert_array_equal(hole, 1 - images[..., 1])
    np.testing.assert_array_equal(hole, hole.max(2)[:, :, None] * hole.max(1)[:, None])
    for axis, length in ((2, height), (1, width)):
        expected = np.convolve(np.ones(length), np.ones(size), "same") / length
        np.testing.assert_allclose(hole.max(axis).mean(0), expected, atol=4 * 0.5 / np.sqrt(n))


@MIXES
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0.0}, "alpha must be a number above 0, got 0.0"),
        ({"alpha": "1"}, "alpha must be a number above 0, got '1'"),
        ({"alpha": np.nan}, "alpha must be a number above 0, got nan"),
        ({"lam": "image"}, "lam must be 'example' or 'batch', got 'image'"),
        ({"targets": np.zeros(2, np.int32)}, r"^targets must be distributions \(b, k\), one for each of the 2 images, got shape \(2,\)"),
        ({"partner_targets": np.eye(3, dtype=np.float32)[:2]}, r"partner_targets must have the shape of targets, \(2, 4\), got \(2, 3\)"),
        ({"partner_images": np.zeros((2, 4, 5, 1), np.float32)}, r"partner_images must have the shape of images"),
        ({"partner_images": np.full((2, 4, 4, 1), 9, np.float32)}, r"partner_images must lie in \[0, 1\]"),
    ],
)
def test_wrong_inputs_are_refused(name, change, message):
    # Kills: a check left out; a message that blames the wrong argument.
    given = dict(zip(("images", "targets", "partner_images", "partner_targets"), black_and_white(2, 4, 4), strict=True))
    with pytest.raises(InputError, match=message):
        getattr(augment, name)(keys(2), **{**given, "alpha": 1.0, **change})


def test_negative_cutout_is_refused():
    # Kills: the check left out: nothing would be blackened.
    with pytest.raises(InputError, match="size must be a whole number, at least 0, got -2"):
        augment.cutout(keys(1), jnp.zeros((1, 4, 4, 1)), size=-2)


def test_box_side_keeps_odd_sizes():
    # Kills: size // 2 on both sides.
    found = box_side(6, jnp.asarray([0, 3, 5]), 3)
    np.testing.assert_array_equal(found, [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 1]])
