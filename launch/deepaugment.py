"""Writes distorted copies of training images, to be trained on beside the originals (DeepAugment). Killed and run again, it goes on.

python launch/deepaugment.py --config=configs/baselines/cifar10.py --out=copies/cifar10
python launch/train.py --config=configs/baselines/cifar10.py --workdir=runs/deepaugment --config.data.copies=copies/cifar10

It trains two image-to-image networks on the training images of the configuration, and passes every image through each of them once,
with a random distortion of the network's weights or signals. Of the configuration only the data are read: its validation images are seen
by no network, and their copies are trained on by nobody.

With --cae=model_final.state and --edsr=edsr_baseline_x4.pt, the files of the release of Hendrycks et al. (reading them needs torch), the
published networks take the place of those that are trained here; see robustjax.models.published.

Digits (digits, mnist, svhn_cropped) are distorted without `flip_signal`, which mirrors the image; --distortions=... has its way.
"""

import entry  # isort: skip
from absl import flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Configuration whose data are meant, FILE.py or FILE.py:options.", lock_config=True
)
_OUT = flags.DEFINE_string("out", None, "Folder of the copies.")
_NETWORKS = flags.DEFINE_list("networks", ["cae", "edsr"], "Image-to-image networks, a copy of every image with each.")
_CAE = flags.DEFINE_string("cae", None, "Published weights of DeepAugment's CAE, in place of a 'cae' trained here.")
_EDSR = flags.DEFINE_string("edsr", None, "Published weights of EDSR's baseline x4, in place of an 'edsr' trained here.")
_WIDTH = flags.DEFINE_integer("width", 32, "Feature maps of the networks.", lower_bound=4)
_STEPS = flags.DEFINE_integer("steps", 2000, "Training steps of each network.", lower_bound=1)
_LR = flags.DEFINE_float("lr", 2e-3, "Their learning rate, which falls to 0.")
_TRAIN_BATCH_SIZE = flags.DEFINE_integer("train_batch_size", 32, "Crops in each step of their training.", lower_bound=1)
_CROP = flags.DEFINE_integer("crop", 64, "Side of the crops, in pixels.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the networks and the distortions.", lower_bound=0)
_DISTORTIONS = flags.DEFINE_list(
    "distortions", [], "Distortions that may be drawn, separated by commas; default: all, of digits and MNIST all but flip_signal."
)
_MIN_PSNR = flags.DEFINE_float("min_psnr", 25.0, "Refuse networks that reconstruct validation images worse than this, in dB.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 0, "Images distorted at once (0: by their size); changes rounding only.", lower_bound=0)
flags.mark_flags_as_required(["config", "out"])


def main() -> None:
    """Writes the copies, and says what is there now."""
    from robustjax.train import copies

    done = copies.write_copies(
        _CONFIG.value.to_dict(),
        _OUT.value,
        networks=_NETWORKS.value,
        weights={name: path for name, path in {"cae": _CAE.value, "edsr": _EDSR.value}.items() if path},
        width=_WIDTH.value,
        steps=_STEPS.value,
        lr=_LR.value,
        train_batch_size=_TRAIN_BATCH_SIZE.value,
        crop=_CROP.value,
        seed=_SEED.value,
        distortions=_DISTORTIONS.value,
        min_psnr=_MIN_PSNR.value,
        batch_size=_BATCH_SIZE.value,
    )
    for name, psnr in done.psnr.items():
        kept = ", were there already" if name in done.kept else ""
        print(f"{name}: {done.images} copies of {done.provenance}{kept}; without distortion {psnr:.1f} dB on validation images.")
    print(f"Next: python launch/train.py --config=... --workdir=... --config.data.copies={_OUT.value}")


if __name__ == "__main__":
    entry.run(main)
