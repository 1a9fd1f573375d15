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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/robustjax/blob/main/notebooks/03_corruption_gallery.ipynb)
#
# # Corruption gallery
#
# The common corruptions of CIFAR-10-C, ImageNet-C, C-bar and MNIST-C as compiled, batched, seeded functions: "Benchmarking Neural Network
# Robustness to Common Corruptions and Perturbations" (Hendrycks and Dietterich, 2019), "On Interaction Between Augmentations and
# Corruptions in Natural Corruption Robustness" (Mintun et al., 2021), "MNIST-C" (Mu and Gilmer, 2019). Constants are the released ones.

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
import textwrap
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from robustjax import core, corruptions

plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True})


def photograph(name, size):
    """The middle of one of scikit-learn's two photographs, float32 (1, size, size, 3) in [0, 1]."""
    whole = Image.fromarray(load_sample_image(f"{name}.jpg")).crop((106, 0, 533, 427))
    return jnp.asarray(np.asarray(whole.resize((size, size), Image.Resampling.LANCZOS), np.float32) / 255)[None]


def show(grid, *, inches, titles=(), labels=()):
    """Draws rows of pictures."""
    shape = (len(grid), len(grid[0]))
    _, axes = plt.subplots(*shape, figsize=(inches * shape[1] + 1, inches * 1.05 * shape[0] + 0.2), squeeze=False)
    for row, pictures in zip(axes, grid, strict=True):
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(np.squeeze(picture), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title, fontsize=9)
    for axis, label in zip(axes[:, 0], labels, strict=False):
        axis.set_ylabel(label.replace("_", "\n"), rotation=0, ha="right", va="center", fontsize=9)


SEVERITIES = range(1, 6)
for benchmark, names in corruptions.NAMES.items():
    print(f"{benchmark:>22}: {', '.join(names)}")

# %% [markdown]
# ## CIFAR-10-C at 32 pixels
#
# Every corruption at every severity. One program serves all five severities, which are data to it; randomness is keyed by the example:
# the same key gives the same noise whatever else is in the batch. Frost needs photographs that cannot be shipped: this is procedural
# ice, `frost_images=` takes your own.

# %%
small = photograph("china", 32)
key = core.example_keys(jax.random.key(0), [0])
names = ("gaussian_noise", "contrast") if QUICK else corruptions.NAMES["cifar_c"]
sheet = [[small[0], *(corruptions.corrupt(key, small, name=name, severity=s)[0] for s in SEVERITIES)] for name in names]
show(sheet, inches=0.85, titles=["clean", *(f"severity {s}" for s in SEVERITIES)], labels=names)

# %% [markdown]
# ## Larger pictures
#
# Constants belong to a size: a blur of CIFAR-10-C's strength is nothing at 224 pixels. `imagenet_c` at 224 pixels:

# %%
size = 64 if QUICK else 224
large, benchmark = photograph("flower", size), "tiny_imagenet_c" if QUICK else "imagenet_c"
names = ("fog",) if QUICK else ("glass_blur", "snow", "fog", "elastic_transform")
strips = [
    [large[0], *(corruptions.corrupt(key, large, name=name, severity=s, benchmark=benchmark)[0] for s in SEVERITIES)] for name in names
]
show(strips, inches=1.4, titles=["clean", *(f"severity {s}" for s in SEVERITIES)], labels=names)

# %% [markdown]
# ## C-bar and cameras
#
# C-bar's corruptions were chosen to be unlike CIFAR-10-C's; SPIDER selects its checkpoints by them (appendix E.1.1). Faults of cameras
# (`sensor`) have no severities but options, and may be chained with `+`.

# %%
names = ("sparkles",) if QUICK else corruptions.NAMES["cifar_cbar"]
bar = {name: corruptions.corrupt(key, small, name=name, severity=4, benchmark="cifar_cbar")[0] for name in names}
camera = {
    "noise": {"std": 0.1},
    "occlusion": {"patches": 6, "size": 8},
    "down_up": {"scale": 0.5},
    "stripes": {"stripes": 3, "width": 2},
}
for name, options in camera.items():
    bar[f"sensor: {name}"] = corruptions.corrupt(key, small, name=name, benchmark="sensor", **options)[0]
count = -(-len(bar) // 2)
shown = [*bar.items(), *[("", jnp.ones_like(small[0]))] * (2 * count - len(bar))]
figure, axes = plt.subplots(2, count, figsize=(1.45 * count, 3.9))
for axis, (name, picture) in zip(axes.flat, shown, strict=True):
    axis.imshow(picture, interpolation="nearest")
    axis.set_title(textwrap.fill(name.replace("_", " "), 12), fontsize=8)
    axis.axis("off")

# %% [markdown]
# ## Draw and apply
#
# `corrupt` is `apply` after `draw`. All of chance is in the draws, so one draw can be replayed: at every severity, on other images, or
# against a reference implementation that was fed the same numbers. Rows: the same draws on two photographs. Beside them: a fresh draw.

# %%
name = "gaussian_noise" if QUICK else "spatter"
pictures = [small, photograph("flower", 32)]
draws = corruptions.draw(key, small.shape, name=name, severity=3)  # the same whatever the severity
print({what: f"{array.dtype}{array.shape}" for what, array in draws.items()})
other = corruptions.draw(core.example_keys(jax.random.key(1), [0]), small.shape, name=name, severity=3)
rows = [
    [image[0], *(corruptions.apply(image, d, name=name, severity=s)[0] for d, s in ((draws, 4), (draws, 5), (other, 5)))]
    for image in pictures
]
show(rows, inches=1.2, titles=["clean", "draw 0,\nseverity 4", "draw 0,\nseverity 5", "draw 1,\nseverity 5"])
again = corruptions.corrupt(key, small, name=name, severity=5)
assert (again[0] == rows[0][2]).all()  # corrupt is apply after draw

# %% [markdown]
# ## Inside your own compiled code
#
# A severity drawn for each batch, and the gradient of a corrupted image: without the rounding to 8 bits most corruptions can be differentiated.


# %%
@jax.jit
def augmented(key, images):
    """Gaussian noise of a random severity, and how the mean brightness of the result depends on each pixel."""
    severity = jax.random.randint(jax.random.fold_in(key, 0), (), 1, 6)
    keys = core.example_keys(jax.random.fold_in(key, 1), jnp.arange(len(images)))

    def brightness(images):
        return corruptions.corrupt(keys, images, name="gaussian_noise", severity=severity, quantize=False).mean()

    return severity, *jax.value_and_grad(brightness)(images)


severity, value, gradient = augmented(jax.random.key(2), small)
unclipped = float((gradient > 0).mean())
print(f"severity {severity}: mean brightness {value:.3f}; {100 * unclipped:.0f} % of the pixels are not clipped and have a gradient")

# %% [markdown]
# ## Time
#
# Seconds for 1,000 images of 32 pixels on this machine, compiled once and then run (the best of three).

# %%
batch = 16 if QUICK else 250
many, keys = jnp.concatenate([small] * batch), core.example_keys(jax.random.key(3), jnp.arange(batch))
seconds = {}
for name in ("contrast",) if QUICK else corruptions.NAMES["cifar_c"]:
    took = []
    for severity in (1, 1, 3, 5):
        began = time.perf_counter()
        corruptions.corrupt(keys, many, name=name, severity=severity).block_until_ready()
        took.append(time.perf_counter() - began)
    seconds[name] = min(took[1:]) * 1000 / batch  # the first compiles
figure, axis = plt.subplots(figsize=(6, 0.26 * len(seconds) + 0.8))
axis.barh(list(seconds), list(seconds.values()), color="#4c6a92")
axis.invert_yaxis()
axis.set(xlabel=f"seconds for 1,000 images at 32x32 ({jax.default_backend()}, {os.cpu_count()} cores)")
axis.grid(axis="x", alpha=0.3)
