"""Cross entropy and KL divergence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from robustjax import losses
from robustjax.core import InputError
from tests.goldens import reference

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(5, 4)).astype(np.float32) * 3
TARGETS = RNG.dirichlet(np.ones(4), size=5).astype(np.float32)


def test_cross_entropy_is_its_formula():
    # Kills: a mean over the batch; log of the wrong base; the clipped log of probabilities; labels off by one.
    log_p = scipy.special.log_softmax(LOGITS.astype(np.float64), axis=1)
    np.testing.assert_allclose(losses.cross_entropy(LOGITS, TARGETS), -(TARGETS * log_p).sum(1), rtol=1e-5)
    labels = np.array([0, 3, 1, 2, 2])
    np.testing.assert_allclose(losses.cross_entropy(LOGITS, labels), -log_p[np.arange(5), labels], rtol=1e-5)
    np.testing.assert_allclose(
        losses.cross_entropy(LOGITS, np.eye(4, dtype=np.float32)[labels]), losses.cross_entropy(LOGITS, labels), rtol=1e-5
    )
    assert losses.cross_entropy(LOGITS.astype(jnp.bfloat16), labels).dtype == jnp.float32


@pytest.mark.parametrize("case", ["mild", "large", "extreme"])
def test_reference_values(case):
    # Kills: KL(q || p); a factor 1/k; gradients through one argument only.
    data = reference.load("losses_metrics/trades_awp.npz")
    clean, adversarial, y = (data[f"kl.{case}.{name}"] for name in ("logits_nat", "logits_adv", "y"))
    with jax.enable_x64(True):
        np.testing.assert_allclose(losses.kl_divergence(clean, adversarial), data[f"kl.{case}.kl_per_example"], rtol=1e-6, atol=1e-12)
        # Stored once as a mean over the batch.
        np.testing.assert_allclose(losses.cross_entropy(clean, y).mean(), data[f"kl.{case}.ce_nat"], rtol=1e-10)
        grads = jax.grad(lambda p, q: losses.kl_divergence(p, q).mean(), argnums=(0, 1))(jnp.asarray(clean), jnp.asarray(adversarial))
        np.testing.assert_allclose(grads[0], data[f"kl.{case}.dkl_dnat"], rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(grads[1], data[f"kl.{case}.dkl_dadv"], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e4, 1e30])
def test_saturated_logits_have_finite_losses_and_gradients(scale):
    # Kills: log of a softmax; 0 * infinity.
    logits = scale * jnp.array([[1.0, 0.0, -1.0, 0.5]])
    for loss in (
        lambda x: losses.cross_entropy(x, TARGETS[:1]).sum(),
        lambda x: losses.cross_entropy(x, jnp.array([2])).sum(),
        lambda x: losses.kl_divergence(x, -x).sum(),
    ):
        value, grad = jax.value_and_grad(loss)(logits)
        assert jnp.isfinite(value) and jnp.isfinite(grad).all()


def test_classes_without_mass_do_not_count():
    # Kills: 0 * -inf, where a class is masked out by a logit of -inf, or log softmax overflows.
    targets = jnp.array([[0.5, 0.0, 0.5]])
    for low in (-jnp.inf, -3e38):
        logits = jnp.array([[1.0, low, 2.0]]) if low == -jnp.inf else jnp.array([[3e38, low, 3e38]])
        value, grad = jax.value_and_grad(lambda x: losses.cross_entropy(x, targets).sum())(logits)
        expected = losses.cross_entropy(logits[:, ::2], targets[:, ::2])[0]
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        assert jnp.isfinite(grad).all() and jnp.isfinite(value)


def test_traced_labels_out_of_range_are_not_silent():
    # Kills: -1 read as the last class; a row of zeros with loss 0. Both would train on.
    with jax.debug_nans(False):
        loss = jax.jit(losses.cross_entropy)(LOGITS[:3], jnp.array([-1, 4, 1]))
    np.testing.assert_array_equal(np.isnan(loss), [True, True, False])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.cross_entropy(LOGITS, np.array([0, 1, 2, 3, 4])), r"labels must lie in \[0, 3\], got 4"),
        (lambda: losses.cross_entropy(LOGITS, TARGETS[:, :3]), r"targets must have shape \(b, 4\)"),
        (lambda: losses.cross_entropy(LOGITS, TARGETS * 2), "targets must be distributions"),
        (lambda: losses.cross_entropy(LOGITS, TARGETS[:3]), "one target for each row of logits, got 3 for 5"),
        (lambda: losses.cross_entropy(LOGITS[0], TARGETS), "logits must be floats of shape"),
        (lambda: losses.kl_divergence(LOGITS, LOGITS[:2]), "must have one shape"),
    ],
)
def test_bad_input_gets_one_line(call, message):
    # Kills: each check left out.
    with pytest.raises(InputError, match=message):
        call()


def test_every_entry_of_the_table_is_per_example():
    # Kills: an entry that averages, or whose rows depend on one another.
    for name, loss in losses.TABLE.items():
        whole = loss(LOGITS, TARGETS)
        assert whole.shape == (5,), name
        np.testing.assert_allclose(loss(LOGITS[3:], TARGETS[3:]), whole[3:], rtol=1e-6)
