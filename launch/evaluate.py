"""Measures trained networks: clean, under corruptions and under attack. Killed and run again, it goes on where it was.

python launch/evaluate.py --workdir=runs/spider
python launch/evaluate.py --workdir=runs/baseline --workdir=runs/spider --suite=full,cbar --report=runs/report
python launch/evaluate.py --workdir=runs/spider --suite=corruptions --corrupted_dir=CIFAR-10-C
python launch/evaluate.py --workdir=runs/spider --suite=autoattack --threat=linf:8/255 --limit=1000
python launch/evaluate.py --workdir=runs/spider --suite=transfer --surrogate=runs/baseline
python launch/evaluate.py --workdir=runs/spider --suite=clean --curve=linf:0,2/255,4/255,6/255,8/255
python launch/evaluate.py --workdir=runs/spider --suite=noise --noise=gaussian=2/255,4/255,8/255 --noise=uniform=0.06
python launch/evaluate.py --workdir=runs/spider --suite=thickness,flatness,curvature --geometry=flatness.radii=30,32.5,35
python launch/evaluate.py --workdir=runs/rice2020 --torch_checkpoint=rice2020.pt --model=preact_resnet18 --dataset=cifar10 --suite=autoattack --threat=linf:8/255
"""

import re
import shlex
import sys

import entry  # isort: skip
from absl import flags

_WORKDIR = flags.DEFINE_multi_string("workdir", None, "Folder of a trained run; may be given several times, for one table of all.")
_SUITE = flags.DEFINE_string(
    "suite",
    "full",
    "What to measure: clean, corruptions, cbar, mnist_c, sensor, pgd, cw, attacks (pgd and cw), autoattack, transfer, thickness, "
    "flatness, curvature, noise, full (corruptions and pgd), or several: a,b.",
)
_CHECKPOINT = flags.DEFINE_list("checkpoint", ["best"], "'best' (by validation), 'last' or a step; or several, a row each: best,last.")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie, if not where they lay in training.")
_LIMIT = flags.DEFINE_integer(
    "limit", 0, "Measure that many test images only (0: as in the run's configuration, by default all).", lower_bound=0
)
_CORRUPTED_DIR = flags.DEFINE_string(
    "corrupted_dir", "", "Folder of published corrupted files (CIFAR-10-C, ...): measure those in place of corruptions made here."
)
_FROST_IMAGES = flags.DEFINE_string("frost_images", "", "Folder of your own photographs of frost, in place of procedural ice.")
_THREAT = flags.DEFINE_multi_string(
    "threat", [], "Of autoattack and transfer: norm:radius, e.g. linf:8/255 or l2:0.5; may be given several times. Default: the run's own."
)
_VERSION = flags.DEFINE_string(
    "attack_version", "", "Of autoattack: standard, plus, rand, or fast (APGD-CE and APGD-T only). Default: the run's own."
)
_CURVE = flags.DEFINE_multi_string(
    "curve", [], "Accuracy by radius, by PGD-20: norm:radius,radius,..., e.g. linf:0,2/255,4/255; may be given several times."
)
_SURROGATE = flags.DEFINE_multi_string(
    "surrogate", [], "Of transfer: folder of a trained run on whose network attacks are made; may be given several times."
)
_GEOMETRY = flags.DEFINE_multi_string(
    "geometry",
    [],
    "Of thickness, flatness and curvature: another setting, e.g. flatness.radii=30,32.5 (flatness.relative_radii: of the norm of the "
    "weights; flatness.filter_radii: in filter-normalised directions), thickness.class_i=label, flatness.images=10000; may be given "
    "several times. Default: the run's own.",
)
_NOISE = flags.DEFINE_multi_string(
    "noise",
    [],
    "Of noise: another setting: gaussian=2/255,4/255 (standard deviations), uniform=0.06 (amplitudes; nothing behind '=': none), repeats=5, "
    "seed=1; may be given several times. Default: the run's own, else the levels of the discriminative-loss paper, 10 draws.",
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    0,
    "Images at once, on all devices together (0: as in the run's configuration). Attacks halve it by themselves where memory runs out.",
    lower_bound=0,
)
_SAVE = flags.DEFINE_bool("save_adversarial", False, "Keep adversarial images in the npz files beside the results.")
_RESTART = flags.DEFINE_bool("restart", False, "Begin attacks (geometry, noise) anew that were interrupted, in place of going on.")
_REPORT = flags.DEFINE_string("report", "", "Folder for report.md, report.json and report.png; default: the first workdir.")
_TABLE = flags.DEFINE_string("table", "", "Table of a paper to set beside ours, e.g. spider/3.")
_TORCH = flags.DEFINE_string(
    "torch_checkpoint",
    "",
    "File of weights that torch has trained (.pt, .pth, .tar, .safetensors, .npz), to be measured in place of a run of this library; --workdir, "
    "a new folder, takes them in, and is from then on like that of a run. Needs --model and --dataset.",
)
_MODEL = flags.DEFINE_string("model", "", "Of torch_checkpoint: NAME or NAME,option=value,..., e.g. wide_resnet,depth=28,width=10.")
_DATASET = flags.DEFINE_string("dataset", "", "Of torch_checkpoint: NAME or NAME,option=value,..., e.g. cifar10; it lies in --data_dir.")
_MEAN = flags.DEFINE_list(
    "mean", ["0"], "Of torch_checkpoint: what it takes off images in [0, 1], one number or one a channel: 0.49,0.48,0.45."
)
_STD = flags.DEFINE_list("std", ["1"], "Of torch_checkpoint: what it divides them by then.")
flags.mark_flag_as_required("workdir")


def main() -> None:
    """Evaluates every workdir, prints the table and writes the report."""
    from robustjax.core import parallel
    from robustjax.core.check import InputError
    from robustjax.evaluate import report, run

    if parallel.several():
        raise InputError(
            "an evaluation runs in one process (attacks use all devices that it sees), and this is one of several: start it once "
            "(srun --ntasks=1, or with JAX_NUM_PROCESSES=1), or several for different --workdir, each with JAX_NUM_PROCESSES=1."
        )
    _adopt()
    options = {
        "suite": _SUITE.value,
        "data_dir": _DATA_DIR.value,
        "limit": _LIMIT.value,
        "corrupted_dir": _CORRUPTED_DIR.value,
        "frost_images": _FROST_IMAGES.value,
        "threats": _THREAT.value,
        "attack_version": _VERSION.value,
        "curves": _CURVE.value,
        "surrogates": _SURROGATE.value,
        "geometry_settings": _GEOMETRY.value,
        "noise_settings": _NOISE.value,
        "batch_size": _BATCH_SIZE.value,
        "save_adversarial": _SAVE.value,
        "restart": _RESTART.value,
    }
    runs = [
        (workdir, run.evaluate(workdir, checkpoint=checkpoint, **options), checkpoint)
        for checkpoint in _CHECKPOINT.value
        for workdir in _WORKDIR.value
    ]
    made = report.collect(runs, command=shlex.join(["python", *sys.argv]), table=_TABLE.value)
    print(report.markdown(made))
    for path in report.write(made, _REPORT.value or _WORKDIR.value[0]):
        print(path)


def _adopt() -> None:
    """Takes torch's weights into the workdir, where they are asked for."""
    from robustjax.core.check import InputError
    from robustjax.evaluate import load

    if not _TORCH.value:
        given = [flag.name for flag in (_MODEL, _DATASET, _MEAN, _STD) if flags.FLAGS[flag.name].present]
        if given:
            raise InputError(f"--{given[0]} goes with --torch_checkpoint; a run of this library knows its own.")
        return
    if len(_WORKDIR.value) != 1 or not _MODEL.value or not _DATASET.value:
        raise InputError(
            "--torch_checkpoint needs one --workdir for itself, --model and --dataset, e.g. --model=wide_resnet,depth=28,width=10 --dataset=cifar10."
        )
    from configs import common, recipes

    config = common.base()
    config.data.name, config.data.options = _named(_DATASET)
    config.data.dir = _DATA_DIR.value
    config.model.name, config.model.options = _named(_MODEL)
    config.augment = ()
    config.evaluation.attacks = {name: attack for *_, attacks in recipes.ADVERSARIES.values() for name, attack in attacks.items()}
    load.adopt(_TORCH.value, _WORKDIR.value[0], config.to_dict(), mean=_numbers(_MEAN), std=_numbers(_STD))


def _named(flag: flags.FlagHolder) -> tuple[str, dict]:
    """Reads 'resnet50,stem=imagenet,blocks=(3,4,6,3)' into ('resnet50', {'stem': 'imagenet', 'blocks': (3, 4, 6, 3)})."""
    from robustjax.core.check import InputError

    name, *parts = re.split(r",(?![^()]*\))", flag.value)
    options = {}
    for part in parts:
        option, found, value = part.partition("=")
        if not found:
            raise InputError(f"--{flag.name} is a name and options, NAME,option=value,..., got {part!r} in {flag.value!r}.")
        options[option] = entry.literal(value)
    return name, options


def _numbers(flag: flags.FlagHolder) -> float | list[float]:
    from robustjax.core.check import InputError

    try:
        numbers = [float(text) for text in flag.value]
    except ValueError as error:
        raise InputError(f"--{flag.name} is one number, or one a channel: 0.49,0.48,0.45; got {','.join(flag.value)!r}.") from error
    return numbers if len(numbers) > 1 else numbers[0]


if __name__ == "__main__":
    entry.run(main)
