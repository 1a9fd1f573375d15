"""From a configuration to an experiment: data, splits, network, augmentation, step. Derived values are computed here only."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from robustjax import augment, data, losses, models
from robustjax.core import example_keys, registry
from robustjax.core.check import InputError
from robustjax.data import batches, splits
from robustjax.train import objectives, schedules, settings, step


class Experiment(NamedTuple):
    """What a configuration means, once data and derived values are known."""

    config: dict  # checked, and resolved: names the data that is really used
    dataset: data.Dataset
    train_ids: np.ndarray
    validation_ids: np.ndarray
    order: batches.TrainOrder
    model: dict  # arguments of models.make: all that evaluation needs to build it again
    apply: Callable
    params: dict
    batch_stats: dict
    optimizer: optax.GradientTransformation
    rate: optax.Schedule
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
    config, dataset, notes = _dataset(config)
    train_ids, validation_ids = _split(dataset, config)
    order = batches.TrainOrder(train_ids, batch_size=config["batch_size"], seed=config["seed"])
    total_steps = config["epochs"] * order.steps_per_epoch
    optimizer_settings = config["optimizer"]
    rate = schedules.learning_rate(
        config["schedule"], lr=optimizer_settings["lr"], steps_per_epoch=order.steps_per_epoch, epochs=config["epochs"]
    )
    optimizer = schedules.optimizer(optimizer_settings, rate)
    description = _model(dataset, train_ids, config)
    apply, params, batch_stats = models.split(models.make(**description))
    objective = objectives.classification(registry.make(losses.TABLE, config["loss"], kind="loss"))
    one_device = step.make_step(
        apply, _augment(config, dataset), objective, optimizer, num_classes=dataset.num_classes, ema=optimizer_settings["ema"]
    )
    return Experiment(
        config,
        dataset,
        train_ids,
        validation_ids,
        order,
        description,
        apply,
        params,
        batch_stats,
        optimizer,
        rate,
        one_device,
        total_steps,
        notes,
    )


def _dataset(config: dict) -> tuple[dict, data.Dataset, tuple[str, ...]]:
    """Reads the data; the quick form falls back to digits where its own data are absent, and says so."""
    wanted, notes = config["data"], ()
    if config["quick"]:
        notes = ("quick, not comparable",)
    try:
        return config, data.make(wanted["name"], dir=wanted["dir"], **wanted["options"]), notes
    except InputError as error:
        if not config["quick"]:
            raise
        size = 28 if config["model"]["name"] == "mnist_cnn" else 32
        fallback = {**wanted, "name": "digits", "options": {"size": size}}
        # Digits must not be mirrored.
        config = {**config, "data": fallback, "augment": tuple(name.replace("crop_flip", "crop") for name in config["augment"])}
        notes = (*notes, f"digits at {size} px in place of {wanted['name']}: {error}")
        return config, data.make("digits", dir="", size=size), notes


def _split(dataset: data.Dataset, config: dict) -> tuple[np.ndarray, np.ndarray]:
    wanted = config["data"]
    ids = splits.subset(len(dataset.train), wanted["limit_train"])
    train, validation = splits.train_validation(len(ids), fraction=wanted["validation"], seed=wanted["split_seed"])
    return ids[train], ids[validation]


def _model(dataset: data.Dataset, train_ids: np.ndarray, config: dict) -> dict:
    mean, std = _moments(dataset, train_ids)
    return {
        "name": config["model"]["name"],
        "num_classes": dataset.num_classes,
        "image_shape": list(dataset.image_shape),
        "mean": mean,
        "std": std,
        "seed": config["seed"],
        "dtype": config["compute_dtype"],
        **config["model"]["options"],
    }


def _moments(dataset: data.Dataset, train_ids: np.ndarray, sample: int = 10_000) -> tuple[list[float], list[float]]:
    """Returns each channel's mean and standard deviation over (at most 10,000 of) the training images, in units of [0, 1]."""
    images, _ = dataset.train.fetch(train_ids[:: max(1, len(train_ids) // sample)])
    pixels = images.reshape(-1, images.shape[-1]).astype(np.float64) / 255
    # A constant channel would be divided by zero.
    return [round(float(m), 4) for m in pixels.mean(0)], [round(max(float(s), 1e-2), 4) for s in pixels.std(0)]


def _augment(config: dict, dataset: data.Dataset) -> Callable:
    """Returns the whole pipeline: the stages of config.augment, then the method; options that cannot be are refused here."""
    unused = sorted(set(config["augment_options"]) - set(config["augment"]))
    if unused:
        raise InputError(f"config.augment_options names {unused[0]!r}, which is not among config.augment = {tuple(config['augment'])}.")
    stages = [(name, config["augment_options"].get(name, {})) for name in config["augment"]]
    method = dict(config["method"])
    if "name" not in method:
        raise InputError("config.method lacks its name.")
    pipeline = augment.compose([*stages, (method.pop("name"), method)])

    def trial():
        keys = example_keys(jax.random.key(0), jnp.arange(1))
        return pipeline(keys, jnp.zeros((1, *dataset.image_shape)), jnp.ones((1, dataset.num_classes)) / dataset.num_classes)

    # Nothing is computed; kernels check their options when they are traced.
    try:
        jax.eval_shape(trial)
    except TypeError as error:
        raise InputError(f"the augmentation {[name for name, _ in stages]} with config.method = {config['method']}: {error}.") from error
    return pipeline
