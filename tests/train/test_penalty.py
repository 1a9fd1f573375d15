"""Penalties of the weights: the loss and the step are the closed form's, over kernels alone, whatever the number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.core import InputError, parallel
from robustjax.train import build, feed, objectives, settings
from tests import tiny

L1, L2, RATE = 0.003, 0.02, 0.1


def first_step(penalty, devices=8):
    """Takes one step of SGD at RATE; returns the experiment and the state after it."""
    experiment = build.build(tiny.config(penalty=penalty, optimizer={**tiny.config()["optimizer"], "lr": RATE}, schedule__name="constant"))
    mesh = parallel.data_mesh(jax.devices()[:devices])
    current = parallel.replicate(build.initial_state(experiment), mesh)
    steps = feed.Resident(experiment, mesh, feed.place(experiment, mesh))
    (_, argument) = next(iter(steps.dispatches(0, 1)))
    return experiment, jax.device_get(steps(current, argument)[0])


@pytest.fixture(scope="module")
def plain():
    return first_step({"l1": 0.0, "l2": 0.0})


@pytest.fixture(scope="module")
def penalized():
    return first_step({"l1": L1, "l2": L2})


def test_one_step_differs_by_the_gradients_of_the_penalties(plain, penalized):
    # Kills: biases and batch norm penalised, l2 without its half or with two, a penalty summed over devices, one that has no gradient.
    before = plain[0].params
    kernels = 0
    for name, value in before.items():
        value, kernel = np.asarray(value, np.float64), name.endswith("kernel")
        kernels += kernel
        expected = -RATE * (L1 * np.sign(value) + L2 * value) if kernel else np.zeros_like(value)
        np.testing.assert_allclose(penalized[1].params[name] - plain[1].params[name], expected, atol=2e-7)
    assert 1 < kernels < len(before)


def test_the_logged_loss_holds_them_and_they_are_logged(plain, penalized):
    # Kills: terms that are counted once a device, or not added.
    kernels = [np.asarray(value, np.float64) for name, value in plain[0].params.items() if name.endswith("kernel")]
    expected = {"l1_penalty": L1 * sum(np.abs(k).sum() for k in kernels), "l2_penalty": L2 / 2 * sum((k**2).sum() for k in kernels)}
    sums, without = penalized[1].sums, plain[1].sums
    found = {name: float(value) / float(sums.count) for name, value in sums.terms.items()}
    assert found == pytest.approx(expected, rel=1e-5) and without.terms == {}
    assert (float(sums.loss) - float(without.loss)) / float(sums.count) == pytest.approx(sum(expected.values()), rel=1e-4)


def test_one_device_takes_the_same_step(penalized):
    # Kills: a penalty that is divided by the number of devices.
    alone = first_step({"l1": L1, "l2": L2}, devices=1)[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), alone.params, penalized[1].params)
    assert float(alone.sums.terms["l2_penalty"]) == pytest.approx(float(penalized[1].sums.terms["l2_penalty"]), rel=1e-5)


def test_terms_that_are_not_asked_for_are_not_there():
    # Kills: a term of weight 0 in the log of every run; penalties in what adversarial weight perturbation climbs by default.
    def loss(network, params, *rest):
        return objectives.Loss(jnp.sum(params["a.kernel"] ** 3), {}, jnp.zeros((1, 2)), {"own": jnp.float32(1)})

    objective = objectives.Objective(lambda *given: None, loss, loss, terms=("own",))
    assert objectives.penalized(objective, l1=0.0, l2=0.0) is objective
    both = objectives.penalized(objective, l1=2.0, l2=0.0)
    assert both.terms == ("own", "l1_penalty") and both.ascent is objective.ascent
    params = {"a.kernel": jnp.array([0.0, -2.0, 1.0]), "a.bias": jnp.array([5.0])}
    network = objectives.Network(lambda: None, lambda: None, None)
    value, grads = jax.value_and_grad(lambda p: both.loss(network, p).value)(params)
    assert float(value) == -8 + 1 + 2 * 3
    np.testing.assert_array_equal(grads["a.kernel"], [0, 12 - 2, 3 + 2])  # nothing at 0
    np.testing.assert_array_equal(grads["a.bias"], [0])


@pytest.mark.parametrize("penalty", [{"l1": -1e-6, "l2": 0.0}, {"l1": 0.0, "l2": float("nan")}, {"l1": 0.0, "l2": float("inf")}])
def test_penalties_below_zero_are_refused(penalty):
    with pytest.raises(InputError, match=r"config.penalty.l[12] must be a number of at least 0"):
        settings.check(tiny.config(penalty=penalty))
