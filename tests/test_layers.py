"""The architecture, kept by reading the imports of every file: levels, absl in launch/ only, short files, docstrings.

Each test names what it keeps out, and the reader of imports is itself tested on sources that break the rules.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A package imports itself and packages of lower levels; packages of one level never import each other, but imaging may use core.
LEVELS = {
    "core": 0,
    "imaging": 0.5,
    **dict.fromkeys(("data", "models", "augment", "corruptions", "losses", "attacks", "metrics", "theory", "io"), 1),
    **dict.fromkeys(("train", "evaluate"), 2),
}
LINES = 420

LIBRARY = sorted((ROOT / "robustjax").rglob("*.py"))
EVERYTHING = [*LIBRARY, *(file for folder in ("launch", "configs", "tests") for file in sorted((ROOT / folder).rglob("*.py")))]


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def files(paths):
    return pytest.mark.parametrize("file", paths, ids=name_of)


def imported(source: str, package: tuple[str, ...]) -> Iterator[str]:
    """Yields the dotted name of everything that a file imports, at any depth; `package` resolves relative imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def breaches(source: str, package: tuple[str, ...]) -> list[str]:
    """Returns the imports of a file in robustjax/<package>/ that its level forbids."""
    own = package[1] if len(package) > 1 else None
    wrong = []
    for name in imported(source, package):
        top, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        outside = top in ("launch", "configs", "tests", "absl") or name.startswith("ml_collections.config_flags")
        sibling = top == "robustjax" and other in LEVELS and other != own
        if outside or (sibling and (own is None or LEVELS[other] >= LEVELS[own])):
            wrong.append(name)
    return wrong


@files(LIBRARY)
def test_imports_go_down(file):
    # Keeps out: sideways and upward imports; absl, launchers, configs and tests in the library.
    package = file.relative_to(ROOT).parent.parts
    assert breaches(file.read_text(), package) == []


@pytest.mark.parametrize(
    ("source", "package", "wrong"),
    [
        ("from robustjax import attacks", "robustjax.losses", ["robustjax.attacks"]),
        ("from robustjax.attacks import pgd", "robustjax.losses", ["robustjax.attacks.pgd"]),
        ("def f():\n    import robustjax.train.step as s", "robustjax.evaluate", ["robustjax.train.step"]),
        ("from ..train import loop", "robustjax.models", ["robustjax.train.loop"]),
        ("from .. import models", "robustjax.metrics", ["robustjax.models"]),
        ("from robustjax.imaging import jpeg", "robustjax.core", ["robustjax.imaging.jpeg"]),
        ("from robustjax import core", "robustjax", ["robustjax.core"]),
        ("from absl import flags", "robustjax.train", ["absl.flags"]),
        ("import configs.common", "robustjax.train", ["configs.common"]),
        ("from ml_collections import config_flags", "robustjax.train", ["ml_collections.config_flags"]),
        ("from robustjax.core import check\nfrom robustjax import imaging\nfrom . import pgd\nimport jax", "robustjax.attacks", []),
        ("from robustjax import attacks, io, core", "robustjax.evaluate", []),
        ("from robustjax.core.types import Scalar", "robustjax.imaging", []),
    ],
)
def test_the_rule_sees_every_form_of_import(source, package, wrong):
    # Kills: imports inside functions, relative ones or whole packages unseen; allowed ones refused.
    assert breaches(source, tuple(package.split("."))) == wrong


def test_every_package_has_a_level():
    # Keeps out: a new package that no rule covers.
    packages = {file.relative_to(ROOT / "robustjax").parts[0] for file in LIBRARY if file.parent != ROOT / "robustjax"}
    assert packages <= set(LEVELS)
    assert {"core", "models", "train"} <= packages  # the reader looks into the right folder


@files([file for file in EVERYTHING if not name_of(file).startswith("launch")])
def test_absl_belongs_to_the_launchers(file):
    # Keeps out: flags read anywhere else.
    assert [name for name in imported(file.read_text(), ()) if name.split(".")[0] == "absl"] == []


@files(EVERYTHING)
def test_files_stay_short(file):
    # Keeps out: files that nobody reads to the end.
    assert len(file.read_text().splitlines()) <= LINES


def undocumented(source: str) -> list[str]:
    """Returns the module and the public functions and classes that have no docstring; methods may rely on their Protocol's."""
    tree = ast.parse(source)
    missing = [] if not tree.body or ast.get_docstring(tree) else ["module"]
    public = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")]
    return missing + [node.name for node in public if not ast.get_docstring(node)]


@files(LIBRARY)
def test_public_names_are_documented(file):
    # Keeps out: modules, public functions and classes without a docstring.
    assert undocumented(file.read_text()) == []


def test_the_rule_sees_what_is_undocumented():
    # Kills: classes or the module not looked at; private names asked for docstrings.
    assert undocumented("class A:\n    x = 1\ndef f(): ...\ndef _g(): ...\ndef h():\n    'Doc.'\n") == ["module", "A", "f"]
    assert undocumented("") == []
