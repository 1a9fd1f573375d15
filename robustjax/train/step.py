"""One training step, as a pure function of one device: augment, loss, gradient, update.

Randomness is `fold_in(key, step)` and then each example's id, so a run can be resumed at any step without a stored key, and
the numbers do not depend on the count of devices.
"""

import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key

from robustjax import losses
from robustjax.augment.partners import over_devices
from robustjax.core import rng
from robustjax.core.parallel import AXIS
from robustjax.core.types import Batch
from robustjax.train.objectives import Given, Loss, Network, Objective
from robustjax.train.state import Sums, TrainState

# Key what the step draws for all examples; examples are keyed by their ids, which end far below.
_WEIGHTS = (1 << 32) - 1
_PARTNERS = (1 << 32) - 2


class WeightPerturbation(NamedTuple):
    """Adversarial weight perturbation in a step; see losses.adversarial_weight_perturbation."""

    gamma: float = 0.0  # 0: none
    warmup_steps: int = 0  # before which there is none
    full: bool = False  # climb the whole loss, Taylor terms included, rather than Objective.ascent


def make_step(
    apply: Callable,
    augment: Callable,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    num_classes: int,
    others_of: Callable | None = None,
    attacked: Callable | None = None,
    average: Callable | None = None,
    awp: WeightPerturbation = WeightPerturbation(),  # noqa: B008  (immutable)
) -> Callable:
    """Returns step(state, key, batch, arrays={}) -> state for one device of the mesh axis 'data'.

    `arrays` are those of the augmentation, see augment.compose. Mixup and CutMix take partners from the batch of all devices.

    With `awp` the gradient is taken, and the optimiser steps (weight decay included), at the perturbed weights, and the perturbation is
    then taken off again, as in the released code.

    Args:
        apply: the model, see models.functional.
        augment: (keys, images, targets, arrays=, partners=) -> (images, targets), as augment.compose returns it.
        objective: see train.objectives.
        optimizer: see train.schedules.
        num_classes: width of the targets.
        others_of: the same of further views, for objectives of several: ((images, targets), ...).
        attacked: what attacks see of the model; None for `apply`.
        average: (step, averaged, current) -> averaged weights, see schedules.averaging; None for none.
        awp: adversarial weight perturbation.
    """
    network = Network(apply, attacked or apply, AXIS)

    def gradient(loss: Callable[..., Loss], params: dict, *rest) -> tuple[Loss, dict]:
        def value(params):
            found = loss(network, params, *rest)
            return found.value, found

        (_, found), grads = jax.value_and_grad(value, has_aux=True)(params)
        return found, jax.lax.pmean(grads, AXIS)

    def step(state: TrainState, key: Key[Array, ""], batch: Batch, arrays: Mapping[str, Any] = types.MappingProxyType({})) -> TrainState:
        step_key = jax.random.fold_in(key, state.step)
        keys = rng.example_keys(step_key, batch.ids)
        augment_keys, model_keys = rng.stream(keys, 0), rng.stream(keys, 1)
        images = batch.images.astype(jnp.float32) / 255
        targets = jax.nn.one_hot(batch.labels, num_classes, dtype=jnp.float32)
        shared = {"arrays": arrays, "partners": over_devices(jax.random.fold_in(step_key, _PARTNERS), AXIS)}
        others = () if others_of is None else others_of(keys, images, targets, **shared)
        images, targets = augment(augment_keys, images, targets, **shared)
        given = Given(
            images,
            targets,
            batch.labels,
            model_keys,
            rng.stream(keys, 2),
            jax.random.fold_in(step_key, _WEIGHTS),
            others,
            state.memory,
        )
        prepared = jax.lax.stop_gradient(objective.prepare(network, state.params, state.batch_stats, given))
        rest = (state.batch_stats, given, prepared)

        at = state.params
        if awp.gamma:  # during the warm-up too, where it comes to nothing: one program serves all steps
            _, upwards = gradient(objective.loss if awp.full else objective.ascent, at, *rest)
            gamma = jnp.where(state.step < awp.warmup_steps, 0.0, awp.gamma)
            at = losses.adversarial_weight_perturbation(at, upwards, gamma=gamma)
        found, grads = gradient(objective.loss, at, *rest)
        updates, opt_state = optimizer.update(grads, state.opt_state, at)
        params = optax.apply_updates(at, updates)
        if awp.gamma:
            params = jax.tree.map(lambda new, moved, old: new - (moved - old), params, at, state.params)
        averaged = state.ema
        if average is not None:
            averaged = average(state.step, averaged, {"params": params, "batch_stats": found.batch_stats})
        loss, terms = jax.lax.pmean((found.value, found.terms), AXIS)
        correct = jax.lax.psum(jnp.sum(jnp.argmax(found.logits, -1) == batch.labels), AXIS)
        sums = _add(state.sums, loss, terms, correct, jax.lax.psum(batch.labels.shape[0], AXIS), state.step)
        return TrainState(state.step + 1, params, found.batch_stats, opt_state, averaged, sums, found.memory)

    return step


def _add(sums: Sums, loss: Array, terms: dict[str, Array], correct: Array, count: int, step: Array) -> Sums:
    bad = jnp.where((sums.bad_step < 0) & ~jnp.isfinite(loss), step, sums.bad_step)
    terms = {name: sums.terms[name] + value * count for name, value in terms.items()}
    return Sums(sums.loss + loss * count, sums.correct + correct.astype(jnp.float32), sums.count + count, bad, terms)


def resident(step: Callable) -> Callable:
    """Returns the step for data that live on the device: (state, (key, images, labels[, arrays]), ids (b, s)) -> (state, marker).

    The marker is the first step whose loss was not finite, or -1: small enough to look at without waiting for the state.

    The whole training set and the arrays of the augmentation are arguments, never closed over: a closure would put a copy into every
    program. With s > 1 the device takes s steps without the host.
    """

    def one(state: TrainState, data: tuple, ids: Int[Array, " b"]) -> TrainState:
        key, images, labels, *arrays = data
        return step(state, key, Batch(images[ids], labels[ids], ids, jnp.ones(ids.shape, bool)), *arrays)

    def many(state: TrainState, data, ids: Int[Array, "b s"]) -> tuple[TrainState, Int[Array, ""]]:
        if ids.shape[1] == 1:
            state = one(state, data, ids[:, 0])
        else:
            state, _ = jax.lax.scan(lambda carry, row: (one(carry, data, row), None), state, ids.T)
        return state, state.sums.bad_step

    return many


def streamed(step: Callable) -> Callable:
    """Returns the step for data that stream from the host: (state, (key[, arrays]), batch) -> (state, marker)."""

    def one(state: TrainState, given: tuple, batch: Batch) -> tuple[TrainState, Int[Array, ""]]:
        key, *arrays = given
        state = step(state, key, batch, *arrays)
        return state, state.sums.bad_step

    return one
