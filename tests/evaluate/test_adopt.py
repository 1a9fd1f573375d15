"""Weights that torch has trained, measured as a run of this library: the numbers are theirs, and never another network's."""

import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import data, models
from robustjax.core import InputError
from robustjax.evaluate import report, run
from robustjax.evaluate.load import adopt, load
from robustjax.io import results
from tests import tiny
from tests.launch import commands

DATA = {"num_classes": 3, "size": 16, "channels": 1, "train": 8, "test": 24}
OPTIONS = {"width": 2, "blocks": [1]}
CONSTANTS = {"mean": 0.25, "std": [0.5]}
NAMES = {"blocks.0": "layer1.0", "shortcut_conv": "shortcut.0", "shortcut_bn": "shortcut.1", "head": "fc"}
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def save(path, seed):
    """Writes a network's arrays as torch would name them, and returns the network."""
    model = models.make("resnet18", num_classes=3, image_shape=(16, 16, 1), seed=seed, **CONSTANTS, **OPTIONS)
    arrays = {}
    _, params, batch_stats = models.split(model)
    for name, value in {**params, **batch_stats}.items():
        layer, _, leaf = name.rpartition(".")
        for ours, theirs in NAMES.items():
            layer = layer.replace(ours, theirs)
        value = np.asarray(value)
        arrays[f"{layer}.{LEAVES[leaf]}"] = value.transpose({4: (3, 2, 0, 1), 2: (1, 0)}.get(value.ndim))
    np.savez(path, **arrays)
    return model


def config(**options):
    return tiny.config(data__options=DATA, model__name="resnet18", model__options={**OPTIONS, **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files of two networks, each taken into a workdir of the same name."""
    folder = tmp_path_factory.mktemp("weights")
    for seed, name in enumerate(("first", "second")):
        save(folder / f"{name}.npz", seed)
        adopt(folder / f"{name}.npz", folder / name, config(), **CONSTANTS)
    return folder


def test_the_network_is_the_file_s(folder):
    # Kills: initial weights kept; constants swapped, or those of the data; numbers of another network; training facts that are not known.
    model = save(folder / "again.npz", 0)
    images, labels = data.make("fake", **DATA).test.fetch(np.arange(24))
    expected = model(jnp.asarray(images, jnp.float32) / 255)
    loaded = load(folder / "first")
    np.testing.assert_allclose(loaded.logits_fn(jnp.asarray(images, jnp.float32) / 255), expected, rtol=1e-5, atol=1e-5)
    found = run.evaluate(folder / "first", suite="clean", quiet=True)
    np.testing.assert_allclose(found[0]["metrics"]["accuracy"], np.mean(np.argmax(expected, 1) == labels))
    assert "first.npz (sha256 " in found[0]["run"]["notes"][0]
    assert loaded.step == loaded.meta["config"]["epochs"] == 0 and loaded.meta["config"]["evaluation"]["benchmark"] == "cifar_c"


def test_two_files_are_two_rows_of_a_report(folder, tmp_path):
    # Kills: one configuration hash for both; a row that averages over them as over seeds; labels that do not tell them apart.
    runs = [(folder / name, run.evaluate(folder / name, suite="clean", quiet=True)) for name in ("first", "second")]
    hashes = {found[0]["run"]["config_hash"] for _, found in runs}
    made = report.collect(runs)
    assert [row["label"] for row in made["rows"]] == ["first", "second"] and len(hashes) == 2
    text = report.markdown(made)
    assert (
        "first.npz (sha256 " in text and "was trained elsewhere" in text and "; weights trained elsewhere." in text and "epochs" not in text
    )
    assert all(path.exists() for path in report.write(made, tmp_path))


def test_a_run_that_has_no_checkpoint_yet_is_left_alone(folder, tmp_path):
    # Kills: the configuration of a run in training overwritten; a folder given up where adopting was cut off before its checkpoint.
    results.write_json(tmp_path / "config.json", tiny.config())
    with pytest.raises(InputError, match="holds another network"):
        adopt(folder / "first.npz", tmp_path, config(), **CONSTANTS)
    results.write_json(tmp_path / "config.json", results.read_json(folder / "first" / "config.json"))
    adopt(folder / "first.npz", tmp_path, config(), **CONSTANTS)
    assert load(tmp_path).step == 0


def test_a_folder_keeps_its_network(folder):
    # Kills: the checkpoint overwritten by other weights, or written again; constants or options that the comparison leaves out.
    before = results.read_json(folder / "first" / "config.json")
    stamp = (folder / "first" / "config.json").stat().st_mtime_ns
    adopt(folder / "first.npz", folder / "first", config(), **CONSTANTS)
    for file, constants, changes in (
        ("second", CONSTANTS, {}),
        ("first", {**CONSTANTS, "mean": 0.5}, {}),
        ("first", CONSTANTS, {"stem": "cifar"}),
    ):
        with pytest.raises(InputError, match=r"first holds another network than .*npz \(sha256 .*choose another --workdir"):
            adopt(folder / f"{file}.npz", folder / "first", config(**changes), **constants)
    assert results.read_json(folder / "first" / "config.json") == before
    assert (folder / "first" / "config.json").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("message", "options"),
    [
        (r"first 'layer1.0.bn1.bias', \(2,\) where \(3,\) is expected", {"width": 3}),
        ("cannot be built with .*'wide'", {"width": "wide"}),
        ("'mean' is no option of the model here", {"mean": 0.5}),
        ("unknown option of the model 'resnet18': 'depth'", {"depth": 3}),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_no_folder(message, options, folder, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        adopt(folder / "first.npz", tmp_path / "new", config(**options), **CONSTANTS)
    assert "\n" not in str(error.value) and not (tmp_path / "new").exists()


def test_the_launcher_takes_them_in_and_measures_them(folder, tmp_path):
    # Kills: flags that are not read, or read otherwise; attacks without a setting.
    arguments = [
        f"--workdir={tmp_path}",
        f"--torch_checkpoint={folder / 'first.npz'}",
        "--model=resnet18,width=2,blocks=(1,),stem=cifar",
        "--dataset=fake,num_classes=3,size=16,channels=1,train=8,test=24",
        "--mean=0.25",
        "--std=0.5",
    ]
    done = commands.run("evaluate", *arguments, "--suite=clean", "--limit=8")
    assert done.returncode == 0, done.stderr
    stored = results.read(tmp_path / "evaluation" / "step0_n8" / "clean.json")
    assert stored["run"]["item"]["name"] == "clean" and "| first |" in done.stdout
    written = results.read_json(tmp_path / "config.json")
    assert set(written["evaluation"]["attacks"]) == {"pgd20_linf", "pgd20_l2"}
    assert written["model"] == {"name": "resnet18", "options": {"width": 2, "blocks": [1], "stem": "cifar", "mean": 0.25, "std": 0.5}}


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("--model goes with --torch_checkpoint", ["--model=resnet18"]),
        ("--torch_checkpoint needs one --workdir for itself, --model and --dataset", ["--torch_checkpoint=a.npz", "--model=resnet18"]),
        ("--model is a name and options", ["--torch_checkpoint=a.npz", "--dataset=fake", "--model=resnet18,width"]),
        ("--std is one number, or one a channel", ["--torch_checkpoint=a.npz", "--dataset=fake", "--model=resnet18", "--std=0.5,x"]),
    ],
)
def test_flags_that_do_not_go_together(message, arguments, tmp_path):
    done = commands.run("evaluate", f"--workdir={tmp_path}", *arguments)
    assert done.returncode == 2 and f"error: {message}" in done.stderr and "Traceback" not in done.stderr
