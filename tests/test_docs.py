"""The pages under docs/ and CONTRIBUTING.md name what exists: functions, configurations and their keys, flags, files, links."""

import functools
import importlib
import json
import re
from pathlib import Path

import pytest

from configs import common
from robustjax import attacks, augment
from robustjax.core import registry
from robustjax.evaluate import figures, suites
from robustjax.train import build, settings
from tests.launch import commands

ROOT = Path(__file__).parents[1]
PAGES = [path for path in sorted((ROOT / "docs").glob("*.md")) if path.stem != "api"] + [ROOT / "CONTRIBUTING.md"]
EVERY = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)

PACKAGES = tuple(sorted(path.parent.name for path in (ROOT / "robustjax").glob("*/__init__.py")))
NAMES = re.compile(rf"(?<![\w./])(?:robustjax\.)?((?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+)(?![\w/])(?!\.(?:py|md|json)\b)")
FILES = re.compile(r"(?<![\w/])((?:configs|docs|launch|results|robustjax|tests)/[\w./-]*\w)(?::([\w=,|]+))?")
CONFIG = re.compile(r"(?:--)?config((?:\.[a-z_]\w*)+)")
FLAGS = re.compile(r"(?<![\w-])--([a-z_]+)(?![\w.-])")
VALUES = {
    "--suite=": suites.SUITES,
    "--attack_version=": suites.VERSIONS,
    "--figure=": figures.FIGURES,
    "--table=": json.loads((ROOT / "robustjax" / "reference" / "tables.json").read_text()),
    'preset\\("': attacks.PRESETS,
}


def code(text: str) -> list[str]:
    """Returns what stands between backticks, and the lines of blocks of code."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [*spans, *(line for block in blocks for line in block.splitlines())]


def wrong_names(text: str) -> list[str]:
    """Returns the names of the library that cannot be had."""

    def there(name: str) -> bool:
        parts, last = ["robustjax", *name.split(".")], None
        for stop in range(len(parts), 1, -1):
            try:
                last = importlib.import_module(".".join(parts[:stop]))
            except ModuleNotFoundError:
                continue
            break
        for part in parts[stop:]:
            if not hasattr(last, part):
                return False
            last = getattr(last, part)
        return last is not None

    return [name for span in code(text) for name in NAMES.findall(CONFIG.sub("", span)) if not there(name)]


def wrong_files(text: str) -> list[str]:
    """Returns paths that are not there, and configurations that do not take what stands behind ':'."""
    found = []
    for path, options in (match for span in code(text) for match in FILES.findall(span)):
        if "NAME" in path or "METHOD" in path:
            path = str(Path(path).parent if "METHOD" not in path else Path(path).parts[0])
        if not (ROOT / path).exists():
            found.append(path)
        elif options and path.startswith("configs/"):
            module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
            try:
                module.get_config(options)
            except ValueError as error:
                found.append(f"{path}:{options}: {error}")
    return found


@functools.cache
def keys() -> set[str]:
    """Returns every key of a configuration, from the top, parts included: 'objective', 'objective.reading', ..."""
    options = {"objective": build.OBJECTIVES, "method": augment.TABLE}
    known = {f"{part}.{option}" for part, table in options.items() for entry in table.values() for option in registry.option_names(entry)}
    known |= {f"augment_options.{stage}.{option}" for stage, entry in augment.TABLE.items() for option in registry.option_names(entry)}

    def walk(rules: dict, prefix: str) -> None:
        for key, rule in rules.items():
            known.add(prefix + key)
            if isinstance(rule, dict):
                walk(rule, f"{prefix}{key}.")

    walk(settings.RULES, "")
    return known | {f"objective.{key}" for key in ("name",)} | {"method.name"}


def wrong_keys(text: str) -> list[str]:
    """Returns keys of configurations that there are not; options of data sets and networks are not looked at."""
    free = ("data.options.", "model.options.")
    written = [match.removeprefix(".") for span in code(text) for match in CONFIG.findall(span)]
    return [key for key in written if key not in keys() and not key.startswith(free)]


@functools.cache
def flags() -> set[str]:
    """Returns the flags of all launchers."""
    sources = [path.read_text() for path in sorted((ROOT / "launch").glob("*.py"))]
    return {name for source in sources for name in re.findall(r'(?:flags|config_flags)\.DEFINE_\w+\(\s*"(\w+)"', source)}


def wrong_flags(text: str) -> list[str]:
    """Returns flags that no launcher has, and those of their values, presets and settings of geometry that there are not."""
    spans = code(text)
    found = [flag for span in spans for flag in FLAGS.findall(span) if flag not in flags()]
    for before, known in VALUES.items():
        named = [value for span in spans for values in re.findall(rf"{before}([\w/.,]+)", span) for value in values.split(",")]
        found += [value for value in named if value not in known]
    settings_of = [match for span in spans for match in re.findall(r"--geometry=(\w+)\.(\w+)", span)]
    return found + [".".join(pair) for pair in settings_of if pair[1] not in suites.GEOMETRY.get(pair[0], ())]


def wrong_links(page: Path, text: str) -> list[str]:
    """Returns links within the checkout that lead nowhere."""
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [target for target in targets if not (page.parent / target).exists()]


@EVERY
def test_pages_name_what_exists(page):
    # Kills: a function, option, flag, suite, configuration or file that was renamed and is still in the docs.
    text = page.read_text()
    assert (wrong_names(text), wrong_files(text), wrong_keys(text), wrong_flags(text), wrong_links(page, text)) == ([], [], [], [], [])


def test_the_readers_see_what_is_wrong():
    # Kills: a pattern that matches nothing.
    text = "`augment.spidr` `robustjax.losses.READINGS` `core.jets.second_order(...)` `data.make`, `config.data.name`"
    assert wrong_names(text) == ["augment.spidr"]
    text = "`configs/spider/cifar10.py:method=no_ls` `configs/spider/cifar10.py:method=x` `launch/no.py` `robustjax/models/NAME.py` `configs/METHOD/DATA.py`"
    assert [found.split(":")[0] for found in wrong_files(text)] == ["configs/spider/cifar10.py", "launch/no.py"]
    text = "`--config.method.tau=4` `config.objective.readng`\n```sh\ntrain --config.evaluation.nose=1 --config.model.options.width=1\n```"
    assert wrong_keys(text) == ["objective.readng", "evaluation.nose"]
    assert wrong_flags(
        "`--suite=full,ful` `--workdirs=x` `--config.seed=1` `--geometry=flatness.radius=1` `--table=esp/1` `--table=esp/2`"
    ) == [
        "workdirs",
        "ful",
        "esp/2",
        "flatness.radius",
    ]
    assert wrong_flags('`attacks.preset("fgsm")` `attacks.preset("fgm")`') == ["fgm"]
    assert wrong_links(ROOT / "README.md", "[a](docs/no.md) [b](README.md#x) [c](https://example.org)") == ["docs/no.md"]
    assert common.base().to_dict().keys() <= keys()


def test_api_page_is_current():
    # Kills: a docstring, signature or __all__ that changed without `python launch/api.py`.
    done = commands.run("api", "--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_api_page_has_every_public_name():
    # Kills: a package, a name or what is said of it left out.
    page = (ROOT / "docs" / "api.md").read_text()
    public = {package: getattr(importlib.import_module(f"robustjax.{package}"), "__all__", ()) for package in PACKAGES}
    named = [f"{package}.{name}" for package, names in sorted(public.items()) for name in names]
    assert re.findall(r"^### (.*)$", page, re.MULTILINE) == named
    said = re.findall(r"^(.*)\[[\w/]+\.py\]\(\.\./robustjax/[\w/]+\.py\)$", page, re.MULTILINE)
    assert len(said) == len(named) and all(text.strip() for text in said)


def test_readme_leads_to_the_pages():
    # Kills: a page that no reader finds.
    readme = (ROOT / "README.md").read_text()
    assert all(f"]({page.relative_to(ROOT)})" in readme for page in [*PAGES, ROOT / "docs" / "api.md"])
