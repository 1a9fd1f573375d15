"""What the package exports."""

import importlib
import pkgutil

from robustjax import imaging


def test_every_module_is_exported():
    # Kills: a module left out of the package's names, whether it is one of them or its functions are.
    for module in (importlib.import_module(f"robustjax.imaging.{info.name}") for info in pkgutil.iter_modules(imaging.__path__)):
        exported = [getattr(imaging, name) for name in imaging.__all__]
        assert any(value is module or getattr(value, "__module__", None) == module.__name__ for value in exported), module.__name__
