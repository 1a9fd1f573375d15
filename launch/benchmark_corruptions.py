"""Measures how fast corrupted images are made, beside the package `imagecorruptions` on the same cores in the same run.

python launch/benchmark_corruptions.py --peer_python=peer/bin/python --out=results/benchmark_corruptions_cpu.json

The peer (see peer_imagecorruptions.py for its environment) runs one process a core; on a CPU ours runs as one process with one
virtual device a core. For each corruption and severity the two are timed in turn, `--rounds` times, and each keeps its fastest
round: other programs only ever add time. Ours counts drawing, corrupting and truncating images that lie on the device.
"""

import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import entry  # isort: skip
from absl import flags

_OUT = flags.DEFINE_string("out", "", "File for the numbers; default: print only.")
_PEER = flags.DEFINE_string("peer_python", "", "Python of an environment with `imagecorruptions`; default: measure only ours.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "How often each pair is measured.", lower_bound=1)
_SIZES = flags.DEFINE_multi_enum("size", ["32", "224"], ["32", "64", "224"], "Side of the images in pixels; may be given several times.")
_BATCH = flags.DEFINE_integer("batch", 0, "Images at once; default: 256 at 32 pixels, 64 at 64, 16 at 224 (on a CPU).", lower_bound=0)
_NAMES = flags.DEFINE_multi_string("name", [], "Only these corruptions; may be given several times.")

BENCHMARKS = {32: "cifar_c", 64: "tiny_imagenet_c", 224: "imagenet_c"}
BATCHES = {32: 256, 64: 64, 224: 16}
SEPARATELY = ("glass_blur", "snow", "frost", "elastic_transform", "jpeg_compression")


def photographs(count: int, size: int):
    """Returns `count` uint8 crops of scikit-learn's two photographs, at their own resolution for 224 pixels, else shrunk."""
    import numpy as np
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    block = max(1, 256 // size)
    crops = []
    for i in range(count):
        image = load_sample_images().images[i % 2]
        top, left = (rng.integers(side - size * block + 1) for side in image.shape[:2])
        window = image[top : top + size * block, left : left + size * block]
        crops.append(window.reshape(size, block, size, block, 3).mean(axis=(1, 3)).astype(np.uint8))
    return np.stack(crops)


class Peer:
    """One process a core, each corrupting its own images."""

    def __init__(self, python: str, images, folder: str, processes: int):
        import numpy as np

        path = Path(folder) / f"images_{images.shape[1]}.npy"
        np.save(path, images)
        command = [python, str(Path(__file__).with_name("peer_imagecorruptions.py")), str(path)]
        self._workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
            for _ in range(processes)
        ]

    def images_per_second(self, name: str, severity: int, count: int) -> float:
        """Returns what all processes make together while each makes `count` images."""
        for worker in self._workers:
            worker.stdin.write(f"{name} {severity} {count}\n")
            worker.stdin.flush()
        return count * len(self._workers) / max(float(worker.stdout.readline()) for worker in self._workers)

    def close(self) -> None:
        """Ends the processes."""
        for worker in self._workers:
            worker.stdin.close()
            worker.wait()


def ours(name: str, images, benchmark: str):
    """Returns (run(severity), seconds of the first run with compilation, bytes of temporary memory on one device)."""
    import jax
    import jax.numpy as jnp

    from robustjax import corruptions
    from robustjax.core import example_keys, parallel

    mesh = parallel.data_mesh()
    split = jax.sharding.PartitionSpec("data")

    def step(keys, images, severity):
        return corruptions.corrupt(keys, images, name=name, severity=severity, benchmark=benchmark)

    mapped = jax.jit(
        jax.shard_map(step, mesh=mesh, in_specs=(split, split, jax.sharding.PartitionSpec()), out_specs=split, check_vma=False)
    )
    keys = example_keys(jax.random.key(0), jnp.arange(len(images)))
    placed = parallel.shard_rows((keys, jnp.asarray(images, jnp.float32) / 255), mesh)
    began = time.perf_counter()
    compiled = mapped.lower(*placed, jnp.int32(1)).compile()
    jax.block_until_ready(compiled(*placed, jnp.int32(1)))
    seconds = time.perf_counter() - began

    def run(severity: int) -> None:
        jax.block_until_ready(compiled(*placed, jnp.int32(severity)))

    return run, seconds, compiled.memory_analysis().temp_size_in_bytes


def measure(size: int, peer: Peer | None, names, show) -> list[dict]:
    """Returns one row for each corruption, with images/s by severity."""
    import jax

    benchmark = BENCHMARKS[size]
    batch = _BATCH.value or BATCHES[size] * (1 if jax.default_backend() == "cpu" else 16)
    images = photographs(min(batch, 64), size).repeat(-(-batch // 64), axis=0)[:batch]
    rows = []
    for name in names:
        run, first_seconds, memory = ours(name, images, benchmark)
        speeds = {"ours": [], "peer": []}
        for severity in range(1, 6):
            run(severity)
            best = {"ours": 0.0, "peer": 0.0}
            for _ in range(_ROUNDS.value):
                began = time.perf_counter()
                repeats = 0
                while time.perf_counter() - began < 0.1:  # cheap ones are repeated until the clock can see them
                    run(severity)
                    repeats += 1
                best["ours"] = max(best["ours"], batch * repeats / (time.perf_counter() - began))
                if peer:
                    count = 1 if name == "glass_blur" and size > 64 else 8 if size > 64 else 64
                    best["peer"] = max(best["peer"], peer.images_per_second(name, severity, count))
            for who in best:
                speeds[who].append(best[who])
            show()
        row = {"name": name, "images_per_second": {"ours": mean_speed(speeds["ours"]), "ours_by_severity": speeds["ours"]}}
        if peer:
            row["images_per_second"] |= {"peer": mean_speed(speeds["peer"]), "peer_by_severity": speeds["peer"]}
            row["times_faster"] = row["images_per_second"]["ours"] / row["images_per_second"]["peer"]
            pairs = zip(speeds["ours"], speeds["peer"], strict=True)
            row["times_faster_by_severity"] = [a / b for a, b in pairs]
        rows.append(row | {"batch": batch, "first_call_seconds": first_seconds, "temporary_bytes_of_a_device": memory})
    return rows


def mean_speed(speeds: list[float]) -> float:
    """Returns images/s over as many images of each kind: the harmonic mean."""
    return statistics.harmonic_mean(speeds)


def summary(size: int, rows: list[dict]) -> dict:
    """Returns the numbers over all corruptions and severities, and those that are slower than the peer's."""
    found = {"size": size, "images_per_second_over_all": {"ours": mean_speed([r["images_per_second"]["ours"] for r in rows])}}
    if "times_faster" in rows[0]:
        found["images_per_second_over_all"]["peer"] = mean_speed([r["images_per_second"]["peer"] for r in rows])
        found["times_faster_over_all"] = found["images_per_second_over_all"]["ours"] / found["images_per_second_over_all"]["peer"]
        found["slower_than_the_peer"] = {r["name"]: r["times_faster"] for r in rows if r["times_faster"] < 1}
        found["times_faster_separately"] = {r["name"]: r["times_faster"] for r in rows if r["name"] in SEPARATELY}
    return found | {"rows": rows}


def main() -> None:
    """Measures every size and prints or writes the numbers."""
    if "cuda" not in os.environ.get("JAX_PLATFORMS", "") and "device_count" not in os.environ.get("XLA_FLAGS", ""):
        # Read once, when jax first looks for devices; it changes nothing on accelerators.
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={os.cpu_count()}"
    import json

    import jax

    from robustjax import corruptions
    from robustjax.io import log, results

    jax.config.update("jax_compilation_cache_dir", None)  # compilation is measured too
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for size in map(int, _SIZES.value):
            names = [name for name in corruptions.NAMES[BENCHMARKS[size]] if not _NAMES.value or name in _NAMES.value]
            peer = Peer(_PEER.value, photographs(16, size), folder, os.cpu_count()) if _PEER.value else None
            with log.progress(f"{size} pixels", 5 * len(names)) as progress:
                done = 0

                def show(progress=progress):
                    nonlocal done
                    done += 1
                    progress(done, "")

                found.append(summary(size, measure(size, peer, names, show)))
            if peer:
                peer.close()
    report = {"command": shlex.join(["python", *sys.argv]), "environment": results.environment(), "sizes": found}
    if _OUT.value:
        results.write_json(_OUT.value, report)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    entry.run(main)
