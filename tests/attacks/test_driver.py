"""The driver: batches, devices, memory and order change nothing. Each test names the mutants it kills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from robustjax.attacks import driver as driver_module
from robustjax.attacks.driver import Data, Driver
from robustjax.attacks.network import as_network
from robustjax.attacks.plan import run_plan
from robustjax.attacks.queue import Queue
from robustjax.core import InputError
from robustjax.core.rng import stream
from tests.attacks import tiny_plan

N, EPS = 40, 0.06
PLAN = tiny_plan.plan(restarts=2, num_targets=2)


def drive(fn, *, batch_size, devices=8, order=None, eps=EPS, plan=PLAN):
    """Returns which examples were broken, by which run, the images and the losses."""
    keys, x, y = tiny_plan.examples(N)
    order = np.arange(N) if order is None else order
    data = Data(np.asarray(jax.random.key_data(keys))[order], x[order], y[order], jax.random.key_impl(keys))
    driver = Driver(as_network(fn, randomized=False), data, eps, batch_size=batch_size, devices=jax.devices()[:devices])
    look = driver.look(data.images, np.arange(N), num_targets=2)
    queue, images = Queue(~look.wrong, plan.runs), data.images.copy()
    driver.run(plan, queue, salt=1, targets=look.targets, images=images)
    back = np.argsort(order)
    return queue.winner[back], images[back], queue.loss[back], queue.start_loss[back]


@pytest.fixture(scope="module")
def whole():
    return drive(tiny_plan.network(), batch_size=64)


def same(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    for a, b in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_equals_the_plan_run_on_one_batch(whole):
    # Kills: another order of runs or draws, a step more or less, a row frozen late or early, images of another row or of a later
    # run, examples that were wrong attacked, targets of another example.
    keys, x, y = tiny_plan.examples(N)
    network = as_network(tiny_plan.network(), randomized=False)
    data = Data(np.asarray(jax.random.key_data(keys)), x, y, jax.random.key_impl(keys))
    look = Driver(network, data, EPS, batch_size=64).look(x, np.arange(N), num_targets=2)
    logits = np.asarray(tiny_plan.network()(jnp.asarray(x)))
    np.testing.assert_array_equal(look.wrong, logits.argmax(1) != y)
    for row, label, ranked in zip(logits, y, look.targets, strict=True):
        np.testing.assert_array_equal(ranked, [c for c in np.argsort(-row) if c != label][:2])
    outcome, _ = run_plan(
        PLAN._replace(chunk=1), stream(keys, 1), network, jnp.asarray(x), jnp.asarray(y), EPS, targets=jnp.asarray(look.targets)
    )
    winner, images, loss, start_loss = whole
    broken = winner < PLAN.runs
    assert 5 < broken.sum() < 30 and len(set(winner)) >= 4 and look.wrong.sum() == 6
    np.testing.assert_array_equal(broken, np.asarray(outcome.success) & ~look.wrong)
    np.testing.assert_array_equal(images[~broken], x[~broken])
    alive = ~look.wrong
    np.testing.assert_allclose(loss[alive & ~broken], outcome.loss[alive & ~broken], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(start_loss[alive], np.asarray(outcome.start_loss)[alive], rtol=1e-4, atol=1e-5)
    assert np.isnan(loss[look.wrong]).all()
    # A run of the plan goes on after its success and keeps its worst point; the driver's stops there.
    further = np.asarray(outcome.loss)[broken] - loss[broken]
    assert further.min() > -1e-4 and (further > 0.1).sum() > 5
    assert (np.argmax(tiny_plan.network()(jnp.asarray(images)), 1)[broken] != y[broken]).all()
    assert np.abs(images - x).max() <= EPS + 1e-6


@pytest.mark.parametrize(("batch_size", "devices"), [(3, 1), (8, 1), (12, 8)])
def test_batch_size_devices_and_order_do_not_matter(whole, batch_size, devices):
    # Kills: draws by place, results of a run that was cancelled in one schedule only, rows mixed up between devices, a batch size
    # that does not divide.
    same(drive(tiny_plan.network(), batch_size=batch_size, devices=devices), whole)
    same(drive(tiny_plan.network(), batch_size=batch_size, devices=devices, order=np.arange(N)[::-1]), whole)


def test_programs_are_few_and_found_again(monkeypatch):
    # Kills: a shape for each number of examples left, weights or radius baked in, no packing of the last runs.
    traces, rows = [], []

    def counted(weights, x):
        traces.append(x.shape)
        return tiny_plan.forward(weights, x)

    advance = driver_module._advance
    monkeypatch.setattr(driver_module, "_advance", lambda c, r, **options: rows.append(len(r.i)) or advance(c, r, **options))
    plan = tiny_plan.plan(steps=7, restarts=3, chunk=2)
    for seed, eps in ((0, EPS), (1, EPS), (1, EPS / 2)):
        drive(Partial(counted, tiny_plan.network(seed).args[0]), batch_size=32, devices=1, eps=eps, plan=plan)
    assert {32, 8} <= set(rows) <= {32, 24, 16, 8}
    # Clean images; then a step of each size, the last runs in smaller ones.
    assert traces == [(n, *tiny_plan.SHAPE) for n in (32, *sorted(set(rows), reverse=True))]


def test_out_of_memory_halves_the_batch_and_changes_nothing(whole, monkeypatch):
    # Kills: rows lost with the batch, restarts that draw anew, later runs in place of those that were lost, halving without end.
    limits = {"_advance": 12, "_look": 1 << 20}

    def limited(name, function, rows_of):
        def call(*arguments, **options):
            if rows_of(arguments) > limits[name]:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.\nmore lines")
            return function(*arguments, **options)

        monkeypatch.setattr(driver_module, name, call)

    limited("_advance", driver_module._advance, lambda a: len(a[1].i))
    limited("_look", driver_module._look, lambda a: len(a[1].run))
    with pytest.warns(UserWarning, match="out of memory") as told:
        same(drive(tiny_plan.network(), batch_size=32, devices=1), whole)
    said = "out of memory with batches of {}: going on with {}; batch_size={} avoids this."
    assert [str(warning.message) for warning in told] == [said.format(32, 16, 16), said.format(16, 8, 8)]
    limits["_look"] = 8
    with pytest.warns(UserWarning, match="out of memory"):
        same(drive(tiny_plan.network(), batch_size=16, devices=8), whole)
    limits["_advance"] = 0
    with pytest.raises(InputError, match="out of memory with one image at a time .RESOURCE_EXHAUSTED.*bytes.*: free memory or take a"):
        drive(tiny_plan.network(), batch_size=8, devices=8)


def test_out_of_memory_midway_restarts_only_who_was_at_work(whole, monkeypatch):
    # Kills: examples whose runs were over attacked again, images found before lost.
    advance, calls = driver_module._advance, []

    def limited(context, running, **options):
        calls.append(len(running.i))
        if len(calls) in (6, 19):
            raise jax.errors.JaxRuntimeError("CUDA_ERROR: out of memory")
        return advance(context, running, **options)

    monkeypatch.setattr(driver_module, "_advance", limited)
    with pytest.warns(UserWarning, match="out of memory"):
        same(drive(tiny_plan.network(), batch_size=32, devices=1), whole)
    assert set(calls) == {32, 16, 8}


def test_other_errors_of_the_device_are_not_hidden(monkeypatch):
    # Kills: every error taken for a lack of memory.
    def fail(*arguments, **options):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(driver_module, "_advance", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        drive(tiny_plan.network(), batch_size=8)


def test_nan_logits_are_named_by_their_place_in_the_data_set():
    # Kills: positions within the batch, NaN counted as robust, NaN that shows under attack only.
    x = tiny_plan.examples(N)[1]

    def broken(bright, x):
        logits = tiny_plan.network()(x)
        return jnp.where((x[:, 0, 0, 0] > bright)[:, None], jnp.nan, logits)

    def some(bright):
        return drive(Partial(broken, bright), batch_size=8, devices=1, eps=0.3)

    first = np.sort(x[:, 0, 0, 0])[-1]
    where = int(x[:, 0, 0, 0].argmax())
    with jax.debug_nans(False):
        with pytest.raises(InputError, match=f"NaN or infinite.* on 1 of {N} images, first at position {where};"):
            some(first - 1e-4)
        alive = [i for i in range(N) if i % 7]
        with pytest.raises(InputError, match=f"NaN or infinite.* of {N} images, first at position ") as error:
            some(first + 1e-4)
        named = int(str(error.value).split("position ")[1].split(";")[0])
        assert named in alive and x[named, 0, 0, 0] > first - 0.3
