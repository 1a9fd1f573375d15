"""The plain baseline on CIFAR-10: the same network, schedule and crop as SPIDER's, without its perturbation.

Command: python launch/train.py --config=configs/baselines/cifar10.py --workdir=runs/baseline_cifar10
Cost: 124,800 steps of 128 images; with :model=small minutes on a CPU.
Expected: mCE 25.57 ± 0.45 %, clean accuracy 95.37 %, PGD errors 68.57 % (L2) and 99.52 % (L-inf): SPIDER, Tables 3 and 4.
Options behind ':': quick; model=wrn|resnet18|wrn_40_1|densenet|allconv|small;
augment=none|augmix|augmix_nojsd|pixmix|cutout|deepaugment|deepaugment_in_step, or sums (augmix+deepaugment).
"""

from configs import common, recipes


def get_config(text=None):
    """Returns the configuration; see the head of this file for what may stand behind ':'."""
    options = common.parse(text, model="wrn", augment="none")
    return common.finish(recipes.cifar("cifar10", epochs=400, model=options["model"], augment=options["augment"]), quick=options["quick"])
