"""A trained run, and few corruptions."""

import pytest

from robustjax import corruptions
from robustjax.train import loop
from tests import tiny


@pytest.fixture(scope="module", autouse=True)
def few_corruptions():
    """Two corruptions in place of fifteen, which would be compiled one by one; every one is tested in tests/corruptions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(corruptions.NAMES, "cifar_c", ("gaussian_noise", "contrast"))
        yield


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    loop.train(tiny.config(), folder, quiet=True)
    return folder
