"""The launchers as a user meets them: what they print, and one line for what is wrong."""

import re
import subprocess
import sys

import pytest

from tests.data import writing
from tests.launch import commands

DIGITS = "--config=configs/spider/digits.py:quick"


@pytest.mark.parametrize(
    ("launcher", "arguments", "message"),
    [
        (
            "train",
            ["--config=configs/spider/digits.py", "--workdir={tmp}", "--config.method.tua=4"],
            "unknown configuration key 'config.method.tua'; did you mean 'config.method.tau'",
        ),
        (
            "train",
            ["--config=configs/esp/digits.py", "--workdir={tmp}", "--config.augment_options.mixup.alpha=0.5"],
            "give the whole of it: --config.augment_options=\"{{'crop': {{'pad': 1}}, 'mixup': {{'alpha': 0.5}}}}\".",
        ),
        (
            "train",
            ["--config=configs/esp/cifar10.py", "--workdir={tmp}", "--config.augment_options.crop_flip.pad=2"],
            "did you mean 'config.augment_options'? Known: config.augment_options. To add",
        ),
        (
            "train",
            ["--config=configs/esp/digits.py", "--workdir={tmp}", "--config.augment_options.crop.pad.x=2"],
            "unknown configuration key",
        ),
        (
            "train",
            ["--config=configs/spider/digits.py", "--workdir={tmp}", "--config.method.tau=large"],
            "could not convert string to float: 'large'",
        ),
        ("train", ["--config=configs/spider/digits.py:qick", "--workdir={tmp}"], "unknown option 'qick'"),
        ("train", ["--config=configs/spider/digit.py", "--workdir={tmp}"], "did you mean 'configs/spider/digits.py'"),
        (
            "train",
            ["--config=configs/spider/digits.py", "--workdir={tmp}", "--config.optimizer.lr=0"],
            "config.optimizer.lr must be a number above 0",
        ),
        ("train", ["--config=configs/spider/cifar10.py", "--workdir={tmp}", "--config.data.dir={tmp}/none"], "{tmp}/none"),
        ("train", ["--config=configs/spider/digits.py"], "--workdir must have a value"),
        ("train", ["--config", "configs/spider/digit.py", "--workdir={tmp}"], "did you mean 'configs/spider/digits.py'"),
        ("train", ["--config=configs/spider/digits.py", "--workdir={tmp}", "quick"], "unexpected argument 'quick'"),
        ("evaluate", ["--workdir={tmp}"], "Train first"),
        ("sheet", ["--out={tmp}/new/sheet.bmp"], "--out={tmp}/new/sheet.bmp must end in one of ."),
        ("sheet", ["--names=contrast", "--out={tmp}/new/sheet"], "must end in one of"),
        ("sheet", ["--names=contrast,fogg", "--out={tmp}/new/sheet.png"], "unknown corruption of cifar_c: 'fogg'; did you mean 'fog'"),
    ],
)
def test_what_is_wrong_is_one_line(launcher, arguments, message, tmp_path):
    # Kills: tracebacks; exit status 0.
    done = commands.run(launcher, *(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and message.format(tmp=tmp_path) in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert not (tmp_path / "new").exists()


def test_a_warning_is_one_line_and_folders_are_made(tmp_path):
    # Kills: a warning with the path and line of our code, or twice; a traceback after everything was drawn.
    path = tmp_path / "new" / "sheet.pdf"
    done = commands.run("sheet", "--benchmark=tiny_imagenet_c", "--size=32", "--names=contrast,brightness", f"--out={path}")
    assert done.returncode == 0 and path.read_bytes()[:4] == b"%PDF", done.stderr
    (warning,) = (line for line in done.stderr.splitlines() if "made for" in line)
    assert warning.startswith("warning: the constants of tiny_imagenet_c were made for 64x64") and str(commands.ROOT) not in done.stderr


@pytest.mark.parametrize(("chosen", "seconds"), [("", "0.1"), ("7", "7.0")])
def test_what_the_cache_holds_is_the_users_choice(chosen, seconds):
    # Kills: our default over what the user set.
    name = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
    environment = {key: value for key, value in commands.environment().items() if key != name} | ({name: chosen} if chosen else {})
    code = "import sys; sys.path.insert(0, 'launch'); import entry, jax; entry.cache_compilations(); "
    code += "print(jax.config.jax_persistent_cache_min_compile_time_secs)"
    done = subprocess.run([sys.executable, "-c", code], cwd=commands.ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == seconds, done.stderr


def test_train_then_evaluate_prints_the_table(tmp_path):
    trained = commands.run("train", DIGITS, f"--workdir={tmp_path}", "--config.data.limit_test=48")
    assert trained.returncode == 0, trained.stderr
    assert re.search(r"best validation accuracy \d+\.\d+ % at step \d+", trained.stdout) and "quick, not comparable" in trained.stderr
    done = commands.run("evaluate", f"--workdir={tmp_path}", "--suite=attacks")
    assert done.returncode == 0, done.stderr
    assert "quick, not comparable" in done.stdout and "| SPIDER (tau 4, xi 0.5) |" in done.stdout
    for kind in ("md", "json", "png"):
        assert (tmp_path / f"report.{kind}").exists()


def test_quick_cifar10_trains_on_real_data(tmp_path):
    # Kills: a quick form that quietly trains on something else where its own data are there.
    folder = writing.real("tfds_small")
    trained = commands.run("train", "--config=configs/spider/cifar10.py:quick", f"--workdir={tmp_path}", TFDS_DATA_DIR=folder)
    assert trained.returncode == 0, trained.stderr
    assert "in place of" not in trained.stderr
    done = commands.run("evaluate", f"--workdir={tmp_path}", "--suite=clean", f"--data_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert "CIFAR-10, JPEG re-encoded" in done.stdout and "quick, not comparable" in done.stdout


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(tmp_path):
    # Kills: Orbax's tracebacks from its threads; a run that cannot be taken up again. No file may grow beyond 20 kB.
    code = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); "
        "sys.path.insert(0, 'launch'); sys.argv = ['launch/train.py', *sys.argv[1:]]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    arguments = [DIGITS, f"--workdir={tmp_path}"]
    options = {"cwd": commands.ROOT, "env": commands.environment(JAX_ENABLE_COMPILATION_CACHE="0"), "capture_output": True, "text": True}
    full = subprocess.run([sys.executable, "-c", code, *arguments], **options, timeout=300)
    assert full.returncode == 2 and "Traceback" not in full.stderr, full.stderr
    assert "error: could not write a checkpoint" in full.stderr and "same command again" in full.stderr
    again = commands.run("train", *arguments)
    assert again.returncode == 0, again.stderr
