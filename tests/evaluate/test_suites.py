"""What a suite measures, and what is refused before anything is measured."""

import pytest

from robustjax import corruptions
from robustjax.core.check import InputError
from robustjax.evaluate import plots, suites
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
