"""A worker of benchmark_attacks.py: runs an attack of another package, in an environment of its own.

    python -m venv peer && peer/bin/pip install torch torchattacks==3.5.1 foolbox==3.3.4 jax

Arguments: the stored arrays, the package ('torchattacks', 'foolbox-torch' or 'foolbox-jax'), the attack, batch size, 'cpu' or 'gpu'.
torchattacks' AutoAttack class takes 10 steps of APGD and FAB; the official one takes 100, and so do its parts as used here.
"""

import platform
import sys
from importlib import metadata

import attack_worker
import numpy as np
from attack_worker import APGD_STEPS, EPS, FAB_STEPS, FAB_TARGETS, QUERIES, STEP, STEPS

PACKAGES = {"torchattacks": ("torchattacks", "torch"), "foolbox-torch": ("foolbox", "torch"), "foolbox-jax": ("foolbox", "jax")}


def torch_network(params: dict, size: int):
    """Returns the stored network as a torch module for images (b, c, h, w)."""
    import torch
    from torch import nn

    layers, rows = [], None
    for name, kernel in params.items():
        bias = params[name.split("_")[0] + "_bias"] if "kernel" in name else None
        if name.endswith("kernel_HWIO"):
            layer = nn.Conv2d(*kernel.shape[2:], 3, padding=1)
            layer.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1).copy())
            layers += [layer, nn.ReLU(), nn.AvgPool2d(2)]
            size, rows = size // 2, kernel.shape[3]
        elif name.endswith("kernel_IO"):
            if name == "dense1_kernel_IO":  # stored for pixels in the order h, w, c
                kernel = kernel.reshape(size, size, rows, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
            layers += [nn.Flatten()] if name == "dense1_kernel_IO" else [nn.ReLU()]
            layer = nn.Linear(*kernel.shape)
            layer.weight.data = torch.tensor(kernel.T.copy())
            layers.append(layer)
        else:
            continue
        layer.bias.data = torch.tensor(bias)
    return nn.Sequential(*layers).eval()


def torchattack(model, name: str, seed: int, classes: int):
    """Returns the attack of torchattacks that makes adversarial images of (images, labels)."""
    import torchattacks

    def stage(name: str):
        common = {"eps": EPS, "norm": "Linf", "seed": seed, "n_restarts": 1}
        if name == "apgd-ce":
            return torchattacks.APGD(model, steps=APGD_STEPS, loss="ce", **common)
        if name == "apgd-t":
            return torchattacks.APGDT(model, steps=APGD_STEPS, n_classes=classes, **common)
        if name == "fab-t":
            assert classes - 1 == FAB_TARGETS
            return torchattacks.FAB(model, steps=FAB_STEPS, multi_targeted=True, n_classes=classes, **common)
        return torchattacks.Square(model, n_queries=QUERIES, p_init=0.8, **common)

    if name == "pgd":
        return torchattacks.PGD(model, eps=EPS, alpha=STEP, steps=STEPS, random_start=True)
    if name == "standard":
        return torchattacks.MultiAttack([stage(part) for part in ("apgd-ce", "apgd-t", "fab-t", "square")])
    return stage(name)


def torch_worker(package: str, name: str, device: str, params: dict, size: int):
    """Returns (run, predict, device_megabytes) of a package on torch."""
    import torch

    device = "cuda" if device == "gpu" else "cpu"
    model = torch_network(params, size).to(device)
    classes = model[-1].out_features

    def to_torch(x: np.ndarray):
        return torch.tensor(x.transpose(0, 3, 1, 2).copy(), device=device)

    def run(seed: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        torch.manual_seed(seed)
        x, y = to_torch(x), torch.tensor(y, dtype=torch.int64, device=device)
        if package == "torchattacks":
            found = torchattack(model, name, seed, classes)(x, y)
        else:
            found = foolbox_pgd()(foolbox_model("PyTorchModel", model, device=device), x, y)
        return found.detach().cpu().numpy().transpose(0, 2, 3, 1)

    def predict(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(to_torch(x)).argmax(1).cpu().numpy()

    return run, predict, lambda: torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None


def jax_worker(params: dict):
    """Returns (run, predict, device_megabytes) of Foolbox on JAX, its network compiled."""
    import jax
    import jax.numpy as jnp
    from eagerpy.tensor import JAXTensor

    params = {name: jnp.asarray(params[name]) for name in params}
    model = jax.jit(lambda x: attack_worker.jax_network(params, x))

    def run(seed: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        JAXTensor.key = jax.random.PRNGKey(seed)
        return np.asarray(foolbox_pgd()(foolbox_model("JAXModel", model), jnp.asarray(x), jnp.asarray(y)))

    def device_megabytes() -> float | None:
        stats = jax.devices()[0].memory_stats()
        return stats["peak_bytes_in_use"] / 2**20 if stats else None

    return run, lambda x: np.asarray(model(x).argmax(-1)), device_megabytes


def foolbox_model(kind: str, model, **options):
    """Returns a network as Foolbox takes it."""
    import foolbox

    return getattr(foolbox.models, kind)(model, bounds=(0, 1), **options)


def foolbox_pgd():
    """Returns PGD-20 of Foolbox: (model, images, labels) -> adversarial images."""
    import foolbox

    attack = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=STEPS, random_start=True)
    return lambda model, x, y: attack.run(model, x, y, epsilon=EPS)


def main() -> None:
    """Answers until the input ends."""
    path, package, name, batch, device = sys.argv[1:]
    params, images, labels = attack_worker.load(path)
    parts = jax_worker(params) if package == "foolbox-jax" else torch_worker(package, name, device, params, images.shape[1])
    about = {"python": platform.python_version()} | {name: metadata.version(name) for name in ("numpy", *PACKAGES[package])}
    attack_worker.serve(*parts, images, labels, int(batch), about)


if __name__ == "__main__":
    main()
