"""Every key of a configuration is read by somebody: one that is not would promise what it does not do."""

from robustjax.evaluate import run
from robustjax.io import results
from robustjax.train import build, loop, settings
from tests import tiny


class Watched(dict):
    """A dict that writes down which of its keys are looked up; to be written to a file does not count."""

    def __init__(self, values: dict, read: set, prefix: str = ""):
        super().__init__({k: Watched(v, read, f"{prefix}{k}.") if isinstance(v, dict) else v for k, v in values.items()})
        self._read, self._prefix = read, prefix

    def __getitem__(self, key):
        self._read.add(self._prefix + key)
        return super().__getitem__(key)


def keys(rules: dict, prefix: str = "") -> set:
    """Returns every key that a configuration must have; free options belong to the kernels, which refuse unknown ones."""
    return set().union(*(keys(rule, f"{prefix}{k}.") if isinstance(rule, dict) else {prefix + k} for k, rule in rules.items()))


def test_every_key_is_read(tmp_path, monkeypatch):
    # Kills: a key that is stored and never used.
    config = tiny.config(epochs=2, schedule__name="step", schedule__boundaries=(1,), schedule__factor=0.5)
    read: set = set()
    monkeypatch.setattr(build.settings, "check", lambda values: Watched(values, read))
    monkeypatch.setattr(results, "comparable", lambda config: {})
    loop.train(config, tmp_path, quiet=True)
    real = run.load

    def load(*args, **options):
        found = real(*args, **options)
        return found._replace(meta={**found.meta, "config": Watched(found.meta["config"], read)})

    monkeypatch.setattr(run, "load", load)
    run.evaluate(tmp_path, suite="attacks", quiet=True)
    run.suites.items("corruptions,sensor,autoattack,thickness,noise", Watched(config, read), (16, 16, 1))
    assert keys(settings.RULES) - read == set()
