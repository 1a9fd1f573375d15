"""registry: entries with options bound; unknown names and options refused with the nearest; tests name the mutants they kill."""

import functools

import pytest

from robustjax.core import registry
from robustjax.core.check import InputError


def noise(keys, images, *, stddev, clip=True):
    return keys, images, stddev, clip


TABLE = {"gaussian_noise": noise, "identity": lambda keys, images: images}


def test_make_binds_options_only():
    # Kills: options dropped; positional arguments bound.
    made = registry.make(TABLE, "gaussian_noise", kind="augmentation", stddev=0.5)
    assert isinstance(made, functools.partial) and made.func is noise
    assert made("k", "x") == ("k", "x", 0.5, True)
    assert made("k", "x", clip=False) == ("k", "x", 0.5, False)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gausian_noise", {}, "unknown augmentation 'gausian_noise'; did you mean 'gaussian_noise'? Known: gaussian_noise, identity."),
        ("zzz", {}, "unknown augmentation 'zzz'. Known: gaussian_noise, identity."),
        (
            "gaussian_noise",
            {"std": 1},
            "unknown option of the augmentation 'gaussian_noise': 'std'; did you mean 'stddev'? Known: clip, stddev.",
        ),
        ("gaussian_noise", {"images": 1}, "unknown option of the augmentation 'gaussian_noise': 'images'. Known: clip, stddev."),
        ("identity", {"clip": 1}, "unknown option of the augmentation 'identity': 'clip'. Known: none."),
    ],
)
def test_unknown_names_and_options(name, options, message):
    # Kills: options checked when called, hours later; positional parameters taken for options; no suggestion.
    with pytest.raises(InputError) as error:
        registry.make(TABLE, name, kind="augmentation", **options)
    assert str(error.value) == message
