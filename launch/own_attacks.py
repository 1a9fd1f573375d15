"""A worker of benchmark_attacks.py: runs an attack of robustjax. Arguments: the stored arrays, 'robustjax', the attack, batch size."""

import functools
import sys

import attack_worker
import entry  # noqa: F401  (puts the checkout on the path)
import jax
import jax.numpy as jnp
import numpy as np

from robustjax import attacks
from robustjax.core import ThreatModel, example_keys
from robustjax.io import results


def main() -> None:
    """Answers until the input ends."""
    path, _, name, batch = sys.argv[1:]
    params, images, labels = attack_worker.load(path)
    network = jax.tree_util.Partial(attack_worker.jax_network, {name: jnp.asarray(params[name]) for name in params})
    threat = ThreatModel("linf", attack_worker.EPS)
    if name == "pgd":
        attack = functools.partial(attacks.pgd, steps=attack_worker.STEPS, step_size=attack_worker.STEP)
    elif name == "standard":
        attack = functools.partial(attacks.autoattack, version="standard", batch_size=int(batch))
    else:
        attack = functools.partial(attacks.autoattack, version="custom", attacks=[name], batch_size=int(batch))

    def run(seed: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        keys = example_keys(jax.random.key(seed), jnp.arange(len(x)))
        found = attack(keys, network, x, y, threat)
        return np.asarray(found if name == "pgd" else found.images)

    def predict(x: np.ndarray) -> np.ndarray:
        return np.asarray(forward(network, x).argmax(-1))

    def device_megabytes() -> float | None:
        stats = jax.devices()[0].memory_stats()
        return stats["peak_bytes_in_use"] / 2**20 if stats else None

    forward = jax.jit(lambda network, x: network(x))
    jax.config.update("jax_compilation_cache_dir", None)  # compilation is measured too
    attack_worker.serve(run, predict, device_megabytes, images, labels, int(batch), results.environment())


if __name__ == "__main__":
    main()
