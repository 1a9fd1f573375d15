"""Decision boundaries on points of the plane: a small network trained in four ways, and its probabilities on a grid.

ESP's figure 1 and SPIDER's figure 1: perturbed points whose labels are softened by how far they went give a boundary that follows
the contours of the distance to the data. Neither paper prints its network, sizes or steps: those here are ours.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from robustjax.augment import noise, smoothing
from robustjax.augment.esp import esp
from robustjax.augment.spider import spider
from robustjax.core import example_keys, registry
from robustjax.core.check import InputError
from robustjax.data.toy import Points, spirals
from robustjax.evaluate.surfaces import rounded
from robustjax.io import results
from robustjax.losses import cross_entropy

# How points are perturbed, with their labels in the pictures. `largest` is the farthest that each of them may move a point.
METHODS = {"naive": "naive", "l2": "$L_2$ noise of one radius", "spider": "SPIDER", "esp": "ESP"}
ARM = 60  # points of a spiral
Weights = list[tuple[Float[Array, "_ _"], Float[Array, " _"]]]


class Settings(NamedTuple):
    """How the network is trained; static."""

    width: int = 64
    hidden: int = 3
    steps: int = 2500
    copies: int = 4  # of each point in a batch, perturbed apart: the batch is all points
    rate: float = 5e-3  # Adam, falling to 0 as a cosine
    gamma: float = 1.5  # how much more probable than the other class a label stays that is softened most; see `xi_from_ratio`


SETTINGS = Settings()


def log_odds(
    data: Points, *, method: str, largest: float, seed: int = 0, grid: Float[np.ndarray, " g"], settings: Settings = SETTINGS
) -> Float[np.ndarray, "g g"]:
    """Trains on points of two classes; returns log(p / (1 - p)), p the probability of class 1, at (grid[x], grid[y]), entry [y, x].

    Args:
        data: the points and their labels, 0 and 1.
        method: a key of METHODS: 'naive', points as they are; 'l2', moved by `largest` with the hard label; 'spider', tau = largest;
            'esp', epsilon = tau = largest / 2.
        largest: L2 distance, in units of the square.
        seed: of weights and perturbations. One seed gives all methods the same weights to begin with.
        grid: places along either axis.
        settings: of the training.

    Raises:
        InputError: for an unknown method, or a largest distance that is not above 0.
    """
    if method not in METHODS:
        raise registry.unknown("way to train", method, METHODS)
    _check_largest(largest)
    points, labels = jnp.asarray(data.points), jnp.asarray(data.labels)
    weights = train(jax.random.key(seed), points, labels, jnp.float32(largest), method, settings)
    x, y = np.meshgrid(grid, grid)
    places = jnp.asarray(np.stack([x, y], axis=-1).reshape(-1, 2), jnp.float32)
    logits = np.asarray(network(weights, places), np.float64)
    return (logits[:, 1] - logits[:, 0]).reshape(x.shape)


@functools.partial(jax.jit, static_argnames=("method", "settings"))
def train(
    key: Array,
    points: Float[Array, "n 2"],
    labels: Int[Array, " n"],
    largest: Float[Array, ""],
    method: str,
    settings: Settings,
) -> Weights:
    """Trains the network, all in one program; see `log_odds`."""
    points, labels = (jnp.repeat(x, settings.copies, axis=0) for x in (points, labels))
    weights = begin(jax.random.fold_in(key, 0), settings)
    optimiser = optax.adam(optax.cosine_decay_schedule(settings.rate, settings.steps))

    def loss(weights: Weights, step: Array) -> Array:
        moved, targets = perturbed(jax.random.fold_in(key, step + 1), points, labels, largest, method, settings.gamma)
        return jnp.mean(cross_entropy(network(weights, moved), targets))

    def advance(state, step):
        weights, memory = state
        with jax.numpy_dtype_promotion("standard"):  # optax's schedules multiply integers with floats
            updates, memory = optimiser.update(jax.grad(loss)(weights, step), memory, weights)
        return (optax.apply_updates(weights, updates), memory), None

    (weights, _), _ = jax.lax.scan(advance, (weights, optimiser.init(weights)), jnp.arange(settings.steps))
    return weights


def perturbed(
    key: Array, points: Float[Array, "n 2"], labels: Int[Array, " n"], largest: Array, method: str, gamma: float
) -> tuple[Float[Array, "n 2"], Float[Array, "n 2"]]:
    """Returns moved points and their targets: the library's kernels on images of one pixel with two channels."""
    keys, images = example_keys(key, jnp.arange(len(points))), points[:, None, None, :]
    targets = jax.nn.one_hot(labels, 2)
    xi = smoothing.xi_from_ratio(gamma, num_classes=2)
    if method == "l2":
        images = noise.l2_sphere(keys, images, radius=largest)
    elif method == "spider":
        images, targets, _ = spider(keys, images, targets, tau=largest, xi=xi, num_classes=2)
    elif method == "esp":
        images, targets, _ = esp(keys, images, targets, epsilon=largest / 2, tau=largest / 2, xi=xi, num_classes=2)
    return images[:, 0, 0], targets


def begin(key: Array, settings: Settings) -> Weights:
    """Draws the weights to begin with: He's, and no biases."""
    sizes = [2, *[settings.width] * settings.hidden, 2]
    kernels = [
        jax.random.normal(jax.random.fold_in(key, i), (fan_in, out)) * (2 / fan_in) ** 0.5
        for i, (fan_in, out) in enumerate(itertools.pairwise(sizes))
    ]
    return [(kernel, jnp.zeros(kernel.shape[1])) for kernel in kernels]


def network(weights: Weights, points: Float[Array, "n 2"]) -> Float[Array, "n 2"]:
    """Returns the logits of a perceptron with smooth (SiLU) units, whose contours have no corners."""
    hidden = 6 * (points - 0.5)
    for kernel, bias in weights[:-1]:
        hidden = jax.nn.silu(hidden @ kernel + bias[None])
    return hidden @ weights[-1][0] + weights[-1][1][None]


def boundaries(*, sizes: Sequence[float] = (0.07, 0.14), points: int = 91, seed: int = 0, settings: Settings = SETTINGS) -> dict:
    """Computes the figure: every way to train at every size, on two spirals of which neighbouring arms are 0.16 apart.

    Args:
        sizes: largest distances that points move, in units of the square.
        points: of the grid along either axis, at least 2.
        seed: of weights and perturbations.
        settings: of the training.

    Returns:
        JSON-like: grid (g,), points (n, 2), labels (n,), settings, sizes, panels [{method, largest (None where nothing moves),
        log_odds (g, g) of class 1, entry [y][x]}]. 'naive' is there once.

    Raises:
        InputError: for sizes that are not above 0, or fewer than 2 points.
    """
    if points < 2:
        raise InputError(f"--points is the number of places along either axis and must be at least 2, got {points}.")
    for largest in sizes:
        _check_largest(largest)
    data, grid, sizes = spirals(points=ARM), np.linspace(0, 1, points), list(dict.fromkeys(sizes))
    wanted = [("naive", None), *((method, largest) for largest in sizes for method in METHODS if method != "naive")]
    panels = []
    for method, largest in wanted:
        found = log_odds(data, method=method, largest=largest or 1.0, seed=seed, grid=grid, settings=settings)
        panels.append({"method": method, "largest": largest, "log_odds": rounded(found)})
    return {
        "figure": "boundary",
        "seed": seed,
        "settings": settings._asdict(),
        "environment": results.environment(),
        "sizes": sizes,
        "grid": rounded(grid),
        "points": rounded(data.points),
        "labels": data.labels.tolist(),
        "panels": panels,
    }


def _check_largest(largest: float) -> None:
    if not 0 < largest < np.inf:
        raise InputError(f"the largest distance that points move must be above 0, got {largest:g}.")


def confidences(settings: Settings, *, points: int = 101) -> dict[str, Float[np.ndarray, " p"]]:
    """Returns {method: confidence in the label} at distances from 0 to the largest, for two classes."""
    size, floor = jnp.linspace(0, 1, points), 0.5 + smoothing.xi_from_ratio(settings.gamma, num_classes=2)
    starts = {"spider": 1 / 4, "esp": 1 / 2}
    made = {name: smoothing.exponential_confidence(size, start=start, width=1 - start, floor=floor) for name, start in starts.items()}
    return {name: np.asarray(confidence) for name, confidence in made.items()}
