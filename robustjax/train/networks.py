"""DeepAugment's networks: where they come from, and the folder of copies beside which launch/deepaugment.py leaves them."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from robustjax.augment.deepaugment import ALL
from robustjax.core.check import InputError
from robustjax.data import copies
from robustjax.data import digest as digests
from robustjax.models import image_to_image, published
from robustjax.train import reconstruct

DIGITS = ("digits", "mnist", "svhn_cropped")
"""Data whose classes are other signs, or none, when they are mirrored."""


def distortions(name: str) -> tuple[str, ...]:
    """Returns the distortions that are drawn of a data set where the user names none: of digits all but 'flip_signal', which mirrors images."""
    # Of 'mnist:3.0.1' or 'emnist/digits' the set is what stands in front.
    if re.split("[:/]", name)[0] not in DIGITS:
        return ALL
    return tuple(name for name in ALL if name != "flip_signal")


def save(path: Path, network: image_to_image.ImageToImage, psnr: float) -> None:
    """Writes a network's params, and how well it reconstructs validation images, in dB."""
    reconstruct.save(path, (network.params, np.asarray(psnr)))


def restore(path: Path, network: image_to_image.ImageToImage) -> tuple[image_to_image.ImageToImage, float]:
    """Returns the network with the params that `save` wrote, and the PSNR.

    Raises:
        InputError: as `reconstruct.restore`.
    """
    params, psnr = reconstruct.restore(path, (network.params, np.zeros(())))
    return network._replace(params=params), float(psnr)


def read(folder: str | Path, *, channels: int) -> tuple[list[image_to_image.ImageToImage], str]:
    """Reads all networks of a folder of copies.

    Args:
        folder: as launch/deepaugment.py wrote it.
        channels: of the images that the networks are for.

    Returns:
        The networks, and a line that says what they are and how well they reconstruct, for notes beside results.

    Raises:
        InputError: if the folder is not whole, or its networks are for images of other channels.
    """
    folder = Path(folder).expanduser()
    about = copies.manifest(folder, ("networks", "width", "provenance"), what="networks")
    names, width, provenance, weights = about["networks"], about["width"], about["provenance"], about.get("weights", {})
    missing = [name for name in names if not (folder / f"{name}.npz").is_file()]
    if missing:
        raise InputError(f"{folder} lacks {missing[0]}.npz; run launch/deepaugment.py again, it goes on where it stopped.")
    if weights and channels != 3:
        raise InputError(f"the networks in {folder} are the published ones, for images of three channels, and these have {channels}.")

    def untrained(name: str) -> image_to_image.ImageToImage:
        if name in weights:
            return published.like(name)
        return image_to_image.like(name, channels=channels, width=width)

    found, psnr = zip(*(restore(folder / f"{name}.npz", untrained(name)) for name in names), strict=True)
    each = ", ".join(f"{name} ({value:.1f} dB)" for name, value in zip(names, psnr, strict=True))
    return list(found), f"DeepAugment in the step, networks {each} of {provenance} (digest {digest([n.params for n in found])})"


def digest(params: Any) -> str:
    """Returns a digest of params."""
    return digests.arrays(map(np.asarray, jax.tree.leaves(params)))[:8]
