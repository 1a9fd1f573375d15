"""Discriminative loss with Gaussian noise injection, and what it is compared with, on SVHN.

Paper: "Discriminative loss with Gaussian noise injection", section 7.1, Table 2, appendix H.1; noise of 0.15.
Command: python launch/train.py --config=configs/discriminative/svhn.py --workdir=runs/full_svhn
Noise: python launch/evaluate.py --workdir=... --suite=clean,noise --table=discriminative/2
Cost: 200 epochs of 1,030 steps of 64 images, two forward passes each (normal and noisy: one).
Expected: Table 2, as --table=discriminative/2 prints it beside ours. Digits are mirrored, as the paper has it.
Options behind ':': quick; model=resnet18|small; method=full|normal|noisy|clean_noisy|stability; of Table 5, on clean
data alone: method=clean|center|margin|reg0|reg1; weighting=released|paper (1/2 + 1/2 or 1 + 1 of compactness and noisy alignment); perturb=none|spider|esp;
augment=none|augmix_nojsd|pixmix|cutout|deepaugment, sums with +, and with method=normal|noisy augmix (with its consistency loss).
"""

import functools

from configs import common, recipes


def get_config(text=None):
    """Returns the configuration; see the head of this file for what may stand behind ':'."""
    return common.with_options(
        text, functools.partial(recipes.resnet18_of_noise, "svhn_cropped"), model="resnet18", **recipes.DISCRIMINATIVE
    )
