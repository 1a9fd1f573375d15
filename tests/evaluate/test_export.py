"""Corrupted copies as files: what is read back is what evaluation makes, whatever the batch, and whenever the writing was stopped."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import robustjax
from robustjax import corruptions, data
from robustjax.core import InputError
from robustjax.evaluate import export as module
from robustjax.evaluate.export import export
from tests.evaluate import test_sources

NAMES = ("gaussian_noise", "contrast")
N = 24


def dataset(**changes) -> data.Dataset:
    return data.make("fake", **{"num_classes": 3, "size": 16, "channels": 1, "train": 80, "test": N, **changes})


def write(out: Path, **changes) -> tuple[int, int]:
    return tuple(export(dataset(), out, **{"benchmark": "cifar_c", "batch_size": 10, "quiet": True, **changes}))


def read(out: Path, **changes) -> data.CorruptedSet:
    class_names = dataset().class_names
    return data.corrupted(str(out), **{"names": NAMES, "severities": 5, "num_classes": 3, "class_names": class_names, **changes})


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file() and path.name != ".lock"}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sets") / "arrays"
    assert write(out) == (2, 0)
    return out


def test_files_are_what_evaluation_generates(written, tmp_path):
    # Kills: other keys than those of evaluation; severities in another order; levels that are cut instead of rounded; labels
    # that belong to other images. (That these images give the numbers of the generated ones is tested in test_sources.)
    for path in test_sources.write_files(tmp_path / "expected", dataset()).iterdir():
        np.testing.assert_array_equal(np.load(written / path.name), np.load(path))
    assert read(written).provenance == f"files: arrays (.npy, written by robustjax {robustjax.__version__}, benchmark cifar_c, seed 0)"


def test_the_batch_and_the_names_change_nothing(written, tmp_path):
    # Kills: randomness by place in the batch; a padded image that is written; keys by position in the list of names.
    write(tmp_path / "all", batch_size=0)
    assert contents(tmp_path / "all") == contents(written)
    write(tmp_path / "one", names=("contrast",), batch_size=7)
    assert (tmp_path / "one" / "contrast.npy").read_bytes() == (written / "contrast.npy").read_bytes()
    assert not (tmp_path / "one" / "gaussian_noise.npy").exists()
    write(tmp_path / "other", seed=1)
    assert (tmp_path / "other" / "contrast.npy").read_bytes() == (written / "contrast.npy").read_bytes()
    assert (tmp_path / "other" / "gaussian_noise.npy").read_bytes() != (written / "gaussian_noise.npy").read_bytes()


@pytest.mark.parametrize("format", ["npy", "png"])
def test_stopped_and_run_again(tmp_path, monkeypatch, format):
    # Kills: a half-written file taken for a whole one; leftovers that stay or get in the way; files that were there written anew.
    write(tmp_path / "whole", format=format)
    calls = []

    def fail_later(*arguments, **options):
        calls.append(1)
        if len(calls) > 20:  # in the middle of the second corruption
            raise KeyboardInterrupt
        return corruptions.corrupt(*arguments, **options)

    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "corruptions", type("Failing", (), {"corrupt": staticmethod(fail_later), "NAMES": corruptions.NAMES}))
        write(out, format=format)
    with pytest.raises(InputError, match="incomplete|must hold 5 folders"):
        read(out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("gaussian_noise*") if "partial" not in str(path)}
    assert before and write(out, format=format) == (1, 1)
    assert contents(out) == contents(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert write(out, format=format) == (0, 2)


def test_what_was_damaged_is_written_again(written, tmp_path):
    # Kills: a file that is kept for its name alone.
    out = tmp_path / "out"
    shutil.copytree(written, out)
    (out / "contrast.npy").write_bytes((out / "contrast.npy").read_bytes()[:-1])
    np.save(out / "gaussian_noise.npy", np.zeros((5 * N, 8, 8, 1), np.uint8))
    (out / "labels.npy").unlink()
    assert write(out) == (2, 0) and contents(out) == contents(written)


@pytest.mark.parametrize("format", ["png", "jpeg"])
def test_folders_hold_the_same_images(written, tmp_path, format):
    # Kills: severities swapped; images under another class or number; a quality far from 85; colours for grey.
    out = tmp_path / format
    write(out, format=format)
    found, arrays = read(out), read(written)
    order = np.array(sorted(range(N), key=lambda i: (i % 3, i)))  # by class, then by number
    for name in NAMES:
        for severity in (1, 4):
            got, expected = found.source(name, severity), arrays.source(name, severity)
            np.testing.assert_array_equal(got.labels, expected.labels[order])
            difference = np.abs(got.images.astype(int) - expected.images[order])
            assert difference.max() == 0 if format == "png" else 0 < difference.mean() < 6
    written_by = f"written by robustjax {robustjax.__version__}, benchmark cifar_c, seed 0"
    assert found.provenance == f"files: {format} ({format.upper()}, {written_by})"
    shutil.rmtree(out / "contrast" / "4")
    next((out / "contrast" / "2").rglob("*.*")).unlink()
    before = (out / "contrast" / "3").stat().st_mtime_ns
    assert write(out, format=format) == (1, 1) and (out / "contrast" / "3").stat().st_mtime_ns == before
    again = read(out).source("contrast", 2)
    np.testing.assert_array_equal(again.images, found.source("contrast", 2).images)


def test_mnist_c_and_limits(tmp_path):
    # Kills: a layout of five severities for MNIST-C; the first examples for a random part; too few classes to be read back; another split.
    options = {"num_classes": 10, "size": 28}
    names = ("stripe", "brightness")
    export(dataset(**options), tmp_path / "c", benchmark="mnist_c", names=names, limit=6, quiet=True)
    found = read(tmp_path / "c", names=names, severities=1, num_classes=10)
    assert found.layout == "mnist_c" and len(found.source("stripe", None)) == 6
    ids = data.splits.subset(N, 6)
    np.testing.assert_array_equal(found.source("stripe", None).labels, dataset(**options).test.labels[ids])
    expected = np.asarray(
        corruptions.corrupt(None, dataset(**options).test.images[ids] / np.float32(255), name="stripe", benchmark="mnist_c")
    )
    np.testing.assert_array_equal(found.source("stripe", None).images, np.rint(expected * 255))
    write(tmp_path / "train", split="train", names=("contrast",))
    test_sources.write_files(tmp_path / "expected", dataset()._replace(test=dataset().train))
    np.testing.assert_array_equal(np.load(tmp_path / "train" / "contrast.npy"), np.load(tmp_path / "expected" / "contrast.npy"))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"benchmark": "cifar10_c"}, "unknown benchmark 'cifar10_c'; did you mean 'cifar_c'"),
        ({"benchmark": "sensor"}, "no 8-bit levels"),
        ({"names": ("contrats",)}, "unknown corruption of cifar_c: 'contrats'; did you mean 'contrast'"),
        ({"format": "bmp"}, "unknown format 'bmp'"),
        ({"split": "validation"}, "split must be 'test' or 'train'"),
        ({"seed": 1}, "was begun with other settings .seed 0.; repeat those"),
        ({"limit": 5}, "other settings .n 24"),
        ({"format": "png"}, "other settings .format 'npy'"),
    ],
)  # fmt: skip
def test_what_is_refused(written, change, message):
    # Kills: each check, dropped; sets of two kinds in one folder.
    before = contents(written)
    with pytest.raises(InputError, match=message) as error:
        write(written, **change)
    assert "\n" not in str(error.value) and contents(written) == before


def test_folders_of_others_are_left_alone(tmp_path):
    # Kills: files of another set overwritten, or a lock left among them; images that cannot be corrupted noticed after the folder was
    # made; what a kill leaves while the manifest is written taken for another set.
    (tmp_path / "contrast.npy").touch()
    with pytest.raises(InputError, match="holds other files .contrast.npy."):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["contrast.npy"]
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".robustjax.json.abc").touch()
    assert write(tmp_path / "killed", names=("contrast",)) == (1, 0)
    with pytest.raises(InputError, match="at least 16x16"):
        export(dataset(size=8), tmp_path / "small", benchmark="cifar_c", quiet=True)
    assert not (tmp_path / "small").exists()


def test_class_names_that_are_no_folders():
    # Kills: a slash that makes a folder of its own; two classes in one folder.
    for names in (("a", "b/c", "d"), ("crane", "b", "crane"), ("a", "A", "b"), (), ("..", "a", "b")):
        assert module._class_folders(dataset()._replace(class_names=names)) == ("0000", "0001", "0002")
    assert module._class_folders(dataset()) == ("pattern 0", "pattern 1", "pattern 2")
