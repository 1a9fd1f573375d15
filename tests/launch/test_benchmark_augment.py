"""The benchmark of augmentations in its smallest form, and the peer that it measures: Pillow's AugMix."""

import json
import runpy
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.imaging import pil
from tests.launch import commands

# In the order of the peer.
NAMES = ("autocontrast", "equalize", "posterize", "solarize", "rotate", "shear_x", "shear_y", "translate_x", "translate_y")


class Given:
    """A generator whose draws are known."""

    def __init__(self, level: float):
        self._level = level

    def uniform(self, low: float, high: float) -> float:
        assert low <= abs(self._level) <= high
        return abs(self._level)

    def random(self) -> float:
        return 0.9 if self._level < 0 else 0.1


def test_the_smallest_form(tmp_path):
    # Kills: a benchmark that no longer runs; the same side of a ratio measured twice; a file without what was measured.
    out = tmp_path / "out.json"
    small = ("--names=plain", "--batch=2", "--steps=1", "--pairs=3", "--images=2", f"--out={out}")
    done = commands.run("benchmark_augment", *small)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    (row,) = report["steps"]
    assert row["name"] == "plain" and row["images_per_second"] > 0
    beside = report["augmix_beside_pillow"]
    rate = beside["images_per_second"]
    assert beside["images"] == [2, 32, 32, 3] and set(rate) == {"robustjax", "pillow"} and rate["robustjax"] != rate["pillow"]


def test_every_step_can_be_built():
    # Kills: a step whose options its augmentation does not take, found only after the others were measured for an hour; one left out.
    code = (
        "import sys; sys.path.insert(0, 'launch'); import benchmark_augment as b; "
        "print(*(f'{name}:' + '+'.join(b.experiment(name, {'depth': 10, 'width': 1}, 8).config['augment']) for name in b.STEPS))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=commands.ROOT, env=commands.environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    built = dict(step.split(":") for step in done.stdout.split())
    assert built["plain"] == "crop_flip" and built["deepaugment"] == "deepaugment+crop_flip"
    assert built["pixmix+spider"] == "crop_flip+pixmix"
    assert {"augmix", "pixmix", "deepaugment", "cutout", "mixup", "cutmix", "spider", "esp"} <= set(built)


def test_unknown_steps_are_one_line():
    # Kills: a traceback; an unknown name left out in silence.
    done = commands.run("benchmark_augment", "--names=augmixx")
    assert done.returncode == 2 and "unknown step 'augmixx'; did you mean 'augmix'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("level", [2.9, -1.7])
def test_the_peers_operations_are_ours(level):
    # Kills: a peer that does less than we do: other levels, other operations, nearest neighbours for bilinear weights.
    peer = runpy.run_path(str(commands.ROOT / "launch" / "peer_augmix.py"))
    pixels = np.random.default_rng(0).integers(40, 230, (24, 28, 3), np.uint8)
    operations = peer["operations"](Given(level))
    theirs = np.stack([np.asarray(operation(peer["Image"].fromarray(pixels))) for operation in operations]).astype(int)
    images = jnp.broadcast_to(jnp.asarray(pixels, jnp.float32) / 255, (len(NAMES), *pixels.shape))
    index = jnp.asarray([pil.OPS.index(name) for name in NAMES], jnp.int32)
    ours = np.rint(np.asarray(jax.jit(pil.apply_op)(images, index, jnp.full(len(NAMES), level))) * 255).astype(int)
    assert set(NAMES) == set(pil.DEFAULT_OPS) and len(operations) == len(NAMES)
    for name, a, b in zip(NAMES, ours, theirs, strict=True):
        differ = np.abs(a - b)
        # In float32 warps may be one level off, seldom.
        warped = name in ("rotate", "shear_x", "shear_y")
        assert differ.max() <= warped and (differ > 0).mean() <= 0.01, name
        assert np.abs(a - pixels).max() > 5, name


def test_the_peer_mixes_as_augmix_does():
    # Kills: chains of another length or weight: with a share of 0 and 1 the mixture is the image and the chains.
    peer = runpy.run_path(str(commands.ROOT / "launch" / "peer_augmix.py"))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)

    class Shares(Given):
        def __init__(self, share):
            super().__init__(2.0)
            self._share, self.lengths = share, []

        def dirichlet(self, alpha):
            assert alpha == [1.0] * 3
            return np.array([0.5, 0.25, 0.25])

        def integers(self, low, high=None):
            if high is None:
                return 3  # solarize
            self.lengths.append((low, high))
            return 1

        def beta(self, a, b):
            return self._share

    solarized = np.where(pixels < 256 - int(256 * 2 / 10), pixels, 255 - pixels) / 255
    for share in (0.0, 1.0, 0.25):
        rng = Shares(share)
        mixed = peer["augmix"](pixels, rng)
        np.testing.assert_allclose(mixed, (1 - share) * pixels / 255 + share * solarized, atol=1e-6)
        assert rng.lengths == [(1, 4)] * 3
