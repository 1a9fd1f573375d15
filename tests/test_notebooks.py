"""The notebooks run from top to bottom in their quick form; what is saved is what their sources say, with outputs that belong there."""

import ast
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

from tests.launch import commands

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
EVERY = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
SETUP = 1  # place of the cell that fetches robustjax
LARGEST = 600_000  # bytes


def saved(source: Path) -> nbformat.NotebookNode:
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def calls(code: str) -> set[str]:
    """Returns the names of functions that a cell calls when it is run, those inside of its own definitions left out."""
    found, waiting = set(), list(ast.parse(code).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Call):
            found.add(node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""))
        waiting.extend(ast.iter_child_nodes(node))
    return found


def told(output: nbformat.NotebookNode) -> str:
    """Returns the text of an output."""
    return output.get("text", "") + "".join(value for kind, value in output.get("data", {}).items() if kind.startswith("text/"))


@EVERY
def test_runs(source, tmp_path):
    # Kills: a notebook that a change of the library broke; files left in the folder.
    before = sorted(source.parent.iterdir())
    environment = commands.environment(ROBUSTJAX_QUICK="1", TMPDIR=str(tmp_path))
    done = subprocess.run([sys.executable, source], cwd=source.parent, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(source.parent.iterdir()) == before


@EVERY
def test_saved_notebook_is_its_source(source):
    # Kills: a source that was changed without `python launch/notebooks.py`, or a notebook changed by hand.
    script, notebook = jupytext.read(source), saved(source)
    nbformat.validate(notebook)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [(cell.cell_type, cell.source) for cell in script.cells]


@EVERY
def test_outputs_are_there(source):
    # Kills: a notebook saved without its outputs, out of order, after an error, or with what only its author's machine said.
    cells = [cell for cell in saved(source).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        shown = "".join("." if "image/png" in output.get("data", {}) else "" for output in cell.outputs)
        assert bool(calls(cell.source) & {"subplots", "figure", "show"}) == bool(shown), cell.source
        assert cell.outputs or "print" not in calls(cell.source), cell.source
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data") and output.get("name") != "stderr", cell.source
            assert not re.search(r"(?<!\w)/(home|root|tmp|usr|var|opt|work|mnt|Users|private)/", told(output)), cell.source


@EVERY
def test_size(source):
    # Keeps out: notebooks that weigh down every clone.
    assert source.with_suffix(".ipynb").stat().st_size < LARGEST


def test_all_begin_alike():
    # Kills: a badge of another notebook or repository; a set-up cell that was mended in one notebook only.
    (repository,) = re.findall(r'^repository-code: "https://github\.com/(.*)"$', (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    readme = (ROOT / "README.md").read_text()
    setups = set()
    assert len(SOURCES) == 6
    for source in SOURCES:
        first, setup = jupytext.read(source).cells[:2]
        link = f"(https://colab.research.google.com/github/{repository}/blob/main/notebooks/{source.stem}.ipynb)"
        assert first.source.startswith("[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]" + link)
        assert link in readme and f"(notebooks/{source.stem}.ipynb)" in readme
        setups.add(setup.source)
    assert len(setups) == 1 and f'REPOSITORY = "https://github.com/{repository}"\n' in setups.pop()


@pytest.fixture
def setup(monkeypatch):
    """Returns what runs the set-up cell and gives the commands that it ran."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run() -> list[list[str]]:
        commands = []

        def record(command, *, check):
            assert check
            commands.append(list(map(str, command)))
            if command[0] == "git":
                Path(command[-1]).mkdir()

        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "run", record)
            exec(jupytext.read(SOURCES[0]).cells[SETUP].source, {})
        return commands

    return run


def test_setup_does_nothing_where_robustjax_is(setup, monkeypatch):
    # Kills: an installation over a working one.
    monkeypatch.chdir(ROOT / "notebooks")
    assert setup() == [] and sys.path[0] == str(ROOT)


def test_setup_leaves_jax_as_it_is(setup, monkeypatch, tmp_path):
    # Kills: an upgrade of a jax that Colab has compiled for its accelerators; other packages held back.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    clone, install = setup()
    assert clone[:2] == ["git", "clone"] and clone[-1] == install[-1] == sys.path[0] == "robustjax-checkout"
    assert install[1:4] == ["-m", "pip", "install"] and not {"-U", "--upgrade"} & set(install)
    assert "--constraint=constraints.txt" in install
    kept = dict(line.split("==") for line in (tmp_path / "constraints.txt").read_text().splitlines())
    assert {"jax", "jaxlib", "numpy"} <= kept.keys() and "jaxtyping" not in kept
    assert all(importlib.metadata.version(name) == version for name, version in kept.items())


def test_launcher_names_what_it_knows():
    # Kills: a misspelt name that runs nothing in silence.
    done = commands.run("notebooks", "--only=01_quickstart,05_geometri")
    assert done.returncode == 2 and "unknown notebook '05_geometri'; did you mean '05_geometry'?" in done.stderr


def test_calls_are_those_that_run():
    # Kills: definitions counted as calls; calls in loops, in arguments or of attributes missed.
    assert calls("def f():\n    print(1)\nfor i in range(2):\n    plt.subplots(g(i))\nh = lambda: show()") == {"range", "subplots", "g"}
