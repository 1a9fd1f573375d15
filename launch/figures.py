"""Draws figures of the papers: from checkpoints of trained runs, or on points of the plane. The numbers go into a JSON file beside.

python launch/figures.py --figure=landscape --workdir=runs/trades --workdir=runs/rat --out=landscape.png      RAT, figure 2
python launch/figures.py --figure=weights --workdir=runs/trades --workdir=runs/rat --out=weights.png
python launch/figures.py --figure=boundary --out=boundary.png                                                ESP, figure 1
python launch/figures.py --figure=flatness --workdir=runs/baseline --workdir=runs/spider --out=flatness.png  after launch/evaluate.py --suite=flatness
python launch/figures.py --figure=retained --workdir=runs/baseline --workdir=runs/spider --out=retained.png  after --suite=curvature
python launch/figures.py --figure=tsne --blocks --workdir=runs/baseline --workdir=runs/spider --out=tsne.png
"""

import shlex
import sys

import entry  # isort: skip
from absl import flags

_FIGURE = flags.DEFINE_string(
    "figure",
    None,
    "Which: landscape, weights, boundary, surface, tsne; from stored results: flatness, thickness, curvature; from stored curvature and "
    "noisy images: retained, groups.",
)
_OUT = flags.DEFINE_string("out", None, "File of the picture, .png, .pdf or .svg; its numbers go beside it, as .json.")
_WORKDIR = flags.DEFINE_multi_string("workdir", [], "Folder of a trained run; may be given several times.")
# What is left out is as the figure has it: see robustjax/evaluate/surfaces.py, boundary.py, distributions.py, noisy.py and embedding.py.
_OPTIONS = (
    flags.DEFINE_multi_string("label", None, "What the figure calls a run, once for each --workdir. Default: how it was trained."),
    flags.DEFINE_string("checkpoint", None, "'best' (by validation accuracy, the default), 'last' or a step."),
    flags.DEFINE_string("data_dir", None, "Where the data lie, if not where they lay in training."),
    flags.DEFINE_integer("images", None, "Of landscape: how many test images, drawn at random (4)."),
    flags.DEFINE_multi_integer(
        "ids", None, "Which test image: of landscape, in place of --images, may be given several times; of surface."
    ),
    flags.DEFINE_integer("examples", None, "How many test images: weights (256), tsne (1000)."),
    flags.DEFINE_string("scaling", None, "Of weights: 'filter' (multiples of each filter's norm, the default) or 'tree' (L2)."),
    flags.DEFINE_integer(
        "points", None, "Places along either axis (landscape and surface 31, weights 25, boundary 91); shares of retained (20)."
    ),
    flags.DEFINE_string(
        "variant",
        None,
        "Which result: of flatness absolute, norm or filters; of thickness predicted or label; of curvature, retained and groups "
        "finite or exact. Default: the first of these that every run has.",
    ),
    flags.DEFINE_float("portion", None, "Of curvature: which part of the images, those of lowest curvature (0.9)."),
    flags.DEFINE_float("noise", None, "Of retained, groups and tsne: standard deviation or amplitude of the noise (0.06, SVHN 0.15)."),
    flags.DEFINE_string("noise_kind", None, "Likewise: 'gaussian' (the default) or 'uniform'."),
    flags.DEFINE_integer("repeats", None, "Of retained and groups: draws of noise for each image (10)."),
    flags.DEFINE_boolean("blocks", None, "Of tsne: the output of each block as well."),
    flags.DEFINE_integer("seed", None, "Of random directions, of noise, of t-SNE, and of all that boundary draws (0).", lower_bound=0),
)
_SIZE = flags.DEFINE_multi_string(
    "size",
    [],
    "How far from the image or the weights, a number or a fraction: landscape 16/255 (L-inf), weights 1 (filter norms), "
    "surface 1 (L2). Of boundary the largest distance that points are moved; may be given several times there (0.07 and 0.14).",
)
flags.mark_flags_as_required(["figure", "out"])


def _size(text: str) -> float:
    """Reads a number or a fraction."""
    from robustjax.core import threats
    from robustjax.core.check import InputError

    try:
        return threats.parse(f"l2:{text}").eps
    except InputError as error:
        raise InputError(f"--size must be a number above 0 or a fraction, e.g. 0.1 or 16/255, got {text!r}.") from error


def main() -> None:
    """Computes, draws and writes the figure."""
    import matplotlib

    matplotlib.use("agg")
    from robustjax.core.check import InputError
    from robustjax.evaluate import figures

    path = figures.check_out(_OUT.value)
    options = {flag.name: flag.value for flag in _OPTIONS if flag.value is not None}
    sizes = [_size(text) for text in _SIZE.value]
    if _FIGURE.value == "boundary":
        options |= {"sizes": sizes} if sizes else {}
    elif len(sizes) > 1:
        raise InputError(f"--size may be given several times for the figure boundary only, got {', '.join(_SIZE.value)}.")
    elif sizes:
        options["size"] = sizes[0]
    made = figures.numbers(_FIGURE.value, _WORKDIR.value, **options)
    for written in figures.write(made | {"command": shlex.join(["python", *sys.argv])}, path):
        print(written)


if __name__ == "__main__":
    entry.run(main)
