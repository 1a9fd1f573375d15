"""Builds the trained network again, from its checkpoint alone; `adopt` makes such a checkpoint of weights that torch has trained."""

import functools
import hashlib
import json
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from robustjax import corruptions, data, models
from robustjax.core.check import InputError
from robustjax.data import digest
from robustjax.io import log, results
from robustjax.io.checkpoint import Checkpoints, DamagedCheckpoint
from robustjax.models.normalize import Constant


class Loaded(NamedTuple):
    """A trained network and what is known of it."""

    logits_fn: jax.tree_util.Partial
    step: int
    meta: dict  # config, model, data, validation, notes: see train.loop
    weights: str  # digest of parameters and statistics: of a run that was trained anew in the same folder it is another


def load(workdir: str | Path, *, checkpoint: str | int = "best") -> Loaded:
    """Reads a checkpoint of `workdir` and rebuilds the network in evaluation mode.

    Args:
        workdir: the run's folder.
        checkpoint: 'best' (by validation accuracy), 'last', or a step.

    Raises:
        InputError: if there is no checkpoint, or not that one.

    A damaged checkpoint is passed over for the one before, with a warning; one that training deletes meanwhile is looked up again. One
    where a signal has stopped the run is never the best, and named where it is the last.
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
            if not checkpoints.is_validated(step):
                log.say(f"warning: checkpoint {step} in {checkpoints.folder} is of where a signal stopped the run, not validated.")
            weights = state["ema"] or {"params": state["params"], "batch_stats": state["batch_stats"]}
            apply = _network(json.dumps(meta["model"], sort_keys=True))
            # Orbax gives an empty dict back as None.
            meta = {**meta, "config": results.completed(meta["config"])}
            logits_fn = models.logits_fn(apply, weights["params"], weights["batch_stats"] or {})
            return Loaded(logits_fn, step, meta, digest.arrays(map(np.asarray, jax.tree.leaves(logits_fn))))
        else:
            break
    kinds = {"best": "none of the validated checkpoints", "last": "none of the checkpoints"}
    which = kinds.get(checkpoint, f"not even checkpoint {checkpoint}")
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


def adopt(weights: str | Path, workdir: str | Path, config: dict, *, mean: Constant, std: Constant) -> None:
    """Makes of `workdir` the folder of a run whose one checkpoint, of step 0, holds torch's weights; then all that measures runs serves.

    The name and digest of the file stand in config.json as `init`, mean and standard deviation among the options of the model, so that
    results of other weights are never taken for these. A folder that holds the same already is left as it is.

    Args:
        weights: a file as `models.torch_import` reads it.
        workdir: a new folder, or one that holds these weights.
        config: every key of a configuration: `data` and `model` say what the network was trained for and is, `evaluation` how it is measured
            (on the benchmark for the size of the images). What concerns training is put to 0.
        mean: taken off the images by the network, in units of [0, 1] pixels; one number, or one a channel.
        std: divides them then.

    Raises:
        InputError: if the weights are not those of such a network, the data are absent, or the folder holds another network.
    """
    weights, workdir = Path(weights), Path(workdir)
    wanted, model = config["data"], config["model"]
    dataset = data.make(wanted["name"], dir=wanted["dir"], **wanted["options"])
    made_for = {"num_classes": dataset.num_classes, "image_shape": list(dataset.image_shape)}
    constants = {name: value if isinstance(value, float | int) else list(value) for name, value in (("mean", mean), ("std", std))}
    description = {"name": model["name"], **made_for, **constants}
    reserved = sorted({"seed", "dtype", "remat", *description} & set(model["options"]))
    if reserved:
        raise InputError(
            f"{reserved[0]!r} is no option of the model here: classes and sizes follow from the data, mean and std are given apart."
        )
    description |= model["options"]
    try:
        network = models.make(**description)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the model {model['name']!r} cannot be built with {model['options']}: {' '.join(str(error).split())}.") from error
    params, batch_stats = models.torch_import.load(weights, network)
    source = f"{weights.name} (sha256 {hashlib.sha256(weights.read_bytes()).hexdigest()[:16]})"
    adopted = {"seed": 0, "epochs": 0, "batch_size": 0, "init": source, "method": {"name": weights.name.partition(".")[0]}}
    adopted["model"] = {"name": model["name"], "options": {**model["options"], **constants}}
    adopted["evaluation"] = {**config["evaluation"], "benchmark": corruptions.nearest("c", *dataset.image_shape[:2])}
    config = results.canonical({**config, **adopted})
    if _holds(workdir, config):
        return
    note = f"{source} was trained elsewhere"
    about = {"name": dataset.name, "provenance": dataset.provenance, "class_names": list(dataset.class_names)}
    meta = {"config": config, "model": results.canonical(description), "data": about, "validation": {}, "notes": [note]}
    results.write_json(workdir / "config.json", config)
    checkpoints = Checkpoints(workdir)
    try:
        checkpoints.save(0, {"params": params, "batch_stats": batch_stats, "ema": {}}, meta, validation_accuracy=0.0)
        checkpoints.wait()
    finally:
        checkpoints.close()


def _holds(workdir: Path, config: dict) -> bool:
    """Returns whether a folder holds the very network of `config`; refuses one that holds, or is to hold, another."""
    steps = Checkpoints(workdir, read_only=True).steps() if (workdir / "checkpoints").is_dir() else []
    before = results.read_json(workdir / "config.json")

    def network(config: dict) -> list:
        return [config["init"], config["model"], config["data"]["name"], config["data"]["options"]]

    known = isinstance(before, dict)
    if (known or steps) and not (known and network(results.completed(before)) == network(config)):
        raise InputError(f"{workdir} holds another network than {config['init']} with this model and data; choose another --workdir.")
    return bool(steps)


def _data_of(meta: dict) -> str:
    """Returns the name of the data of a run, with their options."""
    wanted = meta["config"]["data"]
    options = ", ".join(f"{name} {value}" for name, value in sorted(wanted["options"].items()))
    return wanted["name"] + (f" ({options})" if options else "")


def _candidates(checkpoints: Checkpoints, wanted: str | int) -> list[int]:
    best, _ = checkpoints.best()  # refuses an empty folder
    steps = checkpoints.steps()
    if wanted == "best":
        return [best, *(s for s in reversed(steps) if s != best and checkpoints.is_validated(s))]
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
    trained_on = meta["data"]
    if trained_on.get("class_names", list(dataset.class_names)) != list(dataset.class_names):
        raise InputError(
            f"the network was trained for the classes {', '.join(trained_on['class_names'])}, the data have "
            f"{', '.join(dataset.class_names)}: their numbers would not mean the same."
        )
    before, after = (digest.named(text) for text in (trained_on["provenance"], dataset.provenance))
    if before and after and before != after:
        warnings.warn(
            f"the network was trained on {trained_on['provenance']}, and is measured on {dataset.provenance}: images of the one's test split "
            "may be among those that it was trained on.",
            stacklevel=2,
        )
    return dataset
