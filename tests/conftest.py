"""Strict settings for every test: shapes, dtypes and keys that only happen to work are errors; 8 virtual CPU devices."""

import os

# Before jax is imported: the number of devices is read once.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(os.path.dirname(__file__), "..", ".jax_cache"))
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import matplotlib  # noqa: F401  (its first import warns under 'error' filters when it happens inside a test)

jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_debug_nans", True)
