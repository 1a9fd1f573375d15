"""The shared list of jobs: each done once, by whoever lives, whatever becomes of the others."""

import os
import platform
import subprocess
import sys
import threading
import time

import pytest

from launch import jobs
from robustjax.core.check import InputError

COUNT = "import sys, time; open(sys.argv[1], 'a').write('x'); time.sleep({}); open(sys.argv[2], 'w')"
AT_ONCE = COUNT.format(0)
HOLD = "import sys; from pathlib import Path; from launch import jobs; held = jobs.claim(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch):
    monkeypatch.setattr(jobs, "POLL", 0.02)


def job(folder, name, *, needs=(), code=AT_ONCE):
    done = folder / name / "done"
    return jobs.Job(name, folder / name, (jobs.Step(("python", "-c", code, str(folder / f"{name}.count"), str(done)), done),), needs)


def counts(folder):
    return {path.stem: path.read_text() for path in folder.glob("*.count")}


def other_process(path):
    """Starts a process that takes a claim and keeps it until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], cwd=jobs.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_jobs_are_done_in_order_once_and_not_again(tmp_path):
    # Kills: needs that are not waited for; a list that begins anew; a claim that stays.
    listed = [job(tmp_path, "b", needs=("a",)), job(tmp_path, "a")]
    assert jobs.work(listed, tmp_path / "claims", workers=2) == []
    order = [(tmp_path / name / "done").stat().st_mtime_ns for name in "ab"]
    assert order == sorted(order) and counts(tmp_path) == {"a": "x", "b": "x"} and not list((tmp_path / "claims").iterdir())
    assert "$ python -c" in listed[0].log.read_text()
    assert jobs.work(listed, tmp_path / "claims") == [] and counts(tmp_path) == {"a": "x", "b": "x"}


def test_several_crews_share_a_list(tmp_path):
    # Kills: claims that two can hold; a crew that ends, or fails, while another still works.
    listed = [job(tmp_path, f"j{i}", code=COUNT.format(0.05)) for i in range(6)]
    found = []
    crews = [
        threading.Thread(target=lambda: found.append((jobs.work(listed, tmp_path / "claims", workers=2), all(one.done for one in listed))))
        for _ in range(2)
    ]
    for crew in crews:
        crew.start()
    for crew in crews:
        crew.join()
    assert found == [([], True), ([], True)]
    assert counts(tmp_path) == {f"j{i}": "x" for i in range(6)}


def test_a_claim_of_another_process_holds_until_it_dies(tmp_path):
    # Kills: a claim of a dead worker that is waited for, and one of a living worker that is taken.
    path = tmp_path / "claims" / "a.claim"
    process = other_process(path)
    assert jobs.claim(path) is None
    process.kill()
    process.communicate()
    assert path.exists()
    file = jobs.claim(path)
    assert file is not None and jobs.claim(path) is None
    jobs.release(path, file)
    again = jobs.claim(path)
    assert again is not None and path.read_text() == platform.node()
    jobs.release(path, again)


def test_a_claim_of_another_machine_holds_while_it_is_seen(tmp_path):
    # Its lock may not be seen here. Kills: signs of life that nobody reads; a takeover that keeps the other's name.
    path = tmp_path / "a.claim"
    path.write_text("elsewhere")
    assert jobs.claim(path) is None
    old = time.time() - jobs.GRACE - 1
    os.utime(path, (old, old))
    file = jobs.claim(path)
    assert file is not None and path.read_text() == platform.node() and time.time() - path.stat().st_mtime < 60
    jobs.release(path, file)


def test_a_command_whose_launcher_was_killed_goes_on_and_is_waited_for(tmp_path):
    # Kills: a claim that ends with the launcher, so that two commands write to one folder.
    code = f"from pathlib import Path; from launch import jobs; from tests.launch.test_jobs import *; folder = Path({str(tmp_path)!r}); jobs.work([job(folder, 'a', code=COUNT.format(1))], folder / 'claims')"
    launcher = subprocess.Popen([sys.executable, "-c", code], cwd=jobs.ROOT)
    while not (tmp_path / "a.count").exists() or not (tmp_path / "a.count").read_text():
        assert launcher.poll() is None
        time.sleep(0.01)
    launcher.kill()
    launcher.wait()
    assert not (tmp_path / "a" / "done").exists()
    assert jobs.work([job(tmp_path, "a")], tmp_path / "claims") == []
    assert counts(tmp_path) == {"a": "x"} and (tmp_path / "a" / "done").exists()


def test_a_failure_is_named_and_stops_nothing_else(tmp_path):
    # Kills: a crew that ends with its first failure; what needed it waited for for ever; the wrong line of the log.
    broken = "import sys; print('error: no such data', file=sys.stderr); print('bye'); sys.exit(2)"
    killed = "import os, signal; print('7/10, about 3 s left', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    listed = [
        job(tmp_path, "a", code=broken),
        job(tmp_path, "b", needs=("a",)),
        job(tmp_path, "c"),
        job(tmp_path, "d", code=killed),
        job(tmp_path, "e", code="pass"),
    ]
    failures = {failure.name: failure for failure in jobs.work(listed, tmp_path / "claims")}
    assert {name: failure.why for name, failure in failures.items()} == {
        "a": "error: no such data",
        "b": "needs a, which failed",
        "d": "stopped by SIGKILL",
        "e": f"-c ended without writing {tmp_path}/e/done",
    }
    assert failures["a"].log == tmp_path / "a" / "log.txt" and "bye" in failures["a"].log.read_text()
    assert counts(tmp_path) == {"c": "x"} and not list((tmp_path / "claims").iterdir())
    assert jobs.work([job(tmp_path, "a"), listed[1]], tmp_path / "claims") == []  # tried again, with what mends it


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    # Kills: a thread's traceback and a crew that waits for ever.
    (tmp_path / "claims").write_text("")
    with pytest.raises(InputError, match="cannot write .*a.claim"):
        jobs.work([job(tmp_path, "a")], tmp_path / "claims")


def test_a_stop_ends_the_commands(tmp_path, monkeypatch):
    # Kills: commands that outlive the user's Ctrl-C.
    monkeypatch.setattr(jobs, "PATIENCE", 0.1)
    listed = [job(tmp_path, "a", code=COUNT.format(60)), job(tmp_path, "b")]
    crew = jobs._Crew(listed, tmp_path / "claims")
    thread = threading.Thread(target=crew.run, daemon=True)
    thread.start()
    while not counts(tmp_path).get("a"):
        time.sleep(0.01)
    crew.stop([thread])
    thread.join(20)
    assert not thread.is_alive() and counts(tmp_path) == {"a": "x"} and not listed[0].done and crew.failures == []
