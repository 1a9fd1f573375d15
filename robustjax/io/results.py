"""Results are files: one JSON for each measured thing, written whole or not at all.

A result says what was measured (`name`, `metrics` with the unit in each key), on how many examples (`n`), of which run
(`run`: config hash, seed, step, data, ...) and where (`environment`). `read` refuses a file that lacks any of it.
"""

import contextlib
import hashlib
import json
import os
import platform
import tempfile
from importlib import metadata
from pathlib import Path

import jax

from robustjax.core.check import InputError

FIELDS = {"name": str, "metrics": dict, "n": int, "seconds": float, "run": dict, "environment": dict}


def canonical(value):
    """Returns `value` as JSON would give it back: tuples become lists, keys strings; so that fresh and stored ones compare.

    >>> canonical({"a": (1, 2)})
    {'a': [1, 2]}
    """
    return json.loads(json.dumps(value))


def config_hash(config: dict) -> str:
    """Returns 12 hexadecimal digits that name a configuration; equal dicts give equal digits, whatever their order.

    >>> config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


# These change where or whether a run runs, not its numbers; but for those of geometry and noise, which stand in the results that they change.
_MAY_DIFFER = (("data", "dir"), ("allow_slow",), ("evaluation", "geometry"), ("evaluation", "noise"))


# Keys that version 0.1 did not have, each with what it did.
_ADDED = (
    (("selection",), {"data": "clean"}),
    (("evaluation", "reference"), "auto"),
    (("evaluation", "sensor"), {}),
    (("evaluation", "autoattack"), {"threats": [], "version": "standard"}),
    (("evaluation", "geometry"), {}),
)

# Likewise, of later ones: left out where they say this, so that the hash of a configuration stays what it was.
_ADDED_LATER = (
    (("selection", "attack"), {}),
    (("objective",), {"name": "classification"}),
    (("awp",), {"gamma": 0.0, "warmup_epochs": 0.0, "loss": "base"}),
    (("remat",), False),
    (("init",), ""),
    (("optimizer", "swa_epoch"), 0),
    (("evaluation", "noise"), {}),
    (("data", "copies"), ""),
    (("penalty",), {"l1": 0.0, "l2": 0.0}),
)


def completed(config: dict) -> dict:
    """Returns a copy of a stored configuration with the keys that older versions lacked, so that their runs can still be measured.

    >>> completed({"evaluation": {"sensor": {"a": 1}, "autoattack": {}}})["evaluation"]
    {'sensor': {'a': 1}, 'autoattack': {}, 'reference': 'auto', 'geometry': {}, 'noise': {}}
    """
    config = canonical(config)
    for (*parents, key), value in _ADDED + _ADDED_LATER:
        inner = config
        for parent in parents:
            inner = inner.get(parent, {})
        inner.setdefault(key, canonical(value))
    if isinstance(config.get("method"), dict):  # options that nobody set, as train.settings leaves them out
        config["method"] = {option: value for option, value in config["method"].items() if value is not None}
    return config


def comparable(config: dict) -> dict:
    """Returns a copy of a configuration without the keys that do not change its numbers."""
    config = completed(config)
    for *parents, key in _MAY_DIFFER:
        inner = config
        for parent in parents:
            inner = inner.get(parent, {})
        inner.pop(key, None)
    for (*parents, key), value in _ADDED_LATER:
        inner = config
        for parent in parents:
            inner = inner.get(parent, {})
        if inner.get(key) == value:
            del inner[key]
    return config


def environment() -> dict:
    """Returns versions and hardware, for the result files."""
    device = jax.devices()[0]
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
    return {
        "python": platform.python_version(),
        **versions,
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "devices": jax.device_count(),
        "cpus": os.cpu_count(),
    }


@contextlib.contextmanager
def writing(path: str | os.PathLike):
    """Turns the operating system's refusal to write `path` (disk full, folder gone) into one line."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}. Free space or choose another folder; nothing else is lost."
        ) from error


def write_json(path: str | os.PathLike, value) -> None:
    """Writes `value` to `path` as JSON, atomically: a reader or a kill never sees half a file.

    Raises:
        InputError: if the folder cannot be written or the disk is full.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                json.dump(value, file, indent=1)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                os.unlink(file.name)
                raise
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)


def read_json(path: str | os.PathLike):
    """Returns the contents of a JSON file, or None where there is none or only a damaged one."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return None


def read(path: str | os.PathLike) -> dict | None:
    """Returns the result stored at `path`, or None where there is none or it is not a whole result."""
    result = read_json(path)
    if not isinstance(result, dict):
        return None
    whole = all(isinstance(result.get(field), kind) for field, kind in FIELDS.items())
    return result if whole else None


def check_folder(out: Path, manifest: str, about: dict) -> None:
    """Refuses a folder that is another set or no set. Hidden files are no matter: a kill leaves a lock and temporary ones.

    Args:
        out: the folder, which need not be there.
        manifest: name of the file that says what the set is.
        about: what it must say.

    Raises:
        InputError: in one line, which names what differs.
    """
    stored = read_json(out / manifest)
    if stored is None:
        strange = sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) if out.is_dir() else []
        if strange:
            raise InputError(f"{out} holds other files ({', '.join(strange[:4])}); choose an empty or new folder as --out.")
    elif stored != canonical(about):
        wanted, none = canonical(about), object()
        differing = [key for key in {**wanted, **stored} if stored.get(key, none) != wanted.get(key, none)]
        changed = [f"{key} {stored[key]!r}" if key in stored else f"no {key}" for key in differing]
        raise InputError(f"{out} was begun with other settings ({'; '.join(changed)[:200]}); repeat those, or choose another --out.")
