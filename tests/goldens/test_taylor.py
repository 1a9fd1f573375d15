"""Taylor terms of randomised weights against explicit Jacobians and Hessians (see data/losses_metrics/README.md, taylor.npz)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import losses
from tests.goldens import mlp, reference

CASES = ("sigma1.u0", "sigma1.u1", "sigma1.u2", "sigma001.u0")
ACT = pytest.mark.parametrize("act", mlp.ACTIVATIONS)
PRECISION = pytest.mark.parametrize("dtype", [np.float32, np.float64])
READINGS = {
    "kl_logits": "kl_logits",
    "cross_entropy": "cross_entropy",
    "squared": "sqdist",
    "kl_logits_half_inside": "kl_logits_half_inside",
}


def load():
    return reference.load("losses_metrics/taylor.npz")


def close(found, wanted, dtype, *, float64=1e-9, float32=1e-6):
    """float64: relative, entry by entry but for what is lost beside the largest one; float32: of the largest entry."""
    largest = np.abs(wanted).max()
    if dtype is np.float64:
        np.testing.assert_allclose(found, wanted, rtol=float64, atol=float64 * largest)
    else:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=float32 * largest)


def setting(data, act, case, dtype):
    w = mlp.params(data, act, dtype)
    u = mlp.unflatten(data[f"{act}.{case}.u_flat"], w)
    views = [jnp.asarray(data[f"{act}.{view}"], dtype) for view in ("s", "s_adv")]
    return w, u, views


def apply_fn(act):
    return lambda p, x: (mlp.logits(p, x, act=act), ())


@PRECISION
@ACT
def test_derivatives(act, dtype):
    # Kills: 1/2 inside the second derivative; H u for u^T H u; derivatives with respect to the input; a direction that is normalised.
    data = load()
    derivatives = jax.jit(lambda w, u, x: losses.taylor_derivatives(lambda p: mlp.logits(p, x, act=act), w, u, order=2))
    with mlp.precision(dtype):
        for case in CASES:
            w, u, views = setting(data, act, case, dtype)
            for view, x in zip(("s", "s_adv"), views, strict=True):
                for part, name in zip(derivatives(w, u, x), ("g", "D1", "D2"), strict=True):
                    assert part.dtype == dtype
                    close(part, data[f"{act}.{case}.{view}.{name}"], dtype)


@pytest.mark.parametrize(("act", "dtype"), [(act, np.float64) for act in mlp.ACTIVATIONS] + [("tanh", np.float32)])
def test_readings_and_gradients(act, dtype):
    # Kills: adversarial view first; a gradient stopped in either view; KL that loses its digits at 1e-8; half inside by default.
    data = load()

    @jax.jit
    def everything(w, u, s, s_adv):
        def means(p, reading):
            terms = losses.taylor_regularizer(apply_fn(act), p, u, s, s_adv, order=2, reading=reading)
            return jnp.stack([jnp.mean(terms.first), jnp.mean(terms.second)]), terms

        return {reading: jax.jacrev(means, has_aux=True)(w, reading) for reading in READINGS}

    with mlp.precision(dtype):
        for case in CASES:
            for reading, (grads, terms) in everything(*_flat(setting(data, act, case, dtype))).items():
                for i, part in enumerate(("first", "second")):
                    # The first term has no half.
                    stored = READINGS[reading].removesuffix("_half_inside" if part == "first" else " ")
                    name = f"{act}.{case}.{part}.{stored}"
                    # In float32 what is compared is the difference of two derivatives, each rounded: of the largest entry it loses
                    # 4e-6 to 1.4e-5 here, as the compiler orders the sums.
                    float64 = 1e-7 if case == "sigma001.u0" and part == "second" else 1e-9
                    close(getattr(terms, part), data[f"{name}.per_example"], dtype, float64=float64, float32=3e-5)
                    grad = mlp.flatten({key: value[i] for key, value in grads.items()})
                    close(grad, data[f"{name}.grad_w_flat"], dtype, float64=float64, float32=3e-5)


def _flat(parts):
    w, u, views = parts
    return w, u, *views


@ACT
def test_expansion_of_the_divergence_itself(act):
    # Kills: Hessian of the divergence in the logits alone, without the curvature of the network.
    data = load()

    @jax.jit
    def expansion(w, u, s, s_adv):
        return losses.taylor_regularizer(apply_fn(act), w, u, s, s_adv, order=2, reading="kl_expansion")

    with mlp.precision(np.float64):
        for case in CASES:
            found = expansion(*_flat(setting(data, act, case, np.float64)))
            close(found.first, data[f"{act}.{case}.dkl_du"], np.float64)
            close(found.second, data[f"{act}.{case}.d2kl_du2"], np.float64)
            close(losses.trades_regularizer(found.clean_logits, found.adversarial_logits), data[f"{act}.{case}.kl0"], np.float64)
