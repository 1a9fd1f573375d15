"""How networks are trained on each data set: shared by the methods and by the baselines they are compared with.

What the papers do not print is marked with its source: [AugMix], [PixMix] and [AugMax] are the released code of Hendrycks et al. 2020 and
2022 and of Wang et al. 2021, [ours] was chosen here.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from configs import common
from configs.augmentations import augmented, whole_objective
from robustjax.evaluate import labels

# SPIDER, appendix E.1.1. L2: the step is printed as an absolute 1/800, which moves at most 0.025 in 20 steps; 1/80 (a fortieth of
# the radius, a common default) is measured beside it, since the print may be a slip.
CIFAR_ATTACKS = {
    "pgd_l2": common.preset("spider_l2_pgd20"),
    "pgd_l2_step_1_80": common.preset("spider_l2_pgd20_long"),
    "pgd_linf": common.preset("spider_linf_pgd7"),
}
# SPIDER, appendix E.1.1, likewise.
TINY_IMAGENET_ATTACKS = {**CIFAR_ATTACKS, "pgd_linf": common.preset("spider_linf_pgd3")}
IMAGENET_ATTACKS = {**CIFAR_ATTACKS, "pgd_linf": common.preset("spider_linf_pgd2")}
# [ours]: radii at which small networks on small digits are neither untouched nor all broken.
DIGITS_ATTACKS = {
    "pgd_l2": common.attack("l2", 0.5, 0.0625, 20),
    "pgd_linf": common.attack("linf", 0.05, 0.0125, 10),
}
MNIST_ATTACKS = {
    "pgd_l2": common.attack("l2", 1.5, 0.2, 20),
    "pgd_linf": common.attack("linf", 0.1, 0.025, 10),
}


def digits(*, augment: str = "none"):
    """scikit-learn's digits at 16x16 pixels, small CNN, 40 epochs: seconds on a CPU. No mirroring. [ours]

    Args:
        augment: see configs/augmentations.py.
    """
    config = common.base()
    config.data.name = "digits"
    config.model = {"name": "small_cnn", "options": {"width": 16}}
    config.augment = ("crop",)
    config.augment_options = {"crop": {"pad": 1}}
    config.epochs = 40
    config.batch_size = 64
    config.validate_epochs = 5
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.evaluation.batch_size = 360
    config.evaluation.attacks = DIGITS_ATTACKS
    return augmented(config, augment)


def cifar(name: str, *, epochs: int, model: str = "wrn", augment: str = "none"):
    """CIFAR: WRN-40-2, SGD 0.9 at 0.1 with a cosine (SPIDER E.1.1, ESP 4.2); crop and flip, batch 128, decay 5e-4, Nesterov [AugMix].

    The checkpoint is selected on validation images under the corruptions of C-bar (SPIDER E.1.1; ESP does not say).

    Args:
        name: 'cifar10' or 'cifar100'.
        epochs: of the paper.
        model: 'wrn' (the papers'), 'resnet18', those of SPIDER's Table 8 ('wrn_40_1', 'densenet', 'allconv'), or 'small': a small CNN
            for 10 epochs, for a CPU [ours].
        augment: see configs/augmentations.py.
    """
    config = common.base()
    config.data.name = name
    models = {
        "wrn": {"name": "wide_resnet", "options": {"depth": 40, "width": 2}},
        "resnet18": {"name": "resnet18", "options": {}},
        "wrn_40_1": {"name": "wide_resnet", "options": {"depth": 40, "width": 1}},
        "densenet": {"name": "densenet_40_12", "options": {}},
        "allconv": {"name": "allconv", "options": {}},
        "small": {"name": "small_cnn", "options": {"width": 32}},
    }
    config.model = _one_of(model, models)
    config.augment = ("crop_flip",)
    config.epochs = 10 if model == "small" else epochs
    config.selection.data = "cbar"
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.evaluation.attacks = CIFAR_ATTACKS
    return augmented(config, augment)


def tiny_imagenet(*, epochs: int, lr: float, boundaries: tuple[int, ...], batch_size: int, model: str = "resnet18", augment: str = "none"):
    """Tiny-ImageNet: ResNet-18, SGD 0.9 (SPIDER E.1.1, ESP 4.2); crop by 4 pixels and flip, decay 5e-4 [AugMax].

    The network is CIFAR's form of ResNet-18, with one 3x3 convolution before the blocks [ours]; AugMax gives that one a stride of 2, which
    takes a quarter of the time. Selected as CIFAR's (SPIDER E.1.1; ESP does not say).

    Args:
        epochs: of the paper, like the next two.
        lr: the first rate.
        boundaries: epochs at which it falls to a tenth; none for a cosine.
        batch_size: see the configuration.
        model: 'resnet18' (the papers'), or 'small': a small CNN for 10 epochs of the same schedule, for a CPU [ours].
        augment: see configs/augmentations.py.
    """
    config = common.base()
    config.data.name = "tiny_imagenet"
    config.model = _one_of(
        model, {"resnet18": {"name": "resnet18", "options": {"stem": "cifar"}}, "small": {"name": "small_cnn", "options": {"width": 32}}}
    )
    config.augment = ("crop_flip",)
    config.epochs = 10 if model == "small" else epochs
    config.batch_size = batch_size
    config.selection.data = "cbar"
    config.optimizer.lr = lr
    config.optimizer.weight_decay = 5e-4
    if boundaries:
        config.schedule.name = "step"
        config.schedule.boundaries = tuple(config.epochs * boundary // epochs for boundary in boundaries)
    config.evaluation.benchmark = "tiny_imagenet_c"
    config.evaluation.attacks = TINY_IMAGENET_ATTACKS
    return augmented(config, augment)


def imagenet(*, data: str = "tfds", model: str = "resnet18", augment: str = "none"):
    """ImageNet: ResNet-18, SGD 0.9 at 0.01 with a cosine, 90 epochs (SPIDER E.1.1); batch 256, decay 5e-4, Nesterov [PixMix, of
    the same rate].

    Random-resized crops of 224 and flips; shorter side 256 and centre in validation and testing [AugMix, PixMix]. Images are normalised by
    torchvision's constants. AugMix and PixMix are as strong as their released code has them for ImageNet, where that is another
    strength than on CIFAR. Selected on C-bar (SPIDER E.1.1): 20% of the training images under ten corruptions take long, so that this is done
    every fifth epoch [ours].

    Args:
        data: 'tfds' for TFDS's imagenet2012, 'folder' for class folders, <dir>/train/<wnid>/ and <dir>/val/<wnid>/.
        model: 'resnet18' (the paper's), or 'resnet50'.
        augment: see configs/augmentations.py.
    """
    config = common.base()
    config.data.name = _one_of(data, {"tfds": "imagenet2012", "folder": "image_folder"}, "data")
    config.data.options = {"size": 224, "crop": "random_resized"}
    moments = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    stem = _one_of(model, {name: {"stem": "imagenet"} for name in ("resnet18", "resnet50")})
    config.model = {"name": model, "options": stem | moments}
    config.augment = ("flip",)
    config.epochs = 90
    config.batch_size = 256
    config.validate_epochs = 5
    config.selection.data = "cbar"
    config.optimizer.lr = 0.01
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.evaluation.batch_size = 256
    config.evaluation.benchmark = "imagenet_c"
    config.evaluation.attacks = IMAGENET_ATTACKS
    config = augmented(config, augment)
    for stage, options in labels.IMAGENET.items():
        if stage in config.augment_options:
            config.augment_options[stage].update(options)
    if "cutout" in config.augment_options:
        config.augment_options.cutout.size = 112
    return config


def _one_of(name: str, known: dict, option: str = "model"):
    if name not in known:
        raise ValueError(f"unknown {option} {name!r} of this configuration; known: {', '.join(known)}.")
    return known[name]


# RAT, section 5. threat: (as text, step of the inner maximisation, attacks of the evaluation). The released code of TRADES and AWP for L2
# ignores its step and takes 2 radius / steps = 25.6/255: --config.objective.step_size=0.1004 for that.
ADVERSARIES = {
    "linf": ("linf:8/255", labels.THREATS["linf:8/255"], {"pgd20_linf": common.preset("rat_linf_pgd20")}),
    "l2": ("l2:128/255", labels.THREATS["l2:128/255"], {"pgd20_l2": common.preset("rat_l2_pgd20")}),
}
_ADVERSARIAL_MODELS = {
    "preact": {"name": "preact_resnet18", "options": {}},
    "wrn": {"name": "wide_resnet", "options": {"depth": 34, "width": 10}},
    "vgg16": {"name": "vgg16_bn", "options": {}},
    "mobilenet": {"name": "mobilenet_v2", "options": {}},
    "small": {"name": "small_cnn", "options": {"width": 16}},
}
# eta is 0.3 with the first term alone and 0.2 with both (RAT, section 5.1); the released heuristic has an alpha of 0.2.
_RAT = {"0": {"name": "trades"}, "1": {"name": "rat", "order": 1, "eta": 0.3}, "2": {"name": "rat", "order": 2, "eta": 0.2}}
_OTHERS = {"madry": {"name": "madry"}, "released": {"name": "rat_released"}}


ADVERSARIAL = {"method": "rat", "model": "preact", "threat": "linf", "order": "2", "awp": "off", "average": "none"}


def adversarial(name: str, *, method: str, model: str, threat: str, order: str, awp: str, average: str):
    """Adversarial training as in RAT, section 5: SGD 0.9, batch 128, decay 5e-4, 200 epochs, 0.1 (SVHN: 0.01) / 10 at epochs 100 and 150.

    The inner maximisation takes 10 steps. The checkpoint is selected by PGD-20 on 1,000 validation images, as many as Rice et al. 2020
    hold out; the paper reports "the highest robustness that ever achieved at different checkpoints". SVHN is not mirrored [ours].

    Args:
        name: 'cifar10', 'cifar100' or 'svhn_cropped'.
        method: 'rat' (TRADES at order 0), 'madry' or 'released' (the heuristic of the paper's code in place of Taylor terms).
        model: 'preact', 'wrn', 'vgg16', 'mobilenet', or 'small': a small CNN for 20 epochs, for a CPU [ours].
        threat: 'linf' or 'l2'.
        order: '0', '1' or '2': the highest Taylor term.
        awp: 'off' or 'on': gamma 5e-3 for TRADES and RAT, 1e-2 for 'madry', from epoch 10 on (Wu et al. 2020).
        average: 'none'; 'swa': the mean of the weights from the first drop of the rate on (Chen et al. 2021); 'ema': decay 0.999 a step.
    """
    config = common.base()
    chosen = {"method": (method, ("rat", *_OTHERS)), "model": (model, _ADVERSARIAL_MODELS), "threat": (threat, ADVERSARIES)}
    chosen |= {"order": (order, _RAT), "awp": (awp, ("off", "on")), "average": (average, ("none", "swa", "ema"))}
    for option, (value, known) in chosen.items():
        if value not in known:
            raise ValueError(f"unknown {option} {value!r} of this configuration; known: {', '.join(known)}.")
    ball, step_size, attacks = ADVERSARIES[threat]
    config.data.name = name
    config.data.validation = 0.02
    config.model = _ADVERSARIAL_MODELS[model]
    config.augment = ("crop",) if name == "svhn_cropped" else ("crop_flip",)
    objective = _RAT[order] if method == "rat" else _OTHERS[method]
    config.objective = whole_objective(**objective, threat=ball, step_size=step_size)
    if method == "released" and name == "cifar100":
        config.objective.confusion = 0.98  # as released, for 100 classes
    if awp == "on":
        config.awp.gamma = 1e-2 if method == "madry" else 5e-3
        config.awp.warmup_epochs = 10.0
    config.epochs = 20 if model == "small" else 200
    config.optimizer.lr = 0.01 if name == "svhn_cropped" else 0.1
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = "step"
    config.schedule.boundaries = (config.epochs // 2, 3 * config.epochs // 4)
    if average == "swa":
        config.optimizer.swa_epoch = config.schedule.boundaries[0]
    elif average == "ema":
        config.optimizer.ema = 0.999
    config.selection.attack = dict(next(iter(attacks.values())))
    config.evaluation.attacks = attacks
    config.evaluation.autoattack.threats = (ball,)
    return config


def mnist(*, augment: str = "none"):
    """MNIST: the network of Rony et al. 2019, SGD 0.9 at 0.1 with a cosine (ESP 4.2); 100 epochs, crop, batch 128 [ours]. No mirroring.

    Args:
        augment: see configs/augmentations.py.
    """
    config = common.base()
    config.data.name = "mnist"
    config.model = {"name": "mnist_cnn", "options": {}}
    config.augment = ("crop",)
    config.augment_options = {"crop": {"pad": 2}}
    config.epochs = 100
    config.optimizer.weight_decay = 5e-4
    config.evaluation.benchmark = "mnist_c"
    config.evaluation.attacks = MNIST_ATTACKS
    return augmented(config, augment)


# "Discriminative loss with Gaussian noise injection", section 7.1 and Table 5: the method's objective, and the last stage of augmentation
# (of the noisy view too, where there is one). The ablations of Table 5 act on clean data alone, and their weights are the printed ones.
_CLEAN_ONLY = {"name": "discriminative", "noisy": 0.0, "alpha": 1.0}
NOISE_METHODS = {
    "full": {"name": "discriminative"},
    "normal": None,
    "noisy": None,
    "clean_noisy": {"name": "clean_and_noisy"},
    "stability": {"name": "stability"},
    "clean": _CLEAN_ONLY,
    "center": {**_CLEAN_ONLY, "beta": 0.0},
    "margin": {**_CLEAN_ONLY, "alpha": 0.0},
    "reg0": {**_CLEAN_ONLY, "gamma_reg": 0.0},
    "reg1": {**_CLEAN_ONLY, "gamma_reg": 1.0},
}
DISCRIMINATIVE = {"method": "full", "weighting": "released", "augment": "none", "perturb": "none"}
# As in configs/spider/cifar10.py and configs/esp/cifar10.py, in L2 units of [0, 1] pixels.
_PERTURBATIONS = {"spider": {"tau": 8.0, "xi": 0.4}, "esp": {"epsilon": 4.0, "tau": 4.0, "xi": 0.426}}


def discriminative(config, *, method: str, weighting: str, augment: str, perturb: str, stddev: float, delta_d: float = 5.0):
    """Sets the method of the discriminative-loss paper in a recipe of its data, and what is measured: the suite noise.

    Args:
        config: the data's recipe.
        method: 'full' (the paper's own), 'normal', 'noisy', 'clean_noisy' or 'stability'; of Table 5, on clean data alone: 'clean',
            'center' (compactness alone), 'margin' (alone), 'reg0' and 'reg1' (gamma_reg 0 and 1).
        weighting: of compactness and noisy alignment in 'full': 'released', 1/2 and 1/2, or 'paper', 1 and 1.
        augment: see configs/augmentations.py; in both views. AugMix's consistency loss goes with 'normal' and 'noisy' alone.
        perturb: 'none', 'spider' or 'esp': after the other stages of augmentation, in both views.
        stddev: of the noise in training, in units of [0, 1] pixels.
        delta_d: distance that the margin asks for.
    """
    chosen = {"method": (method, NOISE_METHODS), "weighting": (weighting, ("released", "paper"))}
    for option, (value, known) in (chosen | {"perturb": (perturb, ("none", *_PERTURBATIONS))}).items():
        if value not in known:
            raise ValueError(f"unknown {option} {value!r} of this configuration; known: {', '.join(known)}.")
    config = augmented(config, augment)
    if NOISE_METHODS[method] is not None and config.objective.name == "augmix_jsd":
        raise ValueError(f"augment={augment} brings a loss of its own, and method={method} has another; take augmix_nojsd.")
    if perturb != "none":
        config.augment = (*config.augment, perturb)
        config.augment_options[perturb] = _PERTURBATIONS[perturb]
    if weighting != "released" and method != "full":
        raise ValueError(f"weighting={weighting} is of method=full; method={method} has no such weights.")
    objective = NOISE_METHODS[method]
    if method == "noisy":
        config.method = ml_collections.ConfigDict({"name": "gaussian_noise", "std": stddev})
    if objective is None:
        return config
    options = {"stddev": stddev} | ({"delta_d": delta_d} if objective["name"] == "discriminative" else {})
    if method == "full" and weighting == "paper":
        options |= {"alpha": 1.0, "noisy": 1.0}
    config.objective = ml_collections.ConfigDict(whole_objective(**{**objective, **options}))
    return config


def resnet18_of_noise(name: str, *, model: str, **options):
    """ResNet-18 with a linear layer to 128 features, 200 epochs of batch 64, SGD 1e-3 / 5 at 60, 120, 160, decay 5e-4 (appendix H.1).

    Args:
        name: 'cifar10' or 'svhn_cropped'. Both are cropped and mirrored, as the paper has it.
        model: 'resnet18', or 'small': a small CNN for 20 epochs at a larger rate, for a CPU [ours].
        **options: of `discriminative`.
    """
    models = {
        "resnet18": {"name": "resnet18", "options": {"embedding": 128}},
        "small": {"name": "small_cnn", "options": {"width": 16, "embedding": 32}},
    }
    config = common.base()
    config.data.name = name
    config.data.validation = 0.1
    config.model = _one_of(model, models)
    config.augment = ("crop_flip",)
    config.batch_size = 64
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    if model == "small":
        config.epochs = 20
        config.optimizer.lr = 0.02
    else:
        config.epochs = 200
        config.optimizer.lr = 1e-3
        config.schedule.name = "step"
        config.schedule.boundaries = (60, 120, 160)
        config.schedule.factor = 0.2
    return discriminative(config, stddev={"cifar10": 0.06, "svhn_cropped": 0.15}[name], **options)


def folder_of_noise(*, model: str, **options):
    """MobileNetV3 from ImageNet's weights, 70 epochs, Adam 1e-4 / 10 at 50, jitter 0.3, rotation 10, perspective, flip (appendix H.2).

    The batch, 64, is that of the paper's other data. Noise is 40/255 and delta_d 3, of the paper's road images of 400x500.

    Args:
        model: 'large' or 'small' MobileNetV3; the paper does not say which.
        **options: of `discriminative`.
    """
    if model not in ("large", "small"):
        raise ValueError(f"unknown model {model!r} of this configuration; known: large, small.")
    config = common.base()
    config.data.name = "image_folder"
    config.data.options = {"size": (400, 500), "resize": "stretch", "colour": "rgb", "broken": "refuse", "test_share": placeholder(float)}
    # Moments of the data, or what weights of others were trained with.
    config.model = {"name": f"mobilenet_v3_{model}", "options": {"mean": placeholder(tuple), "std": placeholder(tuple)}}
    config.augment = ("color_jitter", "rotation", "perspective", "flip")
    config.augment_options = {"color_jitter": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3}, "rotation": {"degrees": 10.0}}
    config.epochs = 70
    config.batch_size = 64
    config.optimizer.name = "adam"
    config.optimizer.lr = 1e-4
    config.schedule.name = "step"
    config.schedule.boundaries = (50,)
    config.evaluation.batch_size = 64
    return discriminative(config, stddev=40 / 255, delta_d=3.0, **options)


def digits_of_noise(**options):
    """Digits, with 32 features before the last layer, a rate of 0.02 and noise of 0.15. [ours]"""
    config = digits()
    config.model = {"name": "small_cnn", "options": {"width": 16, "embedding": 32}}
    config.optimizer.lr = 0.02
    return discriminative(config, stddev=0.15, **options)
