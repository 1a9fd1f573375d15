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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/robustjax/blob/main/notebooks/02_perturbations_and_smoothing.ipynb)
#
# # Perturbations and smoothed labels
#
# SPIDER ("Utilizing Label Smoothing as a Tool for Embedding Perturbation Uncertainty", Algorithm 2) and ESP ("Exponential Smoothing
# on Perturbations for Increasing Robustness to Data Corruptions", Algorithm 1) move each training image in a random direction and
# trust its label less the farther it went. Their pieces are public functions, looked at here one by one: how far (the radius),
# whereto (the direction, within the box of pixels), how much is still believed (the confidence), and the targets that come of it.
#
# Distances are L2 norms in units of [0, 1] pixels throughout.

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
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

from robustjax import augment, core, data
from robustjax.evaluate import boundary, figures

plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False})
C = 10  # classes
TAU, XI = 8.0, 0.4  # SPIDER: largest radius; confidence above 1/C at that radius
EPSILON = 4.0  # ESP: mean size, where smoothing begins; its tau is EPSILON too
GAMMA = 10.0  # ESP: how much more probable the label softened most is than each other class
ESP_XI = augment.xi_from_ratio(GAMMA, num_classes=C)
print(f"ESP's gamma = {GAMMA:g} is xi = {ESP_XI:.3f}")

# %% [markdown]
# ## How far: the law of the radius
#
# SPIDER draws $r \sim U(0, \tau)$: as many small perturbations as large ones. A point uniform in the *ball* of 3072 dimensions
# (a CIFAR image) nearly always lies at the ball's surface, which is what plain noise does as well. ESP draws from a Gaussian
# around $\epsilon$ with $\sigma = \tau / 2$, cut to $[\epsilon - \tau, \epsilon + \tau]$.

# %%
keys = core.example_keys(jax.random.key(0), jnp.arange(2_000 if QUICK else 20_000))
radii = {
    r"SPIDER: uniform on $[0, \tau]$": augment.uniform_radius(keys, tau=TAU),
    r"ESP: cut Gaussian around $\epsilon$": augment.truncated_normal_radius(
        keys, mean=EPSILON, stddev=EPSILON / 2, low=0.0, high=2 * EPSILON
    ),
    r"uniform in the ball of radius $\tau$": augment.ball_radius(keys, tau=TAU, dimension=3072),
}
figure, axes = plt.subplots(1, 3, figsize=(10, 2.6), sharex=True)
axes[0].set(ylabel="density")
for axis, (title, drawn) in zip(axes, radii.items(), strict=True):
    axis.hist(np.asarray(drawn), bins=np.linspace(0, 8.4, 43), density=True, color="#4c6a92")
    axis.set(title=title, xlabel=r"radius $\|\delta\|_2$", ylim=(0, None if "ball" in title else 0.3))

# %% [markdown]
# ## How much is still believed: the confidence $s(\|\delta\|)$
#
# SPIDER trusts the label fully up to $\tau/4$, ESP up to $\epsilon$; from there the confidence falls exponentially to
# $1/C + \xi$ at the largest size. Both papers print a $\lambda$ that misses this end point; `exponential_confidence` goes through
# it (`docs/spider.md`, `docs/esp.md`). Dotted: where smoothing begins, and 1/C. Below the curves: where the sizes are, as in the left part
# of ESP's Figure 2.

# %%
sizes = jnp.linspace(0, 8, 401)
figure, axes = plt.subplots(2, 2, figsize=(9, 4.4), sharex=True, sharey="row", height_ratios=[2, 1])
axes[0, 0].set(ylabel="confidence in the label")
axes[1, 0].set(ylabel="density of sizes")
for xi in (0.1, 0.25, 0.4):
    axes[0, 0].plot(
        sizes, augment.exponential_confidence(sizes, start=TAU / 4, width=3 * TAU / 4, floor=1 / C + xi), label=rf"$\xi$ = {xi:g}"
    )
for gamma in (2.0, 10.0, 100.0):
    xi = augment.xi_from_ratio(gamma, num_classes=C)
    curve = augment.exponential_confidence(sizes, start=EPSILON, width=EPSILON, floor=1 / C + xi)
    axes[0, 1].plot(sizes, curve, label=rf"$\gamma$ = {gamma:g} ($\xi$ = {xi:.2f})")
for column, (title, start, law) in enumerate((("SPIDER", TAU / 4, 0), ("ESP", EPSILON, 1))):
    axes[0, column].axhline(1 / C, color="black", linestyle=":", linewidth=1)
    axes[0, column].axvline(start, color="black", linestyle=":", linewidth=1)
    axes[0, column].legend(loc="lower left", bbox_to_anchor=(0, 0.1))
    axes[0, column].set(title=title, ylim=(0, 1.05))
    axes[1, column].hist(np.asarray(list(radii.values())[law]), bins=np.linspace(0, 8, 41), density=True, color="#b8c4d6")
    axes[1, column].set(xlabel=r"size $\|\delta\|_2$", ylim=(0, 0.3))

# %% [markdown]
# ## Whereto: a direction, within the box
#
# One photograph at 32 pixels, one direction, several sizes. The confidence is SPIDER's for $\tau$ = 20, the end of the paper's search.


# %%
def photograph(name, size):
    """The middle of one of scikit-learn's two photographs, float32 (size, size, 3) in [0, 1]."""
    from PIL import Image

    whole = Image.fromarray(load_sample_image(f"{name}.jpg")).crop((106, 0, 533, 427))
    return np.asarray(whole.resize((size, size), Image.Resampling.LANCZOS), np.float32) / 255


SIZES = (0, 1, 2, 5, 10, 15, 20)
image = jnp.asarray(photograph("china", 32))[None]
direction = augment.sphere_directions(core.example_keys(jax.random.key(1), [0]), image)
many = [jnp.concatenate([each] * len(SIZES)) for each in (image, direction)]
moved = many[0] + augment.rescale_to_box(*many, jnp.array(SIZES, jnp.float32))
confidence = augment.exponential_confidence(jnp.array(SIZES, jnp.float32), start=5, width=15, floor=1 / C + XI)
figure, axes = plt.subplots(1, len(SIZES), figsize=(11, 2))
for axis, shown, size, sure in zip(axes, moved, SIZES, confidence, strict=True):
    axis.imshow(shown, interpolation="nearest")
    axis.set(title=rf"$\|\delta\|$ = {size}" + f"\ns = {sure:.2f}", xticks=[], yticks=[])

# %% [markdown]
# Clipping to the box alone loses a part of the perturbation: on digits, whose pixels are mostly black, a fifth of a radius of 2 and more
# than a third of 10. The label would be softened for a distance that the image never went. `rescale_to_box` lets the other pixels make
# up for what is clipped (SPIDER, appendix E.1.1). Lines: mean of 100 digits; bands: from the smallest to the largest.

# %%
digits = jnp.asarray(data.make("digits").test.images[:100], jnp.float32) / 255
directions = augment.sphere_directions(core.example_keys(jax.random.key(2), jnp.arange(100)), digits)
asked = jnp.linspace(0, 10, 21)


@jax.jit
def went(radius):
    """How far 100 digits are from where they were: clipped, and rescaled."""
    changes = jnp.clip(digits + radius * directions, 0, 1) - digits, augment.rescale_to_box(digits, directions, radius)
    return [jnp.sqrt(jnp.sum(change**2, axis=(1, 2, 3))) for change in changes]


distances = np.array([went(radius) for radius in asked])
figure, axis = plt.subplots(figsize=(4.4, 3.2))
for i, title in enumerate(("clipped", "rescaled (rescale_to_box)")):
    axis.plot(asked, distances[:, i].mean(1), label=title)
    axis.fill_between(asked, distances[:, i].min(1), distances[:, i].max(1), alpha=0.25)
axis.set(xlabel="radius asked for", ylabel="distance gone", xlim=(0, 10), ylim=(0, 10.3))
axis.legend(loc="upper left")
axis.grid(alpha=0.3)

# %% [markdown]
# ## The targets
#
# `augment.spider` and `augment.esp` do all of this for a batch, inside jit if you like. Eight draws for one digit, sorted by size: what is
# seen in training, and its target. The same keys give both methods the same directions; their sizes follow their own laws.

# %%
count = 8
batch, labels = jnp.concatenate([digits[:1]] * count), jnp.full(count, data.make("digits").test.labels[0])
keys = core.example_keys(jax.random.key(4), jnp.arange(count))
made = {
    "SPIDER": augment.spider(keys, batch, labels, tau=TAU, xi=XI, num_classes=C),
    "ESP": augment.esp(keys, batch, labels, epsilon=EPSILON, tau=EPSILON, xi=ESP_XI, num_classes=C),
}
for name, perturbed in made.items():
    order = jnp.argsort(perturbed.size)
    figure, axes = plt.subplots(2, count, figsize=(11, 2.8), height_ratios=[1.6, 1], sharey="row")
    for (above, below), shown, target, size in zip(axes.T, *(array[order] for array in perturbed), strict=True):
        above.imshow(shown[..., 0], cmap="gray", vmin=0, vmax=1)
        above.set(title=rf"$\|\delta\|$ = {size:.1f}", xticks=[], yticks=[])
        below.bar(range(C), target, color="#4c6a92")
        below.set(xticks=(0, 3, 6, 9), ylim=(0, 1.05))
    axes[0, 0].set_ylabel(name)
    axes[1, 0].set_ylabel("target")

# %% [markdown]
# ## What it does to a boundary
#
# Two spirals, a small network trained four ways (ESP's Figure 1; SPIDER's Figure 1 b draws the idea). Network and sizes are ours; the papers
# print none. With smoothed labels the probability follows the distance to the data. The same at full size: `launch/figures.py --figure=boundary`.

# %%
settings = boundary.SETTINGS._replace(steps=20, hidden=1) if QUICK else boundary.SETTINGS
spirals = boundary.boundaries(sizes=(0.14,), points=11 if QUICK else 91, settings=settings)
with plt.rc_context({"figure.constrained_layout.use": False}):
    figure = figures.figure(spirals)
