"""Robust accuracy beside the official attacks on both stored networks, as numbers in results/autoattack_goldens.json.

    python -m tests.goldens.comparison --out=results/autoattack_goldens.json

What the file has is kept, so the command goes on where it was stopped. Each stage of AutoAttack runs alone on all images that are
right to begin with; PGD-20 and CW-20 start at random. tests/goldens/test_comparison.py holds the bounds against the file and
against 64 images measured anew.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.attacks import pgd
from robustjax.attacks.autoattack import autoattack
from robustjax.core import ThreatModel, example_keys
from robustjax.io import results
from robustjax.metrics import correct
from tests.goldens import reference, reference_networks

IMAGES, SEEDS = 256, 3
EPS = {"cifar": {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}, "digits": {"linf": 0.1, "l2": 0.5, "l1": 1.0}}
STAGES = ("apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square")
# network, norm, name here, objective, step size, the official runs
PGD = [
    ("cifar", "linf", "pgd20", "ce", 2 / 255, ("torchattacks_pgd20_linf_rs", "foolbox_pgd20_linf_rs")),
    ("cifar", "linf", "cw20", "cw", 2 / 255, ("own_cw20_linf_rs",)),
    ("cifar", "l2", "pgd20", "ce", 15 / 255, ("torchattacks_pgd20_l2_a15over255_rs", "foolbox_pgd20_l2_a15over255_rs")),
    ("cifar", "l2", "pgd20_1over800", "ce", 1 / 800, ("torchattacks_pgd20_l2_a1over800_rs", "foolbox_pgd20_l2_a1over800_rs")),
    ("digits", "linf", "pgd20", "ce", 0.02, ("torchattacks_pgd20_linf_rs", "foolbox_pgd20_linf_rs")),
    ("digits", "linf", "cw20", "cw", 0.02, ("own_cw20_linf_rs",)),
    ("digits", "l2", "pgd20", "ce", 0.1, ("torchattacks_pgd20_l2_a0.1_rs", "foolbox_pgd20_l2_a0.1_rs")),
]
# How much weaker than the official runs an attack may be: by itself than their mean, AutoAttack than the weakest of them.
ALONE = {"cifar": 0.01, "digits": 0.03}
CASCADE = {"cifar": 1 / 256, "digits": 7 / 256}  # one example; the spread of the official seeds on digits


class Case(NamedTuple):
    """One attack on one network."""

    data: str
    norm: str
    attack: str
    objective: str | None  # of PGD
    step_size: float | None
    official: tuple[str, ...]  # runs in robust_flags.npz


def cases() -> list[Case]:
    """Returns everything that is compared, cheap attacks first."""
    found = [Case(*run) for run in PGD]
    official = {"linf": "Linf", "l2": "L2", "l1": "L1"}
    for attack in (*STAGES, "standard"):
        for data in ("digits", "cifar"):
            found += [Case(data, norm, attack, None, None, (f"AA_{official[norm]}_{attack}",)) for norm in EPS[data]]
    return found


def setting(data: str, n: int) -> tuple[jax.tree_util.Partial, np.ndarray, np.ndarray]:
    """Returns the network, the first n images and their labels."""
    logits_fn = reference_networks.logits_fn(reference.load(f"attacks/{data}_cnn_params.npz"))
    stored = reference.load(f"attacks/{data}_images.npz")
    images = stored["x"] if data == "digits" else stored["x_uint8"].astype(np.float32) / np.float32(255)
    return logits_fn, images[:n], stored["y"][:n].astype(np.int32)


def official_flags(case: Case, n: int) -> np.ndarray:
    """Returns which of the first n images the official runs left robust, (seeds, n); no rows where none was stored."""
    flags = reference.load(f"attacks/{'digits' if case.data == 'digits' else 'robust'}_flags.npz")
    names = [
        name for name in flags.files if name.endswith("/robust") and name.split("/")[:2] in [[case.data, run] for run in case.official]
    ]
    return np.array([flags[name][:n] for name in names], bool).reshape(-1, n)


def attacked(case: Case, seed: int, n: int) -> np.ndarray:
    """Returns which of the first n images our attack leaves robust."""
    logits_fn, images, labels = setting(case.data, n)
    threat = ThreatModel(case.norm, EPS[case.data][case.norm])
    keys = example_keys(jax.random.key(seed), jnp.arange(n))
    if case.objective is not None:
        x = pgd(keys, logits_fn, images, labels, threat, steps=20, step_size=case.step_size, objective=case.objective)
        return np.asarray(correct(logits_fn(jnp.asarray(images)), labels) & correct(logits_fn(x), labels))
    which = {"version": "standard"} if case.attack == "standard" else {"version": "custom", "attacks": [case.attack]}
    return autoattack(keys, logits_fn, images, labels, threat, devices=jax.devices()[:1], **which).robust


def bound(case: Case, official: np.ndarray) -> float:
    """Returns the largest robust accuracy that still counts as an attack as strong as the official one."""
    seeds = official.mean(1)
    return max(seeds) + CASCADE[case.data] if case.attack == "standard" else statistics.fmean(seeds) + ALONE[case.data]


def compared(case: Case, seed: int, n: int) -> dict:
    """Measures one seed and puts it beside the official runs, if there are any."""
    official = official_flags(case, n)
    began = time.perf_counter()
    robust = attacked(case, seed, n)
    entry = {
        "robust_accuracy": float(robust.mean()),
        "n": n,
        "seconds": time.perf_counter() - began,
        "robust": "".join(map(str, robust.astype(int))),
    }
    if len(official):
        entry |= {
            "official_mean": float(official.mean()),
            "official_range": [float(official.mean(1).min()), float(official.mean(1).max())],
            "official_seeds": len(official),
            "bound": bound(case, official),
            "images_alike": float((official == robust).mean()),  # mean over the official seeds
        }
    return entry


def missing(entries: dict, seeds: int) -> Iterator[tuple[str, Case, int]]:
    """Yields (name, case, seed) of what the file does not have."""
    for seed in range(seeds):
        for case in cases():
            name = f"{case.data}/{case.norm}/{case.attack}/seed{seed}"
            if name not in entries:
                yield name, case, seed


def weaker(entries: dict) -> dict[str, tuple[float, float]]:
    """Returns (robust accuracy, bound) of attacks that are weaker than the official ones allow: seeds of a stage by their mean."""
    by_case: dict[str, list[dict]] = {}
    for name, entry in entries.items():
        if "bound" in entry:
            case = name.rpartition("/")[0]
            by_case.setdefault(name if case.endswith("standard") else case, []).append(entry)
    means = {name: (statistics.fmean(e["robust_accuracy"] for e in alike), alike[0]["bound"]) for name, alike in by_case.items()}
    return {name: pair for name, pair in means.items() if pair[0] > pair[1] + 1e-9}


def main() -> None:
    """Measures what is missing and writes the file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="results/autoattack_goldens.json")
    parser.add_argument("--only", default="", help="measure only what has this in its name, e.g. digits/linf")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    asked = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[2] / ".jax_cache"))
    stored = results.read_json(asked.out) or {"command": "python -m tests.goldens.comparison", "entries": {}}
    for name, case, seed in missing(stored["entries"], asked.seeds):
        if asked.only in name:
            entry = compared(case, seed, IMAGES)
            seconds = entry.pop("seconds")  # to be watched, no measurement of speed
            stored["entries"][name] = entry
            results.write_json(asked.out, stored | {"environment": results.environment()})
            beside = f"official {entry['official_mean']:.4f}, bound {entry['bound']:.4f}, " if "bound" in entry else ""
            print(f"{name}: {entry['robust_accuracy']:.4f}, {beside}{seconds:.1f} s", flush=True)
    found = weaker(stored["entries"])
    for name, (ours, most) in found.items():
        print(f"weaker than the official attack: {name}: {ours:.4f} > {most:.4f}", file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
