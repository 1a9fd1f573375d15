"""Networks that reconstruct digits, trained in a second or two."""

import functools
from pathlib import Path

import jax
import numpy as np

from robustjax import data
from robustjax.models import image_to_image
from robustjax.train import reconstruct

SETTINGS = {"steps": 300, "batch_size": 16, "lr": 3e-3, "crop": 16, "seed": 0, "quiet": True}


@functools.cache
def digits() -> tuple[data.Source, np.ndarray, np.ndarray]:
    """Returns the training split of the digits at 16 px, and the ids of its training and validation part."""
    source = data.make("digits", size=16).train
    return source, *data.train_validation(len(source))


@functools.cache
def trained(name: str, folder: Path) -> image_to_image.ImageToImage:
    """Returns a trained network of 16 feature maps; `folder` is one to write to."""
    source, train_ids, _ = digits()
    network = image_to_image.make(name, jax.random.key(0), channels=1, width=16)
    return network._replace(params=reconstruct.fit(network, source, train_ids, state=folder / f"{name}.npz", title=name, **SETTINGS))
