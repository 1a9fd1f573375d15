"""launch/figures.py as a user meets it; the numbers are tested in tests/evaluate/test_figures.py."""

import json

from robustjax.train import loop
from tests import tiny
from tests.launch import commands


def test_trains_draws_and_says_where(tmp_path):
    # Kills: flags that do not reach the figure, sizes that stay text.
    loop.train(tiny.config(epochs=1), tmp_path / "run", quiet=True)
    out = tmp_path / "new" / "landscape.pdf"
    arguments = (f"--workdir={tmp_path / 'run'}", "--label=ours", "--ids=5", "--size=4/255", "--points=3", f"--out={out}")
    done = commands.run("figures", "--figure=landscape", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}\n{out.with_suffix('.json')}\n" and out.read_bytes()[:4] == b"%PDF"
    made = json.loads(out.with_suffix(".json").read_text())
    assert made["size"] == 4 / 255 and made["columns"][0]["id"] == 5 and made["rows"][0]["label"] == "ours"
    assert made["command"].startswith("python ") and "--ids=5" in made["command"]


def test_what_is_wrong_is_one_line(tmp_path):
    # Kills: tracebacks; a folder that is made for nothing.
    done = commands.run("figures", "--figure=boundary", "--size=1/0", f"--out={tmp_path}/new/figure.png")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr == "error: --size must be a number above 0 or a fraction, e.g. 0.1 or 16/255, got '1/0'.\n"
    assert not (tmp_path / "new").exists()
