"""What an attack (or another long item) has reached, kept in a file beside its result-to-be: a killed evaluation goes on inside it."""

import os
import time
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from robustjax.core.check import InputError
from robustjax.io import results

EVERY = 30.0  # seconds between two savings, at least: what a kill costs at most
SHARE = 20  # a saving that took t seconds is followed by none for SHARE * t: about 5 % of the time
DAMAGED = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


class StateFile:
    """Keeps the state of one attack; use it in a `with`, and call `finish` once the result is safe.

    What was handed over last is saved when an error or Ctrl-C ends the block; a kill leaves what was saved before it.

    Args:
        path: the file.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.handed = 0  # how often a state was handed over
        self._pending: Mapping[str, np.ndarray] | None = None
        self._wait = EVERY
        self._saved = time.monotonic()

    def load(self) -> dict[str, np.ndarray] | None:
        """Returns the state, or None where there is none.

        Raises:
            InputError: if the file is damaged.
        """
        try:
            return read_npz(self.path)
        except DAMAGED as error:
            raise refused(self.path, f"it is damaged ({' '.join(str(error).split())}).") from error

    def __call__(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes the newest state over, and saves it when the last saving is long enough ago."""
        self.handed += 1
        self._pending = state
        if time.monotonic() - self._saved >= self._wait:
            self._save()

    def finish(self) -> None:
        """Deletes the file: the result is there."""
        self._pending = None
        for path in (self.path, self._partial()):
            path.unlink(missing_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None and self._pending is not None:
            self._save()

    def _partial(self) -> Path:
        return self.path.with_name(f".{self.path.name}.partial")

    def _save(self) -> None:
        began = time.monotonic()
        write_npz(self.path, self._pending, temporary=self._partial())
        self._pending = None
        self._saved = time.monotonic()
        self._wait = max(EVERY, SHARE * (self._saved - began))


def refused(path: Path, why: str) -> InputError:
    """Returns the error for a state that cannot be used: what was computed is never thrown away unasked."""
    return InputError(f"{path} holds a measurement begun earlier that cannot be taken up: {why} To begin it anew, give --restart.")


def read_npz(path: Path) -> dict[str, np.ndarray] | None:
    """Returns the arrays of an npz file, or None where there is none; raises one of DAMAGED for a damaged one."""
    if not path.exists():
        return None
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:  # np.load by itself leaves a damaged file open
        return {name: stored[name] for name in stored.files}


def write_npz(path: Path, arrays: Mapping[str, np.ndarray], *, temporary: Path | None = None) -> None:
    """Writes arrays to an npz file, whole or not at all.

    Raises:
        InputError: if the folder cannot be written or the disk is full.
    """
    temporary = temporary or path.with_name(f".{path.name}.partial")
    with results.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
