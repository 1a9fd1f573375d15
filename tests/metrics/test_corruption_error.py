"""Mean corruption error. Each test names the mutants it kills."""

import numpy as np
import pytest

from robustjax.core import InputError
from robustjax.metrics import mean_corruption_error
from tests.goldens import reference

ERRORS = {"fog": [0.1, 0.2, 0.3], "snow": [0.2, 0.5, 0.8]}
REFERENCE = {"fog": [0.3, 0.4, 0.5], "snow": [0.6, 0.7, 0.8], "clean": 0.2}


def test_plain_mean():
    # Kills: a sum over severities, percent, a mean weighted otherwise, a relative error without a reference.
    result = mean_corruption_error(ERRORS, clean_error=0.05)
    assert result.mce == pytest.approx((0.2 + 0.5) / 2)
    assert result.per_corruption == pytest.approx({"fog": 0.2, "snow": 0.5}) and list(result.per_corruption) == ["fog", "snow"]
    assert result.relative_mce is None


@pytest.mark.parametrize("of_means", [False, True])
def test_normalised_and_relative_by_hand(of_means):
    # Kills: dividing at each severity before averaging (0.55 for fog's 0.5), the clean error subtracted once from a sum, the
    # reference's clean error forgotten, one ratio of the means over all corruptions.
    table = {name: float(np.mean(values)) for name, values in REFERENCE.items()} if of_means else REFERENCE
    result = mean_corruption_error(ERRORS, clean_error=0.1, reference=table)
    assert result.per_corruption == pytest.approx({"fog": 0.2 / 0.4, "snow": 0.5 / 0.7})
    assert result.mce == pytest.approx((0.2 / 0.4 + 0.5 / 0.7) / 2)
    assert result.relative_mce == pytest.approx((0.1 / 0.2 + 0.4 / 0.5) / 2)


def test_alexnet_scores_one_against_itself():
    # Kills: a factor of 5 or 100; the clean error counted among the corruptions. Half of AlexNet's errors score one half.
    stored = reference.load("corruptions/mce.json")
    alexnet = {name: stored["alexnet_error"][name] for name in stored["order"]}
    clean = stored["alexnet_clean_error"]
    result = mean_corruption_error({name: [e] * 5 for name, e in alexnet.items()}, clean_error=clean, reference={**alexnet, "clean": clean})
    assert result.mce == pytest.approx(1) and result.relative_mce == pytest.approx(1) and len(result.per_corruption) == 15
    assert mean_corruption_error({name: [e / 2] * 5 for name, e in alexnet.items()}, reference=alexnet).mce == pytest.approx(0.5)
    assert mean_corruption_error({name: [e] * 5 for name, e in alexnet.items()}).mce == pytest.approx(stored["alexnet_mean_error"])


def test_one_number_where_there_are_no_severities():
    # Kills: requiring five severities (MNIST-C has none).
    assert mean_corruption_error({"zigzag": 0.25, "shear": np.float32(0.5)}).mce == 0.375


@pytest.mark.parametrize(
    ("errors", "options", "message"),
    [
        ({}, {}, "no corruption"),
        ({"fog": [10.0, 20.0]}, {}, "fractions"),
        ({"fog": [0.1, np.nan]}, {}, "fractions"),
        ({"fog": [0.1, 0.2], "snow": [0.1]}, {}, "'snow' has 1"),
        ({"fog": [[0.1, 0.2]]}, {}, "shape"),
        ({"fog": []}, {}, "shape"),
        ({"fog": [0.1] * 3}, {"reference": REFERENCE}, "lacks snow"),
        ({**ERRORS, "spatter": [0.1] * 3}, {"reference": REFERENCE}, "no spatter"),
        ({"fog": [0.1, 0.2]}, {"reference": {"fog": [0.5, 0.5, 0.5]}}, "2 severities, got 3"),
        (ERRORS, {"reference": {**REFERENCE, "clean": [0.1, 0.2]}}, "'clean'"),
        (ERRORS, {"clean_error": 10}, "clean_error"),
        (ERRORS, {"reference": {"fog": 0.0, "snow": 0.5}}, "must be > 0"),
        (ERRORS, {"clean_error": 0.1, "reference": {"fog": 0.2, "snow": 0.5, "clean": 0.2}}, "must be > 0"),
    ],
)
def test_bad_input_says_so(errors, options, message):
    # Kills: a mean over fewer corruptions or severities than the benchmark has; percent mixed with fractions; division by zero.
    with pytest.raises(InputError, match=message):
        mean_corruption_error(errors, **options)
