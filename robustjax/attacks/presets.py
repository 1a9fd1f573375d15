"""The attacks of the papers, by name, with the very numbers that they print."""

import functools
from typing import Any

from robustjax.attacks.registry import TABLE
from robustjax.core import registry
from robustjax.core.check import InputError
from robustjax.core.types import ThreatModel

# Radii and steps in units of [0, 1] pixels; where there is a `std`, of images divided by it. Random starts and the last iterate are
# those of Madry et al., ICLR 2018, which all of them cite; where a paper says otherwise it is written here.
PRESETS: dict[str, dict[str, Any]] = {
    # SPIDER (ICLR 2024), appendix E.1.1, which calls the step sizes absolute.
    # At 1/800 the twenty steps move by 0.025 at most, so a radius of 0.5 never binds without its random start and this hardly attacks.
    # The default step of foolbox, 0.025 of the radius, would be 1/80: printed with one zero too many? Both have a name here.
    "spider_l2_pgd20": {"attack": "pgd", "norm": "l2", "eps": 0.5, "steps": 20, "step_size": 1 / 800, "objective": "ce", "best": False},
    "spider_l2_pgd20_long": {"attack": "pgd", "norm": "l2", "eps": 0.5, "steps": 20, "step_size": 1 / 80, "objective": "ce", "best": False},
    # CIFAR-10 and CIFAR-100; Tiny-ImageNet; ImageNet.
    "spider_linf_pgd7": {
        "attack": "pgd",
        "norm": "linf",
        "eps": 8 / 255,
        "steps": 7,
        "step_size": 2 / 255,
        "objective": "ce",
        "best": False,
    },
    "spider_linf_pgd3": {
        "attack": "pgd",
        "norm": "linf",
        "eps": 3 / 255,
        "steps": 3,
        "step_size": 1 / 255,
        "objective": "ce",
        "best": False,
    },
    "spider_linf_pgd2": {
        "attack": "pgd",
        "norm": "linf",
        "eps": 1 / 255,
        "steps": 2,
        "step_size": 1 / 510,
        "objective": "ce",
        "best": False,
    },
    # Randomized Adversarial Training via Taylor Expansion (CVPR 2023), section 5. The caption of Table 2 has 0.031 for PGD-20 and
    # CW-20 beside 8/255 = 0.03137 for AutoAttack, the text 8/255 throughout. The step sizes are those printed for training; none is
    # printed for evaluation. CW-20 is the margin climbed by PGD-20 (section 5, evaluation setting).
    "rat_linf_pgd20": {
        "attack": "pgd",
        "norm": "linf",
        "eps": 8 / 255,
        "steps": 20,
        "step_size": 2 / 255,
        "objective": "ce",
        "best": False,
    },
    "rat_linf_cw20": {"attack": "pgd", "norm": "linf", "eps": 8 / 255, "steps": 20, "step_size": 2 / 255, "objective": "cw", "best": False},
    "rat_0.031_pgd20": {"attack": "pgd", "norm": "linf", "eps": 0.031, "steps": 20, "step_size": 2 / 255, "objective": "ce", "best": False},
    "rat_0.031_cw20": {"attack": "pgd", "norm": "linf", "eps": 0.031, "steps": 20, "step_size": 2 / 255, "objective": "cw", "best": False},
    "rat_l2_pgd20": {"attack": "pgd", "norm": "l2", "eps": 128 / 255, "steps": 20, "step_size": 15 / 255, "objective": "ce", "best": False},
    "rat_l2_cw20": {"attack": "pgd", "norm": "l2", "eps": 128 / 255, "steps": 20, "step_size": 15 / 255, "objective": "cw", "best": False},
    # Boundary thickness (Yang et al., NeurIPS 2020): the end of the segment is attacked towards a class drawn at random. Its own 1.0
    # and 0.2 become the 5.0 and 1.0 that SPIDER prints (appendix E.1.2) where inputs are divided by a standard deviation of 0.2, so
    # both names are one attack. SPIDER says 'targeting a randomly selected class' and, a sentence later, 'untargeted': it is targeted.
    "thickness": {
        **{"attack": "pgd", "norm": "l2", "eps": 1.0, "steps": 20, "step_size": 0.2, "objective": "ce", "best": False},
        "targeted": True,
    },
    "thickness_normalised": {
        **{"attack": "pgd", "norm": "l2", "eps": 5.0, "steps": 20, "step_size": 1.0, "objective": "ce", "best": False},
        **{"targeted": True, "std": 0.2},
    },
    # The fast gradient sign method (Goodfellow et al., ICLR 2015, section 4) at the usual radius: one step of it, from the image.
    "fgsm": {
        **{"attack": "pgd", "norm": "linf", "eps": 8 / 255, "steps": 1, "step_size": 8 / 255, "objective": "ce", "best": False},
        "random_start": False,
    },
}


def preset(name: str) -> tuple[ThreatModel, functools.partial]:
    """Returns the threat model and the attack that a paper used.

    Args:
        name: of `PRESETS`.

    Returns:
        (threat, attack), to be called attack(keys, logits_fn, images, labels, threat); further options may be added. Those that aim
        at a class ('thickness', 'thickness_normalised') also need targets=(b,). The radius is in units of [0, 1] pixels.

    Raises:
        InputError: for an unknown name, with the nearest known one.

    >>> threat, attack = preset("spider_linf_pgd7")
    >>> threat.norm, round(255 * threat.eps), attack.keywords["steps"], round(255 * attack.keywords["step_size"])
    ('linf', 8, 7, 2)
    """
    if name not in PRESETS:
        raise registry.unknown("preset", name, PRESETS)
    options = dict(PRESETS[name])
    std = options.pop("std", 1.0)
    threat = ThreatModel(options.pop("norm"), std * options.pop("eps"))
    targeted = options.pop("targeted", False)
    attack = registry.make(TABLE, options.pop("attack"), kind="attack", **options | {"step_size": std * options["step_size"]})
    return threat, functools.partial(_targeted, name, attack) if targeted else attack


def _targeted(name, attack, *args, targets=None, **options):
    if targets is None:
        raise InputError(f"the preset {name!r} aims at a class: give targets (b,), e.g. drawn at random among the other classes.")
    return attack(*args, targets=targets, **options)
