"""From a configuration to an experiment: data, splits, network, augmentation, step. Derived values are computed here only."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from robustjax import augment, corruptions, data, losses, metrics, models
from robustjax.augment.pixmix import enlarged
from robustjax.augment.registry import MIXING
from robustjax.core import example_keys, registry, rng
from robustjax.core.check import InputError
from robustjax.data import batches, pictures, splits
from robustjax.data.encoded import FileSource
from robustjax.train import adversarial, augmented, consistency, discriminative, networks, objectives, schedules, settings, state, step

OBJECTIVES = adversarial.TABLE | discriminative.TABLE | consistency.TABLE
"""All objectives but 'classification', by name."""


class Experiment(NamedTuple):
    """What a configuration means, once data and derived values are known."""

    config: dict  # checked, and resolved: names the data that is really used
    dataset: data.Dataset
    train_ids: np.ndarray
    validation_ids: np.ndarray
    order: batches.TrainOrder
    model: dict  # arguments of models.make: all that evaluation needs to build it again, in float32
    apply: Callable  # in training, in config['compute_dtype']
    evaluate: Callable  # the same in float32
    params: dict
    batch_stats: dict
    optimizer: optax.GradientTransformation
    rate: optax.Schedule
    objective: objectives.Objective
    arrays: dict  # of the augmentation, {stage: {option: arrays}}: the step takes them, see train.step
    step: Callable  # of one device, see train.step
    total_steps: int
    notes: tuple[str, ...]


def build(config: dict) -> Experiment:
    """Builds the experiment that a configuration describes.

    Args:
        config: a nested dict with the keys of configs/common.py.

    Raises:
        InputError: whatever in it cannot work, before anything is trained.
    """
    config = settings.check(config)
    config, dataset, notes = open_dataset(config)
    train_ids, validation_ids = train_validation(dataset, config)
    mean, std = _moments(dataset, train_ids, config["model"]["options"])
    dataset, train_ids, notes = _with_copies(dataset, train_ids, config, notes)
    loaded = _loaded(config, dataset)
    notes = (*notes, *(stage.note for stage in loaded.values() if stage.note))
    order = batches.TrainOrder(train_ids, batch_size=config["batch_size"], seed=config["seed"])
    total_steps = config["epochs"] * order.steps_per_epoch
    optimizer_settings = config["optimizer"]
    rate = schedules.learning_rate(
        config["schedule"], lr=optimizer_settings["lr"], steps_per_epoch=order.steps_per_epoch, epochs=config["epochs"]
    )
    optimizer = schedules.optimizer(optimizer_settings, rate)
    _check_evaluation(config["evaluation"], dataset.image_shape)
    augmented.check(config["selection"]["data"], dataset.image_shape)
    description = _model(dataset, mean, std, config)
    apply, params, batch_stats = _split_model(description, dtype=config["compute_dtype"], remat=config["remat"])
    evaluate = _split_model(description, dtype="float32")[0] if config["remat"] or config["compute_dtype"] != "float32" else apply
    objective = objectives.penalized(_objective(config, params), l1=config["penalty"]["l1"], l2=config["penalty"]["l2"])
    awp = config["awp"]
    augmentation, others_of = augmentations(config, dataset, objective, loaded)
    one_device = step.make_step(
        apply,
        augmentation,
        objective,
        optimizer,
        num_classes=dataset.num_classes,
        others_of=others_of,
        attacked=evaluate,
        average=schedules.averaging(optimizer_settings, steps_per_epoch=order.steps_per_epoch),
        awp=step.WeightPerturbation(awp["gamma"], round(awp["warmup_epochs"] * order.steps_per_epoch), awp["loss"] == "full"),
    )
    return Experiment(
        config,
        dataset,
        train_ids,
        validation_ids,
        order,
        description,
        apply,
        evaluate,
        params,
        batch_stats,
        optimizer,
        rate,
        objective,
        {name: stage.arrays for name, stage in loaded.items() if stage.arrays},
        one_device,
        total_steps,
        notes,
    )


def initial_state(experiment: Experiment) -> state.TrainState:
    """Returns the state before the first step."""
    optimizer = experiment.config["optimizer"]
    averaged = bool(optimizer["ema"] or optimizer["swa_epoch"])
    objective = experiment.objective
    return state.create(
        experiment.params,
        experiment.batch_stats,
        experiment.optimizer,
        averaged=averaged,
        terms=objective.terms,
        memory=objective.memory(experiment.params),
    )


def _objective(config: dict, params: dict) -> objectives.Objective:
    options = dict(config["objective"])
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise InputError(f"config.objective.name must be the name of an objective, got {name!r}.")
    if name == "classification":
        if options:
            raise InputError(
                f"config.objective has {min(options)!r} beside 'classification', which has no options: its loss is config.loss."
            )
        return objectives.classification(registry.make(losses.TABLE, config["loss"], kind="loss"))
    if config["loss"] != "cross_entropy":
        raise InputError(f"config.loss = {config['loss']!r} is of the objective 'classification'; {name!r} is made of cross_entropy.")
    if name not in OBJECTIVES:
        raise registry.unknown("objective", str(name), ["classification", *OBJECTIVES])
    made = registry.make(OBJECTIVES, name, kind="objective", **options)()
    # Groups of weights are checked by drawing from them; nothing is computed.
    if options.get("groups"):
        jax.eval_shape(lambda: losses.weight_noise(jax.random.key(0), params, stddev=1.0, groups=options["groups"]))
    return made


def open_dataset(config: dict) -> tuple[dict, data.Dataset, tuple[str, ...]]:
    """Reads the data; the quick form falls back to digits where its own data are absent, and says so in the configuration and the notes."""
    wanted, notes = config["data"], ()
    if config["quick"]:
        notes = ("quick, not comparable",)
    if "dir" in wanted["options"]:
        raise InputError("the folder of the data is config.data.dir, not one of config.data.options.")
    try:
        return config, data.make(wanted["name"], dir=wanted["dir"], **wanted["options"]), notes
    except InputError as error:
        if not config["quick"]:
            raise
        size = 28 if config["model"]["name"] == "mnist_cnn" else 32
        fallback = {**wanted, "name": "digits", "options": {"size": size}}
        # Digits must not be mirrored.
        stages = tuple(name.replace("crop_flip", "crop") for name in config["augment"] if name != "flip")
        config = {**config, "data": fallback, "augment": stages}
        notes = (*notes, f"digits at {size} px in place of {wanted['name']}: {error}")
        return config, data.make("digits", dir="", size=size), notes


def train_validation(dataset: data.Dataset, config: dict) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids of the training split that are trained on, and those that are validated on."""
    wanted = config["data"]
    ids = splits.subset(len(dataset.train), wanted["limit_train"])
    train, validation = splits.train_validation(len(ids), fraction=wanted["validation"], seed=wanted["split_seed"])
    if isinstance(dataset.train, FileSource):  # others do not have classes of a few images, and may take long to list them
        labels = dataset.train.labels[ids]
        untrained = [dataset.class_names[label] for label in np.setdiff1d(labels, labels[train])]
        if untrained:
            warnings.warn(
                f"no image of {', '.join(untrained)} is trained on, the validation split took all of them; choose another "
                "config.data.split_seed or a smaller config.data.validation.",
                stacklevel=2,
            )
    return ids[train], ids[validation]


class _Stage(NamedTuple):
    """What a stage of the augmentation is given: its options, and what is read from files for it."""

    options: dict
    arrays: dict
    note: str = ""


def _loaded(config: dict, dataset: data.Dataset) -> dict[str, _Stage]:
    """Returns what each stage of config.augment is given; a folder that its options name is read."""
    unused = sorted(set(config["augment_options"]) - set(config["augment"]))
    if unused:
        raise InputError(f"config.augment_options names {unused[0]!r}, which is not among config.augment = {tuple(config['augment'])}.")
    given = {name: config["augment_options"].get(name, {}) for name in config["augment"]}
    for name, options in given.items():
        if not isinstance(options, dict):
            raise InputError(f"config.augment_options.{name} must hold the options of {name!r}, got {options!r}.")
    return {name: _FOLDERS.get(name, _as_given)(dict(options), dataset) for name, options in given.items()}


def _as_given(options: dict, dataset: data.Dataset) -> _Stage:
    return _Stage(options, {})


def _with_pictures(options: dict, dataset: data.Dataset) -> _Stage:
    """The user's mixing pictures, where there is a folder of them."""
    folder = options.pop("folder", "")
    if not folder:
        return _Stage(options, {})
    shape = enlarged(dataset.image_shape)
    found = pictures.read_pictures(folder, shape)
    options["mixers"] = None  # no fractals in their place, if they do not arrive
    return _Stage(options, {"pictures": found}, pictures.describe(folder, shape))


def _with_networks(options: dict, dataset: data.Dataset) -> _Stage:
    """DeepAugment's networks, and which distortions may be drawn."""
    folder = options.pop("folder", "")
    for name in {"layers", "params"} & set(options):
        raise registry.unknown("option of the stage 'deepaugment':", name, ("folder", "group_size", "distortions"))
    if not isinstance(folder, str) or not folder:
        raise InputError(
            "the stage 'deepaugment' takes its networks from config.augment_options.deepaugment.folder, a folder of copies that "
            f"launch/deepaugment.py wrote, got {folder!r}."
        )
    found, note = networks.read(folder, channels=dataset.image_shape[2])
    options["distortions"] = options.get("distortions") or networks.distortions(dataset.name)
    return _Stage(options | {"layers": tuple(network.layers for network in found)}, {"params": [network.params for network in found]}, note)


_FOLDERS: dict[str, Callable[[dict, data.Dataset], _Stage]] = {"pixmix": _with_pictures, "deepaugment": _with_networks}


def _check_evaluation(evaluation: dict, shape: tuple[int, int, int]) -> None:
    """Refuses what the evaluation of the finished run would refuse; the checkpoint carries it along."""
    benchmark = evaluation["benchmark"]
    if benchmark not in corruptions.NAMES:
        raise registry.unknown("benchmark", benchmark, corruptions.NAMES)
    metrics.corruption_reference(evaluation["reference"], benchmark=benchmark, names=corruptions.NAMES[benchmark])
    if corruptions.corruptible(shape):  # what no benchmark takes can be trained on all the same, for the suites clean and attacks
        corruptions.check_benchmark(benchmark, shape)
    for options in evaluation["sensor"].values():
        corruptions.check_options({"benchmark": "sensor", **options}, shape)


def _with_copies(
    dataset: data.Dataset, train_ids: np.ndarray, config: dict, notes: tuple[str, ...]
) -> tuple[data.Dataset, np.ndarray, tuple[str, ...]]:
    """Adds the distorted copies of the training part, where the configuration names some; nothing else changes."""
    if not config["data"]["copies"]:
        return dataset, train_ids, notes
    source, note = data.extended(dataset, config["data"]["copies"])
    return dataset._replace(train=source), source.ids(train_ids), (*notes, note)


def _model(dataset: data.Dataset, mean: list[float], std: list[float], config: dict) -> dict:
    derived = {
        "num_classes": dataset.num_classes,
        "image_shape": list(dataset.image_shape),
        "mean": mean,
        "std": std,
        "seed": config["seed"],
    }
    options = {name: value for name, value in config["model"]["options"].items() if value is not None}
    # mean and std may be given: weights of others want those that they were trained with.
    reserved = sorted(({"name", "dtype", "remat", *derived} - {"mean", "std"}) & set(options))
    if reserved:
        raise InputError(
            f"config.model.options.{reserved[0]} follows from the data, config.seed, config.compute_dtype or config.remat; leave it out."
        )
    return {"name": config["model"]["name"], **derived, **options}


def _split_model(description: dict, *, dtype: str, remat: bool = False) -> tuple[Callable, dict, dict]:
    try:
        return models.split(models.make(**description, dtype=dtype, remat=remat))
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"config.model = {description['name']!r} cannot be built: {' '.join(str(error).split())}.") from error


def _moments(
    dataset: data.Dataset, train_ids: np.ndarray, options: dict, *, most: int = 10_000, chunk: int = 500
) -> tuple[list[float], list[float]]:
    """Returns each channel's mean and standard deviation over (at most 10,000 of) the training images, in units of [0, 1].

    Where the model's options name both, nothing is read: large images take minutes.
    """
    if options.get("mean") is not None and options.get("std") is not None:
        return list(options["mean"]), list(options["std"])
    chosen = train_ids[:: -(-len(train_ids) // most)]
    count, total, squares = 0, 0.0, 0.0
    for start in range(0, len(chosen), chunk):
        images, _ = dataset.train.fetch(chosen[start : start + chunk])
        pixels = images.reshape(-1, images.shape[-1]).astype(np.float64) / 255
        count, total, squares = count + len(pixels), total + pixels.sum(0), squares + (pixels**2).sum(0)
    mean = total / count
    # A constant channel would be divided by zero.
    std = np.maximum(np.sqrt(np.maximum(squares / count - mean**2, 0)), 1e-2)
    return [round(float(m), 4) for m in mean], [round(float(s), 4) for s in std]


_LAST = ("spider", "esp")
_BEHIND = (*MIXING, "gaussian_noise", "none")  # the noise is that of the discriminative-loss paper, which comes after everything


def _check_order(names: list[str]) -> None:
    """Refuses SPIDER and ESP where their label would not be that of the distance by which they moved the image."""
    places = [place for place, name in enumerate(names) if name in _LAST]
    chain = f"config.augment and then config.method are {', '.join(names)}"
    if len(places) > 1:
        raise InputError(f"{chain}: images would be moved and labels softened twice; take 'spider' or 'esp', and once.")
    for name in names[places[0] + 1 :] if places else ():
        if name not in _BEHIND:
            raise InputError(
                f"{chain}: {names[places[0]]!r} softens labels by how far it moves the image, and {name!r} would change one of them again; put "
                f"{name!r} before it (only {', '.join(_BEHIND[:-1])} may follow)."
            )


def augmentations(
    config: dict, dataset: data.Dataset, objective: objectives.Objective, loaded: dict[str, _Stage] | None = None
) -> tuple[Callable, Callable | None]:
    """Returns the whole pipeline, the stages of config.augment and then the method, and that of the objective's further views.

    Options that cannot be are refused here. `loaded` is what was read from files for the stages, if it was read already.
    """
    loaded = _loaded(config, dataset) if loaded is None else loaded
    stages = [(name, loaded[name].options) for name in config["augment"]]
    arrays = {name: stage.arrays for name, stage in loaded.items()}
    method = dict(config["method"])
    if "name" not in method:
        raise InputError("config.method lacks its name.")
    stages.append((method.pop("name"), method))
    mixing = [name for name, _ in stages if name in MIXING]
    if mixing and config["objective"]["name"] == "discriminative":
        raise InputError(
            f"the objective 'discriminative' draws every image to its class, and {mixing[0]!r} makes images of two; leave one out."
        )
    if objective.mixed:
        pipeline, *more = augment.compose_views(stages, count=objective.views, perturbed=objective.mixed)
        further = [(one, 0) for one in more]  # drawn from the first view's keys: what comes before AugMix is the same
    else:
        pipeline = augment.compose(stages)
        further = [(pipeline, 2 + view) for view in range(1, objective.views)]
    _check_order([name for name, _ in stages])

    def others_of(keys, images, targets, **shared):
        return tuple(one(rng.stream(keys, number), images, targets, **shared) for one, number in further)

    def trial(arrays):
        count = config["batch_size"]
        batch = example_keys(jax.random.key(0), jnp.arange(count)), jnp.zeros((count, *dataset.image_shape))
        batch = *batch, jnp.ones((count, dataset.num_classes)) / dataset.num_classes
        return pipeline(*batch, arrays=arrays), others_of(*batch, arrays=arrays)

    # Nothing is computed; kernels check their options when they are traced.
    try:
        jax.eval_shape(trial, arrays)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        names = [name for name, _ in stages[:-1]]
        raise InputError(f"config.augment = {names} with config.method = {config['method']}: {' '.join(str(error).split())}.") from error
    return pipeline, others_of if further else None
