"""Measures how many images a second SPIDER trains on, and how long a full evaluation of one checkpoint takes.

python launch/benchmark_training.py --device=gpu --workdir=runs/spider --out=results/benchmark_training_gpu.json
python launch/benchmark_training.py --device=cpu --out=results/benchmark_training_cpu.json     # small batches; a digits network is evaluated

Training: the whole step with crop and flip, made-up images of 32x32 pixels, fed as in a run. SPIDER in float32 takes turns with the same
step without it, and with SPIDER in bfloat16; images/s are those of the fastest turn. On a CPU, which other programs may share, ratios are
of processor time. Evaluation: clean, the benchmark's corruptions at five severities, PGD, AutoAttack,
thickness, flatness and curvature, compilation included. Its attacks leave examples that they have broken, so the more robust the
network, the longer it takes.
"""

import json
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import timing

import entry  # isort: skip
from absl import flags

SUITE = "clean,corruptions,pgd,autoattack,thickness,flatness,curvature"
NETWORKS = {
    "small": {"name": "small_cnn", "options": {"width": 16}},
    "resnet18": {"name": "resnet18", "options": {}},
    "wrn_40_2": {"name": "wide_resnet", "options": {"depth": 40, "width": 2}},
}
BATCHES = {"cpu": {"small": 128, "resnet18": 16, "wrn_40_2": 16}, "gpu": {"resnet18": 512, "wrn_40_2": 512}}

_DEVICE = flags.DEFINE_enum("device", "cpu", ["cpu", "gpu"], "Where; on a CPU in the small form.")
_OUT = flags.DEFINE_string("out", "", "File for the numbers; default: print only.")
_NETWORKS = flags.DEFINE_list("networks", [], f"Which of {', '.join(NETWORKS)}, separated by commas; default: those of the device.")
_TURNS = flags.DEFINE_integer("turns", 5, "How often each is measured.", lower_bound=3)
_STEPS = flags.DEFINE_integer(
    "steps", 0, "Dispatches in one measurement; default: 1 on a CPU, else 5 (of up to 50 steps each).", lower_bound=0
)
_WORKDIR = flags.DEFINE_string("workdir", "", "A trained run to evaluate; default: SPIDER on digits, trained here.")
_NOTE = flags.DEFINE_multi_string("note", [], "What readers of the numbers should know, e.g. what else ran on the machine.")
_LIMIT = flags.DEFINE_integer("limit", 0, "Evaluate on that many test images; default: 64 on a CPU, else all.", lower_bound=0)


class Trainer:
    """A run that takes a few dispatches of steps whenever it is called, and waits for them."""

    def __init__(self, network: str, method: dict, dtype: str):
        from configs import common
        from robustjax.core import parallel
        from robustjax.train import build, feed

        batch = BATCHES[_DEVICE.value][network]
        config = common.base().to_dict()
        # On a GPU as many images as in CIFAR-10, so that a dispatch takes as many steps as there.
        images = 50_000 if _DEVICE.value == "gpu" else 4 * batch
        config["data"] |= {"name": "fake", "options": {"size": 32, "train": images, "test": 8}}
        config |= {"model": NETWORKS[network], "method": method, "compute_dtype": dtype, "batch_size": batch, "epochs": 10_000}
        config |= {"augment": ("crop_flip",), "augment_options": {"crop_flip": {"pad": 4}}}
        experiment = build.build(config)
        mesh = parallel.data_mesh()
        self._state = parallel.replicate(build.initial_state(experiment), mesh)
        self._feed = feed.Resident(experiment, mesh, feed.place(experiment, mesh))
        self._dispatches = self._feed.dispatches(0, 10**9)
        self._count = _STEPS.value or (5 if _DEVICE.value == "gpu" else 1)
        self.images = self._count * self._feed.chunk * batch
        began = time.perf_counter()
        self._take(1)
        self.first_seconds = time.perf_counter() - began
        self._take(2)

    def _take(self, count: int) -> None:
        import jax

        for _ in range(count):
            self._state, _ = self._feed(self._state, next(self._dispatches)[1])
        jax.block_until_ready(self._state)

    def __call__(self) -> None:
        self._take(self._count)


def throughput(network: str) -> dict:
    """Measures a network's training: images/s of each form, and ratios of their times to SPIDER's in float32."""
    spider = {"name": "spider", "tau": 8.0, "xi": 0.4}
    forms = {"SPIDER float32": (spider, "float32"), "plain float32": ({"name": "none"}, "float32"), "SPIDER bfloat16": (spider, "bfloat16")}
    runs = {name: Trainer(network, *form) for name, form in forms.items()}
    times = dict(zip(runs, timing.turns(list(runs.values()), _TURNS.value), strict=True))
    compared = {name: [one.processor if _DEVICE.value == "cpu" else one.wall for one in taken] for name, taken in times.items()}
    base, *others = runs
    ratios = {name: sorted(b / a for a, b in zip(compared[base], compared[name], strict=True)) for name in others}
    return {
        "name": network,
        "model": NETWORKS[network],
        "batch": BATCHES[_DEVICE.value][network],
        "images_per_second": {name: run.images / min(one.wall for one in times[name]) for name, run in runs.items()},
        "times_spider_float32": {name: statistics.median(values) for name, values in ratios.items()},
        "times_spider_float32_range": {name: [values[0], values[-1]] for name, values in ratios.items()},
        "first_dispatch_seconds": {name: run.first_seconds for name, run in runs.items()},
        # On a CPU the thread that feeds the device also computes.
        "host_idle": None
        if _DEVICE.value == "cpu"
        else {name: 1 - statistics.median(one.thread / one.wall for one in taken) for name, taken in times.items()},
    }


def evaluation() -> dict:
    """Times a full evaluation of one checkpoint, in a copy of its folder where nothing is measured yet."""
    from configs.spider import digits
    from robustjax.evaluate import run
    from robustjax.io import results
    from robustjax.train import loop

    with tempfile.TemporaryDirectory() as folder:
        if _WORKDIR.value:
            shutil.copytree(Path(_WORKDIR.value) / "checkpoints", Path(folder) / "checkpoints")
        else:
            loop.train(digits.get_config().to_dict(), folder, quiet=True)
        limit = _LIMIT.value or (64 if _DEVICE.value == "cpu" else 0)
        began = time.perf_counter()
        found = run.evaluate(folder, suite=SUITE, threats=("linf:8/255",), limit=limit)
        total = time.perf_counter() - began
    seconds: dict[str, float] = {}
    for item in found:
        part = item["run"]["item"]["kind"]
        seconds[part] = seconds.get(part, 0.0) + item["seconds"]
    clean = next(item for item in found if item["name"] == "clean")
    return results.canonical(
        {
            "run": _WORKDIR.value or "configs/spider/digits.py",
            "n": clean["n"],
            "clean_accuracy": clean["metrics"]["accuracy"],
            "autoattack": "standard, linf:8/255",
            "items": len(found),
            "seconds": seconds,
            "total_seconds": total,
        }
    )


def main() -> None:
    """Measures training, then evaluation, and prints or writes the numbers."""
    import jax

    from robustjax.core.check import InputError
    from robustjax.io import results

    if _DEVICE.value == "cpu":
        jax.config.update("jax_platforms", "cpu")
    elif jax.default_backend() != "gpu":
        raise InputError(f"--device=gpu: jax finds no GPU, but {jax.default_backend()}; install 'robustjax[cuda]' or take --device=cpu.")
    known = BATCHES[_DEVICE.value]
    unknown = [name for name in _NETWORKS.value if name not in known]
    if unknown:
        raise InputError(f"--networks has {unknown[0]!r}; known for {_DEVICE.value}: {', '.join(known)}.")
    jax.config.update("jax_compilation_cache_dir", None)  # compilation is measured too
    report = {
        "command": shlex.join(["python", "launch/benchmark_training.py", *sys.argv[1:]]),
        "environment": results.environment(),
        "notes": _NOTE.value,
        "training": [throughput(network) for network in _NETWORKS.value or known],
        "evaluation": evaluation(),
    }
    print(json.dumps(report, indent=1))
    if _OUT.value:
        results.write_json(_OUT.value, report)


if __name__ == "__main__":
    entry.run(main)
