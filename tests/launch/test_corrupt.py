"""launch/corrupt.py and launch/sheet.py as a user meets them; what the files hold is tested in tests/evaluate/test_export.py."""

import re

import numpy as np
import pytest
from PIL import Image

from robustjax import augment, data
from tests.launch import commands

FAKE = ("--data=fake", "--option=test=12", "--option=num_classes=3", "--benchmark=cifar_c")


def test_writes_goes_on_and_reads_back(tmp_path):
    # Kills: options of the data set that are lost or stay strings; names that are ignored; a second run that writes all anew.
    arguments = (*FAKE, f"--out={tmp_path}", "--batch_size=5")
    first = commands.run("corrupt", *arguments, "--names=contrast")
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"wrote 1 corruptions of made-up patterns to {tmp_path}.\n"
    second = commands.run("corrupt", *arguments, "--names=brightness,contrast")
    assert second.returncode == 0, second.stderr
    assert second.stdout == f"wrote 1 corruptions of made-up patterns to {tmp_path}, 1 were there already.\n"
    found = data.corrupted(str(tmp_path), names=("brightness", "contrast"), severities=5, num_classes=3)
    assert len(found.source("contrast", 5)) == 12
    assert found.source("brightness", 5).images.mean() > found.source("brightness", 1).images.mean()


@pytest.mark.parametrize(
    "launcher, arguments, message",
    [
        ("corrupt", (*FAKE, "--option=size", "--out={tmp}/x"), "--option must be written key=value, e.g. --option=size=224, got 'size'"),
        ("sheet", ("--benchmark=cifar", "--out={tmp}/x.png"), "unknown benchmark 'cifar'; did you mean"),
        (
            "sheet",
            ("--benchmark=augment", "--names=mixxup", "--out={tmp}/new/x.png"),
            "unknown augmentation of this sheet 'mixxup'; did you",
        ),
    ],
)
def test_what_is_wrong_is_one_line(launcher, arguments, message, tmp_path):
    # Kills: tracebacks; a folder that is made before the arguments were checked.
    done = commands.run(launcher, *(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == 2 and "Traceback" not in done.stderr and message in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


def test_sheet_has_every_cell(tmp_path):
    # Kills: cells left white; a severity drawn twice.
    path = tmp_path / "sheet.png"
    done = commands.run("sheet", "--benchmark=cifar_c", "--names=contrast", f"--out={path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{path}\n"
    grey = np.asarray(Image.open(path).convert("L")).astype(float)[20:-8, 70:]
    cells = [part[:, 10:-10] for part in np.array_split(grey, 6, axis=1)]
    assert np.all(np.diff([cell.std() for cell in cells]) < -1)


def test_the_sheet_has_every_augmentation(tmp_path):
    # Kills: an augmentation that nobody looks at, because nobody added it to the sheet.
    done = commands.run("sheet", "--benchmark=augment", "--names=nothing", f"--out={tmp_path / 'x.png'}")
    (names,) = re.findall(r"Known: (.*)\. See|Known: (.*)\.", done.stderr)
    shown = set("".join(names).split(", "))
    assert shown == set(augment.TABLE) - {"none", "crop", "flip", "no_ls", "std_ls"} | {"fractals"}


def test_sheet_of_augmentations_shows_the_image_and_its_draws(tmp_path):
    # Kills: one draw shown six times; the partner of mixup shown in place of the image.
    path = tmp_path / "sheet.png"
    done = commands.run("sheet", "--benchmark=augment", "--names=cutout", f"--out={path}")
    assert done.returncode == 0, done.stderr
    grey = np.asarray(Image.open(path).convert("L")).astype(float)[20:-8, 40:]
    cells = [part[:, 12:-12] for part in np.array_split(grey, 7, axis=1)]
    dark = [float((cell < 5).mean()) for cell in cells]
    assert dark[0] < 0.02 and min(dark[1:]) > 0.05 and len(set(dark[1:])) > 3
