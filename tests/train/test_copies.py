"""DeepAugment's copies: written whole after any kill, read back in training, and never across the split."""

import math
import re
import shutil

import jax
import numpy as np
import pytest

from robustjax import data
from robustjax.augment.deepaugment import ALL
from robustjax.core import InputError
from robustjax.data import digest
from robustjax.data.copies import MANIFEST
from robustjax.io import results
from robustjax.models import published
from robustjax.train import build, copies, loop, networks, reconstruct
from tests import tiny
from tests.models import test_published

SETTINGS = {"networks": ("edsr",), "width": 4, "steps": 5, "train_batch_size": 8, "min_psnr": 0.0, "batch_size": 16, "quiet": True}
N = 80


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Copies of the tiny configuration's 80 training images, written without interruption."""
    out = tmp_path_factory.mktemp("copies") / "whole"
    done = copies.write_copies(tiny.config(), out, **SETTINGS)
    assert done.images == N and done.kept == () and 0 < done.psnr["edsr"] < math.inf
    return out


def test_other_copies_have_another_digest(folder, tmp_path):
    # Kills: a run that goes on with copies which were written anew in the same folder.
    wanted = tiny.config()["data"]
    dataset = data.make(wanted["name"], **wanted["options"])
    shutil.copytree(folder, tmp_path / "other")
    images = np.load(tmp_path / "other" / "edsr.npy")
    np.save(tmp_path / "other" / "edsr.npy", 255 - images)
    notes = [data.extended(dataset, where)[1] for where in (folder, tmp_path / "other")]
    assert digest.named(notes[0]) and digest.named(notes[0]) != digest.named(notes[1])


def test_copies_are_of_their_images(folder):
    # Kills: copies that are the originals, of another image, or all of one distortion; labels of another order.
    wanted = tiny.config()["data"]
    dataset = data.make(wanted["name"], **wanted["options"])
    source, note = data.extended(dataset, folder)
    assert re.fullmatch(r"trained on originals and copies by DeepAugment \(edsr; seed 0; digest [0-9a-f]{8}\)", note)
    assert len(source) == 2 * N and np.array_equal(source.labels, np.tile(dataset.train.labels, 2))
    ids = np.array([3, N + 3, N, 0, N + 79])
    images, labels = source.fetch(ids)
    assert np.array_equal(images, source.images[ids]) and np.array_equal(labels, source.labels[ids])
    assert np.array_equal(images[0], dataset.train.images[3]) and not np.array_equal(images[1], images[0])
    assert source.ids(np.array([7, 2])).tolist() == [7, 2, N + 7, N + 2]
    with pytest.raises(InputError, match="has examples 0 to 159, but id 160"):
        source.fetch(np.array([2 * N]))


def test_killed_anywhere_it_goes_on_to_the_same_files(folder, tmp_path, monkeypatch):
    # Kills: training begun anew or with other crops; copies of a cut-off batch, twice or left out; draws that depend on where it went on.
    monkeypatch.setattr(reconstruct, "_SAVE", 2)
    monkeypatch.setattr(copies, "_FORCED", 0.0)
    out = tmp_path / "out"

    def killed_in(module, name: str, call: int) -> None:
        made, calls = getattr(module, name), []

        def dying(*args, **options):
            calls.append(name)
            if len(calls) == call:
                raise KeyboardInterrupt
            return made(*args, **options)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, name, dying)
            copies.write_copies(tiny.config(), out, **SETTINGS)

    killed_in(reconstruct, "save", 2)
    assert int(np.load(out / ".edsr.state.npz")["arr_0"]) == 2 and not (out / "edsr.npz").exists()
    killed_in(copies, "_distorted", 4)
    assert int(np.load(out / ".edsr.npy.reached.npz")["arr_0"]) == 48
    with open(out / ".edsr.npy.partial", "ab") as file:
        file.write(b"half a batch")
    killed_in(copies, "_distorted", 2)
    assert int(np.load(out / ".edsr.npy.reached.npz")["arr_0"]) == 64 and not (out / "edsr.npy").exists()
    with pytest.raises(InputError, match=r"edsr.npy is missing or cannot be read; run launch/deepaugment.py again"):
        build.build(tiny.config(data__copies=str(out)))
    copies.write_copies(tiny.config(), out, **SETTINGS)
    for name in ("edsr.npy", "labels.npy", "deepaugment.json"):
        assert (out / name).read_bytes() == (folder / name).read_bytes(), name
    before = [(out / name).stat().st_mtime_ns for name in ("edsr.npy", "labels.npy")]
    assert copies.write_copies(tiny.config(), out, **SETTINGS).kept == ("edsr",)
    assert [(out / name).stat().st_mtime_ns for name in ("edsr.npy", "labels.npy")] == before
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == ["deepaugment.json", "edsr.npy", "edsr.npz", "labels.npy"]


def test_what_was_not_forced_to_the_disk_is_written_again(folder, tmp_path, monkeypatch):
    # Kills: a file whose size is taken for what is in it (the power went); each image forced to the disk; cut-off labels that are kept.
    out, forced = tmp_path / "out", []
    shutil.copytree(folder, out)
    whole = (out / "edsr.npy").read_bytes()
    (out / "edsr.npy").rename(out / ".edsr.npy.partial")
    with open(out / ".edsr.npy.partial", "r+b") as file:
        file.seek(-20 * 256, 2)
        file.write(bytes(20 * 256))
    reconstruct.save(out / ".edsr.npy.reached.npz", np.int32(48))
    labels = (out / "labels.npy").read_bytes()
    (out / "labels.npy").write_bytes(labels[:-4])
    force = copies._force
    monkeypatch.setattr(copies, "_force", lambda file: (forced.append(file.name), force(file)))
    copies.write_copies(tiny.config(), out, **SETTINGS)
    assert (out / "edsr.npy").read_bytes() == whole and (out / "labels.npy").read_bytes() == labels
    assert forced == [str(out / ".labels.npy.partial"), str(out / ".edsr.npy.partial")]


def test_training_reads_originals_and_copies_of_its_part_only(folder, tmp_path):
    # Kills: copies of validation images trained on; copies validated on; the split, or mean and standard deviation, changed by copies.
    plain, with_copies = (build.build(tiny.config(data__copies=name)) for name in ("", str(folder)))
    assert np.array_equal(with_copies.validation_ids, plain.validation_ids) and with_copies.validation_ids.max() < N
    assert with_copies.train_ids.tolist() == [*plain.train_ids, *(plain.train_ids + N)]
    assert not set(with_copies.train_ids % N) & set(plain.validation_ids)
    assert with_copies.model == plain.model and with_copies.notes[0].startswith("trained on originals and copies by DeepAugment (edsr;")
    summary = loop.train(tiny.config(data__copies=str(folder), epochs=1), tmp_path, quiet=True)
    assert summary.step == 2 * 64 // 16


def test_digits_are_not_mirrored(folder, tmp_path, monkeypatch):
    # Kills: flip_signal among the distortions of digits, though nobody asked for it; left out of other data, or where it was asked for.
    def stopped(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(copies, "_trained", stopped)  # the manifest is there by then
    for name, asked in (("usual", {}), ("asked", {"distortions": ("flip_signal",)})):
        with pytest.raises(KeyboardInterrupt):
            copies.write_copies(tiny.config(data__name="digits", data__options={"size": 8}), tmp_path / name, **SETTINGS, **asked)
    drawn = [set(results.read_json(out / MANIFEST)["distortions"]) for out in (folder, tmp_path / "usual", tmp_path / "asked")]
    assert drawn == [set(ALL), set(ALL) - {"flip_signal"}, {"flip_signal"}]


def test_runs_without_copies_keep_their_hash():
    # Kills: the new key in the identity of all runs.
    old = tiny.config()
    del old["data"]["copies"]
    assert results.comparable(old) == results.comparable(tiny.config())
    assert results.comparable(tiny.config(data__copies="x")) != results.comparable(old)


def test_published_weights_take_the_place_of_training(tmp_path, monkeypatch):
    # Kills: weights that are trained on, or not used; a folder that is taken up with other weights; a network read back as another;
    # more images measured at once than are distorted; advice to train what is not trained.
    options = {**tiny.config()["data"]["options"], "channels": 3, "train": 24}
    config, settings = (
        tiny.config(data__options=options),
        {**SETTINGS, "networks": ("cae",), "distortions": ("negate_signal",), "batch_size": 8},
    )
    weights = {"cae": test_published.saved(tmp_path, "cae")}
    out = tmp_path / "out"
    with pytest.raises(InputError, match="cae reconstructs .* dB only, below 90; lower --min_psnr, or leave it out, in a new folder"):
        copies.write_copies(config, out, weights=weights, **settings | {"min_psnr": 90.0})
    sizes, psnr = [], reconstruct.psnr
    with monkeypatch.context() as patch:
        patch.setattr(reconstruct, "psnr", lambda *args, batch_size: (sizes.append(batch_size), psnr(*args, batch_size=batch_size))[1])
        copies.write_copies(config, out, weights=weights, **settings | {"min_psnr": -100.0, "batch_size": 2})
    assert sizes == [2]
    (network,), note = networks.read(out, channels=3)
    expected = published.load("cae", weights["cae"])
    assert network.layers == expected.layers
    jax.tree.map(np.testing.assert_array_equal, network.params, expected.params)
    assert np.load(out / "cae.npy").shape == (24, 16, 16, 3) and re.search(r"networks cae \(-?\d+\.\d dB\) of made-up patterns", note)
    other = {"cae": test_published.saved(tmp_path, "cae", **{"e_conv_1.1.bias": np.zeros(64)})}
    for given, where, message in (
        (other, out, "weights"),
        ({"edsr": other["cae"]}, tmp_path / "x", "weights for 'edsr', which is not among"),
    ):
        with pytest.raises(InputError, match=message):
            copies.write_copies(config, where, weights=given, **settings | {"min_psnr": -100.0})
    with pytest.raises(InputError, match="the published networks are for images of three channels, these have 1; train networks instead"):
        copies.write_copies(tiny.config(), tmp_path / "x", weights=other, **settings)


def test_folders_that_cannot_be_used_are_refused(folder, tmp_path):
    # Kills: each check left out; copies of other images trained on.
    with pytest.raises(InputError, match="deepaugment.json is missing or damaged; write them with launch/deepaugment.py"):
        build.build(tiny.config(data__copies=str(tmp_path)))
    other = tiny.config(data__copies=str(folder))
    other["data"]["options"]["seed"] = 1
    with pytest.raises(
        InputError, match=r"are of made-up patterns, 80 images, and not of the training split of made-up patterns, 80 images"
    ):
        build.build(other)
    with pytest.raises(InputError, match=r"was begun with other settings \(seed 0\)"):
        copies.write_copies(tiny.config(), folder, **{**SETTINGS, "seed": 1})
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"holds other files \(notes.txt\)"):
        copies.write_copies(tiny.config(), tmp_path, **SETTINGS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"networks": ("cae", "edrs")}, "unknown image-to-image network 'edrs'; did you mean 'edsr'"),
        ({"networks": ("cae", "cae")}, "networks must be one or more of cae, edsr, each once, got cae, cae"),
        ({"distortions": ("flip",)}, "unknown distortion 'flip'"),
        ({"lr": 0.0}, "lr finite and above 0"),
        ({"width": 1}, "width of an image-to-image network must be .* at least 4, got 1"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(change, message, tmp_path):
    # Kills: each check left out, or made too late.
    with pytest.raises(InputError, match=message):
        copies.write_copies(tiny.config(), tmp_path / "out", **{**SETTINGS, **change})
    assert not list(tmp_path.iterdir())


def test_bad_networks_are_not_used(folder, tmp_path, monkeypatch):
    # Kills: copies by a network that reconstructs nothing, or its use in the step; training it again for less; a loss that is not a number.
    bad = tmp_path / "bad"
    with pytest.raises(InputError, match=r"edsr reconstructs validation images at \d+\.\d dB only, below 90; train it longer or wider"):
        copies.write_copies(tiny.config(), bad, **{**SETTINGS, "min_psnr": 90.0})
    with pytest.raises(InputError, match=r"lacks edsr.npz"):
        networks.read(bad, channels=1)
    with monkeypatch.context() as patch:
        patch.setattr(reconstruct, "_step", None)
        copies.write_copies(tiny.config(), bad, **SETTINGS)
    assert (bad / "edsr.npy").read_bytes() == (folder / "edsr.npy").read_bytes()
    with pytest.raises(InputError, match="below 90"):  # of a network that was kept, too
        copies.write_copies(tiny.config(), bad, **{**SETTINGS, "min_psnr": 90.0})
    with jax.debug_nans(False), pytest.raises(InputError, match="loss is .* at step 5; take a lower learning rate than 1e"):
        copies.write_copies(tiny.config(), tmp_path / "nan", **{**SETTINGS, "lr": 1e30})
