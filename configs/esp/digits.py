"""ESP on scikit-learn's digits (8x8, brought to 16x16).

Paper: ESP (Algorithm 1, section 4.2). Data, network and schedule are ours (configs/recipes.py).
Command: python launch/train.py --config=configs/esp/digits.py --workdir=runs/esp_digits
Cost: about ten seconds on two CPU cores.
Expected: not in the paper.
sigma = tau / 2 (--config.method.sigma=1.0 sets another) and tau close to epsilon as in the paper; xi = 0.426 is its gamma = 10
(`augment.xi_from_ratio`). The paper chose epsilon by a grid that it does not print: 4 was chosen here, half of SPIDER's tau.
Options behind ':': quick; method=esp|l2_sphere|none;
augment=none|augmix|augmix_nojsd|pixmix|cutout|deepaugment|deepaugment_in_step, or sums (augmix+deepaugment).
"""

from configs import common, recipes

METHODS = {
    "esp": {"epsilon": 4.0, "tau": 4.0, "xi": 0.426, "sigma": None},
    "l2_sphere": {"radius": 4.0},  # the paper's 'L2 noise': fixed radius, hard label
    "none": {},
}


def get_config(text=None):
    """Returns the configuration; see the head of this file for what may stand behind ':'."""
    return common.with_method(text, METHODS, recipes.digits, method="esp", augment="none")
