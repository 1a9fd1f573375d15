"""Importing is light and does nothing: heavy packages are loaded where they are used."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ["orbax", "tensorflow_datasets", "grain", "sklearn", "matplotlib", "optuna", "scipy.stats", "chex", "tensorflow", "PIL", "pandas"]
NETWORKS = ["flax", "optax"]


def loaded(statement: str, names: list[str]) -> list[str]:
    """Returns which of the modules `names` a fresh Python has loaded after the statement."""
    code = f"import json, sys\n{statement}\nprint(json.dumps([n for n in {names!r} if n in sys.modules]))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("statement", "names"),
    [
        ("import robustjax", [*HEAVY, *NETWORKS, "jax"]),
        ("from robustjax import augment, attacks, corruptions, losses, metrics", [*HEAVY, *NETWORKS]),
        ("from robustjax import augment, attacks, corruptions, losses, metrics, models, data", HEAVY),
    ],
    ids=["robustjax", "kernels", "kernels, models and data"],
)
def test_import_is_light(statement, names):
    # Kills: a heavy import at the top of any module that these load; an __init__ that loads the subpackages.
    assert loaded(statement, names) == []


def test_what_is_looked_for_can_be_seen():
    # Kills: a misspelt name, which would never be found.
    assert loaded("import sklearn, scipy.stats, flax.nnx, jax", ["sklearn", "scipy.stats", "flax", "jax"]) == [
        "sklearn",
        "scipy.stats",
        "flax",
        "jax",
    ]


def test_import_starts_no_device_and_changes_no_setting():
    # Kills: an array made or a jax setting changed while importing.
    statement = """
import jax
before = dict(jax.config.values)
from robustjax import augment, attacks, corruptions, losses, metrics, models, data, core
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized(), "a device was started"
changed = [k for k, v in jax.config.values.items() if before.get(k, v) != v]
assert not changed, changed
"""
    assert loaded(statement, []) == []
