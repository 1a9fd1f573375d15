"""Every wrong value of a configuration is refused before anything is built, in one line."""

import pytest

from robustjax.core.check import InputError
from robustjax.train import settings
from tests import tiny


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer__lr": 0.0}, r"config\.optimizer\.lr must be a number above 0, got 0\.0"),
        ({"optimizer__lr": float("nan")}, r"config\.optimizer\.lr must be a number above 0, got nan"),
        ({"optimizer__lr": "0.1"}, r"config\.optimizer\.lr must be a number above 0, got '0\.1'"),
        ({"epochs": -1}, r"config\.epochs must be a whole number of at least 1, got -1"),
        ({"epochs": 2.5}, r"config\.epochs must be a whole number"),
        ({"batch_size": True}, r"config\.batch_size must be a whole number"),
        ({"parallel": "pmapped"}, r"config\.parallel must be one of shard_map, pmap, got 'pmapped'"),
        ({"data__validation": 1.0}, r"config\.data\.validation must be a fraction"),
        ({"quick": 1}, r"config\.quick must be bool, got 1"),
        ({"epoch": 3}, r"unknown configuration key 'epoch'; did you mean 'epochs'"),
        ({"optimizer__momentun": 0.9}, r"unknown configuration key 'optimizer\.momentun'; did you mean 'optimizer\.momentum'"),
        ({"optimizer": {"name": "sgd"}}, r"lacks the key 'optimizer\.lr'"),
        ({"schedule__boundaries": (60, 30)}, r"config\.schedule\.boundaries must be epochs in rising order"),
        ({"schedule__boundaries": (1, 1)}, r"config\.schedule\.boundaries must be epochs in rising order"),
        ({"schedule__boundaries": ("a",)}, r"config\.schedule\.boundaries must be epochs in rising order"),
        ({"schedule__boundaries": (1,)}, r"boundaries are of 'step'; with 'cosine' leave them empty"),
        ({"optimizer__name": "adam", "optimizer__nesterov": True}, r"nesterov is of 'sgd'"),
        (
            {"evaluation__attacks": {"x": {"norm": "l3", "eps": 1, "step_size": 1, "steps": 1}}},
            r"evaluation\.attacks\.x\.norm must be one of linf",
        ),
        ({"evaluation__attacks": {"x": {"norm": "l2", "eps": 1, "steps": 1}}}, r"lacks the key 'evaluation\.attacks\.x\.step_size'"),
        ({"evaluation__attacks": {"x": 3}}, r"attacks\.x must hold norm, eps, step_size and steps"),
        (
            {"evaluation__attacks": {"x": {"norm": "linf", "eps": 8, "step_size": 1, "steps": 1}}},
            r"attacks\.x\.eps is in units of \[0, 1\] pixels",
        ),
        (
            {"evaluation__autoattack": {"threats": ("linf:8",), "version": "standard"}},
            r"at most 1, got 'linf:8'; 8 levels are written linf:8/255",
        ),
        ({"evaluation__autoattack": {"threats": ("linf",), "version": "standard"}}, r"a threat is written norm:eps, e\.g\. linf:8/255"),
        ({"evaluation__autoattack": {"threats": ("l2:0",), "version": "standard"}}, r"with one radius above 0"),
        ({"evaluation__autoattack": {"threats": ("l3:1",), "version": "standard"}}, r"norm must be 'linf', 'l2' or 'l1', got 'l3'"),
        ({"evaluation__autoattack": {"threats": "linf:8/255", "version": "standard"}}, r"autoattack\.threats must be threats such as"),
        ({"evaluation__autoattack": {"threats": (), "version": "fst"}}, r"autoattack\.version must be one of standard, plus, rand, fast"),
        ({"evaluation__autoattack": {"threat": (), "version": "fast"}}, r"did you mean 'evaluation\.autoattack\.threats'"),
        ({"selection__data": "c-bar"}, r"config\.selection\.data must be one of clean, cbar, all, got 'c-bar'"),
        ({"evaluation__sensor": {"x": {"std": 0.1}}}, r"evaluation\.sensor\.x must hold the name of a corruption and its options"),
    ],
)
def test_wrong_values_are_one_line(change, message):
    with pytest.raises(InputError, match=message) as caught:
        settings.check(tiny.config(**change))
    assert "\n" not in str(caught.value)


def test_whole_numbers_serve_as_numbers():
    # Kills: refusing --config.optimizer.lr=1.
    assert settings.check(tiny.config(optimizer__lr=1))["optimizer"]["lr"] == 1.0
