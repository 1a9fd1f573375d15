"""Types, randomness, guarded numerics, loops, devices and checks that everything else stands on."""

from robustjax.core.check import InputError
from robustjax.core.rng import example_keys
from robustjax.core.types import AttackResult, Batch, LogitsFn, Perturbed, ThreatModel

__all__ = ["AttackResult", "Batch", "InputError", "LogitsFn", "Perturbed", "ThreatModel", "example_keys"]
