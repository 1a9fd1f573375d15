"""scikit-learn's handwritten digits: 1797 images inside that package, so that everything runs without a download."""

import numpy as np

from robustjax.core.check import InputError
from robustjax.data import splits
from robustjax.data.source import ArraySource, Dataset

TEST_SIZE = 360  # 20% of 1797, rounded up; 1437 are left for training


def digits(*, size: int = 16) -> Dataset:
    """Returns the digits as uint8 images of one channel, in a training split of 1437 and a test split of 360 examples.

    The split is the same for everyone: drawn by class from a seed fixed here. The package's own order would not do, as
    neighbours come from the same writers; the split is by image, so writers of the test split are known from training.

    Args:
        size: height and width. The originals are 8 x 8 with 17 levels, too coarse for blurs and other corruptions to mean
            anything; larger sizes are Pillow's bicubic resizing of them (clipped to 0..255).

    Raises:
        InputError: for a size below 8.

    References:
        Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI machine learning repository, 1998 (its test part).
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 8:
        raise InputError(f"the digits' size must be an integer and at least 8 pixels, their own size, got {size!r}.")
    from PIL import Image
    from sklearn.datasets import load_digits  # inside, as it imports for a second

    raw = load_digits()
    images, labels = np.round(raw.images * (255 / 16)).astype(np.uint8), raw.target
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
