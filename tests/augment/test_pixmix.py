"""PixMix: its rounds, its draws, and the set of mixing pictures."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robustjax import augment
from robustjax.augment.fractals import fractals
from robustjax.core import InputError, example_keys, rng
from robustjax.imaging import pil

module = importlib.import_module("robustjax.augment.pixmix")  # the function hides it
K = 4


def keys(n, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(n))


def pictures(n, seed, channels=3, size=8):
    levels = np.random.default_rng(seed).integers(256, size=(n, size, size, channels))
    return (levels / 255).astype(np.float32)


def draws_of(keys, beta=3.0, k=K):
    return jax.jit(jax.vmap(lambda key: module.draw(key, jnp.float32(beta), k=k)))(keys)


def by_the_paper(image, mixer, copies, draws):
    """Mixes one image in NumPy, in float64; `copies` are its altered copies."""
    out = copies[0] if draws.own[0] else image
    for i in range(draws.rounds):
        other = copies[i + 1] if draws.own[i + 1] else mixer
        a, b = draws.weights[i].astype(np.float64)
        if draws.multiplies[i]:
            out = (2 * out) ** a * np.maximum(2 * other, 1e-37) ** b / 2
        else:
            out = (a * (2 * out - 1) + b * (2 * other - 1) + 1) / 2
        out = np.clip(out, 0, 1)
    return out


@pytest.mark.parametrize("channels", [1, 3])
def test_rounds_are_those_of_the_paper(channels):
    # Kills: clipping at the end only; a round too many; the mixed image altered in place of the image; one copy for all rounds.
    n = 24
    images, mixers = pictures(n, 0, channels), pictures(n, 1, channels)
    out = augment.pixmix(keys(n), images, mixers)
    draws = jax.tree.map(np.asarray, draws_of(rng.stream(keys(n), 0)))
    of_copies = jax.vmap(lambda key: jax.random.split(key, K + 1))(rng.stream(keys(n), 1)).reshape(-1)
    op_index, level = pil.sample_op(rng.stream(of_copies, 0)), pil.sample_level(rng.stream(of_copies, 1), severity=3.0)
    copies = np.asarray(jax.jit(pil.apply_op)(jnp.repeat(images, K + 1, 0), op_index, level), np.float64).reshape(
        n, K + 1, *images.shape[1:]
    )
    for i in range(n):
        expected = by_the_paper(images[i].astype(np.float64), mixers[i].astype(np.float64), copies[i], type(draws)(*(x[i] for x in draws)))
        np.testing.assert_allclose(out[i], expected, atol=2e-5)
    assert len(set(draws.rounds.tolist())) == K + 1


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_laws_of_the_draws(beta):
    # Kills: 1 to k rounds; Beta(1, beta) for Beta(beta, 1); one uniform for a and b; signs exchanged between the branches.
    n = 3000
    draws = jax.tree.map(np.asarray, draws_of(keys(n), beta))
    assert scipy.stats.chisquare(np.bincount(draws.rounds, minlength=K + 1)).pvalue > 1e-4
    for coin in (draws.own[:, 0], draws.own[:, 2], draws.multiplies[:, 3], draws.weights[:, 0, 1] < 0):
        assert scipy.stats.binomtest(int(coin.sum()), n).pvalue > 1e-4
    a, b = draws.weights[:, 0].T
    near, far = scipy.stats.beta(1, beta), b < 0
    assert ((a > 1) == far).all()
    for x in (1 - a[~far], b[~far], a[far] - 1, -b[far]):
        assert scipy.stats.kstest(x, near.cdf).pvalue > 1e-4
    for rows in (far, ~far):
        assert scipy.stats.spearmanr(a[rows], b[rows]).pvalue > 1e-4
    assert scipy.stats.spearmanr(draws.weights[:, 0, 0], draws.weights[:, 1, 0]).pvalue > 1e-4


def test_no_rounds_leave_the_image_or_one_operation_of_it():
    # Kills: a mixture at k = 0; a start that is always altered.
    n = 40
    images = pictures(n, 0)
    out = augment.pixmix(keys(n), images, np.zeros_like(images), k=0)
    same = (np.asarray(out) == images).all((1, 2, 3))
    assert 8 < same.sum() < 36  # an operation may do nothing, too


def test_black_pixels_have_finite_gradients():
    # Kills: x^(a - 1) at 0; the slope of a negative power of 1e-37.
    x = jnp.zeros((2, 3, 3, 1))
    a, b = jnp.asarray([0.5, 1.5]), jnp.asarray([0.5, -0.9])
    gradients = jax.grad(lambda x, o: jnp.clip(module.multiply(x, o, a, b), 0, 1).sum(), argnums=(0, 1))(x, x)
    assert not gradients[0].any() and not gradients[1].any()


def test_set_of_pictures_is_fixed_and_of_the_wanted_size():
    # Kills: pictures that depend on the example; no window, or none mirrored; a set of another size.
    shape = (8, 8, 3)
    whole = np.asarray(fractals(example_keys(jax.random.key(module._SET), jnp.arange(2)), (10, 10, 3)))
    cut = [whole[:, row : row + 8, column : column + 8] for row in range(3) for column in range(3)]
    windows = np.stack([view for window in cut for view in (window, window[:, :, ::-1])])  # (18, 2, ...)

    def found(n, count):
        """Returns which window, and of which picture, each one is."""
        made = np.asarray(module.mixing_pictures(keys(n), shape, count=count))
        window, number = np.nonzero(np.abs(windows - made[:, None, None]).max((3, 4, 5)) < 1e-5)[1:]
        assert len(window) == n
        return set(zip(window.tolist(), number.tolist(), strict=True))

    assert len(found(400, 2)) == 36
    assert {number for _, number in found(50, 1)} == {0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": -1}, "k, the most rounds, must be a whole number, at least 0, got -1"),
        ({"k": 2.0}, "k, .* got 2.0"),
        ({"beta": 0.0}, "beta must be a number above 0, got 0.0"),
        ({"severity": 11}, "severity must be between 0.1 and 10, got 11"),
        ({"mixers": pictures(1, 0)}, r"mixers must be one picture for each image, of shape \(2, 8, 8, 3\), got \(1, 8, 8, 3\)"),
        ({"mixers": 255 * pictures(2, 0)}, r"mixers must lie in \[0, 1\]"),
    ],
)
def test_wrong_inputs_are_refused(change, message):
    # Kills: each check left out; one mixing picture that is broadcast.
    with pytest.raises(InputError, match=message):
        augment.pixmix(keys(2), pictures(2, 0), **{"mixers": pictures(2, 1), **change})


@pytest.mark.parametrize("mixers", [0, 2.5, True])
def test_a_set_of_no_pictures_is_refused(mixers):
    # Kills: the check left out.
    with pytest.raises(InputError, match=r"mixers, the number of mixing pictures, must be a whole number, at least 1, got"):
        augment.TABLE["pixmix"](keys(2), pictures(2, 0), np.eye(2, dtype=np.float32), mixers=mixers)
