"""Splits and batches: every example where it belongs, the same on every machine and after every resume."""

import numpy as np
import pytest

from robustjax import data
from robustjax.core import InputError
from robustjax.data import splits


def test_permutation_golden():
    # Kills: Generator.permutation (its stream may change with NumPy), an ignored seed, a purpose left out of the seed.
    # Pins the stream: a change here changes every published run.
    assert splits.permutation(8, seed=0, purpose=(1,)).tolist() == [7, 6, 2, 3, 1, 0, 4, 5]
    assert data.epoch_order(np.arange(8), seed=0, epoch=0).tolist() == [2, 5, 3, 1, 0, 7, 6, 4]
    assert data.epoch_order(np.arange(8), seed=0, epoch=1).tolist() == [3, 2, 5, 1, 0, 7, 4, 6]
    assert data.epoch_order(np.arange(8), seed=1, epoch=0).tolist() != [2, 5, 3, 1, 0, 7, 6, 4]


def test_permutation_is_uniform():
    # Kills: a permutation that favours places (argsort of few bits, unshuffled ends). Chi-squared over 6 x 6 places.
    counts = np.zeros((6, 6))
    for seed in range(3000):
        counts[np.arange(6), splits.permutation(6, seed=seed, purpose=(9,))] += 1
    assert ((counts - 500) ** 2 / 500).sum() < 60  # 25 degrees of freedom: 60 is passed once in ten thousand


@pytest.mark.parametrize(("size", "fraction", "held_out"), [(50_000, 0.2, 10_000), (1437, 0.2, 287), (5, 0.4, 2), (3, 0.34, 1)])
def test_train_validation_partitions(size, fraction, held_out):
    # Kills: floor for round, parts that overlap or lose examples, unsorted ids, an ignored seed, validation and training swapped,
    # a size that gives another split than the labels.
    train, validation = data.train_validation(np.zeros(size, np.int32), fraction=fraction, seed=3)
    assert len(validation) == held_out and train.dtype == validation.dtype == np.int32
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(size))
    assert np.all(np.diff(train) > 0) and np.all(np.diff(validation) > 0)
    again = data.train_validation(size, fraction=fraction, seed=3)[1]
    np.testing.assert_array_equal(validation, again)
    assert size < 9 or not np.array_equal(validation, data.train_validation(np.zeros(size), fraction=fraction, seed=4)[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.train_validation(np.zeros(10), fraction=0.0), "between 0 and 1, both excluded, got 0.0"),
        (lambda: data.train_validation(np.zeros(10), fraction=1.0), "between 0 and 1, both excluded, got 1.0"),
        (lambda: data.train_validation(np.zeros(10), fraction=float("nan")), "got nan"),
        (lambda: data.train_validation(np.zeros(10), fraction=0.01), "splits 10 examples into 10 and 0"),
        (lambda: data.train_validation(np.zeros(3), fraction=0.9), "splits 3 examples into 0 and 3"),
        (lambda: data.train_validation(np.zeros(10), seed=-1), "a seed must be an integer and at least 0, got -1"),
        (lambda: data.TrainOrder(np.arange(10), batch_size=16, seed=0), "batch of 16 is larger than the training split of 10"),
        (lambda: data.TrainOrder(np.arange(10), batch_size=0, seed=0), "at least 1, got 0"),
        (lambda: data.TrainOrder(np.arange(10), batch_size=4, seed=-1), "at least 0, got -1"),
        (lambda: data.TrainOrder(np.zeros(0, int), batch_size=4, seed=0), "split is empty"),
        (lambda: data.TrainOrder(np.zeros(5), batch_size=4, seed=0), "vector of integers, got float64"),
        (lambda: data.padded(np.zeros(0, int), 4), "split is empty"),
        (lambda: data.padded(np.arange(3), -4), "at least 1, got -4"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    # Kills: a check dropped; a check that waits until the first batch is asked for.
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_train_order_covers_each_epoch_and_needs_only_the_step():
    # Kills: the same order in every epoch, examples drawn twice in an epoch, an epoch of the wrong length, a cache that mixes up
    # epochs, positions returned in place of ids.
    ids = np.arange(100, 123)
    order = data.TrainOrder(ids, batch_size=5, seed=0)
    assert order.steps_per_epoch == 4
    forward = [order(step) for step in range(40)]
    for epoch in range(10):
        seen = np.concatenate(forward[4 * epoch : 4 * epoch + 4])
        assert len(set(seen.tolist())) == 20 and np.isin(seen, ids).all() and seen.dtype == np.int32
        np.testing.assert_array_equal(seen, data.epoch_order(ids, seed=0, epoch=epoch)[:20])
    fresh = data.TrainOrder(ids, batch_size=5, seed=0)
    for step in reversed(range(40)):
        np.testing.assert_array_equal(fresh(step), forward[step])
    # The three left out differ from epoch to epoch: each example is seen sooner or later.
    assert set(np.concatenate(forward).tolist()) == set(ids.tolist())


def test_batch_as_large_as_the_split_is_allowed():
    # Kills: >= for > in the check.
    order = data.TrainOrder(np.arange(4), batch_size=4, seed=0)
    assert order.steps_per_epoch == 1 and sorted(order(7).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize(("count", "size"), [(10, 4), (8, 4), (3, 8), (1, 1)])
def test_padded_counts_everyone_once(count, size):
    # Kills: a dropped last batch, padding with mask True, a batch of padding only at the end, padding with an id that is not ours.
    ids = np.arange(50, 50 + count)
    cut = list(data.padded(ids, size))
    assert len(cut) == -(-count // size)
    assert all(i.shape == m.shape == (size,) and np.isin(i, ids).all() for i, m in cut)
    np.testing.assert_array_equal(np.concatenate([i[m] for i, m in cut]), ids)
