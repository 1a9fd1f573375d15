"""Weights to begin with that another run, or torch, has trained."""

from pathlib import Path

import jax
import jax.numpy as jnp

from robustjax.core.check import InputError
from robustjax.io.checkpoint import Checkpoints
from robustjax.models import torch_files, torch_import


def load(source: str | Path, params: dict, batch_stats: dict) -> tuple[dict, dict]:
    """Reads the best checkpoint of a finished run, its averaged weights where it has such; or a file of torch's weights.

    Args:
        source: the other run's folder, or a file as `models.torch_import` reads it. The classifier of a file for another number of
            classes is left at its initial values, that of another run is refused.
        params: of the network to begin with, for their names and shapes.
        batch_stats: likewise.

    Returns:
        (params, batch_stats).

    Raises:
        InputError: if there is no checkpoint or file, or it holds another network.
    """
    if Path(source).suffix in torch_files.SUFFIXES and not Path(source).is_dir():
        return torch_import.fit(source, params, batch_stats, head="fit")
    checkpoints = Checkpoints(source, read_only=True)
    state, _ = checkpoints.restore(checkpoints.best()[0])
    found = state["ema"] or {"params": state["params"], "batch_stats": state["batch_stats"]}
    wanted = {"params": params, "batch_stats": batch_stats}
    for kind, arrays in wanted.items():
        stored = found[kind] or {}
        wrong = sorted(n for n in arrays.keys() | stored.keys() if n not in stored or n not in arrays or arrays[n].shape != stored[n].shape)
        if wrong:
            raise InputError(
                f"config.init = {str(source)!r} holds another network than config.model: {len(wrong)} {kind} differ, first {wrong[0]!r}; "
                "give both the same model and data."
            )
    return tuple(jax.tree.map(jnp.asarray, {name: found[kind][name] for name in arrays}) for kind, arrays in wanted.items())
