"""Data sets as uint8 images with labels, splits, and which examples make up which batch.

    from robustjax import data

    dataset = data.make("digits")
    train_ids, validation_ids = data.train_validation(dataset.train.labels, fraction=0.2, seed=0)
    order = data.TrainOrder(train_ids, batch_size=128, seed=0)
    images, labels = dataset.train.fetch(order(0))

Images are uint8 (n, h, w, c) here and nowhere else. Sets that fit in memory (`source.resident`) are gathered on the device;
larger ones come from `train_stream` and `eval_stream`, which yield the same batches. Sets of images of differing sizes, as ImageNet, are
opened with size=224 and crop="random_resized", and streamed. Nothing is ever downloaded.
"""

from robustjax.data.batches import TrainOrder, epoch_order, padded
from robustjax.data.copies import ExtendedSource, extended
from robustjax.data.corrupted import CorruptedSet, corrupted
from robustjax.data.registry import DATASETS, make
from robustjax.data.source import ArraySource, Dataset, Source
from robustjax.data.splits import train_validation
from robustjax.data.stream import eval_stream, train_stream

__all__ = [
    "DATASETS",
    "ArraySource",
    "CorruptedSet",
    "Dataset",
    "ExtendedSource",
    "Source",
    "TrainOrder",
    "corrupted",
    "epoch_order",
    "eval_stream",
    "extended",
    "make",
    "padded",
    "train_stream",
    "train_validation",
]
