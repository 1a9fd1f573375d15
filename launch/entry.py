"""What every launcher shares: the checkout on the path, the compilation cache, errors in one line.

Import this before robustjax.
"""

import ast
import contextlib
import functools
import itertools
import os
import runpy
import sys
import traceback
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # configs/ is not installed

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags, logging  # noqa: E402

from robustjax.core import registry  # noqa: E402
from robustjax.core.check import InputError  # noqa: E402

# Parts of a configuration that may hold more than its file says.
_OPEN = ("augment_options", "data.options", "model.options", "selection.attack")
_OPEN += tuple(f"evaluation.{name}" for name in ("sensor", "attacks", "geometry", "noise"))

_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def cache_compilations() -> None:
    """Keeps compiled programs between runs, in JAX_COMPILATION_CACHE_DIR or ~/.cache/robustjax."""
    import jax

    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "robustjax"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def literal(text: str):
    """Returns what a text says in Python, 224 for "224"; what is no literal is a string."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def run(main) -> None:
    """Runs a launcher: what a user can mend is printed in one line, with exit status 2; warnings are one line too."""

    def wrapped(argv):
        # Orbax tells its steps and the tracebacks of its threads; what fails reaches us as an exception.
        logging.set_verbosity(logging.FATAL)
        cache_compilations()
        warnings.formatwarning = lambda message, *place, **more: f"warning: {message}\n"
        from robustjax.core import processes

        try:
            main()
        except KeyboardInterrupt as stop:
            _tell(str(stop) or "stopped; the same command goes on from the last checkpoint or result.")
            status = getattr(stop, "status", 130)
        except Exception as error:
            if isinstance(error, InputError) and not _DEBUG.value:
                _tell(f"error: {error}")
                status = 2
            else:
                _tell(traceback.format_exc().rstrip())
                status = 1
        else:
            return
        processes.leave(status)
        sys.exit(status)

    app.run(wrapped, flags_parser=_parse)


def _tell(text: str) -> None:
    """Prints on stderr, if anybody still reads it (an ssh that was cut off does not): what comes after has to be done all the same."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)


def _parse(argv):
    """Reads the flags, and with them the configuration's file and its overrides."""
    try:
        rest = flags.FLAGS(argv)
        if "config" in flags.FLAGS:
            flags.FLAGS.config.to_dict()  # a file that cannot be found is noticed when it is first looked at
        if len(rest) == 1:
            return rest
        problem = f"unexpected argument {rest[1]!r}: options are written --name=value."
    except OSError:
        known = (str(path.relative_to(ROOT)) for path in ROOT.glob("configs/*/*.py") if path.stem != "__init__")
        problem = str(registry.unknown("configuration", _config_file(argv)[0], known))
    except (AttributeError, KeyError):
        problem = _unknown_key(argv)
    except (flags.Error, TypeError, ValueError) as error:
        # What a configuration's file raises arrives with its traceback in the text; its last line says what it is.
        lines = str(error).strip().splitlines()
        problem = lines[-1] if "Traceback" in str(error) else " ".join(lines)
    if "--debug" in argv:
        raise ValueError(problem)
    print(f"error: {problem} See {argv[0]} --help.", file=sys.stderr)
    sys.exit(2)


def _unknown_key(argv: list[str]) -> str:
    """Names the first override whose key the configuration does not have, and the nearest that it has."""
    path, text = _config_file(argv)
    config = runpy.run_path(path)["get_config"](text).to_dict()
    known = [f"config.{key}" for key in flattened(config)]
    asked = (argument.lstrip("-").partition("=") for argument in argv if argument.lstrip("-").startswith("config."))
    key, _, value = next((found for found in asked if found[0] not in known), ("?", "", ""))
    section = next((f"config.{name}" for name in _OPEN if key.startswith(f"config.{name}.")), None)
    if section is None:
        return str(registry.unknown("configuration key", key, known))
    problem = registry.unknown("configuration key", key, [name for name in known if name == section or name.startswith(f"{section}.")])
    whole = functools.reduce(dict.__getitem__, section.split(".")[1:], config)
    inner, (*parents, last) = whole, key.removeprefix(f"{section}.").split(".")
    for parent in parents:
        inner = inner.setdefault(parent, {})
        if not isinstance(inner, dict):
            return str(problem)
    inner[last] = literal(value)
    return f'{problem} To add to {section}, give the whole of it: --{section}="{whole}".'


def _config_file(argv: list[str]) -> tuple[str, str]:
    """Returns the path and the text behind ':' of --config."""
    for argument, following in itertools.pairwise([*argv, ""]):
        name, _, value = argument.lstrip("-").partition("=")
        if name == "config":
            path, _, text = (value or following).partition(":")
            return path, text
    return "", ""


def flattened(config: dict, prefix: str = "") -> dict:
    """Returns {"optimizer.lr": 0.1, ...} for nested dicts; of empty ones {"augment_options": {}}."""
    flat = {}
    for key, value in config.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat
