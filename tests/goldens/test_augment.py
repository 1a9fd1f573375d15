"""AugMix, PixMix, Mixup and CutMix against the official code (see data/losses_metrics/README.md)."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import losses
from robustjax.augment.augmix import mixed
from robustjax.augment.mixup import Examples, mixup, pasted
from robustjax.augment.pixmix import add, multiply
from tests.goldens import reference

PRECISION = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def load():
    return reference.load("losses_metrics/augment.npz")


def precision(dtype):
    return jax.enable_x64(True) if dtype is np.float64 else contextlib.nullcontext()


def nhwc(images, dtype):
    return jnp.asarray(np.moveaxis(images, -3, -1).astype(dtype))


@PRECISION
@pytest.mark.parametrize("case", ["mild", "large", "extreme"])
def test_jsd(case, dtype):
    # Kills: an unclamped mixture; a gradient through the clamp; a mixture held constant; cross-entropy of another view.
    data = {name.removeprefix(f"jsd.{case}."): value for name, value in load().items() if name.startswith(f"jsd.{case}.")}
    tolerance = {"rtol": 1e-6, "atol": 1e-6} if dtype is np.float32 else {"rtol": 1e-9, "atol": 1e-12}

    def total(clean, aug1, aug2, y):
        jsd = losses.jsd_consistency(clean, aug1, aug2)
        return jnp.mean(losses.cross_entropy(clean, y)) + 12 * jnp.mean(jsd), jsd

    with precision(dtype):
        views = [jnp.asarray(data[f"logits_{name}"].astype(dtype)) for name in ("clean", "aug1", "aug2")]
        both = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))
        (value, jsd), gradients = both(*views, jnp.asarray(data["y"].astype(np.int32)))
        assert jsd.dtype == dtype
        np.testing.assert_allclose(jsd, data["jsd_per_example"], **tolerance)
        np.testing.assert_allclose(value, data["total_ce_plus_12jsd"], **tolerance)
        for name, gradient in zip(("clean", "aug1", "aug2"), gradients, strict=True):
            np.testing.assert_allclose(gradient, data[f"dtotal_d{name}"], **tolerance)


@PRECISION
def test_mixup(dtype, monkeypatch):
    # Kills: lambda for 1 - lambda; a target that is not mixed by the same number.
    data = load()
    monkeypatch.setattr(jax.random, "beta", lambda key, a, b, shape, dtype: jnp.asarray(data["mixup.lam"], dtype))
    with precision(dtype):
        images, targets = nhwc(data["mixup.x"], dtype), jnp.eye(4, dtype=dtype)[data["mixup.y"]]
        keys, perm = jax.random.split(jax.random.key(0), 5), data["mixup.perm"]
        mixed, soft = mixup(keys, images, targets, images[perm], targets[perm], alpha=1.0)
        loss = jnp.mean(losses.cross_entropy(jnp.asarray(data["mixup.logits"], dtype), soft))
    tolerance = 1e-6 if dtype is np.float32 else 1e-12
    np.testing.assert_allclose(mixed, nhwc(data["mixup.x_mixed"], dtype), atol=tolerance)
    np.testing.assert_allclose(soft, data["mixup.soft_label"], atol=tolerance)
    np.testing.assert_allclose(loss, data["mixup.loss"], rtol=tolerance)


@PRECISION
def test_cutmix(dtype):
    # Kills: rows for columns; a box that is moved inside; the sampled lambda as the label's share.
    data = load()
    lam, x, y, *_, left = data["cutmix.rows"].T
    with precision(dtype):
        images, targets = nhwc(data["mixup.x"], dtype), jnp.eye(5, dtype=dtype)
        perm = data["mixup.perm"]
        for row, expected in enumerate(data["cutmix.x_mixed"]):
            centre = jnp.tile(jnp.asarray([[y[row], x[row]]], jnp.int32), (5, 1))
            own, partner = (Examples(images[order], targets[order]) for order in (np.arange(5), perm))
            mixed, soft = pasted(own, partner, jnp.full(5, lam[row], dtype), centre)
            np.testing.assert_array_equal(mixed, nhwc(expected, dtype))
            np.testing.assert_allclose(soft, left[row] * np.eye(5) + (1 - left[row]) * np.eye(5)[perm], rtol=1e-6)


@PRECISION
def test_mixture_of_augmix(dtype):
    # Kills: m for 1 - m; weights in another order; a mixture that depends on where normalisation happens.
    data = load()
    with precision(dtype):
        images, chains = (jnp.asarray((data[name] / 255).astype(dtype))[None] for name in ("ops.image", "augmix.chain_images"))
        found = mixed(images, chains, jnp.asarray(data["augmix.ws"].astype(dtype))[None], jnp.asarray(data["augmix.m"].astype(dtype))[None])
    np.testing.assert_allclose(
        (np.asarray(found[0]) - 0.5) / 0.5, data["augmix.mixed_normalised"], atol=1e-6 if dtype is np.float32 else 1e-12
    )


@PRECISION
def test_operations_of_pixmix(dtype):
    # Kills: a and b exchanged; add in [0, 1]; powers of x instead of 2 x; the guard on the wrong picture.
    data = load()
    with precision(dtype):
        images, others = (jnp.stack([nhwc(data[f"pixmix.{name}"], dtype)] * 10) for name in ("img1", "img2"))
        a, b = jnp.asarray(data["pixmix.ab"].T.astype(dtype))
        for kernel, name in ((add, "add"), (multiply, "multiply")):
            found = np.asarray(kernel(images, others, a, b))
            assert found.dtype == dtype
            np.testing.assert_allclose(found, nhwc(data[f"pixmix.{name}"], dtype), rtol=1e-5 if dtype is np.float32 else 1e-12, atol=1e-6)
            expected = nhwc(data[f"pixmix.{name}_clipped"], dtype)
            np.testing.assert_allclose(np.clip(found, 0, 1), expected, atol=1e-6 if dtype is np.float32 else 1e-12)
