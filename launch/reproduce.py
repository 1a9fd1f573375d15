"""Trains, measures and prints a table of the papers, ours beside theirs. Killed and run again, it goes on; what is done is not done again.

python launch/reproduce.py --table=spider/3 --scale=quick                        minutes on two cores; shows that it works, compares nothing
python launch/reproduce.py --table=spider/3 --dry_run                            which runs, by which commands, at what estimated cost
python launch/reproduce.py --table=spider/3 --data=cifar10 --rows=none,spider    some rows on one data set, at the paper's scale
python launch/reproduce.py --table=rat/2 --scale=short --workers=2               a tenth of the epochs, one seed
python launch/reproduce.py --table=discriminative/1 --data=digits                on data of no paper, in minutes

Tables: spider/1 to 9, esp/1, rat/1 to 6, discriminative/1 to 5 (see configs/tables.py). Rows in which a paper quotes others are printed, not
run. Run the same command on several machines with one --workdir, and they share the runs; tables share them, too.
"""

import contextlib
import shlex
import sys
from pathlib import Path

import asked

import entry  # isort: skip
from absl import flags

_TABLE = flags.DEFINE_string("table", None, "Table of a paper: spider/3.")
_ROWS = flags.DEFINE_list("rows", [], "Only these rows, by their names in the table.")
_CORRUPTED_DIR = flags.DEFINE_multi_string(
    "corrupted_dir", [], "Published corrupted files, measured in place of images made here: DATA=FOLDER, e.g. cifar10=CIFAR-10-C."
)
flags.mark_flags_as_required(["table"])


def details(cells: list, folder: Path) -> list:
    """Prints all runs of each data set as one report of launch/evaluate.py, with every corruption; returns what failed."""
    from launch import jobs

    made = []
    for data in dict.fromkeys(one.data for one in cells):
        steps = [step for one in cells if one.data == data for step in one.evaluations if step.done.exists()]
        if not steps or steps[0].done.name == "search.json":
            continue
        _, launcher, _, *arguments, _ = steps[0].command
        workdirs = [step.command[2] for step in steps]
        command = ("python", launcher, *workdirs, *arguments, f"--report={folder / data}")
        report = folder / data / "report.json"
        if not _printed(report, command):
            with contextlib.suppress(FileNotFoundError):
                report.unlink()
        made.append(jobs.Job(f"{folder.name}/{data}", folder / data, (jobs.Step(command, report),)))
    return jobs.work(made, folder / "claims")


def _printed(report: Path, command: tuple[str, ...]) -> bool:
    from robustjax.io import results

    return (results.read_json(report) or {}).get("command") == shlex.join(command)


def main() -> None:
    """Expands the table, does what is missing, prints and writes what came out."""
    from launch import compare, jobs, plan

    name = _TABLE.value
    if name in plan.NOT_RUNNABLE:
        compare.show(compare.gathered(name, "full", [], plan.reference()[name], notes=[f"not run: {plan.NOT_RUNNABLE[name]}"]))
        return
    table, paper = plan.table(name), plan.reference()[name]
    settings = asked.settings(asked.pairs(_CORRUPTED_DIR.value, "corrupted_dir"))
    rows = plan.rows(_ROWS.value, list(table.rows))
    usual, datasets = (plan.datasets(table.files, of, settings.scale, paper) for of in ([], asked.DATA.value))
    cells = [plan.cell(row, data, table.files[data], table.rows[row], table, settings) for data in datasets for row in rows]
    if asked.DRY_RUN.value:
        asked.describe(cells, f"{name} ({paper['paper']}), scale {settings.scale}, {settings.seeds} seed(s)")
        return
    failures = jobs.work(plan.jobs(cells), settings.root / "claims", workers=asked.WORKERS.value)
    parts = {"rows": plan.unusual(rows, list(table.rows)), "data": plan.unusual(datasets, usual)}
    folder = plan.report_folder("tables", name, settings, **parts)
    failures += details(cells, folder)
    command = shlex.join(["python", *sys.argv])
    report = compare.gathered(name, settings.scale, cells, paper, notes=settings.changed, failures=failures, command=command)
    compare.show(report)
    for path in compare.write(report, folder):
        print(path)
    asked.finish(failures)


if __name__ == "__main__":
    entry.run(main)
