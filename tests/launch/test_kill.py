"""Killed for real, at random moments, inside checkpoint writes and during evaluation: nothing is lost, nothing changes."""

import os
import random
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from robustjax import corruptions
from robustjax.io import log, results
from robustjax.io.checkpoint import Checkpoints
from tests.launch import commands

CONFIG = (
    "--config=configs/spider/digits.py:quick",
    "--config.epochs=24",
    "--config.data.limit_train=256",
    "--config.batch_size=16",
    "--config.evaluation.benchmark=cifar_c_extra",  # four programs to compile
)
KILLS_AT_RANDOM, KILLS_IN_WRITES = 3, 2


def lines(workdir: Path) -> list[dict]:
    return [{k: v for k, v in record.items() if k != "time"} for record in log.read_lines(workdir / "log.jsonl")]


def wait_for(condition, process) -> bool:
    """Waits until `condition()`; returns False when the process has ended before."""
    while process.poll() is None:
        if condition():
            return True
        time.sleep(0.002)
    return False


def kill_in_a_write(process, workdir: Path, have: int) -> bool:
    """Kills while Orbax writes: a new line in the log, and a checkpoint under a temporary name."""

    def writing() -> bool:
        return len(lines(workdir)) > have and any("tmp" in name for name in os.listdir(workdir / "checkpoints"))

    found = wait_for(writing, process)
    process.kill()
    process.wait()
    # Counted only where the write was really cut off: its temporary folder has stayed.
    return found and any("tmp" in name for name in os.listdir(workdir / "checkpoints"))


def kill_at_random(process, workdir: Path, have: int, draw: random.Random) -> bool:
    """Kills up to two epochs and a moment from now; returns whether it was still running."""
    more, moment = draw.randint(0, 2), 0.3 * draw.random()
    wait_for(lambda: len(lines(workdir)) >= have + more, process)
    time.sleep(moment)
    running = process.poll() is None
    process.kill()
    return running


def train_with_kills(workdir: Path) -> tuple[int, int]:
    """Trains; returns how often it was killed inside a write, and at random moments."""
    draw = random.Random(0)
    in_writes = at_random = 0
    while True:
        process = commands.start("train", *CONFIG, f"--workdir={workdir}")
        have = len(lines(workdir))
        if in_writes < KILLS_IN_WRITES:
            in_writes += kill_in_a_write(process, workdir, have)
        elif at_random < KILLS_AT_RANDOM:
            at_random += kill_at_random(process, workdir, have, draw)
        _, err = process.communicate()
        if process.returncode == 0:
            return in_writes, at_random
        assert process.returncode == -9, err


@pytest.mark.timeout(600)
def test_killed_training_and_evaluation_equal_the_unbroken_ones(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    unbroken = commands.run("train", *CONFIG, f"--workdir={whole}")
    assert unbroken.returncode == 0, unbroken.stderr
    assert train_with_kills(killed) == (KILLS_IN_WRITES, KILLS_AT_RANDOM)
    assert lines(killed) == lines(whole)
    last = lines(whole)[-1]["step"]
    states = [Checkpoints(folder, read_only=True).restore(last)[0] for folder in (whole, killed)]
    jax.tree.map(np.testing.assert_array_equal, *states)

    arguments = (f"--workdir={killed}", "--suite=corruptions")
    process = commands.start("evaluate", *arguments)
    evaluation = killed / "evaluation"
    assert wait_for(lambda: len(list(evaluation.rglob("*.json"))) >= 3, process)
    process.kill()
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in evaluation.rglob("*.json") if results.read(path)}
    again = commands.run("evaluate", *arguments)
    assert again.returncode == 0, again.stderr
    assert len(before) >= 3 and all(path.stat().st_mtime_ns == when for path, when in before.items())
    other = commands.run("evaluate", f"--workdir={whole}", "--suite=corruptions")
    assert other.returncode == 0, other.stderr
    measured = [
        {path.name: results.read(path)["metrics"] for path in (folder / "evaluation").rglob("*.json")} for folder in (whole, killed)
    ]
    assert measured[0] == measured[1] and len(measured[0]) == 1 + 5 * len(corruptions.NAMES["cifar_c_extra"])
