"""Strict settings for every test: shapes, dtypes and keys that only happen to work are errors; 8 virtual CPU devices.

Compiling is most of the suite's time, so programs are compiled with few optimisations; JAX_DISABLE_MOST_OPTIMIZATIONS=0 compiles them as
users do.
"""

import os

# All before jax is imported, which reads them once. Launchers that tests start inherit them, but for the devices.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(os.path.dirname(__file__), "..", ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import matplotlib  # noqa: F401  (its first import warns under 'error' filters when it happens inside a test)
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_debug_nans", True)

STARTS_LAUNCHERS = ("test_processes.py", "test_notebooks.py")


def pytest_collection_modifyitems(items):
    """Files whose tests start launchers come first: they last minutes, for which at the end one worker would wait for the other."""
    items.sort(key=lambda item: item.path.parent.name != "launch" and item.path.name not in STARTS_LAUNCHERS)


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Forgets a file's programs after it: with thousands in memory, compiling each takes a third longer."""
    yield
    jax.clear_caches()
