"""Trains what a configuration describes; run again, it goes on where it stopped.

python launch/train.py --config=configs/spider/digits.py --workdir=runs/spider
python launch/train.py --config=configs/spider/cifar10.py:quick --workdir=runs/try --config.method.tau=4
"""

import entry  # isort: skip
from absl import flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration, FILE.py or FILE.py:options.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run: log, checkpoints, results.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
    """Trains, and says what came out and what to do next."""
    from robustjax.core import parallel, processes
    from robustjax.train import loop

    parallel.initialize()
    summary = loop.train(_CONFIG.value.to_dict(), _WORKDIR.value)
    if not processes.is_first():
        return
    print(
        f"trained {summary.step} steps in {summary.seconds:.0f} s; best validation {summary.selected_by} {100 * summary.validation_accuracy:.2f} % "
        f"at step {summary.best_step}.\nNext: python launch/evaluate.py --workdir={_WORKDIR.value}"
    )


if __name__ == "__main__":
    entry.run(main)
