"""Writes docs/api.md: every public name with its signature and the first paragraph of its docstring; with --check only says whether it is current.

python launch/api.py

The sources are read and not imported, so that the page depends on nothing but them.
"""

import ast
import functools
import inspect
import re
import sys
from pathlib import Path

import entry  # isort: skip
from absl import flags

_CHECK = flags.DEFINE_bool("check", False, "Change nothing; exit with 1 if docs/api.md differs from the docstrings.")
_WIDTH = 120  # of a signature on one line
_HEAD = """# API reference

Made from docstrings by `python launch/api.py`; change those, not this page. It has what each package names in `__all__`; arguments, results,
errors and sources are in the full docstring, `help(robustjax.augment.spider)`. Images are float `(b, h, w, c)` in `[0, 1]`; `keys` holds
one typed PRNG key for each example, from `core.example_keys`. `io`, `train` and `evaluate` are what the launchers are made of and have no `__all__`.
"""


def page(root: Path) -> str:
    """Returns docs/api.md for the checkout at `root`."""
    sections = [section(init) for init in sorted((root / "robustjax").glob("*/__init__.py")) if public(_parsed(init))]
    contents = ", ".join(f"[{name}](#robustjax{name})" for name, _ in sections)
    return "\n".join([_HEAD, f"Packages: {contents}.", "", *(text for _, text in sections)])


def section(init: Path) -> tuple[str, str]:
    """Returns the name of a package and what the page says of it."""
    package, tree = init.parent.name, _parsed(init)
    lines = [f"## robustjax.{package}", "", paragraph(tree), ""]
    origins = {
        (alias.asname or alias.name): (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    for name in public(tree):
        file, node, text = found(init.parents[2], *origins[name])
        lines += [f"### {package}.{name}", "", *(["```python", written(node), "```", ""] if text is None else [])]
        lines += [
            f"{paragraph(node) if text is None else text} [{file.parent.name}/{file.name}](../{file.relative_to(init.parents[2])})",
            "",
        ]
    return package, "\n".join(lines)


def public(tree: ast.Module) -> list[str]:
    """Returns the names in `__all__`, none where there is none."""
    values = [node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"]
    return ast.literal_eval(values[0]) if values else []


def found(root: Path, module: str, name: str) -> tuple[Path, ast.AST, str | None]:
    """Returns the file that defines a name, the definition and, of modules and values, what is said of them."""
    file = root.joinpath(*module.split(".")).with_suffix(".py")
    submodule = root.joinpath(*module.split("."), f"{name}.py")
    if submodule.is_file():
        return submodule, _parsed(submodule), f"Module. {paragraph(_parsed(submodule))}"
    body = _parsed(file).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return file, node, None
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and name in map(
            ast.unparse, getattr(node, "targets", [getattr(node, "target", None)])
        ):
            return file, node, value_text(node, after)
    raise ValueError(f"{module} does not define {name}.")


def value_text(node: ast.Assign | ast.AnnAssign, after: ast.AST | None) -> str:
    """Returns what is said of a value: the text below it, and the keys of a table that is written out."""
    said = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
    said = said.strip().split("\n\n")[0] if isinstance(said, str) else ""
    keys = [key.value for key in node.value.keys if isinstance(key, ast.Constant)] if isinstance(node.value, ast.Dict) else []
    named = f"Table of {', '.join(f'`{key}`' for key in keys)}." if keys else ""
    return " ".join(filter(None, [" ".join(map(_escaped, said.split())), named])) or f"`{ast.unparse(node.value)}`."


def written(node: ast.FunctionDef | ast.ClassDef) -> str:
    """Returns a signature as code, one argument a line where one line would not hold it; of a class its fields and methods."""
    if isinstance(node, ast.FunctionDef):
        parts, returned = arguments(node.args), f" -> {ast.unparse(node.returns)}" if node.returns else ""
        line = f"{node.name}({', '.join(parts)}){returned}"
        return line if len(line) <= _WIDTH else "\n".join([f"{node.name}(", *(f"    {part}," for part in parts), f"){returned}"])
    bases = ", ".join(map(ast.unparse, node.bases))
    lines = [f"class {node.name}({bases})" if bases else f"class {node.name}"]
    for part in node.body:
        if isinstance(part, ast.AnnAssign):
            lines.append(ast.unparse(part))
        elif isinstance(part, ast.FunctionDef) and (part.name in ("__init__", "__call__") or not part.name.startswith("_")):
            is_property = any(ast.unparse(decorator) == "property" for decorator in part.decorator_list)
            lines += [part.name] if is_property else written(part).split("\n")
    return "\n    ".join(lines)


def arguments(given: ast.arguments) -> list[str]:
    """Returns the arguments of a signature one by one, the star among them."""
    plain = [*given.posonlyargs, *given.args]
    parts = list(map(_argument, plain, [*[None] * (len(plain) - len(given.defaults)), *given.defaults]))
    if given.posonlyargs:
        parts.insert(len(given.posonlyargs), "/")
    if given.vararg or given.kwonlyargs:
        parts.append(f"*{_argument(given.vararg, None) if given.vararg else ''}")
    parts += map(_argument, given.kwonlyargs, given.kw_defaults)
    return [*parts, f"**{_argument(given.kwarg, None)}"] if given.kwarg else parts


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    text = ast.unparse(argument)
    return text if default is None else f"{text}{' = ' if argument.annotation else '='}{ast.unparse(default)}"


def paragraph(node: ast.AST) -> str:
    """Returns the first paragraph of a docstring on one line, as Markdown."""
    text = inspect.cleandoc(ast.get_docstring(node) or "").split("\n\n")[0]
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    """Keeps Markdown from reading a formula as markup; what is between backticks stays."""
    parts = text.split("`")
    return "`".join(part if i % 2 else re.sub(r"([*\[\]<])", r"\\\1", part) for i, part in enumerate(parts))


@functools.cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def main() -> None:
    """Rewrites or checks docs/api.md."""
    path = entry.ROOT / "docs" / "api.md"
    before, after = path.read_text() if path.is_file() else "", page(entry.ROOT)
    if _CHECK.value and before != after:
        print("docs/api.md differs from the docstrings; run python launch/api.py", file=sys.stderr)
        sys.exit(1)
    if before != after:
        path.write_text(after)


if __name__ == "__main__":
    entry.run(main)
