"""Discriminative loss with Gaussian noise injection, and what it is compared with, on scikit-learn's digits.

Paper: "Discriminative loss with Gaussian noise injection", section 7.1; settings of digits are ours, noise 0.15.
Command: python launch/train.py --config=configs/discriminative/digits.py --workdir=runs/full_digits
Noise: python launch/evaluate.py --workdir=... --suite=clean,noise
Cost: 40 epochs of 18 steps, seconds on a CPU.
Expected: results/noise_digits.json.
Options behind ':': quick; method=full|normal|noisy|clean_noisy|stability; of Table 5, on clean
data alone: method=clean|center|margin|reg0|reg1; weighting=released|paper (1/2 + 1/2 or 1 + 1 of compactness and noisy alignment); perturb=none|spider|esp;
augment=none|augmix_nojsd|pixmix|cutout|deepaugment, sums with +, and with method=normal|noisy augmix (with its consistency loss).
"""

from configs import common, recipes


def get_config(text=None):
    """Returns the configuration; see the head of this file for what may stand behind ':'."""
    return common.with_options(text, recipes.digits_of_noise, **recipes.DISCRIMINATIVE)
