"""Evaluation from a checkpoint alone: right numbers, each example once, results kept and reused."""

import json
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import data
from robustjax.core.check import InputError
from robustjax.evaluate import report, run, suites
from robustjax.evaluate.load import evaluation_data, load
from robustjax.io import results
from robustjax.io.checkpoint import METRIC, UNVALIDATED, Checkpoints
from robustjax.train import loop
from tests import tiny


def folder(workdir, n):
    return workdir / "evaluation" / f"step{load(workdir).step}_n{n}"


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


def test_what_does_not_fit_in_memory_is_read_ahead_with_the_same_batches():
    # Kills: other batches, padding or ids than those of resident data; each batch read when it is asked for.
    class Streamed(data.ArraySource):
        resident = False

        def fetch(self, indices):
            asked.append(threading.current_thread().name)
            return super().fetch(indices)

    asked, fake = [], data.make("fake", train=24).train
    ids = np.array([5, 3, 20, 8, 1, 0, 23])
    streamed = list(run._parts(Streamed(fake.images, fake.labels), ids, 3))
    jax.tree.map(np.testing.assert_array_equal, streamed, list(run._parts(fake, ids, 3)))
    assert len(streamed) == 3 and len(asked) == 3 and "MainThread" not in asked


def test_every_item_has_its_file_with_all_that_a_reader_needs(workdir, evaluated):
    assert len(evaluated) == 1 + 2 * 5 + 1
    for result in evaluated:
        stored = results.read(folder(workdir, 24) / f"{result['name']}.json")
        assert stored == results.canonical(result)
        assert stored["run"]["config_hash"] and stored["environment"]["jax"] and stored["run"]["seed"] == 0


def test_measured_items_are_not_measured_again_unless_the_network_changed(workdir, evaluated, monkeypatch):
    # Kills: no cache; a cache that does not look at what it holds.
    measured = []
    for name in ("_measure", "_attack"):
        real = getattr(run, name)

        def noting(first, item, *rest, real=real, **more):
            return measured.append(item.name) or real(first, item, *rest, **more)

        monkeypatch.setattr(run, name, noting)
    (folder(workdir, 24) / "clean.json").unlink()
    path = folder(workdir, 24) / "attack" / "pgd_l2.json"
    stored = json.loads(path.read_text())
    stored["run"]["checkpoint_step"] += 1
    results.write_json(path, stored)
    again = run.evaluate(workdir, suite="full", quiet=True)
    assert measured == ["clean", "attack/pgd_l2"]
    assert [r["metrics"] for r in again] == [r["metrics"] for r in evaluated]


def test_results_do_not_depend_on_the_batch_size(workdir, evaluated, tmp_path):
    # Kills: randomness keyed by the place in the batch; a batch size that is not used, or that decides what is measured again.
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    shutil.rmtree(copy / "evaluation")
    again = run.evaluate(copy, suite="full", batch_size=7, quiet=True)
    assert [r["metrics"]["error"] for r in again] == [r["metrics"]["error"] for r in evaluated]
    assert [r["run"] for r in again] == [r["run"] for r in evaluated]
    with pytest.raises(InputError, match="batch_size must be at least 1, or 0 for that of the run's configuration, got -1"):
        run.evaluate(copy, batch_size=-1, quiet=True)


def test_other_weights_of_the_same_configuration_and_step_are_measured(workdir, evaluated, tmp_path):
    # Kills: results of an earlier training in the same folder, or of a version that did not know the weights, taken for this network's;
    # a digest that leaves the statistics of batch norm out.
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    checkpoints = Checkpoints(copy)
    (best, accuracy), before = checkpoints.best(), load(copy)
    state, meta = checkpoints.restore(best)
    shutil.rmtree(copy / "checkpoints" / str(best))
    state["batch_stats"] = jax.tree.map(lambda leaf: leaf + 1.0, state["batch_stats"])
    checkpoints = Checkpoints(copy)
    checkpoints.save(best, state, meta, validation_accuracy=accuracy)
    checkpoints.close()
    after = load(copy)
    assert (after.step, after.meta["config"]) == (before.step, before.meta["config"]) and after.weights != before.weights
    (clean,) = run.evaluate(copy, suite="clean", quiet=True)
    assert clean["run"] == evaluated[0]["run"] | {"weights": after.weights}
    assert clean["metrics"]["nll_nats"] != evaluated[0]["metrics"]["nll_nats"]
    path = folder(copy, 24) / "clean.json"
    older = {name: value for name, value in clean["run"].items() if name != "weights"}
    results.write_json(path, clean | {"run": older, "seconds": -1.0})
    (again,) = run.evaluate(copy, suite="clean", quiet=True)
    assert again["seconds"] > 0 and results.read(path) == again


def test_an_example_wrong_without_the_attack_is_not_robust(evaluated):
    clean, attacked = evaluated[0]["metrics"]["error"], evaluated[-1]["metrics"]["error"]
    assert attacked >= clean and evaluated[-1]["name"] == "attack/pgd_l2"


def test_checkpoints_can_be_chosen(workdir):
    assert load(workdir, checkpoint="last").step == 8 and load(workdir, checkpoint=4).step == 4
    with pytest.raises(InputError, match=r"one of the steps \[4, 8\], got '5'"):
        load(workdir, checkpoint="5")


def test_damaged_best_checkpoint_is_passed_over_with_a_warning(workdir, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    best = load(copy).step
    for file in (copy / "checkpoints" / str(best) / "state").rglob("d/*"):
        file.unlink()
    assert load(copy).step != best and f"checkpoint {best}" in capsys.readouterr().err


def test_a_checkpoint_of_a_stopped_run_is_named_and_never_the_best(workdir, tmp_path, capsys):
    # Kills: measuring weights of the middle of an epoch as the best, where the best cannot be read.
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    best = load(copy).step
    other = 12 - best
    results.write_json(copy / "checkpoints" / str(other) / "metrics" / "metrics", {METRIC: UNVALIDATED})
    assert load(copy).step == best and capsys.readouterr().err == ""
    assert load(copy, checkpoint=other).step == other and f"checkpoint {other}" in capsys.readouterr().err
    for file in (copy / "checkpoints" / str(best) / "state").rglob("d/*"):
        file.unlink()
    with pytest.raises(InputError, match="none of the validated checkpoints"):
        load(copy)


def test_data_of_another_shape_are_refused(workdir):
    meta = load(workdir).meta
    meta["config"]["data"]["options"]["num_classes"] = 4
    with pytest.raises(InputError, match=r"has 4 classes of images \(16, 16, 1\), the network was trained for 3 classes"):
        evaluation_data(meta)


def test_unknown_suite_is_refused(workdir):
    with pytest.raises(InputError, match="unknown suite 'ful'; did you mean 'full'"):
        suites.items("ful", tiny.config(), (16, 16, 1))


def test_a_limited_evaluation_leaves_the_full_one_alone(workdir, evaluated):
    # Kills: files named by item only, so that a look at a few images overwrites hours.
    (few,) = run.evaluate(workdir, suite="clean", limit=5, quiet=True)
    assert few["n"] == 5 and results.read(folder(workdir, 5) / "clean.json") == few
    assert results.read(folder(workdir, 24) / "clean.json")["metrics"] == evaluated[0]["metrics"]


def test_the_data_that_were_read_are_named(workdir, monkeypatch):
    # Kills: naming the training data where a copy of other quality was given by --data_dir.
    real = run.evaluation_data
    monkeypatch.setattr(run, "evaluation_data", lambda meta, dir: real(meta, dir=dir)._replace(provenance="another copy"))
    (clean,) = run.evaluate(workdir, suite="clean", limit=6, quiet=True)
    assert clean["run"]["data"] == "another copy"


@pytest.fixture(scope="module")
def three_runs(workdir, evaluated, tmp_path_factory):
    """Returns (folder, results) of two seeds of the baseline and one of SPIDER."""
    runs = [(workdir, evaluated)]
    for name, change in (("seed1", {"seed": 1}), ("spider", {"method": {"name": "spider", "tau": 1.0, "xi": 0.3}})):
        other = tmp_path_factory.mktemp(name)
        loop.train(tiny.config(**change), other, quiet=True)
        runs.append((other, run.evaluate(other, suite="full", quiet=True)))
    return runs


def test_report_averages_over_seeds_and_prints_what_it_holds(three_runs, tmp_path):
    # Kills: a row for each seed; fractions as percent; a table that cannot be printed from its file; the population's deviation.
    made = report.collect(three_runs, command="the command", title="A title")
    baseline, spider = made["rows"]
    assert baseline["seeds"] == [0, 1] and spider["label"] == "SPIDER (tau 1, xi 0.3)"
    errors = [[r["metrics"]["error"] for r in found if r["name"].startswith("cifar_c")] for _, found in three_runs[:2]]
    np.testing.assert_allclose(baseline["metrics"]["mce"]["values"], np.mean(errors, 1), rtol=1e-6)
    np.testing.assert_allclose(baseline["metrics"]["mce"]["std"], np.std(np.mean(errors, 1), ddof=1), rtol=1e-5)
    paths = report.write(made, tmp_path)
    text = paths[1].read_text()
    assert report.markdown(json.loads(paths[0].read_text()), details=True) == text
    spread = baseline["metrics"]["mce"]
    assert f"| {100 * spread['mean']:.2f} ± {100 * spread['std']:.2f} |" in text
    assert "the command" in text and "24 test images" in text and paths[2].stat().st_size > 10_000


def test_the_paper_stands_beside_ours(three_runs):
    made = report.collect([(three_runs[2][0], three_runs[2][1])], table="spider/3")
    made["reference"]["rows"] = {"spider": {"mce": 0.1437}}
    assert "*14.37*" in report.markdown(made)
    with pytest.raises(InputError, match="there is no table 'spider/99'"):
        report.collect(three_runs[:1], table="spider/99")


def test_tables_of_unlike_runs_are_refused(workdir, evaluated, three_runs):
    # Kills: a mean over the same run twice; rows of other test sets or items side by side.
    with pytest.raises(InputError, match="repeats a run of the same configuration and seed"):
        report.collect([*three_runs, three_runs[0]])
    few = run.evaluate(workdir, suite="clean", limit=5, quiet=True)
    with pytest.raises(InputError, match="one table needs the same --suite, --limit"):
        report.collect([three_runs[1], (workdir, few)])


def test_bfloat16_is_for_training_only(tmp_path):
    # Kills: attacks and metrics on a network that computes in bfloat16.
    loop.train(tiny.config(epochs=1, compute_dtype="bfloat16"), tmp_path, quiet=True)
    loaded = load(tmp_path)
    images = jnp.asarray(evaluation_data(loaded.meta).test.fetch(np.arange(4))[0], jnp.float32) / 255
    text = str(jax.make_jaxpr(loaded.logits_fn)(images))
    assert "bf16" not in text
