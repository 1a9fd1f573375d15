"""Which examples make up which batch. Ids only: the images are gathered on the device, or fetched by `stream`."""

import functools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int32

from robustjax.core.check import InputError
from robustjax.data import splits


def epoch_order(ids: np.ndarray, *, seed: int, epoch: int) -> Int32[np.ndarray, " n"]:
    """Returns `ids` in the order of this epoch, which depends on (seed, epoch) alone and not on the epochs before it.

    Args:
        ids: (n,) ids of the examples to train on.
        seed: at least 0.
        epoch: from 0.
    """
    ids = _vector(ids)
    return ids[splits.permutation(len(ids), seed=seed, purpose=(splits.EPOCH, epoch))]


class TrainOrder:
    """The ids of the global batch at each training step: order(step) -> int32 (batch_size,).

    Epochs are shuffled anew and hold whole batches only: the len(ids) % batch_size examples at the end of an epoch's order are
    left out of that epoch. A step's batch depends on (ids, batch_size, seed, step) alone, so a resumed run needs its step only.

    Args:
        ids: (n,) ids of the examples to train on.
        batch_size: examples in a global batch, over all devices and processes.
        seed: at least 0.

    Raises:
        InputError: for no ids, a batch size below 1, or one larger than the number of ids.

    >>> order = TrainOrder(np.arange(10), batch_size=4, seed=0)
    >>> order.steps_per_epoch, order(0).tolist(), order(1).tolist()
    (2, [2, 5, 8, 9], [3, 1, 0, 7])
    """

    def __init__(self, ids: np.ndarray, *, batch_size: int, seed: int):
        ids = _vector(ids)
        _check_batch_size(batch_size)
        if batch_size > len(ids):
            raise InputError(
                f"a batch of {batch_size} is larger than the training split of {len(ids)} examples; lower the batch size to {len(ids)} or less."
            )
        self.batch_size, self.seed = int(batch_size), seed
        self.steps_per_epoch = len(ids) // self.batch_size
        # Four, as a prefetching stream reads around the border of two epochs, or more when they are short.
        self._epoch = functools.lru_cache(maxsize=4)(lambda epoch: epoch_order(ids, seed=seed, epoch=epoch))
        self._epoch(0)  # a seed that cannot be used is refused here and not in a thread

    def __call__(self, step: int) -> Int32[np.ndarray, " b"]:
        """Returns the ids of the global batch at `step`, counted from 0 over all epochs."""
        epoch, place = divmod(int(step), self.steps_per_epoch)
        return self._epoch(epoch)[place * self.batch_size : (place + 1) * self.batch_size]


def padded(ids: np.ndarray, batch_size: int) -> Iterator[tuple[Int32[np.ndarray, " b"], Bool[np.ndarray, " b"]]]:
    """Cuts `ids` into batches of one size for evaluation: every id has mask True exactly once.

    Args:
        ids: (n,) ids; kept in order.
        batch_size: examples in a batch; it may be larger than n.

    Returns:
        an iterator of (ids, mask), both (batch_size,). The last batch is filled up by repeating its last id with mask False.

    Raises:
        InputError: for no ids, or a batch size below 1.

    >>> [(i.tolist(), m.tolist()) for i, m in padded(np.array([7, 8, 9]), 2)]
    [([7, 8], [True, True]), ([9, 9], [True, False])]
    """
    ids = _vector(ids)
    _check_batch_size(batch_size)
    starts = range(0, len(ids), batch_size)
    return (_cut(ids, start, batch_size) for start in starts)


def _cut(ids: np.ndarray, start: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    places = np.arange(start, start + batch_size)
    return ids[np.minimum(places, len(ids) - 1)], places < len(ids)


def _vector(ids: np.ndarray) -> np.ndarray:
    ids = np.asarray(ids)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(f"ids must be a vector of integers, got {ids.dtype} {ids.shape}.")
    if not len(ids):
        raise InputError("the split is empty: there are no ids to make batches of.")
    return ids.astype(np.int32)


def _check_batch_size(batch_size: int) -> None:
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise InputError(f"the batch size must be an integer and at least 1, got {batch_size!r}.")
