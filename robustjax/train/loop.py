"""The training loop: restore, step, validate, log, save; it can be killed at any moment and started again.

A run lives in its workdir: `config.json` (what was asked), `log.jsonl`, `checkpoints/`, and `training.json` once it is done.
"""

import difflib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from robustjax.core import parallel
from robustjax.core.check import InputError
from robustjax.data import digest
from robustjax.io import log, results
from robustjax.io.checkpoint import Checkpoints, DamagedCheckpoint
from robustjax.train import augmented, feed, guard, pretrained, select, state
from robustjax.train.build import Experiment, build, initial_state


class Summary(NamedTuple):
    """How a run ended; `seconds` are those of the steps, over all its parts."""

    step: int
    best_step: int
    validation_accuracy: float
    seconds: float
    selected_by: str  # what accuracy that is, and the best step's: 'accuracy', or 'accuracy under PGD-20'


def train(config: dict, workdir: str | Path, *, quiet: bool = False, on_validation: Callable[[dict], None] | None = None) -> Summary:
    """Trains what a configuration describes, or goes on where the run in `workdir` stopped.

    Args:
        config: a nested dict with the keys of configs/common.py.
        workdir: the run's own folder; a run of another configuration in it is refused.
        quiet: no progress line.
        on_validation: called with each record of the log, once it is written and the checkpoint is on its way. What it raises ends the
            run, which can be taken up again.

    Returns:
        The best step by validation accuracy (under attack, where the configuration selects so), and that accuracy.

    Raises:
        InputError: for anything a user can mend; nothing that was already computed is lost.
    """
    if jax.process_count() > 1:
        raise InputError(
            f"training over several processes is not supported yet, this is one of {jax.process_count()}; use one process for all devices."
        )
    workdir = Path(workdir)
    with log.lock(workdir):
        experiment = build(config)
        for note in experiment.notes:
            log.say(f"note: {note}")
        checkpoints = Checkpoints(workdir)
        try:
            _claim(workdir, experiment.config, begun=bool(checkpoints.steps()))
            return _run(experiment, workdir, checkpoints, quiet, on_validation)
        finally:
            checkpoints.close()


def _claim(workdir: Path, config: dict, *, begun: bool) -> None:
    """Writes config.json; once there is a checkpoint, compares with the one that is there instead."""
    path = workdir / "config.json"
    before = results.read_json(path) if begun else None
    if before is not None and results.comparable(before) != results.comparable(config):
        old, new = (json.dumps(results.comparable(c), indent=1, sort_keys=True).splitlines() for c in (before, config))
        diff = [line for line in difflib.unified_diff(old, new, lineterm="", n=0) if line[0] in "+-" and line[:3] not in ("+++", "---")]
        changes = ", ".join(line[0] + " ".join(line[1:].split()).rstrip(",") for line in diff)
        raise InputError(f"{workdir} holds a run of another configuration ({changes}); choose another --workdir, or delete that one.")
    if before is None:
        results.write_json(path, config)
        results.write_json(workdir / "environment.json", results.environment())


def _restore(experiment: Experiment, checkpoints: Checkpoints) -> state.TrainState:
    """Returns the newest state that can be read, or the first one; damaged checkpoints are set aside and named.

    Raises:
        InputError: if a whole checkpoint holds another state than this experiment, or is of other data, which nothing here could mend.
    """
    fresh = initial_state(experiment)
    damaged = False
    for at in reversed(checkpoints.steps()):
        try:
            restored, meta = checkpoints.restore(at, like=jax.eval_shape(lambda: fresh._asdict()))
            _check_data(experiment, meta["data"])
            log.say(f"going on from step {at}.")
            return state.TrainState(**restored)
        except DamagedCheckpoint as error:
            log.say(f"warning: {error} It was moved to {checkpoints.set_aside(at)}; trying the one before.")
            damaged = True
    if damaged:
        log.say("warning: none of the checkpoints could be read; training starts anew.")
    if experiment.config["init"]:
        params, batch_stats = pretrained.load(experiment.config["init"], experiment.params, experiment.batch_stats)
        return initial_state(experiment._replace(params=params, batch_stats=batch_stats))
    return fresh


def _check_data(experiment: Experiment, trained_on: dict) -> None:
    """Refuses to go on with other data, whose folder is no part of the configuration: data may move, and must stay what they are."""
    now = _describe(experiment)
    if trained_on.get("class_names", now["class_names"]) != now["class_names"]:
        raise InputError(
            f"the run was begun with the classes {', '.join(trained_on['class_names'])}, the data have {', '.join(now['class_names'])}; "
            f"give the folder of those data with --config.data.dir, or choose another --workdir."
        )
    before, after = (digest.named(" ".join([of["provenance"], *of.get("notes", ())])) for of in (trained_on, now))
    if before and after and before != after:
        raise InputError(
            f"the run was begun with {'; '.join([trained_on['provenance'], *trained_on.get('notes', ())])}, the data are now "
            f"{'; '.join([now['provenance'], *now['notes']])}: files were added, removed or changed; choose another --workdir."
        )


def _run(
    experiment: Experiment, workdir: Path, checkpoints: Checkpoints, quiet: bool, on_validation: Callable[[dict], None] | None
) -> Summary:
    config = experiment.config
    mesh = parallel.data_mesh()
    current = parallel.replicate(_restore(experiment, checkpoints), mesh)
    done = int(current.step)
    data = feed.place(experiment, mesh)
    # A finished run has nothing to validate, and corrupting the validation images takes its time.
    validate = select.make_validator(experiment, mesh, data, quiet=quiet) if done < experiment.total_steps else None
    steps = (feed.Resident if data else feed.Streamed)(experiment, mesh, data)
    interval = config["validate_epochs"] * experiment.order.steps_per_epoch
    meta = {"config": config, "model": experiment.model, "data": _describe(experiment), "notes": list(experiment.notes)}
    with (
        log.JsonLines(workdir / "log.jsonl", keep_to=done) as lines,
        log.progress("training", experiment.total_steps, start=done, quiet=quiet) as show,
    ):
        watch = guard.Watch(experiment, checkpoints, show, steps.compiled, mesh)
        while done < experiment.total_steps:
            until = min(done + interval - done % interval, experiment.total_steps)
            began = time.perf_counter()
            current = watch.steps(steps, current, done, until)
            seconds = time.perf_counter() - began
            measured = validate(*state.evaluated(current))
            watch.refuse_bad_weights(until, measured.loss)
            record = _record(experiment, current, until, measured)
            images_per_second = config["batch_size"] * (until - done) / seconds
            line = {**record, "time": {"seconds": seconds, "images_per_second": images_per_second}}
            lines.write(line)
            current = current._replace(sums=parallel.replicate(state.zero_sums(experiment.objective.terms), mesh))
            checkpoints.save(until, current._asdict(), {**meta, "validation": record}, validation_accuracy=measured.selects_by)
            done = until
            if on_validation:
                on_validation(line)
    checkpoints.wait()
    best, accuracy = checkpoints.best()
    records = log.read_lines(workdir / "log.jsonl")
    attack = config["selection"]["attack"]
    selected_by = f"accuracy under PGD-{attack['steps']}" if attack else "accuracy"
    summary = Summary(done, best, accuracy, sum(record["time"]["seconds"] for record in records), selected_by)
    if not (workdir / "training.json").exists():
        results.write_json(workdir / "training.json", {**summary._asdict(), "environment": results.environment()})
    return summary


def _record(experiment: Experiment, current: state.TrainState, at: int, measured: select.Validation) -> dict:
    sums = jax.tree.map(float, current.sums)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules multiply integers by floats
        rate = float(experiment.rate(at - 1))
    return {
        "step": at,
        "epoch": at / experiment.order.steps_per_epoch,
        "learning_rate": rate,
        "train_loss": sums.loss / sums.count,
        "train_accuracy": sums.correct / sums.count,
        **{f"train_{name}": value / sums.count for name, value in sums.terms.items()},
        "validation_data": augmented.describe(experiment.config["selection"]["data"], experiment.dataset.image_shape),
        "validation_accuracy": measured.accuracy,
        "validation_loss": measured.loss,
        **({} if measured.robust_accuracy is None else {"validation_robust_accuracy": measured.robust_accuracy}),
    }


def _describe(experiment: Experiment) -> dict:
    dataset = experiment.dataset
    return {
        "name": dataset.name,
        "provenance": dataset.provenance,
        "class_names": list(dataset.class_names),
        "notes": list(experiment.notes),
        "train": len(experiment.train_ids),
        "validation": len(experiment.validation_ids),
    }
