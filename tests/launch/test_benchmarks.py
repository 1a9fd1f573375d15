"""The benchmark of attacks on a made-up network, without peers; what that of training refuses."""

import json

import numpy as np
import pytest

from tests.launch import commands


@pytest.fixture
def folder(tmp_path):
    """Arrays as the reference data have them: one convolution, one dense layer, 8x8 images."""
    rng = np.random.default_rng(0)
    shapes = {"conv1_kernel_HWIO": (3, 3, 3, 4), "conv1_bias": (4,), "dense1_kernel_IO": (64, 10), "dense1_bias": (10,)}
    np.savez(tmp_path / "cifar_cnn_params.npz", **{name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})
    np.savez(tmp_path / "cifar_images.npz", x_uint8=rng.integers(0, 256, (6, 8, 8, 3), np.uint8), y=rng.integers(0, 10, 6))
    return tmp_path


def test_a_benchmark_of_our_own_attack(folder):
    # Kills: a worker that hangs or answers for another attack, images outside of the ball, a file with paths of this machine.
    out = folder / "new" / "out.json"
    done = commands.run("benchmark_attacks", f"--goldens={folder}", "--attacks=pgd", "--images=5", "--repeats=2", f"--out={out}")
    assert done.returncode == 0, done.stderr
    (measured,) = json.loads(out.read_text())["attacks"]
    ours = measured["packages"]["robustjax"]
    assert len(ours["seconds_by_seed"]) == 2 and ours["seconds"] == min(ours["seconds_by_seed"]) < ours["first_call_seconds"]
    assert abs(ours["largest_norm"] - 8 / 255) < 1e-6 and measured["times_faster"] == {}
    assert ours["peak_megabytes"] >= ours["loaded_megabytes"] > 0
    assert str(folder) not in json.loads(out.read_text())["command"].replace(f"--out={out}", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--goldens=nowhere"], "there is no cifar_cnn_params.npz in nowhere; say where"),
        (["--goldens={folder}", "--images=7"], "--images=7, but {folder} has 6"),
        (["--attacks=pdg"], "unknown attack 'pdg'; did you mean 'pgd'"),
    ],
)
def test_what_is_wrong_is_one_line(folder, arguments, message):
    # Kills: a traceback; a process that is started for nothing.
    done = commands.run("benchmark_attacks", *(argument.format(folder=folder) for argument in arguments))
    assert done.returncode == 2 and "Traceback" not in done.stderr and message.format(folder=folder) in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--networks=small,resnet19"], "error: --networks has 'resnet19'; known for cpu: small, resnet18, wrn_40_2."),
        (["--device=gpu"], "error: --device=gpu: jax finds no GPU, but cpu; install 'robustjax[cuda]' or take --device=cpu."),
    ],
)
def test_what_training_cannot_be_measured_on_is_one_line(arguments, message):
    # Kills: an hour of measuring the wrong device under the name of another.
    done = commands.run("benchmark_training", *arguments)
    assert done.returncode == 2 and done.stderr.strip() == message
