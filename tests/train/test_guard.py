"""What stops a run before it wastes days, memory or numbers."""

import math
import signal
from types import SimpleNamespace

import jax
import pytest

from robustjax.core import processes
from robustjax.core.check import InputError
from robustjax.io import log
from robustjax.train import feed, guard, loop, select
from tests import tiny


def test_days_on_a_cpu_are_refused_with_the_time():
    with pytest.raises(InputError, match=r"about 11\.6 days on this CPU \(10 s a step, 100,000 steps\).*:quick.*allow_slow=True"):
        guard._refuse_days(10.0, 100_000, allow=False)
    guard._refuse_days(10.0, 100_000, allow=True)
    guard._refuse_days(0.1, 100_000, allow=False)


def test_fitting_batch_is_the_largest_halving_that_fits():
    # Kills: stopping at the first halving; forgetting the device count; counting donated memory twice.
    def compiled(size):
        sizes = dict(temp_size_in_bytes=100 * size, argument_size_in_bytes=50, output_size_in_bytes=40, alias_size_in_bytes=40)
        return SimpleNamespace(memory_analysis=lambda: SimpleNamespace(**sizes))

    assert guard.fitting_batch(compiled, 256, 4000) == 32
    assert guard.fitting_batch(compiled, 100, 4000, multiple=8) == 24
    assert guard.fitting_batch(compiled, 256, 10) == 0

    def exhausted(size):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")

    assert guard.fitting_batch(exhausted, 256, 4000) == 0

    def refused(size):
        if size % 8:
            raise InputError("group_size")
        return compiled(size)

    assert guard.fitting_batch(refused, 200, 4000) == 0 and guard.fitting_batch(refused, 256, 4000) == 32


def test_out_of_memory_names_the_batch_that_fits(tmp_path, monkeypatch):
    # The first step says RESOURCE_EXHAUSTED, as XLA does; the memory that each batch needs is read from compiled steps for real.
    def exhausted(self, current, argument):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1234 bytes.")

    monkeypatch.setattr(feed.Resident, "__call__", exhausted)
    monkeypatch.setattr(guard, "memory_limit", lambda: 10**12)
    with pytest.raises(InputError, match=r"out of memory with config\.batch_size=16: --config\.batch_size=8 would fit"):
        loop.train(tiny.config(), tmp_path / "a", quiet=True)
    monkeypatch.setattr(guard, "memory_limit", lambda: 1)
    with pytest.raises(InputError, match="no batch size would fit"):
        loop.train(tiny.config(), tmp_path / "b", quiet=True)


def test_a_loss_that_is_not_finite_stops_the_run_with_its_step(tmp_path):
    # Kills: training on. The rate overflows the weights in the first epoch.
    config = tiny.config(optimizer__lr=1e38, optimizer__momentum=0.0, epochs=1, schedule__name="constant")
    with jax.debug_nans(False), pytest.raises(InputError, match=r"not finite at step \d+; there is no checkpoint yet\. Lower config"):
        loop.train(config, tmp_path, quiet=True)


@pytest.mark.parametrize(("index", "says"), [(0, "the last good checkpoint is of step 4"), (1, "process 0 says which checkpoint")])
def test_all_processes_wait_for_the_last_good_checkpoint(index, says, monkeypatch):
    # Kills: a process that ends while the first one writes: where one that ends takes the others along, the checkpoint is lost.
    happened = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: index)
    monkeypatch.setattr(processes, "gather", lambda problem: happened.append("gathered") or [problem, None])
    checkpoints = SimpleNamespace(wait=lambda: happened.append("written"), steps=lambda: [4])
    watch = guard.Watch(None, None if index else checkpoints, None, None, None, guard.Asked())
    with pytest.raises(guard.NotFinite, match=says):
        watch.refuse_bad_weights(8, math.nan)
    assert happened == (["gathered"] if index else ["written", "gathered"])


def test_a_handler_from_outside_python_becomes_the_usual_one(monkeypatch):
    # signal.signal then returns None, and does not take it back.
    set_handler, before, answers = signal.signal, signal.getsignal(signal.SIGTERM), iter([None])

    def answer(number, handler):
        return next(answers, set_handler(number, handler))

    monkeypatch.setattr(signal, "signal", answer)
    try:
        with guard.Asked().listening():
            pass
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        set_handler(signal.SIGTERM, before)


def test_weights_broken_by_an_epoch_s_last_update_are_not_saved(tmp_path, monkeypatch):
    # Kills: looking at the training loss only, which is that before the update; naming a checkpoint that is still being written.
    real = select.make_validator

    def make(experiment, mesh, data, quiet):
        validate, calls = real(experiment, mesh, data, quiet=quiet), []

        def broken_later(params, batch_stats):
            calls.append(1)
            return select.Validation(0.0, math.inf) if len(calls) == 2 else validate(params, batch_stats)

        return broken_later

    monkeypatch.setattr(select, "make_validator", make)
    with pytest.raises(InputError, match=r"not finite at step 8; the last good checkpoint is of step 4\."):
        loop.train(tiny.config(epochs=3), tmp_path, quiet=True)
    assert [record["step"] for record in log.read_lines(tmp_path / "log.jsonl")] == [4]
