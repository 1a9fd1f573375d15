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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/robustjax/blob/main/notebooks/06_your_own_model.ipynb)
#
# # Bring your own model
#
# Everything that measures takes a network as a function: images (b, h, w, c) in [0, 1] to logits (b, k), normalisation inside, in evaluation
# mode. Four ways to come by one: a plain JAX function, a module of Flax Linen or NNX, a network of this library with weights that torch
# trained, and a run folder of them. All are measured by the same twenty lines: clean images, corruptions, PGD.

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
import optax
from flax import linen, nnx

from robustjax import attacks, core, corruptions, data, metrics, models
from robustjax.core import check
from robustjax.losses import cross_entropy

plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## What is measured
#
# Any pair of images and labels will do; here scikit-learn's digits at 16x16 pixels.

# %%
digits = data.make("digits")
train_images, train_labels = jnp.asarray(digits.train.images, jnp.float32) / 255, jnp.asarray(digits.train.labels)
N = 32 if QUICK else len(digits.test)
images, labels = jnp.asarray(digits.test.images[:N], jnp.float32) / 255, jnp.asarray(digits.test.labels[:N])
keys = core.example_keys(jax.random.key(0), jnp.arange(N))
NAMES = ("contrast",) if QUICK else ("gaussian_noise", "impulse_noise", "defocus_blur", "fog", "contrast", "pixelate", "jpeg_compression")
corrupted = {name: [corruptions.corrupt(keys, images, name=name, severity=s) for s in (1, 3, 5)] for name in NAMES}
threat = core.ThreatModel("l2", 0.5)


def measure(logits_fn):
    """Errors in percent: clean, under each corruption (mean of severities 1, 3 and 5), their mean, and under PGD-20 in L2, radius 0.5."""
    for warning in check.check_logits_fn(logits_fn, images, labels):
        print("warning:", warning)

    def error(images):
        return 100 * float(1 - metrics.correct(logits_fn(images), labels).mean())

    found = {"clean": error(images)}
    found |= {name: float(np.mean([error(each) for each in severities])) for name, severities in corrupted.items()}
    found["corrupted"] = metrics.mean_corruption_error({name: found[name] / 100 for name in NAMES}).mce * 100
    found["PGD"] = error(attacks.pgd(keys, logits_fn, images, labels, threat, steps=20, step_size=0.0625))
    return found


table = {}

# %% [markdown]
# ## 1. Any function
#
# Two dense layers in plain JAX, trained by Adam. What the attacks get is a closure. (`jax.tree_util.Partial(forward, params)` does the same and
# lets other weights reuse the compiled attack.)


# %%
def train(loss_of, params, steps):
    """Adam on mini-batches; `loss_of(params, images, labels)` is a scalar."""
    optimiser = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    def step(state, key):
        params, memory = state
        chosen = jax.random.choice(key, len(train_labels), (128,))
        updates, memory = optimiser.update(jax.grad(loss_of)(params, train_images[chosen], train_labels[chosen]), memory, params)
        return (optax.apply_updates(params, updates), memory), None

    run = jax.jit(lambda params: jax.lax.scan(step, (params, optimiser.init(params)), jax.random.split(jax.random.key(1), steps))[0][0])
    return run(params)


def forward(params, images):
    """Images in [0, 1] to logits; the normalisation is in here."""
    x = (images.reshape(len(images), -1) - 0.5) / 0.5
    return jax.nn.relu(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


STEPS = 20 if QUICK else 600
shapes = {"w1": (256, 128), "b1": (128,), "w2": (128, 10), "b2": (10,)}
begin = {name: 0.05 * jax.random.normal(jax.random.fold_in(jax.random.key(2), i), shape) for i, (name, shape) in enumerate(shapes.items())}
params = train(lambda p, x, y: cross_entropy(forward(p, x), y).mean(), begin, STEPS)
table["dense, plain JAX"] = measure(jax.tree_util.Partial(forward, params))

# %% [markdown]
# ## 2. Flax
#
# Linen: `apply` with the parameters bound. A network with batch norm or dropout must be bound in evaluation mode (`train=False`).


# %%
class Convolutions(linen.Module):
    """A small convolutional network without batch norm."""

    @linen.compact
    def __call__(self, images):
        x = 2 * images - 1
        for width in (8, 16):
            x = linen.max_pool(linen.relu(linen.Conv(width, (3, 3))(x)), (2, 2), (2, 2))
        return linen.Dense(10)(x.reshape(len(x), -1))


network = Convolutions()
begin = network.init(jax.random.key(3), images[:1])
params = train(lambda p, x, y: cross_entropy(network.apply(p, x), y).mean(), begin, STEPS)
table["convolutions, Linen"] = measure(jax.tree_util.Partial(network.apply, params))

# %% [markdown]
# NNX: a module with `features(images)` and `head` is split into pure functions by `models.split`, as this library's own networks are. What comes
# back is a flat dict of parameters, which training, checkpoints and the geometry of notebook 05 take.


# %%
class Dense(nnx.Module):
    """Two dense layers."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(256, 64, rngs=rngs)
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def features(self, images):
        """(b, 16, 16, 1) -> (b, 64)."""
        return nnx.relu(self.hidden(2 * images.reshape(len(images), -1) - 1))


apply, params, batch_stats = models.split(Dense(nnx.Rngs(0)))
print({name: array.shape for name, array in params.items()})
params = train(lambda p, x, y: cross_entropy(apply(p, batch_stats, x, True)[0].logits, y).mean(), params, STEPS)
table["dense, NNX"] = measure(models.logits_fn(apply, params, batch_stats))

# %% [markdown]
# ## 3. Weights that torch trained
#
# `models.torch_import.load(path, model)` reads `.pt` and `.pth` (there torch must be installed), `.safetensors` and `.npz`. In torch, to leave it at home:
#
# ```python
# numpy.savez("weights.npz", **{name: tensor.cpu().numpy() for name, tensor in module.state_dict().items()})
# ```
#
# It knows the names of the usual ResNets, WideResNets (RobustBench, TRADES, AWP), DenseNets, VGGs and MobileNets, with or without `module.`, and checks every
# name and shape. Mean and deviation are not in such files: give them to `models.make`.
#
# No torch is needed to see it work. This writes what torch's `Sequential` of convolution, batch norm, relu and pooling would have written for
# a network trained here: its names, its order of axes. (That our forward pass is torch's to 1e-4 is what the tests of `torch_import` show.)

# %%
model = models.make("small_cnn", num_classes=10, image_shape=(16, 16, 1), mean=0.5, std=0.5, width=8)
apply, params, batch_stats = models.split(model)


def train_with_batch_norm(params, batch_stats, steps):
    """As `train`, handing the running statistics on."""
    optimiser = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    def loss_of(params, batch_stats, x, y):
        output, batch_stats = apply(params, batch_stats, x, True)
        return cross_entropy(output.logits, y).mean(), batch_stats

    def step(state, key):
        params, batch_stats, memory = state
        chosen = jax.random.choice(key, len(train_labels), (128,))
        gradient, batch_stats = jax.grad(loss_of, has_aux=True)(params, batch_stats, train_images[chosen], train_labels[chosen])
        updates, memory = optimiser.update(gradient, memory, params)
        return (optax.apply_updates(params, updates), batch_stats, memory), None

    keys = jax.random.split(jax.random.key(4), steps)
    return jax.jit(lambda *state: jax.lax.scan(step, state, keys)[0][:2])(params, batch_stats, optimiser.init(params))


params, batch_stats = train_with_batch_norm(params, batch_stats, 5 if QUICK else 300)
written = models.logits_fn(apply, params, batch_stats)(images)
state_dict = {}
for block in range(3):
    conv, norm = 4 * block, 4 * block + 1  # features: conv 0, norm 1, relu 2, pool 3, conv 4, ...
    state_dict[f"features.{conv}.weight"] = params[f"blocks.{block}.convs.0.kernel"].transpose(3, 2, 0, 1)
    for torch_name, arrays, ours in (
        ("weight", params, "scale"),
        ("bias", params, "bias"),
        ("running_mean", batch_stats, "mean"),
        ("running_var", batch_stats, "var"),
    ):
        state_dict[f"features.{norm}.{torch_name}"] = arrays[f"blocks.{block}.norms.0.{ours}"]
state_dict |= {"classifier.weight": params["head.kernel"].T, "classifier.bias": params["head.bias"]}
folder = Path(tempfile.mkdtemp())
np.savez(folder / "weights.npz", **state_dict)

# %%
model = models.make("small_cnn", num_classes=10, image_shape=(16, 16, 1), mean=0.5, std=0.5, width=8)
apply, *_ = models.split(model)
logits_fn = models.logits_fn(apply, *models.torch_import.load(folder / "weights.npz", model))
print(f"largest difference from the network that was written: {jnp.abs(logits_fn(images) - written).max():.1e}")
table["small CNN, torch's file"] = measure(logits_fn)
try:
    models.torch_import.load(folder / "weights.npz", models.make("small_cnn", num_classes=7, image_shape=(16, 16, 1), width=8))
except core.InputError as error:
    print(str(error).replace(f"{folder}/", ""))

# %% [markdown]
# ## The comparison

# %%
columns = ("clean", "corrupted", "PGD")
print(" " * 24 + "".join(f"{name + ' %':>14}" for name in columns))
for name, row in table.items():
    print(f"{name:>24}" + "".join(f"{row[column]:14.1f}" for column in columns))
places = ["clean", *NAMES, "PGD"]
figure, axis = plt.subplots(figsize=(9, 3.6))
for i, (name, row) in enumerate(table.items()):
    axis.bar(np.arange(len(places)) + 0.2 * i - 0.3, [row[place] for place in places], 0.18, label=name)
axis.set_xticks(range(len(places)), [place.replace("_", "\n") for place in places], fontsize=9)
axis.set(ylabel="error, %", ylim=(0, 100))
axis.legend(fontsize=9)
axis.grid(axis="y", alpha=0.3)

# %% [markdown]
# ## 4. A whole evaluation
#
# Of torch's file one command makes a run folder and measures all of it, resumably, into files and a table:
#
# ```sh
# python launch/evaluate.py --torch_checkpoint=wrn.pt --model=wide_resnet,depth=28,width=10 --dataset=cifar10 --workdir=runs/theirs --suite=full,autoattack
# ```
