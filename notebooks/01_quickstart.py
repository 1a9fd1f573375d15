# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/robustjax/blob/main/notebooks/01_quickstart.ipynb)
#
# # Quickstart: train, corrupt, attack
#
# Trains the same small network twice on scikit-learn's handwritten digits (16x16 pixels), once as usual and once with SPIDER
# (Algorithm 2 of "Utilizing Label Smoothing as a Tool for Embedding Perturbation Uncertainty"), and measures both: on clean
# images, under the fifteen corruptions of CIFAR-10-C at five severities, and under two PGD attacks. About a minute on two CPU cores.
#
# For numbers with error bars over three seeds: `launch/quickstart.sh`.

# %%
# On Colab this fetches robustjax; jax and numpy stay at the versions that are there. Where robustjax is installed it does nothing.
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = "https://github.com/OWNER/robustjax"
ROOT = next((str(p) for p in (Path.cwd(), *Path.cwd().parents) if (p / "configs" / "recipes.py").is_file()), "robustjax-checkout")
if not Path(ROOT).exists():
    subprocess.run(["git", "clone", "--quiet", "--depth=1", REPOSITORY, ROOT], check=True)
if importlib.util.find_spec("robustjax") is None:
    there = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    kept = [f"{name}=={version}" for name, version in there.items() if re.fullmatch("jax|jaxlib|jax[-_].*|numpy", name)]
    Path("constraints.txt").write_text("\n".join(kept))
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--constraint=constraints.txt", ROOT], check=True)
    importlib.invalidate_caches()
sys.path.insert(0, ROOT)
QUICK = os.environ.get("ROBUSTJAX_QUICK", "0") != "0"  # seconds, to see whether it runs; its numbers mean nothing

# %%
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from configs.spider import digits
from robustjax import attacks, core, data
from robustjax.evaluate import plots, report, run
from robustjax.evaluate.load import load
from robustjax.train import loop

plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True})

# %% [markdown]
# ## Train
#
# A run is a configuration and a folder. Called again on the same folder, `train` goes on from its last checkpoint.

# %%
METHODS = {"none": "baseline", "spider": "SPIDER"}
runs = {name: f"{tempfile.mkdtemp()}/{name}" for name in METHODS}
curves = {}
for name, workdir in runs.items():
    config = digits.get_config(f"method={name}" + (",quick" if QUICK else "")).to_dict()
    if QUICK:
        del config["evaluation"]["attacks"]["pgd_l2"]
    records = curves[name] = []
    summary = loop.train(config, workdir, quiet=True, on_validation=records.append)
    print(f"{METHODS[name]}: step {summary.step}, validation accuracy {100 * summary.validation_accuracy:.1f} %")

# %%
figure, axis = plt.subplots(figsize=(5, 3))
for name, records in curves.items():
    axis.plot([r["epoch"] for r in records], [100 * (1 - r["validation_accuracy"]) for r in records], "o-", label=METHODS[name])
axis.set(xlabel="epoch", ylabel="error on clean validation images, %", ylim=(0, None))
axis.legend()
axis.grid(alpha=0.3)

# %% [markdown]
# ## Measure
#
# `run.evaluate` needs the folder alone: network, data and attacks stand in its checkpoint. Each number becomes a file there.

# %%
measured = [(workdir, run.evaluate(workdir, suite="pgd" if QUICK else "corruptions,pgd", quiet=True)) for workdir in runs.values()]
made = report.collect(measured, title="Digits at 16x16 pixels, one seed")
names = [name for name in ("clean_accuracy", "mce", "pgd_l2_error", "pgd_linf_error") if name in made["rows"][0]["metrics"]]
print(f"{'method':>18}" + "".join(f"{name + ' %':>18}" for name in names))
for row in made["rows"]:
    print(f"{METHODS[row['method']]:>18}" + "".join(f"{100 * row['metrics'][name]['mean']:18.2f}" for name in names))

# %% [markdown]
# `mce` is the plain mean of the errors over corruptions and severities. What each number means, and when to doubt it: `docs/which_number.md`.

# %%
figure = plots.figure(made)

# %% [markdown]
# ## Look
#
# PGD within an L2 ball of radius 0.5 (in units of [0, 1] pixels) around eight test digits. Above each picture: what the network
# calls it; red: wrong.

# %%
test = data.make("digits").test
images, labels = jnp.asarray(test.images[:8], jnp.float32) / 255, jnp.asarray(test.labels[:8])
keys = core.example_keys(jax.random.key(0), jnp.arange(8))
threat = core.ThreatModel("l2", 0.5)

figure, axes = plt.subplots(3, 8, figsize=(9, 4))
rows = {"clean": (images, load(runs["none"]).logits_fn)}
for name, workdir in runs.items():
    logits_fn = load(workdir).logits_fn
    rows[f"attacked\n{METHODS[name]}"] = attacks.pgd(keys, logits_fn, images, labels, threat, steps=20, step_size=0.0625), logits_fn
for line, (title, (shown, logits_fn)) in zip(axes, rows.items(), strict=True):
    for axis, image, called, label in zip(line, shown, jnp.argmax(logits_fn(shown), axis=1), labels, strict=True):
        axis.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1)
        axis.set_title(int(called), color="black" if called == label else "red", fontsize=11, pad=2)
        axis.set(xticks=[], yticks=[])
    line[0].set_ylabel(title, rotation=0, ha="right", va="center")
