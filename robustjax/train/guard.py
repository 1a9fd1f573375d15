"""Watches the steps of a run: progress, losses that are not finite, memory that does not suffice, runs that would take days."""

import os
import time
from collections import deque

import jax

from robustjax.core.check import InputError
from robustjax.train import state

SLOW_HOURS = 24.0  # longer than this on a CPU, and the user is asked


class Watch:
    """Runs the dispatches between two steps and looks at their markers, two dispatches behind, so that the device never waits.

    Args:
        experiment: see train.build.
        checkpoints: to name the last good one.
        show: update of the progress line.
        compiled: (state, batch_size) -> compiled step, for the memory that it needs.
        mesh: batch sizes are multiples of its size.
    """

    def __init__(self, experiment, checkpoints, show, compiled, mesh):
        self.experiment, self.checkpoints, self.show, self.compiled, self.mesh = experiment, checkpoints, show, compiled, mesh
        self.first = True
        self.timed_from = None

    def steps(self, feed, current: state.TrainState, start: int, stop: int) -> state.TrainState:
        """Takes the steps from `start` to `stop`.

        Raises:
            InputError: see the functions below.
        """
        pending = deque()
        for after, argument in feed.dispatches(start, stop):
            try:
                current, marker = feed(current, argument)
                if self.first:
                    jax.block_until_ready(marker)
            except jax.errors.JaxRuntimeError as error:
                raise self._memory(error) from error
            self.first = False
            pending.append((after, marker))
            if len(pending) > 2:
                self._look(*pending.popleft())
        while pending:
            self._look(*pending.popleft())
        return current

    def _look(self, after: int, marker) -> None:
        bad = int(marker)
        if bad >= 0:
            good = self.checkpoints.steps()
            kept = f"the last good checkpoint is of step {good[-1]}" if good else "there is no checkpoint yet"
            raise InputError(
                f"the loss became not finite at step {bad}; {kept}. Lower config.optimizer.lr, or set config.optimizer.clip_norm=1.0, in a new workdir."
            )
        now, total, batch = time.perf_counter(), self.experiment.total_steps, self.experiment.config["batch_size"]
        if self.timed_from is None:
            self.timed_from = (now, after)  # compilation lies before it
            return
        taken = after - self.timed_from[1]
        per_step = (now - self.timed_from[0]) / taken
        self.show(after, f"{batch / per_step:,.0f} images/s")
        if taken <= 2:
            _refuse_days(per_step, total - after, allow=self.experiment.config["allow_slow"])

    def _memory(self, error: Exception) -> Exception:
        if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error).lower():
            return error
        batch = self.experiment.config["batch_size"]
        fits = fitting_batch(lambda size: self.compiled(self._shapes(), size), batch, memory_limit(), multiple=self.mesh.size)
        advice = f"--config.batch_size={fits} would fit" if fits else "no batch size would fit"
        return InputError(f"out of memory with config.batch_size={batch}: {advice} (the learning rate was chosen for {batch}).")

    def _shapes(self):
        experiment = self.experiment
        return jax.eval_shape(
            lambda: state.create(
                experiment.params, experiment.batch_stats, experiment.optimizer, ema=experiment.config["optimizer"]["ema"] > 0
            )
        )


def _refuse_days(per_step: float, steps: int, *, allow: bool) -> None:
    hours = per_step * steps / 3600
    if jax.default_backend() == "cpu" and hours > SLOW_HOURS and not allow:
        raise InputError(
            f"no accelerator found: this run would take about {hours / 24:.1f} days on this CPU ({per_step:.2g} s a step, {steps:,} steps). "
            "Run it on a GPU or TPU (pip install 'robustjax[cuda]'), try --config=FILE:quick, or go on here with --config.allow_slow=True."
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
        need = compiled_for(size).memory_analysis()
        if need.temp_size_in_bytes + need.argument_size_in_bytes + need.output_size_in_bytes - need.alias_size_in_bytes < 0.9 * limit:
            return size
        size //= 2
    return 0
