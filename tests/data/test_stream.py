"""Streams equal what is gathered in memory, from wherever they start, however they are shared."""

import os
import threading

import numpy as np
import pytest

from robustjax import data
from robustjax.core import InputError
from tests.data import writing


@pytest.fixture(scope="module")
def both():
    """The same real split twice: on disk, decoded when asked for, and in memory."""
    folder = writing.real("tfds_small")
    disk = data.make("cifar10", dir=folder, resident_bytes=0).test
    memory = data.make("cifar10", dir=folder).test
    assert not disk.resident and memory.resident
    return disk, memory


def equal(streamed, expected):
    for ours, theirs in zip(streamed, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("threads", [0, 4])
def test_train_stream_equals_gathering(both, threads):
    # Kills: batches out of order, another permutation, a start that is off by one or ignored, an epoch border that is missed,
    # images and labels of different examples, mask not True.
    disk, memory = both
    ids, _ = data.train_validation(memory.labels, fraction=0.8, seed=1)
    order = data.TrainOrder(ids, batch_size=48, seed=5)
    assert order.steps_per_epoch == 4
    stream = data.train_stream(disk, order, start_step=3, num_steps=3, threads=threads, prefetch=4)
    for step, batch in zip(range(3, 6), stream, strict=True):
        where = order(step)
        equal(batch, (memory.images[where], memory.labels[where], where, np.ones(48, bool)))


def test_resume_equals_the_uninterrupted_tail():
    # Kills: state kept in the stream. A stream of its own from each step, against one that began at 0.
    source = data.make("fake", train=30).train
    order = data.TrainOrder(np.arange(30), batch_size=8, seed=0)
    whole = list(data.train_stream(source, order, start_step=0, num_steps=9, threads=2, prefetch=3))
    for start in (1, 4, 8, 9):
        tail = list(data.train_stream(source, order, start_step=start, num_steps=9 - start, threads=3, prefetch=5))
        assert len(tail) == 9 - start
        for ours, theirs in zip(tail, whole[start:], strict=True):
            equal(ours, theirs)


def test_eval_stream_counts_everyone_once(both):
    # Kills: a dropped last batch, padding that counts, ids that are not those of the images.
    disk, memory = both
    ids = np.arange(990, 940, -1)
    streamed = list(data.eval_stream(disk, ids, 16, threads=2, prefetch=2))
    assert [b.images.shape for b in streamed] == [(16, 32, 32, 3)] * 4
    kept = [np.concatenate([getattr(b, field)[b.mask] for b in streamed]) for field in ("images", "labels", "ids")]
    equal(kept, (memory.images[ids], memory.labels[ids], ids.astype(np.int32)))


def test_processes_share_each_global_batch():
    # Kills: shares that overlap, are interleaved, or come from batches of their own order.
    source = data.make("fake", train=30).train
    order = data.TrainOrder(np.arange(30), batch_size=8, seed=0)
    shares = [list(data.train_stream(source, order, start_step=2, num_steps=3, process=p, processes=4)) for p in range(4)]
    for step, parts in zip(range(2, 5), zip(*shares, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate([part.ids for part in parts]), order(step))
    parts = [list(data.eval_stream(source, np.arange(11), 8, process=p, processes=2)) for p in range(2)]
    np.testing.assert_array_equal(np.concatenate([b.ids[b.mask] for pair in zip(*parts, strict=True) for b in pair]), np.arange(11))
    assert [b.mask.sum() for b in parts[1]] == [4, 0]


@pytest.mark.parametrize(("limit", "ahead"), [(10**9, 5), (3 * 4 * 16 * 16, 3), (1, 2)])
def test_a_stream_reads_ahead_a_bounded_way_and_stops_when_closed(limit, ahead, monkeypatch):
    # Kills: reading everything at once (memory), also of large images; threads that live on after the consumer has left.
    monkeypatch.setattr(data.stream, "_AHEAD", limit)
    fake = data.make("fake", train=64).train
    asked = []

    class Watched(data.ArraySource):
        def fetch(self, indices):
            asked.append(threading.current_thread().name)
            return super().fetch(indices)

    order = data.TrainOrder(np.arange(64), batch_size=4, seed=0)
    source = Watched(fake.images, fake.labels)
    stream = data.train_stream(source, order, start_step=0, num_steps=100, threads=2, prefetch=5)
    assert not asked
    for _ in range(3):
        next(stream)
    stream.close()
    readers = [thread for thread in threading.enumerate() if thread.name in asked]
    for thread in readers:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in readers)
    assert 3 <= len(asked) <= 3 + ahead and "MainThread" not in asked


def test_only_cores_of_this_process_count(monkeypatch):
    # Kills: hundreds of threads of a small job on a large machine; systems that cannot say which cores are a process's.
    monkeypatch.setattr(os, "cpu_count", lambda: 256)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 4, 7}, raising=False)
    assert data.stream.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert data.stream.cores() == 256


def test_sources_know_the_shape_of_their_images(both):
    # Kills: a shape with the number of images in it; a source of the user's own that must say it.
    class Own(data.Source):
        __len__ = resident = labels = images = None

        def fetch(self, indices):
            return np.zeros((len(indices), 5, 6, 3), np.uint8), np.zeros(len(indices), np.int32)

    assert [source.shape for source in (*both, Own())] == [(32, 32, 3), (32, 32, 3), (5, 6, 3)]


def test_an_error_in_a_thread_reaches_the_consumer(both):
    # Kills: errors swallowed by the threads, or wrapped beyond recognition; threads that live on because the error's traceback
    # keeps their reader alive.
    before = set(threading.enumerate())
    stream = data.eval_stream(both[0], np.array([5, 1000, *range(50)]), 2, threads=2, prefetch=2)
    with pytest.raises(InputError, match="examples 0 to 999, but id 1000") as error:
        next(stream)
    readers = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("grain-prefetch")]
    for thread in readers:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in readers) and error.tb is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_step": -1, "num_steps": 1}, "at least 0, got -1 and 1"),
        ({"start_step": 0, "num_steps": 1, "processes": 3}, "batch of 8 cannot be shared evenly by 3 processes"),
        ({"start_step": 0, "num_steps": 1, "process": 2, "processes": 2}, "process must lie between 0 and 1, got 2"),
        ({"start_step": 0, "num_steps": 1, "threads": -1}, "threads and prefetch must be at least 0"),
    ],
)
def test_bad_input_is_refused_before_the_first_batch(options, message):
    # Kills: checks inside a generator, which would run when the first batch is asked for.
    order = data.TrainOrder(np.arange(30), batch_size=8, seed=0)
    with pytest.raises(InputError, match=message):
        data.train_stream(data.make("fake", train=30).train, order, **options)
