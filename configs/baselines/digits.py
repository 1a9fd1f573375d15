"""The plain baseline on scikit-learn's digits (8x8, brought to 16x16): the same network, schedule and crop as SPIDER's, without its perturbation.

Command: python launch/train.py --config=configs/baselines/digits.py --workdir=runs/baseline_digits
Cost: about ten seconds on two CPU cores.
Expected: results/quickstart.json.
Options behind ':': quick; augment=none|augmix|augmix_nojsd|pixmix|cutout|deepaugment|deepaugment_in_step, or sums (augmix+deepaugment).
"""

from configs import common, recipes


def get_config(text=None):
    """Returns the configuration; see the head of this file for what may stand behind ':'."""
    options = common.parse(text, augment="none")
    return common.finish(recipes.digits(augment=options["augment"]), quick=options["quick"])
