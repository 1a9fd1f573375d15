"""Measures how fast the host feeds training: JPEGs decoded, cropped and read ahead, beside a plain loop with Pillow.

python launch/benchmark_data.py --out=results/benchmark_data_cpu.json

The JPEGs are made here, with a natural spectrum and of about ImageNet's sizes, and stay in the system's cache. Every stream takes turns with
the loop (A B A B ...), which does the work of training in one thread: read, decode, cut a random part, resize to 224. The fastest round of each
counts, since others may use the cores; the processor's time stands beside that of the clock. Beside them the small sets that live on the
device: their gathering alone.
"""

import os
import shlex
import sys
import tempfile
import time
from pathlib import Path

import timing

import entry  # isort: skip
from absl import flags

_OUT = flags.DEFINE_string("out", "", "File for the numbers; default: print only.")
_IMAGES = flags.DEFINE_integer("images", 200, "JPEGs to make.", lower_bound=32)
_PAIRS = flags.DEFINE_integer("pairs", 15, "How often each pair is measured.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 32, "Images in a batch.", lower_bound=1)
_SIZE = flags.DEFINE_integer("size", 224, "Side of the crops.", lower_bound=1)
THREADS = (1, 2, 4, 8)


def photograph(rng, width: int, height: int):
    """Returns an image of colours whose contrast grows with the size of the pattern, as in photographs."""
    import numpy as np
    from PIL import Image

    total = np.zeros((height, width, 3), np.float32)
    for grain in (1, 2, 4, 16, 64, 200):
        coarse = rng.normal(size=(height // grain + 2, width // grain + 2, 3)).astype(np.float32)
        for channel in range(3):
            total[..., channel] += grain**0.4 * np.asarray(Image.fromarray(coarse[..., channel]).resize((width, height), Image.BICUBIC))
    total = (total - total.min()) / (total.max() - total.min())
    return Image.fromarray((255 * total).astype(np.uint8))


def write(root: Path) -> list[Path]:
    """Writes class folders for training and testing; returns the files for training."""
    import numpy as np

    rng = np.random.default_rng(0)
    for split, count in (("train", _IMAGES.value), ("val", 4)):
        for i in range(count):
            folder = root / split / f"n{i % 2:08d}"
            folder.mkdir(parents=True, exist_ok=True)
            width, height = rng.integers(400, 600), rng.integers(320, 480)
            photograph(rng, int(width), int(height)).save(folder / f"{i:05d}.JPEG", quality=95)
    return sorted((root / "train").rglob("*.JPEG"))


def by_pillow(files: list[Path]):
    """Returns a function that reads, cuts and resizes the files one by one."""
    import numpy as np
    from PIL import Image

    from robustjax.data import crops

    side = _SIZE.value

    def loop() -> None:
        for i, file in enumerate(files):
            image = Image.open(file).convert("RGB")
            part = image.crop(crops.random_box(*image.size, crops.Draw(0, 0, i)))
            np.asarray(part.resize((side, side), Image.Resampling.BILINEAR))

    return loop


def streams(root: Path, files: list[Path]) -> list[dict]:
    """Returns images/s of training and evaluation streams, by threads, beside the loop."""
    import numpy as np

    from robustjax import data

    source = data.make("image_folder", dir=str(root), size=_SIZE.value, crop="random_resized").train
    order = data.TrainOrder(np.arange(len(source)), batch_size=_BATCH.value, seed=0)
    count = order.steps_per_epoch * _BATCH.value
    plain = by_pillow(files[:count])
    rows = []
    for kind in ("train", "evaluate"):
        for threads in THREADS:

            def stream(kind=kind, threads=threads) -> None:
                if kind == "train":
                    batches = data.train_stream(source, order, start_step=0, num_steps=order.steps_per_epoch, threads=threads)
                else:
                    batches = data.eval_stream(source, np.arange(count), _BATCH.value, threads=threads)
                for _ in batches:
                    pass

            ours, theirs = fastest([stream, plain], count)
            ratio = ours["images_per_second"] / theirs["images_per_second"]
            rows.append({"stream": kind, "threads": threads, **ours, "pillow": theirs, "times_pillow": ratio})
            print(
                f"{kind}, {threads} threads: {ours['images_per_second']:.0f} images/s, {ratio:.2f} times Pillow",
                file=sys.stderr,
                flush=True,
            )
    return rows


def fastest(functions: list, count: int) -> list[dict]:
    """Returns images/s and the processor's milliseconds an image of functions for `count` images that take turns, each of its fastest round."""
    return [
        {
            "images_per_second": count / min(one.wall for one in taken),
            "processor_milliseconds": 1e3 * min(one.processor for one in taken) / count,
        }
        for taken in timing.turns(functions, _PAIRS.value)
    ]


def resident(count: int, batch: int = 128, steps: int = 400) -> dict:
    """Returns images/s of gathering batches of 32x32 images that live on the device, as CIFAR's do."""
    import jax
    import jax.numpy as jnp

    from robustjax import data

    source = data.make("fake", size=32, channels=3, train=count, test=8).train
    order = data.TrainOrder(jnp.arange(count), batch_size=batch, seed=0)
    images = jnp.asarray(source.images)
    gather = jax.jit(lambda images, ids: images[ids].astype(jnp.float32) / 255)
    gather(images, order(0)).block_until_ready()
    began = time.perf_counter()
    for step in range(steps):
        gather(images, order(step)).block_until_ready()
    return {"images": [count, 32, 32, 3], "batch": batch, "images_per_second": steps * batch / (time.perf_counter() - began)}


def main() -> None:
    """Measures, prints and writes the numbers."""
    import json
    import statistics

    from robustjax.io import results

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = write(root)
        report = {
            "command": shlex.join(["python", "launch/benchmark_data.py", *sys.argv[1:]]),
            "environment": results.environment(),
            "load_average": os.getloadavg()[0],  # programs that waited for the processor: above its cores, clocks say little
            "jpegs": {"count": len(files), "mean_bytes": round(statistics.mean(file.stat().st_size for file in files))},
            "crop": _SIZE.value,
            "batch": _BATCH.value,
            "streams": streams(root, files),
            "resident": resident(100 * _IMAGES.value),
        }
    if _OUT.value:
        results.write_json(_OUT.value, report)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    entry.run(main)
