"""The log is cut back to the restored step; a workdir has one run at a time."""

import subprocess
import sys

import pytest

from robustjax.core.check import InputError
from robustjax.io import log


def test_lines_behind_the_restored_step_are_cut(tmp_path):
    # Kills: appending to whatever is there; cutting the restored step's own line.
    path = tmp_path / "log.jsonl"
    with log.JsonLines(path, keep_to=0) as lines:
        for step in (1, 2, 3):
            lines.write({"step": step})
    with open(path, "a") as file:
        file.write('{"step": 4, "lo')  # a kill in the middle of a line
    with log.JsonLines(path, keep_to=2) as lines:
        lines.write({"step": 3, "again": True})
    assert log.read_lines(path) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def test_second_run_in_a_workdir_is_refused_and_a_killed_one_is_forgotten(tmp_path):
    # Kills: no lock; a lock file that outlives its process. Another process holds the lock, then dies by kill -9.
    code = f"import time, robustjax.io.log as log\nwith log.lock({str(tmp_path)!r}):\n    print('held', flush=True)\n    time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"another run \\(process {other.pid}\\) is using the workdir"), log.lock(tmp_path):
            pass
        other.kill()
        other.wait()
    with log.lock(tmp_path):
        pass


def test_unwritable_workdir_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write .*Not a directory"), log.lock(tmp_path / "file" / "run"):
        pass


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    # Kills: silence for hours in a job's log; a line for every step.
    clock = iter([0.0, 4.0, 12.0, 13.0])
    monkeypatch.setattr(log.time, "monotonic", lambda: next(clock))
    show = log._Lines("training", 100, 10)
    for done in (20, 40, 50):
        show(done, "7 images/s")
    assert capsys.readouterr().err == "training 40/100 7 images/s, about 24 s left\n"
