"""A run on images of differing sizes, cropped on the host: stopped and taken up again, validated on centres, evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import losses, models
from robustjax.data import crops
from robustjax.data.image_folder import FolderSource
from robustjax.evaluate import run
from robustjax.io import log
from robustjax.io.checkpoint import Checkpoints
from robustjax.train import build, guard, loop
from tests import tiny
from tests.data import writing

WNIDS = ("n01440764", "n01443537")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = writing.imagenet_folder(tmp_path_factory.mktemp("tree"), WNIDS, writing.photographs(44), writing.photographs(10, seed=1))
    made = tiny.config(epochs=2, augment=("flip",), augment_options={})
    made["data"] |= {"name": "image_folder", "dir": str(root), "options": {"size": 16, "crop": "random_resized"}}
    return made


def final(workdir):
    return Checkpoints(workdir, read_only=True).restore(4)


def test_a_stopped_run_is_the_unbroken_run_and_validates_on_centres(config, tmp_path, monkeypatch):
    # Kills: crops of a stream that starts anew at 0; validation or testing on random crops; crops that are the same at every step.
    boxes, real = [], crops.random_box

    def watched(width, height, draw):
        boxes.append(draw)
        return real(width, height, draw)

    monkeypatch.setattr(crops, "random_box", watched)
    loop.train(config, tmp_path / "whole", quiet=True)
    experiment = build.build(config)
    steps = [crops.Draw(0, step, int(example)) for step in range(4) for example in experiment.order(step)]
    assert sorted(set(boxes)) == sorted(steps) and len(steps) == 4 * 16 and not set(experiment.validation_ids) & {b.example for b in boxes}

    look = guard.Watch._look

    def stop(self, after, *rest):
        if after == 3:
            raise KeyboardInterrupt
        return look(self, after, *rest)

    monkeypatch.setattr(guard.Watch, "_look", stop)
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, tmp_path / "broken", quiet=True)
    monkeypatch.setattr(guard.Watch, "_look", look)
    loop.train(config, tmp_path / "broken", quiet=True)
    (state, _), (whole, _) = (final(tmp_path / name) for name in ("broken", "whole"))
    jax.tree.map(np.testing.assert_array_equal, state, whole)

    record = log.read_lines(tmp_path / "whole" / "log.jsonl")[-1]
    images, labels = experiment.dataset.train.fetch(experiment.validation_ids)
    network = models.logits_fn(experiment.evaluate, whole["params"], whole["batch_stats"])
    values = losses.cross_entropy(network(jnp.asarray(images, jnp.float32) / 255), jnp.asarray(labels))
    assert record["validation_loss"] == pytest.approx(float(jnp.mean(values)), rel=1e-4)

    before = len(boxes)
    (item,) = run.evaluate(tmp_path / "whole", suite="clean", quiet=True)
    assert item["n"] == 10 and len(boxes) == before


def test_moments_that_are_given_are_not_measured(config, monkeypatch):
    # Kills: thousands of large images decoded at every start for numbers that nobody uses.
    asked, real = [], FolderSource._fetch
    monkeypatch.setattr(FolderSource, "_fetch", lambda self, indices, draw: asked.append(len(indices)) or real(self, indices, draw))
    given = {**config, "model": {"name": "small_cnn", "options": {"width": 4, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.1)}}}
    model = build.build(given).model
    assert (list(model["mean"]), list(model["std"])) == ([0.5, 0.4, 0.3], [0.2, 0.2, 0.1])
    assert asked == [16, 10]  # the first of each split, when it is opened
