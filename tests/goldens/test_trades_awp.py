"""TRADES's inner maximisation and loss, AWP, and the released heuristic against the official code (see data/losses_metrics/README.md)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robustjax import attacks, losses
from robustjax.core import ThreatModel
from tests.goldens import mlp, reference

ACT = pytest.mark.parametrize("act", ["tanh", "relu"])
LAYERS = {f"fc{i}.{kind}": f"{name}{i}" for i in (1, 2, 3) for kind, name in (("W", "W"), ("b", "b"))}


def load():
    return reference.load("losses_metrics/trades_awp.npz")


def images(data, act, name):
    return jnp.asarray(data[f"inner.{act}.{name}"].transpose(0, 2, 3, 1))


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max())


@functools.cache
def network_of(act):
    """Returns one and the same function for each activation, so that radii and steps share compiled programs."""
    return functools.partial(mlp.logits, act=act)


def total(w, x, x_adv, y, act):
    clean, adversarial = (mlp.logits(w, view, act=act) for view in (x, x_adv))
    return jnp.mean(losses.cross_entropy(clean, y)) + 6 * jnp.mean(losses.trades_regularizer(clean, adversarial))


@ACT
@pytest.mark.parametrize("case", ["l_inf", "l_inf_big", "l_2", "l_2_big"])
def test_inner_points_and_gradients(act, case):
    # Kills: a start that is clipped; ball before box in L2; the unguarded radius; KL of the views swapped; a step that is not normalised; a
    # gradient stopped in the clean view. L2 steps are 2 eps / K, as the released code has it.
    data = load()
    with mlp.precision(np.float64):
        w, x = mlp.params(data, f"mlp_{act}", np.float64), images(data, act, "x")
        start = x + 0.001 * images(data, act, "start_unit_normal")
        y = data[f"inner.{act}.y"].astype(np.int32)
        eps = float(data[f"inner.{act}.{case}.epsilon"])
        norm = "linf" if "inf" in case else "l2"
        step = float(data[f"inner.{act}.{case}.step"]) if norm == "linf" else 2 * eps / 10
        network = jax.tree_util.Partial(network_of(act), w)
        found = attacks.pgd(None, network, x, y, ThreatModel(norm, eps), steps=10, step_size=step, objective="kl", start=start)
        close(found, data[f"inner.{act}.{case}.x_adv"].transpose(0, 2, 3, 1))
        value, grads = jax.jit(jax.value_and_grad(total), static_argnames="act")(w, x, found, y, act=act)
        close(value, data[f"inner.{act}.{case}.loss_total_beta6"])
        for stored, name in LAYERS.items():
            close(grads[name], data[f"inner.{act}.{case}.dloss_d{stored}"])


@ACT
@pytest.mark.parametrize("case", ["trades_awp", "trades_awp_big", "at_awp"])
def test_weight_perturbation_and_the_step_from_it(act, case):
    # Kills: biases perturbed; one norm over all weights; descent; weight decay at the unperturbed weights; no restoring.
    data = load()
    prefix = f"awp.{act}.{case}"
    with mlp.precision(np.float64):
        w, x = mlp.params(data, f"mlp_{act}", np.float64), images(data, act, "x")
        x_adv = images(data, act, "l_inf.x_adv")
        y = data[f"inner.{act}.y"].astype(np.int32)

        def loss(w):
            if case == "at_awp":
                return jnp.mean(losses.cross_entropy(mlp.logits(w, x_adv, act=act), y))
            return total(w, x, x_adv, y, act)

        both = jax.jit(jax.value_and_grad(loss))
        value, grads = both(w)
        close(value, data[f"{prefix}.loss_at_w"])
        moved = losses.adversarial_weight_perturbation(w, grads, gamma=float(data[f"{prefix}.gamma"]))
        value, at_moved = both(moved)
        close(value, data[f"{prefix}.loss_at_perturbed"])
        optimizer = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9))
        updates, _ = optimizer.update(at_moved, optimizer.init(moved), moved)
        for stored, name in LAYERS.items():
            close(moved[name], data[f"{prefix}.perturbed.{stored}"])
            close(at_moved[name], data[f"{prefix}.grad_at_perturbed.{stored}"])
            close(moved[name] + updates[name] - (moved[name] - w[name]), data[f"{prefix}.after_sgd_and_restore.{stored}"])


@pytest.mark.parametrize("case", ["no_weight_noise", "weight_noise_conv1"])
def test_released_heuristic(case):
    # Kills: labels of the views swapped; squares without their order; a gradient through the made-up labels; confusion of the label itself.
    data = reference.load("losses_metrics/taylor.npz")
    prefix = f"official_heuristic.{case}"
    with mlp.precision(np.float64):
        w = mlp.params(data, prefix, np.float64)
        x, x_adv = (jnp.asarray(data[f"{prefix}.{name}"].reshape(8, -1)) for name in ("x", "x_adv"))
        y = jnp.asarray(data[f"{prefix}.y"].astype(np.int32))
        alpha, beta, confusion = data[f"{prefix}.alpha_beta_cc"]

        def loss(w):
            hidden = [jnp.tanh(jnp.tanh(v @ w["W1"].T + w["b1"][None]) @ w["W2"].T + w["b2"][None]) for v in (x, x_adv)]
            views = [(h, h @ w["W3"].T + w["b3"][None]) for h in hidden]
            gradients = [losses.head_gradient(*view, y) for view in views]
            (_, clean), (_, fooled) = views
            first, second = losses.released_heuristic(clean, fooled, *gradients, y, confusion=confusion)
            kept = (1 - alpha) * jnp.mean(losses.cross_entropy(clean, y)) + beta * jnp.mean(losses.trades_regularizer(clean, fooled))
            return kept + alpha * jnp.mean(first) + alpha / 2 * jnp.mean(second), (first, second, gradients)

        (value, (first, second, (clean, fooled))), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(w)
        close(value, data[f"{prefix}.loss"])
        close(jnp.mean(first), data[f"{prefix}.first_loss"])
        close(jnp.mean(second), data[f"{prefix}.second_loss"])
        a, b = jnp.abs(clean), jnp.abs(fooled)
        made = {"labels_first_adv": a - b, "labels_first_nat": b - a, "labels_second_both": b**2 - a**2}
        for name, change in made.items():
            close(losses.confused_labels(change, y, confusion=confusion), data[f"{prefix}.{name}"])
        for stored, name in (("fc.W", "W3"), ("fc.b", "b3"), ("lin2.W", "W2"), ("lin2.b", "b2")):
            close(grads[name], data[f"{prefix}.dloss.{stored}"])
