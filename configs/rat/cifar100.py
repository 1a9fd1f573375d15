"""Randomised adversarial training by Taylor expansion (RAT), TRADES, AWP and Madry's training on CIFAR-100.

Paper: "Randomized Adversarial Training via Taylor Expansion" (CVPR 2023), Algorithm 1, section 5.
Command: python launch/train.py --config=configs/rat/cifar100.py:model=wrn --workdir=runs/rat_cifar100
Cost: 200 epochs of 382 steps of 128 images; a step costs about 47 forward passes (order=1: 37; TRADES, order=0: 27; a plain step: 3).
Expected: clean 62.93 %, PGD-20 33.36 %, CW-20 29.61 %, AutoAttack 27.9 % (WRN-34-10, order 2: Table 2).
Best and last checkpoint: python launch/evaluate.py --workdir=... --suite=attacks,autoattack --checkpoint=best,last
Options behind ':': quick; order=2|1|0 (highest Taylor term; 0 is TRADES); model=preact|wrn|vgg16|mobilenet|small; threat=linf|l2; awp=off|on;
method=rat|madry|released; average=none|swa|ema.
"""

import functools

from configs import common, recipes


def get_config(text=None):
    """Returns the configuration; see the head of this file for what may stand behind ':'."""
    return common.with_options(text, functools.partial(recipes.adversarial, "cifar100"), **recipes.ADVERSARIAL)
