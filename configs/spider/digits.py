"""SPIDER on scikit-learn's digits (8x8, brought to 16x16).

Paper: SPIDER (Algorithm 2, appendix E.1.1). Data, network and schedule are ours (configs/recipes.py).
Command: python launch/train.py --config=configs/spider/digits.py --workdir=runs/spider_digits
Cost: about ten seconds on two CPU cores.
Expected: results/quickstart.json.
The paper searched tau and xi (Optuna, 30 trials) and does not print what it found: ours were chosen on the validation split (results/quickstart_search.json).
Options behind ':': quick; method=spider|no_ls|std_ls|mixup|cutmix|none;
augment=none|augmix|augmix_nojsd|pixmix|cutout|deepaugment|deepaugment_in_step, or sums (augmix+deepaugment).
"""

from configs import common, recipes

METHODS = {
    "spider": {"tau": 4.0, "xi": 0.5},
    "no_ls": {"tau": 4.0},  # the same perturbation with the hard label
    "std_ls": {"alpha": 0.1},  # standard label smoothing, no perturbation
    "mixup": {"alpha": 1.0, "lam": "example"},  # the paper prints no alpha
    "cutmix": {"alpha": 1.0, "lam": "example"},
    "none": {},
}


def get_config(text=None):
    """Returns the configuration; see the head of this file for what may stand behind ':'."""
    return common.with_method(text, METHODS, recipes.digits, method="spider", augment="none")
