"""The training state: everything that a step changes, and nothing else."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


class Sums(NamedTuple):
    """What is summed since the last line of the log, on the device, so that no step waits for the host."""

    loss: Float[Array, ""]
    correct: Float[Array, ""]
    count: Float[Array, ""]
    bad_step: Int[Array, ""]  # the first step whose loss was not finite, or -1
    terms: dict[str, Float[Array, ""]]  # the parts of the loss, of objectives that have such


class TrainState(NamedTuple):
    """Parameters and what goes with them after `step` steps.

    `ema` holds averaged (EMA or SWA) weights and statistics, or is empty; `memory` what the objective keeps from step to step, or is empty.
    """

    step: Int[Array, ""]
    params: dict[str, Array]
    batch_stats: dict[str, Array]
    opt_state: optax.OptState
    ema: dict[str, dict[str, Array]]
    sums: Sums
    memory: Any = ()


def zero_sums(terms: Sequence[str] = ()) -> Sums:
    """Returns empty sums, of objectives whose losses have `terms`."""
    zero = {name: jnp.zeros((), jnp.float32) for name in ("loss", "correct", "count", *terms)}
    return Sums(zero.pop("loss"), zero.pop("correct"), zero.pop("count"), bad_step=jnp.int32(-1), terms=zero)


def create(
    params: dict,
    batch_stats: dict,
    optimizer: optax.GradientTransformation,
    *,
    averaged: bool,
    terms: Sequence[str] = (),
    memory: Any = (),
) -> TrainState:
    """Returns the state before the first step; with `averaged` a second set of weights, with `terms` and `memory` of its objective."""
    average = {"params": jax.tree.map(jnp.copy, params), "batch_stats": jax.tree.map(jnp.copy, batch_stats)} if averaged else {}
    return TrainState(jnp.int32(0), params, batch_stats, optimizer.init(params), average, zero_sums(terms), memory)


def evaluated(state: TrainState) -> tuple[dict, dict]:
    """Returns the (params, batch_stats) that validation and evaluation use: the averaged ones where there are any."""
    return (state.ema["params"], state.ema["batch_stats"]) if state.ema else (state.params, state.batch_stats)
