"""Tables and sweeps: every row of the papers has its runs, runs have folders of their own, and the launchers do what is missing, once."""

import doctest
import json
import re
import shlex
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from configs.tables import NOT_RUNNABLE, SWEEPS, TABLES
from launch import compare, cost, curves, jobs, plan
from robustjax.core.check import InputError
from robustjax.evaluate import labels, suites
from tests.launch import commands

REFERENCE = plan.reference()
PENALTIES = ("l1", "l2")  # are in the names that labels give
SHAPES = {"mnist": (28, 28, 1), "digits": (16, 16, 1), "tiny_imagenet": (64, 64, 3), "imagenet2012": (224, 224, 3)}
OPTIONS = {"lr": ("optimizer", "lr"), "weight_decay": ("optimizer", "weight_decay")}


def settings(scale="full", seeds=1, **changes) -> plan.Settings:
    return plan.Settings(Path("runs"), scale, seeds, **changes)


def cells(name: str, asked: plan.Settings, datasets=()) -> list[plan.Cell]:
    table = plan.table(name)
    found = plan.datasets(table.files, datasets, asked.scale, REFERENCE[name])
    return [plan.cell(row, data, table.files[data], how, table, asked) for data in found for row, how in table.rows.items()]


def folders(found: list[plan.Cell]) -> dict[str, str]:
    return {f"{one.data}: {one.row}": str(one.runs[0].folder) for one in found}


def printed(name: str) -> set[tuple[str, str]]:
    """Returns (data set, row) of what a table of the papers prints of its own."""
    quoted = REFERENCE[name].get("quoted", ())
    return {(data, row) for data, rows in REFERENCE[name].items() if isinstance(rows, Mapping) for row in rows if row not in quoted}


@pytest.mark.parametrize("name", REFERENCE)
def test_every_row_is_run_or_said_not_to_be(name):
    # Kills: a row of a paper that nothing trains; a row or data set under a name that the paper's numbers do not have.
    assert (name in TABLES) != (name in NOT_RUNNABLE)
    if name in TABLES:
        table = TABLES[name]
        mapped = {(data, row) for data in table.files for row in table.rows}
        assert printed(name) <= mapped
        assert {row for _, row in printed(name)} == set(table.rows)


def _means(config: dict, name: str) -> str:
    """Returns what a row's name would have to be, given what its runs train."""
    kind, _, said = name.rpartition(": ")
    options = said.split(", ")[1:]
    objective = config["objective"]
    found = labels.trained_by(config)[0].replace("_otherwise", "") if options else labels.trained_by(config)[0]
    for option in options:
        key = option.split()[0]
        if key in PENALTIES:
            continue
        section, key = OPTIONS.get(key, ("objective", key))
        found += f", {option.split()[0]} {config[section][key]:g}"
    if "eta" in objective and name.startswith("rat") and options:
        found = f"rat_{objective['order']}, eta {objective['eta']:g}"
    model = config["model"]["name"] + "".join(f"_{value}" for value in config["model"]["options"].values())
    return (f"{model}: " if kind else "") + found


@pytest.mark.parametrize("name", TABLES)
def test_rows_train_what_their_names_say(name):
    # Kills: two rows that are exchanged, a wrong network, rate, eta or weight, copies that are left out.
    table = TABLES[name]
    for one in cells(name, settings()):
        if name == "discriminative/5" or (one.data, one.row) not in printed(name):
            continue
        config = one.runs[0].config
        assert _means(config, one.row) == one.row, (one.data, one.row)
        assert not {",", " "} & set(one.runs[0].folder.name)
        assert config["data"]["name"] == one.data
        assert ("deepaugment" in one.row) == bool(one.runs[0].copies) == ("--config.data.copies=" in " ".join(one.runs[0].train))
    for row, how in table.rows.items() if name == "discriminative/5" else ():
        config = plan.run("discriminative/cifar10", how, 0, settings()).config
        named = {key: float(value) for key, value in (part.split() for part in row.split(", ")[1:])}
        assert {key: config["objective"][key] for key in named} == named


@pytest.mark.parametrize("name", [name for name, table in TABLES.items() if table.suite != plan.SEARCH])
def test_the_suites_measure_what_the_papers_print(name):
    # Kills: a suite, threat or setting whose numbers stand under other names than the paper's.
    for one in cells(name, settings()):
        config = one.runs[0].config
        asked = {part.partition("=")[0]: part.partition("=")[2] for part in one.evaluations[0].command[2:]}
        given = suites.Asked(
            threats=tuple(filter(None, [asked.get("--threat", "")])),
            surrogates=({"surrogate": one.surrogate.folder.name},) if one.surrogate else (),
            geometry=tuple(filter(None, [asked.get("--geometry", "")])),
        )
        items = suites.items(asked["--suite"], config, SHAPES.get(one.data, (32, 32, 3)), given)
        known = {"clean_accuracy", *(["mce"] if any(item.kind == "corruption" for item in items) else [])}
        known |= {"normalised_mce"} if suites.reference_of(config) else set()
        for item in items:
            known |= {item.name.removeprefix("attack/"), item.name if item.kind == "noise" else f"{item.name}_robust"}
            known |= {f"{item.name}:thickness_{low:g}_{high:g}_per_std_0.2_mean" for low, high in item.options.get("intervals", ())}
        known = {compare._printed(metric, one.surrogate) for metric in known}
        assert {metric for metric in REFERENCE[name].get(one.data, {}).get(one.row, {}) if not metric.endswith("_std")} <= known


def test_runs_are_shared_by_tables_and_have_folders_of_their_own():
    # Kills: folders by table; a setting that two trainings differ in and their folders do not; seeds that overwrite each other.
    third = folders(cells("spider/3", settings()))
    assert len(set(third.values())) == len(third) == 24
    assert {one.data for one in cells("spider/8", settings())} == {"cifar100"} and len(cells("spider/8", settings())) == 24
    for name in ("spider/1", "spider/4", "spider/6"):
        shared = folders(cells(name, settings()))
        assert all(third[key] == shared[key] for key in third.keys() & shared.keys()) and len(set(shared.values())) == len(shared)
        assert third.keys() & shared.keys()
    one = cells("spider/3", settings(seeds=2), ["cifar10"])[1]
    first, second = one.runs
    assert str(second.folder) == str(first.folder).replace("seed0", "seed1") and third["cifar10: spider"] == str(first.folder)
    others = [
        settings("short"),
        settings("quick"),
        settings(overrides={"compute_dtype": "bfloat16"}),
        settings(overrides={"batch_size": 64}),
    ]
    found = [str(cells("spider/3", asked, ["cifar10"])[1].runs[0].folder) for asked in others]
    assert len({*found, str(first.folder)}) == 5
    elsewhere = cells("spider/3", settings(data_dir="/data"), ["cifar10"])[1]
    assert "--config.data.dir=/data" in elsewhere.runs[0].train and "--data_dir=/data" in elsewhere.evaluations[0].command
    assert (elsewhere.runs[0].folder, elsewhere.evaluations[0].done) == (first.folder, one.evaluations[0].done)


def test_what_is_not_as_usual_has_a_table_of_its_own_that_says_so(tmp_path):
    # Kills: a trial of two rows with other epochs in the place of the paper's table, and nothing in it that tells them apart.
    genuine = plan.report_folder("tables", "spider/3", settings(seeds=3), rows=(), data=())
    assert str(genuine) == "runs/tables/spider_3_full" and plan.unusual(["a"], ["a"]) == () != plan.unusual(["a"], ["a", "b"])
    changed = [settings(seeds=3, overrides={"epochs": epochs}) for epochs in (1, 2)] + [settings(seeds=1), settings("short")]
    others = [plan.report_folder("tables", "spider/3", one) for one in changed]
    others += [plan.report_folder("tables", "spider/3", settings(seeds=3), **part) for part in ({"rows": ["none"]}, {"data": ["none"]})]
    assert len({genuine, *others}) == 7
    asked = settings(overrides={"epochs": 1, "optimizer.lr": 0.2})
    made = [compare.gathered("rat/2", "full", [], REFERENCE["rat/2"], notes=asked.changed)]
    made.append(curves.gathered("rat/1", SWEEPS["rat/1"], "full", [], REFERENCE["rat/1"], notes=asked.changed))
    for report, text in zip(made, (compare.markdown(made[0]), curves.markdown(made[1])), strict=True):
        assert compare.remarks(report) == ["settings changed: epochs=1, optimizer.lr=0.2"]
        assert "**settings changed: epochs=1, optimizer.lr=0.2**" in text
    assert settings().changed == []


def test_every_sweep_expands_to_runs_of_their_own():
    # Kills: points that do not move; a smoothing other than the figure's; lines of other networks than the tables'.
    for name, sweep in SWEEPS.items():
        for data in sweep.files:
            lines = curves.expand(sweep, [data], settings())
            for line in lines:
                assert len({cell.runs[0].folder for cell in line.cells.values()}) == len(line.cells), name
            kinds = [line.kind for line in lines]
            assert kinds.count("baseline") == bool(sweep.baseline) and kinds.count("radii") == len(sweep.radii.get(data, ()))
            assert set(sweep.printed) <= {line.label for line in lines} or not sweep.paper
    five = curves.expand(SWEEPS["spider/fig5"], ["cifar100"], settings())[0]
    options = [cell.runs[0].config["method"] for cell in five.cells.values()]
    assert [option["tau"] for option in options] == list(five.cells) and {option["xi"] for option in options} == {0.49}
    three = curves.expand(SWEEPS["esp/fig3"], ["cifar100"], settings("quick"))
    assert [line.label for line in three] == ["gamma = 20", "gamma = 50", "gamma = 100", "baseline"] and len(three[0].cells) == 3
    assert all(cell.runs[0].config["method"]["tau"] == x for x, cell in three[0].cells.items())
    assert {one.runs[0].folder for one in cells("rat/1", settings())} == {
        cell.runs[0].folder for line in curves.expand(SWEEPS["rat/1"], ["cifar10"], settings()) for cell in line.cells.values()
    }
    assert all(row in REFERENCE["discriminative/5"]["cifar10"] for row in SWEEPS["discriminative/5"].printed["accuracy"].values())


def test_the_short_scale_moves_what_happens_at_epochs():
    # Kills: a tenth of the epochs whose rate never falls; AWP that begins behind the end.
    run = plan.run("rat/cifar10", TABLES["rat/2"].rows["trades_awp"], 0, settings("short"))
    assert (run.config["epochs"], run.config["schedule"]["boundaries"], run.config["awp"]["warmup_epochs"]) == (20, (10, 15), 1.0)
    assert {"--config.epochs=20", "--config.schedule.boundaries=(10, 15)", "--config.awp.warmup_epochs=1.0"} <= set(run.train)


def test_jobs_come_once_and_in_order():
    # Kills: copies or surrogates that are made for each run, or after it; a second seed before the first of other rows.
    listed = plan.jobs(cells("spider/3", settings(seeds=2), ["cifar10"]))
    names = [job.name for job in listed]
    copies = [name for name in names if name.startswith("copies")]
    assert len(names) == len(set(names)) == 17 and names[:1] == copies == [job.needs[0] for job in listed if job.needs][:1]
    assert sum(job.needs == tuple(copies) for job in listed) == 4
    assert [name[-5:] for name in names[1:]] == ["seed0"] * 8 + ["seed1"] * 8
    assert all(len(job.steps) == 2 for job in listed[1:])
    surrogate, *others = plan.jobs(cells("rat/4", settings(), ["cifar10"]))
    assert "method=madry" in " ".join(surrogate.steps[0].command) and all(job.needs == (surrogate.name,) for job in others)
    assert f"--surrogate={surrogate.folder}" in others[0].steps[1].command
    search = next(job for job in plan.jobs(cells("spider/7", settings("quick"))) if job.name.startswith("search"))
    assert search.steps[0].command[1] == "launch/tune.py" and "--trials=3" in search.steps[0].command
    quick = cells("rat/1", settings("quick"))[0]
    assert "--suite=attacks" in quick.evaluations[0].command  # AutoAttack takes longer than all the rest
    files = cells("spider/3", settings(corrupted={"cifar10": "/files"}), ["cifar10"])[0].evaluations[0]
    assert "--corrupted_dir=/files" in files.command and files.done != cells("spider/3", settings(), ["cifar10"])[0].evaluations[0].done


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: plan.table("spider/33"), "unknown table 'spider/33'; did you mean 'spider/3'"),
        (lambda: plan.rows(["none", "spyder"], ["none", "spider"]), "unknown row 'spyder'; did you mean 'spider'"),
        (lambda: plan.datasets({"cifar10": ""}, ["cifar100"], "full", ()), "unknown data set 'cifar100'; did you mean 'cifar10'"),
        (lambda: plan.sweep("esp/fig5"), "unknown sweep 'esp/fig5'"),
        (lambda: cells("spider/3", settings(overrides={"epoch": 2})), "configs/spider/cifar10.py cannot be changed"),
        (lambda: cells("spider/3", settings(overrides={"method.tau": 2.0})), 'Key "tau" does not exist'),  # of the row 'none'
        (lambda: cells("spider/3", settings(overrides={"seed": 7})), "--override=seed=... cannot be: --seeds says how many"),
        (lambda: cells("rat/2", settings(overrides={"evaluation.noise.repeats": 2})), "launch/evaluate.py --noise"),
        (lambda: cells("rat/2", settings(overrides={"evaluation.geometry": {}})), "launch/evaluate.py --geometry"),
        (lambda: cells("rat/2", settings(overrides={"data.dir": "/data"})), "give --data_dir"),
        (lambda: plan.placed(str(jobs.ROOT / "results" / "x")), "lies in results/, which holds numbers that are reported"),
    ],
)
def test_what_is_wrong_is_named(make, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make()


@pytest.mark.parametrize("module", [plan, compare])
def test_examples_of_docstrings(module):
    # They stand outside the folders that pytest looks into.
    ran = doctest.testmod(module)
    assert ran.attempted > 0 and ran.failed == 0


def test_costs_are_counted():
    # Kills: a table of another network; passes that are not those of the heads of configs/rat; runs that are counted twice.
    import jax
    import jax.numpy as jnp

    from robustjax import models

    apply, params, stats = models.split(models.make("wide_resnet", num_classes=10, image_shape=(32, 32, 3), depth=40, width=1))
    lowered = jax.jit(lambda x: apply(params, stats, x, False)[0].logits).lower(jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    assert lowered.cost_analysis()["flops"] == pytest.approx(cost.FORWARD["wide_resnet (depth 40, width 1)"][1], rel=1e-3)
    rat = {row: cost.passes(plan.run("rat/cifar10", how, 0, settings()).config) for row, how in TABLES["rat/2"].rows.items()}
    assert rat == {"trades": 27, "rat_1": 37, "rat_2": 47, "trades_awp": 33, "rat_1_awp": 43, "rat_2_awp": 53}
    plain, mixed = (
        cost.passes(plan.run("spider/cifar10", TABLES["spider/3"].rows[row], 0, settings()).config) for row in ("none", "augmix")
    )
    assert (plain, mixed) == (3, 9)
    (one, *_), base = cells("spider/4", settings(), ["cifar10"]), 5.967e8
    black_box = cells("rat/4", settings(), ["cifar10"])[0]
    assert cost.total([black_box])[0] > cost.total([black_box._replace(surrogate=None)])[0]
    assert cost.total([one, one]) == (base * (400 * 40_000 * 3 + 400 * 10_000 + 10_000), 0)
    sources = {f"results/benchmark_{name}.json" for name in ("cpu", "adversarial_gpu", "training_cpu")}
    assert {rate.source for rate in cost.rates()} >= sources
    lines = cost.described(1e18, [one])
    (cpu,) = (line for line in lines if "2 CPU cores" in line)  # by the network itself, in place of another one
    assert "that wide_resnet (depth 40, width 2) was trained with (results/benchmark_training_cpu.json)" in cpu
    assert len(lines) > 1 and all(
        re.fullmatch(r"about [\d,.]+ h on .*, at the .* TFLOP/s that .* \(results/benchmark\w*\.json\)", line) for line in lines
    )
    for of in (*TABLES.values(), *SWEEPS.values()):  # no suite without a number
        assert of.suite == plan.SEARCH or cost.evaluation(one.runs[0], of.suite) > 0


def report_of(folder: Path, metrics: dict, device: str = "d", **more) -> None:
    row = {"label": "ours", "n": 16, "sources": {"cifar_c": "generated"}, **more}
    row["metrics"] = {name: {"mean": value} for name, value in metrics.items()}
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(
        json.dumps(
            {"rows": [row], "notes": [], "data": ["made up"], "environment": {"device": device, "backend": "b", "cpus": 1, "jax": "1"}}
        )
    )


def test_ours_stand_beside_the_papers(tmp_path):
    # Kills: a mean over the wrong runs; a difference with the wrong sign; rows that are quoted and run; errors printed as accuracies.
    asked = plan.Settings(tmp_path, "full", 2)
    found = cells("rat/2", asked, ["cifar10"])
    for accuracy, error, step in zip((0.8, 0.9), (0.5, 0.4), found[0].evaluations, strict=True):
        numbers = {"clean_accuracy": accuracy, "pgd20_linf_error": error, "autoattack/linf_8_255_robust": 0.5}
        report_of(step.done.parent, numbers, device=f"d{accuracy}")
    report_of(found[1].evaluations[0].done.parent, {"clean_accuracy": 0.5}, device="d0.8")
    failures = [jobs.Failure("cifar10/x", "no reason", Path("log.txt")), jobs.Failure("cifar10/y", "gone", None, True)]
    report = compare.gathered("rat/2", "full", found, REFERENCE["rat/2"], failures=failures, command="c")
    first, second, *_ = report["data"]["cifar10"]["rows"]
    assert first["row"] == "trades" and first["ours"]["clean_accuracy"]["mean"] == pytest.approx(0.85)
    assert first["ours"]["clean_accuracy"]["std"] == pytest.approx(0.1 / 2**0.5) and second["ours"]["clean_accuracy"]["std"] is None
    text = compare.markdown(report)
    assert (
        "| trades; ours | 85.00 ± 7.07 | *84.65* | +0.35 | 45.00 ± 7.07 | *43.32* | +1.68 | - | *45.51* | - | 50.00 ± 0.00 | *53.00* | -3.00 |"
        in text
    )
    assert "Hardware: d0.8 (b, 1 CPU cores), jax 1; d0.9 (b, 1 CPU cores), jax 1.  \n" in text
    assert "| rat_2; 0 of 2 seeds | - | *85.98* | - |" in text and "| wide_resnet_34_20: Rice et al. (2020) (printed) | - |" in text
    assert "Ours are of 16 test images of made up; corrupted images of cifar_c: generated;" in text
    assert (
        "Failed: cifar10/x: no reason; see log.txt.  \nStopped: cifar10/y: gone.  \n" in text
        and "AutoAttack L-inf 8/255: accuracy %" in text
    )
    for path in compare.write(report, tmp_path / "out"):
        assert path.stat().st_size > 0
    found = cells("rat/4", asked, ["cifar10"])
    report_of(
        found[0].evaluations[0].done.parent,
        {"clean_accuracy": 0.8, f"transfer/{found[0].surrogate.folder.name}/pgd20_linf_8_255_robust": 0.6},
    )
    assert compare.measured(found[0])[0]["transfer/madry/pgd20_linf_8_255_robust"]["mean"] == 0.6


def test_a_sweep_is_a_table_and_a_figure(tmp_path):
    # Kills: points of another line; the paper's numbers at the wrong points; a baseline that is left out.
    sweep, asked = SWEEPS["rat/1"], plan.Settings(tmp_path, "full", 1)
    lines = curves.expand(sweep, ["cifar10"], asked)
    report_of(lines[1].cells[0.2].evaluations[0].done.parent, {"clean_accuracy": 0.85, "pgd20_linf_error": 0.46})
    report = curves.gathered("rat/1", sweep, "full", lines, REFERENCE["rat/1"])
    text = curves.markdown(report)
    assert "| 1st + 2nd | 0.2 | 85.00 | *84.13* | +0.87 | 46.00 | *45.09* | +0.91 | - | *47.47* | - | - | *50.30* | - |" in text
    assert "| 1st | 0.3 | - | *83.96* | - |" in text and "Hardware: d (b, 1 CPU cores), jax 1.  \n" in text
    four = curves.expand(SWEEPS["esp/fig4"], ["digits"], asked)
    flat = next(line for line in four if line.kind == "radii" and line.label == "ESP")
    geometry = {"flatness/norm": {"kind": "flatness", "options": {"of": "norm", "radii": [0.1]}}}
    losses = {"clean_accuracy": 0.5, "flatness/norm:loss_at_0": 0.25, "flatness/norm:loss_at_0.1_of_norm_mean": 2.5}
    report_of(flat.cells["ESP"].evaluations[0].done.parent, losses, geometry=geometry)
    report_of(four[0].cells["AugMix"].evaluations[0].done.parent, {"clean_accuracy": 0.5, "mce": 0.3})
    made = curves.gathered("esp/fig4", SWEEPS["esp/fig4"], "short", four, {})
    assert "| ESP | AugMix | 30.00 |" in curves.markdown(made) and "| ESP | 0.25 | 2.5 |" in curves.markdown(made)
    for path in (*curves.write(report, tmp_path / "a"), *curves.write(made, tmp_path / "b")):
        assert path.stat().st_size > 0


def test_a_dry_run_prints_commands_and_computes_nothing(tmp_path):
    # Kills: a dry run that writes, or asks for a device: this backend does not exist.
    done = commands.run(
        "reproduce",
        "--table=spider/3",
        "--data=cifar10",
        "--rows=none,deepaugment",
        "--dry_run",
        f"--workdir={tmp_path}/new",
        JAX_PLATFORMS="nowhere",
    )
    assert done.returncode == 0, done.stderr
    printed_commands = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("  python launch/")]
    assert [command[1] for command in printed_commands] == ["launch/deepaugment.py", *["launch/train.py", "launch/evaluate.py"] * 6]
    assert "\n7 jobs, 0 of them done" in done.stdout
    assert "Estimate of what is missing: " in done.stdout and "(results/benchmark_" in done.stdout
    assert not (tmp_path / "new").exists()


QUICK = (
    *("--scale=quick", "--data=digits", "--override=data.limit_train=128", "--override=data.limit_test=16"),
    *("--override=epochs=1", "--override=model.options.width=4"),
)


@pytest.mark.timeout(600)
def test_a_killed_table_goes_on_and_trains_nothing_twice(tmp_path):
    # Kills: a run that is trained again; a table without its rows; a quick table that does not say so; a failure that ends the others.
    arguments = ("--table=spider/4", "--rows=none,spider", f"--workdir={tmp_path}", *QUICK)
    process = commands.start("reproduce", *arguments)
    while process.poll() is None and len(list(tmp_path.glob("digits/*/config.json"))) < 2:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    (first,) = tmp_path.glob("digits/none_*/")
    kept = {path: path.stat().st_mtime_ns for path in (first / "log.jsonl", first / "training.json", *first.glob("reports/*/report.json"))}
    assert len(kept) == 3
    done = commands.run("reproduce", *arguments)
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    trained = [(folder / "log.txt").read_text().count("$ python launch/train.py") for folder in sorted(tmp_path.glob("digits/*/"))]
    assert trained == [1, 1]
    (folder,) = tmp_path.glob("tables/spider_4_quick_*/")
    report = json.loads((folder / "report.json").read_text())
    assert [(row["row"], row["done"]) for row in report["data"]["digits"]["rows"]] == [("none", 1), ("spider", 1)]
    assert (
        report["notes"][0].startswith("settings changed: data.limit_train=128, ")
        and report["notes"][0] in (folder / "report.md").read_text()
    )
    assert "quick, not comparable" in report["notes"] and "quick, not comparable" in done.stdout
    whole = json.loads((folder / "digits" / "report.json").read_text())
    assert [row["method"] for row in whole["rows"]] == ["none", "spider"]
    assert whole["rows"][1]["metrics"]["clean_accuracy"]["mean"] == report["data"]["digits"]["rows"][1]["ours"]["clean_accuracy"]["mean"]


def test_a_failed_run_is_named_with_its_log(tmp_path):
    # Kills: a launcher that ends well when a run did not; a table that is not written.
    arguments = ("--table=spider/4", "--rows=none", f"--workdir={tmp_path}", *QUICK, "--override=schedule.boundaries=(5,)")
    done = commands.run("reproduce", *arguments)
    assert done.returncode == 1, done.stderr
    (log,) = tmp_path.glob("digits/none_*/log.txt")
    why = "error: config.schedule.boundaries are of 'step'; with 'cosine' leave them empty."
    assert re.search(rf"^failed: digits/none_\S+: {re.escape(why)}; see {re.escape(str(log))}$", done.stderr, re.MULTILINE), done.stderr
    assert why in log.read_text() and "0 of 1 seeds" in done.stdout
    (written,) = tmp_path.glob("tables/spider_4_quick_*/report.md")
    assert "Failed: digits/none_" in written.read_text()
