"""Randomised adversarial training by Taylor expansion (RAT), TRADES, AWP and Madry's training on SVHN.

Paper: "Randomized Adversarial Training via Taylor Expansion" (CVPR 2023), Algorithm 1, section 5.
Command: python launch/train.py --config=configs/rat/svhn.py:awp=on,threat=l2 --workdir=runs/rat_svhn
Cost: 200 epochs of 560 steps of 128 images; a step costs about 47 forward passes (order=1: 37; TRADES, order=0: 27; a plain step: 3).
Expected: clean 93.98 %, PGD-20 73.07 %, AutoAttack 64.5 % (PreActResNet-18, order 2: Table 3).
Best and last checkpoint: python launch/evaluate.py --workdir=... --suite=attacks,autoattack --checkpoint=best,last
Options behind ':': quick; order=2|1|0 (highest Taylor term; 0 is TRADES); model=preact|wrn|vgg16|mobilenet|small; threat=linf|l2; awp=off|on;
method=rat|madry|released; average=none|swa|ema.
"""

import functools

from configs import common, recipes


def get_config(text=None):
    """Returns the configuration; see the head of this file for what may stand behind ':'."""
    return common.with_options(text, functools.partial(recipes.adversarial, "svhn_cropped"), **recipes.ADVERSARIAL)
