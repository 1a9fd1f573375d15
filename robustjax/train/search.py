"""Search of a method's options, as SPIDER's and ESP's papers did it: what is searched, and a trial's training.

SPIDER, section 5 and appendix E.1: Optuna's TPE, 30 trials (15 for Tiny-ImageNet and ImageNet), tau in [0, 20] or [0, 30], xi in
[0, 1 - 1/C], pruning, and the value of a trial its best accuracy on augmented validation images. ESP, section 4.2: a grid. The queue of
trials is in train.study, the table in train.search_report.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

from robustjax import augment
from robustjax.core import registry
from robustjax.core.check import InputError
from robustjax.io import log, results
from robustjax.train import augmented, build, guard, loop, search_report, settings, study
from robustjax.train.study import Range, Space

LARGE = 64  # pixels of the side from which on images are searched as Tiny-ImageNet and ImageNet
SAMPLERS = ("tpe", "grid")
# ESP prints which gammas it tried, by the number of classes, but not which epsilons: those are ours.
GAMMAS = {10: (10.0, 20.0), 100: (20.0, 50.0, 100.0), 200: (200.0,)}
SIZES = (1.0, 2.0, 4.0, 6.0, 8.0, 12.0)


def default_trials(image_shape: tuple[int, int, int]) -> int:
    """Returns SPIDER's count of trials: 30, and 15 for the larger images (section 5)."""
    return 15 if min(image_shape[:2]) >= LARGE else 30


def space_of(method: str, num_classes: int, image_shape: tuple[int, int, int], *, sampler: str = "tpe") -> Space:
    """Returns what a paper searched for a method, or, where it does not say, what goes with that.

    Args:
        method: its name in `robustjax.augment`.
        num_classes: C, which bounds how far labels are smoothed.
        image_shape: (height, width, channels); larger images have larger L2 norms.
        sampler: 'tpe': ranges. 'grid': values, which ESP's paper has for 'esp' and 'l2_sphere'; others keep their ranges.

    Raises:
        InputError: for a method that has no options to search.
    """
    tau = Range(0.0, 30.0 if min(image_shape[:2]) >= LARGE else 20.0)
    smoothing = Range(0.0, 1 - 1 / num_classes)
    mixing = Range(0.05, 4.0, log=True)  # ours: SPIDER prints no alpha
    spaces: dict[str, Space] = {
        "spider": {"tau": tau, "xi": smoothing},
        "no_ls": {"tau": tau},
        "std_ls": {"alpha": smoothing},
        "l2_sphere": {"radius": tau},
        "l2_ball": {"tau": tau},
        # Its largest radius is epsilon + tau, of which tau follows epsilon.
        "esp": {"epsilon": Range(0.0, tau.high / 2), "xi": smoothing},
        "mixup": {"alpha": mixing},
        "cutmix": {"alpha": mixing},
    }
    if method not in spaces:
        raise InputError(f"config.method.name = {method!r} has nothing to search; searched are {', '.join(sorted(spaces))}.")
    if sampler == "grid":
        spaces["l2_sphere"] = {"radius": SIZES}
        spaces["esp"] = {"epsilon": SIZES, **({"gamma": GAMMAS[num_classes]} if num_classes in GAMMAS else {"xi": smoothing})}
    return spaces[method]


def parse_space(texts: Sequence[str], known: Sequence[str]) -> Space:
    """Reads ranges and values of the command line.

    >>> parse_space(["tau=2:8", "alpha=0.1:1:log", "xi=0.1,0.3"], ["tau", "xi", "alpha"])
    {'tau': Range(low=2.0, high=8.0, log=False), 'alpha': Range(low=0.1, high=1.0, log=True), 'xi': (0.1, 0.3)}

    Args:
        texts: NAME=low:high, NAME=low:high:log or NAME=value,value,...
        known: names that there are.

    Raises:
        InputError: for any other form or name.
    """
    space: dict[str, Range | tuple] = {}
    for text in texts:
        name, _, said = text.partition("=")
        if name not in known:
            raise registry.unknown("option of the method in --space:", name, known)
        *numbers, scale = said.split(":") if said.endswith(":log") else [*said.split(":"), ""]
        try:
            values = tuple(float(number) for part in numbers for number in part.split(","))
            if len(numbers) == 1 and not scale:
                space[name] = values
                continue
            low, high = (float(number) for number in numbers)
        except ValueError as error:
            raise InputError(f"--space is NAME=low:high, NAME=low:high:log or NAME=value,value,..., got {text!r}.") from error
        if not low < high or (scale and low <= 0):
            raise InputError(f"--space={text}: the range must rise{', from above 0 for log' if scale else ''}.")
        space[name] = Range(low, high, bool(scale))
    return space


def method_options(method: str, parameters: dict, num_classes: int) -> dict:
    """Returns the options of a method for the parameters of a trial.

    They are the same but for ESP (section 4.2): tau follows epsilon where it is not searched itself, and a gamma stands for its xi.

    >>> method_options("esp", {"epsilon": 4.0, "xi": 0.4}, 10)
    {'epsilon': 4.0, 'xi': 0.4, 'tau': 4.0}
    """
    options = dict(parameters)
    if "gamma" in options:
        options["xi"] = float(augment.xi_from_ratio(options.pop("gamma"), num_classes=num_classes))
    if method == "esp" and "epsilon" in options:
        options.setdefault("tau", options["epsilon"])
    return options


def training(config: dict, num_classes: int, *, quiet: bool = False) -> Callable[[dict, Path, Callable], float]:
    """Returns the objective of `study.work`: trains the configuration with a trial's parameters, and returns its best validation accuracy.

    Training that breaks down (a loss that is not finite) is a pruned trial.
    """

    def objective(parameters: dict, folder: Path, report: Callable) -> float:
        def tell(line: dict) -> None:
            value = line.get("validation_robust_accuracy", line["validation_accuracy"])
            epoch = round(line["epoch"])
            report(epoch, value, line["time"]["seconds"], last=epoch >= config["epochs"])

        for line in log.read_lines(folder / "log.jsonl"):
            tell(line)
        try:
            return loop.train(with_options(config, parameters, num_classes), folder, quiet=quiet, on_validation=tell).validation_accuracy
        except guard.NotFinite as error:
            raise study.Pruned("because its loss was not finite") from error

    return objective


def with_options(config: dict, parameters: dict, num_classes: int) -> dict:
    """Returns a copy of a configuration with the options that a trial's parameters mean."""
    made = copy.deepcopy(config)
    made["method"] |= method_options(made["method"]["name"], parameters, num_classes)
    return made


def search(
    config: dict,
    workdir: str | Path,
    *,
    url: str = "",
    name: str = "",
    trials: int = 0,
    sampler: str = "tpe",
    space: Sequence[str] = (),
    prune: bool = True,
    quiet: bool = False,
) -> dict:
    """Searches the options of config.method until there are enough trials, and writes what came out; see the head of launch/tune.py.

    Killed, or run again with more trials, it goes on. Several processes may be given the same study.

    Args:
        config: a nested dict with the keys of configs/common.py.
        workdir: the study's folder is `workdir/name`.
        url: of the storage, see `study.opened`; default: sqlite in `workdir`.
        name: of the study; default: data and method.
        trials: how many, 0 for `default_trials`, or for the whole grid.
        sampler: 'tpe' or 'grid'.
        space: changes to `space_of`, see `parse_space`.
        prune: see `study.opened`.
        quiet: no progress lines of the training.

    Returns:
        The report, see `search_report.collect`, with `validation_data`, `notes` and the `files` written.

    Raises:
        InputError: for anything a user can mend; no finished trial is lost.
    """
    if sampler not in SAMPLERS:
        raise registry.unknown("sampler", sampler, SAMPLERS)
    config = settings.check(config)
    _, dataset, notes = build.open_dataset(config)
    searched = _space(config["method"], dataset, sampler, space)
    grid = sampler == "grid"
    wanted = trials or (len(study.points(searched)) if grid else default_trials(dataset.image_shape))
    name = name or f"{config['data']['name']}-{config['method']['name']}"
    folder = Path(workdir) / name
    with results.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with study.opened(url or f"sqlite:///{Path(workdir).absolute()}/study.db", name, prune=prune) as found:
        study.claim(found, _asked(config, searched))
        if not study.finished(found):  # what no trial could train is refused before there is one
            first = {key: values.high if isinstance(values, Range) else values[-1] for key, values in searched.items()}
            build.build(with_options(config, first, dataset.num_classes))
        objective = training(config, dataset.num_classes, quiet=quiet)
        study.work(found, objective, folder, space=searched, trials=wanted, seed=config["seed"], grid=grid)
        report = search_report.collect(found, epochs=config["epochs"], space=searched, sampler=sampler)
    report |= {"validation_data": augmented.describe(config["selection"]["data"], dataset.image_shape), "notes": list(notes)}
    if report["best"]:
        results.write_json(folder / "best.json", with_options(config, report["best"]["parameters"], dataset.num_classes))
        report["best"]["options"] = method_options(config["method"]["name"], report["best"]["parameters"], dataset.num_classes)
    return report | {"files": search_report.write(report, folder)}


def _space(method: dict, dataset, sampler: str, texts: Sequence[str]) -> Space:
    """Returns what is searched: the method's space, with the changes of the command line."""
    name = method.get("name", "")
    usual = space_of(name, dataset.num_classes, dataset.image_shape, sampler=sampler)
    options = [key for key in method if key != "name"]
    given = parse_space(texts, [*options, *(["gamma"] if name == "esp" else [])])
    if {"gamma", "xi"} <= set(given):
        raise InputError("gamma stands for xi; give one of them to --space.")
    replaced = {"gamma": "xi", "xi": "gamma"}
    return {**{key: values for key, values in usual.items() if replaced.get(key) not in given}, **given}


def _asked(config: dict, space: Space) -> dict:
    """Returns what the trials of a study share: the space, and the configuration but for what is searched."""
    shared = results.comparable(config)
    for key in method_options(config["method"]["name"], dict.fromkeys(space, 1.0), 2):
        shared["method"].pop(key, None)
    return results.canonical({"configuration": shared, "space": space})
