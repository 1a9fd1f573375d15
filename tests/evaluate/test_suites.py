"""What a suite measures, and what is refused before anything is measured."""

import pytest

from robustjax import corruptions
from robustjax.core.check import InputError
from robustjax.evaluate import suites
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
        ("sensor", (16, 16, 1), {"evaluation__sensor": {"x": {"name": "noise", "sdt": 1.0}}}, "unknown option .*'sdt'; did you mean 'std'"),
        ("sensor", (16, 16, 1), {"evaluation__sensor": {"x": {"name": "occlusion", "size": 20}}}, "larger than the images, 16x16"),
    ],
)
def test_what_cannot_be_measured_is_refused_first(suite, shape, change, message):
    with pytest.raises(InputError, match=message) as caught:
        suites.items(suite, tiny.config(**change), shape)
    assert "\n" not in str(caught.value)
