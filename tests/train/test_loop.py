"""A run in its workdir: log, checkpoints, resuming in one process, refusals. Killing for real is in tests/launch/test_kill.py."""

import signal

import jax
import numpy as np
import pytest

from robustjax.core.check import InputError
from robustjax.io import log
from robustjax.io.checkpoint import Checkpoints
from robustjax.train import guard, loop, state
from tests import tiny


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, loop.train(tiny.config(epochs=3), workdir, quiet=True)


def final(workdir, step):
    return Checkpoints(workdir, read_only=True).restore(step)[0]


def records(workdir):
    return [{k: v for k, v in record.items() if k != "time"} for record in log.read_lines(workdir / "log.jsonl")]


def test_log_and_summary_tell_of_every_epoch(finished):
    workdir, summary = finished
    found = records(workdir)
    assert [record["step"] for record in found] == [4, 8, 12] and summary.step == 12
    best = max(found, key=lambda record: (record["validation_accuracy"], record["step"]))
    assert (summary.best_step, summary.validation_accuracy) == (best["step"], best["validation_accuracy"])
    assert found[-1]["train_loss"] < found[0]["train_loss"]


def test_a_finished_run_is_left_alone(finished):
    workdir, summary = finished
    before = (workdir / "log.jsonl").read_bytes(), (workdir / "training.json").read_bytes()
    again = loop.train(tiny.config(epochs=3), workdir, quiet=True)
    assert again[:3] == summary[:3] and before == ((workdir / "log.jsonl").read_bytes(), (workdir / "training.json").read_bytes())


def test_resumed_run_is_the_unbroken_run(finished, tmp_path, monkeypatch):
    # Kills: keys or an order that start anew, lost momentum, sums that carry over. It stops by an error inside the second epoch.
    look, calls = guard.Watch._look, []

    def stop(self, after, *rest):
        calls.append(after)
        if after == 6:
            raise KeyboardInterrupt
        return look(self, after, *rest)

    monkeypatch.setattr(guard.Watch, "_look", stop)
    with pytest.raises(KeyboardInterrupt):
        loop.train(tiny.config(epochs=3), tmp_path, quiet=True)
    monkeypatch.undo()
    loop.train(tiny.config(epochs=3), tmp_path, quiet=True)
    jax.tree.map(np.testing.assert_array_equal, final(tmp_path, 12), final(finished[0], 12))
    assert records(tmp_path) == records(finished[0])


def test_a_signal_leaves_a_checkpoint_where_the_run_is(tmp_path, monkeypatch):
    # Kills: steps or sums that are lost; a checkpoint without a validation that counts as the best; a handler that stays.
    look, before = guard.Watch._look, signal.getsignal(signal.SIGTERM)

    def ask(self, after, *rest):
        if after == 2:
            signal.raise_signal(signal.SIGTERM)
        return look(self, after, *rest)

    monkeypatch.setattr(guard.Watch, "_look", ask)
    config = tiny.config(epochs=3, validate_epochs=3)
    with pytest.raises(guard.Stopped, match=r"stopped at step (\d+) of 12; the same command goes on from there"):
        loop.train(config, tmp_path / "a", quiet=True)
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.undo()
    checkpoints = Checkpoints(tmp_path / "a", read_only=True)
    (step,) = checkpoints.steps()
    assert 2 < step < 12 and records(tmp_path / "a") == []
    with pytest.raises(InputError, match="Run the training command again"):
        checkpoints.best()
    for run in ("a", "b"):
        loop.train(config, tmp_path / run, quiet=True)
    jax.tree.map(np.testing.assert_array_equal, final(tmp_path / "a", 12), final(tmp_path / "b", 12))
    assert records(tmp_path / "a") == records(tmp_path / "b") and checkpoints.best()[0] == 12


def test_damaged_checkpoint_falls_back_and_says_so(finished, tmp_path, capsys):
    # Kills: starting anew, or going on with zeros.
    loop.train(tiny.config(epochs=3), tmp_path, quiet=True)
    for file in (tmp_path / "checkpoints" / "12" / "state").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:100])
    loop.train(tiny.config(epochs=3), tmp_path, quiet=True)
    said = capsys.readouterr().err
    assert "checkpoint 12" in said and "trying the one before" in said and "going on from step 8" in said
    jax.tree.map(np.testing.assert_array_equal, final(tmp_path, 12), final(finished[0], 12))


def test_when_nothing_can_be_read_training_starts_anew_and_says_so(finished, tmp_path, capsys):
    loop.train(tiny.config(epochs=1), tmp_path, quiet=True)
    for file in (tmp_path / "checkpoints").rglob("d/*"):
        file.unlink()
    loop.train(tiny.config(epochs=1), tmp_path, quiet=True)
    assert "none of the checkpoints could be read; training starts anew" in capsys.readouterr().err
    assert [record["step"] for record in records(tmp_path)] == [4]


def test_damaged_metrics_hide_no_checkpoint(tmp_path):
    # Kills: a JSON traceback. The best is then chosen among the others.
    loop.train(tiny.config(epochs=3), tmp_path, quiet=True)
    best = Checkpoints(tmp_path, read_only=True).best()[0]
    (tmp_path / "checkpoints" / str(best) / "metrics" / "metrics").write_text("{")
    assert Checkpoints(tmp_path, read_only=True).best()[0] != best
    assert loop.train(tiny.config(epochs=3), tmp_path, quiet=True).step == 12


def test_a_state_of_another_version_is_refused_and_kept(finished, tmp_path, monkeypatch):
    # Kills: taking a good checkpoint for a damaged one and starting anew.
    loop.train(tiny.config(epochs=1), tmp_path, quiet=True)
    real = state.create
    monkeypatch.setattr(
        state, "create", lambda *args, **options: real(*args, **options)._replace(ema={"params": {"new": np.zeros(3, np.float32)}})
    )
    with pytest.raises(InputError, match="checkpoint 4 holds another state than this version builds.*first .*ema.*new"):
        loop.train(tiny.config(epochs=1), tmp_path, quiet=True)
    assert Checkpoints(tmp_path, read_only=True).steps() == [4]


def test_a_workdir_without_a_checkpoint_may_be_used_again(tmp_path):
    # Kills: a first mistake that blocks its own mending.
    with pytest.raises(InputError, match="does not split over 8 devices"):
        loop.train(tiny.config(batch_size=12, epochs=1), tmp_path, quiet=True)
    assert loop.train(tiny.config(epochs=1), tmp_path, quiet=True).step == 4


def test_another_configuration_is_refused_with_the_difference(finished):
    workdir, _ = finished
    with pytest.raises(InputError, match=r"another configuration \(-\"lr\": 0\.1, \+\"lr\": 0\.2\); choose another --workdir"):
        loop.train(tiny.config(epochs=3, optimizer__lr=0.2), workdir, quiet=True)


def test_data_may_move(finished):
    # Kills: a comparison that includes where the data lie.
    workdir, summary = finished
    assert loop.train(tiny.config(epochs=3, data__dir="elsewhere", allow_slow=True), workdir, quiet=True)[:3] == summary[:3]


def test_pmap_and_streams_train_the_same_network(finished, tmp_path):
    # Kills: a second loop with its own habits.
    for name, change in (("pmap", {"parallel": "pmap"}), ("stream", {"data__stream": "always"})):
        loop.train(tiny.config(epochs=3, **change), tmp_path / name, quiet=True)
        jax.tree.map(np.testing.assert_array_equal, final(tmp_path / name, 12)["params"], final(finished[0], 12)["params"])


def test_batch_that_does_not_split_over_devices_is_refused(tmp_path):
    with pytest.raises(InputError, match="a batch of 12 does not split over 8 devices; nearest that does: 8 or 16"):
        loop.train(tiny.config(batch_size=12), tmp_path, quiet=True)


def test_longer_runs_compile_no_more_programs(tmp_path):
    # Kills: a program for each batch, epoch or validation.
    events = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, seconds, **_: events.append(event))

    def programs(epochs: int) -> int:
        before = events.count("/jax/core/compile/backend_compile_duration")
        loop.train(tiny.config(epochs=epochs), tmp_path / str(epochs), quiet=True)
        return events.count("/jax/core/compile/backend_compile_duration") - before

    programs(1)  # compiles what all runs of a process share
    assert programs(2) == programs(5) > 0


def test_a_run_may_begin_with_another_ones_weights(finished, tmp_path):
    # Kills: the last weights for the best; random ones, also where every checkpoint was damaged; weights read again when a run is taken up.
    source, summary = finished
    config = tiny.config(epochs=1, init=str(source), optimizer__lr=1e-30, optimizer__weight_decay=0.0)
    loop.train(config, tmp_path / "run", quiet=True)
    jax.tree.map(np.testing.assert_array_equal, final(tmp_path / "run", 4)["params"], final(source, summary.best_step)["params"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.pretrained, "load", None)
        assert loop.train(config, tmp_path / "run", quiet=True).step == 4
    for file in (tmp_path / "run" / "checkpoints").rglob("d/*"):
        file.unlink()
    loop.train(config, tmp_path / "run", quiet=True)
    jax.tree.map(np.testing.assert_array_equal, final(tmp_path / "run", 4)["params"], final(source, summary.best_step)["params"])
    with pytest.raises(InputError, match="holds another network than config.model: .* params differ, first 'blocks.0"):
        loop.train(tiny.config(epochs=1, init=str(source), model__options={"width": 8}), tmp_path / "wide", quiet=True)
    with pytest.raises(InputError, match="no checkpoints in"):
        loop.train(tiny.config(epochs=1, init=str(tmp_path / "nowhere")), tmp_path / "lost", quiet=True)
