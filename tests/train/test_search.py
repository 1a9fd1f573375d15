"""What is searched, by the papers; a trial's training; the table's arithmetic. The queue of trials is in test_study.py."""

import itertools
import json

import pytest

from robustjax import augment
from robustjax.core.check import InputError
from robustjax.io import log, results
from robustjax.train import build, guard, loop, search, search_report, study
from robustjax.train.study import Range
from tests import tiny

METHODS = ("spider", "no_ls", "std_ls", "l2_sphere", "l2_ball", "esp", "mixup", "cutmix")
SPIDER = {"method": {"name": "spider", "tau": 1.0, "xi": 0.1}}
CIFAR, TINY = (32, 32, 3), (64, 64, 3)


def test_the_papers_spaces():
    # SPIDER, appendix E.1.1 and section 5: tau to 20 (CIFAR) or 30 (Tiny-ImageNet), xi to 1 - 1/c, 30 or 15 trials.
    assert search.space_of("spider", 10, CIFAR) == {"tau": Range(0.0, 20.0), "xi": Range(0.0, 0.9)}
    assert search.space_of("spider", 200, TINY) == {"tau": Range(0.0, 30.0), "xi": Range(0.0, 0.995)}
    assert search.space_of("no_ls", 10, CIFAR) == {"tau": Range(0.0, 20.0)}
    assert (search.default_trials(CIFAR), search.default_trials(TINY)) == (30, 15)


@pytest.mark.parametrize(
    ("classes", "printed"), [(10, [0.426, 0.590]), (100, [0.158, 0.326, 0.493]), (200, [0.496])], ids=["cifar10", "cifar100", "tiny"]
)
def test_esp_s_grid_has_the_printed_xis(classes, printed):
    # ESP, section 4.2: gamma = {10, 20}, {20, 50, 100} and {200}.
    points = study.points(search.space_of("esp", classes, CIFAR, sampler="grid"))
    options = [search.method_options("esp", point, classes) for point in points]
    # The print cuts digits off in two places.
    assert sorted({round(one["xi"], 4) for one in options}) == pytest.approx(printed, abs=1e-3)
    assert all(one["tau"] == one["epsilon"] for one in options) and len(options) == len(printed) * len(search.SIZES)
    assert search.method_options("esp", {"epsilon": 4.0, "tau": 2.0, "xi": 0.1}, 10) == {"epsilon": 4.0, "tau": 2.0, "xi": 0.1}


@pytest.mark.parametrize("method", METHODS)
def test_kernels_take_both_ends_of_every_range(method):
    # Kills: a range beyond what its kernel takes; an option it does not have.
    config = tiny.config(method={"name": method})
    dataset = build.open_dataset(config)[1]
    space = search.space_of(method, dataset.num_classes, dataset.image_shape)
    objective = build._objective(config, {})
    for ends in itertools.product(*((values.low, values.high) for values in space.values())):
        made = search.with_options(config, dict(zip(space, ends, strict=True)), dataset.num_classes)
        build.augmentations(made, dataset, objective)
        augment.compose([(made["method"].pop("name"), made["method"])])


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ({"name": "none"}, {}, "config.method.name = 'none' has nothing to search; searched are cutmix, esp, "),
        (SPIDER["method"], {"sampler": "gird"}, "unknown sampler 'gird'; did you mean 'grid'?"),
        (SPIDER["method"], {"sampler": "grid"}, "a grid is made of values, and tau has a range"),
        (SPIDER["method"], {"space": ["tua=1:2"]}, "unknown option of the method in --space: 'tua'; did you mean 'tau'?"),
        (SPIDER["method"], {"space": ["tau=1;2"]}, "--space is NAME=low:high, NAME=low:high:log or NAME=value,value,..., got 'tau=1;2'."),
        (SPIDER["method"], {"space": ["tau=2:1"]}, "--space=tau=2:1: the range must rise."),
        (SPIDER["method"], {"space": ["tau=0:1:log"]}, "--space=tau=0:1:log: the range must rise, from above 0 for log."),
        (SPIDER["method"], {"space": ["xi=0:2"]}, "xi must lie in [0, 1 - 1/C]"),
        ({"name": "esp", "epsilon": 1.0, "tau": 1.0, "xi": 0.1}, {"space": ["xi=0:1", "gamma=1:2"]}, "gamma stands for xi"),
    ],
)
def test_what_cannot_be_searched_is_one_line_before_any_trial(tmp_path, method, options, message):
    # Kills: tracebacks; a first trial that fails.
    with pytest.raises(InputError) as caught:
        search.search(tiny.config(method=method), tmp_path, **options)
    assert message in str(caught.value) and list(tmp_path.rglob("trial_*")) == []


def test_the_table_agrees_with_spider_s_own():
    # Table 7: pruned hours, predicted full hours, speed gain and equivalent trials of 30, within what its digits leave open.
    for hours, full, gain, equivalent in (
        (14.84, 58.15, 3.92, 7.65),
        (14.06, 71.99, 5.12, 5.86),
        (39.51, 171.54, 4.34, 6.91),
        (27.98, 140.90, 5.04, 5.96),
    ):
        trials = [{"seconds": 3600 * hours / 2, "epochs": 0.1}, {"seconds": 3600 * hours / 2, "epochs": 400 * equivalent - 0.1}]
        found = search_report.costs([*trials, *[{"seconds": 0.0, "epochs": 0}] * 28], 400)
        assert found["pruned_seconds"] == pytest.approx(3600 * hours)
        assert found["equivalent_trials"] == pytest.approx(equivalent)
        assert found["speed_gain"] == pytest.approx(gain, abs=0.01)
        assert found["predicted_full_seconds"] == pytest.approx(3600 * full, rel=1e-3)
    assert search_report.costs([{"seconds": 0.0, "epochs": 0}], 400)["speed_gain"] is None


def test_a_search_that_was_stopped_goes_on_with_the_run_and_writes_what_it_found(tmp_path, monkeypatch, capsys):
    # Kills: a finished trial trained again; a run begun anew; another configuration in best.json than the best trial's.
    train, begun = loop.train, []

    def stopped_once(config, workdir, *, on_validation, **options):
        begun.append(workdir.name)

        def tell(line):
            on_validation(line)
            if len(begun) == 2:
                raise KeyboardInterrupt

        return train(config, workdir, on_validation=tell, **options)

    monkeypatch.setattr(loop, "train", stopped_once)
    config, options = tiny.config(**SPIDER), {"trials": 3, "quiet": True, "space": ["tau=2", "xi=0.1,0.3"]}  # two programs
    with pytest.raises(KeyboardInterrupt):
        search.search(config, tmp_path, **options)
    folder = tmp_path / "fake-spider"
    first = (folder / "trial_000" / "log.jsonl").read_bytes()
    report = search.search(config, tmp_path, **options)
    assert begun == ["trial_000", "trial_001", "trial_002", "trial_003"] and not (folder / "trial_001").exists()
    assert "going on from step 4" in capsys.readouterr().err and (folder / "trial_000" / "log.jsonl").read_bytes() == first
    assert [trial["number"] for trial in report["trials"]] == [0, 2, 3]
    for trial in report["trials"]:
        lines = log.read_lines(folder / f"trial_{trial['number']:03d}" / "log.jsonl")
        assert trial["value"] == max(line["validation_accuracy"] for line in lines) and trial["parameters"]["tau"] == 2
        assert trial["epochs"] == 2 and trial["seconds"] == pytest.approx(sum(line["time"]["seconds"] for line in lines))
    best = report["best"]
    assert best["value"] == max(trial["value"] for trial in report["trials"])
    trained = results.read_json(folder / f"trial_{best['number']:03d}" / "config.json")
    assert results.read_json(folder / "best.json") == trained and trained["method"] == {"name": "spider", **best["parameters"]}
    assert (folder / "search.png").read_bytes()[:4] == b"\x89PNG" and f"| {best['number']} |" in (folder / "search.md").read_text()
    assert results.read_json(folder / "search.json")["costs"]["equivalent_trials"] == 3.0
    with pytest.raises(InputError, match="the study 'fake-spider' has trials of another configuration and space"):
        search.search(tiny.config(epochs=3, **SPIDER), tmp_path, trials=3)


def test_training_that_breaks_down_is_a_pruned_trial_and_the_best_is_the_first_of_the_highest(tmp_path, monkeypatch):
    # Kills: one bad choice that ends the search; its value in the table; the lowest or the last for the best.
    values = iter([None, 0.25, 0.5, 0.5])

    def recorded(config, workdir, *, on_validation, quiet):
        value = next(values)
        if value is None:
            raise guard.NotFinite("the loss became not finite")
        on_validation({"epoch": 2.0, "validation_accuracy": value, "time": {"seconds": 1.0}})
        return loop.Summary(8, 8, value, 1.0, "accuracy")

    monkeypatch.setattr(loop, "train", recorded)
    report = search.search(tiny.config(**SPIDER), tmp_path, trials=4, quiet=True)
    found = [(trial["state"], trial["value"], trial["epochs"]) for trial in report["trials"]]
    assert found == [("pruned", None, 0), *(("complete", value, 2) for value in (0.25, 0.5, 0.5))]
    assert report["best"]["number"] == 2 and "| - | 0 | pruned |" in search_report.markdown(report)
    json.dumps(report)


def test_the_accuracy_under_attack_is_the_value_where_it_selects(tmp_path, monkeypatch):
    # Kills: clean accuracy in its place; a last epoch that may still be pruned.
    def attacked(config, workdir, *, on_validation, quiet):
        for epoch in (1.0, 2.0):
            accuracies = {"validation_accuracy": 0.9, "validation_robust_accuracy": 0.3}
            on_validation({"epoch": epoch, **accuracies, "time": {"seconds": 1.0}})
        return loop.Summary(8, 8, 0.3, 1.0, "accuracy under PGD-2")

    monkeypatch.setattr(loop, "train", attacked)
    reported = []
    objective = search.training(tiny.config(**SPIDER), 3)
    assert objective({"tau": 1.0}, tmp_path, lambda *values, last: reported.append((*values, last))) == 0.3
    assert reported == [(1, 0.3, 1.0, False), (2, 0.3, 1.0, True)]
