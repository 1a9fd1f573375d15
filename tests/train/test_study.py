"""The queue of trials, with objectives that cost nothing: pruning, kills, several workers, grids. Training is in test_search.py."""

import itertools
import statistics
import sys
import time

import pytest

from robustjax.core.check import InputError
from robustjax.train import study
from robustjax.train.study import Range

SPACE = {"x": Range(0.0, 1.0)}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('storage')}/study.db"


@pytest.fixture
def found(url, request):
    with study.opened(url, request.node.name) as made:
        yield made


def work(found, objective, folder, *, trials=3, space=SPACE, **options):
    study.work(found, objective, folder, space=space, trials=trials, seed=0, **options)


def square(parameters, folder, report):
    report(1, parameters["x"] ** 2, 2.0, last=True)
    return parameters["x"] ** 2


def told(found):
    return [(trial.number, trial.state.name, trial.value) for trial in study.finished(found)]


def test_trials_are_stored_with_what_they_took(found, tmp_path):
    # Kills: epochs or seconds that stay behind; a trial too many; one draw for all.
    work(found, square, tmp_path)
    trials = study.finished(found)
    assert [trial.number for trial in trials] == [0, 1, 2] and len({trial.params["x"] for trial in trials}) == 3
    assert all(trial.value == trial.params["x"] ** 2 and 0 <= trial.params["x"] <= 1 for trial in trials)
    assert [(trial.user_attrs["epochs"], trial.user_attrs["seconds"]) for trial in trials] == [(1, 2.0)] * 3
    work(found, square, tmp_path, trials=4)
    assert len(study.finished(found)) == 4 and list((tmp_path / "workers").iterdir()) == []


def test_an_epoch_reported_again_counts_once(found, tmp_path):
    # Kills: seconds counted twice, or a warning, for a log line whose checkpoint a kill has cut off.
    def objective(parameters, folder, report):
        report(1, 0.5, 2.0, last=False)
        report(1, 0.5, 3.0, last=False)
        return square({"x": 0.5}, folder, report)

    work(found, objective, tmp_path, trials=1)
    assert study.finished(found)[0].user_attrs["seconds"] == 2.0


def test_parameters_follow_from_seed_number_and_values(found, url, tmp_path):
    # Kills: a sampler that starts anew in each process, or depends on it.
    for trials in (1, 11):
        work(found, square, tmp_path / "a", trials=trials)
    with study.opened(url, "another") as other:
        work(other, square, tmp_path / "b", trials=11)
        assert [trial.params for trial in study.finished(other)] == [trial.params for trial in study.finished(found)]


@pytest.mark.parametrize("prune", [True, False])
def test_the_decision_to_prune_is_the_median_s(url, tmp_path, prune):
    # Kills: pruning by the mean, by values of another epoch, of pruned trials, in the first five, or after the last epoch.
    epochs, curves = 4, [[0.1, 0.2, 0.3, 0.4], [0.9, 0.2, 0.2, 0.1], [0.2, 0.3, 0.4, 0.5], [0.3, 0.4, 0.5, 0.6], [0.2, 0.5, 0.6, 0.7]]
    curves += [[0.19, 1.0, 1.0, 1.0], [0.21, 0.29, 1.0, 1.0], [0.3, 0.4, 0.5, 0.5], [0.45, 0.1, 0.1, 0.1], [0.3, 0.3, 0.38, 1.0]]
    lengths, whole = [], []
    for index, curve in enumerate(curves):
        length = epochs
        if prune and index >= 5:
            behind = (n for n in range(1, epochs) if max(curve[:n]) < statistics.median(one[n - 1] for one in whole))
            length = next(behind, epochs)
        lengths.append(length)
        whole += [curve] if length == epochs else []

    def objective(parameters, folder, report):
        curve = curves[int(folder.name.removeprefix("trial_"))]
        for epoch, value in enumerate(curve, 1):
            report(epoch, value, 1.0, last=epoch == epochs)
        return max(curve)

    with study.opened(url, f"prune {prune}", prune=prune) as found:
        work(found, objective, tmp_path, trials=len(curves))
        trials = study.finished(found)
    assert [trial.user_attrs["epochs"] for trial in trials] == lengths
    assert [trial.state.name for trial in trials] == ["COMPLETE" if length == epochs else "PRUNED" for length in lengths]
    if prune:
        assert lengths[5:] == [1, 2, 4, 4, 3]  # the curves are such that every case is there


def test_a_killed_trial_goes_on_with_its_parameters_and_its_folder(found, tmp_path, monkeypatch, capsys):
    # Kills: a finished trial that is lost or run again; new parameters; a run that begins anew; its folder lost by a second kill, which
    # comes here before the trial has drawn its parameters and moved the folder.
    calls = []

    def killed(folder, trial):
        raise KeyboardInterrupt

    def objective(parameters, folder, report):
        calls.append(parameters["x"])
        folder.mkdir(exist_ok=True)
        with open(folder / "log", "a") as file:
            file.write("epoch\n")
        if len(calls) == 2:
            raise KeyboardInterrupt
        return square(parameters, folder, report)

    with pytest.raises(KeyboardInterrupt):
        work(found, objective, tmp_path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(study, "_place", killed)
        work(found, objective, tmp_path)
    first = told(found)
    assert first == [(0, "COMPLETE", calls[0] ** 2)]
    work(found, objective, tmp_path)
    assert told(found) == [*first, (3, "COMPLETE", calls[1] ** 2), (4, "COMPLETE", calls[3] ** 2)]
    assert calls[1] == calls[2] and len(set(calls)) == 3
    assert sorted(path.name for path in tmp_path.glob("trial_*")) == ["trial_000", "trial_003", "trial_004"]
    assert (tmp_path / "trial_003" / "log").read_text() == 2 * "epoch\n"
    assert "trial 1 was interrupted" in capsys.readouterr().err


def test_two_workers_share_the_trials(found, url, tmp_path):
    # Kills: a running trial taken for a dead one; the same draw in both; one trial too many. The second works while the first is at trial 0.
    def second(parameters, folder, report):
        return square(parameters, folder, report)

    def first(parameters, folder, report):
        with study.opened(url, found.study_name) as again:
            work(again, second, tmp_path)
            assert [number for number, *_ in told(again)] == [1, 2]
        return square(parameters, folder, report)

    work(found, first, tmp_path)
    assert [number for number, *_ in told(found)] == [0, 1, 2] and len({value for *_, value in told(found)}) == 3


@pytest.mark.parametrize(("space", "trials", "grid"), [(SPACE, 1, False), ({"x": (0.5,)}, 2, True)], ids=["tpe", "grid"])
def test_of_trials_begun_at_the_same_moment_the_later_gives_way(found, tmp_path, monkeypatch, space, trials, grid):
    # Kills: one trial too many; a point beside the grid. Between a worker's count and its question another one asks.
    ask = found.ask

    def late():
        monkeypatch.setattr(found, "ask", ask)
        found.ask().set_user_attr("seen", time.time())
        return ask()

    monkeypatch.setattr(found, "ask", late)
    work(found, square, tmp_path, trials=trials, space=space, grid=grid)
    assert told(found) == [] and [trial.state.name for trial in found.trials] == ["RUNNING", "FAIL"]


@pytest.mark.parametrize(("ago", "taken"), [(0.5, False), (2.0, True)])
def test_a_worker_on_another_machine_is_gone_when_it_was_not_seen_for_long(found, tmp_path, ago, taken):
    # Kills: trials of other machines taken away, or kept for ever; a lock asked for where the folder is another machine's.
    trial = found.ask()
    x = trial.suggest_float("x", 0.0, 1.0)
    trial.set_user_attr("worker", {"machine": "another", "name": ""})
    trial.set_user_attr("seen", time.time() - ago * study.GRACE)
    work(found, square, tmp_path, trials=2)
    assert (0 in [number for number, *_ in told(found)]) is False
    assert (x**2 in [value for *_, value in told(found)]) is taken


def test_signs_of_life_are_written_while_a_trial_runs(found, tmp_path, monkeypatch):
    # Kills: a trial of many hours that others take for dead.
    monkeypatch.setattr(study, "BEAT", 0.01)

    def objective(parameters, folder, report):
        def seen():
            return found.get_trials(deepcopy=False)[0].user_attrs["seen"]

        before, until = seen(), time.monotonic() + 10
        while seen() == before and time.monotonic() < until:
            time.sleep(0.01)
        assert seen() > before
        return square(parameters, folder, report)

    work(found, objective, tmp_path, trials=1)
    assert len(told(found)) == 1


def test_a_trial_that_another_worker_has_taken_is_left_to_it(found, tmp_path, capsys):
    # Kills: a traceback at the first report; two results for one trial.
    failed = study.optuna().trial.TrialState.FAIL

    def objective(parameters, folder, report):
        if folder.name == "trial_000":
            found.tell(0, state=failed)
        return square(parameters, folder, report)

    work(found, objective, tmp_path, trials=2)
    assert [number for number, *_ in told(found)] == [1, 2]
    assert "trial 0 was not seen for 10 minutes" in capsys.readouterr().err


def test_a_grid_is_every_point_once(found, url, tmp_path):
    # Kills: points twice after a kill, by a second worker, or queued by both; points left out.
    space, calls = {"x": (0.0, 0.5, 1.0), "y": (1.0, 2.0)}, []
    for _ in range(2):
        found.enqueue_trial({"x": 0.0, "y": 1.0}, user_attrs={"parameters": {"x": 0.0, "y": 1.0}})

    def second(parameters, folder, report):
        calls.append(tuple(parameters.values()))
        return square(parameters, folder, report)

    def first(parameters, folder, report):
        if len(calls) == 3:
            raise KeyboardInterrupt
        if not calls:
            with study.opened(url, found.study_name) as again:
                work(again, second, tmp_path, trials=2, space=space, grid=True)
        return second(parameters, folder, report)

    with pytest.raises(KeyboardInterrupt):
        work(found, first, tmp_path, trials=6, space=space, grid=True)
    work(found, second, tmp_path, trials=6, space=space, grid=True)
    assert sorted(tuple(trial.params.values()) for trial in study.finished(found)) == list(itertools.product(*space.values()))
    count = len(found.trials)
    work(found, second, tmp_path, trials=9, space=space, grid=True)
    assert len(study.finished(found)) == 6 and len(found.trials) == count
    with pytest.raises(InputError, match="a grid is made of values, and x has a range: give some, e.g. --space=x=0,1"):
        study.points(SPACE)


def test_a_study_of_something_else_is_refused_once_it_has_results(found, tmp_path):
    # Kills: trials of two configurations in one table; a first mistake that blocks its own mending.
    study.claim(found, {"configuration": 1, "space": [0]})
    study.claim(found, {"configuration": 2, "space": [0]})
    work(found, square, tmp_path, trials=1)
    study.claim(found, {"configuration": 2, "space": [0]})
    with pytest.raises(
        InputError, match="the study 'test_a_study.*' has trials of another configuration; choose another --name, or another --workdir"
    ):
        study.claim(found, {"configuration": 3, "space": [0]})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("study.db", "--study is the URL of a database, e.g. sqlite:///study.db .*, got 'study.db'"),
        ("nosuch://user:secret@host/x", "cannot open the study 'test' of --study=nosuch://...: "),
        ("sqlite:///{tmp}/none/study.db", "unable to open database file"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_one_line(tmp_path, monkeypatch, wrong, message):
    # Kills: tracebacks; a password on the screen.
    monkeypatch.setattr(study.time, "sleep", lambda seconds: None)
    with pytest.raises(InputError, match=message) as caught, study.opened(wrong.format(tmp=tmp_path), "test"):
        pass
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_without_optuna_it_says_how_to_install_it(url, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'robustjax\[tune\]'"), study.opened(url, "test"):
        pass
