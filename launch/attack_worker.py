"""What the workers of benchmark_attacks.py share: the network that is attacked and how a worker answers.

Runs in the peers' environment too, so it imports nothing of ours.
"""

import json
import resource
import sys
import time

import numpy as np

EPS, STEP, STEPS = 8 / 255, 2 / 255, 20  # PGD-20; the stages of AutoAttack choose their own steps
FAB_TARGETS, APGD_STEPS, FAB_STEPS, QUERIES = 9, 100, 100, 5000  # AutoAttack's standard version


def jax_network(params: dict, images):
    """Returns logits (b, k) of 3x3 convolutions with ReLU and 2x2 average pooling, then dense layers with ReLU between them."""
    import jax

    x = images
    for i in range(1, 1 + sum(name.endswith("kernel_HWIO") for name in params)):
        dims = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, params[f"conv{i}_kernel_HWIO"], (1, 1), "SAME", dimension_numbers=dims)
        x = jax.nn.relu(x + params[f"conv{i}_bias"][None, None, None])
        x = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
    x = x.reshape(x.shape[0], -1)
    layers = sum(name.endswith("kernel_IO") for name in params)
    for i in range(1, 1 + layers):
        x = x @ params[f"dense{i}_kernel_IO"] + params[f"dense{i}_bias"][None]
        x = jax.nn.relu(x) if i < layers else x
    return x


def load(path: str) -> tuple[dict, np.ndarray, np.ndarray]:
    """Returns the network's arrays, images (n, h, w, c) in [0, 1] and labels (n,)."""
    stored = np.load(path)
    params = {name: stored[name] for name in sorted(stored.files) if name not in ("images", "labels")}
    return params, stored["images"], stored["labels"]


def peak_megabytes() -> float:
    """Returns the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def serve(run, predict, device_megabytes, images: np.ndarray, labels: np.ndarray, batch: int, about: dict) -> None:
    """Answers each line of the input, a seed, with one line of JSON about an attack on all images.

    Args:
        run: (seed, images, labels) -> adversarial images (b, h, w, c) on the host.
        predict: images -> classes; called once before the first attack.
        device_megabytes: () -> peak memory of the accelerator, None on a CPU.
        images: (n, h, w, c) in [0, 1].
        labels: (n,).
        batch: images at once.
        about: versions and hardware, for the line that says that the worker is ready.
    """
    right = predict(images) == labels
    about |= {"clean_accuracy": float(right.mean()), "loaded_megabytes": peak_megabytes()}
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        began, used = time.perf_counter(), time.process_time()
        parts = [run(int(line), images[i : i + batch], labels[i : i + batch]) for i in range(0, len(images), batch)]
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - used
        adversarial = np.concatenate(parts)
        answer = {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "robust_accuracy": float((right & (predict(adversarial) == labels)).mean()),
            "largest_norm": float(np.abs(adversarial - images).max()),
            "peak_megabytes": peak_megabytes(),
            "peak_device_megabytes": device_megabytes(),
        }
        print(json.dumps(answer), flush=True)
