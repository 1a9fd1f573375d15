"""The queue of (example, run) pairs, played through without a network. Each test names the mutants it kills."""

import numpy as np
import pytest

from robustjax.attacks.queue import EMPTY, Queue


def play(success, steps, places, *, seed=0, interrupt=False):
    """Plays runs that last `steps[e, r]` chunks and end as told; returns the queue, what began in which order and what was found."""
    n, runs = success.shape
    queue, found, order, left = Queue(np.arange(n) != 0, runs), {}, [], {}
    loss = 10.0 * np.arange(n)[:, None] + np.array([1, 2, 2, 0])[None, :runs]  # the best twice
    queue.restart(places)
    rng = np.random.default_rng(seed)
    while queue.remaining():
        for place in np.flatnonzero(queue.fill()):
            item = int(queue.example[place]), int(queue.run[place])
            earlier = queue.run[(queue.example == item[0]) & (queue.run < item[1])]
            order.append((*item, len(earlier) > 0))
            left[item] = steps[item]
            assert item[1] < queue.winner[item[0]]
        # Nobody has two runs at work while another waits for a first place.
        at_work = np.bincount(queue.example[queue.example != EMPTY], minlength=n)
        ready = (queue.next_run < queue.winner) & (at_work == 0)
        assert interrupt or not (ready.any() and (at_work > 1).any() and order[-1][2])
        over, won, value = np.zeros(len(queue.example), bool), np.zeros(len(queue.example), bool), np.full(len(queue.example), np.nan)
        for place in np.flatnonzero(queue.example != EMPTY):
            item = int(queue.example[place]), int(queue.run[place])
            left[item] -= 1
            over[place], won[place], value[place] = left[item] == 0, success[item] and left[item] == 0, loss[item]
        items = queue.example.copy(), queue.run.copy()
        for example, place in queue.end(over, won, value, -value):
            assert items[0][place] == example
            found[int(example)] = int(items[1][place])
        assert not (queue.run > queue.winner[queue.example])[queue.example != EMPTY].any()
        if interrupt and rng.random() < 0.3:
            queue.restart(max(1, len(queue.example) // 2))
        elif interrupt:
            copy = Queue(np.zeros(n, bool), runs)
            copy.unpack(queue.pack())
            queue = copy
    return queue, order, found, loss


@pytest.mark.parametrize("interrupt", [False, True])
@pytest.mark.parametrize("places", [1, 2, 5, 40])
def test_the_lowest_run_that_succeeds_wins_whatever_the_schedule(places, interrupt):
    # Kills: the first to finish wins, earlier runs cancelled, later ones not, items lost or run twice by a restart or a saved
    # state, losses of runs after the winner, ties by order of ending,
    # cancelled runs that go on or begin, a second run at work while others wait for a first.
    rng = np.random.default_rng(3)
    for seed in range(8):
        success = rng.random((9, 4)) < 0.2
        queue, order, found, loss = play(success, rng.integers(1, 5, (9, 4)), places, seed=seed, interrupt=interrupt)
        expected = np.where(success.any(1), success.argmax(1), 4)
        expected[0] = 4  # did not enter
        np.testing.assert_array_equal(queue.winner, expected)
        assert found == {e: int(r) for e, r in enumerate(expected) if r < 4}
        best = np.where(expected < 4, expected, loss.argmax(1))[1:]  # of equals the lower run
        np.testing.assert_array_equal(queue.best_run[1:], best)
        np.testing.assert_array_equal(queue.loss[1:], loss[np.arange(1, 9), best])
        np.testing.assert_array_equal(queue.start_loss[1:], -loss[np.arange(1, 9), best])
        assert np.isnan(queue.loss[0]) and all(e for e, *_ in order)
        begun = [(e, r) for e, r, _ in order]
        assert interrupt or len(begun) == len(set(begun))
        assert all((e, r) in begun for e in range(1, 9) for r in range(min(expected[e] + 1, 4)))


def test_runs_come_in_order_and_early_only_when_nothing_else_waits():
    # Kills: example-major order, a second run beside the first while others wait, free places at the tail.
    _, order, _, _ = play(np.zeros((7, 3), bool), np.full((7, 3), 2), 6)
    assert [(e, r) for e, r, _ in order] == [(e, r) for r in range(3) for e in range(1, 7)]
    assert not any(beside for _, _, beside in order)
    _, order, _, _ = play(np.zeros((3, 3), bool), np.full((3, 3), 2), 4)
    assert [(e, r) for e, r, _ in order] == [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2), (2, 2)]
    assert [beside for _, _, beside in order] == [False, False, True, True, False, False]


def test_places_move_with_their_runs():
    # Kills: a resize that mixes rows up, or counts a copied row as at work.
    queue = Queue(np.ones(9, bool), 1)
    queue.restart(9)
    queue.fill()
    over = np.arange(9) % 3 != 1
    queue.end(over, np.zeros(9, bool), np.zeros(9), np.zeros(9))
    old = queue.resize(4)
    np.testing.assert_array_equal(queue.example, [1, 4, 7, EMPTY])
    np.testing.assert_array_equal(old[:3], [1, 4, 7])
    assert queue.remaining() == 3
