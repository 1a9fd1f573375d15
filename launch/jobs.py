"""A list of jobs that several workers share, on one machine or on many with a common folder, each killed at any moment.

A job is some commands in their order, each with a file that is there once it is done; so a list that is run again does what is missing. A
worker holds a claim while it works, and so do its commands: a file with a lock, which the operating system drops when the last of them
ends, however it ends. For machines that do not see each other's locks it also says who wrote it, and when the worker was last seen.
"""

import contextlib
import fcntl
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
            file.write(platform.node())
            file.flush()
            os.utime(path)
    return file


def _taken_over(path: Path) -> IO | None:
    """Returns the file of a claim whose worker is gone, locked; None if it lives."""
    try:
        file = open(path, "r+")
    except FileNotFoundError:  # let go of at this moment: the next look will find it free
        return None
    with contextlib.ExitStack() as closing:
        closing.enter_context(file)
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = os.stat(path)
            same = os.path.samestat(there, os.fstat(file.fileno()))
            # A lock of another machine may not be seen here.
            gone = file.read() == platform.node() or time.time() - there.st_mtime > GRACE
            if same and gone:
                file.truncate(0)
                file.seek(0)
                closing.pop_all()
                return file
    return None


def release(path: Path, file: IO) -> None:
    """Lets go of a claim."""
    path.unlink(missing_ok=True)
    file.close()


def work(jobs: Sequence[Job], claims: Path, *, workers: int = 1) -> list[Failure]:
    """Does what is missing of some jobs, and waits for what others are doing.

    Args:
        jobs: in the order in which they are begun; those whose `needs` are not done yet wait.
        claims: folder of the claims, which all workers share.
        workers: how many commands run at once.

    Returns:
        The jobs that failed, and those that needed them. A failure ends nothing else; run again, the job is tried again.
    """
    crew = _Crew(jobs, claims, share=0.9 / workers)
    threads = [threading.Thread(target=crew.run, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(POLL)
    except BaseException:
        crew.stop(threads)
        raise
    if crew.broken:
        raise crew.broken[0]
    return crew.failures


class _Crew:
    """Workers of this process: threads, each with one command at a time."""

    def __init__(self, jobs: Sequence[Job], claims: Path, *, share: float = 0.9):
        self.jobs, self.claims = list(jobs), claims
        # A command takes most of an accelerator's memory when it starts; several have to share it.
        self._environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{share:.2f}", **os.environ} if share < 0.9 else None
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
        for process in list(self._active.values()):
            if process is not None:
                process.terminate()
        for thread in threads:
            thread.join(PATIENCE)

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
                if lacking := self._failed() & set(job.needs):
                    self.failures.append(Failure(job.name, f"needs {min(lacking)}, which failed", None))
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
                why = self._execute(job, step, path, file)
                if self._stopped.is_set():
                    return
                if why:
                    log.say(f"failed: {job.name}: {why}; see {job.log}")
                    with self._lock:
                        self.failures.append(Failure(job.name, why, job.log))
                    return
            log.say(f"done: {job.name} ({sum(one.done for one in self.jobs)} of {len(self.jobs)})")
        finally:
            with self._lock:
                self._active.pop(job.name, None)
            release(path, file)

    def _execute(self, job: Job, step: Step, path: Path, file: IO) -> str:
        """Runs a command; returns why it failed, or nothing."""
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
            process = subprocess.Popen(command, cwd=ROOT, env=self._environment, pass_fds=[file.fileno()], **streams)
            self._active[job.name] = process
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(BEAT)
                    break
                with contextlib.suppress(OSError):
                    os.utime(path)
        if process.returncode in (130, -signal.SIGINT):  # the user stops all of us, and the main thread is about to hear of it
            self._stopped.wait(2 * POLL)
        if process.returncode == 0:
            return "" if step.done.exists() else f"{step.command[1]} ended without writing {step.done}"
        if process.returncode < 0:
            return f"stopped by {signal.Signals(-process.returncode).name}"
        with open(job.log) as written:
            written.seek(begin)
            said = [line.strip() for line in written if line.strip()]
        errors = [line for line in said if line.startswith("error: ")]
        return [f"exit status {process.returncode}", *said, *errors][-1]
