"""Writes a corrupted copy of a data set as files, in the published layout. Killed and run again, it goes on where it was.

python launch/corrupt.py --data=cifar10 --benchmark=cifar_c --out=CIFAR-10-C
python launch/corrupt.py --data=tfds:tiny_imagenet --benchmark=tiny_imagenet_c --names=fog,frost --format=png --out=Tiny-ImageNet-C
python launch/evaluate.py --workdir=runs/x --suite=corruptions --corrupted_dir=CIFAR-10-C     measures a network on them

Nothing here is needed for evaluation, which makes the same images as it goes; it is for other programs that want files.
"""

import entry  # isort: skip
from absl import flags

_DATA = flags.DEFINE_string("data", None, "Data set: a name of data.DATASETS, or tfds:<set>.")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie; default: TFDS_DATA_DIR.")
_OPTION = flags.DEFINE_multi_string("option", [], "Option of the data set, as size=224; may be given several times.")
_SPLIT = flags.DEFINE_string("split", "test", "Which split: test or train.")
_BENCHMARK = flags.DEFINE_string("benchmark", None, "Whose corruptions: cifar_c, tiny_imagenet_c, imagenet_c, mnist_c, cifar_cbar, ...")
_NAMES = flags.DEFINE_list("names", [], "Corruptions, separated by commas; default: all of the benchmark's.")
_OUT = flags.DEFINE_string("out", None, "Folder of the set.")
_FORMAT = flags.DEFINE_string("format", "auto", "npy, jpeg (quality 85), png, or auto: as the benchmark was published.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the corruptions; 0 is that of evaluation.", lower_bound=0)
_LIMIT = flags.DEFINE_integer("limit", 0, "Write that many examples only (0: all).", lower_bound=0)
_FROST_IMAGES = flags.DEFINE_string("frost_images", "", "Folder of your own photographs of frost, in place of procedural ice.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 0, "Images computed at once (0: by their size); changes nothing but speed.", lower_bound=0)
flags.mark_flags_as_required(["data", "benchmark", "out"])


def options(given: list[str]) -> dict:
    """Returns {"size": 224} for ["size=224"]; what is no Python literal is a string."""
    from robustjax.core.check import InputError

    found = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals:
            raise InputError(f"--option must be written key=value, e.g. --option=size=224, got {one!r}.")
        found[key] = entry.literal(value)
    return found


def main() -> None:
    """Writes the set, and says what is there now."""
    from robustjax import data
    from robustjax.evaluate import export, sources

    dataset = data.make(_DATA.value, dir=_DATA_DIR.value, **options(_OPTION.value))
    done = export.export(
        dataset,
        _OUT.value,
        benchmark=_BENCHMARK.value,
        names=_NAMES.value,
        split=_SPLIT.value,
        seed=_SEED.value,
        format=_FORMAT.value,
        limit=_LIMIT.value,
        frost_images=sources.photographs(_FROST_IMAGES.value) if _FROST_IMAGES.value else (),
        batch_size=_BATCH_SIZE.value,
    )
    kept = f", {done.kept} were there already" if done.kept else ""
    print(f"wrote {done.written} corruptions of {dataset.provenance} to {_OUT.value}{kept}.")


if __name__ == "__main__":
    entry.run(main)
