"""A study of trials in an Optuna storage, which many processes and machines may work on at once, each killed at any moment.

A trial that is running carries a sign of its worker. On the worker's own machine that is a lock, which the operating system drops when the
process ends, however it ends; elsewhere, the time when it was last seen. A trial whose worker is gone goes back to the queue with the same
parameters, and the run that it had begun goes on where it stopped.
"""

import contextlib
import os
import platform
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from robustjax.core.check import InputError
from robustjax.io import log

BEAT, GRACE = 60.0, 600.0  # seconds between a worker's signs of life, and after which one on another machine is taken to be gone
_OPENINGS = 3  # workers that start together may meet while the tables are made


class Range(NamedTuple):
    """Real numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = False  # drawn evenly in the logarithm


Space = Mapping[str, Range | tuple]
"""What is searched: a range, or values to choose from, for each parameter."""


class Pruned(Exception):
    """Raised in an objective: the trial is not worth going on with."""


class _Taken(Exception):
    """The trial was given to another worker, because this one had not been seen for long."""


def optuna():
    """Returns the package, which is an extra.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise InputError("the search is done by Optuna, which is not installed: pip install 'robustjax[tune]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@contextlib.contextmanager
def opened(url: str, name: str, *, prune: bool = True) -> Iterator[Any]:
    """Yields the study of that name, made if need be; higher values are better.

    Args:
        url: of a relational database: sqlite:///study.db, postgresql://user@host/database, ...
        name: of the study within it.
        prune: stop a trial whose best value so far is below the median of the complete trials at the same epoch, once five are complete.

    Raises:
        InputError: if Optuna is not installed, or the storage cannot be opened. (Never with the URL: it may hold a password.)
    """
    lib = optuna()
    if "://" not in url:
        raise InputError(f"--study is the URL of a database, e.g. sqlite:///study.db or postgresql://user@host/database, got {url!r}.")
    # SQLite gives up on a locked file after five seconds.
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    pruner = lib.pruners.MedianPruner() if prune else lib.pruners.NopPruner()
    for attempt in range(_OPENINGS):
        try:
            storage = lib.storages.RDBStorage(url, engine_kwargs=options)
            study = lib.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True, pruner=pruner)
            break
        except Exception as error:  # SQLAlchemy, its drivers and Optuna each raise their own kinds
            if attempt == _OPENINGS - 1:
                said = str(error).strip().splitlines() or [type(error).__name__]
                raise InputError(f"cannot open the study {name!r} of --study={url.partition('://')[0]}://...: {said[0]}") from error
            time.sleep(0.5 * (attempt + 1))
    try:
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def claim(study, asked: dict) -> None:
    """Writes down what a study is about; once a trial of it is finished, compares instead.

    Args:
        study: see `opened`.
        asked: JSON-like.

    Raises:
        InputError: if its finished trials were of something else.
    """
    before = study.user_attrs.get("asked")
    if before == asked:
        return
    if finished(study):
        changed = [key for key in asked if (before or {}).get(key) != asked[key]]
        raise InputError(
            f"the study {study.study_name!r} has trials of another {' and '.join(changed)}; choose another --name, or another --workdir."
        )
    study.set_user_attr("asked", asked)


def finished(study) -> list:
    """Returns the trials that are complete or pruned, in the order of their numbers."""
    states = optuna().trial.TrialState
    return study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))


def work(
    study, objective: Callable[[dict, Path, Callable], float], folder: Path, *, space: Space, trials: int, seed: int, grid: bool = False
) -> None:
    """Takes trials until there are enough; several processes may do so at once.

    Args:
        study: see `opened`.
        objective: (parameters, folder of the trial, report) -> value. It calls report(epoch, value, seconds, last=bool) after each validation,
            from the first epoch on also where it goes on with a run, with the seconds since the one before; that may raise `Pruned`.
        folder: of the study; trials are in `trial_000`, `trial_001`, ...
        space: what is searched.
        trials: how many, those of other workers and of earlier times included.
        seed: the parameters of a trial follow from it, from the number of the trial and from the values before.
        grid: every combination of the space's values once, in place of the tree-structured Parzen estimator (TPE).
    """
    if grid:
        for point in points(space):
            study.enqueue_trial(point, user_attrs={"parameters": point}, skip_if_exists=True)
    with _worker(folder) as sign:
        while (trial := _next(study, folder, sign, trials=trials, grid=grid)) is not None:
            # A sampler of its own for each trial: workers that start together would draw the same numbers. Univariate, as in Bergstra et al.
            study.sampler = optuna().samplers.TPESampler(seed=(seed + 1_000_003 * trial.number) % 2**32, multivariate=False)
            with contextlib.suppress(_Taken), _beating(trial):
                _run(study, trial, objective, _place(folder, trial), space)
                log.say(f"{len(finished(study))} of {trials} trials are done.")
    running = study.get_trials(deepcopy=False, states=(optuna().trial.TrialState.RUNNING,))
    if running:
        log.say(f"others are still at work on {len(running)} of the trials; the same command shows the table when they are done.")


def points(space: Space) -> list[dict]:
    """Returns every combination of the values of a space.

    >>> points({"a": (1, 2), "b": (3,)})
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]

    Raises:
        InputError: for a range, which has no end of values.
    """
    made = [{}]
    for name, values in space.items():
        if isinstance(values, Range):
            raise InputError(
                f"a grid is made of values, and {name} has a range: give some, e.g. --space={name}={values.low:g},{values.high:g}."
            )
        made = [{**point, name: value} for point in made for value in values]
    return made


def _next(study, folder: Path, sign: dict, *, trials: int, grid: bool):
    """Returns a trial to work on, or None when there are enough."""
    states = optuna().trial.TrialState
    while True:
        _mend(study, folder)
        begun = study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED, states.RUNNING))
        waiting = study.get_trials(deepcopy=False, states=(states.WAITING,))
        if len(begun) >= trials or (grid and not waiting):
            return None
        trial = study.ask()
        trial.set_user_attr("worker", sign)
        trial.set_user_attr("seen", time.time())
        # Another worker may have asked at the same moment: of too many trials the later ones give way.
        begun = study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED, states.RUNNING))
        earlier = [one for one in begun if one.number < trial.number]
        point = trial.user_attrs.get("parameters")
        if len(earlier) < trials and not (grid and (point is None or point in [one.user_attrs.get("parameters") for one in earlier])):
            return trial
        study.tell(trial, state=states.FAIL)


def _mend(study, folder: Path) -> None:
    """Puts trials whose worker is gone back into the queue, with the same parameters; the first worker to notice does it."""
    states = optuna().trial.TrialState
    for gone in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        if _lives(gone, folder):
            continue
        try:
            study.tell(gone.number, state=states.FAIL)
        except (ValueError, RuntimeError):  # another worker was faster
            continue
        parameters = {**gone.user_attrs.get("parameters", {}), **gone.params}
        begun = gone.number if _folder(folder, gone.number).exists() else gone.user_attrs.get("continues")
        if parameters:
            log.say(f"trial {gone.number} was interrupted; it is taken up again under a new number.")
            study.enqueue_trial(parameters, user_attrs={"parameters": parameters, "continues": begun})


def _lives(trial, folder: Path) -> bool:
    """Tells whether the worker of a running trial is still there."""
    sign = trial.user_attrs.get("worker", {"machine": "", "name": ""})
    place = folder / "workers" / sign["name"]
    # A folder that is not here belongs to another machine of the same name.
    if sign["machine"] == platform.node() and place.is_dir():
        try:
            with log.lock(place):
                return False
        except InputError:
            return True
    return time.time() - trial.user_attrs.get("seen", trial.datetime_start.timestamp()) < GRACE


@contextlib.contextmanager
def _worker(folder: Path) -> Iterator[dict]:
    """Holds a lock while this process works, and yields by what others know it."""
    name = f"{os.getpid()}_{secrets.token_hex(4)}"
    with log.lock(folder / "workers" / name):
        yield {"machine": platform.node(), "name": name}
    # Where work ended by an error it stays, to tell that the trial is free.
    shutil.rmtree(folder / "workers" / name, ignore_errors=True)


@contextlib.contextmanager
def _beating(trial) -> Iterator[None]:
    """Writes signs of life while a trial runs."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT):
            with contextlib.suppress(Exception):  # a storage that does not answer now may do so a minute later
                trial.set_user_attr("seen", time.time())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _folder(folder: Path, number: int) -> Path:
    return folder / f"trial_{number:03d}"


def _place(folder: Path, trial) -> Path:
    """Returns the trial's folder, with the run that it goes on with, if there is one."""
    place, begun = _folder(folder, trial.number), trial.user_attrs.get("continues")
    if begun is not None and _folder(folder, begun).exists() and not place.exists():
        _folder(folder, begun).rename(place)
    return place


def _run(study, trial, objective: Callable, place: Path, space: Space) -> None:
    """Runs the objective and stores what came out; says so in one line.

    Raises:
        _Taken: if the trial is another worker's by now.
    """
    states = optuna().trial.TrialState
    parameters = {name: _suggest(trial, name, values) for name, values in space.items()}
    shown = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in parameters.items())
    log.say(f"trial {trial.number}: {shown}")
    spent: dict[int, float] = {}

    def report(epoch: int, value: float, seconds: float, *, last: bool) -> None:
        if epoch in spent:  # the run was killed after this line and before its checkpoint
            return
        spent[epoch] = seconds
        with _ours(trial):
            trial.report(value, epoch)
        if not last and trial.should_prune():
            raise Pruned(f"after epoch {epoch}, at {100 * value:.2f} %")

    try:
        value, ended = objective(parameters, place, report), ""
    except Pruned as why:
        value, ended = None, f"stopped {why}"
    with _ours(trial):
        trial.set_user_attr("epochs", max(spent, default=0))
        trial.set_user_attr("seconds", sum(spent.values()))
        study.tell(trial, value, state=states.PRUNED if value is None else states.COMPLETE)
    log.say(f"trial {trial.number}: {ended or f'{100 * value:.2f} %'}")


@contextlib.contextmanager
def _ours(trial) -> Iterator[None]:
    """Around what is stored of a trial: Optuna refuses to change one that is finished, by RuntimeError or ValueError."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        log.say(
            f"warning: trial {trial.number} was not seen for {GRACE / 60:.0f} minutes and given to another worker; it is left to that one."
        )
        raise _Taken from error


def _suggest(trial, name: str, values: Range | tuple):
    if isinstance(values, Range):
        return trial.suggest_float(name, values.low, values.high, log=values.log)
    return trial.suggest_categorical(name, values)
