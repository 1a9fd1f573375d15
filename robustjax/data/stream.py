"""Batches of sources that do not fit in memory, read ahead by threads (grain).

The batches equal those gathered from the same examples in memory: the order comes from `batches`, grain only reads ahead.
A stream starts at any step at once, as batches are computed from their step number, so that a resumed run skips nothing.
Random crops follow from (seed, step, id), see `Source.fetch_train`; evaluation has none.
"""

import math
import os
from collections.abc import Callable, Iterator

import numpy as np

from robustjax.core.check import InputError
from robustjax.core.types import Batch
from robustjax.data import batches
from robustjax.data.source import Images, Labels, Source


def cores() -> int:
    """Returns how many cores this process may use: a job often has a part of its machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


THREADS = max(8, cores())
PREFETCH = max(16, THREADS)
_AHEAD = 2 * 10**9  # bytes of images that are read ahead at most, unless two batches are more


def train_stream(
    source: Source,
    order: batches.TrainOrder,
    *,
    start_step: int,
    num_steps: int,
    threads: int = THREADS,
    prefetch: int = PREFETCH,
    process: int = 0,
    processes: int = 1,
) -> Iterator[Batch]:
    """Streams the batches of the steps start_step .. start_step + num_steps - 1.

    Args:
        source: where the examples are.
        order: ids of the global batch at each step.
        start_step: first step, from 0.
        num_steps: how many batches.
        threads: each one reads and decodes a batch; 0 reads in the caller's thread.
        prefetch: how many batches are read ahead, all of which may be in memory; best at least `threads`. At most as many as are 2 GB, or
            two.
        process: which process this is (jax.process_index()).
        processes: how many there are (jax.process_count()); each gets its consecutive part of every global batch's rows, as
            jax.make_array_from_process_local_data expects.

    Returns:
        an iterator of Batch with NumPy fields: uint8 images, labels, ids, and mask all True. Closing it stops the threads.

    Raises:
        InputError: for a negative step, or a batch that the processes cannot share evenly.
    """
    if start_step < 0 or num_steps < 0:
        raise InputError(f"start_step and num_steps must be at least 0, got {start_step} and {num_steps}.")
    rows = _rows(order.batch_size, process, processes)
    everyone = np.ones(order.batch_size, bool)

    def of_place(place: int) -> tuple[np.ndarray, np.ndarray]:
        return order(start_step + place)[rows], everyone[rows]

    def fetch(place: int, ids: np.ndarray) -> tuple[Images, Labels]:
        return source.fetch_train(ids, seed=order.seed, step=start_step + place)

    prefetch = _bounded(prefetch, source, order.batch_size // processes)
    return _read_ahead(fetch, of_place, num_steps, threads=threads, prefetch=prefetch)


def eval_stream(
    source: Source,
    ids: np.ndarray,
    batch_size: int,
    *,
    threads: int = THREADS,
    prefetch: int = PREFETCH,
    process: int = 0,
    processes: int = 1,
) -> Iterator[Batch]:
    """Streams `ids` once, in order, in batches of one size; padding has mask False (see `batches.padded`).

    Args:
        source: where the examples are.
        ids: (n,) which of them.
        batch_size: examples in a global batch.
        threads: as for `train_stream`.
        prefetch: as for `train_stream`.
        process: as for `train_stream`; a process may get batches of nothing but padding.
        processes: as for `train_stream`.

    Returns:
        an iterator of Batch with NumPy fields.

    Raises:
        InputError: for no ids, or a batch that the processes cannot share evenly.
    """
    cut = list(batches.padded(ids, batch_size))
    rows = _rows(batch_size, process, processes)

    def of_place(place: int) -> tuple[np.ndarray, np.ndarray]:
        batch_ids, mask = cut[place]
        return batch_ids[rows], mask[rows]

    prefetch = _bounded(prefetch, source, batch_size // processes)
    return _read_ahead(lambda place, ids: source.fetch(ids), of_place, len(cut), threads=threads, prefetch=prefetch)


def _bounded(prefetch: int, source: Source, rows: int) -> int:
    return min(prefetch, max(2, _AHEAD // (rows * math.prod(source.shape))))


def _rows(batch_size: int, process: int, processes: int) -> slice:
    if not 0 <= process < processes:
        raise InputError(f"process must lie between 0 and {processes - 1}, got {process}.")
    if batch_size % processes:
        raise InputError(f"a batch of {batch_size} cannot be shared evenly by {processes} processes; choose a multiple of {processes}.")
    share = batch_size // processes
    return slice(process * share, (process + 1) * share)


def _read_ahead(
    fetch: Callable[[int, np.ndarray], tuple[Images, Labels]],
    of_place: Callable[[int], tuple[np.ndarray, np.ndarray]],
    size: int,
    *,
    threads: int,
    prefetch: int,
) -> Iterator[Batch]:
    """Yields the batches of places 0 .. size - 1, each fetched whole by one thread: Python's lock makes finer work slower."""
    if threads < 0 or prefetch < 0:
        raise InputError(f"threads and prefetch must be at least 0, got {threads} and {prefetch}.")

    def read(place: int) -> Batch:
        ids, mask = of_place(place)
        images, labels = fetch(place, ids)
        return Batch(images, labels, ids, mask)

    if threads == 0:
        return map(read, range(size))

    def pipeline() -> Iterator[Batch]:
        import grain  # not at import time: it is heavy, and most runs keep their data on the device

        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
        reader = iter(grain.MapDataset.range(size).map(read).to_iter_dataset(options))
        try:
            yield from reader
        finally:
            reader.close()  # else its threads read on after the caller has stopped

    return pipeline() if size else iter(())
