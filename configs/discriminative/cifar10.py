"""Discriminative loss with Gaussian noise injection, and what it is compared with, on CIFAR-10.

Paper: "Discriminative loss with Gaussian noise injection", section 7.1, Tables 1 and 5, appendix H.1.
Command: python launch/train.py --config=configs/discriminative/cifar10.py --workdir=runs/full_cifar10
Noise: python launch/evaluate.py --workdir=... --suite=clean,noise --table=discriminative/1
Cost: 200 epochs of 703 steps of 64 images, two forward passes each (normal and noisy: one).
A rate of 0.02 is too high from random weights: the loss is not finite after six steps (ResNet-18, measured).
Expected: Table 1, clean and at noise 20/255, as --table=discriminative/1 prints them beside ours.
Options behind ':': quick; model=resnet18|small; method=full|normal|noisy|clean_noisy|stability; of Table 5, on clean
data alone: method=clean|center|margin|reg0|reg1; weighting=released|paper (1/2 + 1/2 or 1 + 1 of compactness and noisy alignment); perturb=none|spider|esp;
augment=none|augmix_nojsd|pixmix|cutout|deepaugment, sums with +, and with method=normal|noisy augmix (with its consistency loss).
"""

import functools

from configs import common, recipes


def get_config(text=None):
    """Returns the configuration; see the head of this file for what may stand behind ':'."""
    return common.with_options(text, functools.partial(recipes.resnet18_of_noise, "cifar10"), model="resnet18", **recipes.DISCRIMINATIVE)
