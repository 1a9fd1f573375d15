"""The shared list of jobs: each done once, by whoever lives, whatever becomes of the others."""

import errno
import os
import platform
import signal
import subprocess
import sys
import threading
import time

import pytest

from launch import jobs
from robustjax.core.check import InputError

COUNT = "import sys, time; open(sys.argv[1], 'a').write('x'); time.sleep({}); open(sys.argv[2], 'w')"
AT_ONCE = COUNT.format(0)
ON_SIGN = "import os, sys, time; open(sys.argv[1], 'a').write('x')\nwhile not os.path.exists(sys.argv[2] + '.go'): time.sleep(0.02)\nopen(sys.argv[2], 'w')"
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
    assert again is not None and path.read_text() == jobs.machine()
    jobs.release(path, again)


def test_a_claim_of_another_machine_holds_while_it_is_seen(tmp_path):
    # Its lock may not be seen here. Kills: signs of life that nobody reads; a takeover that keeps the other's name.
    path = tmp_path / "a.claim"
    for other in ("elsewhere", platform.node(), f"{platform.node()} another-start"):  # machines may have one name
        path.write_text(other)
        assert jobs.claim(path) is None
    old = time.time() - jobs.GRACE - 1
    os.utime(path, (old, old))
    file = jobs.claim(path)
    assert file is not None and path.read_text() == jobs.machine() and time.time() - path.stat().st_mtime < 60
    jobs.release(path, file)


def test_a_claim_that_was_taken_over_is_left_to_its_new_worker(tmp_path):
    # Kills: a worker that wakes up late and lets go of what another holds by now, so that a third one begins.
    path = tmp_path / "a.claim"
    file = jobs.claim(path)
    path.write_text("elsewhere")
    jobs.release(path, file)
    assert path.read_text() == "elsewhere" and file.closed
    path.unlink()
    file = jobs.claim(path)
    path.rename(tmp_path / "old")
    path.write_text(jobs.machine())  # another file, of another worker here
    jobs.release(path, file)
    assert path.exists()
    path.unlink()
    jobs.release(path, jobs.claim(path))
    assert not path.exists()


@pytest.mark.parametrize("where", ["open", "flock", "samestat"])
@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOENT])
def test_a_claim_that_goes_while_it_is_looked_at_is_not_free(tmp_path, monkeypatch, where, number):
    # NFS says ESTALE of a file that another machine has let go of. Kills: a crew that ends with it; a real error that is hidden.
    path = tmp_path / "a.claim"
    path.write_text(jobs.machine())

    def failing(*_):
        raise OSError(number, os.strerror(number))

    owner = {"open": jobs, "flock": jobs.fcntl, "samestat": os.path}[where]
    with monkeypatch.context() as patched:
        patched.setattr(owner, where, failing, raising=False)
        assert jobs.claim(path) is None
        number = errno.EIO
        with pytest.raises(InputError, match="cannot write .*a.claim"):
            jobs.claim(path)
    jobs.release(path, jobs.claim(path))


def test_a_command_whose_launcher_was_killed_goes_on_and_is_waited_for(tmp_path):
    # Kills: a claim that ends with the launcher, so that two commands write to one folder.
    code = f"from pathlib import Path; from launch import jobs; from tests.launch.test_jobs import *; folder = Path({str(tmp_path)!r}); jobs.work([job(folder, 'a', code=ON_SIGN)], folder / 'claims')"
    launcher = subprocess.Popen([sys.executable, "-c", code], cwd=jobs.ROOT)
    while not (tmp_path / "a.count").exists() or not (tmp_path / "a.count").read_text():
        assert launcher.poll() is None
        time.sleep(0.01)
    launcher.kill()
    launcher.wait()
    assert not (tmp_path / "a" / "done").exists()
    (tmp_path / "a" / "done.go").touch()
    assert jobs.work([job(tmp_path, "a")], tmp_path / "claims") == []
    assert counts(tmp_path) == {"a": "x"} and (tmp_path / "a" / "done").exists()


def test_a_failure_is_named_and_stops_nothing_else(tmp_path):
    # Kills: a crew that ends with its first failure; what needed it waited for for ever; the wrong line of the log.
    broken = "import sys; print('error: no such data', file=sys.stderr); print('bye'); sys.exit(2)"
    killed = "import os, signal; print('7/10, about 3 s left', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    no_text = "import sys; sys.stdout.buffer.write(b'\\xff\\nerror: of \\xff\\n'); sys.exit(2)"
    listed = [
        job(tmp_path, "a", code=broken),
        job(tmp_path, "b", needs=("a",)),
        job(tmp_path, "c"),
        job(tmp_path, "d", code=killed),
        job(tmp_path, "e", code="pass"),
        job(tmp_path, "f", code=no_text),
    ]
    failures = {failure.name: failure for failure in jobs.work(listed, tmp_path / "claims")}
    assert {name: failure.why for name, failure in failures.items()} == {
        "a": "error: no such data",
        "b": "needs a, which failed",
        "d": "stopped by SIGKILL",
        "e": f"-c ended without writing {tmp_path}/e/done",
        "f": "error: of \N{REPLACEMENT CHARACTER}",
    }
    assert not any(failure.stopped for failure in failures.values())
    assert failures["a"].log == tmp_path / "a" / "log.txt" and "bye" in failures["a"].log.read_text()
    assert counts(tmp_path) == {"c": "x"} and not list((tmp_path / "claims").iterdir())
    assert jobs.work([job(tmp_path, "a"), listed[1]], tmp_path / "claims") == []  # tried again, with what mends it


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    # Kills: a thread's traceback and a crew that waits for ever.
    (tmp_path / "claims").write_text("")
    with pytest.raises(InputError, match="cannot write .*a.claim"):
        jobs.work([job(tmp_path, "a")], tmp_path / "claims")


@pytest.mark.parametrize("how", ["sys.exit(143)", "os.kill(os.getpid(), 15); time.sleep(60)"])
def test_a_command_that_was_stopped_has_not_failed(tmp_path, how):
    # Kills: 'exit status 143' as a failure of the run; a stop that ends the others.
    listed = [job(tmp_path, "a", code=f"import os, sys, time; {how}"), job(tmp_path, "b", needs=("a",)), job(tmp_path, "c")]
    first, second = jobs.work(listed, tmp_path / "claims")
    assert first.stopped and second.stopped and counts(tmp_path) == {"c": "x"}
    assert first.said.startswith("stopped: a: stopped by SIGTERM; the same command goes on") and first.said.endswith("a/log.txt")
    assert second.said == "stopped: b: needs a, which was stopped"


def test_commands_are_single_processes(tmp_path, monkeypatch):
    # Kills: commands of a launcher that srun has started as one of several, each waiting for the others.
    monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    code = (
        "import os, sys; open(sys.argv[1], 'w').write(os.environ['JAX_NUM_PROCESSES'] + os.environ['SLURM_NTASKS']); open(sys.argv[2], 'w')"
    )
    for workers in (1, 2):
        assert jobs.work([job(tmp_path, f"j{workers}", code=code)], tmp_path / "claims", workers=workers) == []
    assert counts(tmp_path) == {"j1": "14", "j2": "14"}


def test_a_signal_is_handed_to_the_commands_and_waited_for(tmp_path):
    # Kills: commands that a container's end kills before they have written a checkpoint; a next one that is begun; a status of success.
    code = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: [time.sleep(0.3), open(sys.argv[2] + '.checkpoint', 'w'), sys.exit(143)]);"
        "open(sys.argv[1], 'w').write('x'); time.sleep(60)"
    )
    listed = [job(tmp_path, "a", code=code), job(tmp_path, "b")]

    def signal_later():
        while not counts(tmp_path).get("a"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=signal_later, daemon=True).start()
    with pytest.raises(KeyboardInterrupt, match="stopped by SIGTERM; the same command goes on") as stop:
        jobs.work(listed, tmp_path / "claims")
    assert stop.value.status == 143 and signal.getsignal(signal.SIGTERM) == before
    assert (tmp_path / "a" / "done.checkpoint").exists() and counts(tmp_path) == {"a": "x"} and not list((tmp_path / "claims").iterdir())


def test_a_stop_ends_the_commands(tmp_path, monkeypatch):
    # Kills: commands that outlive the user's Ctrl-C.
    monkeypatch.setattr(jobs, "PATIENCE", 0.1)
    listed = [job(tmp_path, "a", code=COUNT.format(60)), job(tmp_path, "b")]
    crew = jobs._Crew(listed, tmp_path / "claims")
    thread = threading.Thread(target=crew.run, daemon=True)
    thread.start()
    while not counts(tmp_path).get("a"):
        assert thread.is_alive(), crew.broken
        time.sleep(0.01)
    crew.stop([thread])
    thread.join(20)
    assert not thread.is_alive() and counts(tmp_path) == {"a": "x"} and not listed[0].done and crew.failures == []


@pytest.mark.parametrize(("stopped", "status"), [((), 0), ((True,), 143), ((True, False), 1)])
def test_what_was_stopped_is_no_failure(stopped, status):
    # Kills: a scheduler that is told not to begin again, or to begin again for ever.
    code = f"import sys; sys.path.insert(0, 'launch'); import asked; from launch.jobs import Failure; asked.finish([Failure('a', 'why', None, how) for how in {stopped}])"
    done = subprocess.run([sys.executable, "-c", code], cwd=jobs.ROOT, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert done.stderr.splitlines()[:-1] == [f"{'stopped' if how else 'failed'}: a: why" for how in stopped]
