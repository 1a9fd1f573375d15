"""Weights to begin with that another run has trained."""

from pathlib import Path

import jax
import jax.numpy as jnp

from robustjax.core.check import InputError
from robustjax.io.checkpoint import Checkpoints


def load(workdir: str | Path, params: dict, batch_stats: dict) -> tuple[dict, dict]:
    """Reads the best checkpoint of a finished run: its averaged weights where it has such.

    Args:
        workdir: the other run's folder.
        params: of the network to begin with, for their names and shapes.
        batch_stats: likewise.

    Returns:
        (params, batch_stats).

    Raises:
        InputError: if there is no checkpoint, or it holds another network.
    """
    checkpoints = Checkpoints(workdir, read_only=True)
    state, _ = checkpoints.restore(checkpoints.best()[0])
    found = state["ema"] or {"params": state["params"], "batch_stats": state["batch_stats"]}
    wanted = {"params": params, "batch_stats": batch_stats}
    for kind, arrays in wanted.items():
        stored = found[kind] or {}
        wrong = sorted(n for n in arrays.keys() | stored.keys() if n not in stored or n not in arrays or arrays[n].shape != stored[n].shape)
        if wrong:
            raise InputError(
                f"config.init = {str(workdir)!r} holds another network than config.model: {len(wrong)} {kind} differ, first {wrong[0]!r}; "
                "give both the same model and data."
            )
    return tuple(jax.tree.map(jnp.asarray, {name: found[kind][name] for name in arrays}) for kind, arrays in wanted.items())
