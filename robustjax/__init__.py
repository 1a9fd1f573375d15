"""robustjax: robust image-classifier training by perturbation, and the measurement of robustness, in JAX and Flax.

Subpackages are loaded when first used, so `import robustjax` stays light:

    from robustjax import attacks, augment, corruptions, losses, metrics, theory    # pure kernels on arrays
    from robustjax import data, models, train, evaluate                             # what the launchers are made of

The law of the library: images are float (b, h, w, c) in [0, 1], and mean and standard deviation live inside the model.
"""

import importlib

__version__ = "0.2.0"

_SUBPACKAGES = (
    "attacks",
    "augment",
    "core",
    "corruptions",
    "data",
    "evaluate",
    "imaging",
    "io",
    "losses",
    "metrics",
    "models",
    "theory",
    "train",
)


def __getattr__(name: str):
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBPACKAGES])
