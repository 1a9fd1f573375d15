"""The log of a run: one JSON object a line, cut back to the restored step on resuming; and progress lines.

What differs between two runs of the same numbers (seconds, images/s) is under the key "time" and nowhere else.
"""

import contextlib
import fcntl
import json
import os
import sys
import time
from pathlib import Path

from robustjax.core.check import InputError
from robustjax.io import results


class JsonLines:
    """An append-only log of records that each have a `step`; use it in a `with`.

    Args:
        path: the file.
        keep_to: records of later steps are dropped when the log is opened; so is a last line that a kill left half written.
    """

    def __init__(self, path: str | os.PathLike, *, keep_to: int):
        self.path = Path(path)
        kept = [record for record in read_lines(self.path) if record["step"] <= keep_to]
        temporary = self.path.with_suffix(".tmp")
        with results.writing(self.path):
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
            os.replace(temporary, self.path)
            self._file = open(self.path, "a")

    def write(self, record: dict) -> None:
        """Appends a record and forces it to the disk, so that no checkpoint is newer than its line."""
        with results.writing(self.path):
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()


def read_lines(path: str | os.PathLike) -> list[dict]:
    """Returns the records of a log; a half-written last line is left out. An absent file has none."""
    records = []
    if not Path(path).exists():
        return records
    for line in Path(path).read_text().splitlines():
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return records


@contextlib.contextmanager
def lock(workdir: str | os.PathLike, *, flag: str = "--workdir"):
    """Holds a folder for one run; the operating system lets go of it when the process ends, however it ends.

    Args:
        workdir: the folder, made if need be.
        flag: by which the user named it.

    Raises:
        InputError: if another process holds it, or the folder cannot be written.
    """
    workdir = Path(workdir)
    with results.writing(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(workdir / ".lock", "a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise InputError(
                f"another run (process {holder}) is using the {flag.strip('-')} {workdir}; wait for it or choose another {flag}."
            ) from error
        with results.writing(workdir):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield


def say(message: str) -> None:
    """Prints one line for the user on stderr, where progress goes too; stdout is kept for results."""
    print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(description: str, total: int, *, start: int = 0, quiet: bool = False):
    """Shows how far something is and the time left; yields `update(done, text)`.

    On a terminal it is a live bar; elsewhere (a file, a job's log) a line at most every ten seconds.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if quiet:
        yield lambda done, text="": None
    elif console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task(description, total=total, completed=start, text="")
            yield lambda done, text="": bar.update(task, completed=done, text=text)
    else:
        yield _Lines(description, total, start)


class _Lines:
    """Progress as lines of text, for where no bar can be drawn."""

    def __init__(self, description: str, total: int, start: int):
        self.description, self.total, self.start = description, total, start
        self.began = self.said = time.monotonic()

    def __call__(self, done: float | int, text: str = "") -> None:
        now = time.monotonic()
        if now - self.said >= 10 and done > self.start:
            left = (now - self.began) * (self.total - done) / (done - self.start)
            say(f"{self.description} {int(done)}/{self.total} {text}, about {left:.0f} s left")
            self.said = now
