"""Where reference data lies: the slice kept in tests/goldens/data, else the full set beside the repository.

`load("losses_metrics/smoothing.npz")` looks in tests/goldens/data first (a stranger's clone has it), then in the folder
that ROBUSTJAX_GOLDENS names (default ../shared/goldens). Where absent the test is skipped with a message, unless
ROBUSTJAX_REQUIRE_GOLDENS=1, which makes it fail: so that continuous integration cannot skip.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent / "data"
FULL = Path(os.environ.get("ROBUSTJAX_GOLDENS") or Path(__file__).parents[2].parent / "shared" / "goldens")


def path(name: str) -> Path:
    """Returns the file `name`, e.g. 'attacks/units.npz'; skips or fails the test where there is none."""
    for root in (HERE, FULL):
        if (root / name).is_file():
            return root / name
    message = f"reference data {name!r} found neither in {HERE} nor in {FULL}; set ROBUSTJAX_GOLDENS to its folder."
    if os.environ.get("ROBUSTJAX_REQUIRE_GOLDENS") == "1":
        pytest.fail(message)
    pytest.skip(message)


def load(name: str):
    """Returns the arrays of an .npz, or the contents of a .json."""
    file = path(name)
    return json.loads(file.read_text()) if file.suffix == ".json" else np.load(file)
