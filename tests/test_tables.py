"""The numbers of the papers in reference/tables.json: complete, in range, named as results are, and consistent with what the papers say."""

import json
import math
import re

import numpy as np
import pytest

from configs import recipes
from configs.discriminative import cifar10 as discriminative
from configs.esp import cifar10 as esp
from configs.rat import cifar10 as rat
from configs.spider import cifar100 as spider
from robustjax.core import ThreatModel, threats
from robustjax.data.registry import DATASETS
from robustjax.evaluate import labels, suites
from tests.launch.commands import ROOT

TABLES = json.loads((ROOT / "robustjax" / "reference" / "tables.json").read_text())
# Totals of all numbers and of all deviations of a table, added up by a program from the papers' text, not from the file.
TOTALS = {
    "spider/1": (25.2005, 0.8544),
    "spider/2": (12.3906, 0.8024),
    "spider/3": (65.0828, 0.6005),
    "spider/4": (18.9657, 0.065),
    "spider/5": (26.3465, 0),
    "spider/6": (42.547, 0.2063),
    "spider/7": (595.77, 0),
    "spider/8": (53.6639, 0.1325),
    "spider/9": (28.0502, 0.0712),
    "esp/1": (15.2097, 0.1005),
    "rat/1": (22.614, 0),
    "rat/2": (43.9905, 0),
    "rat/3": (10.6442, 0),
    "rat/4": (11.2569, 0),
    "rat/5": (18.083, 0),
    "rat/6": (66102, 0),
    "discriminative/1": (26.51348, 0.0299),
    "discriminative/2": (27.4419, 0.0206),
    "discriminative/3": (22.662, 0.1198),
    "discriminative/4": (5.7343, 0.2612),
    "discriminative/5": (9.4915, 0),
}
# (lowest, highest) of what is no fraction.
UNITS = {
    "thickness": (0.1, 2),
    "pruned_hours": (10, 50),
    "predicted_full_hours": (50, 200),
    "speed_gain": (1, 30),
    "equivalent_trials": (1, 30),
    "best_trial": (1, 30),
    "seconds_an_epoch": (1000, 3000),
    "memory_megabytes": (10_000, 30_000),
}
T75, T100 = (f"thickness/label:thickness_{alpha:g}_{beta:g}_per_std_0.2_mean" for alpha, beta in suites.INTERVALS)
EVERY = pytest.mark.parametrize("table", TABLES)


def data_of(table):
    """Returns {data set: rows}."""
    return {name: value for name, value in TABLES[table].items() if isinstance(value, dict)}


def means(row):
    return {name: value for name, value in row.items() if not name.endswith("_std")}


def column(table, data, metric, rows=None):
    """Returns {row: number} of the rows that have one."""
    found = {name: row[metric] for name, row in TABLES[table][data].items() if row.get(metric) is not None}
    return found if rows is None else {name: found[name] for name in rows}


def test_every_table_of_the_papers_is_there():
    counts = {"spider": 9, "esp": 1, "rat": 6, "discriminative": 5}
    assert list(TABLES) == [f"{paper}/{number}" for paper, last in counts.items() for number in range(1, last + 1)]


@EVERY
def test_tables_have_the_documented_form(table):
    # Kills: a key that no reader knows; a data set or a quoted row by a name that nothing else has; a note that is not text.
    found = TABLES[table]
    assert set(found) - set(data_of(table)) <= {"paper", "settings", "rows", "quoted", "notes"}
    assert f"Table {table.rpartition('/')[2]}" in found["paper"] and found["settings"]
    assert set(data_of(table)) <= set(DATASETS)
    assert all(isinstance(note, str) and note.endswith(".") for note in found.get("notes", ()))
    assert set(found.get("quoted", ())) <= {name for rows in data_of(table).values() for name in rows}


@EVERY
def test_numbers_are_in_the_range_of_their_units(table):
    # Kills: a percentage among fractions, a deviation without its mean, text or NaN for a number.
    for rows in data_of(table).values():
        for row in rows.values():
            for name, value in row.items():
                of = name.removesuffix("_std")
                assert row[of] is not None or (value is None and of == name), name
                if value is None:
                    continue
                assert type(value) in (int, float) and math.isfinite(value), name
                unit = UNITS.get(of.partition("/")[0])
                if of != name:
                    assert 0 <= value <= (0.25 if unit else 0.1), name
                    continue
                low, high = unit or (0.55 if of == "clean_accuracy" else 0.03, 1)
                assert low <= value <= high, name


@EVERY
def test_rows_of_a_table_have_the_same_metrics(table):
    # Kills: a cell left out. Of quoted rows some were attacked otherwise, and have that metric instead.
    found, quoted = data_of(table), TABLES[table].get("quoted", ())
    own = [list(means(row)) for rows in found.values() for name, row in rows.items() if name not in quoted]
    assert all(names == own[0] for names in own)
    for name in quoted:
        for row in (rows[name] for rows in found.values() if name in rows):
            assert set(own[0]) <= set(row) and set(row) - set(own[0]) <= {"pgd10_linf", "pgd40_linf"}
            assert row["pgd20_linf"] is None or set(row) == set(own[0])
    numbers = [value for rows in found.values() for name, row in rows.items() if name not in quoted for value in row.values()]
    assert None not in numbers


@EVERY
def test_no_digit_differs_from_the_print(table):
    numbers = [(name, value or 0) for rows in data_of(table).values() for row in rows.values() for name, value in row.items()]
    total = (sum(v for name, v in numbers if name.endswith("_std") is deviation) for deviation in (False, True))
    np.testing.assert_allclose(tuple(total), TOTALS[table], atol=1e-9)


def _measured():
    """Returns the names of all that a report can hold of these tables: errors without '_error'."""
    ball = [threats.name_of(ThreatModel("linf", 8 / 255)), threats.name_of(ThreatModel("l2", 128 / 255))]
    attacks = [*recipes.CIFAR_ATTACKS, *(name for _, _, found in recipes.ADVERSARIES.values() for name in found)]
    noise = {level for levels in (*suites.NOISE_LEVELS.values(), suites.OTHER_LEVELS) for level in levels}
    return {
        *("clean_accuracy", "mce", "normalised_mce", T75, T100),
        *attacks,
        *(name.replace("pgd", "cw") for name in attacks),
        *(f"autoattack/{threat}_robust" for threat in ball),
        *(f"transfer/madry/{name}20_{ball[0]}_robust" for name in ("pgd", "cw")),
        *(f"noise/gaussian_{level}_255" for level in noise),
        *(f"{suites.SENSOR}/{name}" for name in suites.sensor_defaults((400, 500, 3))),
    }


@EVERY
def test_metrics_have_the_names_of_results(table):
    # Kills: a number that would never stand beside ours.
    found = {name for rows in data_of(table).values() for row in rows.values() for name in means(row)}
    assert found <= _measured() | {"pgd10_linf", "pgd40_linf"} | (UNITS.keys() - {"thickness"})


def called(configs):
    """Returns what tables call runs of these configurations."""
    return {labels.trained_by(config.to_dict())[0] for config in configs}


def mixed(get_config, methods, augments):
    """Yields a configuration for each method after each augmentation; '+' adds the copies of DeepAugment."""
    for augment in augments:
        for method in methods:
            config = get_config(f"method={method},augment={augment.removesuffix('+')}")
            config.data.copies = "somewhere" if augment.endswith("+") else ""
            yield config


def test_rows_are_called_as_runs_are():
    # Kills: another name for a method than reports have.
    four = ("none", "augmix", "none+", "pixmix")
    ablation = called(mixed(spider.get_config, ("none", "spider", "no_ls", "std_ls", "mixup"), four))
    both = called(mixed(spider.get_config, ("none", "spider"), four))
    assert ablation == set(TABLES["spider/6"]["cifar100"]) and len(ablation) == 20
    assert called(mixed(spider.get_config, ("spider", "no_ls"), four)) == set(TABLES["spider/2"]["cifar10"])
    assert called(mixed(spider.get_config, ("spider",), four)) == set(TABLES["spider/7"]["cifar10"])
    for number in (1, 3, 4, 5):
        assert all(both == set(rows) for rows in data_of(f"spider/{number}").values())
    networks = {"densenet_40_12", "wide_resnet_40_1", "allconv"}
    assert set(TABLES["spider/8"]["cifar100"]) == {f"{network}: {method}" for network in networks for method in both}
    esps = called(mixed(esp.get_config, ("none", "l2_sphere", "esp"), ("none", "augmix", "none+", "augmix+")))
    assert all(esps == set(rows) for rows in data_of("esp/1").values()) and len(esps) == 12
    adversarial = called(rat.get_config(f"order={order},awp={awp}") for order in "012" for awp in ("off", "on"))
    for rows in data_of("rat/2").values():
        assert set(rows) - set(TABLES["rat/2"]["quoted"]) == adversarial
    noise = called(discriminative.get_config(f"method={method}") for method in ("full", "normal", "noisy", "clean_noisy", "stability"))
    for number in (1, 2, 3, 4):
        assert all(noise == set(rows) for rows in data_of(f"discriminative/{number}").values())


def test_rows_of_the_ablation_name_the_recipes_options():
    names = []
    for method in ("center", "margin", "clean", "reg0", "reg1"):
        objective = discriminative.get_config(f"method={method}").objective
        names.append("discriminative, " + ", ".join(f"{key} {objective[key]:g}" for key in ("alpha", "beta", "gamma_reg", "noisy")))
    assert all(names == list(rows) for rows in data_of("discriminative/5").values())


def test_thickness_gains_are_those_printed_beside_it():
    # In parentheses in SPIDER's Tables 1 and 2; by data set and interval, without augmentation, AugMix, DeepAugment, PixMix.
    before = ("none", "augmix", "deepaugment", "pixmix")
    added = {
        ("cifar10", T75): (0.4202, 0.0285, 0.1800, 0.0535),
        ("cifar10", T100): (0.9578, 0.1723, 0.7025, 0.2847),
        ("cifar100", T75): (0.1724, 0.1470, 0.1512, 0.0912),
        ("cifar100", T100): (0.5719, 0.2616, 0.2766, 0.1433),
    }
    for (data, metric), printed in added.items():
        rows = column("spider/1", data, metric)
        found = [rows["spider" if name == "none" else f"{name}+spider"] - rows[name] for name in before]
        np.testing.assert_allclose(found, printed, atol=1e-9)
    for metric, printed in ((T75, (-0.3982, -0.1046, -0.1399, -0.0590)), (T100, (-0.5846, -0.4137, -0.5063, -0.3425))):
        rows = column("spider/2", "cifar10", metric)
        found = [rows[f"{name}no_ls"] - rows[f"{name}spider"] for name in ("", "augmix+", "deepaugment+", "pixmix+")]
        np.testing.assert_allclose(found, printed, atol=1e-9)


def test_numbers_that_are_printed_twice_agree():
    # The one that does not is in the notes.
    for name, row in TABLES["spider/2"]["cifar10"].items():
        if not name.endswith("no_ls"):
            assert row == TABLES["spider/1"]["cifar10"][name]
    for data, rows in data_of("spider/4").items():
        for name, row in rows.items():
            assert row.items() <= TABLES["spider/3"][data][name].items()
    main = TABLES["spider/3"]["cifar100"]
    found = {
        (name, metric): (value, main[name][metric])
        for name, row in TABLES["spider/6"]["cifar100"].items()
        if name in main
        for metric, value in row.items()
        if value != main[name][metric]
    }
    assert found == {("pixmix", "pgd_l2_std"): (0.0075, 0.0018)}


def test_cost_of_the_search_is_the_papers_arithmetic():
    # Gain: predicted over pruned hours; trials: 30 over the gain. The text has 5.86 to 7.65 of them.
    rows = TABLES["spider/7"]["cifar10"].values()
    for row in rows:
        gain = row["predicted_full_hours"] / row["pruned_hours"]
        assert round(gain, 2) == row["speed_gain"] and round(30 / gain, 2) == pytest.approx(row["equivalent_trials"], abs=0.011)
    assert {min(row["equivalent_trials"] for row in rows), max(row["equivalent_trials"] for row in rows)} == {5.86, 7.65}


@pytest.mark.parametrize(
    ("table", "data", "row", "metric", "percent"),
    [
        ("spider/3", "cifar10", "none", "mce", 25.57),
        ("spider/3", "cifar10", "spider", "mce", 14.37),
        ("spider/3", "cifar10", "none", "pgd_l2", 68.57),
        ("spider/3", "cifar10", "none", "pgd_linf", 99.52),
        ("spider/3", "cifar10", "spider", "pgd_l2", 23.76),
        ("spider/3", "cifar10", "spider", "pgd_linf", 56.30),
        ("spider/3", "cifar10", "augmix", "mce", 11.83),
        ("spider/3", "cifar10", "augmix+spider", "mce", 9.17),
        ("rat/2", "cifar10", "rat_2_awp", "autoattack/linf_8_255_robust", 57.4),
        ("rat/2", "cifar100", "rat_2_awp", "autoattack/linf_8_255_robust", 30.2),
    ],
)
def test_numbers_that_the_papers_text_repeats(table, data, row, metric, percent):
    # SPIDER, section 4.2; RAT, section 5.2, which also tells whose the rows with AWP are.
    assert TABLES[table][data][row][metric] == pytest.approx(percent / 100, abs=1e-12)


def test_spider_lowers_every_error_but_one():
    # Section 4.2: "it bolstered both common and adversarial robustness across all evaluation scenarios". Table 8's exception is in the notes.
    worse = []
    for table in ("spider/3", "spider/5", "spider/8"):
        for rows in data_of(table).values():
            for name, row in rows.items():
                base = re.sub(r"\+?spider$", "", name)
                base = f"{base}none" if base == "" or base.endswith(": ") else base
                if base != name:
                    worse += [
                        (table, name, metric)
                        for metric, value in means(row).items()
                        if metric != "clean_accuracy" and value >= rows[base][metric]
                    ]
    assert worse == [("spider/8", "densenet_40_12: deepaugment+spider", "pgd_linf")]


def test_esp_is_below_l2_noise_and_bold_numbers_are_the_lowest():
    # ESP, section 4.3: "dominating L2 distance based noise"; Table 1: "the best results are marked in bold".
    for data, best in (("mnist", 0.0645), ("cifar10", 0.0862), ("cifar100", 0.3223), ("tiny_imagenet", 0.5902)):
        errors = column("esp/1", data, "mce")
        assert min(errors.values()) == best
        assert all(errors[name] < errors[name.removesuffix("esp") + "l2_sphere"] for name in errors if name.endswith("esp"))
    mnist = column("esp/1", "mnist", "mce")
    assert mnist["l2_sphere"] < mnist["augmix+deepaugment"] < mnist["none"] < mnist["deepaugment"]
    for data in ("cifar10", "cifar100"):
        alone = column("esp/1", data, "mce", ("augmix", "deepaugment", "esp", "l2_sphere"))
        assert min(alone, key=alone.get) == "augmix"


def test_bold_numbers_of_rat_are_its_best():
    # Table 1 by column (clean, PGD-20, CW-20, AutoAttack); the methods' rows in the others are all bold and better than their base.
    best = {
        "rat_1": ("rat_1", "rat_1", "rat_1, eta 0.2", "rat_1"),
        "rat_2": ("rat_2, eta 0.3", "rat_2", "rat_2", "rat_2"),
    }
    for method, rows in best.items():
        own = {name: row for name, row in TABLES["rat/1"]["cifar10"].items() if name.startswith(method)}
        assert len(own) == 5
        for metric, row in zip(own[method], rows, strict=True):
            pick = min if metric.endswith("20_linf") else max
            assert pick(own, key=lambda name: own[name][metric]) == row
    for number in (2, 3, 4, 5):
        for rows in data_of(f"rat/{number}").values():
            for name, row in rows.items():
                if "rat_" in name:
                    base = rows[re.sub(r"rat_\d", "trades", name)]
                    for metric, value in row.items():
                        assert value < base[metric] if metric.startswith(("pgd", "cw")) else value > base[metric]


def test_gains_that_rat_s_text_names():
    # Section 5.3: MobileNetV2, "greater than 1% and 2% under Auto Attack and clean data"; Table 6: each term costs more.
    rows = TABLES["rat/5"]["cifar10"]
    for base in ("trades", "trades_awp"):
        ours = rows[f"mobilenet_v2: {base.replace('trades', 'rat_2')}"]
        gain = {metric: value - rows[f"mobilenet_v2: {base}"][metric] for metric, value in ours.items()}
        assert gain["autoattack/linf_8_255_robust"] > 0.01 and gain["clean_accuracy"] > 0.02
    for metric in ("seconds_an_epoch", "memory_megabytes"):
        values = list(column("rat/6", "cifar10", metric).values())
        assert values == sorted(values) and len(values) == 3


def test_what_the_discriminative_paper_says_of_its_tables():
    # Section 7.2: its method is the best under every noise, though not on all clean images; 30 % over normal training at 40/255; resampling
    # is the one perturbation where stability training is ahead. Section 7.6: both constraints beat each, compactness beats separability.
    for table, data in (("discriminative/1", "cifar10"), ("discriminative/2", "svhn_cropped"), ("discriminative/3", "image_folder")):
        for metric in means(TABLES[table][data]["none"]):
            if metric.startswith("noise/"):
                found = column(table, data, metric)
                assert max(found, key=found.get) == "discriminative"
    road = column("discriminative/3", "image_folder", "noise/gaussian_40_255")
    assert road["discriminative"] - road["none"] > 0.3
    lowest = {
        metric: min(column("discriminative/4", "image_folder", metric).items(), key=lambda item: item[1])[0]
        for metric in means(TABLES["discriminative/4"]["image_folder"]["none"])
    }
    assert lowest.pop("sensor/down_up") == "stability" and set(lowest.values()) == {"discriminative"} and len(lowest) == 5
    for rows in data_of("discriminative/5").values():
        center, margin, both, reg0, _ = (row["clean_accuracy"] for row in rows.values())
        assert both > center > margin and both > reg0
