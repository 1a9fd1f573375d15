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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/robustjax/blob/main/notebooks/05_geometry.ipynb)
#
# # Geometry: thickness, flatness, curvature
#
# Three geometric measures that papers set beside robustness: boundary thickness (Yang et al., 2020; SPIDER section 3.2), flatness of the
# minimum in the space of weights (SPIDER section 3.3 and Figure 2), and curvature of the loss over the image ("Discriminative loss and
# Gaussian noise injection", section 7.1, Eq. 21). Measured here on four small networks that were trained differently, beside what they
# are said to go with. Four networks of one seed are an illustration, no evidence; `results/geometry_digits.json` has three seeds.

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
from robustjax import attacks, core, corruptions, data, metrics
from robustjax.evaluate.load import load
from robustjax.losses import cross_entropy
from robustjax.train import loop

plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## Four networks
#
# One architecture and schedule; a plain one, standard label smoothing, SPIDER, and Madry's adversarial training (L2, radius 0.5).

# %%
METHODS = {"none": "baseline", "std_ls": "label smoothing", "spider": "SPIDER", "madry": "Madry, L2 0.5"}
if QUICK:
    METHODS = {name: METHODS[name] for name in ("none", "std_ls")}
networks = {}
for name, title in METHODS.items():
    config = digits.get_config(f"method={'none' if name == 'madry' else name}" + (",quick" if QUICK else "")).to_dict()
    if name == "madry":
        config["objective"] = {"name": "madry", "threat": "l2:0.5", "step_size": 0.125}
        config["epochs"] = 15
    workdir = f"{tempfile.mkdtemp()}/{name}"
    loop.train(config, workdir, quiet=True)
    networks[title] = load(workdir).logits_fn
COLOURS = dict(zip(networks, ("#4c6a92", "#8d6a9f", "#d1603d", "#5b8c5a"), strict=False))

# %% [markdown]
# `logits_fn` is a `jax.tree_util.Partial` whose arguments are the weights: what is compiled for one network serves them all.

# %%
N = 32 if QUICK else 200
test = data.make("digits").test
images, labels = jnp.asarray(test.images[:N], jnp.float32) / 255, jnp.asarray(test.labels[:N])
keys = core.example_keys(jax.random.key(0), jnp.arange(N))
table = {title: {} for title in networks}  # percent accuracy, and the measures below


def accuracy(logits_fn, images):
    """Percent of the images that are classified rightly."""
    return 100 * float(metrics.correct(logits_fn(images), labels).mean())


threat = core.ThreatModel("l2", 0.5)
names = ("gaussian_noise",) if QUICK else ("gaussian_noise", "impulse_noise", "defocus_blur", "contrast", "pixelate")
corrupted = [corruptions.corrupt(keys, images, name=name, severity=3) for name in names]
for title, logits_fn in networks.items():
    adversarial = attacks.pgd(keys, logits_fn, images, labels, threat, steps=5 if QUICK else 20, step_size=0.0625)
    row = table[title]
    row["clean"], row["PGD"] = accuracy(logits_fn, images), accuracy(logits_fn, adversarial)
    row["corrupted"] = float(np.mean([accuracy(logits_fn, each) for each in corrupted]))
    print(f"{title:>16}: clean {row['clean']:5.1f} %, corrupted {row['corrupted']:5.1f} %, PGD L2 0.5 {row['PGD']:5.1f} %")

# %% [markdown]
# ## Boundary thickness
#
# From an image to where a targeted attack brings it: how long does the difference $g_{ij}$ of the probabilities of the two classes lie
# between $\alpha$ = 0 and $\beta$ = 0.75? The attack is SPIDER's (appendix E.1.2). Lengths are in pixels; the papers divide them by 0.2.

# %%
segment, attack = attacks.preset("thickness")
target = metrics.other_classes(keys, labels, num_classes=10)
gaps = {}
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2))
axes[0].set(xlabel="place t on the segment from the image to the attacked image", ylabel=r"mean of $g_{ij}(x(t))$")
axes[1].set(xlabel="thickness, L2 in pixels of [0, 1] (dotted: mean)", ylabel="test images")
for title, logits_fn in networks.items():
    ends = attack(keys, logits_fn, images, labels, segment, targets=target)
    gaps[title] = metrics.segment_gaps(logits_fn, images, ends, labels, target, points=16 if QUICK else 128)
    thickness = metrics.thickness_of_gaps(gaps[title], images, ends, alpha=0, beta=0.75)
    table[title]["thickness"] = float(thickness.mean())
    axes[0].plot(np.linspace(0, 1, gaps[title].shape[1]), gaps[title].mean(0), color=COLOURS[title], label=title)
    axes[1].hist(np.asarray(thickness), bins=np.linspace(0, 1, 26), histtype="step", linewidth=1.6, color=COLOURS[title])
    axes[1].axvline(thickness.mean(), color=COLOURS[title], linestyle=":")
axes[0].axhspan(0, 0.75, color="black", alpha=0.07)
axes[0].legend(fontsize=9)
axes[0].grid(alpha=0.3)

# %% [markdown]
# ## Flatness
#
# The mean loss at a distance from the weights, in random directions (SPIDER Figure 2, whose radii of 30 and more are those of larger
# networks), and the largest eigenvalue of the Hessian. On the right directions are scaled filter by filter: weights in front of batch norm can
# be scaled without changing the network, which changes what a radius means.


# %%
@jax.tree_util.Partial
def mean_loss(logits_fn, params):
    """Mean cross-entropy on the test images with other parameters, batch statistics as they are."""
    _, batch_stats = logits_fn.args
    return cross_entropy(logits_fn.func(params, batch_stats, images), labels).mean()


radii = {"tree": (1, 4) if QUICK else (0, 1, 2, 3, 4, 5, 6, 8), "filter": (0.1,) if QUICK else (0, 0.05, 0.1, 0.15, 0.2, 0.3)}
draws = core.example_keys(jax.random.key(1), jnp.arange(2 if QUICK else 10))
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2), sharey=True)
for axis, (scaling, distances) in zip(axes, radii.items(), strict=True):
    for title, logits_fn in networks.items():
        loss, params = jax.tree_util.Partial(mean_loss, logits_fn), logits_fn.args[0]
        found = np.array([metrics.weight_space_loss(draws, loss, params, radius=float(r), scaling=scaling) for r in distances])
        axis.plot(distances, found.mean(1), "o-", color=COLOURS[title], label=title)
        if scaling == "filter":
            table[title]["flatness"] = float(found[-1].mean())
    axis.set(yscale="log")
axes[0].set(xlabel="L2 distance from the weights", ylabel="mean test loss, nats")
axes[1].set(xlabel="distance in multiples of each filter's norm")
axes[0].legend(fontsize=9)
for title, logits_fn in networks.items():
    loss, params = jax.tree_util.Partial(mean_loss, logits_fn), logits_fn.args[0]
    largest = metrics.hessian_top_eigenvalue(jax.random.key(2), loss, params, steps=3 if QUICK else 20)
    print(f"{title:>16}: largest eigenvalue of the Hessian {largest:.2f}")

# %% [markdown]
# ## Curvature over the image
#
# $\frac{1}{K}\sum_j \|\nabla l(x + t \epsilon_j) - \nabla l(x)\|^2 / t^2$, an estimate of the sum of the squared eigenvalues of the Hessian
# in the pixels (Eq. 21; t = 0.01, K = 20). It spans orders of magnitude between images of one network: means are those of a few images.


# %%
@jax.tree_util.Partial
def image_loss(logits_fn, images, labels):
    """Cross-entropy of each image."""
    return cross_entropy(logits_fn(images), labels)


figure, axis = plt.subplots(figsize=(6, 3.2))
for title, logits_fn in networks.items():
    loss = jax.tree_util.Partial(image_loss, logits_fn)
    curvature = np.asarray(metrics.input_curvature(keys, loss, images, labels, draws=2 if QUICK else 20))
    table[title]["curvature"] = float(np.median(curvature))
    axis.plot(np.linspace(0, 100, N), np.sort(np.maximum(curvature, 1e-8)), color=COLOURS[title], label=title)
axis.set(yscale="log", xlabel="percent of the test images", ylabel="curvature at or below, 1 / pixels$^4$")
axis.legend(fontsize=9)
axis.grid(alpha=0.3)

# %% [markdown]
# ## Beside robustness
#
# Thicker, flatter, less curved: is that the robust network? Look whether the points are in order, and whether both rows agree.
#
# In the saved run no measure orders all four. Loss some way off the weights comes nearest. The baseline has the lowest median curvature and the
# lowest accuracy under PGD: it is so sure of most images that the loss is nearly 0 around them. Madry's network looks as thin as the baseline,
# as most segments end before they reach the boundary (above, left): a thickness says little where the attack fails.

# %%
columns = {
    "thickness": "mean thickness, pixels",
    "flatness": f"loss at {radii['filter'][-1]:g} of filter norms, nats",
    "curvature": "median curvature, 1 / pixels$^4$",
}
figure, axes = plt.subplots(2, 3, figsize=(10, 5), sharex="col", sharey="row")
for line, robust, what in zip(axes, ("PGD", "corrupted"), ("accuracy under PGD,\nL2 0.5, %", "accuracy, corrupted, %"), strict=True):
    line[0].set_ylabel(what)
    for axis, (name, title) in zip(line, columns.items(), strict=True):
        for network, row in table.items():
            axis.plot(row[name], row[robust], "o", markersize=9, color=COLOURS[network], label=network)
        axis.grid(alpha=0.3)
        if name == "curvature":
            axis.set_xscale("log")
        if robust == "corrupted":
            axis.set_xlabel(title)
handles = axes[0, 0].get_legend_handles_labels()
_ = figure.legend(*handles, loc="outside upper center", ncols=len(networks), frameon=False)

# %% [markdown]
# ## A landscape
#
# The loss around one test image: along the sign of its gradient, and along random signs (RAT, Figure 2). The same image, plane and scale for all.

# %%
points, size = (5 if QUICK else 21), 32 / 255
sizes = np.linspace(-size, size, points)
surfaces = {
    title: metrics.input_landscape(
        keys[:1],
        jax.tree_util.Partial(image_loss, logits_fn),
        images[:1],
        labels[:1],
        gradient_sizes=sizes,
        random_sizes=sizes,
    )[0]
    for title, logits_fn in networks.items()
}
top = max(float(surface.max()) for surface in surfaces.values())
figure, axes = plt.subplots(1, len(surfaces), figsize=(2.7 * len(surfaces), 3), subplot_kw={"projection": "3d"})
along, across = np.meshgrid(255 * sizes, 255 * sizes, indexing="ij")
for axis, (title, surface) in zip(axes, surfaces.items(), strict=True):
    axis.plot_surface(along, across, np.asarray(surface), cmap="viridis", vmin=0, vmax=top, linewidth=0)
    axis.set(title=title, zlim=(0, top), xlabel="gradient, 1/255", ylabel="random, 1/255")
    axis.set(xticks=(-30, 0, 30), yticks=(-30, 0, 30))
    axis.tick_params(labelsize=7, pad=0)
    axis.xaxis.label.set_size(8)
    axis.yaxis.label.set_size(8)
_ = axes[-1].set_zlabel("loss, nats", fontsize=8)
