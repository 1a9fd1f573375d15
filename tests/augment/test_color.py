"""Colour jitter against torchvision's formulas, one image and one step at a time in float64."""

import colorsys
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robustjax import augment
from robustjax.augment import color
from robustjax.core import InputError, example_keys


def keys(ids):
    return example_keys(jax.random.key(5), jnp.asarray(ids))


def grey_of(image: np.ndarray) -> np.ndarray:
    return image if image.shape[-1] == 1 else (image @ [0.2989, 0.587, 0.114])[..., None]


def with_hue(pixel: np.ndarray, turn: float) -> tuple[float, ...]:
    hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
    return colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)


def by_hand(image: np.ndarray, order: np.ndarray, factors: np.ndarray) -> np.ndarray:
    for operation in order:
        f = factors[operation]
        if operation == color.HUE:
            image = np.apply_along_axis(with_hue, -1, image, f) if image.shape[-1] == 3 else image
            continue
        other = {color.BRIGHTNESS: 0 * image, color.CONTRAST: grey_of(image).mean(), color.SATURATION: grey_of(image)}[operation]
        image = np.clip(f * image + (1 - f) * other, 0, 1)
    return image


@pytest.mark.parametrize("channels", [3, 1])
def test_every_order_is_torchvisions_formulas(channels):
    # Kills: a fixed order; steps after the hue taken before it; factors taken by place and not by kind; other grey weights; the mean of
    # the batch or of each channel; clipping at the end only; a hue that is scaled, not added.
    orders = np.array(list(itertools.permutations(range(4))), np.int32)
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(24, 4, 5, channels))
    images[::3] = images[::3].round(1)  # equal channels now and then
    factors = np.concatenate([rng.uniform(0, 2.5, (24, 3)), rng.uniform(-0.5, 0.5, (24, 1))], axis=1)
    with jax.enable_x64(True):
        got = jax.jit(color.adjust)(*map(jnp.asarray, (images, orders, factors)))
    expected = [by_hand(*one) for one in zip(images, orders, factors, strict=True)]
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_draws_are_uniform_and_independent(monkeypatch):
    # Kills: a range that is not cut off at 0, or is of another option; one draw a batch, or one for all four; orders that never come.
    def drawn(images, order, factors):
        return jnp.concatenate([order.astype(jnp.float32), factors], axis=1)[:, None, :, None]

    monkeypatch.setattr(color, "adjust", drawn)
    n, strength = 4800, jnp.asarray([0.4, 2.0, 0.1, 0.3])
    found = np.asarray(jax.jit(color._jitter.__wrapped__)(keys(np.arange(n)), jnp.zeros((n, 1, 8, 1)), strength))[:, 0, :, 0]
    order, factors = found[:, :4].astype(int), found[:, 4:]
    _, counts = np.unique(order, axis=0, return_counts=True)
    assert len(counts) == 24 and scipy.stats.chisquare(counts).pvalue > 1e-4
    for column, (low, high) in zip(factors.T, ((0.6, 1.4), (0, 3), (0.9, 1.1), (-0.3, 0.3)), strict=True):
        assert scipy.stats.kstest(column, scipy.stats.uniform(low, high - low).cdf).pvalue > 1e-4
    together = np.corrcoef(np.column_stack([factors, order[:, :3]]).T)[:4]
    assert np.abs(together - np.eye(4, 7)).max() < 5 / np.sqrt(n)


def test_one_channel_has_neither_saturation_nor_hue():
    # Kills: grey images refused, or coloured.
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(6, 4, 4, 1)), jnp.float32)
    np.testing.assert_array_equal(augment.color_jitter(keys(range(6)), images, saturation=0.9, hue=0.5), images)
    assert np.any(augment.color_jitter(keys(range(6)), images, contrast=0.9) != images)


@pytest.mark.parametrize(
    ("options", "channels", "message"),
    [
        ({"brightness": -0.1}, 3, "option brightness of color_jitter must be finite and at least 0, got -0.1"),
        ({"saturation": float("inf")}, 3, "option saturation of color_jitter must be finite"),
        ({"hue": 0.6}, 3, "option hue of color_jitter must be between 0 and 0.5, got 0.6"),
        ({"contrast": "much"}, 3, "option contrast .* got 'much'"),
        ({}, 2, r"images of 1 or 3 channels, got \(2, 4, 4, 2\)"),
    ],
)
def test_bad_input_is_one_clear_line(options, channels, message):
    # Kills: a check dropped.
    with pytest.raises(InputError, match=message):
        augment.color_jitter(keys(range(2)), jnp.zeros((2, 4, 4, channels)), **options)
