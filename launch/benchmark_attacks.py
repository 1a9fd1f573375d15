"""Measures attacks beside Foolbox and torchattacks: the same network, images, steps and cores, in one run.

python launch/benchmark_attacks.py --peer_python=peer/bin/python --out=results/benchmark_attacks_cpu.json

PGD-20 and AutoAttack at L-inf 8/255: each stage of the standard version by itself on all images that are right to begin with, and
the whole of it. Every attack of every package has a process of its own (own_attacks.py, peer_attacks.py), held to the same cores;
they take turns, one seed each turn, and each keeps its fastest. Our first call, which compiles, is given apart from them. The
network and the images are read from the folder of reference data; none of CIFAR is in the repository.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import attack_worker

import entry  # isort: skip
from absl import flags

ATTACKS = ("pgd", "apgd-ce", "apgd-t", "fab-t", "square", "standard")
PEERS = {"pgd": ("torchattacks", "foolbox-torch", "foolbox-jax")}  # of the others: the first
GOLDENS = Path(os.environ.get("ROBUSTJAX_GOLDENS") or entry.ROOT.parent / "shared" / "goldens") / "attacks"

_OUT = flags.DEFINE_string("out", "", "File for the numbers; default: print only.")
_PEER = flags.DEFINE_string("peer_python", "", "Python of an environment with the peers, see peer_attacks.py; default: measure only ours.")
_GOLDENS = flags.DEFINE_string("goldens", "", f"Folder of cifar_cnn_params.npz and cifar_images.npz; default: {GOLDENS}.")
_ATTACKS = flags.DEFINE_list("attacks", list(ATTACKS), "Which attacks, separated by commas.")
_IMAGES = flags.DEFINE_integer("images", 256, "How many of the images.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 256, "Images at once.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 3, "How often each is measured.", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", 1, "CPU cores, the same for all; 0: all of them.", lower_bound=0)
_DEVICE = flags.DEFINE_enum("device", "cpu", ["cpu", "gpu"], "Where all of them compute.")


class Worker:
    """One process that runs one attack of one package whenever it is asked."""

    def __init__(self, python: str, script: str, arguments: list[str], env: dict):
        command = [python, str(Path(__file__).with_name(script)), *arguments]
        self._name = f"{arguments[2]} of {arguments[1]}"
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.about = self._answer()
        self.answers: list[dict] = []

    def attack(self, seed: int) -> dict:
        """Returns what attacking all images took and left."""
        self._process.stdin.write(f"{seed}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        from robustjax.core.check import InputError

        line = self._process.stdout.readline()
        while line and not line.startswith("{"):  # what a package prints by itself
            line = self._process.stdout.readline()
        if not line:
            raise InputError(f"the process of {self._name} ended with {self._process.wait()}; what it said stands above.")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def stored_arrays(folder: str) -> Path:
    """Writes the network, the images in [0, 1] and the labels into one file for all workers."""
    import numpy as np

    from robustjax.core.check import InputError

    source = Path(_GOLDENS.value or GOLDENS)
    for name in ("cifar_cnn_params.npz", "cifar_images.npz"):
        if not (source / name).is_file():
            raise InputError(f"there is no {name} in {source}; say where the reference data of attacks lie with --goldens=FOLDER.")
    params, stored = np.load(source / "cifar_cnn_params.npz"), np.load(source / "cifar_images.npz")
    if _IMAGES.value > len(stored["y"]):
        raise InputError(f"--images={_IMAGES.value}, but {source} has {len(stored['y'])}.")
    images = stored["x_uint8"][: _IMAGES.value].astype(np.float32) / np.float32(255)
    path = Path(folder) / "arrays.npz"
    np.savez(path, images=images, labels=stored["y"][: _IMAGES.value].astype(np.int32), **params)
    return path


def worker_environment(cores: int) -> dict:
    """Returns the environment that holds every worker to as many threads as there are cores."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "JAX_COMPILATION_CACHE_DIR")}
    threads = {name: str(cores) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return kept | threads | {"JAX_PLATFORMS": "cpu" if _DEVICE.value == "cpu" else "cuda"}


def measure(name: str, arrays: Path, env: dict) -> dict:
    """Returns what ours and the peers took and left, and how many times faster ours is."""
    batch = str(min(_BATCH.value, _IMAGES.value))
    workers = {"robustjax": Worker(sys.executable, "own_attacks.py", [str(arrays), "robustjax", name, batch], env)}
    first = workers["robustjax"].attack(0)["seconds"]
    for peer in PEERS.get(name, ("torchattacks",)) if _PEER.value else ():
        workers[peer] = Worker(_PEER.value, "peer_attacks.py", [str(arrays), peer, name, batch, _DEVICE.value], env)
    for seed in range(_REPEATS.value):
        for package, worker in workers.items():
            worker.answers.append(worker.attack(seed))
            print(f"{name}, seed {seed}, {package}: {worker.answers[-1]['seconds']:.2f} s", file=sys.stderr, flush=True)
    for worker in workers.values():
        worker.close()
    found = {package: summary(worker) for package, worker in workers.items()}
    found["robustjax"]["first_call_seconds"] = first
    ours = found["robustjax"]["seconds"]
    return {
        "name": name,
        "packages": found,
        "times_faster": {package: side["seconds"] / ours for package, side in found.items() if package != "robustjax"},
    }


def summary(worker: Worker) -> dict:
    """Returns the fastest of a worker's answers and what is worth keeping of all."""
    fastest = min(worker.answers, key=lambda answer: answer["seconds"])
    last = worker.answers[-1]
    return {
        "seconds": fastest["seconds"],
        "cpu_seconds": fastest["cpu_seconds"],
        "seconds_by_seed": [answer["seconds"] for answer in worker.answers],
        "robust_accuracy_by_seed": [answer["robust_accuracy"] for answer in worker.answers],
        "largest_norm": max(answer["largest_norm"] for answer in worker.answers),
        "clean_accuracy": worker.about["clean_accuracy"],
        "loaded_megabytes": worker.about["loaded_megabytes"],  # before the first attack
        "peak_megabytes": last["peak_megabytes"],
        "peak_device_megabytes": last["peak_device_megabytes"],
        "environment": {name: value for name, value in worker.about.items() if name not in ("clean_accuracy", "loaded_megabytes")},
    }


def processor() -> str:
    """Returns the name of the CPU, where the system tells."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def command() -> str:
    """Returns the command with folders as a reader would name them."""
    shown = [argument for argument in sys.argv[1:] if not argument.startswith("--goldens")]
    shown = ["--peer_python=peer/bin/python" if argument.startswith("--peer_python") else argument for argument in shown]
    return shlex.join(["python", "launch/benchmark_attacks.py", *shown])


def main() -> None:
    """Measures every attack and prints or writes the numbers after each."""
    from robustjax.core import registry
    from robustjax.io import results

    for name in _ATTACKS.value:
        if name not in ATTACKS:
            raise registry.unknown("attack", name, ATTACKS)
    cores = sorted(os.sched_getaffinity(0))[: _THREADS.value or None]
    os.sched_setaffinity(0, cores)  # the workers inherit it
    report = {
        "command": command(),
        "cpu": processor(),
        "device": _DEVICE.value,
        "threads": len(cores),
        "held_to_threads_by": "the affinity of every process, OMP_NUM_THREADS and its kin",
        "network": "plain CNN of the reference data: channels 24, 48, 64, hidden 32, 71,930 parameters",
        "images": _IMAGES.value,
        "batch": _BATCH.value,
        "eps": attack_worker.EPS,
        "parameters": {
            "pgd": f"{attack_worker.STEPS} steps of {attack_worker.STEP:.6g}, random start",
            "apgd-ce": f"{attack_worker.APGD_STEPS} steps, 1 run",
            "apgd-t": f"{attack_worker.APGD_STEPS} steps, 9 targets, 1 run each",
            "fab-t": f"{attack_worker.FAB_STEPS} steps, {attack_worker.FAB_TARGETS} targets, 1 run each",
            "square": f"{attack_worker.QUERIES} queries, p_init 0.8",
            "standard": "apgd-ce, apgd-t, fab-t, square, each on what is left",
        },
        "attacks": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        arrays, env = stored_arrays(folder), worker_environment(len(cores))
        for name in _ATTACKS.value:
            report["attacks"].append(measure(name, arrays, env))
            if _OUT.value:
                results.write_json(_OUT.value, report)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    entry.run(main)
