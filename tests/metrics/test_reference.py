"""AlexNet's errors, by which the mean corruption error on ImageNet-C is normalised."""

import pytest

from robustjax import metrics
from robustjax.core.check import InputError
from robustjax.corruptions.constants import CONSTANTS, EXTRA

NAMES = [name for name in CONSTANTS["imagenet_c"] if name not in EXTRA]


def test_alexnet_has_the_fifteen_and_the_published_mean():
    # Kills: the four extra corruptions in the mean (0.777); errors of the subset of 5000 images; a digit lost.
    reference = metrics.corruption_reference("auto", benchmark="imagenet_c", names=NAMES)
    errors = dict(reference.errors)
    assert errors.pop("clean") == 0.435 and list(errors) == NAMES
    assert sum(errors.values()) / 15 == pytest.approx(0.7889930666666667, abs=1e-12)
    # Half of AlexNet's errors everywhere is an mCE of one half, and a relative one too.
    half = metrics.mean_corruption_error({n: [e / 2] * 5 for n, e in errors.items()}, clean_error=0.435 / 2, reference=reference.errors)
    assert half.mce == pytest.approx(0.5) and half.relative_mce == pytest.approx(0.5)


@pytest.mark.parametrize("benchmark", ["cifar_c", "tiny_imagenet_c", "mnist_c", "cifar_cbar"])
def test_papers_take_the_plain_mean_elsewhere(benchmark):
    assert metrics.corruption_reference("auto", benchmark=benchmark) is None


def test_a_missing_reference_is_refused():
    # Kills: dividing by what is there, or falling back to the plain mean in silence.
    with pytest.raises(InputError, match="unknown reference of the mean corruption error 'resnet50'"):
        metrics.corruption_reference("resnet50", benchmark="imagenet_c")
    with pytest.raises(InputError, match="'alexnet' has errors on imagenet_c, not on cifar_c"):
        metrics.corruption_reference("alexnet", benchmark="cifar_c")
    with pytest.raises(InputError, match="differ in fog, saturate; take 'none'"):
        metrics.corruption_reference("alexnet", benchmark="imagenet_c", names=[*(n for n in NAMES if n != "fog"), "saturate"])
