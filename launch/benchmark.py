"""Measures speed, as ratios within one run: SPIDER's step against the plain one, loops, compilation, import.

python launch/benchmark.py --out=results/benchmark_cpu.json

Times of one machine say little on another, and shared machines drift: what is compared is measured in turn (A B A B ...), and
the median of the pairs' ratios is given with their range.
"""

import functools
import statistics
import subprocess
import sys
import time

import timing

import entry  # isort: skip
from absl import flags

_OUT = flags.DEFINE_string("out", "", "File for the numbers; default: print only.")
_PAIRS = flags.DEFINE_integer("pairs", 15, "How often each pair is measured.", lower_bound=3)
_STEPS = flags.DEFINE_integer("steps", 5, "Steps in one measurement.", lower_bound=1)


def train_step(name: str, size: int, channels: int, batch: int, model: dict) -> dict:
    """Compares the training step with SPIDER (on top of the crop) with the same step without it."""
    import jax

    from configs import common
    from robustjax.core import parallel
    from robustjax.train import build, feed, state

    runs, compile_seconds = [], []
    for method in ({"name": "none"}, {"name": "spider", "tau": 8.0, "xi": 0.3}):
        config = common.base().to_dict()
        config["data"] |= {"name": "fake", "options": {"size": size, "channels": channels, "train": 4 * batch, "test": 8}}
        config |= {"model": model, "method": method, "batch_size": batch, "epochs": 10_000}
        experiment = build.build(config)
        mesh = parallel.data_mesh()
        fresh = state.create(experiment.params, experiment.batch_stats, experiment.optimizer, averaged=False)
        holder = [parallel.replicate(fresh, mesh)]
        steps = feed.Resident(experiment, mesh, feed.place(experiment, mesh))
        dispatches = steps.dispatches(0, 10**9)

        def run(count=_STEPS.value, holder=holder, steps=steps, dispatches=dispatches):
            for _ in range(count):
                holder[0], _marker = steps(holder[0], next(dispatches)[1])
            jax.block_until_ready(holder[0])

        began = time.perf_counter()
        run(1)
        compile_seconds.append(time.perf_counter() - began)
        run(2)
        runs.append(run)
    found = timing.paired(*runs, _PAIRS.value)
    examples = _STEPS.value * batch * steps.chunk
    return {
        "name": f"train_step/{name}",
        "batch": batch,
        "model": model,
        "images_per_second": {"plain": examples / found["seconds"][0], "spider": examples / found["seconds"][1]},
        "spider_over_plain": found["ratio_median"],
        "spider_over_plain_range": found["ratio_range"],
        "first_step_seconds": {"plain": compile_seconds[0], "spider": compile_seconds[1]},
    }


def _loop_body(context, i, images, config):
    import jax
    import jax.numpy as jnp

    def loss(x):
        for kernel in context:
            x = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")))
        return jnp.sum(x**2)

    return images + 1e-3 * jnp.sign(jax.grad(loss)(images))


def loops(steps: int = 20) -> dict:
    """Compares ways to take twenty gradient steps through a small convolutional network."""
    import jax
    import jax.numpy as jnp

    from robustjax.core.loops import repeat

    keys = jax.random.split(jax.random.key(0), 4)
    context = [jax.random.normal(keys[0], (3, 3, 3, 16)) / 5, *(jax.random.normal(k, (3, 3, 16, 16)) / 12 for k in keys[1:3])]
    images = jax.random.uniform(keys[3], (32, 32, 32, 3))
    body = jax.jit(_loop_body, static_argnums=3)

    @jax.jit
    def scan(context, images):
        return jax.lax.scan(lambda x, i: (_loop_body(context, i, x, None), None), images, jnp.arange(steps))[0]

    @jax.jit
    def unrolled(context, images):
        for i in range(steps):
            images = body(context, i, images, None)
        return images

    def host_driven(context, images):
        for i in range(steps):
            images = body(context, i, images, None)
        return images

    forms = {
        "scan": scan,
        "unrolled_in_graph": unrolled,
        "host_driven": host_driven,
        "loops.repeat": lambda context, images: repeat(_loop_body, context, images, steps, config=None),
        "loops.repeat_in_jit": jax.jit(lambda context, images: repeat(_loop_body, context, images, steps, config=None)),
    }
    thunks = {}
    for name, function in forms.items():
        thunks[name] = functools.partial(lambda f: jax.block_until_ready(f(context, images)), function)
        thunks[name]()  # compiles
    scan_time = thunks.pop("scan")
    found = {name: timing.paired(thunk, scan_time, max(3, _PAIRS.value // 3)) for name, thunk in thunks.items()}
    return {
        "name": "loops/20_steps_of_3_convolutions",
        "scan_seconds": found["host_driven"]["seconds"][1],
        "times_faster_than_scan": {name: pair["ratio_median"] for name, pair in found.items()},
    }


def import_time() -> dict:
    """Times `import robustjax` and its kernels in fresh processes, against importing jax alone."""

    def process(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=entry.ROOT)
        return time.perf_counter() - began

    codes = {
        "python": "pass",
        "robustjax": "import robustjax",
        "kernels": "from robustjax import attacks, augment, corruptions, losses, metrics",
        "jax": "import jax",
    }
    for code in codes.values():
        process(code)
    times = {name: statistics.median(process(code) for _ in range(5)) for name, code in codes.items()}
    return {"name": "import_seconds", **{name: times[name] - times["python"] for name in codes if name != "python"}}


def compiled_programs() -> dict:
    """Counts what XLA compiles in a whole run (training, validation, evaluation under the full suite) of the quick digits."""
    import tempfile

    import jax

    from configs.spider import digits
    from robustjax.evaluate import run
    from robustjax.train import loop

    counts = {"programs": 0, "seconds": 0.0}

    def listen(event: str, duration: float, **_) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            counts["programs"] += 1
            counts["seconds"] += duration

    jax.monitoring.register_event_duration_secs_listener(listen)
    found = {"name": "compiled_programs"}
    with tempfile.TemporaryDirectory() as workdir:
        work = {
            "training": lambda: loop.train(digits.get_config("quick").to_dict(), workdir, quiet=True),
            "evaluation": lambda: run.evaluate(workdir, quiet=True),
        }
        for part, function in work.items():
            before = dict(counts)
            function()
            found[part] = {name: counts[name] - before[name] for name in counts}
    return found


def main() -> None:
    """Runs every benchmark and prints or writes the numbers."""
    import json

    import jax

    from robustjax.io import results

    jax.config.update("jax_compilation_cache_dir", None)  # compilation is measured too
    cases = [
        ("digits", 16, 1, 128, {"name": "small_cnn", "options": {"width": 16}}),
        ("cifar", 32, 3, 128, {"name": "small_cnn", "options": {"width": 32}}),
    ]
    if jax.default_backend() != "cpu":
        cases += [
            ("cifar", 32, 3, 512, {"name": "wide_resnet", "options": {"depth": 40, "width": 2}}),
            ("cifar", 32, 3, 512, {"name": "resnet18", "options": {}}),
        ]
    measured = [import_time(), compiled_programs(), loops(), *(train_step(*case) for case in cases)]
    report = {
        "command": f"python launch/benchmark.py --pairs={_PAIRS.value} --steps={_STEPS.value}",
        "environment": results.environment(),
        "measured": measured,
    }
    print(json.dumps(report, indent=1))
    if _OUT.value:
        results.write_json(_OUT.value, report)


if __name__ == "__main__":
    entry.run(main)
