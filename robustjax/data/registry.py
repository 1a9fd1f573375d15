"""The data sets by name."""

import functools

from robustjax.core import registry
from robustjax.core.check import InputError
from robustjax.data import tfds
from robustjax.data.digits import digits
from robustjax.data.fake import fake
from robustjax.data.image_folder import image_folder
from robustjax.data.source import Dataset
from robustjax.data.tiny_imagenet import tiny_imagenet

DATASETS = {
    "digits": digits,
    "fake": fake,
    "image_folder": image_folder,
    "tiny_imagenet": tiny_imagenet,
    "mnist": functools.partial(tfds.prepared, "mnist"),
    "cifar10": functools.partial(tfds.prepared, "cifar10"),
    "cifar100": functools.partial(tfds.prepared, "cifar100"),
    "svhn_cropped": functools.partial(tfds.prepared, "svhn_cropped"),
    "imagenet2012": functools.partial(tfds.prepared, "imagenet2012"),
}
ANY = "tfds:"


def make(name: str, *, dir: str = "", **options) -> Dataset:
    """Opens a data set. Nothing is ever downloaded.

    Args:
        name: a name in DATASETS, or 'tfds:<set>', 'tfds:<set>/<config>' or 'tfds:<set>:<version>' for any set of images and
            labels that TFDS has prepared as array_record.
        dir: folder of the prepared sets; if empty, what TFDS_DATA_DIR names, else ~/tensorflow_datasets. 'digits' and 'fake'
            need no folder and do not read it; 'image_folder' must be told its own; 'tiny_imagenet' looks for tiny-imagenet-200.
        **options: of the entry: see `digits.digits`, `fake.fake`, `image_folder.image_folder`, `tiny_imagenet.tiny_imagenet` and
            `tfds.prepared`.

    Returns:
        Dataset. Sets from a folder have been checked (metadata, files present, first examples of both splits); their images are
        read when first asked for.

    Raises:
        InputError: for an unknown name or option, or data that are missing or cannot be used.
    """
    table = DATASETS
    if name.startswith(ANY):
        table = {name: functools.partial(tfds.prepared, name.removeprefix(ANY))}
    elif name not in DATASETS:
        raise InputError(f"{registry.unknown('data set', name, DATASETS)} Any other set that TFDS has prepared: 'tfds:{name}'.")
    if "dir" in registry.option_names(table[name]):
        options["dir"] = dir
    return registry.make(table, name, kind="data set", **options)()
