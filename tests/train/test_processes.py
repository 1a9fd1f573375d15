"""One run in two real processes: the numbers of one process, killed or stopped and started again, and refusals in one line."""

import re
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from configs.spider import digits
from robustjax.core import processes
from robustjax.core.check import InputError
from robustjax.evaluate import run
from robustjax.io import log
from robustjax.io.checkpoint import Checkpoints
from robustjax.train import guard, loop
from tests.launch import commands

# 400 steps, validated twice. With this rate rounding does not grow, while the weights change by hundreds of tolerances.
CHANGES = {
    "epochs": 100,
    "validate_epochs": 50,
    "batch_size": 32,
    "optimizer.lr": 1e-4,
    "data.limit_train": 160,
    "schedule.name": "constant",
}


class Two:
    """Two processes of launch/train.py, connected over a free port; killed when the test is over."""

    def __init__(self, *workdirs: Path, second: tuple[str, ...] = (), **changes):
        address = f"127.0.0.1:{commands.free_port()}"
        options = (
            "--config=configs/spider/digits.py:quick",
            *(f"--config.{name}={value}" for name, value in {**CHANGES, **changes}.items()),
        )
        self.processes = [
            commands.start(
                "train",
                *options,
                f"--workdir={workdirs[min(i, len(workdirs) - 1)]}",
                *(second if i else ()),
                JAX_COORDINATOR_ADDRESS=address,
                JAX_NUM_PROCESSES="2",
                JAX_PROCESS_ID=str(i),
            )
            for i in range(2)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes:
            process.kill()
            process.communicate()

    def ended(self) -> list[tuple[int, str, str]]:
        """Returns (exit status, stdout, stderr) of both, without the lines of Gloo."""
        texts = [[re.sub(r"\[Gloo\].*\n", "", text) for text in process.communicate(timeout=400)] for process in self.processes]
        return [(process.returncode, *text) for process, text in zip(self.processes, texts, strict=True)]

    def wait_for(self, checkpoint: Path) -> None:
        """Waits until there is a whole checkpoint, or no process to make it."""
        while not checkpoint.exists() and self.processes[0].poll() is None:
            time.sleep(0.005)


def config() -> dict:
    made = digits.get_config("quick")
    made.update_from_flattened_dict(CHANGES)
    return made.to_dict()


def final(workdir: Path) -> dict:
    checkpoints = Checkpoints(workdir, read_only=True)
    return checkpoints.restore(checkpoints.steps()[-1])[0]


def records(workdir: Path) -> list[dict]:
    return [{k: v for k, v in record.items() if k != "time"} for record in log.read_lines(workdir / "log.jsonl")]


def assert_same_run(workdir: Path, other: Path) -> None:
    """Asserts that two runs have the same weights and log, to rounding."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), final(workdir)["params"], final(other)["params"])
    for ours, theirs in zip(records(workdir), records(other), strict=True):
        assert ours.keys() == theirs.keys() and ours["step"] == theirs["step"]
        for name in ("train_loss", "validation_loss"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The run in one process, on eight devices."""
    workdir = tmp_path_factory.mktemp("one")
    loop.train(config(), workdir, quiet=True)
    return workdir


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The run in two processes, the second of which has a workdir of its own, as machines without a shared disk have."""
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second") / "absent"
    with Two(first, second) as two:
        (status, out, err), *other = two.ended()
        assert status == 0 and "trained 400 steps" in out, err
        assert other == [(0, "", "")] and not second.exists()  # only the first process writes and speaks
    return first


def test_two_processes_train_the_network_of_one(one, unbroken):
    # Kills: gradients of one process, summed in place of averaged; rows that both take; validation of half the images.
    assert_same_run(unbroken, one)
    ours, theirs = (run.evaluate(workdir, suite="clean", limit=32, quiet=True)[0]["metrics"] for workdir in (unbroken, one))
    np.testing.assert_allclose(ours["nll_nats"], theirs["nll_nats"], rtol=1e-4)


def test_killed_and_started_again_it_is_the_unbroken_run(unbroken, tmp_path):
    # Kills: a process that waits for a dead one; a second one that starts with other weights; another order of streamed data.
    changes = {"data.stream": "always"}
    with Two(tmp_path, **changes) as two:
        two.wait_for(tmp_path / "checkpoints" / "200")
        two.processes[1].kill()
        began = time.perf_counter()
        (status, _, err), (killed, _, _) = two.ended()
        assert killed == -9 and status == 2 and "one of them has ended" in err and "error: " in err.splitlines()[-1], err
        assert time.perf_counter() - began < 90  # jax itself would notice after 100
    assert len(records(tmp_path)) == 1
    with Two(tmp_path, **changes) as two:
        (status, _, err), other = two.ended()
        assert status == 0 and "going on from step" in err and other == (0, "", ""), err
    ours, theirs = final(tmp_path), final(unbroken)
    for part in ("params", "batch_stats", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, ours[part], theirs[part])
    assert records(tmp_path) == records(unbroken)


def test_a_signal_to_one_stops_both_at_one_step_and_one_process_goes_on(one, tmp_path):
    # Kills: waiting for the next validation, or for each other; a checkpoint in mid-epoch that counts as validated, or loses its sums.
    with Two(tmp_path) as two:
        two.wait_for(tmp_path / "checkpoints" / "200")
        two.processes[1].terminate()
        found = two.ended()
    said = [re.search(r"stopped at step (\d+) of 400; the same command goes on from there", err) for *_, err in found]
    assert [status for status, *_ in found] == [guard.Stopped.status] * 2 and said[0][1] == said[1][1]
    checkpoints = Checkpoints(tmp_path, read_only=True)
    assert checkpoints.steps() == [200, int(said[0][1])] and checkpoints.best()[0] == 200
    loop.train(config(), tmp_path, quiet=True)
    assert_same_run(tmp_path, one)


def test_processes_that_differ_are_refused_with_the_difference(tmp_path):
    # Kills: two runs of which neither is what was asked for; an error of one for which the other waits.
    with Two(tmp_path, second=("--config.seed=1",)) as two:
        for status, _, err in two.ended():
            assert status == 2 and 'error: process 1 differs from process 0 (-"seed": 0, +"seed": 1)' in err, err
    assert not list(tmp_path.glob("checkpoints/*"))


def test_an_evaluation_of_several_processes_is_refused():
    # Kills: two processes that write the same results.
    done = commands.run("evaluate", "--workdir=absent", SLURM_STEP_NUM_TASKS="2")
    assert done.returncode == 2 and done.stderr.startswith("error: an evaluation runs in one process (")


def test_one_process_alone_asks_nobody():
    # Kills: collectives in the usual case. That several agree is tested above.
    assert processes.is_first() and processes.gather({"a": (1,)}) == [{"a": (1,)}]
    assert processes.together(max, 1, 2, first_only=True) == 2 and processes.from_first("x") == "x"
    with pytest.raises(InputError, match="mine"):
        processes.together(_fails)


def _fails():
    raise InputError("mine")
