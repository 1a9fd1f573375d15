"""One training step, as a pure function of one device: augment, loss, gradient, update.

Randomness is `fold_in(key, step)` and then each example's id, so a run can be resumed at any step without a stored key, and
the numbers do not depend on the count of devices.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key, UInt8

from robustjax.core import rng
from robustjax.core.parallel import AXIS
from robustjax.core.types import Batch
from robustjax.train.state import Sums, TrainState


def make_step(
    apply: Callable, augment: Callable, objective: Callable, optimizer: optax.GradientTransformation, *, num_classes: int, ema: float
) -> Callable:
    """Returns step(state, key, batch) -> state for one device of the mesh axis 'data'.

    Args:
        apply: the model, see models.functional.
        augment: (keys, images, targets) -> (images, targets).
        objective: see train.objectives.
        optimizer: see train.schedules.
        num_classes: width of the targets.
        ema: decay of the averaged weights, 0 for none.
    """

    def step(state: TrainState, key: Key[Array, ""], batch: Batch) -> TrainState:
        keys = rng.example_keys(jax.random.fold_in(key, state.step), batch.ids)
        augment_keys, model_keys = rng.stream(keys, 0), rng.stream(keys, 1)
        images = batch.images.astype(jnp.float32) / 255
        targets = jax.nn.one_hot(batch.labels, num_classes, dtype=jnp.float32)
        images, targets = augment(augment_keys, images, targets)

        def loss_fn(params):
            return objective(apply, params, state.batch_stats, images, targets, model_keys, AXIS)

        (loss, (batch_stats, logits)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        loss, grads = jax.lax.pmean((loss, grads), AXIS)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        averaged = state.ema
        if ema:
            averaged = jax.tree.map(lambda old, new: ema * old + (1 - ema) * new, averaged, {"params": params, "batch_stats": batch_stats})
        correct = jax.lax.psum(jnp.sum(jnp.argmax(logits, -1) == batch.labels), AXIS)
        sums = _add(state.sums, loss, correct, jax.lax.psum(batch.labels.shape[0], AXIS), state.step)
        return TrainState(state.step + 1, params, batch_stats, opt_state, averaged, sums)

    return step


def _add(sums: Sums, loss: Array, correct: Array, count: int, step: Array) -> Sums:
    bad = jnp.where((sums.bad_step < 0) & ~jnp.isfinite(loss), step, sums.bad_step)
    return Sums(sums.loss + loss * count, sums.correct + correct.astype(jnp.float32), sums.count + count, bad)


def resident(step: Callable) -> Callable:
    """Returns the step for data that live on the device: (state, (key, images, labels), ids (b, s)) -> (state, marker).

    The marker is the first step whose loss was not finite, or -1: small enough to look at without waiting for the state.

    The whole training set is an argument, never closed over: a closure would put a copy into every program. With s > 1 the
    device takes s steps without the host.
    """

    def one(state: TrainState, data: tuple[Key[Array, ""], UInt8[Array, "n h w c"], Int[Array, " n"]], ids: Int[Array, " b"]) -> TrainState:
        key, images, labels = data
        return step(state, key, Batch(images[ids], labels[ids], ids, jnp.ones(ids.shape, bool)))

    def many(state: TrainState, data, ids: Int[Array, "b s"]) -> tuple[TrainState, Int[Array, ""]]:
        if ids.shape[1] == 1:
            state = one(state, data, ids[:, 0])
        else:
            state, _ = jax.lax.scan(lambda carry, row: (one(carry, data, row), None), state, ids.T)
        return state, state.sums.bad_step

    return many


def streamed(step: Callable) -> Callable:
    """Returns the step for data that stream from the host: (state, key, batch) -> (state, marker)."""

    def one(state: TrainState, key: Key[Array, ""], batch: Batch) -> tuple[TrainState, Int[Array, ""]]:
        state = step(state, key, batch)
        return state, state.sums.bad_step

    return one
