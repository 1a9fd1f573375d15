"""From a table of the papers to runs: what is trained, in which folder, how it is measured, by which commands. Nothing is computed here."""

import copy
import importlib
import json
import os
import re
from collections.abc import Container, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from configs.tables import NOT_RUNNABLE, SWEEPS, TABLES, Row, Sweep, Table
from launch.jobs import ROOT, Job, Step
from robustjax.core import registry
from robustjax.core.check import InputError
from robustjax.evaluate import labels
from robustjax.io import results

SCALES = {"full": 3, "short": 1, "quick": 1}  # and how many seeds are usual
SHORT = 0.1  # of the epochs
SEARCH = "search"
_QUICK_COPIES = ("--networks=edsr", "--width=8", "--steps=250", "--train_batch_size=8", "--min_psnr=10")
_QUICK_TRIALS = 3
_NOT_OVERRIDDEN = {  # runs or reports that differ in these would share a folder
    "seed": "--seeds says how many there are",
    "data.dir": "give --data_dir",
    "evaluation.noise": "measure the runs with launch/evaluate.py --noise",
    "evaluation.geometry": "measure the runs with launch/evaluate.py --geometry",
}


class Settings(NamedTuple):
    """What the user asks of every run."""

    root: Path  # of all folders
    scale: str
    seeds: int
    overrides: Mapping[str, Any] = {}
    data_dir: str = ""
    corrupted: Mapping[str, str] = {}  # data set -> folder of published corrupted files

    @property
    def changed(self) -> list[str]:
        """What a table has to say of the overrides, in one line, if there are any."""
        return [f"settings changed: {', '.join(f'{key}={value}' for key, value in self.overrides.items())}"] if self.overrides else []


class Run(NamedTuple):
    """One training. Its folder follows from its configuration and seed, so that tables share runs."""

    config: dict
    folder: Path
    train: tuple[str, ...]  # command
    copies: Job | None  # that it needs


class Cell(NamedTuple):
    """A row of a table on a data set: its runs, one for each seed, and what measures each of them."""

    data: str
    row: str
    runs: tuple[Run, ...]
    evaluations: tuple[Step, ...]
    surrogate: Run | None = None

    @property
    def measured(self) -> list[Path]:
        """The reports that are there."""
        return [step.done for step in self.evaluations if step.done.exists()]


def reference() -> dict:
    """Returns the papers' tables."""
    return json.loads((resources.files("robustjax") / "reference" / "tables.json").read_text())


def table(name: str) -> Table:
    """Returns a table of configs/tables.py.

    Raises:
        InputError: if there is none of that name.
    """
    if name not in TABLES:
        raise registry.unknown("table", name, [*TABLES, *NOT_RUNNABLE])
    return TABLES[name]


def sweep(name: str) -> Sweep:
    """Returns a sweep of configs/tables.py."""
    if name not in SWEEPS:
        raise registry.unknown("sweep", name, SWEEPS)
    return SWEEPS[name]


def chosen(asked: Sequence[str], known: Sequence[str], kind: str) -> list[str]:
    """Returns those of the known names that are asked for, or all.

    Raises:
        InputError: for an unknown one.
    """
    for name in asked:
        if name not in known:
            raise registry.unknown(kind, name, known)
    return [name for name in known if name in asked or not asked]


def rows(parts: Sequence[str], known: Sequence[str]) -> list[str]:
    """Returns the rows that a list of the command line names, or all: names may have commas in them.

    >>> rows(["rat_1", "eta 0.4", "rat_2"], ["rat_1", "rat_1, eta 0.4", "rat_2"])
    ['rat_1, eta 0.4', 'rat_2']
    """
    asked, left = [], list(parts)
    while left:
        count = next((count for count in range(len(left), 0, -1) if ", ".join(left[:count]) in known), 1)
        asked.append(", ".join(left[:count]))
        left = left[count:]
    return chosen(asked, known, "row")


def datasets(files: Mapping[str, str], asked: Sequence[str], scale: str, papers: Container[str]) -> list[str]:
    """Returns the data sets asked for; else those that are among the paper's, and in the quick form the first of them."""
    if asked:
        return chosen(asked, list(files), "data set")
    found = [name for name in files if name in papers]
    return found[:1] if scale == "quick" else found


def cell(name: str, data: str, file: str, row: Row, of: Table | Sweep, settings: Settings) -> Cell:
    """Returns the runs of a row, and what measures them.

    Args:
        name: of the row.
        data: the data set.
        file: the configuration, 'spider/cifar10'.
        row: how it is trained.
        of: what the row belongs to, for its suite.
        settings: what the user asks for.
    """
    runs = tuple(run(file, row, seed, settings) for seed in range(settings.seeds))
    if of.suite == SEARCH:
        return Cell(data, name, runs[:1], (_search(runs[0], settings),))
    surrogate = run(file, of.surrogate, 0, settings) if isinstance(of, Table) and of.surrogate else None
    arguments = [*of.arguments] if isinstance(of, Table) else []
    if surrogate:
        arguments.append(f"--surrogate={surrogate.folder}")
    if data in settings.corrupted and {"corruptions", "full"} & set(of.suite.split(",")):
        arguments.append(f"--corrupted_dir={settings.corrupted[data]}")
    suite = _affordable(of.suite, settings.scale)
    return Cell(data, name, runs, tuple(evaluation(one, suite, arguments, settings.data_dir) for one in runs), surrogate)


def run(file: str, row: Row, seed: int, settings: Settings) -> Run:
    """Returns one training.

    Raises:
        InputError: for an override of a key that the configuration does not have, or of another kind, or that tells no runs apart.
    """
    for key in settings.overrides:
        for refused, instead in _NOT_OVERRIDDEN.items():
            if f"{key}.".startswith(f"{refused}.") or f"{refused}.".startswith(f"{key}."):
                raise InputError(f"--override={key}=... cannot be: {instead}.")
    text = ",".join(filter(None, ("quick" * (settings.scale == "quick"), row.options)))
    config = _config(file, text, dict(row.overrides))
    overrides = {**row.overrides, **(_shortened(config) if settings.scale == "short" else {}), **settings.overrides}
    config = _config(file, text, overrides)
    where = [f"--config.data.dir={settings.data_dir}"] if settings.data_dir else []
    copies = _copies(file, config, where, settings) if config["data"]["copies"] else None
    if copies:
        config["data"]["copies"] = copies.name
    called = re.sub("[, ]+", "_", labels.trained_by(config)[0])
    name = f"{called}_{config['model']['name']}_{config['epochs']}ep{'_quick' * config['quick']}"
    folder = settings.root / config["data"]["name"] / f"{name}_{results.config_hash(results.comparable(config))[:10]}_seed{seed}"
    train = [*_command("train", file, text, overrides), *where, f"--config.seed={seed}", f"--workdir={folder}"]
    if copies:
        train.append(f"--config.data.copies={copies.steps[0].done.parent}")
    config["seed"] = seed
    return Run(config, folder, tuple(train), copies)


def _command(launcher: str, file: str, text: str, overrides: Mapping[str, Any]) -> list[str]:
    config = f"configs/{file}.py" + (f":{text}" if text else "")
    return ["python", f"launch/{launcher}.py", f"--config={config}", *(f"--config.{key}={value}" for key, value in overrides.items())]


def _config(file: str, text: str, overrides: Mapping[str, Any]) -> dict:
    """Returns a configuration as the launchers would read it."""
    config = importlib.import_module(f"configs.{file.replace('/', '.')}").get_config(text)
    config.lock()
    try:
        config.update_from_flattened_dict(overrides)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"configs/{file}.py cannot be changed by {dict(overrides)}: {' '.join(str(error).split())}") from error
    return copy.deepcopy(config.to_dict())


def _shortened(config: dict) -> dict[str, Any]:
    """Returns the overrides that train a tenth of the epochs, with all that happens at epochs moved along."""

    def tenth(epochs: float) -> int:
        return max(1, round(SHORT * epochs))

    changed: dict[str, Any] = {"epochs": tenth(config["epochs"])}
    if config["schedule"]["boundaries"]:
        changed["schedule.boundaries"] = tuple(tenth(epoch) for epoch in config["schedule"]["boundaries"])
    for section, key in (("optimizer", "swa_epoch"), ("awp", "warmup_epochs"), ("schedule", "warmup_epochs")):
        if config[section][key]:
            changed[f"{section}.{key}"] = type(config[section][key])(tenth(config[section][key]))
    return changed


def _copies(file: str, config: dict, where: Sequence[str], settings: Settings) -> Job:
    """Returns the job that writes DeepAugment's copies; runs on the same data share them."""
    options = _QUICK_COPIES if config["quick"] else ()
    data = {key: value for key, value in config["data"].items() if key not in ("dir", "copies", "limit_test", "stream")}
    folder = settings.root / "copies" / f"{data['name']}_{results.config_hash({'data': data, 'options': options})[:10]}"
    overrides = {key: value for key, value in settings.overrides.items() if key.startswith("data.")}
    command = [*_command("deepaugment", file, "quick" * config["quick"], overrides), *where, *options, f"--out={folder}"]
    # The networks work one after the other, the second one's copies are written whole and last.
    return Job(f"copies_{folder.name}", folder.with_name(f"{folder.name}_log"), (Step(tuple(command), folder / "edsr.npy"),))


def evaluation(of: Run, suite: str, arguments: Sequence[str] = (), data_dir: str = "") -> Step:
    """Returns the step that measures a run; where the data lie does not change the report's folder."""
    said = [argument.replace(str(of.folder.parents[1]), "") for argument in arguments]
    key = suite.replace(",", "+") + (f"_{results.config_hash({'arguments': said})[:6]}" if said else "")
    report = of.folder / "reports" / key
    where = [f"--data_dir={data_dir}"] if data_dir else []
    command = ("python", "launch/evaluate.py", f"--workdir={of.folder}", f"--suite={suite}", *arguments, *where, f"--report={report}")
    return Step(command, report / "report.json")


def report_folder(kind: str, name: str, settings: Settings, **parts: Sequence[str]) -> Path:
    """Returns where a table or a figure goes: what is not as usual goes beside the usual one, not in its place.

    Args:
        kind: 'tables' or 'sweeps'.
        name: of the table or the sweep.
        settings: what the user asks for.
        **parts: the rows or data sets that are run, where they are not the usual ones, else nothing.
    """
    asked = {
        "overrides": {key: repr(value) for key, value in settings.overrides.items()},
        "seeds": settings.seeds * (settings.seeds != SCALES[settings.scale]),
        **{key: list(names) for key, names in parts.items()},
    }
    asked = {key: value for key, value in asked.items() if value}
    ending = f"_{results.config_hash(asked)[:6]}" if asked else ""
    return settings.root / kind / f"{name.replace('/', '_')}_{settings.scale}{ending}"


def unusual(found: Sequence[str], usual: Sequence[str]) -> Sequence[str]:
    """Returns what was found if that is not the usual, else nothing."""
    return () if list(found) == list(usual) else found


def _affordable(suite: str, scale: str) -> str:
    """Returns the suites of a scale: AutoAttack takes minutes even for the smallest network, so the quick form leaves it out."""
    return ",".join(part for part in suite.split(",") if part != "autoattack" or scale != "quick")


def _search(of: Run, settings: Settings) -> Step:
    """Returns the step that searches a method's options."""
    launcher, config, *options = of.train[1:]
    name = of.folder.name.removesuffix("_seed0")
    kept = [option for option in options if not option.startswith(("--workdir=", "--config.seed="))]
    trials = [f"--trials={_QUICK_TRIALS}"] if settings.scale == "quick" else []
    folder = settings.root / SEARCH
    command = ("python", launcher.replace("train", "tune"), config, *kept, f"--workdir={folder}", f"--name={name}", *trials)
    return Step(command, folder / name / "search.json")


def jobs(cells: Sequence[Cell]) -> list[Job]:
    """Returns the jobs of some rows, each once: copies, then the first seed of every row with what measures it, then the next seeds."""
    found: dict[str, Job] = {}

    def add(job: Job) -> None:
        known = found.get(job.name)
        steps = (*(known.steps if known else ()), *job.steps)
        needs = (*(known.needs if known else ()), *job.needs)
        found[job.name] = job._replace(steps=tuple(dict.fromkeys(steps)), needs=tuple(dict.fromkeys(needs)))

    for one in cells:
        for needed in filter(None, (of.copies for of in one.runs)):
            add(needed)
        if one.surrogate:
            add(_training(one.surrogate))
    for seed in range(max((len(one.runs) for one in cells), default=0)):
        for one in cells:
            if seed < len(one.runs):
                job, measured = _training(one.runs[seed]), one.evaluations[seed]
                if measured.done.name == "search.json":
                    add(Job(f"{SEARCH}_{measured.done.parent.name}", measured.done.parent, (measured,), job.needs))
                    continue
                needs = (*job.needs, *([str(_name(one.surrogate))] if one.surrogate else []))
                add(job._replace(steps=(*job.steps, measured), needs=needs))
    return list(found.values())


def _training(of: Run) -> Job:
    return Job(_name(of), of.folder, (Step(of.train, of.folder / "training.json"),), (of.copies.name,) if of.copies else ())


def _name(of: Run) -> str:
    return f"{of.folder.parent.name}/{of.folder.name}"


def placed(workdir: str) -> Path:
    """Returns the folder of everything: relative where that is the same for us and for commands, which run in the checkout's folder.

    Raises:
        InputError: if it is where the measured numbers of the README are kept.
    """
    absolute = Path(workdir).expanduser().absolute()
    path = Path(os.path.relpath(absolute, ROOT))
    if path.parts[:1] == ("results",):
        raise InputError(
            f"--workdir={workdir} lies in results/, which holds numbers that are reported; choose another folder, e.g. runs/reproduce."
        )
    return path if Path.cwd() == ROOT and ".." not in path.parts else absolute
