"""Measures trained networks: clean, under corruptions and under attack. Killed and run again, it goes on where it was.

python launch/evaluate.py --workdir=runs/spider
python launch/evaluate.py --workdir=runs/baseline --workdir=runs/spider --suite=full,cbar --report=runs/report
python launch/evaluate.py --workdir=runs/spider --suite=corruptions --corrupted_dir=CIFAR-10-C
python launch/evaluate.py --workdir=runs/spider --suite=autoattack --threat=linf:8/255 --limit=1000
python launch/evaluate.py --workdir=runs/spider --suite=transfer --surrogate=runs/baseline
python launch/evaluate.py --workdir=runs/spider --suite=clean --curve=linf:0,2/255,4/255,6/255,8/255
python launch/evaluate.py --workdir=runs/spider --suite=noise --noise=gaussian=2/255,4/255,8/255 --noise=uniform=0.06
python launch/evaluate.py --workdir=runs/spider --suite=thickness,flatness,curvature --geometry=flatness.radii=30,32.5,35
"""

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
_SAVE = flags.DEFINE_bool("save_adversarial", False, "Keep adversarial images in the npz files beside the results.")
_RESTART = flags.DEFINE_bool("restart", False, "Begin attacks (geometry, noise) anew that were interrupted, in place of going on.")
_REPORT = flags.DEFINE_string("report", "", "Folder for report.md, report.json and report.png; default: the first workdir.")
_TABLE = flags.DEFINE_string("table", "", "Table of a paper to set beside ours, e.g. spider/3.")
flags.mark_flag_as_required("workdir")


def main() -> None:
    """Evaluates every workdir, prints the table and writes the report."""
    from robustjax.evaluate import report, run

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


if __name__ == "__main__":
    entry.run(main)
