"""What every configuration starts from, and how the text behind ':' of --config=FILE:TEXT is read.

A configuration holds names and numbers only. Steps, class counts and image shapes are worked out from it by
`robustjax.train.build`, after the overrides of the command line. Every key is listed in `base`; a key that is not read
is refused.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from robustjax.attacks import presets

# Networks of the quick form: the same code, small enough for seconds on a CPU.
QUICK_MODEL_OPTIONS = {
    "wide_resnet": {"depth": 10, "width": 1},
    "resnet18": {"width": 8},
    "resnet50": {"width": 4, "blocks": (1, 1, 1)},
    "densenet_40_12": {"depth": 10, "growth": 4},
    "densenet_bc_100_12": {"depth": 10, "growth": 4},
    "allconv": {"width": 8},
    "small_cnn": {"width": 8},
    "mnist_cnn": {},
    "preact_resnet18": {"width": 8},
    "vgg16_bn": {"width": 8, "groups": (1, 1, 1)},
    "mobilenet_v2": {"width": 0.25, "blocks": (1, 1, 1, 1)},
    "mobilenet_v3_small": {"width": 0.25, "blocks": (1, 1, 1)},
    "mobilenet_v3_large": {"width": 0.25, "blocks": (1, 1, 1)},
}


def base() -> ml_collections.ConfigDict:
    """Returns a configuration with every key; a file changes what its method and data need."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.epochs = 100
    config.batch_size = 128
    config.parallel = "shard_map"  # or 'pmap': the same step, the same numbers
    config.compute_dtype = "float32"  # of the network in training: or 'bfloat16'
    config.remat = False  # compute each block of the network again on the way back: less memory on accelerators, more time
    config.init = ""  # whose weights to begin with: folder of a finished run (its best ones), or torch's file; empty for random ones
    config.steps_per_dispatch = 0  # 0: one on CPU, 50 elsewhere
    config.allow_slow = False  # go on without an accelerator even if it would take days
    config.quick = False

    # limit_train (validation included) and limit_test: use only that many examples (0: all). stream: 'auto' keeps what fits on the device.
    # copies: folder of distorted copies that launch/deepaugment.py wrote, to be trained on beside the originals; empty for none.
    config.data = ml_collections.ConfigDict(
        {
            "name": "digits",
            "dir": "",
            "options": {},
            "validation": 0.2,
            "split_seed": 0,
            "limit_train": 0,
            "limit_test": 0,
            "stream": "auto",
            "copies": "",
        }
    )
    config.model = ml_collections.ConfigDict({"name": "small_cnn", "options": {}})
    config.augment = ("crop",)  # stages before the method, in order
    config.augment_options = ml_collections.ConfigDict()  # {stage: {option: value}}
    config.method = ml_collections.ConfigDict({"name": "none"})  # the last stage, with its options beside its name
    config.loss = "cross_entropy"  # of the objective 'classification'
    config.objective = ml_collections.ConfigDict(
        {"name": "classification"}
    )  # or 'madry', 'trades', 'rat' with their options, see train.adversarial
    # l1 * sum |w| + l2 / 2 * sum w^2 over the kernels, added to the loss; see train.objectives.penalized.
    config.penalty = ml_collections.ConfigDict({"l1": 0.0, "l2": 0.0})
    # Adversarial weight perturbation; gamma 0 for none. loss: 'base' climbs an objective's loss without its Taylor terms, 'full' with them.
    config.awp = ml_collections.ConfigDict({"gamma": 0.0, "warmup_epochs": 0.0, "loss": "base"})
    config.optimizer = ml_collections.ConfigDict(
        {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0, "clip_norm": 0.0, "ema": 0.0, "swa_epoch": 0}
    )
    # warmup_epochs is linear from 0; boundaries (in epochs) and factor are of 'step'.
    config.schedule = ml_collections.ConfigDict({"name": "cosine", "warmup_epochs": 0, "boundaries": (), "factor": 0.1})
    config.validate_epochs = 1  # validate and save this often
    # The checkpoint to keep is the one with the best accuracy on the validation images: 'clean' ones; 'cbar', each of them under one
    # corruption of C-bar; or 'all', each under every corruption and severity of C-bar. With an attack (see `attack`), the accuracy under it.
    config.selection = ml_collections.ConfigDict({"data": "clean", "attack": {}})
    # reference: whose errors mCE is divided by; 'auto' (AlexNet for imagenet_c, else nobody), 'none' or a name. sensor: what the suite
    # 'sensor' measures, {item: {"name": corruption, option: value}}; empty for a standard set that goes with the size of the images.
    # attacks: by PGD, see `attack`. autoattack: threats such as 'linf:8/255' (none: those of the attacks) and the version. geometry: other
    # settings of thickness, flatness and curvature than robustjax.evaluate.suites.GEOMETRY, {'thickness': {'class_i': 'label'}}. noise: other
    # levels than the paper's for the data, {'gaussian': (0.03, 0.06), 'uniform': (), 'repeats': 5}, see suites.noise_settings.
    config.evaluation = ml_collections.ConfigDict(
        {
            "batch_size": 500,
            "benchmark": "cifar_c",
            "reference": "auto",
            "sensor": {},
            "attacks": {},
            "autoattack": {"threats": (), "version": "standard"},
            "geometry": {},
            "noise": {},
        }
    )
    return config


def attack(norm: str, eps: float, step_size: float, steps: int) -> dict:
    """Returns one PGD setting, in units of [0, 1] pixels, with absolute step size; a dict, of which each configuration makes its own."""
    return {"norm": norm, "eps": eps, "step_size": step_size, "steps": steps}


def preset(name: str) -> dict:
    """Returns the PGD setting of a paper, see robustjax.attacks.presets."""
    printed = presets.PRESETS[name]
    return attack(*(printed[key] for key in ("norm", "eps", "step_size", "steps")))


def parse(text: str | None, **defaults: str) -> dict:
    """Reads 'quick,method=no_ls' into {'quick': True, 'method': 'no_ls'}.

    Args:
        text: what stands behind ':' of the configuration's path, or nothing.
        **defaults: the options a file knows, with their defaults; 'quick' is always known.

    Returns:
        dict of the options.

    Raises:
        ValueError: for an unknown option.
    """
    options: dict = {"quick": False, **defaults}
    for part in filter(None, (part.strip() for part in (text or "").split(","))):
        name, _, value = part.partition("=")
        if name not in options:
            raise ValueError(f"unknown option {name!r} of this configuration; known: {', '.join(sorted(options))}.")
        if name == "quick" and value:
            raise ValueError(f"'quick' takes no value, got {part!r}; leave it out for the full form.")
        options[name] = True if name == "quick" else value
    return options


def with_method(text: str | None, methods: dict[str, dict], train, **defaults: str) -> ml_collections.ConfigDict:
    """Returns the configuration of a file whose methods share one way of training.

    Args:
        text: what stands behind ':' of the configuration's path.
        methods: {method: its options}; None for a number that the kernel works out, unless the command line gives it.
        train: returns the training recipe (see configs/recipes.py), from the options of `defaults` other than the method.
        **defaults: the options that the file knows, `method` among them.

    Raises:
        ValueError: for an unknown option or method.
    """
    options = parse(text, **defaults)
    quick, name = options.pop("quick"), options.pop("method")
    if name not in methods:
        raise ValueError(f"unknown method {name!r} of this configuration; known: {', '.join(sorted(methods))}.")
    config = train(**options)
    method = {option: placeholder(float) if value is None else value for option, value in methods[name].items()}
    config.method = ml_collections.ConfigDict({"name": name, **method})
    return finish(config, quick=quick)


def with_options(text: str | None, train, **defaults: str) -> ml_collections.ConfigDict:
    """Returns the configuration of a file whose options all belong to its training recipe.

    Args:
        text: what stands behind ':' of the configuration's path.
        train: returns the training recipe, from the options.
        **defaults: the options that the file knows.

    Raises:
        ValueError: for an unknown option, or by the recipe for an unknown value.
    """
    options = parse(text, **defaults)
    quick = options.pop("quick")
    return finish(train(**options), quick=quick)


def finish(config: ml_collections.ConfigDict, *, quick: bool) -> ml_collections.ConfigDict:
    """Applies what every file shares: the quick form makes any configuration a run of seconds on a CPU."""
    if quick:
        config.quick = True
        config.epochs = 2
        config.batch_size = 64
        config.validate_epochs = 1
        config.selection.data = "clean"  # the programs of ten corruptions take longer to compile than the whole run
        config.data.limit_train = 512
        config.data.limit_test = 128
        _make_small(config.model)
        config.schedule.boundaries = tuple(1 for _ in config.schedule.boundaries[:1])
        config.optimizer.swa_epoch = min(config.optimizer.swa_epoch, 1)
        config.awp.warmup_epochs = min(config.awp.warmup_epochs, 1.0)
        config.data.validation = max(config.data.validation, 0.1)
        config.evaluation.batch_size = 128
    return config


def _make_small(model: ml_collections.ConfigDict) -> None:
    """Makes a network small; what goes with the data, or is part of the method, stays, and may be set on the command line as before."""
    for key in [key for key in model.options if key not in ("stem", "mean", "std", "embedding")]:
        del model.options[key]
    model.options.update(QUICK_MODEL_OPTIONS[model.name])
    if "embedding" in model.options:
        model.options.embedding = min(model.options.embedding, 16)
