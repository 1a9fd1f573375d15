"""Corrupted images from files and frost from photographs: right numbers, never mixed with generated ones, and named in the report."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from robustjax import corruptions, data
from robustjax.core import example_keys
from robustjax.core.check import InputError
from robustjax.evaluate import export, report, run, sources, suites
from robustjax.evaluate.load import evaluation_data, load
from robustjax.io import results
from tests import tiny


def write_files(folder, dataset, change=lambda name, images: images):
    """Writes what the evaluation would generate, in the layout of CIFAR-10-C; `change` corrupts it further."""
    images, labels = dataset.test.fetch(np.arange(len(dataset.test)))
    folder.mkdir(exist_ok=True)
    for name in corruptions.NAMES["cifar_c"]:
        found = []
        for severity in range(1, 6):
            key = jax.random.fold_in(jax.random.key(0), zlib.crc32(f"cifar_c/{name}_{severity}".encode()))
            keys = example_keys(key, jnp.arange(len(images)))
            made = corruptions.corrupt(keys, jnp.asarray(images, jnp.float32) / 255, name=name, severity=severity)
            found.append(np.rint(np.asarray(made) * 255).astype(np.uint8))
        np.save(folder / f"{name}.npy", change(name, np.concatenate(found)))
    np.save(folder / "labels.npy", np.tile(labels, 5))
    return folder


@pytest.fixture(scope="module")
def dataset(workdir):
    return evaluation_data(load(workdir).meta)


@pytest.fixture(scope="module")
def files(workdir, dataset, tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("files") / "TINY-C", dataset)


@pytest.fixture(scope="module")
def generated(workdir):
    return run.evaluate(workdir, suite="corruptions", quiet=True)


@pytest.fixture(scope="module")
def read(workdir, files):
    return run.evaluate(workdir, suite="corruptions", corrupted_dir=files, quiet=True)


def test_files_give_the_numbers_of_their_images(generated, read):
    # Kills: severities or corruptions exchanged; generated corruptions on top of the files; labels of other images.
    assert [r["metrics"]["error"] for r in read] == [r["metrics"]["error"] for r in generated]
    assert len({r["metrics"]["nll_nats"] for r in read}) > 5


def test_results_of_files_stand_beside_generated_ones(workdir, dataset, generated, read, files, tmp_path, monkeypatch):
    # Kills: one file for both, so that the later overwrites the earlier; results of other files with the same name taken for these,
    # though only their last image differs; two sets of one name in one row.
    kinds = {r["run"]["item"]["kind"] for r in read}
    assert kinds == {"clean", "files"} and {r["run"]["item"]["kind"] for r in generated} == {"clean", "corruption"}
    measured = []
    real = run._measure
    monkeypatch.setattr(run, "_measure", lambda loaded, item, *rest: measured.append(item.name) or real(loaded, item, *rest))
    assert run.evaluate(workdir, suite="corruptions", quiet=True) == generated
    assert run.evaluate(workdir, suite="corruptions", corrupted_dir=files, quiet=True) == read
    assert measured == []
    other = write_files(tmp_path / "TINY-C", dataset, change_last_of_contrast)
    again = run.evaluate(workdir, suite="corruptions", corrupted_dir=other, quiet=True)
    assert measured == ["files_cifar_c/contrast_5"]
    run.evaluate(workdir, suite="corruptions", corrupted_dir=files, quiet=True)  # for the other tests
    one, two = (sources.described(r["run"]["item"] for r in results[1:]) for results in (read, again))
    assert one != two and one.startswith("files: TINY-C (.npy); digest ") and two.startswith("files: TINY-C (.npy); digest ")


def change_last_of_contrast(name, images):
    images = images.copy()
    images[-1] ^= np.uint8(255 * (name == "contrast"))
    return images


def test_report_says_what_made_its_numbers(workdir, generated, read):
    # Kills: a mean over files and generated images; a row that does not say which it is of.
    made = report.collect([(workdir, generated), (workdir, read)])
    files = sources.described(r["run"]["item"] for r in read[1:])
    assert [row["sources"]["cifar_c"] for row in made["rows"]] == ["generated, not the published files", files]
    assert [row["label"] for row in made["rows"]] == ["baseline [generated, not the published files]", f"baseline [{files}]"]
    assert f"(generated, not the published files / {files}), severities 1-5" in report.markdown(made)
    assert f"Corruptions of cifar_c ({files}), severities" in report.markdown(report.collect([(workdir, read)]))
    with pytest.raises(InputError, match="results of one benchmark are mixed"):
        report.collect([(workdir, [*generated[:6], *read[6:]])])


@pytest.mark.parametrize(
    ("suite", "change", "message"),
    [
        ("attacks", {}, "the suite measures no corruptions; with --corrupted_dir take the suite"),
        ("full,cbar", {}, "the suite measures cifar_c and cifar_cbar"),
        ("corruptions", {"classes": 4}, "has 4 classes, the network has 3"),
        ("corruptions", {"size": 20}, "holds images of 20x20, the network takes 16x16"),
        ("corruptions", {"channels": 3}, r"holds images \(16, 16, 3\), the network was trained for \(16, 16, 1\)"),
        ("corruptions", {"count": 21}, "holds 21 images, the test split of fake 24"),
        ("corruptions", {"order": slice(None, None, -1)}, "has other labels than the test split of fake"),
        ("corruptions", {"without": "contrast"}, "contrast.npy"),
    ],
)
def test_files_that_do_not_belong_are_refused_before_anything_is_measured(workdir, suite, change, message, tmp_path, monkeypatch):
    # Kills: a number over whatever is there.
    monkeypatch.setattr(run, "_measure", None)
    count, size = change.get("count", 24), change.get("size", 16)
    for name in corruptions.NAMES["cifar_c"]:
        if name != change.get("without"):
            np.save(tmp_path / f"{name}.npy", np.zeros((5 * count, size, size, change.get("channels", 1)), np.uint8))
    np.save(tmp_path / "labels.npy", np.tile((np.arange(count) % change.get("classes", 3))[change.get("order", slice(None))], 5))
    with pytest.raises(InputError, match=message) as caught:
        run.evaluate(workdir, suite=suite, corrupted_dir=tmp_path, quiet=True)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:the constants of imagenet_c")
def test_sets_of_ours_for_something_else_are_refused(workdir, dataset, tmp_path):
    # Kills: what a set was written for not asked: the corruptions of several benchmarks have the same names.
    for change, message in (
        ({"split": "train"}, "split 'train' in place of 'test'"),
        ({"benchmark": "imagenet_c"}, "benchmark 'imagenet_c' in place of"),
    ):
        out = tmp_path / next(iter(change))
        export.export(dataset, out, quiet=True, format="npy", names=("contrast",), **{"benchmark": "cifar_c", **change})
        with pytest.raises(InputError, match=message):
            run.evaluate(workdir, suite="corruptions", corrupted_dir=out, quiet=True)


def test_folders_are_measured_whole_or_not_at_all(workdir, dataset, generated, tmp_path):
    # Kills: a part of images sorted by class beside another part of the clean ones; labels counted by class not looked at; a damaged
    # file that costs what was measured, or that is not named; results that a mended file does not replace.
    export.export(dataset, tmp_path, benchmark="cifar_c", format="png", quiet=True)
    with pytest.raises(InputError, match="another order than the test split, .*--limit=24") as caught:
        run.evaluate(workdir, suite="corruptions", corrupted_dir=tmp_path, limit=6, quiet=True)
    assert "\n" not in str(caught.value)
    other = dataset._replace(test=data.ArraySource(dataset.test.images, np.roll(np.r_[0, 0, 0, np.arange(21) % 3], 1)))
    chosen = suites.items("corruptions", tiny.config(), (16, 16, 1))
    with pytest.raises(InputError, match="has other labels than the test split of fake"):
        sources.from_files(chosen, tmp_path, other)
    damaged = sorted((tmp_path / "contrast" / "3").rglob("*.png"))[-1]  # not among those that are looked at first
    whole = damaged.read_bytes()
    damaged.write_bytes(b"")
    with pytest.raises(InputError, match=f"{damaged} cannot be decoded") as caught:
        run.evaluate(workdir, suite="corruptions", corrupted_dir=tmp_path, quiet=True)
    assert "\n" not in str(caught.value)
    stored = {path: path.stat().st_mtime_ns for path in (workdir / "evaluation").rglob("files_cifar_c/contrast_2.json")}
    damaged.write_bytes(whole)
    found = run.evaluate(workdir, suite="corruptions", corrupted_dir=tmp_path, quiet=True)
    assert [r["metrics"]["error"] for r in found] == [r["metrics"]["error"] for r in generated]
    assert stored and all(path.stat().st_mtime_ns == when for path, when in stored.items())


def test_files_of_one_strength(dataset, tmp_path):
    # Kills: severities asked of MNIST-C, which has none; a folder with one corruption missing.
    images, labels = dataset.test.fetch(np.arange(24))
    for name in corruptions.NAMES["mnist_c"]:
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "test_images.npy", images)
        np.save(tmp_path / name / "test_labels.npy", labels)
    chosen = suites.items("mnist_c", tiny.config(), (28, 28, 1))[1:]
    found, read = sources.from_files(chosen, tmp_path, dataset)
    assert [item.name for item in found] == [f"files_mnist_c/{name}" for name in corruptions.NAMES["mnist_c"]]
    np.testing.assert_array_equal(read("stripe", None).fetch(np.arange(24))[0], images)
    (tmp_path / "stripe" / "test_images.npy").unlink()
    with pytest.raises(InputError, match="stripe"):
        sources.from_files(chosen, tmp_path, dataset)


def items():
    """Returns those of a suite with frost in it."""
    return suites.items("corruptions", tiny.config(evaluation__benchmark="tiny_imagenet_c"), (64, 64, 3))


def save(folder, **pictures):
    folder.mkdir()
    for name, value in pictures.items():
        Image.fromarray(np.full((300, 400), value, np.uint8)).save(folder / f"{name}.png")
    return folder


def test_photographs_are_read_in_order_as_rgb_and_named_by_their_contents(tmp_path):
    # Kills: an order of the file system's; grey pictures of another rank; a digest of names, or of one picture.
    (tmp_path / "notes.txt").write_text("not a picture")
    folders = [save(tmp_path / "a", b=2, a=1), save(tmp_path / "b", x=1, y=2), save(tmp_path / "c", x=1, y=3)]
    read = [sources.photographs(folder) for folder in folders]
    assert [image[0, 0].tolist() for image in read[0]] == [[1] * 3, [2] * 3] and read[0][0].dtype == np.uint8
    marked = [sources.with_photographs(items(), images, (64, 64, 3)) for images in read]
    assert marked[0] == marked[1] != marked[2]
    changed = [after for before, after in zip(items(), marked[0], strict=True) if before != after]
    assert [item.name for item in changed] == [f"tiny_imagenet_c/frost_{severity}_photographs" for severity in range(1, 6)]
    results.canonical(changed[0]._asdict())


def test_photographs_that_are_of_no_use_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no photographs"):
        sources.photographs(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="broken.png cannot be read as an image"):
        sources.photographs(tmp_path)
    (tmp_path / "broken.png").unlink()
    images = sources.photographs(save(tmp_path / "a", a=1))
    with pytest.raises(InputError, match="nothing that is measured generates frost"):
        sources.with_photographs(suites.items("full", tiny.config(), (16, 16, 1)), images, (16, 16, 1))


def test_frost_of_photographs_is_computed_from_them_and_said(workdir, tmp_path, monkeypatch):
    # Kills: photographs that are digested and then not used; a report that calls them ice; draws by the name of the result's file,
    # so that exported frost is other frost.
    monkeypatch.setitem(corruptions.NAMES, "cifar_c", ("frost", "contrast"))
    dark, bright = (save(tmp_path / name, a=value, b=value) for name, value in (("dark", 0), ("bright", 255)))
    ice = run.evaluate(workdir, suite="corruptions", quiet=True)
    found = [run.evaluate(workdir, suite="corruptions", frost_images=folder, quiet=True) for folder in (dark, bright)]
    nll = [[r["metrics"]["nll_nats"] for r in results] for results in (ice, *found)]
    assert all(len(set(values)) == 3 for values in list(zip(*nll, strict=True))[1:6])
    assert nll[0][6:] == nll[1][6:] == nll[2][6:]
    assert "frost: procedural ice), severities" in report.markdown(report.collect([(workdir, ice)]))
    assert "frost: own photographs, sha256 " in report.markdown(report.collect([(workdir, found[0])]))
    textured = [np.random.default_rng(i).integers(0, 256, (300, 400, 3), np.uint8) for i in range(2)]
    for i, image in enumerate(textured):
        (tmp_path / "textured").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "textured" / f"{i}.png")
    generated = run.evaluate(workdir, suite="corruptions", frost_images=tmp_path / "textured", quiet=True)
    export.export(evaluation_data(load(workdir).meta), tmp_path / "set", benchmark="cifar_c", frost_images=textured, quiet=True)
    read = run.evaluate(workdir, suite="corruptions", corrupted_dir=tmp_path / "set", quiet=True)
    np.testing.assert_allclose([r["metrics"]["nll_nats"] for r in read], [r["metrics"]["nll_nats"] for r in generated], rtol=1e-6)
    assert "seed 0, frost: own photographs, sha256 " in report.markdown(report.collect([(workdir, read)]))
