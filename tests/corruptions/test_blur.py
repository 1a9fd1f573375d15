"""Blurs beyond the reference data: glass's chains, rounding where neighbours are equal, directions, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.core import InputError, example_keys
from robustjax.corruptions import blur, motion
from robustjax.corruptions.constants import CONSTANTS

RNG = np.random.default_rng(0)
SEVERE = jnp.int32(1)


def in_order(image, dx, dy, reach):
    """One pixel after the other, as published."""
    image = image.copy()
    for right, down in zip(dx, dy, strict=True):
        for y in range(image.shape[0] - reach, reach, -1):
            for x in range(image.shape[1] - reach, reach, -1):
                image[y, x] = image[y + down[y, x], x + right[y, x]]
    return image


@functools.partial(jax.jit, static_argnames=("constants", "quantize"))
def glass(images, draws, constants, quantize=True):
    return blur.glass_blur(images, draws, constants=constants, severity=SEVERE, quantize=quantize)


@pytest.mark.parametrize(("reach", "rounds"), [(1, 2), (2, 3), (4, 1)])
def test_glass_moves_pixels_as_the_loop_does(reach, rounds):
    # Kills: sources read before they changed, or after; chains cut short; rounds in the wrong order or too many; the first and last
    # rows moved; dx for dy; pixels of other images; height for width; uniforms cut at other places.
    images = RNG.integers(0, 256, (2, 18, 23, 3))
    offset = RNG.integers(-reach, reach, (2, rounds + 1, 18, 23, 2))
    offset[0, 0] = reach - 1  # chains through the whole image
    dx, dy = np.moveaxis(offset[:, :rounds], -1, 0)
    expected = [in_order(*one, reach) for one in zip(images, dx, dy, strict=True)]
    constants = ((0.05, reach, rounds),)  # so narrow that it does not blur
    units = jnp.asarray(images / 255, jnp.float32)
    np.testing.assert_array_equal(np.rint(glass(units, {"offset": jnp.asarray(offset)}, constants) * 255), expected)
    uniform = (dy + reach + (dx + reach + RNG.random(dx.shape)) / (2 * reach)) / (2 * reach)
    np.testing.assert_array_equal(np.rint(glass(units, {"uniform": jnp.asarray(uniform, jnp.float32)}, constants) * 255), expected)


def test_glass_survives_draws_out_of_range():
    # Kills: chains that lead in circles for ever; reads beyond the image.
    images = jnp.asarray(RNG.random((1, 16, 16, 1)), jnp.float32)
    for draws in ({"uniform": jnp.ones((1, 2, 16, 16))}, {"offset": jnp.asarray(RNG.integers(-99, 99, (1, 2, 16, 16, 2)))}):
        result = glass(images, draws, ((0.5, 2, 2),))
        assert images.min() - 1 / 255 <= result.min() and result.max() <= images.max()
    for shape in ((1, 1, 16, 16, 2), (1, 16, 16)):
        with pytest.raises(InputError, match="draws"):
            glass(images, {"offset": jnp.zeros(shape, jnp.int32)}, ((0.5, 2, 2),))


def test_glass_truncates_between_its_blurs_and_lets_gradients_pass():
    # Kills: no truncation between; rounding there; a derivative that stops at it, or counts one of the blurs only.
    levels = RNG.integers(100, 156, (1, 16, 16, 1))
    images, still = jnp.asarray(levels / 255, jnp.float32), {"offset": jnp.zeros((1, 1, 16, 16, 2), jnp.int32)}
    run = functools.partial(glass, draws=still, constants=((1.0, 1, 1),), quantize=False)
    once = blur.gaussian_blur(images, constants=(1.0,), severity=SEVERE)
    twice = blur.gaussian_blur(jnp.floor(once * 255 + 2e-4) / 255, constants=(1.0,), severity=SEVERE)
    np.testing.assert_allclose(run(images), twice, atol=1e-6)
    derivative = jax.jvp(run, (images,), (images,))[1]
    np.testing.assert_allclose(derivative, blur.gaussian_blur(once, constants=(1.0,), severity=SEVERE), atol=1e-6)
    assert not jax.grad(lambda images: jnp.sum(glass(images, still, ((1.0, 1, 1),))))(images).any()


@pytest.mark.parametrize("benchmark", ["cifar_c", "imagenet_c"])
def test_zooms_of_flat_images_have_the_byte_of_float32_sums(benchmark):
    # Kills: multiplication by 1 / n for division; another order of sums; slack; interpolation that moves equal neighbours.
    flat = np.arange(256, dtype=np.float32) / np.float32(255)
    images = jnp.broadcast_to(jnp.asarray(flat)[:, None, None, None], (256, 16, 16, 1))
    run = jax.jit(functools.partial(blur.zoom_blur, constants=CONSTANTS[benchmark]["zoom_blur"], quantize=True))
    for severity, factors in enumerate(CONSTANTS[benchmark]["zoom_blur"], 1):
        total = np.zeros_like(flat)
        for _ in factors:
            total += flat
        expected = np.floor(np.clip((flat + total) / np.float32(len(factors) + 1), 0, 1) * np.float32(255))
        got = np.rint(run(images, severity=jnp.int32(severity)) * 255)
        np.testing.assert_array_equal(got, np.broadcast_to(expected[:, None, None, None], got.shape))


def test_motion_goes_one_way_between_45_degrees_up_and_down():
    # Kills: angles in radians, or from 0; a kernel to both sides; up for down. The streak is left of the dot whose light it is.
    dot = jnp.zeros((2, 17, 17, 1)).at[:, 8, 8].set(1)
    draws = {"uniform": jnp.array([0, 1 - 2**-20])}
    run = jax.jit(functools.partial(motion.motion_blur, constants=((3, 2),), quantize=False))
    got = run(dot, draws, severity=SEVERE)[..., 0]
    for image, sign in zip(got, (1, -1), strict=True):
        lit = np.argwhere(np.asarray(image) > 0.01)
        assert all(y - 8 == sign * (8 - x) and x <= 8 for y, x in lit) and len(lit) > 3
    drawn = motion.draw_motion_blur(example_keys(jax.random.key(0), jnp.arange(999)), (999, 17, 17, 1))["uniform"]
    assert 0 <= drawn.min() < 0.01 and 0.99 < drawn.max() < 1


@pytest.mark.parametrize(("benchmark", "severity"), [("cifar_c", 1), ("tiny_imagenet_c", 5), ("imagenet_c", 5)])
def test_blurs_keep_flat_images_and_the_light_of_a_dot(benchmark, severity):
    # Kills: taps that do not sum to 1; negligible weights whose loss can be seen; the sum of the largest disk, 1.01 by accident, set
    # right; a kernel that fits square images only.
    images = jnp.stack([jnp.full((24, 52, 1), 200 / 255), jnp.zeros((24, 52, 1)).at[12, 26].set(1)])
    for name in ("defocus_blur", "gaussian_blur"):
        run = jax.jit(functools.partial(getattr(blur, name), constants=CONSTANTS[benchmark][name]))
        flat, dot = run(images, severity=jnp.int32(severity))
        total = 1.010785828 if (name, benchmark) == ("defocus_blur", "imagenet_c") else 1
        np.testing.assert_allclose(flat * 255, 200 * total, atol=5e-5)
        if name == "defocus_blur":
            np.testing.assert_allclose(jnp.sum(dot), total, atol=2e-6)
