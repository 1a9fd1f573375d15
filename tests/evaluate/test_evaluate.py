"""Evaluation from a checkpoint alone: right numbers, each example once, results kept and reused."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.core.check import InputError
from robustjax.evaluate import report, run, suites
from robustjax.evaluate.load import evaluation_data, load
from robustjax.io import results
from robustjax.train import loop
from tests import tiny


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    loop.train(tiny.config(), folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def evaluated(workdir):
    return run.evaluate(workdir, suite="full", quiet=True)


def test_numbers_are_those_of_the_whole_test_set(workdir, evaluated):
    # Kills: padded rows counted, a last batch dropped, means of batch means. 24 images in batches of 16; by hand in one go.
    loaded = load(workdir)
    images, labels = evaluation_data(loaded.meta).test.fetch(np.arange(24))
    logits = np.asarray(loaded.logits_fn(jnp.asarray(images, jnp.float32) / 255), np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    nll = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(24), labels]
    clean = evaluated[0]
    assert clean["name"] == "clean" and clean["n"] == 24
    np.testing.assert_allclose(clean["metrics"]["accuracy"], (logits.argmax(1) == labels).mean())
    np.testing.assert_allclose(clean["metrics"]["nll_nats"], nll.mean(), rtol=1e-5)


def test_every_item_has_its_file_with_all_that_a_reader_needs(workdir, evaluated):
    assert len(evaluated) == 1 + 35 + 1
    for result in evaluated:
        stored = results.read(workdir / "evaluation" / f"{result['name']}.json")
        assert stored == results.canonical(result)
        assert stored["run"]["config_hash"] and stored["environment"]["jax"] and stored["run"]["seed"] == 0


def test_measured_items_are_not_measured_again_unless_the_network_changed(workdir, evaluated, monkeypatch):
    # Kills: no cache; a cache that does not look at what it holds.
    measured = []
    real = run._measure
    monkeypatch.setattr(run, "_measure", lambda loaded, item, *rest: measured.append(item.name) or real(loaded, item, *rest))
    (workdir / "evaluation" / "clean.json").unlink()
    path = workdir / "evaluation" / "attack" / "pgd_l2.json"
    stored = json.loads(path.read_text())
    stored["run"]["checkpoint_step"] += 1
    results.write_json(path, stored)
    again = run.evaluate(workdir, suite="full", quiet=True)
    assert measured == ["clean", "attack/pgd_l2"]
    assert [r["metrics"] for r in again] == [r["metrics"] for r in evaluated]


def test_results_do_not_depend_on_the_batch_size(workdir, evaluated, tmp_path):
    # Kills: randomness keyed by the place in the batch.
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    shutil.rmtree(copy / "evaluation")
    real = run._parts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_parts", lambda source, ids, size: real(source, ids, 7))
        again = run.evaluate(copy, suite="full", quiet=True)
    assert [r["metrics"]["error"] for r in again] == [r["metrics"]["error"] for r in evaluated]


def test_an_example_wrong_without_the_attack_is_not_robust(evaluated):
    clean, attacked = evaluated[0]["metrics"]["error"], evaluated[-1]["metrics"]["error"]
    assert attacked >= clean and evaluated[-1]["name"] == "attack/pgd_l2"


def test_checkpoints_can_be_chosen(workdir):
    assert load(workdir, checkpoint="last").step == 8 and load(workdir, checkpoint=4).step == 4
    with pytest.raises(InputError, match=r"one of the steps \[4, 8\], got '5'"):
        load(workdir, checkpoint="5")


def test_damaged_best_checkpoint_is_passed_over_with_a_warning(workdir, tmp_path, capsys):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    best = load(copy).step
    for file in (copy / "checkpoints" / str(best) / "state").rglob("d/*"):
        file.unlink()
    assert load(copy).step != best and f"checkpoint {best}" in capsys.readouterr().err


def test_data_of_another_shape_are_refused(workdir):
    meta = load(workdir).meta
    meta["config"]["data"]["options"]["num_classes"] = 4
    with pytest.raises(InputError, match=r"has 4 classes of images \(16, 16, 1\), the network was trained for 3 classes"):
        evaluation_data(meta)


def test_unknown_suite_is_refused(workdir):
    with pytest.raises(InputError, match="unknown suite 'ful'; did you mean 'full'"):
        suites.items("ful", tiny.config())


def test_report_averages_over_seeds_and_prints_what_it_holds(workdir, evaluated, tmp_path):
    # Kills: a row for each seed; percent signs on fractions; a table that cannot be printed from its file.
    loop.train(tiny.config(seed=1), tmp_path / "seed1", quiet=True)
    run.evaluate(tmp_path / "seed1", suite="full", quiet=True)
    made = report.collect([workdir, tmp_path / "seed1"], command="the command", title="A title")
    (row,) = made["rows"]
    values = [next(run.stored(folder))["metrics"] for folder in (workdir, tmp_path / "seed1")]
    assert row["seeds"] == [0, 1] and len(values) == 2
    errors = [r["metrics"]["error"] for r in evaluated if r["name"].startswith("cifar_c")]
    np.testing.assert_allclose(row["metrics"]["mce"]["values"][0], np.mean(errors), rtol=1e-6)
    paths = report.write(made, tmp_path / "report")
    assert report.markdown(json.loads(paths[0].read_text())) == paths[1].read_text()
    spread = row["metrics"]["clean_accuracy"]
    assert f"{100 * spread['mean']:.2f} ± {100 * spread['std']:.2f}" in paths[1].read_text()
    assert paths[2].stat().st_size > 10_000


def test_report_refuses_what_was_not_evaluated(tmp_path):
    with pytest.raises(InputError, match="has not been evaluated"):
        report.collect([tmp_path])
