"""The suite 'noise': accuracy by hand, every draw once, settings, tables beside the paper's."""

import functools
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.augment.noise import gaussian_noise, uniform_noise
from robustjax.core import example_keys
from robustjax.core.check import InputError
from robustjax.evaluate import noisy, plots, report, run, states, suites
from robustjax.evaluate.load import evaluation_data, load
from robustjax.io import results
from robustjax.train import settings
from tests import tiny
from tests.evaluate.test_noisy import balanced
from tests.evaluate.test_tables import rows_of, run_of

FEW = ("gaussian=0.03,0.2", "uniform=0.3", "repeats=3", "seed=1")


@pytest.fixture(scope="module", autouse=True)
def several_answers():
    """The network of test_noisy.balanced in place of one that has one answer for all images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "load", lambda workdir, **options: balanced(load(workdir, **options)))
        yield


def evaluate(workdir, *more):
    """Returns {name: result} without 'clean'."""
    found = run.evaluate(workdir, suite="noise", noise_settings=(*FEW, *more), quiet=True)
    return {result["name"]: result for result in found[1:]}


@pytest.fixture(scope="module")
def measured(workdir):
    return evaluate(workdir)


@functools.cache
def right_by_hand(workdir, kind, level, seed=1, repeats=3):
    """Returns (24, repeats), in batches of 16 as the run asks for, so that there is one program."""
    loaded = balanced(load(workdir))
    pixels, labels = evaluation_data(loaded.meta).test.fetch(np.arange(24))
    images = jnp.asarray(pixels, jnp.float32) / 255
    classes = jax.jit(lambda images: jnp.argmax(loaded.logits_fn(images), axis=1))
    found = []
    for repeat in range(repeats):
        keys = example_keys(jax.random.fold_in(jax.random.key(seed), repeat), np.arange(24))
        add = {"gaussian": lambda k, x: gaussian_noise(k, x, std=level), "uniform": lambda k, x: uniform_noise(k, x, amplitude=level)}
        added = add[kind](keys, images)
        found.append(np.concatenate([classes(added[:16]), classes(added[8:])[8:]]) == labels)
    return np.stack(found, axis=1)


def test_accuracy_is_the_mean_and_its_deviation_that_of_the_repeats(workdir, measured):
    # Kills: the kinds swapped, levels or seed not passed on, one draw for all repeats, padded rows, deviation over images or of a
    # population, draws by place.
    names = {"noise/gaussian_0.03": ("gaussian", 0.03), "noise/gaussian_0.2": ("gaussian", 0.2), "noise/uniform_0.3": ("uniform", 0.3)}
    assert list(measured) == list(names)
    for name, noise in names.items():
        right, numbers = right_by_hand(workdir, *noise), measured[name]["metrics"]
        by_repeat = right.mean(axis=0)
        mean = by_repeat.mean()
        expected = {"error": 1 - mean, "accuracy": mean, "accuracy_std": np.sqrt(np.sum((by_repeat - mean) ** 2) / 2)}
        assert numbers.keys() == expected.keys()
        np.testing.assert_allclose(list(numbers.values()), list(expected.values()), atol=1e-12)
        np.testing.assert_allclose(measured[name]["accuracy_by_repeat"], by_repeat)
        (path,) = (workdir / "evaluation").glob(f"step*_n24/{name}.json")
        stored = states.read_npz(path.with_suffix(".npz"))
        np.testing.assert_array_equal(stored["right"], right)
        assert stored["ids"].tolist() == list(range(24)) and results.read(path)["n"] == 24
        assert numbers["accuracy_std"] > 0
    assert len({result["metrics"]["accuracy"] for result in measured.values()}) == 3


def test_the_same_images_at_any_batch_size(workdir, measured):
    # Kills: noise by the place in the batch.
    loaded = balanced(load(workdir))
    subject = noisy.subject_of(loaded, evaluation_data(loaded.meta).test, np.arange(24)[::-1].copy())
    subject.batch_size = 7
    counts, _ = noisy.count_right(subject, noisy.Noise("uniform", 0.3), repeats=3, seed=1)
    np.testing.assert_array_equal(counts[::-1], right_by_hand(workdir, "uniform", 0.3).sum(axis=1))


def test_one_repeat_has_no_deviation_and_only_what_changed_is_measured(workdir, measured, monkeypatch):
    # Kills: NaN in a file; a number of other settings; all levels again for one.
    again, real = [], run._attack
    monkeypatch.setattr(run, "_attack", lambda subject, item, *rest, **more: again.append(item.name) or real(subject, item, *rest, **more))
    evaluate(workdir, "gaussian=0.2")
    assert not again
    (one,) = evaluate(workdir, "gaussian=", "repeats=1").values()
    assert again == ["noise/uniform_0.3"]
    assert one["metrics"].keys() == {"error", "accuracy"} and len(one["accuracy_by_repeat"]) == 1
    evaluate(workdir)


def test_a_killed_evaluation_goes_on_inside_a_level(workdir, measured, tmp_path, monkeypatch):
    # Kills: a state that is not saved or not read, a batch that counts twice.
    monkeypatch.setattr(states, "EVERY", 0.0)
    monkeypatch.setattr(states, "SHARE", 0)
    copy, real, calls = tmp_path / "copy", noisy._right, []
    shutil.copytree(workdir, copy, ignore=shutil.ignore_patterns("evaluation"))

    def killed(*arguments, **options):
        calls.append(options)
        if len(calls) == 5:  # in the second of two batches of three repeats
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(noisy, "_right", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(copy, "gaussian=0.2", "uniform=")
    (again,) = evaluate(copy, "gaussian=0.2", "uniform=").values()
    assert len(calls) == 5 + 3 and again["metrics"] == measured["noise/gaussian_0.2"]["metrics"]
    assert not list(copy.glob("evaluation/*/*/*.state.npz"))


def items(change=None, asked=(), **more):
    config = tiny.config(evaluation__noise=change or {}, **more)
    settings.check(config)
    return suites.items("noise", config, (16, 16, 1), suites.Asked(noise=asked))[1:]


@pytest.mark.parametrize(
    ("data", "levels"),
    [("cifar10", (2, 4, 8, 16, 20)), ("svhn_cropped", (5, 10, 20, 36, 42)), ("fake", (10, 30, 40, 60))],
)
def test_levels_are_the_papers(data, levels):
    # Kills: the levels of CIFAR-10 on SVHN; another number of draws than the paper's 10.
    found = items(data__name=data)
    assert [item.name for item in found] == [f"noise/{kind}_{level}_255" for kind in ("gaussian", "uniform") for level in levels]
    assert found[0] == (
        f"noise/gaussian_{levels[0]}_255",
        "noise",
        {"noise": "gaussian", "level": levels[0] / 255, "repeats": 10, "seed": 0},
    )


def test_settings_come_from_the_defaults_the_configuration_and_the_user_in_this_order():
    # Kills: levels left as text; a run's hash, which all of its other results carry, changed by settings of noise.
    own = {"gaussian": (0.03, 0.06), "uniform": (), "repeats": 5}
    assert [(item.name, item.options["repeats"]) for item in items(own)] == [("noise/gaussian_0.03", 5), ("noise/gaussian_0.06", 5)]
    found = items(own, ("gaussian=8/255", "seed=3"))
    assert [item.options for item in found] == [{"noise": "gaussian", "level": 8 / 255, "repeats": 5, "seed": 3}]
    plain = tiny.config()
    del plain["evaluation"]["noise"]
    assert results.comparable(plain) == results.comparable(tiny.config(evaluation__noise=own))


@pytest.mark.parametrize(
    ("change", "asked", "message"),
    [
        ({}, ("gausian=0.1",), "unknown setting of noise 'gausian'; did you mean 'gaussian'"),
        ({}, ("gaussian",), "--noise is written setting=value, e.g. --noise=gaussian=2/255,4/255, got 'gaussian'"),
        ({}, ("gaussian=8",), "the setting gaussian of noise must be levels above 0 and at most 1, in rising order, .* got '8'"),
        ({}, ("uniform=0.2,0.1",), "the setting uniform of noise must be levels .* got '0.2,0.1'"),
        ({}, ("uniform=0,0.1",), "levels above 0"),
        ({}, ("repeats=0",), "the setting repeats of noise must be a whole number of at least 1, got '0'"),
        ({}, ("gaussian=", "uniform="), "the suite noise has no level left to measure"),
        ({"gausian": (0.1,)}, (), r"unknown configuration key 'evaluation\.noise\.gausian'; did you mean 'evaluation\.noise\.gaussian'"),
        ({"gaussian": (0.2, 0.1)}, (), r"config\.evaluation\.noise\.gaussian must be levels above 0 and at most 1, in rising order"),
        ({"uniform": (0.5, 8.0)}, (), r"config\.evaluation\.noise\.uniform must be levels"),
        ({"repeats": 0}, (), r"noise\.repeats must be a whole number of at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused_first(change, asked, message):
    with pytest.raises(InputError, match=message) as caught:
        items(change, asked)
    assert "\n" not in str(caught.value)


def test_settings_that_no_suite_reads_are_refused():
    with pytest.raises(InputError, match="--noise is read by the suite noise, got --suite=pgd"):
        suites.items("pgd", tiny.config(), (16, 16, 1), suites.Asked(noise=("repeats=3",)))


def made_up(folder, error, seed, std=0.003, **changes):
    """Returns a run of CIFAR-10 whose error is `error` on clean images and grows with the level."""
    changes |= {"data__name": "cifar10", "evaluation__noise": {"uniform": (0.06,)}}
    workdir, found = run_of(folder, "noise", lambda item: error + item.options.get("level", 0), seed, **changes)
    for result in found[1:]:
        result["metrics"]["accuracy_std"] = std
    return workdir, found


def test_a_table_by_level_beside_the_papers(tmp_path):
    # Kills: deviations over draws for those over seeds, and the other way round; the paper's numbers in another line or as fractions;
    # kinds in one table; a row of other settings.
    one = made_up(tmp_path / "one", 0.1, 0)
    several = [
        made_up(tmp_path / str(seed), error, seed, method={"name": "gaussian_noise", "std": 0.06}) for seed, error in ((0, 0.2), (1, 0.22))
    ]
    made = report.collect([one, *several], table="discriminative/1")
    paths = report.write(made, tmp_path)
    text = paths[1].read_text()
    table = rows_of(text, "Accuracy % under Gaussian noise, by standard deviation")
    assert table[0] == ["standard deviation", "baseline", "*the paper's*", "gaussian_noise (std 0.06)", "*the paper's*"]
    assert table[1] == ["clean", "90.00", "*92.73*", "79.00 ± 1.41", "*89.64*"]
    assert table[2] == ["2/255", "89.22 ± 0.30", "*92.63 ± 0.09*", "78.22 ± 1.41", "*89.65 ± 0.06*"]
    assert table[5] == ["16/255", "83.73 ± 0.30", "*64.93 ± 0.18*", "72.73 ± 1.41", "*89.81 ± 0.14*"] and len(table) == 7
    assert rows_of(text, "Accuracy % under uniform noise, by amplitude")[2] == ["0.06", "84.00 ± 0.30", "73.00 ± 1.41"]
    assert "over 10 draws for each image, ± the sample standard deviation over the seeds of a method, or over the draws" in text
    assert report.markdown(json.loads(paths[0].read_text()), details=True) == text
    (gaussian, uniform) = plots.figure(made).axes[1:]
    assert [axis.get_title() for axis in (gaussian, uniform)] == ["Gaussian noise, by standard deviation", "uniform noise, by amplitude"]
    np.testing.assert_allclose(gaussian.lines[1].get_ydata()[:2], [79, 79 - 200 / 255])
    band = gaussian.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([band.max(), band.min()], [90, 90 - 2000 / 255 - 0.3], atol=0.35)
    other = made_up(tmp_path / "other", 0.1, 0, method={"name": "spider", "tau": 1.0, "xi": 0.3})
    for result in other[1][1:]:
        result["run"]["item"]["options"]["repeats"] = 3
    with pytest.raises(InputError, match="one table needs the same --suite, --limit, attacks, --geometry and --noise"):
        report.collect([one, other])


@pytest.mark.parametrize("table", ["discriminative/1", "discriminative/2", "discriminative/3"])
def test_the_papers_numbers_are_under_the_names_of_items(table):
    # Kills: levels that the suite never asks for, in which case nothing would stand beside ours.
    known = json.loads((Path(report.__file__).parents[1] / "reference" / "tables.json").read_text())[table]
    (data,) = (name for name, value in known.items() if isinstance(value, dict))
    names = {item.name for item in items(data__name=data) if item.options["noise"] == "gaussian"}
    assert len(known[data]) == 5
    for numbers in known[data].values():
        assert numbers.keys() == names | {f"{name}_std" for name in names} | {"clean_accuracy"}
