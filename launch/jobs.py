"""A list of jobs that several workers share, on one machine or on many with a common folder, each killed at any moment.

A job is some commands in their order, each with a file that is there once it is done; so a list that is run again does what is missing. A
worker holds a claim while it works, and so do its commands: a file with a lock, which the operating system drops when the last of them
ends, however it ends. For machines that do not see each other's locks (Lustre with `localflock`, some NFS) it also says which wrote it, and
when the worker was last seen. There a worker that is gone is waited for GRACE seconds, and a command that outlives its launcher gives no
signs: end it before the list is run again on another machine.
"""

import contextlib
import errno
import fcntl
import functools
import os
import platform
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from robustjax.io import log, results

ROOT = Path(__file__).resolve().parent.parent
BEAT, GRACE = 60.0, 600.0  # seconds between signs of life, and after which a worker on another machine is taken to be gone
POLL = 0.5  # seconds until a worker without work looks again
PATIENCE = 10.0  # seconds that commands have to stop by themselves
_NOT_FREE = (errno.EAGAIN, errno.ENOENT, errno.ESTALE)  # locked; let go of or, on NFS, replaced at this moment
_SIGTERM = (128 + signal.SIGTERM, -signal.SIGTERM)  # of a command that went by itself, with a checkpoint, or was ended


class Step(NamedTuple):
    """One command, `python launch/...`, and what is there once it has done its work."""

    command: tuple[str, ...]
    done: Path


class Job(NamedTuple):
    """Steps in their order; they write to `folder/log.txt`."""

    name: str
    folder: Path
    steps: tuple[Step, ...]
    needs: tuple[str, ...] = ()  # names of jobs that must be done before

    @property
    def log(self) -> Path:
        """Where the output of the commands goes."""
        return self.folder / "log.txt"

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return all(step.done.exists() for step in self.steps)


class Failure(NamedTuple):
    """A job that did not get done."""

    name: str
    why: str  # in one line
    log: Path | None  # of what went wrong
    stopped: bool = False  # by SIGTERM, which is nobody's fault: run again, it goes on

    @property
    def said(self) -> str:
        """The failure in one line."""
        return f"{'stopped' if self.stopped else 'failed'}: {self.name}: {self.why}" + (f"; see {self.log}" if self.log else "")


@functools.cache
def machine() -> str:
    """Returns what a claim says of who wrote it: the machine, and since when it is up; machines may have one name."""
    with contextlib.suppress(OSError):
        return f"{platform.node()} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    return platform.node()


def claim(path: Path) -> IO | None:
    """Takes a claim for this process.

    Args:
        path: its file; the folder is made if need be.

    Returns:
        The open file, to be given to `release`; processes that inherit it hold the claim as well. None while somebody else has it.
    """
    with results.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), "r+")
            fcntl.flock(file, fcntl.LOCK_EX)
        except FileExistsError:
            file = _taken_over(path)
        if file is not None:
            file.write(machine())
            file.flush()
            os.utime(path)
    return file


def _taken_over(path: Path) -> IO | None:
    """Returns the file of a claim whose worker is gone, locked; None if it lives."""
    with contextlib.ExitStack() as closing:
        try:
            file = closing.enter_context(open(path, "r+"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = os.stat(path)
            same = os.path.samestat(there, os.fstat(file.fileno()))
            # A lock of another machine may not be seen here.
            gone = file.read() == machine() or time.time() - there.st_mtime > GRACE
            if same and gone:
                file.truncate(0)
                file.seek(0)
                closing.pop_all()
                return file
        except OSError as error:
            if error.errno not in _NOT_FREE:
                raise
    return None


def release(path: Path, file: IO) -> None:
    """Lets go of a claim; one that another machine has taken over meanwhile stays its own."""
    with file, contextlib.suppress(OSError):
        file.seek(0)
        if os.path.samestat(os.stat(path), os.fstat(file.fileno())) and file.read() == machine():
            path.unlink()


def work(jobs: Sequence[Job], claims: Path, *, workers: int = 1) -> list[Failure]:
    """Does what is missing of some jobs, and waits for what others are doing.

    Args:
        jobs: in the order in which they are begun; those whose `needs` are not done yet wait.
        claims: folder of the claims, which all workers share.
        workers: how many commands run at once.

    Returns:
        The jobs that failed, and those that needed them. A failure ends nothing else; run again, the job is tried again.

    Raises:
        Stopped: on SIGTERM, which it hands to the commands and then waits for them.
    """
    from robustjax.train import guard

    crew = _Crew(jobs, claims, share=0.9 / workers)
    threads = [threading.Thread(target=crew.run, daemon=True) for _ in range(workers)]
    with guard.Asked().listening() as asked:
        for thread in threads:
            thread.start()
        try:
            while not asked and (alive := [thread for thread in threads if thread.is_alive()]):
                alive[0].join(POLL)
        except BaseException:
            crew.stop(threads)
            raise
        if asked:
            crew.end(threads)
            raise guard.Stopped("stopped by SIGTERM; the same command goes on from the last checkpoints and results.")
    if crew.broken:
        raise crew.broken[0]
    return crew.failures


class _Crew:
    """Workers of this process: threads, each with one command at a time."""

    def __init__(self, jobs: Sequence[Job], claims: Path, *, share: float = 0.9):
        self.jobs, self.claims = list(jobs), claims
        # Each command is one process by itself, whatever this one is part of.
        self._environment = {**os.environ, "JAX_NUM_PROCESSES": "1"}
        if share < 0.9:  # a command takes most of an accelerator's memory when it starts; several have to share it
            self._environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{share:.2f}")
        self.failures: list[Failure] = []
        self.broken: list[BaseException] = []
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._active: dict[str, subprocess.Popen | None] = {}
        self._told = False

    def run(self) -> None:
        """Works until nothing is left that is not done, failed or in another thread's hands."""
        try:
            while not self._stopped.is_set():
                found = self._next()
                if found:
                    self._do(*found)
                elif not self._left():
                    return
                else:
                    self._stopped.wait(POLL)
        except BaseException as error:  # what no job is to blame for: a folder that cannot be written
            self.broken.append(error)
            self._stopped.set()

    def stop(self, threads: Sequence[threading.Thread]) -> None:
        """Waits for the commands to stop, as they do when the user stops all of them at the terminal, then makes them."""
        self._stopped.set()
        until = time.monotonic() + PATIENCE
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._terminate()
        for thread in threads:
            thread.join(PATIENCE)

    def end(self, threads: Sequence[threading.Thread]) -> None:
        """Makes the commands stop, and waits until they have: training writes a checkpoint first."""
        self._terminate()
        for thread in threads:
            thread.join()

    def _terminate(self) -> None:
        with self._lock:
            self._stopped.set()  # so that no further one begins
            for process in filter(None, self._active.values()):
                process.terminate()

    def _failed(self) -> set[str]:
        return {failure.name for failure in self.failures}

    def _left(self) -> bool:
        with self._lock:
            return any(not job.done and job.name not in self._failed() for job in self.jobs)

    def _next(self) -> tuple[Job, Path, IO] | None:
        """Returns a job whose turn it is, with its claim."""
        with self._lock:
            done = {job.name for job in self.jobs if job.done}
            others = False
            for job in self.jobs:
                if job.name in done | self._failed() | self._active.keys():
                    continue
                if lacking := [failure for failure in self.failures if failure.name in job.needs]:
                    needed = min(lacking, key=lambda failure: (failure.stopped, failure.name))
                    how = "was stopped" if needed.stopped else "failed"
                    self.failures.append(Failure(job.name, f"needs {needed.name}, which {how}", None, needed.stopped))
                elif set(job.needs) <= done:
                    path = self.claims / f"{job.name.replace('/', '_')}.claim"
                    file = claim(path)
                    if file is not None:
                        self._active[job.name] = None
                        return job, path, file
                    others = True
            if others and not self._told:
                log.say("others are at work on what is left; this command waits for them.")
                self._told = True
        return None

    def _do(self, job: Job, path: Path, file: IO) -> None:
        try:
            for step in job.steps:
                if step.done.exists():
                    continue
                failure = self._execute(job, step, path, file)
                if self._stopped.is_set():
                    return
                if failure:
                    log.say(failure.said)
                    with self._lock:
                        self.failures.append(failure)
                    return
            log.say(f"done: {job.name} ({sum(one.done for one in self.jobs)} of {len(self.jobs)})")
        finally:
            with self._lock:
                self._active.pop(job.name, None)
            release(path, file)

    def _execute(self, job: Job, step: Step, path: Path, file: IO) -> Failure | None:
        """Runs a command; returns its failure, or nothing."""
        log.say(f"begun: {shlex.join(step.command)}")
        with results.writing(job.log):
            job.folder.mkdir(parents=True, exist_ok=True)
            output = open(job.log, "a")
        with output:
            print(f"$ {shlex.join(step.command)}", file=output, flush=True)
            begin = output.tell()
            program, *arguments = step.command
            command = [sys.executable if program == "python" else program, *arguments]
            streams = {"stdout": output, "stderr": output, "stdin": subprocess.DEVNULL}
            with self._lock:
                if self._stopped.is_set():
                    return None
                process = subprocess.Popen(command, cwd=ROOT, env=self._environment, pass_fds=[file.fileno()], **streams)
                self._active[job.name] = process
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(BEAT)
                    break
                with contextlib.suppress(OSError):
                    os.utime(path)
        if process.returncode in (130, -signal.SIGINT, *_SIGTERM):  # all of us are stopped, and the main thread is about to hear of it
            self._stopped.wait(2 * POLL)
        if process.returncode == 0 and step.done.exists():
            return None
        why = _why(process.returncode, step, job.log, begin)
        return Failure(job.name, why, job.log, process.returncode in _SIGTERM)


def _why(status: int, step: Step, written_to: Path, begin: int) -> str:
    """Returns in one line why a command failed: its exit status, where its output begins in the log."""
    if status == 0:
        return f"{step.command[1]} ended without writing {step.done}"
    if status in _SIGTERM:
        return "stopped by SIGTERM; the same command goes on from its last checkpoint or result"
    if status < 0:
        return f"stopped by {signal.Signals(-status).name}"
    with open(written_to, errors="replace") as written:
        written.seek(begin)
        said = [line.strip() for line in written if line.strip()]
    errors = [line for line in said if line.startswith("error: ")]
    return [f"exit status {status}", *said, *errors][-1]
