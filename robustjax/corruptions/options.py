"""What benchmarks and options ask of images, looked at before anything is computed: by training, and again by evaluation."""

import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from robustjax.core import example_keys
from robustjax.core.check import InputError
from robustjax.core.registry import unknown
from robustjax.corruptions.constants import CONSTANTS
from robustjax.corruptions.registry import NAMES, corrupt

Shape = tuple[int, int, int]


def check_options(options: Mapping[str, Any], shape: Shape) -> None:
    """Refuses options that a corruption does not take, or images that it cannot be computed for; traces it and computes nothing.

    Args:
        options: of `corrupt`: name, benchmark, ...
        shape: (h, w, c) of the images.

    Raises:
        InputError: in one line.
    """

    def trial():
        return corrupt(example_keys(jax.random.key(0), jnp.arange(1)), jnp.zeros((1, *shape)), **options)

    with warnings.catch_warnings():
        # That another benchmark was made for a nearer size is said where images are made.
        warnings.filterwarnings("ignore", "the constants of .* were made for")
        jax.eval_shape(trial)


def check_benchmark(benchmark: str, shape: Shape) -> None:
    """Refuses a benchmark that cannot be measured as a whole, or not on images of `shape`; computes nothing.

    Raises:
        InputError: in one line.
    """
    if benchmark not in NAMES:
        raise unknown("benchmark", benchmark, NAMES)
    if benchmark == "sensor":
        raise InputError(
            "'sensor' has no strengths of its own and cannot be config.evaluation.benchmark; "
            "write them in config.evaluation.sensor and measure --suite=sensor."
        )
    # One of them will do: what the others want of images is the same.
    name = NAMES[benchmark][0]
    severities = len(CONSTANTS[benchmark.removesuffix("_extra")][name])
    check_options({"benchmark": benchmark, "name": name, "severity": 1 if severities > 1 else None}, shape)


def corruptible(shape: Shape) -> bool:
    """Returns whether there is a benchmark for images of `shape`: tiny ones, or those of two channels, have none."""
    try:
        check_benchmark("cifar_c", shape)  # no other takes images that it does not take
    except InputError:
        return False
    return True
