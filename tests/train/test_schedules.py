"""Schedules and optimisers against numbers worked out by hand, and against torch's order of operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.core.check import InputError
from robustjax.train import schedules

SCHEDULE = {"name": "cosine", "warmup_epochs": 0, "boundaries": (), "factor": 0.1}
SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0, "clip_norm": 0.0, "ema": 0.0}


def rates(at, **changes):
    made = schedules.learning_rate({**SCHEDULE, **changes}, lr=0.4, steps_per_epoch=10, epochs=20)
    with jax.numpy_dtype_promotion("standard"):
        return [float(made(step)) for step in at]


def test_cosine_is_a_half_period():
    # Kills: a cosine over epochs, over half the run, or from the wrong end.
    np.testing.assert_allclose(rates([0, 50, 100, 150, 200]), [0.4, 0.2 * (1 + 0.5**0.5), 0.2, 0.2 * (1 - 0.5**0.5), 0], atol=1e-6)


def test_step_multiplies_at_its_epochs():
    np.testing.assert_allclose(rates([99, 100, 150, 199], name="step", boundaries=(10, 15)), [0.4, 0.04, 0.004, 0.004], rtol=1e-6)


def test_warmup_is_linear_and_boundaries_count_from_the_start():
    # Kills: boundaries that move by the warm-up.
    found = rates([0, 10, 20, 99, 100], name="step", boundaries=(10,), warmup_epochs=2)
    np.testing.assert_allclose(found, [0, 0.2, 0.4, 0.4, 0.04], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"), [({"warmup_epochs": 20}, "leaves nothing"), ({"name": "step", "boundaries": (10, 20)}, r"\[20\] lie behind")]
)
def test_schedules_that_cannot_be_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        rates([0], **changes)


def updates(settings, grads, params, steps):
    made = schedules.optimizer(settings, lambda count: 0.1)
    state, out = made.init(params), []
    for _ in range(steps):
        change, state = made.update(grads, state, params)
        out.append(float(change["w"][0]))
    return out


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_with_decay_is_torch_s(nesterov):
    # torch: g = grad + decay * w; v = 0.9 v + g; step -lr * (g + 0.9 v if nesterov else v). Kills: decay after the momentum.
    w, g, v, expected = 2.0, 1.0, 0.0, []
    for _ in range(3):
        d = g + 0.01 * w
        v = 0.9 * v + d
        expected.append(-0.1 * (d + 0.9 * v if nesterov else v))
    found = updates({**SGD, "weight_decay": 0.01, "nesterov": nesterov}, {"w": jnp.array([g])}, {"w": jnp.array([w])}, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_clipping_is_by_the_norm_over_all_parameters():
    # Kills: clipping each tensor by itself (that would leave 0.6 and 0.8 larger).
    grads, params = {"w": jnp.array([3.0]), "b": jnp.array([4.0])}, {"w": jnp.zeros(1), "b": jnp.zeros(1)}
    np.testing.assert_allclose(updates({**SGD, "momentum": 0.0, "clip_norm": 1.0}, grads, params, 1), [-0.06], rtol=1e-5)


def test_adam_s_first_step_is_the_rate():
    np.testing.assert_allclose(updates({**SGD, "name": "adam"}, {"w": jnp.array([7.0])}, {"w": jnp.zeros(1)}, 1), [-0.1], rtol=1e-4)


def test_stochastic_weight_averaging_is_the_mean_over_ends_of_epochs():
    # Kills: an average over steps; one epoch late; the weights before the first epoch counted; another one between the ends.
    average = schedules.averaging({"ema": 0.0, "swa_epoch": 2}, steps_per_epoch=3)
    averaged, ends = {"w": jnp.float32(0)}, []
    for step in range(15):
        weights = jnp.float32((step + 1) ** 2)
        averaged = average(jnp.int32(step), averaged, {"w": weights})
        epoch, rest = divmod(step + 1, 3)
        ends += [float(weights)] if epoch >= 2 and rest == 0 else []
        np.testing.assert_allclose(averaged["w"], np.mean(ends) if ends else weights, rtol=1e-5)
    assert schedules.averaging({"ema": 0.0, "swa_epoch": 0}, steps_per_epoch=3) is None
