"""Runs launchers as a user does: another process, the checkout's own code."""

import contextlib
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment(**changes: str) -> dict:
    """Returns an environment without the virtual devices of the tests."""
    kept = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "TFDS_DATA_DIR")}
    return {**kept, "JAX_PLATFORMS": "cpu", **changes}


def free_port() -> int:
    """Returns a port that nobody listens to, below those that the system gives to outgoing connections."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("a hundred ports are taken")


def start(launcher: str, *arguments: str, **changes: str) -> subprocess.Popen:
    """Starts launch/<launcher>.py and returns its process."""
    command = [sys.executable, str(ROOT / "launch" / f"{launcher}.py"), *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment(**changes), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(launcher: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess:
    """Runs launch/<launcher>.py to its end."""
    process = start(launcher, *arguments, **changes)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
