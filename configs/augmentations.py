"""What SPIDER and ESP are added to, by the names that configurations take: `augment=augmix`, `augment=augmix+deepaugment`."""

import inspect

import ml_collections

from robustjax.train.build import OBJECTIVES

# What SPIDER and ESP are added to: stages after crop and flip, in the order of the papers, and the objective that goes with them.
# Names are combined by '+', as in 'augmix+deepaugment'. 'deepaugment' trains on originals and the copies that launch/deepaugment.py wrote
# with --out=copies/<name of the data>; 'deepaugment_in_step' distorts in each step, with the networks of that folder.
AUGMENTATIONS = {
    "none": ((), None),
    "deepaugment": ((), None),
    "deepaugment_in_step": ((), None),
    "augmix": (("augmix",), "augmix_jsd"),
    "augmix_nojsd": (("augmix",), None),
    "pixmix": (("pixmix",), None),
    "cutout": (("cutout",), None),
}


def augmented(config, names: str):
    """Adds augmentations of `AUGMENTATIONS`, joined by '+', to a recipe, before the method."""
    for name in names.split("+"):
        if name not in AUGMENTATIONS:
            raise ValueError(f"unknown augment {name!r} of this configuration; known: {', '.join(AUGMENTATIONS)}, and sums with '+'.")
        config = _with_augmentation(config, name)
    if len(set(config.augment)) < len(config.augment):
        raise ValueError(f"augment={names} has one augmentation twice; take each once.")
    return config


def _with_augmentation(config, name: str):
    """Adds one augmentation; 'cutout' covers a square of half the side."""
    stages, objective = AUGMENTATIONS[name]
    config.augment = (*config.augment, *stages)
    copies = f"copies/{config.data.name}"
    if name == "deepaugment":
        config.data.copies = copies
    if name == "deepaugment_in_step":
        # Before the crop, as copies are; of ImageNet after it, since the host crops. distortions: which may be drawn; () for all, of digits and
        # MNIST all but flip_signal, which mirrors.
        config.augment = ("deepaugment", *config.augment)
        config.augment_options.deepaugment = {"folder": copies, "group_size": 8, "distortions": ()}
    if "augmix" in stages:
        config.augment_options.augmix = {"severity": 3.0, "width": 3, "depth": -1, "alpha": 1.0, "all_ops": False}
    if name == "pixmix":
        # folder: of the user's own mixing pictures, in place of `mixers` fractals.
        config.augment_options.pixmix = {"k": 4, "beta": 3.0, "severity": 3.0, "mixers": 10_000, "folder": ""}
    if name == "cutout":
        config.augment_options.cutout = {"size": {"digits": 8, "mnist": 14, "tiny_imagenet": 32}.get(config.data.name, 16)}
    if objective:
        config.objective = ml_collections.ConfigDict(whole_objective(objective))
    return config


def whole_objective(name: str, **options) -> dict:
    """Returns an objective with all of its options, so that the command line can set each."""
    defaults = {p.name: p.default for p in inspect.signature(OBJECTIVES[name]).parameters.values()}
    return {"name": name, **defaults, **options}
