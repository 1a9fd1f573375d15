"""What every launcher shares: the checkout on the path, the compilation cache, errors in one line.

Import this before robustjax.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # configs/ is not installed

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags, logging  # noqa: E402

from robustjax.core.check import InputError  # noqa: E402

_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def cache_compilations() -> None:
    """Keeps compiled programs between runs, in JAX_COMPILATION_CACHE_DIR or ~/.cache/robustjax."""
    import jax

    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "robustjax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def run(main) -> None:
    """Runs a launcher: what a user can mend is printed in one line, with exit status 2."""

    def wrapped(argv):
        if len(argv) > 1:
            raise app.UsageError(f"unexpected argument {argv[1]!r}: options are written --name=value.")
        logging.set_verbosity(logging.ERROR)  # Orbax tells each of its steps at level info
        cache_compilations()
        try:
            main()
        except InputError as error:
            if _DEBUG.value:
                raise
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("stopped; the same command goes on from the last checkpoint or result.", file=sys.stderr)
            sys.exit(130)

    try:
        app.run(wrapped, flags_parser=_parse)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Configuration files and their overrides are read while flags are parsed.
        if "--debug" in sys.argv:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def _parse(argv):
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        print(f"error: {error}\nSee {argv[0]} --help.", file=sys.stderr)
        sys.exit(2)
