"""A small attack and a small network for tests of what drives attacks: random starts, targets, draws in every step, quick to compile."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from robustjax.attacks.objectives import margin
from robustjax.attacks.plan import Outcome, Plan
from robustjax.core import example_keys

SHAPE, CLASSES = (4, 4, 2), 4


class State(NamedTuple):
    """One row an example."""

    keys: jax.Array
    clean: jax.Array
    labels: jax.Array
    targets: jax.Array
    images: jax.Array
    found: jax.Array
    success: jax.Array
    loss: jax.Array
    start_loss: jax.Array


def plan(steps=9, *, restarts=1, num_targets=0, chunk=4, name="tiny", escape=False):
    """Returns sign steps with noise on the gradient; `escape` leaves the ball."""
    return Plan(name, begin, step, outcome, ("escape" if escape else "", num_targets > 0), steps, restarts, num_targets, chunk)


def draw(keys, i, dtype):
    """Draws from U(-1, 1), anew in each step."""
    return jax.vmap(lambda key, i: jax.random.uniform(jax.random.fold_in(key, i), SHAPE, dtype, -1, 1))(keys, i)


def begin(context, rows, config):
    """Starts at a random point of the ball."""
    row = rows.images[:, 0, 0, 0]
    noise = draw(rows.keys, jnp.zeros_like(row, jnp.int32), rows.images.dtype)
    images = jnp.clip(rows.images + context.eps * noise, 0, 1)
    lowest = jnp.full_like(row, -jnp.inf)
    return State(rows.keys, rows.images, rows.labels, rows.targets, images, images, jnp.zeros_like(row, bool), lowest, lowest)


def step(context, i, state, config):
    """Measures, notes and moves."""

    def climbed(x):
        logits = context.network(x, state.keys)
        other = jnp.take_along_axis(logits, state.targets[:, None], 1)[:, 0] if config[1] else 0.0
        own = margin(logits, state.labels)
        return jnp.sum(other + own), (own, own > 0)

    gradient, (loss, success) = jax.grad(climbed, has_aux=True)(state.images)
    reach = context.eps * (3 if config[0] else 1)
    moved = state.images + context.eps / 3 * jnp.sign(gradient + 0.5 * draw(state.keys, i + 1, gradient.dtype))
    better = ~(loss <= state.loss) & ~jnp.isnan(state.loss)
    return state._replace(
        images=jnp.clip(state.clean + jnp.clip(moved - state.clean, -reach, reach), 0, 1),
        found=jnp.where(better[:, None, None, None], state.images, state.found),
        success=state.success | success,
        loss=jnp.where(better, loss, state.loss),
        start_loss=jnp.where(i == 0, loss, state.start_loss),
    )


def outcome(state):
    """Returns the best point."""
    return Outcome(state.found, state.success, state.loss, state.start_loss)


def forward(weights, images):
    """Returns logits (b, 4)."""
    return jnp.tanh(images.reshape(images.shape[0], -1) @ weights["w1"]) @ weights["w2"]


def network(seed=0):
    """Returns images -> logits with weights drawn from `seed`."""
    rng = np.random.default_rng(seed)
    w = {"w1": rng.normal(size=(32, 12)), "w2": 2 * rng.normal(size=(12, CLASSES))}
    return Partial(forward, {name: jnp.asarray(value, jnp.float32) for name, value in w.items()})


def examples(n, seed=1):
    """Returns keys, images and the network's own labels, a seventh of them wrong."""
    x = np.random.default_rng(seed).uniform(size=(n, *SHAPE)).astype(np.float32)
    y = np.array(jnp.argmax(network()(jnp.asarray(x)), 1), np.int32)
    y[::7] = (y[::7] + 1) % CLASSES
    return example_keys(jax.random.key(0), jnp.arange(n)), x, y
