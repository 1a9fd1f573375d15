"""Objectives: what a training step minimises.

An objective is what is prepared without a gradient (adversarial images, noise of the weights), the loss, and the loss that adversarial
weight perturbation climbs. All see the batch of one device: losses are means over it, and the step averages them over devices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
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


def penalized(objective: Objective, *, l1: float, l2: float) -> Objective:
    """Returns the objective with l1 * sum |w| + l2 / 2 * sum w^2 added to its loss, over the kernels: no biases, no batch norm.

    The gradient of the L2 term is that of SGD's weight decay, l2 * w, but for its leaves: `config.optimizer.weight_decay` takes all
    parameters, as torch's does. Unlike weight decay the penalties are part of the loss that is logged, of the gradient that is clipped, and of
    what adversarial weight perturbation climbs with config.awp.loss = 'full'. SPIDER's Table 9 compares the two, and does not say over which
    parameters its L1 penalty runs.

    Args:
        objective: see `Objective`.
        l1: at least 0; the subgradient at 0 is 0.
        l2: likewise.
    """
    penalties = {
        # Not jnp.abs, whose gradient at 0 is 1: weights that are 0 shall stay there.
        "l1_penalty": (l1, lambda kernel: jnp.sum(kernel * jax.lax.stop_gradient(jnp.sign(kernel)))),
        "l2_penalty": (l2 / 2, lambda kernel: jnp.sum(kernel**2)),
    }
    penalties = {name: of for name, of in penalties.items() if of[0]}

    def loss(network: Network, params: dict, *rest) -> Loss:
        found = objective.loss(network, params, *rest)
        kernels = [value for name, value in params.items() if name.rpartition(".")[2] == "kernel"]
        terms = {name: weight * sum(map(size, kernels)) for name, (weight, size) in penalties.items()}
        return found._replace(value=found.value + sum(terms.values()), terms=found.terms | terms)

    return objective._replace(loss=loss, terms=(*objective.terms, *penalties)) if penalties else objective


def classification(loss_fn: Callable) -> Objective:
    """Returns the plain objective: one forward pass in training mode, which updates the batch-norm statistics.

    Args:
        loss_fn: (logits (b, k), targets (b, k)) -> (b,), e.g. losses.cross_entropy.
    """

    def loss(network: Network, params: dict, batch_stats: dict, given: Given, prepared: None) -> Loss:
        output, batch_stats = network.train(params, batch_stats, given.images, given.keys)
        return Loss(jnp.mean(loss_fn(output.logits, given.targets)), batch_stats, output.logits, {})

    return Objective(lambda *given: None, loss, loss)
