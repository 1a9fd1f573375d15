"""Trains and measures along an axis, as the figures of the papers do, and draws what came out. Killed and run again, it goes on.

python launch/sweep.py --sweep=spider/fig5 --scale=quick             minutes on two cores, at three of the points; compares nothing
python launch/sweep.py --sweep=spider/fig5 --data=cifar100           tau, with xi so that s(tau) = 0.5
python launch/sweep.py --sweep=esp/fig3 --dry_run                    epsilon, for each gamma: which runs, by which commands, at what cost
python launch/sweep.py --sweep=esp/fig4 --workers=2                  without the smoothing function; the flatness of minima
python launch/sweep.py --sweep=rat/1 --scale=short                   eta, beside the paper's numbers
python launch/sweep.py --sweep=discriminative/5 --data=digits        the parts of the loss

Points and lines are in configs/tables.py. Runs are shared with launch/reproduce.py where both have one --workdir.
"""

import shlex
import sys

import asked

import entry  # isort: skip
from absl import flags

_SWEEP = flags.DEFINE_string("sweep", None, "spider/fig5, esp/fig3, esp/fig4, rat/1 or discriminative/5.")
flags.mark_flags_as_required(["sweep"])


def main() -> None:
    """Expands the sweep, does what is missing, prints, draws and writes what came out."""
    from launch import curves, jobs, plan

    name, settings = _SWEEP.value, asked.settings()
    sweep = plan.sweep(name)
    papers = sweep.files.keys() - {"digits"}
    usual, datasets = (plan.datasets(sweep.files, of, settings.scale, papers) for of in ([], asked.DATA.value))
    lines = curves.expand(sweep, datasets, settings)
    cells = [cell for line in lines for cell in line.cells.values()]
    if asked.DRY_RUN.value:
        asked.describe(cells, f"{sweep.title}, scale {settings.scale}, {settings.seeds} seed(s)")
        return
    failures = jobs.work(plan.jobs(cells), settings.root / "claims", workers=asked.WORKERS.value)
    command = shlex.join(["python", *sys.argv])
    paper = plan.reference().get(sweep.paper, {})
    report = curves.gathered(name, sweep, settings.scale, lines, paper, notes=settings.changed, failures=failures, command=command)
    print(curves.markdown(report))
    for path in curves.write(report, plan.report_folder("sweeps", name, settings, data=plan.unusual(datasets, usual))):
        print(path)
    asked.finish(failures)


if __name__ == "__main__":
    entry.run(main)
