"""Validation on images under C-bar: which corruption an image gets, what is counted, and that runs can be taken up again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import attacks, corruptions, models
from robustjax.core import ThreatModel, example_keys, parallel
from robustjax.core.check import InputError
from robustjax.data import ArraySource
from robustjax.io import log
from robustjax.train import augmented, build, feed, guard, loop, select, state
from tests import tiny

SHAPE = (16, 16, 1)
NAMES = ("brownish_noise", "ripple")


@pytest.fixture(scope="module", autouse=True)
def few_corruptions():
    """Two corruptions in place of ten, which would be compiled one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(corruptions.NAMES, "cifar_cbar", NAMES)
        yield


def given(ids, data="cbar", most=8):
    """Returns {id: its cells}, from the plan."""
    found = {}
    for part in augmented.plan(np.asarray(ids, np.int32), data, SHAPE, most=most, multiple=8):
        assert len(part.ids) % 8 == 0
        for example in part.ids[part.mask]:
            found.setdefault(int(example), []).append(part.cell)
    return found


def test_an_image_keeps_its_corruption_whatever_else_is_validated():
    # Kills: assignments by the place in the split, by a seed or by the batch; corruptions of very unlike frequency.
    everyone = given(range(3000), most=500)
    assert {example: cells for example, cells in everyone.items() if example % 7 == 0} == given(range(0, 3000, 7))
    assert all(len(cells) == 1 for cells in everyone.values())
    counts = np.bincount([cells[0] for cells in everyone.values()], minlength=10)
    assert len(counts) == 10 and np.sum((counts - 300) ** 2 / 300) < 30  # chi squared with 9 degrees of freedom
    assert given([5, 9, 40], data="all") == {example: list(range(10)) for example in (5, 9, 40)}


def test_the_set_goes_with_the_size():
    assert {cell.benchmark for cell in augmented.cells((63, 63, 3))} == {"cifar_cbar"}
    assert {cell.benchmark for cell in augmented.cells((64, 64, 3))} == {"imagenet_cbar"}
    assert augmented.describe("all", (32, 32, 3)) == "cifar_cbar, all of each image" and augmented.describe("clean", (32, 32, 3)) == "clean"
    with pytest.raises(InputError, match="defined for square images only"):
        augmented.check("cbar", (32, 48, 3))


@pytest.mark.parametrize("read_ahead", [False, True])
def test_images_are_corrupted_as_their_cell_says(read_ahead):
    # Kills: images and labels out of step; keys by the place in the batch; rounding that loses a level; threads that reorder.
    images = np.asarray(jax.random.randint(jax.random.key(0), (40, *SHAPE), 0, 256), np.uint8)
    source = ArraySource(images, np.arange(40) % 3)
    parts = augmented.plan(np.arange(3, 40, dtype=np.int32), "cbar", SHAPE, most=8, multiple=8)
    seen = 0
    for batch in augmented.corrupted(source, parts, SHAPE, read_ahead=read_ahead):
        for image, label, example in zip(*(np.asarray(x)[batch.mask] for x in batch[:3]), strict=True):
            cell = int(augmented.assignment(np.array([example]), 10)[0])
            keys = example_keys(jax.random.fold_in(jax.random.key(augmented.KEY), 1 + cell), jnp.full(8, example))
            name, severity = NAMES[cell // 5], cell % 5 + 1
            clean = jnp.repeat(jnp.asarray(images[example][None], jnp.float32) / 255, 8, axis=0)
            expected = corruptions.corrupt(keys, clean, name=name, severity=severity, benchmark="cifar_cbar")
            np.testing.assert_allclose(image, np.asarray(expected[0]) * 255, atol=1e-3)
            assert label == example % 3
            seen += 1
    assert seen == 37


def validated(**changes):
    """Returns (accuracy, loss) of the untrained network on the selection's images."""
    experiment = build.build(tiny.config(**changes))
    mesh = parallel.data_mesh()
    current = parallel.replicate(state.create(experiment.params, experiment.batch_stats, experiment.optimizer, averaged=False), mesh)
    validate = select.make_validator(experiment, mesh, feed.place(experiment, mesh), quiet=True)
    first = validate(*state.evaluated(current))
    assert validate(*state.evaluated(current)) == first
    return first


def test_every_image_counts_once_and_however_it_is_read(monkeypatch):
    # Kills: padding counted; means of batch means; another number for streamed data or when nothing is kept; 'all' counted as one.
    resident = validated(selection__data="cbar")
    assert validated(selection__data="cbar", data__stream="always") == resident != validated()
    assert validated(selection__data="cbar", seed=0, evaluation__batch_size=8)[0] == resident[0]
    assert resident[0] * 16 == pytest.approx(round(resident[0] * 16), abs=1e-9)
    every = validated(selection__data="all")
    assert every[0] * 160 == pytest.approx(round(every[0] * 160), abs=1e-9) and every != resident and every[0] <= 1
    monkeypatch.setattr(select, "_KEPT_BYTES", 0)
    assert validated(selection__data="cbar") == resident


def test_selection_under_attack():
    # Kills: the clean accuracy chosen by; an attack of other images or labels than the batch's; padding counted; other starts each time.
    options = {"norm": "linf", "eps": 0.1, "step_size": 0.05, "steps": 2}
    found = validated(selection__attack=options, evaluation__batch_size=8)
    experiment = build.build(tiny.config())
    network = models.logits_fn(experiment.apply, experiment.params, experiment.batch_stats)
    ids = jnp.asarray(experiment.validation_ids)
    images, labels = experiment.dataset.train.fetch(experiment.validation_ids)
    keys = example_keys(jax.random.key(0), ids)
    attacked = attacks.pgd(keys, network, images / np.float32(255), labels, ThreatModel("linf", 0.1), steps=2, step_size=0.05)
    np.testing.assert_allclose(found.robust_accuracy, np.mean(np.argmax(network(attacked), 1) == labels), atol=1e-6)
    plain = validated()
    assert found.selects_by == found.robust_accuracy and found.accuracy == plain.selects_by == plain.accuracy
    np.testing.assert_allclose(found.loss, plain.loss, rtol=1e-6)


@pytest.mark.parametrize("data", ["clean", "cbar"])
@pytest.mark.parametrize("stream", ["auto", "always"])
def test_one_batch_at_a_time(data, stream, monkeypatch):
    # Kills: batches all begun before the first result is fetched, whose collectives block one another on the devices of a CPU.
    happened = []
    place, fetch = parallel.shard_rows, jax.device_get
    experiment = build.build(tiny.config(selection__data=data, data__stream=stream, evaluation__batch_size=8))
    mesh = parallel.data_mesh()
    current = parallel.replicate(state.create(experiment.params, experiment.batch_stats, experiment.optimizer, averaged=False), mesh)
    monkeypatch.setattr(select, "_KEPT_BYTES", 0)
    validate = select.make_validator(experiment, mesh, feed.place(experiment, mesh), quiet=True)
    monkeypatch.setattr(parallel, "shard_rows", lambda *given: happened.append("begun") or place(*given))
    monkeypatch.setattr(jax, "device_get", lambda result: happened.append("fetched") or fetch(result))
    validate(*state.evaluated(current))
    assert len(happened) >= 4 and happened == ["begun", "fetched"] * (len(happened) // 2)


def test_runs_select_on_corrupted_images_and_can_be_taken_up(tmp_path, monkeypatch):
    # Kills: selection on clean images; other corruptions after a resume; corruption again for a finished run.
    config = tiny.config(epochs=3, selection__data="cbar")

    def records(folder):
        return [{k: v for k, v in record.items() if k != "time"} for record in log.read_lines(folder / "log.jsonl")]

    whole = loop.train(config, tmp_path / "whole", quiet=True)
    found = records(tmp_path / "whole")
    assert {record["validation_data"] for record in found} == {"cifar_cbar"}
    assert whole.validation_accuracy == max(record["validation_accuracy"] for record in found)
    loop.train(tiny.config(epochs=3), tmp_path / "clean", quiet=True)
    assert [record["train_loss"] for record in records(tmp_path / "clean")] == [record["train_loss"] for record in found]
    assert [record["validation_loss"] for record in records(tmp_path / "clean")] != [record["validation_loss"] for record in found]
    look = guard.Watch._look

    def stop(self, after, *rest):
        if after == 6:
            raise KeyboardInterrupt
        return look(self, after, *rest)

    monkeypatch.setattr(guard.Watch, "_look", stop)
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, tmp_path / "killed", quiet=True)
    monkeypatch.undo()
    loop.train(config, tmp_path / "killed", quiet=True)
    assert records(tmp_path / "killed") == found
    monkeypatch.setattr(augmented, "corrupted", None)
    assert loop.train(config, tmp_path / "killed", quiet=True)[:3] == whole[:3]
