"""Watches the steps of a run: progress, losses that are not finite, memory that does not suffice, runs that would take days, signals."""

import contextlib
import math
import os
import signal
import threading
import time
from collections import deque

import jax

from robustjax.core import processes
from robustjax.core.check import InputError
from robustjax.train import build, state

SLOW_HOURS = 24.0  # longer than this on a CPU, and the user is asked


class NotFinite(InputError):
    """A loss that is no number any more."""


class Stopped(KeyboardInterrupt):
    """A run that a signal has ended, with a checkpoint of where it was."""

    status = 128 + signal.SIGTERM  # what a shell calls a command that such a signal has ended


class Asked:
    """Whether SIGTERM asks this process to stop, which is what Slurm, Kubernetes and Cloud TPU send before they take a machine away."""

    def __init__(self):
        self.asked = False

    def __bool__(self) -> bool:
        return self.asked

    @contextlib.contextmanager
    def listening(self):
        """Notes the signal in place of ending at once; Python lets the main thread alone do so."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return

        def note(*_) -> None:
            self.asked = True

        before = signal.signal(signal.SIGTERM, note)
        try:
            yield self
        finally:
            # None: set by other than Python, and not to be had back.
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


class Watch:
    """Runs the dispatches between two steps and looks at their markers, two dispatches behind, so that the device never waits.

    Args:
        experiment: see train.build.
        checkpoints: to name the last good one; None on processes that do not write.
        show: update of the progress line.
        compiled: (state, batch_size) -> compiled step, for the memory that it needs.
        mesh: batch sizes are multiples of its size.
        asked: whether this process is asked to stop.
    """

    def __init__(self, experiment, checkpoints, show, compiled, mesh, asked: Asked):
        self.experiment, self.checkpoints, self.show, self.compiled, self.mesh = experiment, checkpoints, show, compiled, mesh
        self.first = self.unasked = True
        self.asked, self.stopping = asked, False

    def steps(self, feed, current: state.TrainState, start: int, stop: int) -> tuple[state.TrainState, int]:
        """Takes the steps from `start` to `stop`, or to where a signal to any process stops all of them.

        Returns:
            The state, and the step that it is of.

        Raises:
            InputError: see the functions below.
        """
        pending, timed_from, after = deque(), None, start
        with contextlib.closing(feed.dispatches(start, stop)) as dispatches:
            for after, argument in dispatches:
                try:
                    current, marker = feed(current, argument)
                    if self.first:
                        jax.block_until_ready(marker)
                except jax.errors.JaxRuntimeError as error:
                    raise self._memory(error) from error
                self.first = False
                pending.append((after, marker, processes.any_of(bool(self.asked), self.mesh)))
                if len(pending) > 2:
                    timed_from = self._look(*pending.popleft(), timed_from)
                if self.stopping:
                    break
        while pending:
            timed_from = self._look(*pending.popleft(), timed_from)
        return current, after

    def refuse_bad_weights(self, step: int, validation_loss: float) -> None:
        """Refuses weights that the last update has broken: the marker saw the loss before it.

        Raises:
            NotFinite: if the validation loss is not finite.
        """
        if not math.isfinite(validation_loss):
            raise self._not_finite(step)

    def _look(self, after: int, marker, asked, timed_from: tuple[float, int] | None) -> tuple[float, int]:
        """Waits for a dispatch, shows the speed since `timed_from` (seconds, step), and returns where to time from."""
        bad = int(marker)
        self.stopping = self.stopping or bool(asked)
        if bad >= 0:
            raise self._not_finite(bad)
        now = time.perf_counter()
        if timed_from is None:
            return now, after
        per_step = (now - timed_from[0]) / (after - timed_from[1])
        self.show(after, f"{self.experiment.config['batch_size'] / per_step:,.0f} images/s")
        if self.unasked:
            self.unasked = False
            per_step = processes.gather(per_step)[0]  # all come to one decision
            _refuse_days(per_step, self.experiment.total_steps - after, allow=self.experiment.config["allow_slow"])
        return timed_from

    def _not_finite(self, step: int) -> NotFinite:
        # Together, since the process that writes may be killed once another has ended.
        kept = processes.together(self._last_good, first_only=True) or "process 0 says which checkpoint is the last good one"
        return NotFinite(
            f"the loss became not finite at step {step}; {kept}. Lower config.optimizer.lr, or set config.optimizer.clip_norm=1.0, in a new workdir."
        )

    def _last_good(self) -> str:
        self.checkpoints.wait()  # else the last one may not be there yet
        good = self.checkpoints.steps()
        return f"the last good checkpoint is of step {good[-1]}" if good else "there is no checkpoint yet"

    def _memory(self, error: Exception) -> Exception:
        if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error).lower():
            return error
        batch = self.experiment.config["batch_size"]
        fits = fitting_batch(lambda size: self.compiled(self._shapes(), size), batch, memory_limit(), multiple=self.mesh.size)
        advice = f"--config.batch_size={fits} would fit" if fits else "no batch size would fit"
        return InputError(f"out of memory with config.batch_size={batch}: {advice} (the learning rate was chosen for {batch}).")

    def _shapes(self):
        experiment = self.experiment
        return jax.eval_shape(lambda: build.initial_state(experiment))


def _refuse_days(per_step: float, steps: int, *, allow: bool) -> None:
    hours = per_step * steps / 3600
    if jax.default_backend() == "cpu" and hours > SLOW_HOURS and not allow:
        raise InputError(
            f"no accelerator found: this run would take about {hours / 24:.1f} days on this CPU ({per_step:.2g} s a step, {steps:,} steps). "
            "Run it on a GPU or TPU (pip install '.[cuda]'), try --config=FILE:quick, or go on here with --config.allow_slow=True."
        )


def memory_limit() -> int:
    """Returns the bytes that the first device may use; the machine's memory where the device does not say."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def fitting_batch(compiled_for, batch_size: int, limit: int, *, multiple: int = 1) -> int:
    """Returns the largest halving of `batch_size` whose step fits into nine tenths of `limit` bytes, or 0.

    Args:
        compiled_for: batch size -> compiled step, whose memory analysis is read.
        batch_size: the one that did not fit.
        limit: bytes of the device.
        multiple: count of devices; sizes are multiples of it.
    """
    size = batch_size // 2
    while size >= multiple:
        size -= size % multiple
        try:
            need = compiled_for(size).memory_analysis()
        except (jax.errors.JaxRuntimeError, InputError):  # compiling may itself ask for too much, and stages may refuse a size
            size //= 2
            continue
        if need.temp_size_in_bytes + need.argument_size_in_bytes + need.output_size_in_bytes - need.alias_size_in_bytes < 0.9 * limit:
            return size
        size //= 2
    return 0
