"""Builds the trained network again, from its checkpoint alone."""

import functools
import json
from pathlib import Path
from typing import NamedTuple

import jax

from robustjax import data, models
from robustjax.core.check import InputError
from robustjax.io import log, results
from robustjax.io.checkpoint import Checkpoints, DamagedCheckpoint


class Loaded(NamedTuple):
    """A trained network and what is known of it."""

    logits_fn: jax.tree_util.Partial
    step: int
    meta: dict  # config, model, data, validation, notes: see train.loop


def load(workdir: str | Path, *, checkpoint: str | int = "best") -> Loaded:
    """Reads a checkpoint of `workdir` and rebuilds the network in evaluation mode.

    Args:
        workdir: the run's folder.
        checkpoint: 'best' (by validation accuracy), 'last', or a step.

    Raises:
        InputError: if there is no checkpoint, or not that one.

    A damaged checkpoint is passed over for the one before, with a warning; one that training deletes meanwhile is looked up again.
    """
    checkpoints = Checkpoints(workdir, read_only=True)
    for _ in range(3):
        candidates = _candidates(checkpoints, checkpoint)
        for step in candidates:
            try:
                state, meta = checkpoints.restore(step)
            except DamagedCheckpoint as error:
                if step not in checkpoints.steps():
                    break  # deleted by a training run that has gone on: look again
                log.say(f"warning: {error} Trying another.")
                continue
            weights = state["ema"] or {"params": state["params"], "batch_stats": state["batch_stats"]}
            apply = _network(json.dumps(meta["model"], sort_keys=True))
            # Orbax gives an empty dict back as None.
            meta = {**meta, "config": results.completed(meta["config"])}
            return Loaded(models.logits_fn(apply, weights["params"], weights["batch_stats"] or {}), step, meta)
        else:
            break
    which = "none of the checkpoints" if checkpoint in ("best", "last") else f"not even checkpoint {checkpoint}"
    raise InputError(
        f"{which} in {checkpoints.folder} can be read; try another --checkpoint, train again, or restore a copy of that folder."
    )


@functools.lru_cache(maxsize=8)
def _network(model: str) -> models.Apply:
    """Returns a network without its arrays, one and the same for every run that has it, so that they share compiled programs."""
    return models.split(models.make(**json.loads(model)))[0]


def apply_of(loaded: Loaded) -> models.Apply:
    """Returns the network without its arrays, for what its logits do not show: features, and outputs of blocks.

    It takes the arrays of `loaded.logits_fn.args`, (params, batch_stats).
    """
    return _network(json.dumps(loaded.meta["model"], sort_keys=True))


def load_surrogate(workdir: str | Path, meta: dict) -> Loaded:
    """Reads the best checkpoint of a run whose network attacks are made on, to try them on another run's.

    Args:
        workdir: the surrogate's folder.
        meta: of the checkpoint that the attacks are tried on.

    Raises:
        InputError: if there is none, or it was trained for other images or classes.
    """
    found = load(workdir)
    theirs, ours = ((_data_of(each), each["model"]["num_classes"], tuple(each["model"]["image_shape"])) for each in (found.meta, meta))
    if theirs != ours:
        raise InputError(
            f"the surrogate {workdir} was trained on {theirs[0]}, {theirs[1]} classes of images {theirs[2]}, the network to attack on "
            f"{ours[0]}, {ours[1]} classes of {ours[2]}; attacks transfer between runs on the same data only."
        )
    return found


def _data_of(meta: dict) -> str:
    """Returns the name of the data of a run, with their options."""
    wanted = meta["config"]["data"]
    options = ", ".join(f"{name} {value}" for name, value in sorted(wanted["options"].items()))
    return wanted["name"] + (f" ({options})" if options else "")


def _candidates(checkpoints: Checkpoints, wanted: str | int) -> list[int]:
    best, _ = checkpoints.best()  # refuses an empty folder
    steps = checkpoints.steps()
    if wanted == "best":
        return [best, *(s for s in reversed(steps) if s != best)]
    if wanted == "last":
        return list(reversed(steps))
    if str(wanted).isdigit() and int(wanted) in steps:
        return [int(wanted)]
    raise InputError(f"checkpoint must be 'best', 'last' or one of the steps {steps}, got {wanted!r}.")


def evaluation_data(meta: dict, *, dir: str = "") -> data.Dataset:
    """Returns the data that a run was trained on, for its test split.

    Args:
        meta: of the checkpoint.
        dir: where the data lie now, if not where they lay in training.

    Raises:
        InputError: if the data are absent, or do not fit the network.
    """
    wanted = meta["config"]["data"]
    dataset = data.make(wanted["name"], dir=dir or wanted["dir"], **wanted["options"])
    model = meta["model"]
    expected = (model["num_classes"], tuple(model["image_shape"]))
    if expected != (dataset.num_classes, tuple(dataset.image_shape)):
        raise InputError(
            f"{dataset.name} has {dataset.num_classes} classes of images {tuple(dataset.image_shape)}, "
            f"the network was trained for {expected[0]} classes of {expected[1]}."
        )
    return dataset
