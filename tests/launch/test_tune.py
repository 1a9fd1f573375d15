"""launch/tune.py as a user meets it: killed for real, and taken up again."""

import re
import shlex
import time

from robustjax.io import log
from tests.launch import commands

CONFIG = (
    "--config=configs/spider/digits.py:quick",
    "--config.data.limit_train=128",
    "--config.model.options.width=4",
    "--config.epochs=2",
)


def test_killed_search_loses_no_finished_trial(tmp_path):
    # Kills: a trial that stays 'running' for ever; a command that trains something else.
    arguments = (*CONFIG, f"--workdir={tmp_path}", "--trials=2", "--name=small", "--space=tau=2", "--space=xi=0.1,0.3")
    folder = tmp_path / "small"
    process = commands.start("tune", *arguments)
    while process.poll() is None and not log.read_lines(folder / "trial_001" / "log.jsonl"):
        time.sleep(0.002)
    process.kill()
    _, err = process.communicate()
    assert process.returncode == -9, err
    first = (folder / "trial_000" / "log.jsonl").read_bytes()
    done = commands.run("tune", *arguments)
    assert done.returncode == 0, done.stderr
    assert "trial 1 was interrupted" in done.stderr and "2 of 2 trials are done" in done.stderr
    assert (folder / "trial_000" / "log.jsonl").read_bytes() == first
    assert sorted(path.name for path in folder.glob("trial_*")) == ["trial_000", "trial_002"]
    assert "quick, not comparable" in done.stdout and "Validation images: clean." in done.stdout
    assert "| equivalent non-pruned trials | 2.00 |" in done.stdout and f"{folder}/search.png" in done.stdout
    command = shlex.split(re.search(r"^Next: (.*)$", done.stdout, re.MULTILINE).group(1))
    assert command[:2] == ["python", "launch/train.py"] and command[2 : 2 + len(CONFIG)] == list(CONFIG)
    best = re.search(r"^\| best trial, of 2 \(from 0\) \| (\d+) \|$", done.stdout, re.MULTILINE).group(1)
    method = {part.partition("=")[0]: float(part.partition("=")[2]) for part in command if part.startswith("--config.method.")}
    assert set(method) == {"--config.method.tau", "--config.method.xi"} and command[-1] == f"--workdir={folder}/best"
    row = re.search(rf"^\| {best} \| (\S+) \| (\S+) \|", done.stdout, re.MULTILINE).groups()
    assert row == tuple(f"{method[f'--config.method.{name}']:.4g}" for name in ("tau", "xi"))
