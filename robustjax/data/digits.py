"""scikit-learn's handwritten digits: 1797 images inside that package, so that everything runs without a download."""

import importlib.metadata

import numpy as np

from robustjax.core.check import InputError
from robustjax.data import splits
from robustjax.data.source import ArraySource, Dataset

TEST_SIZE = 360  # 20% of 1797, rounded up; 1437 are left for training
_FILE = "sklearn/datasets/data/digits.csv.gz"


def digits(*, size: int = 16) -> Dataset:
    """Returns the digits as uint8 images of one channel, in a training split of 1437 and a test split of 360 examples.

    The split is the same for everyone: drawn by class from a seed fixed here. The package's own order would not do, as
    neighbours come from the same writers; the split is by image, so writers of the test split are known from training.

    Args:
        size: height and width. The originals are 8 x 8 with 17 levels, too coarse for blurs and other corruptions to mean
            anything; larger sizes are Pillow's bicubic resizing of them (clipped to 0..255).

    Raises:
        InputError: for a size below 8; for a scikit-learn without that file.

    References:
        Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI machine learning repository, 1998 (its test part).
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 8:
        raise InputError(f"the digits' size must be an integer and at least 8 pixels, their own size, got {size!r}.")
    from PIL import Image

    # What sklearn.datasets.load_digits reads; importing that takes two seconds.
    package = importlib.metadata.distribution("scikit-learn")
    path = package.locate_file(_FILE)
    if not path.exists():
        raise InputError(f"scikit-learn {package.version} has no file {_FILE}; pip install 'scikit-learn>=1.5,<2'.")
    table = np.loadtxt(path, delimiter=",", dtype=np.int64)  # 64 pixels and the label
    images, labels = np.round(table[:, :64].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), table[:, 64]
    if size > 8:
        images = np.stack([np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in images])
    images = images[..., None]
    train, test = split_by_class(labels, test_size=TEST_SIZE)
    provenance = "scikit-learn digits, 8x8" + (f" bicubic to {size}x{size}" if size > 8 else "")
    return Dataset(
        "digits",
        provenance,
        ArraySource(images[train], labels[train], name="the digits' training split"),
        ArraySource(images[test], labels[test], name="the digits' test split"),
        10,
        (size, size, 1),
        tuple(map(str, range(10))),
    )


def split_by_class(labels: np.ndarray, *, test_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns sorted training and test ids; each class gives its share of the test split, rounded by largest remainder."""
    order = splits.permutation(len(labels), seed=0, purpose=(splits.DIGITS,))
    members = [order[labels[order] == label] for label in np.unique(labels)]
    shares = np.array([len(m) for m in members]) * (test_size / len(labels))
    counts = np.floor(shares).astype(int)
    # Stable: of equal remainders the lower class comes first, on every platform.
    largest = np.argsort(-(shares - counts), kind="stable")[: test_size - counts.sum()]
    counts[largest] += 1
    test = np.concatenate([m[:n] for m, n in zip(members, counts, strict=True)])
    return np.setdiff1d(np.arange(len(labels), dtype=np.int32), test), np.sort(test)
