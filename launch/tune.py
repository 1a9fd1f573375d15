"""Searches a method's options on the validation split, as SPIDER's paper did: Optuna's TPE, 30 trials, pruned. Killed and run again, it goes on.

python launch/tune.py --config=configs/spider/digits.py --workdir=runs/tune
python launch/tune.py --config=configs/spider/cifar10.py:augment=augmix --workdir=runs/tune --name=spider-augmix
python launch/tune.py --config=configs/spider/cifar10.py:method=no_ls --workdir=runs/tune --space=tau=2:12
python launch/tune.py --config=configs/esp/cifar10.py --workdir=runs/tune --sampler=grid                         ESP, section 4.2
python launch/tune.py --config=configs/spider/cifar10.py --workdir=runs/tune --study=postgresql://user@host/db   on as many machines as there are

Each trial is a run of its own, in WORKDIR/NAME/trial_000 and so on. Beside them go search.md (the table of SPIDER's Table 7, and the trials),
search.png, search.json and best.json, the configuration of the best trial. Needs Optuna: pip install 'robustjax[tune]'.
"""

import shlex
import sys
from pathlib import Path

import entry  # isort: skip
from absl import flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration, FILE.py or FILE.py:options.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the studies.")
_STUDY = flags.DEFINE_string(
    "study", "", "URL of the database of the trials, which several machines may share. Default: SQLite in --workdir."
)
_NAME = flags.DEFINE_string("name", "", "Name of the study. Default: data and method.")
_TRIALS = flags.DEFINE_integer("trials", 0, "How many (0: 30, 15 for images of 64 pixels and more, or the whole grid).", lower_bound=0)
_SAMPLER = flags.DEFINE_string("sampler", "tpe", "tpe, or grid: ESP's, or the values that --space gives.")
_SPACE = flags.DEFINE_multi_string(
    "space", [], "Another range or other values of an option: tau=2:8, alpha=0.1:1:log or xi=0.1,0.3; may be given several times."
)
_PRUNE = flags.DEFINE_bool(
    "prune", True, "Stop trials that are below the median of the complete ones at the same epoch, once five are complete."
)
flags.mark_flags_as_required(["config", "workdir"])


def _command(options: dict, workdir: str) -> str:
    """Returns the command that trains the best trial's configuration."""
    kept, following = [], False
    for argument in sys.argv[1:]:
        name = argument.lstrip("-").partition("=")[0]
        if following or name == "config" or name.startswith("config."):
            kept.append(argument)
            following = not following and "=" not in argument
    # repr: the shortest text that is read back as the same number
    chosen = [f"--config.method.{name}={value!r}" for name, value in options.items()]
    return shlex.join(["python", "launch/train.py", *kept, *chosen, f"--workdir={workdir}"])


def main() -> None:
    """Searches, prints the tables, and says how to train the best."""
    import matplotlib

    matplotlib.use("agg")
    from robustjax.train import search, search_report

    report = search.search(
        _CONFIG.value.to_dict(),
        _WORKDIR.value,
        url=_STUDY.value,
        name=_NAME.value,
        trials=_TRIALS.value,
        sampler=_SAMPLER.value,
        space=_SPACE.value,
        prune=_PRUNE.value,
    )
    print(search_report.markdown(report))
    print("\n".join(report["files"]))
    if report["best"]:
        print(f"Next: {_command(report['best']['options'], str(Path(report['files'][0]).parent / 'best'))}")


if __name__ == "__main__":
    entry.run(main)
