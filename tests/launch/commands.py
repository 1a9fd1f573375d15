"""Runs launchers as a user does: another process, the checkout's own code."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment(**changes: str) -> dict:
    """Returns an environment without the virtual devices of the tests."""
    kept = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "TFDS_DATA_DIR")}
    return {**kept, "JAX_PLATFORMS": "cpu", **changes}


def start(launcher: str, *arguments: str, **changes: str) -> subprocess.Popen:
    """Starts launch/<launcher>.py and returns its process."""
    command = [sys.executable, str(ROOT / "launch" / f"{launcher}.py"), *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment(**changes), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(launcher: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess:
    """Runs launch/<launcher>.py to its end."""
    process = start(launcher, *arguments, **changes)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
