"""Weights to begin with from a file of torch's; those of another run are tested in test_loop.py."""

import numpy as np
import pytest

from robustjax import models
from robustjax.core import InputError
from robustjax.train import pretrained


def arrays_of_torch(params, batch_stats):
    """A state dict in torch's names and layout, for a residual network of one stage."""
    leaves, arrays = {"mean": "running_mean", "var": "running_var", "bias": "bias"}, {}
    for name, value in {**params, **batch_stats}.items():
        layer, _, leaf = name.replace("blocks", "layer1").replace("head", "fc").rpartition(".")
        arrays[f"{layer}.{leaves.get(leaf, 'weight')}"] = np.transpose(value, (3, 2, 0, 1) if value.ndim == 4 else None)
    return arrays


def make(num_classes, seed):
    return models.split(models.make("resnet18", num_classes=num_classes, image_shape=(8, 8, 1), width=4, blocks=(1,), seed=seed))[1:]


@pytest.mark.parametrize("suffix", [".npz", ".tar"])
def test_a_file_of_weights(suffix, tmp_path):
    # Kills: a file taken for a folder, or a folder whose name ends like a file's for a file; a head lost, or of the wrong size.
    trained, path = make(3, seed=1), tmp_path / "weights.npz"
    np.savez(path, **arrays_of_torch(*trained))
    same, _ = pretrained.load(path, *make(3, seed=0))
    for name, value in trained[0].items():
        np.testing.assert_array_equal(same[name], value)
    fresh = make(5, seed=0)
    tuned, _ = pretrained.load(str(path), *fresh)
    for name, value in fresh[0].items():
        np.testing.assert_array_equal(tuned[name], value if name.startswith("head") else trained[0][name])
    with pytest.raises(InputError, match="there is no file .*gone"):
        pretrained.load(tmp_path / f"gone{suffix}", *fresh)
    (tmp_path / f"run{suffix}").mkdir()
    with pytest.raises(InputError, match="no checkpoints in"):
        pretrained.load(tmp_path / f"run{suffix}", *fresh)
