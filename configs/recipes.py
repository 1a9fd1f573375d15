"""How networks are trained on each data set: shared by the methods and by the baselines they are compared with.

What the papers do not print is marked with its source: [AugMix] is Hendrycks et al. 2020's released code, [ours] was chosen here.
"""

from configs import common

# SPIDER, appendix E.1.1. L2: the step is printed as an absolute 1/800, which moves at most 0.025 in 20 steps; 1/80 (a fortieth of
# the radius, a common default) is measured beside it, since the print may be a slip.
CIFAR_ATTACKS = {
    "pgd_l2": common.preset("spider_l2_pgd20"),
    "pgd_l2_step_1_80": common.preset("spider_l2_pgd20_long"),
    "pgd_linf": common.preset("spider_linf_pgd7"),
}
# [ours]: radii at which small networks on small digits are neither untouched nor all broken.
DIGITS_ATTACKS = {
    "pgd_l2": common.attack("l2", 0.5, 0.0625, 20),
    "pgd_linf": common.attack("linf", 0.05, 0.0125, 10),
}
MNIST_ATTACKS = {
    "pgd_l2": common.attack("l2", 1.5, 0.2, 20),
    "pgd_linf": common.attack("linf", 0.1, 0.025, 10),
}


def digits():
    """scikit-learn's digits at 16x16 pixels, small CNN, 40 epochs: seconds on a CPU. No mirroring. [ours]"""
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
    return config


def cifar(name: str, *, epochs: int, model: str = "wrn"):
    """CIFAR: WRN-40-2, SGD 0.9 at 0.1 with a cosine (SPIDER E.1.1, ESP 4.2); crop and flip, batch 128, decay 5e-4, Nesterov [AugMix].

    The checkpoint is selected on validation images under the corruptions of C-bar (SPIDER E.1.1; ESP does not say).

    Args:
        name: 'cifar10' or 'cifar100'.
        epochs: of the paper.
        model: 'wrn' (the papers'), 'resnet18', or 'small': a small CNN for 10 epochs, for a CPU [ours].
    """
    config = common.base()
    config.data.name = name
    models = {
        "wrn": {"name": "wide_resnet", "options": {"depth": 40, "width": 2}},
        "resnet18": {"name": "resnet18", "options": {}},
        "small": {"name": "small_cnn", "options": {"width": 32}},
    }
    if model not in models:
        raise ValueError(f"unknown model {model!r} of this configuration; known: {', '.join(models)}.")
    config.model = models[model]
    config.augment = ("crop_flip",)
    config.epochs = 10 if model == "small" else epochs
    config.selection.data = "cbar"
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.evaluation.attacks = CIFAR_ATTACKS
    return config


def mnist():
    """MNIST: the network of Rony et al. 2019, SGD 0.9 at 0.1 with a cosine (ESP 4.2); 100 epochs, crop, batch 128 [ours]. No mirroring."""
    config = common.base()
    config.data.name = "mnist"
    config.model = {"name": "mnist_cnn", "options": {}}
    config.augment = ("crop",)
    config.augment_options = {"crop": {"pad": 2}}
    config.epochs = 100
    config.optimizer.weight_decay = 5e-4
    config.evaluation.benchmark = "mnist_c"
    config.evaluation.attacks = MNIST_ATTACKS
    return config
