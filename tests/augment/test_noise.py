"""The noise that SPIDER and ESP are compared with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robustjax import augment
from robustjax.core import InputError, example_keys

B = 512
GREY = jnp.full((B, 8, 8, 3), 0.5)


def keys(n=B, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(n))


def distances(images):
    return np.linalg.norm(np.asarray(images - 0.5, np.float64).reshape(B, -1), axis=1)


def test_l2_kinds_have_their_radii():
    # Kills: the laws of the three exchanged; the dimension of the ball taken from the batch or one axis.
    np.testing.assert_allclose(distances(augment.l2_sphere(keys(), GREY, radius=2.0)), 2, rtol=1e-6)
    uniform = distances(augment.l2_uniform_radius(keys(), GREY, tau=2.0)) / 2
    assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-4
    ball = distances(augment.l2_ball(keys(), GREY, tau=2.0)) / 2
    assert scipy.stats.kstest(ball, lambda r: np.clip(r, 0, 1) ** 192).pvalue > 1e-4


def test_no_ls_moves_images_as_spider_does():
    # Kills: another stream or law, which would make the ablation compare more than the labels.
    moved = augment.l2_uniform_radius(keys(), GREY, tau=2.0)
    np.testing.assert_array_equal(moved, augment.spider(keys(), GREY, jnp.zeros(B, jnp.int32), tau=2.0, xi=0.1, num_classes=4).images)


def test_pixel_noise_has_its_law_and_is_clipped():
    # Kills: variance for std; [0, amplitude); one draw for all pixels; no clipping.
    gauss = np.ravel(augment.gaussian_noise(keys(), GREY, std=0.1) - 0.5)[::7]
    assert scipy.stats.kstest(gauss, scipy.stats.norm(0, 0.1).cdf).pvalue > 1e-4
    flat = np.ravel(augment.uniform_noise(keys(), GREY, amplitude=0.3) - 0.5)[::7]
    assert scipy.stats.kstest(flat, scipy.stats.uniform(-0.3, 0.6).cdf).pvalue > 1e-4
    for noisy in (augment.gaussian_noise(keys(), GREY, std=2.0), augment.uniform_noise(keys(), GREY, amplitude=2.0)):
        assert noisy.min() == 0 and noisy.max() == 1


EACH = pytest.mark.parametrize(
    ("function", "option"),
    [
        (augment.l2_sphere, "radius"),
        (augment.l2_ball, "tau"),
        (augment.l2_uniform_radius, "tau"),
        (augment.gaussian_noise, "std"),
        (augment.uniform_noise, "amplitude"),
    ],
)


@EACH
@pytest.mark.parametrize("wrong", [None, jax.random.key(0), jax.random.key_data(keys(2))], ids=["none", "one", "raw"])
def test_wrong_keys_get_one_line(function, option, wrong):
    # Kills: a signature or a fold_in that meets the keys before our check.
    with pytest.raises(InputError, match="keys must be"):
        function(wrong, GREY[:2], **{option: 1.0})


@EACH
def test_negative_sizes_are_refused(function, option):
    # Kills: each check left out.
    with pytest.raises(InputError, match=f"{option} is a size .* got -1"):
        function(keys(1), GREY[:1], **{option: -1.0})
