"""Objectives: what a training step minimises.

An objective is what is prepared without a gradient (adversarial images, noise of the weights), the loss, and the loss that adversarial
weight perturbation climbs. All see the batch of one device: losses are means over it, and the step averages them over devices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from robustjax.core.types import Keys


class Network(NamedTuple):
    """The network of a step."""

    apply: Callable  # in training, see models.functional
    attacked: Callable  # what attacks see: the same, in float32 and without rematerialisation
    axis_name: str | None

    def train(self, params: dict, batch_stats: dict, images: Array, keys: Keys) -> tuple[Any, dict]:
        """Returns one forward pass in training mode, with statistics over all devices: (Output, batch statistics)."""
        return self.apply(params, batch_stats, images, True, axis_name=self.axis_name, key=keys)


class Given(NamedTuple):
    """The examples of a step, augmented."""

    images: Float[Array, "b h w c"]
    targets: Float[Array, "b k"]
    labels: Int[Array, " b"]
    keys: Keys  # one an example: of the network
    attack_keys: Keys  # and of what is drawn to disturb it: the attack's start, or noise
    key: Key[Array, ""]  # of the step, the same on all devices
    others: tuple[tuple[Float[Array, "b h w c"], Float[Array, "b k"]], ...] = ()  # images and targets of further views, see `views`
    memory: Any = None  # what the step before left, see Objective.memory


class Loss(NamedTuple):
    """What a loss gives beside its value; `terms` are its parts, for the log."""

    value: Float[Array, ""]
    batch_stats: dict[str, Array]
    logits: Float[Array, "b k"]  # by which the training accuracy is counted
    terms: dict[str, Float[Array, ""]]
    memory: Any = ()  # for the step after, the same on all devices


class Objective(NamedTuple):
    """`prepare(network, params, batch_stats, given) -> prepared`, and losses `(network, params, batch_stats, given, prepared) -> Loss`."""

    prepare: Callable[..., Any]
    loss: Callable[..., Loss]
    ascent: Callable[..., Loss]  # what adversarial weight perturbation climbs with config.awp.loss = 'base'
    terms: tuple[str, ...] = ()  # names of Loss.terms
    views: int = 1  # how many of every example there are, in Given: each is augmented anew
    memory: Callable[[dict], Any] = lambda params: ()  # returns, from the parameters, the memory before the first step
    mixed: str = ""  # views differ from AugMix on alone, see augment.compose_views; which of them what comes after it acts on


def classification(loss_fn: Callable) -> Objective:
    """Returns the plain objective: one forward pass in training mode, which updates the batch-norm statistics.

    Args:
        loss_fn: (logits (b, k), targets (b, k)) -> (b,), e.g. losses.cross_entropy.
    """

    def loss(network: Network, params: dict, batch_stats: dict, given: Given, prepared: None) -> Loss:
        output, batch_stats = network.train(params, batch_stats, given.images, given.keys)
        return Loss(jnp.mean(loss_fn(output.logits, given.targets)), batch_stats, output.logits, {})

    return Objective(lambda *given: None, loss, loss)
