"""The training loop: restore, step, validate, log, save; it can be killed at any moment and started again.

A run lives in its workdir: `config.json` (what was asked), `log.jsonl`, `checkpoints/`, and `training.json` once it is done. Of several
processes the first one alone reads and writes it, and hands what it has read to the others: only that one's machine needs the folder.
"""

import contextlib
import difflib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from robustjax.core import parallel, processes
from robustjax.core.check import InputError
from robustjax.data import digest
from robustjax.io import log, results
from robustjax.io.checkpoint import UNVALIDATED, Checkpoints, DamagedCheckpoint
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
            run, which can be taken up again. Of several processes the first one calls it.

    Returns:
        The best step by validation accuracy (under attack, where the configuration selects so), and that accuracy.

    Raises:
        InputError: for anything a user can mend, on all processes; nothing that was already computed is lost.
        Stopped: after SIGTERM to any of the processes, at the same step of all, of which there is a checkpoint.
    """
    workdir = Path(workdir)
    with contextlib.ExitStack() as held, guard.Asked().listening() as asked:
        processes.together(held.enter_context, log.lock(workdir), first_only=True)
        experiment = processes.together(build, config)
        _check_agreement(experiment)
        checkpoints = processes.together(_claimed, workdir, experiment, held, first_only=True)
        try:
            return _run(experiment, workdir, checkpoints, quiet, on_validation, asked)
        except jax.errors.JaxRuntimeError as error:
            if jax.process_count() == 1:
                raise
            raise InputError(
                f"what {jax.process_count()} processes compute together failed, most likely since one of them has ended "
                f"({str(error).splitlines()[0][:160]}). Start all of them again: the same command goes on from the last checkpoint."
            ) from error


def _check_agreement(experiment: Experiment) -> None:
    """Refuses processes that were started with different configurations, data or numbers of devices."""
    about = _describe(experiment)
    mine = results.comparable(experiment.config) | {
        "classes": about["class_names"],
        "examples": [about["train"], about["validation"]],
        "files": digest.named(" ".join([about["provenance"], *about["notes"]])),
        "devices": jax.local_device_count(),
    }
    first, *others = processes.gather(results.canonical(mine))
    for number, other in enumerate(others, 1):
        if other != first:
            raise InputError(
                f"process {number} differs from process 0 ({_changes(first, other)}); start all of them with the same command, data and devices."
            )


def _changes(old: dict, new: dict) -> str:
    old, new = (json.dumps(each, indent=1, sort_keys=True).splitlines() for each in (old, new))
    diff = [line for line in difflib.unified_diff(old, new, lineterm="", n=0) if line[0] in "+-" and line[:3] not in ("+++", "---")]
    return ", ".join(line[0] + " ".join(line[1:].split()).rstrip(",") for line in diff)


def _claimed(workdir: Path, experiment: Experiment, held: contextlib.ExitStack) -> Checkpoints:
    """Opens the checkpoints and writes config.json; once there is a checkpoint, compares with the one that is there instead."""
    for note in experiment.notes:
        log.say(f"note: {note}")
    checkpoints = held.enter_context(contextlib.closing(Checkpoints(workdir)))
    path, config = workdir / "config.json", experiment.config
    before = results.read_json(path) if checkpoints.steps() else None
    if before is None:
        results.write_json(path, config)
        results.write_json(workdir / "environment.json", results.environment())
    elif results.comparable(before) != results.comparable(config):
        changes = _changes(results.comparable(before), results.comparable(config))
        raise InputError(f"{workdir} holds a run of another configuration ({changes}); choose another --workdir, or delete that one.")
    return checkpoints


def _restore(experiment: Experiment, checkpoints: Checkpoints) -> tuple[state.TrainState, float]:
    """Returns the newest state that can be read, or the first one; damaged checkpoints are set aside and named.

    With it come the seconds of its steps that no line of the log has counted yet.

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
            return state.TrainState(**restored), meta.get("seconds", 0.0)
        except DamagedCheckpoint as error:
            log.say(f"warning: {error} It was moved to {checkpoints.set_aside(at)}; trying the one before.")
            damaged = True
    if damaged:
        log.say("warning: none of the checkpoints could be read; training starts anew.")
    if experiment.config["init"]:
        params, batch_stats = pretrained.load(experiment.config["init"], experiment.params, experiment.batch_stats)
        return initial_state(experiment._replace(params=params, batch_stats=batch_stats)), 0.0
    return fresh, 0.0


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
    for role, images in (("train", "training"), ("validation", "validation")):
        if trained_on.get(role, now[role]) != now[role]:
            raise InputError(
                f"the run was begun with {trained_on[role]:,} {images} images, the data now give {now[role]:,}; give the folder of those "
                "data with --config.data.dir, or choose another --workdir."
            )


def _run(
    experiment: Experiment,
    workdir: Path,
    checkpoints: Checkpoints | None,
    quiet: bool,
    on_validation: Callable[[dict], None] | None,
    asked: guard.Asked,
) -> Summary:
    config, quiet = experiment.config, quiet or not processes.is_first()
    mesh = parallel.data_mesh()
    restored = processes.together(_restore, experiment, checkpoints, first_only=True)
    current, seconds = processes.from_first(restored or (initial_state(experiment), 0.0))
    current, seconds = parallel.replicate(current, mesh), float(seconds)
    done = int(current.step)
    data = feed.place(experiment, mesh)
    # A finished run has nothing to validate, and corrupting the validation images takes its time.
    validate = select.make_validator(experiment, mesh, data, quiet=quiet) if done < experiment.total_steps else None
    steps = (feed.Resident if data else feed.Streamed)(experiment, mesh, data)
    interval = config["validate_epochs"] * experiment.order.steps_per_epoch
    meta = {"config": config, "model": experiment.model, "data": _describe(experiment), "notes": list(experiment.notes)}
    with contextlib.ExitStack() as held:
        show = held.enter_context(log.progress("training", experiment.total_steps, start=done, quiet=quiet))
        lines = processes.together(_log, workdir, done, held, first_only=True)
        watch = guard.Watch(experiment, checkpoints, show, steps.compiled, mesh, asked)
        while done < experiment.total_steps:
            start, until, began = done, min(done + interval - done % interval, experiment.total_steps), time.perf_counter()
            current, done = watch.steps(steps, current, start, until)
            took = time.perf_counter() - began
            seconds += took
            if done == until:
                measured = validate(*state.evaluated(current))
                watch.refuse_bad_weights(until, measured.loss)
                record = _record(experiment, current, until, measured)
                line = {**record, "time": {"seconds": seconds, "images_per_second": config["batch_size"] * (until - start) / took}}
                current, seconds = current._replace(sums=parallel.replicate(state.zero_sums(experiment.objective.terms), mesh)), 0.0
                saved = (until, current, {**meta, "validation": record}, measured.selects_by)
                processes.together(_keep, checkpoints, lines, line, saved, on_validation, first_only=True)
            if watch.stopping and done < experiment.total_steps:
                saved = (done, current, {**meta, "seconds": seconds}, UNVALIDATED)
                processes.together(_keep_stopped, checkpoints, saved, first_only=True)
                raise guard.Stopped(f"stopped at step {done} of {experiment.total_steps}; the same command goes on from there.")
    summary = processes.together(_finish, experiment, workdir, checkpoints, done, first_only=True)
    return Summary(*processes.gather(summary)[0])


def _log(workdir: Path, done: int, held: contextlib.ExitStack) -> log.JsonLines:
    return held.enter_context(log.JsonLines(workdir / "log.jsonl", keep_to=done))


def _keep(checkpoints: Checkpoints, lines: log.JsonLines, line: dict, saved: tuple, on_validation: Callable[[dict], None] | None) -> None:
    lines.write(line)
    _save(checkpoints, *saved)
    if on_validation:
        on_validation(line)


def _keep_stopped(checkpoints: Checkpoints, saved: tuple) -> None:
    """Waits until there is a checkpoint of this step, and makes one unless its validation has."""
    checkpoints.wait()
    _save(checkpoints, *saved)
    checkpoints.wait()


def _save(checkpoints: Checkpoints, step: int, current: state.TrainState, meta: dict, accuracy: float) -> None:
    checkpoints.save(step, current._asdict(), meta, validation_accuracy=accuracy)


def _finish(experiment: Experiment, workdir: Path, checkpoints: Checkpoints, done: int) -> Summary:
    checkpoints.wait()
    best, accuracy = checkpoints.best()
    records = log.read_lines(workdir / "log.jsonl")
    attack = experiment.config["selection"]["attack"]
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
