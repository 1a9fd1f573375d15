"""Tables of made-up results, whose every number is known."""

import json

import numpy as np
import pytest

from robustjax import corruptions, metrics
from robustjax.core.check import InputError
from robustjax.corruptions.constants import CONSTANTS, EXTRA
from robustjax.evaluate import report, suites
from robustjax.io import results
from tests import tiny


@pytest.fixture(autouse=True)
def all_fifteen(monkeypatch):
    for benchmark in ("cifar_c", "imagenet_c"):
        monkeypatch.setitem(corruptions.NAMES, benchmark, tuple(name for name in CONSTANTS[benchmark] if name not in EXTRA))


def run_of(folder, suite, error, seed=0, shape=(16, 16, 1), notes=(), **changes):
    """Returns (workdir, results) of a run whose errors are error(item)."""
    config = tiny.config(seed=seed, **changes)
    folder.mkdir()
    results.write_json(folder / "config.json", config)
    run = {"checkpoint_step": 8, "data": "made up", "notes": list(notes)}
    found = []
    for item in suites.items(suite, config, shape):
        measured = {"error": error(item), "accuracy": 1 - error(item), "nll_nats": 1.0, "ece_15_bins": 0.1}
        found.append({"name": item.name, "metrics": measured, "n": 24, "run": run | {"item": results.canonical(item._asdict())}})
        found[-1]["environment"] = {"device": "none", "backend": "cpu", "cpus": 1, "jax": "0"}
    return folder, found


def rows_of(text, heading):
    """Returns the cells of the table under a heading."""
    lines = text.split(f"#### {heading}\n\n")[1].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


def test_the_papers_row_is_that_of_the_network_and_in_its_units(tmp_path):
    # Kills: the row of another network; a percentage of a thickness; a deviation or a note lost.
    key = "thickness/label:thickness_0_0.75_per_std_0.2_mean"
    model = {"name": "wide_resnet", "options": {"depth": 40, "width": 1}}
    made = report.collect([run_of(tmp_path / "run", "clean", lambda item: 0.25, model=model)], table="spider/8")
    assert made["reference"]["notes"] and made["reference"]["rows"] == {}  # of the made-up data
    row, of = made["rows"][0], {"pgd_l2_error": 0.7774, key: 0.5}
    row["metrics"] |= {name: {"mean": mean, "std": None, "values": [mean]} for name, mean in of.items()}
    wide = {"clean_accuracy": None, "pgd_l2": 0.9915, "pgd_l2_std": 0.0006, key: 0.1582, f"{key}_std": 0.036}
    made["reference"]["rows"] = {"none": {"pgd_l2": 0.1}, "allconv: none": {"pgd_l2": 0.2}, "wide_resnet_40_1: none": wide}
    lines = report.markdown(made).splitlines()
    assert lines[2] == "| method | clean accuracy % | PGD L2 error % | ECE % | thickness (0, 0.75) |"
    assert lines[4:6] == ["| baseline | 75.00 | 77.74 | 10.00 | 0.5 |", "| *the paper's* |  | *99.15 ± 0.06* |  | *0.1582 ± 0.036* |"]
    made["reference"]["rows"].pop("wide_resnet_40_1: none")
    assert "| *the paper's* |  | *10.00* |  |  |" in report.markdown(made)
    assert f"; {made['reference']['settings']}. {' '.join(made['reference']['notes'])}" in report.markdown(made)


def test_a_folder_without_its_configuration_is_one_line(tmp_path):
    # Kills: an AttributeError of None once everything has been measured.
    folder, found = run_of(tmp_path / "run", "clean", lambda item: 0.1)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="config.json is missing or damaged"):
        report.collect([(folder, found)])


def test_imagenet_c_is_normalised_by_alexnet(tmp_path):
    # Kills: the plain mean under the name of mCE; ratios averaged over severities; clean error not taken away; seeds averaged wrongly.
    alexnet = metrics.corruption_reference("alexnet", benchmark="imagenet_c").errors

    def errors(share):
        # Twice as much at severity 5 as at 3, and nothing at 1: only the sums agree with AlexNet's.
        def error(item):
            if item.kind != "corruption":
                return alexnet["clean"] * share
            return alexnet[item.options["name"]] * share * (item.options["severity"] - 1) / 2

        return error

    imagenet = {"shape": (224, 224, 3), "evaluation__benchmark": "imagenet_c"}
    runs = [run_of(tmp_path / str(seed), "corruptions", errors(share), seed, **imagenet) for seed, share in ((0, 0.25), (1, 0.35))]
    made = report.collect(runs)
    (row,) = made["rows"]
    np.testing.assert_allclose([row["metrics"][name]["mean"] for name in ("normalised_mce", "relative_mce")], 0.3)
    np.testing.assert_allclose(row["metrics"]["mce"]["mean"], 0.3 * 0.7889930666666667)
    text = report.markdown(made, details=True)
    assert "| mCE % (AlexNet: 100) | relative mCE % (AlexNet: 100) | mean corruption error % |" in text
    assert "| 30.00 ± 7.07 | 30.00 ± 7.07 | 23.67 ± 5.58 |" in text
    assert "each of the 15 corruptions" in text and "JPEG of quality 85" in text
    table = rows_of(text, "imagenet_c: CE % by corruption (AlexNet: 100)")
    assert [line[0] for line in table[1:]] == list(corruptions.NAMES["imagenet_c"]) and {line[1] for line in table[1:]} == {"30.00"}
    assert report.markdown(json.loads(json.dumps(made)), details=True) == text
    plain = report.markdown(report.collect([run_of(tmp_path / "plain", "corruptions", errors(0.5))]))
    assert "AlexNet" not in plain and "mean corruption error %" in plain


def test_every_benchmark_has_its_column_and_its_tables(tmp_path):
    # Kills: names that two benchmarks share counted together; severities in another order; a mean over unlike sensors.
    def error(item):
        if item.name == "clean":
            return 0.02
        benchmark = item.options["benchmark"]
        if benchmark == "sensor":
            return 0.6 if item.name == "sensor/occlusion" else 0.5
        base = {"cifar_c": 0.1, "cifar_cbar": 0.2, "mnist_c": 0.3}[benchmark]
        return base + 0.01 * item.options.get("severity", 0) + (0.05 if item.options["name"] == "fog" else 0)

    baseline = run_of(tmp_path / "baseline", "corruptions,cbar,mnist_c,sensor", error)
    spider = run_of(tmp_path / "spider", "corruptions,cbar,mnist_c,sensor", error, method={"name": "spider", "tau": 1.0, "xi": 0.3})
    made = report.collect([baseline, spider])
    numbers = {name: spread["mean"] for name, spread in made["rows"][0]["metrics"].items()}
    assert numbers["mce"] == pytest.approx(0.13 + 0.05 / 15) and numbers["mce_cifar_cbar"] == pytest.approx(0.23)
    assert numbers["mce_mnist_c"] == pytest.approx(0.3 + 0.05 / 15) and numbers["sensor/occlusion"] == 0.6
    paths = report.write(made, tmp_path)
    text = paths[1].read_text()
    assert "| mean corruption error % | mean error % on cifar_cbar | mean error % on mnist_c | gaussian_noise error % |" in text
    assert "occlusion (patches 20, size [3, 2])" in text and "gaussian_noise (std 0.157)" in text
    by_corruption = rows_of(text, "cifar_c: error % by corruption, mean of the severities")
    assert by_corruption[0] == ["corruption", "baseline", "SPIDER (tau 1, xi 0.3)"]
    assert dict(line[:2] for line in by_corruption)["fog"] == "18.00" and by_corruption[-1][:2] == ["**mean**", "13.33"]
    assert [line[:2] for line in rows_of(text, "cifar_cbar: error % by severity, mean of the corruptions")[1:]] == [
        ["clean", "2.00"],
        *([str(severity), f"{20 + severity}.00"] for severity in range(1, 6)),
    ]
    assert rows_of(text, "cifar_c: error % of baseline")[1] == ["gaussian_noise", "11.00", "12.00", "13.00", "14.00", "15.00"]
    assert dict(rows_of(text, "mnist_c: error % by corruption")[1:][i][:2] for i in range(15))["fog"] == "35.00"
    assert paths[2].stat().st_size > 30_000


def test_attacks_beside_their_peers():
    # Kills: ours and theirs swapped, the ratio upside down, one peer's numbers beside another's name.
    def side(seconds, robust, **more):
        known = {"seconds": seconds, "seconds_by_seed": [seconds, 9.0], "robust_accuracy_by_seed": robust, "peak_megabytes": 1500.0}
        return known | {"peak_device_megabytes": None, "environment": {"torch": "2"}} | more

    ours = side(2.0, [0.25, 0.26], first_call_seconds=12.5, environment={"jax": "1", "backend": "cpu", "device": "cpu"})
    packages = {"robustjax": ours, "torchattacks": side(7.0, [0.5, 0.5], peak_megabytes=800.0), "foolbox-jax": side(3.0, [0.2, 0.3])}
    attacks = [{"name": "pgd", "packages": packages, "times_faster": {"torchattacks": 3.5, "foolbox-jax": 1.5}}]
    made = {"attacks": attacks, "images": 256, "batch": 256, "network": "a network", "eps": 8 / 255, "parameters": {"pgd": "20 steps"}}
    text = report.markdown(made | {"device": "cpu", "cpu": "a processor", "threads": 1, "command": "python x.py"})
    assert "| pgd | 2.00 | 12 | 1,500 | 25.50 | torchattacks | 7.00 | 800 | 50.00 | 3.50 |" in text
    assert "| pgd | 2.00 | 12 | 1,500 | 25.50 | foolbox-jax | 3.00 | 1,500 | 25.00 | 1.50 |" in text
    assert "fastest of 2 seeds" in text and "a processor, 1 thread for every package; jax 1, torch 2" in text


def test_rows_say_how_a_run_was_trained(tmp_path):
    # Kills: TRADES and the baseline in one row; best and last in one row; terms of another epoch; a paper's row for another method.
    objectives = {
        "trades": {"name": "trades"},
        "first": {"name": "rat", "order": 1, "eta": 0.3},
        "half": {"name": "rat", "taylor_fraction": 0.5},
        "released": {"name": "rat_released"},
    }
    runs = [run_of(tmp_path / name, "clean", lambda item: 0.25, objective=objective) for name, objective in objectives.items()]
    awp = {"gamma": 1e-2, "warmup_epochs": 10.0, "loss": "base"}
    runs.append(run_of(tmp_path / "awp", "clean", lambda item: 0.2, objective={"name": "madry"}, awp=awp, optimizer__swa_epoch=1))
    lines = [{"step": step, "train_loss": 1.0, "train_accuracy": 0.5, "train_kl": 0.1 * step} for step in (4, 8)]
    (runs[0][0] / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = report.collect([*runs, (*runs[0], "last")])
    assert [(row["method"], row["label"]) for row in made["rows"]] == [
        ("trades", "TRADES, best checkpoint"),
        ("rat_1", "RAT 1st (eta 0.3), best checkpoint"),
        ("rat_2_otherwise", "RAT 1st + 2nd (eta 0.2), taylor fraction 0.5, best checkpoint"),
        ("rat_released", "RAT's released heuristic, best checkpoint"),
        ("madry_awp_swa", "adversarial training + AWP + SWA, best checkpoint"),
        ("trades", "TRADES, last checkpoint"),
    ]
    assert made["rows"][0]["terms"] == {"kl": {"mean": 0.8, "std": None, "values": [0.8]}} and made["rows"][1]["terms"] == {}
    assert "Terms of the training loss in the last epoch before these checkpoints, TRADES, best checkpoint: kl 0.8." in report.markdown(
        made
    )


def test_runs_of_other_copies_are_other_rows(tmp_path):
    # Kills: copies, networks or pictures that lay in one folder after each other averaged as seeds; two rows of one label.
    notes = [("networks of CIFAR-10 (digest 7a551937)",), ("networks of CIFAR-10 (digest 0b5e55ed)",), ()]
    runs = [
        run_of(tmp_path / f"{seed}_{i}", "clean", lambda item: 0.25, seed=seed, notes=note)
        for i, note in enumerate(notes)
        for seed in (i, 3 + i)
    ]
    rows = report.collect(runs)["rows"]
    assert [row["seeds"] for row in rows] == [[0, 3], [1, 4], [2, 5]]
    assert [row["label"] for row in rows] == ["baseline, digest 7a551937", "baseline, digest 0b5e55ed", "baseline"]
    assert [row["label"] for row in report.collect(runs[:2])["rows"]] == ["baseline"]


def test_weights_that_a_seed_began_with_are_no_other_row(tmp_path):
    # Kills: seeds apart since each began with, or is, a file of its own.
    runs = [
        run_of(tmp_path / str(seed), "clean", lambda item: 0.25, seed=seed, init=file, notes=(f"{file} was trained elsewhere",))
        for seed, file in enumerate(("a.pt (sha256 7a55193700000000)", "b.pt (sha256 0b5e55ed00000000)"))
    ]
    (row,) = report.collect(runs)["rows"]
    assert row["seeds"] == [0, 1]


def test_weights_of_a_leaderboard_stand_beside_its_numbers():
    # Kills: numbers of another attack or norm beside ours (rows of both norms have the same names); a number for what was not attacked.
    def found(metric, method="Wu2020Adversarial", table=""):
        return report._printed_elsewhere(table, [{"method": method, "dataset": "cifar10", "metrics": {"clean_accuracy": {}, metric: {}}}])

    linf, l2 = found("autoattack/linf_8_255_robust"), found("autoattack/l2_0.5_robust")
    assert linf["called"] == l2["called"] == "published"
    assert linf["rows"]["Wu2020Adversarial"] == {"clean_accuracy": 0.8536, "autoattack/linf_8_255_robust": 0.5617}
    assert l2["rows"]["Wu2020Adversarial"] == {"clean_accuracy": 0.8851, "autoattack/l2_0.5_robust": 0.7366}
    for nothing in (("mce",), ("autoattack/linf_4_255_robust",), ("autoattack/l2_0.5_robust", "Carmon2019Unlabeled")):
        assert found(*nothing) is None
    assert found("mce", table="robustbench/l2") == l2
    for board in (linf, l2):
        assert all(0 <= value < 1 for row in board["rows"].values() for value in row.values())
