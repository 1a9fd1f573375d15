"""Prints the README's tables anew from results/*.json; with --check it only says whether they agree.

python launch/report.py
"""

import re
import sys

import entry  # isort: skip
from absl import flags

_CHECK = flags.DEFINE_bool("check", False, "Change nothing; exit with 1 if the README differs from the results.")
_MARK = re.compile(r"(<!-- results:(\w+) -->\n).*?(<!-- /results -->)", re.DOTALL)


def printed(readme: str) -> str:
    """Returns the README's text with every marked table printed from its results file."""
    from robustjax.core.check import InputError
    from robustjax.evaluate import report
    from robustjax.io import results

    def table(match: re.Match) -> str:
        stored = results.read_json(entry.ROOT / "results" / f"{match[2]}.json")
        if stored is None:
            raise InputError(f"README.md shows results/{match[2]}.json, which is not there or cannot be read.")
        return f"{match[1]}{report.markdown(stored)}{match[3]}"

    return _MARK.sub(table, readme)


def main() -> None:
    """Rewrites or checks README.md."""
    path = entry.ROOT / "README.md"
    before = path.read_text()
    after = printed(before)
    if _CHECK.value and before != after:
        print("README.md differs from results/; run python launch/report.py", file=sys.stderr)
        sys.exit(1)
    if before != after:
        path.write_text(after)


if __name__ == "__main__":
    entry.run(main)
