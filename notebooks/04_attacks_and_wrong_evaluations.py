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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/robustjax/blob/main/notebooks/04_attacks_and_wrong_evaluations.ipynb)
#
# # Attacks, and how evaluations go wrong
#
# Attacks a small network on scikit-learn's digits with PGD (Madry et al., 2018), APGD (Croce and Hein, 2020) and the first two stages of
# AutoAttack, then makes the usual mistakes on purpose, one by one, and shows which check notices. Robust accuracy under an attack is an
# *upper bound*: of several attacks the smallest number counts. Radii are in units of [0, 1] pixels.

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
import numpy as np

from configs.spider import digits
from robustjax import attacks, core, data, metrics
from robustjax.attacks import audit
from robustjax.core import check
from robustjax.evaluate.load import load
from robustjax.train import loop

plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## A network, and test images

# %%
config = digits.get_config("method=spider" + (",quick" if QUICK else "")).to_dict()
config["model"]["options"]["width"] = 8
workdir = f"{tempfile.mkdtemp()}/spider"
loop.train(config, workdir, quiet=True)
logits_fn = load(workdir).logits_fn

N = 32 if QUICK else 200
test = data.make("digits").test
images, labels = jnp.asarray(test.images[:N], jnp.float32) / 255, jnp.asarray(test.labels[:N])
keys = core.example_keys(jax.random.key(0), jnp.arange(N))


def accuracy(logits_fn, images):
    """Share of the images that are classified rightly, in percent."""
    return 100 * float(metrics.correct(logits_fn(images), labels).mean())


print(f"clean accuracy: {accuracy(logits_fn, images):.1f} %")

# %% [markdown]
# ## Three attacks
#
# Each takes keys, the network as a function images -> logits, images, labels and a threat model, and gives images within that ball
# and [0, 1]. APGD has no step size to choose. `autoattack` attacks only what is left of the stage before; its version `fast` (APGD on
# cross-entropy, then targeted APGD on the DLR loss) gives nearly AutoAttack's number in a fraction of the time, and is not called AutoAttack.

# %%
threat = core.ThreatModel("linf", 0.06)
STEPS = 5 if QUICK else 50
cascade = {"version": "custom", "attacks": [("apgd-ce", {"steps": STEPS})]} if QUICK else {"version": "fast"}
found = {
    "PGD-10": attacks.pgd(keys, logits_fn, images, labels, threat, steps=10, step_size=0.015),
    f"APGD-{STEPS}": attacks.apgd(keys, logits_fn, images, labels, threat, steps=STEPS),
}
result = attacks.autoattack(keys, logits_fn, images, labels, threat, **cascade)
found["fast"] = result.images
for name, adversarial in found.items():
    print(f"{name:>8}: robust accuracy {accuracy(logits_fn, adversarial):5.1f} %, largest change {jnp.abs(adversarial - images).max():.4f}")
for stage, entry in result.stages.items():
    print(f"   after {stage:>8}: {100 * entry['robust_accuracy']:5.1f} %, {entry['examples']} images entered")

# %% [markdown]
# What PGD-10 found, and the change: red pixels became brighter, blue ones darker, in full colour by the whole radius. Red numbers: wrong.

# %%
figure, axes = plt.subplots(3, 8, figsize=(9, 3.9))
pictures = {"clean": images, "PGD-10": found["PGD-10"], "change": 0.5 + (found["PGD-10"] - images) / (2 * threat.eps)}
called = {"clean": jnp.argmax(logits_fn(images), 1), "PGD-10": jnp.argmax(logits_fn(found["PGD-10"]), 1)}
for line, (name, shown) in zip(axes, pictures.items(), strict=True):
    for i, axis in enumerate(line):
        axis.imshow(shown[i, ..., 0], cmap="gray" if name != "change" else "RdBu_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        if name in called:
            axis.set_title(int(called[name][i]), color="black" if called[name][i] == labels[i] else "red", fontsize=11, pad=2)
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")

# %% [markdown]
# ## Mistake 1: too few steps, too short a step
#
# PGD's number depends on its steps. One step (FGSM-like), or twenty steps that together cannot cross the ball, overstate robustness.
# SPIDER prints an L2 step of 1/800: twenty of them move by 0.025 at most, in a ball of radius 0.5 (`docs/spider.md`).

# %%
COUNTS = (0, 1, 2, 3, 5, 10, 20, 50)
figure, axis = plt.subplots(figsize=(5.5, 3.2))
for share, style in ((0.25, "o-"), (0.025, "s--")):
    robust = {0: accuracy(logits_fn, images)}
    for steps in COUNTS[1:3] if QUICK else COUNTS[1:]:
        options = {"steps": steps, "step_size": share * threat.eps, "random_start": False}
        robust[steps] = accuracy(logits_fn, attacks.pgd(keys, logits_fn, images, labels, threat, **options))
    axis.plot(robust.keys(), robust.values(), style, label=f"step of {share:g} of the radius")
axis.axhline(100 * float(result.robust.mean()), color="black", linestyle=":", label="fast (APGD-CE + APGD-T)")
axis.set(xlabel="steps of PGD", ylabel="robust accuracy, %", xscale="symlog", xlim=(-0.1, 60), ylim=(0, 102))
axis.set_xticks(COUNTS, COUNTS)
axis.legend(fontsize=9)
axis.grid(alpha=0.3)

# %% [markdown]
# ## Mistake 2: gradients that say nothing
#
# Three wrappings of the same network that change hardly a prediction. Two of them weaken or blind a gradient attack; a softmax inside does little
# harm here, and more where it saturates. `check_logits_fn` looks at a handful of images before anything is attacked.

# %%
models = {
    "as trained": logits_fn,
    "softmax inside": lambda x: jax.nn.softmax(logits_fn(x)),
    "logits times 1,000": lambda x: 1000 * logits_fn(x),
    "rounded input": lambda x: logits_fn(jnp.round(15 * x) / 15),  # sixteen grey levels; the derivative of rounding is 0
}
for name, model in models.items():
    print(f"{name} (clean {accuracy(model, images):.1f} %)")
    for line in check.check_logits_fn(model, images, labels) or ["no warning"]:
        print(f"    {line}")

# %% [markdown]
# What PGD-10 on cross-entropy says of each, what the margin (`objective="cw"`) says, and what the images found on the network as trained do to
# it (a transfer attack). An image that one attack breaks is broken: a bar that stands above another of the same network overstates.

# %%
numbers = {}
for name, model in list(models.items())[: 2 if QUICK else None]:
    own = {
        objective: attacks.pgd(keys, model, images, labels, threat, steps=10, step_size=0.015, objective=objective)
        for objective in (("ce",) if QUICK else ("ce", "cw"))
    }
    numbers[name] = [accuracy(model, adversarial) for adversarial in (*own.values(), found["PGD-10"])]
figure, axis = plt.subplots(figsize=(7, 3))
bars = ("PGD-10, cross-entropy", "PGD-10, margin", "PGD-10 found on the network as trained")
for i, bar in enumerate(bars if not QUICK else bars[::2]):
    axis.bar([place + 0.27 * i for place in range(len(numbers))], [row[i] for row in numbers.values()], 0.25, label=bar)
axis.set_xticks([place + 0.27 for place in range(len(numbers))], list(numbers))
axis.set(ylabel="'robust' accuracy, %", ylim=(0, 135), yticks=range(0, 101, 20))
_ = axis.legend(fontsize=8, loc="upper left")

# %% [markdown]
# ## Mistake 3: normalisation outside of the network
#
# Here images are in [0, 1] and mean and deviation belong to the network. Normalised images are refused, since the ball and the box would be
# others. A network that wants them is noticed too, by what it does to accuracy:

# %%
normalised = (images - 0.5) / 0.5
try:
    attacks.pgd(keys, logits_fn, normalised, labels, threat, steps=10, step_size=0.015)
except core.InputError as error:
    print(error)
mean, std = images.mean(), images.std()


def wants_normalised(z):
    """A network that was trained on z = (x - mean) / std."""
    return logits_fn(jnp.clip(std * z + mean, 0, 1))


for line in check.check_logits_fn(wants_normalised, images, labels):
    print(line)

# %% [markdown]
# And a radius of normalised images is not one of pixels: with a deviation of 0.25, "eps = 0.06" is 0.015 in pixels, a quarter of the ball.

# %%
EPS = (0.06,) if QUICK else (0.015, 0.06)
for eps in EPS:
    ball = core.ThreatModel("linf", eps)
    adversarial = attacks.pgd(keys, logits_fn, images, labels, ball, steps=10, step_size=eps / 4)
    print(f"eps {eps:g}: robust accuracy {accuracy(logits_fn, adversarial):.1f} %")

# %% [markdown]
# ## The curve that must fall
#
# Accuracy against the radius shows most mistakes at a glance: it must fall, to 0 for radii at which every image can be made the same grey
# (0.5 in L-inf: a network can call that grey by one name only). The rounded network "withstands" any radius. `audit_curve` reads the curve.

# %%
RADII = (0.03, 0.5) if QUICK else (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5)
figure, axis = plt.subplots(figsize=(5.5, 3.2))
for name in ("as trained", "rounded input")[: 1 if QUICK else 2]:
    curve = {0.0: accuracy(models[name], images) / 100}
    for eps in RADII:
        ball = core.ThreatModel("linf", eps)
        adversarial = attacks.pgd(keys, models[name], images, labels, ball, steps=5 if QUICK else 20, step_size=eps / 5, best=True)
        curve[eps] = accuracy(models[name], adversarial) / 100
    axis.plot(curve.keys(), [100 * value for value in curve.values()], "o-", label=name)
    majority = float(np.bincount(labels).max() / N)
    for line in audit.audit_curve(curve, n=N, majority=majority):
        print(f"{name}: {line}")
axis.axhline(100 * majority, color="black", linestyle=":", linewidth=1, label="share of the commonest class")
axis.set(xlabel="L-inf radius, in units of [0, 1] pixels", ylabel="accuracy under PGD-20, %", ylim=(0, 102))
axis.legend(fontsize=9)
axis.grid(alpha=0.3)

# %% [markdown]
# `launch/evaluate.py --suite=autoattack --curve=linf:0,0.02,0.05,0.1,0.5` measures such curves of trained runs, and stores all of these warnings
# with the number. See `docs/which_number.md`.
