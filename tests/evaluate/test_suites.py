"""What a suite measures, and what is refused before anything is measured."""

import pytest

from robustjax import corruptions
from robustjax.attacks.versions import VERSIONS, label
from robustjax.core.check import InputError
from robustjax.evaluate import plots, suites
from robustjax.train import settings
from tests import tiny


def options(suite, shape=(16, 16, 1), **changes):
    return [item.options for item in suites.items(suite, tiny.config(**changes), shape) if item.kind == "corruption"]


def test_every_suite_has_each_of_its_measurements_once():
    # Kills: severities where there are none; a severity left out; 'clean' twice when suites are named together.
    names = [item.name for item in suites.items("full,cbar", tiny.config(), (16, 16, 1))]
    assert names[0] == "clean" and names.count("clean") == 1 and len(names) == len(set(names))
    for benchmark in ("cifar_c", "cifar_cbar"):
        assert [name for name in names if name.startswith(f"{benchmark}/")] == [
            f"{benchmark}/{name}_{severity}" for name in corruptions.NAMES[benchmark] for severity in range(1, 6)
        ]
    assert options("mnist_c") == [{"benchmark": "mnist_c", "name": name} for name in corruptions.NAMES["mnist_c"]]


@pytest.mark.parametrize(("side", "benchmark"), [(63, "cifar_cbar"), (64, "imagenet_cbar")])
def test_cbar_goes_with_the_size(side, benchmark):
    assert {found["benchmark"] for found in options("cbar", (side, side, 3))} == {benchmark}


def test_sensors_are_the_papers_in_proportion():
    # Kills: lengths in pixels taken over to small images; the chains of the paper's Table 4 in another order.
    at_the_papers_size, small = (suites.sensor_defaults(shape) for shape in ((400, 500, 3), (32, 32, 3)))
    assert at_the_papers_size["occlusion"] == {"name": "occlusion", "patches": 20, "size": [70, 70]}
    assert at_the_papers_size["stripes"] == {"name": "stripes", "stripes": 10, "width": 6}
    assert small["occlusion"]["size"] == [6, 4] and small["stripes"]["width"] == 1
    chains = {found["name"] for found in options("sensor")}
    assert chains >= {"noise", "noise+occlusion", "down_up+occlusion", "down_up+stripes"}
    own = {"strong": {"name": "noise", "std": 0.5}}
    assert options("sensor", evaluation__sensor=own) == [{"benchmark": "sensor", "name": "noise", "std": 0.5}]


def test_a_look_at_the_suite_does_not_warn():
    # Kills: the warning of another size twice, or where files are read and nothing is made. Warnings are errors here.
    assert len(options("corruptions", evaluation__benchmark="imagenet_c")) == 5 * len(corruptions.NAMES["imagenet_c"])


ATTACKS = {
    "pgd_linf": {"norm": "linf", "eps": 8 / 255, "step_size": 2 / 255, "steps": 7},
    "pgd_l2": {"norm": "l2", "eps": 0.5, "step_size": 0.1, "steps": 20},
    "slow": {"norm": "l2", "eps": 0.5, "step_size": 0.01, "steps": 20},
}


def attacked(suite, asked=suites.NOTHING, **changes):
    config = tiny.config(**{"evaluation__attacks": ATTACKS, **changes})
    return [item for item in suites.items(suite, config, (16, 16, 1), asked) if item.kind != "clean"]


def test_attacks_are_those_of_the_configuration_or_those_asked_for():
    # Kills: results of older runs under new names; the margin under the name of cross-entropy; one ball measured twice; 'fast' as
    # AutoAttack; what was asked for beside the configuration's in place of instead of it.
    pgd, cw = attacked("pgd"), attacked("cw")
    assert {item.name: item.options for item in pgd} == {f"attack/{name}": options for name, options in ATTACKS.items()}
    assert [item.name for item in cw] == ["attack/cw_l2", "attack/cw_linf", "attack/cw_slow"]
    assert cw[1].options == {**ATTACKS["pgd_linf"], "objective": "cw"}
    assert attacked("attacks") == pgd + cw and attacked("pgd,cw,attacks") == pgd + cw
    assert [item for item in attacked("full") if item.kind == "attack"] == pgd
    assert [item.name for item in attacked("autoattack")] == ["autoattack/linf_8_255", "autoattack/l2_0.5"]
    own = {"evaluation__autoattack": {"threats": ["l1:12"], "version": "plus"}}
    assert [item.name for item in attacked("autoattack", **own)] == ["autoattack_plus/l1_12"]
    asked = suites.Asked(threats=("linf:4/255",), version="fast")
    (fast,) = attacked("autoattack", asked, **own)
    assert fast == ("apgd_fast/linf_4_255", "autoattack", {"norm": "linf", "eps": 4 / 255, "version": "fast"})
    surrogates = ({"surrogate": "a", "config_hash": "0"}, {"surrogate": "b", "config_hash": "1"})
    transfer = attacked("transfer", suites.Asked(threats=("linf:8/255",), surrogates=surrogates))
    assert [item.name for item in transfer] == [f"transfer/{name}20_linf_8_255" for name in ("a/pgd", "a/cw", "b/pgd", "b/cw")]
    assert transfer[3].options == {"norm": "linf", "eps": 8 / 255, "steps": 20, "step_size": 2 / 255, "objective": "cw", **surrogates[1]}
    at_128 = attacked("transfer", suites.Asked(threats=("l2:128/255",), surrogates=surrogates[:1]))
    assert [item.options["step_size"] for item in at_128] == [15 / 255, 15 / 255]
    curve = attacked("clean", suites.Asked(curves=("linf:0,2/255,4/255", "linf:2/255,1/2")))
    assert [item.name for item in curve] == ["curve/linf_2_255", "curve/linf_4_255", "curve/linf_0.5"]


@pytest.mark.parametrize(
    ("suite", "asked", "change", "message"),
    [
        ("autoattack", {"version": "quick"}, {}, "unknown version of AutoAttack 'quick'"),
        ("autoattack", {"threats": ("linf:8",)}, {}, "8 levels are written linf:8/255"),
        ("autoattack", {}, {"evaluation__attacks": {}}, "lists no attacks; say how far one may go, e.g. --threat=linf:8/255"),
        ("transfer", {}, {}, "needs the folder of another trained run, --surrogate=RUN"),
        ("transfer", {"surrogates": ({"surrogate": "a"},) * 2}, {}, "two surrogates have a folder of the same name"),
        ("pgd", {"threats": ("linf:8/255",)}, {}, "--threat is read by the suite autoattack or transfer, got --suite=pgd"),
        ("full", {"version": "fast"}, {}, "--attack_version is read by the suite autoattack, got"),
        ("clean", {"surrogates": ({"surrogate": "a"},)}, {}, "--surrogate is read by the suite transfer, got"),
        ("clean", {"curves": ("linf:8",)}, {}, "8 levels are written linf:8/255"),
        (
            "attacks",
            {},
            {"evaluation__attacks": {"pgd": ATTACKS["slow"], "cw": ATTACKS["slow"]}},
            "would have the result attack/cw; rename one",
        ),
    ],
)
def test_attacks_that_cannot_be_measured_are_refused_first(suite, asked, change, message):
    with pytest.raises(InputError) as caught:
        attacked(suite, suites.Asked(**asked), **change)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_versions_are_those_of_the_attack_and_of_the_configuration():
    # Kills: a version that the suite or a configuration does not know.
    for version in suites.VERSIONS:
        settings.check(tiny.config(evaluation__autoattack={"threats": (), "version": version}))
        assert label(version).startswith("AutoAttack") == suites.VERSIONS[version].startswith("autoattack")
    assert set(suites.VERSIONS) == set(VERSIONS)


@pytest.mark.parametrize(
    ("suite", "shape", "change", "message"),
    [
        ("ful", (16, 16, 1), {}, "unknown suite 'ful'; did you mean 'full'"),
        ("clean,cba", (16, 16, 1), {}, "unknown suite 'cba'; did you mean 'cbar'"),
        ("cbar", (32, 48, 3), {}, "defined for square images only, got 32x48"),
        ("mnist_c", (32, 32, 3), {}, "made for grey images, these have 3 channels"),
        ("full", (8, 8, 1), {}, "at least 16x16 pixels"),
        ("full", (16, 16, 1), {"evaluation__reference": "alexnett"}, "unknown reference .*'alexnett'; did you mean 'alexnet'"),
        ("full", (16, 16, 1), {"evaluation__reference": "alexnet"}, "'alexnet' has errors on imagenet_c, not on cifar_c"),
        ("full", (16, 16, 1), {"evaluation__benchmark": "sensor"}, "'sensor' has no strengths of its own"),
        ("full", (16, 16, 1), {"evaluation__benchmark": "cifar_d"}, "unknown benchmark 'cifar_d'; did you mean 'cifar_c'"),
        ("sensor", (16, 16, 1), {"evaluation__sensor": {"x": {"name": "noise", "sdt": 1.0}}}, "unknown option .*'sdt'; did you mean 'std'"),
        ("sensor", (16, 16, 1), {"evaluation__sensor": {"x": {"name": "occlusion", "size": 20}}}, "larger than the images, 16x16"),
    ],
)
def test_what_cannot_be_measured_is_refused_first(suite, shape, change, message):
    with pytest.raises(InputError, match=message) as caught:
        suites.items(suite, tiny.config(**change), shape)
    assert "\n" not in str(caught.value)


def drawn(attacks, sources, benchmarks):
    """Returns {title: names below} of the panels, line by line, and what is above the figure."""
    found = {}
    shown = {benchmark: {"fog": [0.5] * count, "blur": [0.2] * count} for benchmark, count in benchmarks.items()}
    numbers = {f"{name}_error": {"mean": 0.7, "std": None} for name in attacks} | {"clean_accuracy": {"mean": 0.9, "std": None}}
    row = {"label": "a", "attacks": dict.fromkeys(attacks), "per_corruption": shown, "sources": sources, "metrics": numbers}
    import matplotlib.pyplot as plt

    figure = plots.figure({"rows": [row], "title": "A title", "notes": ["quick"]})
    figure.canvas.draw()
    for axis in figure.axes:
        assert axis.has_data() and axis.axison
        found[axis.get_title()] = [label.get_text() for label in axis.get_xticklabels()]
    covered = [axis.get_position().width for axis in figure.axes]
    above = figure.get_suptitle()
    plt.close(figure)
    return found, above, covered


def test_figures_show_what_there_is_and_nothing_else():
    # Kills: empty panels; attacks of other names than pgd left out; generated images that pass for the published ones.
    found, above, covered = drawn(["own", "pgd_l2"], {"mnist_c": "generated, not the published files"}, {"mnist_c": 1})
    assert found == {"mnist_c, by corruption": ["fog", "blur"], "under attack": ["own", "pgd\nl2"]}
    assert above == "A title; quick\ncorrupted images: generated" and sum(covered) > 0.8
    found, above, covered = drawn([], {"cifar_c": "CIFAR-10-C", "sensor": "generated"}, {"cifar_c": 5, "sensor": 1})
    assert list(found) == ["cifar_c, by corruption (mean of 5 severities)", "mean of the corruptions", "sensor, by corruption"]
    assert above.endswith("corrupted images: generated and files") and covered[2] > 0.85
    assert drawn([], {}, {})[1] == "A title; quick" and drawn([], {"cifar_c": "CIFAR-10-C"}, {"cifar_c": 5})[1].endswith(": files")
