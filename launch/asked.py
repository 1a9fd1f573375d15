"""What launch/reproduce.py and launch/sweep.py share: flags, the list of a dry run, the end."""

import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import entry  # isort: skip
from absl import flags

_SCALE = flags.DEFINE_enum(
    "scale", "full", ["full", "short", "quick"], "The papers' settings, a tenth of the epochs, or seconds a run, which show nothing."
)
DATA = flags.DEFINE_list("data", [], "Only these data sets. Default: the paper's; in the quick form the first of them.")
_SEEDS = flags.DEFINE_integer("seeds", 0, "Runs of each row (0: 3 in full, else 1).", lower_bound=0)
WORKERS = flags.DEFINE_integer("workers", 1, "Runs at once in this process; other processes may share the --workdir.", lower_bound=1)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only list the runs, their commands and their estimated cost.")
_WORKDIR = flags.DEFINE_string("workdir", "runs/reproduce", "Folder of all runs and tables.")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "Folder of the data sets, as --config.data.dir of launch/train.py.")
_OVERRIDE = flags.DEFINE_multi_string(
    "override",
    [],
    "Another setting of every run's configuration: KEY=VALUE, e.g. compute_dtype=bfloat16. Such runs and tables have other folders.",
)


def pairs(texts: Sequence[str], flag: str) -> dict[str, str]:
    """Reads NAME=VALUE.

    Raises:
        InputError: for any other form.
    """
    from robustjax.core.check import InputError

    for text in texts:
        if not all(text.partition("=")):
            raise InputError(f"--{flag} is written NAME=VALUE, got {text!r}.")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def settings(corrupted: Mapping[str, str] | None = None):
    """Returns what the flags say of every run."""
    from launch import plan

    return plan.Settings(
        plan.placed(_WORKDIR.value),
        _SCALE.value,
        _SEEDS.value or plan.SCALES[_SCALE.value],
        {key: entry.literal(value) for key, value in pairs(_OVERRIDE.value, "override").items()},
        absolute(_DATA_DIR.value) if _DATA_DIR.value else "",
        {data: absolute(folder) for data, folder in (corrupted or {}).items()},
    )


def absolute(folder: str) -> str:
    """Returns a folder of the user's as commands that run elsewhere find it."""
    return str(Path(folder).expanduser().absolute())


def describe(cells: Sequence, title: str) -> None:
    """Prints what would be done: runs, commands, the estimated cost."""
    from launch import cost, plan

    print(title)
    for one in cells:
        operations, unknown = cost.total([one])
        print(f"\n{one.data}, {one.row}: {'no estimate for this network' if unknown else f'{operations / 1e15:,.1f} PFLOP'}")
        for run in one.runs:
            print(f"  {run.folder}{' (trained)' if (run.folder / 'training.json').exists() else ''}")
    listed = plan.jobs(cells)
    missing = [job for job in listed if not job.done]
    print(f"\n{len(listed)} jobs, {len(listed) - len(missing)} of them done" + ("; missing, in this order:" if missing else "."))
    for step in (step for job in missing for step in job.steps if not step.done.exists()):
        print(f"  {shlex.join(step.command)}")
    operations, unknown = cost.total(cells, missing=True)
    if operations:
        print(
            f"\nEstimate of what is missing: {operations / 1e15:,.1f} PFLOP{', without some networks that are not known' * bool(unknown)}"
        )
        print("\n".join(f"  {line}" for line in cost.described(operations, cells)))
        print(
            "  Operations are counted from forward passes. A network of fewer channels than the one measured runs several times slower on"
        )
        print("  an accelerator, and what launch/deepaugment.py takes is not counted: these hours are the least that it takes.")


def finish(failures: Sequence) -> None:
    """Names what failed, and exits with 1 if anything did; with 143, on which schedulers begin again, if all of it was only stopped."""
    for failure in failures:
        print(failure.said, file=sys.stderr)
    if failures:
        print(f"{len(failures)} not done; the same command tries them again, and nothing that is done is lost.", file=sys.stderr)
        sys.exit(128 + signal.SIGTERM if all(failure.stopped for failure in failures) else 1)
