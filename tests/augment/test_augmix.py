"""AugMix: its chains, its mixture, and operations in parts of the batch."""

import functools
import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robustjax import augment
from robustjax.core import InputError, example_keys
from robustjax.imaging import pil

module = importlib.import_module("robustjax.augment.augmix")  # the function hides it


def keys(n, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(n))


def photos(n, channels=3, size=12):
    levels = np.random.default_rng(0).integers(256, size=(n, size, size, channels))
    return jnp.asarray(levels / 255, jnp.float32)


def chains_of(monkeypatch, kernel, n=600, *, width=1, depth=-1, alpha=1.0, ops=pil.DEFAULT_OPS, out=None):
    """Returns what `out` sees of AugMix of black pixels with apply_to_levels replaced by `kernel(levels, op_index as levels)`.

    By default these are the chains as levels.
    """
    out = out or (lambda images, chains, w, m: jnp.round(255 * chains))
    monkeypatch.setattr(
        module,
        "apply_to_levels",
        lambda levels, op, level: kernel(levels.astype(jnp.int32), jnp.broadcast_to(op[:, None, None, None], levels.shape)).astype(
            jnp.uint8
        ),
    )
    monkeypatch.setattr(module, "mixed", out)
    run = jax.jit(
        lambda keys, images: inspect.unwrap(module._mixed_chains)(
            images, keys, jnp.float32(3), jnp.float32(alpha), width=width, depth=depth, ops=ops
        )
    )
    return np.asarray(run(keys(n), jnp.zeros((n, 1, 1, 1)))).squeeze()


@pytest.mark.parametrize("channels", [1, 3])
def test_parts_of_the_batch_do_what_the_whole_does(channels):
    # Kills: rows that do not come back to their places; padding that is returned; NO_OP that does something.
    n = 29  # no multiple of the parts
    images, level = photos(n, channels), jnp.asarray(np.random.default_rng(1).uniform(-3, 3, size=n), jnp.float32)
    op_index = jnp.asarray(np.random.default_rng(2).integers(-1, len(pil.OPS), size=n), jnp.int32)
    out = jax.jit(module.apply_ops)(images, op_index, level)
    np.testing.assert_allclose(out, jax.jit(pil.apply_op)(images, op_index, level), atol=1e-6)
    np.testing.assert_allclose(out[op_index == -1], images[op_index == -1], atol=1e-6)
    assert np.abs(out - images).max((1, 2, 3))[op_index != -1].astype(bool).mean() > 0.7


@pytest.mark.parametrize("size", [3, 8, 40])
def test_parts_of_any_size_do_the_same(size):
    # Kills: rows of a part behind the last one that needs its kernel; parts that run over into the next kernel; sizes of CPUs alone.
    n = 29
    levels = pil.to_levels(photos(n))
    op_index = jnp.asarray(np.random.default_rng(3).integers(-1, len(pil.OPS), size=n), jnp.int32)
    level = jnp.linspace(-3, 3, n, dtype=jnp.float32)
    for index in (op_index, jnp.full(n, module.NO_OP, jnp.int32), jnp.full(n, pil.OPS.index("color"), jnp.int32)):
        found = jax.jit(functools.partial(module._in_parts, size=size))(levels, index, level)
        np.testing.assert_array_equal(found, jax.jit(pil.apply_to_levels)(levels, index, level))


def test_each_chain_has_one_to_three_operations(monkeypatch):
    # Kills: 0 to 2; a depth for all chains of an image; steps behind the depth that still act.
    depths = chains_of(monkeypatch, lambda levels, op: jnp.where(op >= 0, levels + 1, levels), width=3)
    assert set(np.unique(depths)) == {1, 2, 3}
    counts = np.zeros((3, 3))
    np.add.at(counts, tuple(depths[:, :2].astype(int).T - 1), 1)
    assert scipy.stats.chisquare(counts.ravel()).pvalue > 1e-4


def test_a_given_depth_is_that_of_every_chain(monkeypatch):
    # Kills: depth ignored, or as an upper limit only.
    assert set(chains_of(monkeypatch, lambda levels, op: jnp.where(op >= 0, levels + 1, levels), 50, depth=5)) == {5}


@pytest.mark.parametrize("ops", [pil.DEFAULT_OPS, pil.OPS], ids=len)
def test_operations_are_drawn_anew_for_each_step(monkeypatch, ops):
    # Kills: one operation for a whole chain; some never drawn, or those of all_ops always.
    drawn = chains_of(monkeypatch, lambda levels, op: 16 * levels + op, 3000, depth=2, ops=ops)
    counts = np.zeros((len(ops), len(ops)))
    np.add.at(counts, (drawn.astype(int) // 16, drawn.astype(int) % 16), 1)
    assert scipy.stats.chisquare(counts.ravel()).pvalue > 1e-4


def test_all_ops_is_an_option(monkeypatch):
    # Kills: the option that changes nothing.
    given = []
    monkeypatch.setattr(module, "_augmix", lambda images, *rest, ops, **options: given.append(ops) or images)
    for all_ops in (False, True):
        augment.augmix(keys(1), photos(1), all_ops=all_ops)
    assert given == [pil.DEFAULT_OPS, pil.OPS] and "contrast" in pil.OPS[9:] and "contrast" not in pil.DEFAULT_OPS


@pytest.mark.parametrize("alpha", [1.0, 3.0])
def test_laws_of_the_weights(monkeypatch, alpha):
    # Kills: weights that do not sum to 1, or are no Dirichlet's; m of Beta(alpha, 1); the same draw for both.
    out = chains_of(
        monkeypatch,
        lambda levels, op: levels,
        2000,
        width=3,
        alpha=alpha,
        out=lambda images, chains, w, m: jnp.concatenate([w, m[:, None]], 1),
    )
    np.testing.assert_allclose(out[:, :3].sum(1), 1, rtol=1e-5)
    assert scipy.stats.kstest(out[:, 1], scipy.stats.beta(alpha, 2 * alpha).cdf).pvalue > 1e-4
    assert scipy.stats.kstest(out[:, 3], scipy.stats.beta(alpha, alpha).cdf).pvalue > 1e-4
    assert scipy.stats.spearmanr(out[:, 0], out[:, 3]).pvalue > 1e-4


def test_images_stay_in_part_and_all_else_are_operations_of_them():
    # Kills: chains of another image; severity ignored; a mixture with black.
    flat = jnp.full((16, 8, 8, 3), 100 / 255)
    weak = augment.augmix(keys(16), flat, severity=0.1)
    # At this level nothing but rounding, posterizing to 4 bits (96), and equalize or autocontrast, which leave flat images.
    assert weak.min() >= 96 / 255 - 1e-6 and weak.max() <= 100 / 255 + 1e-6
    assert augment.augmix(keys(16), photos(16), severity=9.0).std() > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"severity": 0.0}, "severity must be between 0.1 and 10, got 0.0"),
        ({"severity": "3"}, "severity must be between 0.1 and 10, got '3'"),
        ({"width": 0}, "width must be a whole number, at least 1, got 0"),
        ({"depth": 0}, "depth, where not -1, must be a whole number, at least 1, got 0"),
        ({"depth": 1.5}, "depth, .* got 1.5"),
        ({"alpha": -1.0}, "alpha must be a number above 0, got -1.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    # Kills: each check left out.
    with pytest.raises(InputError, match=message):
        augment.augmix(keys(1), photos(1), **options)


@pytest.mark.parametrize("shape", [(1, 8, 8, 2), (1, 2, 8, 3)], ids=str)
def test_images_that_operations_do_not_know_are_refused(shape):
    # Kills: an error from the middle of a kernel.
    with pytest.raises(InputError, match="operations take images .* of 1 or 3 channels and at least 3 x 3 pixels"):
        augment.augmix(keys(1), jnp.zeros(shape))
