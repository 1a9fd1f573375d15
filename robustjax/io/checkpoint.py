"""Checkpoints: written by Orbax in the background, whole or not at all; the best and the last two are kept.

A checkpoint holds the training state and a `meta` dict (the configuration, the model's description, validation results),
so that evaluation needs nothing else. Every array's checksum is stored beside it, because a lost or damaged block may
otherwise be read back as zeros without an error.
"""

import json
import os
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from robustjax.core.check import InputError
from robustjax.io import log, results

METRIC = "validation_accuracy"
UNVALIDATED = -2.0
"""In its place: of a checkpoint where a signal has stopped the run, which is gone on from and never the best."""
_DAMAGED = -1.0


def _leaves(tree) -> dict[str, Any]:
    # Orbax gives a NamedTuple back as a dict of its fields and a tuple as a list: name leaves so that both sides agree.
    def name(entry) -> str:
        return str(next(getattr(entry, kind) for kind in ("key", "idx", "name") if hasattr(entry, kind)))

    return {json.dumps([name(entry) for entry in path]): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def checksums(state) -> dict[str, int]:
    """Returns a CRC-32 for each array of a tree, by its path."""
    return {name: zlib.crc32(np.ascontiguousarray(leaf).tobytes()) for name, leaf in _leaves(state).items()}


def _accuracy(metrics: dict) -> float:
    return metrics[METRIC]


class Checkpoints:
    """The checkpoints of one run, in `workdir/checkpoints`.

    Args:
        workdir: the run's folder.
        read_only: for evaluation: nothing is created, cleaned up or deleted, and `save` is not there.
    """

    def __init__(self, workdir: str | os.PathLike, *, read_only: bool = False):
        import orbax.checkpoint as ocp

        _hush_closed_loops()
        self._ocp = ocp
        self.folder = Path(workdir).absolute() / "checkpoints"
        if read_only and not self.folder.is_dir():
            raise InputError(
                f"no checkpoints in {workdir}: looked for {self.folder}. Train first: python launch/train.py --workdir={workdir} ..."
            )
        # Of several processes the one that calls works alone, and waits for none: the state is the same on all of them.
        this = jax.process_index()
        self._alone = alone = ocp.options.MultiprocessingOptions(
            primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process{this}"
        )
        # Read step by step: a CheckpointManager reads the metrics of all checkpoints first, and raises for a damaged one.
        self._reader = ocp.Checkpointer(
            ocp.CompositeCheckpointHandler(
                state=ocp.StandardCheckpointHandler(multiprocessing_options=alone),
                meta=ocp.JsonCheckpointHandler(multiprocessing_options=alone),
                metrics=ocp.JsonCheckpointHandler(multiprocessing_options=alone),
            ),
            multiprocessing_options=alone,
        )
        self._manager = None
        if not read_only:
            self._manager = self._writer()

    def _writer(self):
        for step in self.steps():
            if self._validation_accuracy(step) == _DAMAGED:
                log.say(
                    f"warning: the metrics of checkpoint {step} in {self.folder} cannot be read. It was moved to {self.set_aside(step)}."
                )
        ocp, alone = self._ocp, self._alone
        self.folder.mkdir(parents=True, exist_ok=True)
        policies = ocp.checkpoint_managers
        keep = policies.AnyPreservationPolicy([policies.LatestN(2), policies.BestN(n=1, get_metric_fn=_accuracy)])
        # Without best_fn, Orbax does not write the metrics down.
        options = ocp.CheckpointManagerOptions(
            best_fn=_accuracy, preservation_policy=keep, cleanup_tmp_directories=True, create=False, multiprocessing_options=alone
        )
        handlers = {
            "state": ocp.StandardCheckpointHandler(multiprocessing_options=alone),
            "meta": ocp.JsonCheckpointHandler(multiprocessing_options=alone),
        }
        return ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)

    def save(self, step: int, state: dict, meta: dict, *, validation_accuracy: float) -> None:
        """Saves in the background; returns once the arrays are copied. A checkpoint that is already there is left alone.

        Args:
            step: number of training steps taken.
            state: a dict of trees of arrays, the same on all devices.
            meta: JSON-like; `checksums` is added.
            validation_accuracy: decides which checkpoint is the best (the later of equals); or UNVALIDATED.

        Raises:
            InputError: if this or the previous checkpoint could not be written (disk full, folder gone).
        """
        if step in self.steps():
            return
        ocp = self._ocp
        host = jax.tree.map(np.asarray, state)
        if jax.process_count() > 1:
            # Orbax wants all processes to write arrays on devices. A copy, since what it lies on is given to the next state.
            state = jax.tree.map(np.array, host)
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave({**meta, "checksums": checksums(host)}))
        with _writing(self.folder):
            self._manager.save(step, args=args, metrics={METRIC: float(validation_accuracy)})

    def steps(self) -> list[int]:
        """Returns the steps of the complete checkpoints, oldest first."""
        # A checkpoint gets its name, a number, once it is whole.
        return sorted(int(path.name) for path in self.folder.glob("*") if path.name.isdigit())

    def is_validated(self, step: int) -> bool:
        """Returns whether a checkpoint is of a validation, and not of where a signal has stopped the run."""
        return self._validation_accuracy(step) != UNVALIDATED

    def best(self) -> tuple[int, float]:
        """Returns the step of highest validation accuracy (the later of equals), and that accuracy.

        Raises:
            InputError: if there is no complete checkpoint of a validation.
        """
        accuracy, step = max(((self._validation_accuracy(step), step) for step in self.steps()), default=(UNVALIDATED, 0))
        if accuracy == UNVALIDATED:
            raise InputError(
                f"no complete checkpoint in {self.folder}; the run was stopped before its first one. Run the training command again."
            )
        return step, accuracy

    def _validation_accuracy(self, step: int) -> float:
        # Read by hand: Orbax raises for a damaged file, and one damaged file must not hide the other checkpoints.
        metrics = results.read_json(self.folder / str(step) / "metrics" / "metrics")
        return metrics[METRIC] if isinstance(metrics, dict) and METRIC in metrics else _DAMAGED

    def restore(self, step: int, *, like: dict | None = None) -> tuple[dict, dict]:
        """Reads one checkpoint, onto the first device whatever devices wrote it.

        Args:
            step: one of `steps()`.
            like: a tree of arrays or ShapeDtypeStructs to restore into; without it NamedTuples come back as lists or dicts.

        Returns:
            (state, meta).

        Raises:
            DamagedCheckpoint: if it cannot be read, or differs from its checksums.
            InputError: if it is whole but holds another state than `like`.
        """
        ocp = self._ocp
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        try:
            meta = self._reader.restore(self.folder / str(step), args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
            stored = self._reader.metadata(self.folder / str(step)).item_metadata["state"].tree
            if like is not None:
                _compare(stored, like, step)
            # Into its own structure: Orbax tells empty dicts from absent ones, so a state of an older version would not fit `like`.
            target = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), stored)
            state = self._reader.restore(self.folder / str(step), args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))["state"]
        except InputError:
            raise
        except Exception as error:  # Orbax, tensorstore and json each raise their own kinds for a damaged file.
            raise DamagedCheckpoint(f"checkpoint {step} in {self.folder} cannot be read ({_first_line(error)}).") from error
        if checksums(state) != meta["checksums"]:
            raise DamagedCheckpoint(f"checkpoint {step} in {self.folder} differs from its checksums.")
        return state if like is None else _shaped(state, like), meta

    def set_aside(self, step: int) -> Path:
        """Moves a damaged checkpoint out of the way, keeping its files; returns where they are."""
        target = self.folder.parent / "damaged" / str(step)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        shutil.move(self.folder / str(step), target)
        if self._manager:
            self._manager.reload()
        return target

    def wait(self) -> None:
        """Waits until everything is on the disk.

        Raises:
            InputError: if the last checkpoint could not be written.
        """
        with _writing(self.folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and lets go of the folder."""
        self._reader.close()
        with _writing(self.folder):
            self._manager.close()


class DamagedCheckpoint(InputError):
    """A checkpoint that cannot be read back as it was written."""


class _writing:
    """Turns a failed write into one line; Orbax raises what its background thread met."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, Exception):
            raise InputError(
                f"could not write a checkpoint to {self.folder}: {_first_line(error)}. Free space (or mend the folder) and run the same command "
                "again: it goes on from the last complete checkpoint."
            ) from error


def _hush_closed_loops() -> None:
    """Keeps back what Orbax prints after a failed read or write, and nothing else.

    It leaves callbacks of a closed event loop behind, in threads of its own; each prints a traceback, at any time later.
    """
    before = sys.unraisablehook
    if getattr(before, "hushes_closed_loops", False):
        return

    def hook(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    hook.hushes_closed_loops = True
    sys.unraisablehook = hook


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _shaped(state, like):
    """Returns the arrays of a state in the structure of `like`, whose leaves have the same names."""
    found = _leaves(state)
    return jax.tree.unflatten(jax.tree.structure(like), [found[name].astype(leaf.dtype) for name, leaf in _leaves(like).items()])


def _compare(stored, like, step: int) -> None:
    stored, like = ({name: tuple(leaf.shape) for name, leaf in _leaves(tree).items()} for tree in (stored, like))
    # Orbax refuses another tree too, but sometimes leaves a thread's traceback behind, and does not name the array.
    wrong = sorted(name for name in stored.keys() | like.keys() if stored.get(name) != like.get(name))
    if wrong:
        raise InputError(
            f"checkpoint {step} holds another state than this version builds: {len(wrong)} arrays differ, first {wrong[0]} "
            f"(stored {stored.get(wrong[0])}, expected {like.get(wrong[0])}). Go on with the version that wrote it, or choose another --workdir."
        )
