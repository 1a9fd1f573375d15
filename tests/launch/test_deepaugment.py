"""launch/deepaugment.py as a user meets it; what it writes is tested in tests/train/test_copies.py."""

import time

import numpy as np
import pytest

from configs.baselines import digits
from robustjax.train import copies
from tests.launch import commands

CONFIG = "--config=configs/baselines/digits.py"
OPTIONS = ("--networks=edsr", "--width=8", "--steps=250", "--train_batch_size=8", "--min_psnr=15")


def test_killed_and_run_again_it_writes_the_same_copies(tmp_path):
    # Kills: options that do not arrive; a second run that begins anew; other copies after a kill.
    out = tmp_path / "copies"
    process = commands.start("deepaugment", CONFIG, f"--out={out}", *OPTIONS)
    while process.poll() is None and not (out / ".edsr.state.npz").exists():
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (out / "edsr.npy").exists()
    done = commands.run("deepaugment", CONFIG, f"--out={out}", *OPTIONS)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("edsr: 1437 copies of scikit-learn digits, 8x8 bicubic to 16x16; without distortion ")
    assert said[1] == f"Next: python launch/train.py --config=... --workdir=... --config.data.copies={out}"
    settings = {"networks": ("edsr",), "width": 8, "steps": 250, "train_batch_size": 8, "min_psnr": 15.0, "quiet": True}
    copies.write_copies(digits.get_config().to_dict(), tmp_path / "whole", **settings)
    killed, whole = (np.load(folder / "edsr.npy").astype(int) for folder in (out, tmp_path / "whole"))
    assert np.abs(killed - whole).max() <= 1  # this process has eight virtual devices: another program, other rounding


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--networks=cea", "unknown image-to-image network 'cea'; did you mean 'cae'? Known: cae, edsr."),
        ("--distortions=flip", "unknown distortion 'flip'"),
        ("--cae=weights.npz", "the published networks are for images of three channels, these have 1; train networks instead."),
        ("--edsr=weights.npz", "the published networks are for images of three channels, these have 1; train networks instead."),
        ("--width=2", "flag --width=2"),
    ],
)
def test_what_is_wrong_is_one_line(argument, message, tmp_path):
    # Kills: tracebacks; a folder that is made before the arguments were checked.
    done = commands.run("deepaugment", CONFIG, f"--out={tmp_path / 'x'}", argument)
    assert done.returncode == 2 and "Traceback" not in done.stderr and message in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())
