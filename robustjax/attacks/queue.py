"""Which (example, run) of a stage is where: waiting, in a place of the device's batch, or over. NumPy only, no network."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Integer

EMPTY = -1  # in `example`: a place that nobody needs
_ARRAYS = ("next_run", "winner", "best_run", "loss", "start_loss", "example", "run", "front")


class Queue:
    """The runs of one stage. All examples' run 0 come first, then run 1 of those that are still robust, and so on.

    An example's next run begins when its earlier ones are over, or when nothing else waits and places are free. A run that breaks
    its example cancels the later ones; earlier ones that are still under way go on, so that the lowest run that succeeds wins and
    the result does not depend on the number of places.

    Args:
        entering: (n,) which examples of the data set take part.
        runs: how many each gets at most.
    """

    def __init__(self, entering: Bool[np.ndarray, " n"], runs: int):
        n = len(entering)
        self.runs = runs
        self.next_run = np.where(entering, 0, runs).astype(np.int32)  # the first that has not begun
        self.winner = np.full(n, runs, np.int32)  # the lowest run that succeeded; `runs` where none did
        self.best_run = np.full(n, runs, np.int32)  # the one that `loss` is of
        self.loss = np.full(n, np.nan)
        self.start_loss = np.full(n, np.nan)
        self.example = np.zeros(0, np.int32)  # in each place of the device's batch, of which there are none yet
        self.run = np.zeros(0, np.int32)
        self.front = np.zeros((0, 2), np.int32)  # (example, run) that lost their places and begin again before all others

    @property
    def broken(self) -> Bool[np.ndarray, " n"]:
        """Which examples a run of this stage broke, as far as is known by now."""
        return self.winner < self.runs

    def remaining(self) -> int:
        """Returns how many runs are not over: waiting or in a place."""
        waiting = np.maximum(np.minimum(self.winner, self.runs) - self.next_run, 0).sum()
        return int(waiting) + len(self.front) + int((self.example != EMPTY).sum())

    def fill(self) -> Bool[np.ndarray, " r"]:
        """Gives free places to whoever is next and returns which places are new."""
        fresh = np.zeros(len(self.example), bool)
        free = np.flatnonzero(self.example == EMPTY)
        while len(free) and len(items := self._next(len(free))):
            places, free = free[: len(items)], free[len(items) :]
            self.example[places], self.run[places] = items.T
            fresh[places] = True
        return fresh

    def _next(self, count: int) -> Integer[np.ndarray, "m 2"]:
        """Takes up to `count` of those that come next out of the queue; none only if nothing waits."""
        if len(self.front):
            items, self.front = self.front[:count], self.front[count:]
            return items
        waiting = np.flatnonzero(self.next_run < self.winner)
        at_work = np.zeros(len(self.next_run), bool)
        at_work[self.example[self.example != EMPTY]] = True
        ready = waiting[~at_work[waiting]]
        chosen = ready if len(ready) else waiting
        chosen = chosen[np.argsort(self.next_run[chosen], kind="stable")[:count]]
        items = np.stack([chosen, self.next_run[chosen]], axis=1).astype(np.int32)
        self.next_run[chosen] += 1
        return items

    def end(
        self,
        over: Bool[np.ndarray, " r"],
        success: Bool[np.ndarray, " r"],
        loss: Float[np.ndarray, " r"],
        start_loss: Float[np.ndarray, " r"],
    ) -> Integer[np.ndarray, "m 2"]:
        """Notes the runs that are over and frees their places and those of runs that nobody needs any more.

        Returns:
            (example, place) wherever an example was broken by its lowest run so far: the images there are to be kept.
        """
        won: dict[int, int] = {}
        for place in np.flatnonzero(over & (self.example != EMPTY)).tolist():
            example, run = int(self.example[place]), int(self.run[place])
            if success[place]:
                better = run < self.winner[example]
            else:
                # Of equal losses the lower run's, whichever is over first.
                known = np.inf if self.best_run[example] == self.runs else -self.loss[example]
                better = self.winner[example] == self.runs and (-loss[place], run) < (known, self.best_run[example])
            if better:
                self.best_run[example], self.loss[example], self.start_loss[example] = run, loss[place], start_loss[place]
            if better and success[place]:
                self.winner[example] = run
                won[example] = place
            self.example[place] = EMPTY
        late = (self.example != EMPTY) & (self.run > self.winner[self.example])
        self.example[late] = EMPTY
        self.front = self.front[self.front[:, 1] < self.winner[self.front[:, 0]]]
        return np.array(sorted(won.items()), np.int32).reshape(-1, 2)

    def resize(self, places: int) -> Integer[np.ndarray, " p"]:
        """Moves those at work into fewer places, which must hold them, and returns the old place of each new one."""
        working = np.flatnonzero(self.example != EMPTY)
        old = np.resize(working if len(working) else [0], places).astype(np.int32)
        self.example = np.where(np.arange(places) < len(working), self.example[old], EMPTY).astype(np.int32)
        self.run = self.run[old]
        return old

    def restart(self, places: int) -> None:
        """Clears `places` places; those at work begin again, before all others."""
        working = self.example != EMPTY
        lost = np.stack([self.example[working], self.run[working]], axis=1)
        self.front = np.concatenate([lost, self.front])
        self.example, self.run = np.full(places, EMPTY, np.int32), np.zeros(places, np.int32)

    def pack(self) -> dict[str, np.ndarray]:
        """Returns copies of all arrays."""
        return {name: getattr(self, name).copy() for name in _ARRAYS}

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Becomes what `pack` saved."""
        for name in _ARRAYS:
            setattr(self, name, np.array(arrays[name]))
