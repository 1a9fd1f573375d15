"""Draws a contact sheet: every corruption of a benchmark at every severity, or draws of the augmentations, on one picture. To be looked at.

python launch/sheet.py --benchmark=imagenet_c --out=sheet.png
python launch/sheet.py --benchmark=cifar_c --names=fog,frost,spatter --photo=flower --out=sheet.png
python launch/sheet.py --benchmark=mnist_c --out=sheet.png                  on a digit of scikit-learn's, as mnist_c wants grey images
python launch/sheet.py --benchmark=augment --size=64 --out=sheet.png        augmentations; the other photograph is the partner of mixup and cutmix

Augmentations are those of augment.TABLE but for `none` and `std_ls`, which leave images as they are, `no_ls`, which makes SPIDER's, and
`crop` and `flip`, which are both in `crop_flip`; further PixMix's mixing pictures (`fractals`). DeepAugment has a row for each network, trained
here in a minute on parts of the two photographs.
"""

import itertools
import math
import tempfile
from pathlib import Path

import entry  # isort: skip
from absl import flags

_BENCHMARK = flags.DEFINE_string("benchmark", "cifar_c", "Whose corruptions: a key of corruptions.NAMES; or 'augment'.")
_NAMES = flags.DEFINE_list("names", [], "Corruptions (or augmentations), separated by commas; default: all, without the extra ones.")
_PHOTO = flags.DEFINE_enum("photo", "china", ["china", "flower"], "Photograph of scikit-learn's.")
_SIZE = flags.DEFINE_integer("size", 0, "Side of the picture in pixels; default: what the benchmark was made for.", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the corruptions.", lower_bound=0)
_OUT = flags.DEFINE_string("out", None, "File of the sheet, .png or .pdf.")
flags.mark_flag_as_required("out")

_SIZES = {"cifar_c": 32, "tiny_imagenet_c": 64, "imagenet_c": 224, "mnist_c": 28, "cifar_cbar": 32, "imagenet_cbar": 224, "sensor": 224}
_SIZES["augment"] = 32
_COLUMNS = 7  # of a benchmark without severities
# Augmentations with what the configurations give them, at 32 pixels; those without a configuration as far as the others go.
_AUGMENTATIONS = {
    "crop_flip": {},
    "cutout": {"size": 16},
    "mixup": {"alpha": 1.0},
    "cutmix": {"alpha": 1.0},
    "augmix": {},
    "pixmix": {},
    "fractals": {},
    "deepaugment": {},
    "spider": {"tau": 8.0, "xi": 0.4},
    "esp": {"epsilon": 4.0, "tau": 4.0, "xi": 0.426},
    "l2_sphere": {"radius": 4.0},
    "l2_ball": {"tau": 8.0},
    "gaussian_noise": {"std": 0.06},
    "uniform_noise": {"amplitude": 0.1},
    "color_jitter": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3},
    "rotation": {"degrees": 10.0},
    "perspective": {},
}


def picture(name: str, size: int):
    """Returns the middle of a photograph, or a digit, as float32 (1, size, size, 3 or 1) in [0, 1]."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_image

    from robustjax import data

    if name == "digit":
        return data.make("digits", size=size).test.images[:1] / np.float32(255)
    whole = load_sample_image(f"{name}.jpg")
    side = min(whole.shape[:2])
    top, left = ((length - side) // 2 for length in whole.shape[:2])
    square = Image.fromarray(whole[top : top + side, left : left + side])
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))[None] / np.float32(255)


def reconstructing(name: str, size: int):
    """Returns a network for DeepAugment, trained to reconstruct parts of both photographs, coarse and fine."""
    import jax
    import numpy as np

    from robustjax import data
    from robustjax.models import image_to_image
    from robustjax.train import reconstruct

    tiles = []
    for photo, times in itertools.product(("china", "flower"), (1, 2, 4)):
        whole = np.rint(picture(photo, times * size)[0] * 255).astype(np.uint8)
        tiles += [tile for rows in np.split(whole, times) for tile in np.split(rows, times, axis=1)]
    source, ids = data.ArraySource(np.stack(tiles), np.zeros(len(tiles), np.int32), name="parts of photographs"), np.arange(len(tiles))
    network = image_to_image.make(name, jax.random.key(0), channels=3, width=16)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"steps": 1000, "batch_size": 16, "lr": 3e-3, "crop": 32, "seed": 0, "state": Path(folder) / "state.npz"}
        return network._replace(params=reconstruct.fit(network, source, ids, title=f"training {name}", **settings))


def rows_of(name: str, keys, images, targets) -> dict:
    """Returns {label: pictures} of one augmentation."""
    import jax

    from robustjax import augment
    from robustjax.core.rng import stream
    from robustjax.models import image_to_image

    if name == "fractals":
        return {name: augment.fractals(keys, images.shape[1:])}
    if name == "deepaugment":
        networks = {label: reconstructing(label, images.shape[1]) for label in image_to_image.NAMES}
        return {
            f"{name}\n{label}": augment.deepaugment(stream(keys, number), images, *network)
            for number, (label, network) in enumerate(networks.items())
        }
    options = dict(_AUGMENTATIONS[name])
    if "size" in options:
        options["size"] = images.shape[1] // 2
    return {name: jax.jit(augment.compose([(name, options)]))(keys, images, targets)[0]}


def augmented(names: list[str], images, partner, seed: int) -> list[list[tuple]]:
    """Returns rows of (label, title, picture): the image and draws of each augmentation of it."""
    import jax
    import jax.numpy as jnp

    from robustjax import core
    from robustjax.core import registry

    for name in names:
        if name not in _AUGMENTATIONS:
            raise registry.unknown("augmentation of this sheet", name, _AUGMENTATIONS)
    rows = []
    for name in names or _AUGMENTATIONS:
        # Every second example is shown; the one after it is its partner, the other photograph.
        count = 2 * (_COLUMNS - 1)
        batch = jnp.concatenate([images, partner] * (count // 2))
        keys = core.example_keys(jax.random.key(seed), jnp.arange(count))
        for label, made in rows_of(name, keys, batch, jnp.eye(2)[jnp.arange(count) % 2]).items():
            rows.append([(label, "clean", images[0]), *(("", str(i + 1), made[2 * i]) for i in range(count // 2))])
    return rows


def cells(benchmark: str, shape: tuple[int, int, int], names: list[str]) -> list[list[tuple[str, str, dict]]]:
    """Returns (label to the left, title, options) of every cell, row by row; empty options are the picture itself."""
    from robustjax import corruptions
    from robustjax.evaluate import suites

    chosen = (
        suites.sensor_defaults(shape) if benchmark == suites.SENSOR else {name: {"name": name} for name in corruptions.NAMES[benchmark]}
    )
    chosen = {name: chosen.get(name, {"name": name}) for name in names or chosen}
    if benchmark not in suites.ONE_STRENGTH:
        of = {
            name: [("", str(severity), {**options, "severity": severity}) for severity in range(1, 6)] for name, options in chosen.items()
        }
        return [[(name.replace("_", "\n"), "clean", {}), *row] for name, row in of.items()]
    row = [("", "clean", {}), *(("", title, options) for title, options in chosen.items())]
    return [row[start : start + _COLUMNS] for start in range(0, len(row), _COLUMNS)]


def check_form(name: str) -> None:
    """Refuses forms that pictures cannot have, before anything is computed."""
    from matplotlib.backend_bases import FigureCanvasBase

    from robustjax.core.check import InputError

    known = sorted(FigureCanvasBase.get_supported_filetypes())
    if Path(name).suffix[1:].lower() not in known:
        raise InputError(f"--out={name} must end in one of .{', .'.join(known)}; e.g. --out=sheet.png.")


def writable(name: str) -> Path:
    """Returns the path of the sheet, in a folder that is there."""
    from robustjax.io import results

    path = Path(name)
    with results.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return path


def main() -> None:
    """Computes and draws the sheet."""
    import jax
    import jax.numpy as jnp
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from robustjax import core, corruptions
    from robustjax.core import registry
    from robustjax.io import log, results

    benchmark = _BENCHMARK.value
    if benchmark not in _SIZES:
        raise registry.unknown("benchmark", benchmark, _SIZES)
    check_form(_OUT.value)
    images = picture("digit" if benchmark == "mnist_c" else _PHOTO.value, _SIZE.value or _SIZES[benchmark])
    if benchmark == "augment":
        partner = picture("flower" if _PHOTO.value == "china" else "china", images.shape[1])
        grid = augmented(_NAMES.value, jnp.asarray(images), jnp.asarray(partner), _SEED.value)
    else:
        keys = core.example_keys(jax.random.key(_SEED.value), jnp.arange(1))
        grid = cells(benchmark, images.shape[1:], _NAMES.value)
        for options in (options for row in grid for *_, options in row if options):
            corruptions.check_options({"benchmark": benchmark, **options}, images.shape[1:])
    path = writable(_OUT.value)
    columns = max(map(len, grid))
    inches = min(2.2, max(1.0, images.shape[1] / 100))
    size = (columns * inches + 0.6, len(grid) * (inches + 0.18))
    figure, axes = plt.subplots(len(grid), columns, figsize=size, squeeze=False, layout="constrained")
    with log.progress("drawing", sum(map(len, grid))) as show:
        for i, row in enumerate(axes):
            for axis, (label, title, options) in itertools.zip_longest(row, grid[i], fillvalue=("", "", None)):
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
                if options is None:
                    continue
                if isinstance(options, dict):
                    options = (corruptions.corrupt(keys, images, benchmark=benchmark, **options) if options else images)[0]
                axis.imshow(jnp.squeeze(options), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                axis.set_title(title, fontsize=7, pad=2)
                axis.set_ylabel(label, fontsize=7, rotation=0, ha="right", va="center")
            show(sum(map(len, grid[: i + 1])))
    with results.writing(path):
        figure.savefig(path, dpi=max(100, math.ceil(1.1 * images.shape[1] / inches)))
    plt.close(figure)
    print(path)


if __name__ == "__main__":
    entry.run(main)
