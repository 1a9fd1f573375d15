"""Discriminative loss with Gaussian noise injection on your own images, one folder a class, as for the paper's road images.

Paper: "Discriminative loss with Gaussian noise injection", section 7.1, Tables 3 and 4, appendix H.2; noise of 40/255, delta_d 3.
Command: python launch/train.py --config=configs/discriminative/image_folder.py --config.data.dir=FOLDER --workdir=runs/full_folder
Broken files are refused by name; --config.data.options.broken=skip leaves them out. A folder without train/ is split, test_share=0.2.
ImageNet's weights: --config.init=mobilenet_v3_large.pth, torchvision's file, which wants
--config.model.options.mean="(0.485, 0.456, 0.406)" and --config.model.options.std="(0.229, 0.224, 0.225)". Size: --config.data.options.size="(224, 224)".
Cost: 70 epochs; MobileNetV3 large takes about 0.9 billion multiply-adds for an image of 400x500.
Expected: nothing of the paper's can be had again, whose images are private.
Options behind ':': quick; model=large|small; method=full|normal|noisy|clean_noisy|stability; of Table 5, on clean
data alone: method=clean|center|margin|reg0|reg1; weighting=released|paper (1/2 + 1/2 or 1 + 1 of compactness and noisy alignment); perturb=none|spider|esp;
augment=none|augmix_nojsd|pixmix|cutout|deepaugment, sums with +, and with method=normal|noisy augmix (with its consistency loss).
"""

from configs import common, recipes


def get_config(text=None):
    """Returns the configuration; see the head of this file for what may stand behind ':'."""
    return common.with_options(text, recipes.folder_of_noise, model="large", **recipes.DISCRIMINATIVE)
