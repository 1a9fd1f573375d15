"""Measures what augmentations cost: a training step beside one with crop and flip alone, and AugMix beside Pillow.

python launch/benchmark_augment.py --out=results/benchmark_augment_cpu.json

Every augmentation takes turns with the plain step (A B A B ...), the plain one too, whose ratio shows how far to trust the others.
SPIDER on top of an augmentation takes turns with that augmentation as well, and AugMix with its consistency loss, which trains on three
views of a batch, with the plain step on three times the batch: a network's time for an image grows with the batch on CPUs. AugMix on
its own takes turns with Pillow's, in one process.
"""

import shlex
import sys
import tempfile
import time
from pathlib import Path

import peer_augmix
import timing

import entry  # isort: skip
from absl import flags

_OUT = flags.DEFINE_string("out", "", "File for the numbers; default: print only.")
_PAIRS = flags.DEFINE_integer("pairs", 7, "How often each pair is measured.", lower_bound=3)
_STEPS = flags.DEFINE_integer("steps", 3, "Dispatches in one measurement.", lower_bound=1)
_NAMES = flags.DEFINE_list("names", [], "Steps to measure beside the plain one, of STEPS; default: all.")
_IMAGES = flags.DEFINE_integer("images", 512, "Images of AugMix beside Pillow.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 128, "Images in a batch.", lower_bound=1)
_NETWORK = flags.DEFINE_enum("network", "", ["", "narrow", "wrn"], "narrow: WRN-16-1; wrn: WRN-40-2; default: narrow on a CPU.")
NETWORKS = {"narrow": {"depth": 16, "width": 1}, "wrn": {"depth": 40, "width": 2}}
SPIDER = {"name": "spider", "tau": 8.0, "xi": 0.4}
BASES = {"augmix_jsd": "plain_three", "spider": "plain"}  # and that of X+spider is X
# {name: (stages after crop and flip, method, objective)}; 'deepaugment' comes before them.
STEPS = {
    "plain": ((), {"name": "none"}, "classification"),
    "plain_three": ((), {"name": "none"}, "classification"),  # on three times the batch
    "augmix_jsd": (("augmix",), {"name": "none"}, "augmix_jsd"),
    "augmix": (("augmix",), {"name": "none"}, "classification"),
    "pixmix": (("pixmix",), {"name": "none"}, "classification"),
    "deepaugment": (("deepaugment",), {"name": "none"}, "classification"),
    "cutout": (("cutout",), {"name": "none"}, "classification"),
    "mixup": ((), {"name": "mixup", "alpha": 1.0}, "classification"),
    "cutmix": ((), {"name": "cutmix", "alpha": 1.0}, "classification"),
    "esp": ((), {"name": "esp", "epsilon": 4.0, "tau": 4.0, "xi": 0.4}, "classification"),
    "spider": ((), SPIDER, "classification"),
    "augmix_jsd+spider": (("augmix",), SPIDER, "augmix_jsd"),
    "augmix+spider": (("augmix",), SPIDER, "classification"),
    "pixmix+spider": (("pixmix",), SPIDER, "classification"),
}


def experiment(name: str, network: dict, batch: int):
    """Returns what a step of STEPS trains: made-up images of 32x32 pixels; DeepAugment's networks are untrained, which costs the same."""
    import jax

    from configs import common
    from robustjax.data import copies
    from robustjax.io import results
    from robustjax.models import image_to_image
    from robustjax.train import build, networks

    stages, method, objective = STEPS[name]
    config = common.base().to_dict()
    config["data"] |= {"name": "fake", "options": {"size": 32, "channels": 3, "train": 4 * batch, "test": 8}}
    config |= {"augment": ("crop_flip", *stages), "method": method, "objective": {"name": objective}}
    config |= {"model": {"name": "wide_resnet", "options": network}, "batch_size": batch, "epochs": 10_000}
    if "cutout" in stages:
        config["augment_options"] = {"cutout": {"size": 16}}
    with tempfile.TemporaryDirectory() as folder:
        if "deepaugment" in stages:
            config |= {"augment": (*stages, "crop_flip"), "augment_options": {"deepaugment": {"folder": folder}}}
            about = {"networks": image_to_image.NAMES, "width": 32, "provenance": "no data"}
            results.write_json(Path(folder) / copies.MANIFEST, about)
            for number, kind in enumerate(image_to_image.NAMES):
                made = image_to_image.make(kind, jax.random.key(number), channels=3, width=32)
                networks.save(Path(folder) / f"{kind}.npz", made, 0.0)
        return build.build(config)


class Step:
    """One compiled training step; called, it takes a few and waits for them."""

    def __init__(self, name: str, network: dict):
        from robustjax.core import parallel
        from robustjax.train import build, feed

        batch = _BATCH.value * (3 if name == "plain_three" else 1)
        built = experiment(name, network, batch)
        mesh = parallel.data_mesh()
        self._state = parallel.replicate(build.initial_state(built), mesh)
        self._steps = feed.Resident(built, mesh, feed.place(built, mesh))
        self._dispatches = self._steps.dispatches(0, 10**9)
        self.images = _STEPS.value * batch * self._steps.chunk
        began = time.perf_counter()
        self()
        self.first_seconds = time.perf_counter() - began
        self()

    def __call__(self) -> None:
        import jax

        for _ in range(_STEPS.value):
            self._state, _marker = self._steps(self._state, next(self._dispatches)[1])
        jax.block_until_ready(self._state)


def steps(network: dict) -> list[dict]:
    """Returns what each step takes, beside the plain one and beside its base."""
    import jax

    from robustjax.core import registry

    for name in _NAMES.value:
        if name not in STEPS:
            raise registry.unknown("step", name, STEPS)
    made, rows = {"plain": Step("plain", network)}, []
    for name in _NAMES.value or STEPS:
        made[name] = made.get(name) or Step(name, network)
        found = timing.paired(made["plain"], made[name], _PAIRS.value)
        row = {
            "name": name,
            "images_per_second": made[name].images / found["seconds"][1],
            "times_plain": found["ratio_median"],
            "times_plain_range": found["ratio_range"],
            "first_call_seconds": made[name].first_seconds,
        }
        base = name.removesuffix("+spider") if name.endswith("+spider") else BASES.get(name, "")
        if base in made:
            over = timing.paired(made[base], made[name], _PAIRS.value)
            row |= {"over": base, "times_base": over["ratio_median"], "times_base_range": over["ratio_range"]}
        rows.append(row)
        print(f"{name}: {row['times_plain']:.3f} times plain on {jax.default_backend()}", file=sys.stderr, flush=True)
    return rows


def beside_pillow(count: int) -> dict:
    """Returns images/s of AugMix here, on the CPU, and with Pillow in the same process; both from uint8 to floats of NumPy.

    Ours takes all cores that the process may use, Pillow one: the time of the processor stands beside that of the clock.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from robustjax import augment
    from robustjax.core import example_keys

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    pixels = coarse.repeat(4, axis=1).repeat(4, axis=2)
    with jax.default_device(jax.devices("cpu")[0]):
        keys = example_keys(jax.random.key(0), jnp.arange(count))
        ours = jax.jit(augment.augmix)

        def here():
            return np.asarray(ours(keys, jnp.asarray(pixels, jnp.float32) / 255))

        def peer():
            return np.stack([peer_augmix.augmix(image, rng) for image in pixels])

        here()
        found = timing.paired(here, peer, _PAIRS.value)
        processor = [taken[0].processor for taken in timing.turns((here, peer), 1)]
    return {
        "images": list(pixels.shape),
        "processor_seconds": {"robustjax": processor[0], "pillow": processor[1]},
        "processor_times_less": processor[1] / processor[0],
        "images_per_second": {"robustjax": count / found["seconds"][0], "pillow": count / found["seconds"][1]},
        "times_faster": found["ratio_median"],
        "times_faster_range": found["ratio_range"],
    }


def main() -> None:
    """Measures, prints and writes the numbers."""
    import json

    import jax

    from robustjax.io import results

    network = _NETWORK.value or ("narrow" if jax.default_backend() == "cpu" else "wrn")
    report = {
        "command": shlex.join(["python", "launch/benchmark_augment.py", *sys.argv[1:]]),
        "environment": results.environment(),
        "model": {"name": "wide_resnet", "options": NETWORKS[network]},
        "batch": _BATCH.value,
        "steps": steps(NETWORKS[network]),
        "augmix_beside_pillow": beside_pillow(_IMAGES.value),
    }
    if _OUT.value:
        results.write_json(_OUT.value, report)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    entry.run(main)
