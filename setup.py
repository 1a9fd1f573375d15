"""Packaging of robustjax: `pip install .`, with extras for accelerators, search, notebooks and tests."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (ROOT / "robustjax" / "__init__.py").read_text()).group(1)

setup(
    name="robustjax",
    version=VERSION,
    description="Robust image-classifier training by perturbation, and the measurement of robustness, in JAX and Flax",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["robustjax", "robustjax.*"]),
    package_data={"robustjax": ["reference/*.json"]},
    install_requires=[
        "jax>=0.10",
        "flax>=0.12",
        "optax>=0.2.8",
        "chex>=0.1.92",
        "orbax-checkpoint>=0.12",
        "ml-collections>=1.0",
        "absl-py>=2.0",
        "tensorflow-datasets>=4.9.10",
        "grain>=0.2.18",
        "scikit-learn>=1.5",
        "pillow>=10",
        "matplotlib>=3.8",
        "rich>=13",
        "jaxtyping>=0.3.11",
    ],
    extras_require={
        "cuda": ["jax[cuda13]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
        "tune": ["optuna>=4.0"],
        "notebooks": ["jupyter", "jupytext", "nbclient", "ipykernel"],
        # importlib_resources: tensorflow-datasets 4.9.10 needs it to write data sets, and does not ask for it.
        "test": [
            *("pytest>=8", "pytest-xdist>=3.6", "pytest-timeout>=2.3", "beartype>=0.22", "ruff>=0.6"),
            *("importlib_resources", "optuna>=4.0", "jupytext>=1.16", "nbformat>=5.10"),
        ],
    },
)
