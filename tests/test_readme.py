"""The README says what the results say, and names files that exist."""

import json
import re
from pathlib import Path

from robustjax.evaluate import report

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_tables_are_printed_from_the_results():
    # Kills: a number typed by hand. `python launch/report.py` mends it.
    marked = re.findall(r"<!-- results:(\w+) -->\n(.*?)<!-- /results -->", README, re.DOTALL)
    shown = ["quickstart", "cifar10_small", "rat_cifar10_small", "rat_cifar10_preact", "noise_digits", "noise_cifar10_small"]
    shown += ["augment_digits", "geometry_digits", "bfloat16_digits"]
    measured = ("training_cpu", "corruptions_cpu", "adversarial_cpu", "adversarial_gpu", "attacks_cpu")
    assert [name for name, _ in marked] == shown + [f"benchmark_{name}" for name in measured]
    for name, table in marked:
        stored = json.loads((ROOT / "results" / f"{name}.json").read_text())
        assert table == report.markdown(stored)


def test_links_and_folders_exist():
    # Kills: a link to a file that was moved.
    for target in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / target).exists(), target
    for folder in re.findall(r"`(robustjax/\w+)`", README):
        assert (ROOT / folder).is_dir(), folder


def test_quickstart_shows_what_it_claims():
    # The point of the project on its first page: lower error under corruption and under PGD-L2, by more than the standard error.
    rows = {row["method"]: row for row in json.loads((ROOT / "results" / "quickstart.json").read_text())["rows"]}
    assert rows["none"]["seeds"] == rows["spider"]["seeds"] and len(rows["none"]["seeds"]) == 3
    for name in ("mce", "pgd_l2_error"):
        base, ours = rows["none"]["metrics"][name], rows["spider"]["metrics"][name]
        error = ((base["std"] ** 2 + ours["std"] ** 2) / 3) ** 0.5
        assert base["mean"] - ours["mean"] > error


def test_quickstart_code_of_the_readme_runs():
    # Kills: an example that went stale. The names that a reader brings along are defined here.
    import jax
    import jax.numpy as jnp

    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    images = jax.random.uniform(jax.random.key(1), (2, 32, 32, 3))
    scope = {
        "ids": jnp.arange(2),
        "images": images,
        "labels": jnp.array([1, 2]),
        "logits_fn": lambda x: x.reshape(len(x), -1)[:, :10],
    }
    with jax.debug_key_reuse(False):  # the lines stand side by side; a reader would use one of them
        exec(code, scope)
    assert scope["perturbed"].targets.shape == (2, 10) and scope["adversarial"].shape == images.shape
