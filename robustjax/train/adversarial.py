"""Objectives of adversarial training: Madry's, TRADES, and randomised weights by Taylor expansion.

Each is `name(**options) -> Objective`. Attacks run on the network in evaluation mode and float32, and are constants for the gradient; losses
run in training mode, each view by itself, and every forward pass moves the running statistics of batch norm, in the order that is written.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from robustjax import attacks, losses, models
from robustjax.core import registry, threats
from robustjax.core.check import InputError, as_number
from robustjax.core.types import Scalar, ThreatModel
from robustjax.train.objectives import Given, Loss, Network, Objective

Setting = Any
"""A value from a configuration, of whatever kind: checked here, and refused in one line."""

START = 0.001  # standard deviation of the noise that TRADES's inner maximisation begins with, in units of [0, 1] pixels


def madry(*, threat: str = "linf:8/255", step_size: Setting = 2 / 255, steps: Setting = 10) -> Objective:
    """Cross-entropy on adversarial images alone: Madry et al., ICLR 2018, Eq. 2.1; PGD on cross-entropy from a random start.

    One forward pass in training mode, on x', which updates the statistics. The training accuracy that is logged is that on x'.

    Args:
        threat: norm and radius, 'linf:8/255'.
        step_size: of PGD, in units of [0, 1] pixels.
        steps: of PGD; K in the papers.
    """
    ball = _ball(threat, step_size=step_size, steps=steps)

    def prepare(network: Network, params: dict, batch_stats: dict, given: Given) -> dict:
        fooled = models.logits_fn(network.attacked, params, batch_stats)
        return {"images": attacks.pgd(given.attack_keys, fooled, given.images, given.labels, ball, steps=steps, step_size=step_size)}

    def loss(network: Network, params: dict, batch_stats: dict, given: Given, prepared: dict) -> Loss:
        output, batch_stats = network.train(params, batch_stats, prepared["images"], given.keys)
        value = jnp.mean(losses.cross_entropy(output.logits, given.targets))
        return Loss(value, batch_stats, output.logits, {})

    return Objective(prepare, loss, loss)


def trades(*, threat: str = "linf:8/255", step_size: Setting = 2 / 255, steps: Setting = 10, beta: Setting = 6.0) -> Objective:
    """CE(f(x), y) + beta KL(f(x) || f(x')): Zhang et al., ICML 2019, Eq. 5, with beta = 1 / lambda.

    x' climbs the same KL from x + 0.001 N(0, I). Two forward passes in training mode update the statistics, first x, then x' (both with
    one dropout mask). The released code runs x once more, which moves the running statistics only: of what a step brings into them, x' is
    53 % here and 33 % there.

    Args:
        threat: norm and radius.
        step_size: of the inner maximisation, absolute; the released code of L2 ignores its own and takes 2 radius / steps.
        steps: of the inner maximisation.
        beta: weight of the KL term; 6 in the papers.
    """
    return _expanded(threat=threat, step_size=step_size, steps=steps, beta=beta, order=0, etas=(0.0, 0.0), sigma=0.0)


def rat(
    *,
    threat: str = "linf:8/255",
    step_size: Setting = 2 / 255,
    steps: Setting = 10,
    beta: Setting = 6.0,
    order: Setting = 2,
    eta: Setting = 0.2,
    sigma: Setting = 0.01,
    groups: Setting = (),
    draws: Setting = 1,
    reading: Setting = "kl_logits",
    taylor_fraction: Setting = 1.0,
) -> Objective:
    """TRADES with the Taylor terms of randomised weights: "Randomized Adversarial Training via Taylor Expansion", Algorithm 1.

    CE(f_w(x), y) + beta KL(f_w(x) || f_w(x')) + eta L(J u, J' u) + eta / 2 L(u^T H u, u^T H' u), where x' is made on f_{w+u} (Eq. 4) with
    the same draw u ~ N(0, sigma^2 I) of this step, equal on all devices. Forward passes as in `trades`. With adversarial weight perturbation
    x' is made before it, and all terms (those in the log too) are taken at the perturbed weights.

    Args:
        threat: norm and radius.
        step_size: of the inner maximisation, absolute.
        steps: of the inner maximisation.
        beta: 1 / lambda, of the zeroth term alone, as Algorithm 1 has it (Eq. 8 would give it to all terms).
        order: 1 or 2; for 0 take `trades`.
        eta: of the first term, and half of it of the second (all of it where `reading` has the half inside); the paper has 0.3 with order 1
            and 0.2 with order 2.
        sigma: standard deviation of u.
        groups: which parameters are random, see losses.weight_noise; empty for all.
        draws: of u for the expectation in the Taylor terms; the first is the one x' was made with. Costs a pass each.
        reading: what L compares, see losses.taylor.READINGS.
        taylor_fraction: share of the batch, in (0, 1], that the Taylor terms are computed on: the first rows of each device, to whole rows
            and at least one (batches are random). Below 1 both parts are normalised by their own batch statistics, CE and KL included, and
            the running statistics move four times a step: with x and x' of this part, then of the rest. Which rows are meant depends on
            the number of devices.
    """
    if isinstance(order, bool) or not isinstance(order, int) or order not in (1, 2):
        raise InputError(f"config.objective.order must be 1 or 2 (for 0 take the objective 'trades'), got {order!r}.")
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise InputError(f"config.objective.draws must be a whole number of at least 1, got {draws!r}.")
    _check(eta=eta, sigma=sigma)
    if not 0 < (as_number(taylor_fraction) or 0) <= 1:
        raise InputError(f"config.objective.taylor_fraction must be a number in (0, 1], got {taylor_fraction!r}.")
    # Where the 1/2 of Eq. 6 is inside of L, Eq. 7 leaves none outside.
    etas = (eta, eta if reading == "kl_logits_half_inside" else eta / 2)
    options = dict(order=order, etas=etas, sigma=sigma, groups=groups, draws=draws, reading=reading)
    return _expanded(threat=threat, step_size=step_size, steps=steps, beta=beta, fraction=taylor_fraction, **options)


def _expanded(
    *,
    threat: str,
    step_size: Setting,
    steps: Setting,
    beta: Setting,
    order: int,
    etas: tuple[Scalar, Scalar],
    sigma: Scalar,
    groups: Setting = (),
    draws: Setting = 1,
    reading: Setting = "kl_logits",
    fraction: Scalar = 1.0,
) -> Objective:
    ball = _ball(threat, step_size=step_size, steps=steps)
    _check(beta=beta)
    if not isinstance(reading, str) or reading not in losses.READINGS:
        raise registry.unknown("reading of the Taylor terms", str(reading), losses.READINGS)
    if not isinstance(groups, (tuple, list)) or not all(isinstance(group, str) and group for group in groups):
        raise InputError(f"config.objective.groups must be names of parameters, or their beginnings, such as ('conv1',), got {groups!r}.")

    def prepare(network: Network, params: dict, batch_stats: dict, given: Given) -> dict:
        noise = [
            losses.weight_noise(jax.random.fold_in(given.key, i), params, stddev=sigma, groups=groups) for i in range(draws if order else 0)
        ]
        attacked = jax.tree.map(jnp.add, params, noise[0]) if order else params
        return {"images": inner_maximum(network, attacked, batch_stats, given, ball, steps=steps, step_size=step_size), "noise": noise}

    def loss(network: Network, params: dict, batch_stats: dict, given: Given, prepared: dict) -> Loss:
        return _with_terms(network, params, batch_stats, given, prepared, order)

    def ascent(network: Network, params: dict, batch_stats: dict, given: Given, prepared: dict) -> Loss:
        return _with_terms(network, params, batch_stats, given, prepared, 0)

    def _with_terms(network, params, batch_stats, given, prepared, order) -> Loss:
        rows = len(given.images)
        part = max(1, round(float(fraction) * rows)) if order else 0
        values, logits = [], []
        for start, stop, order_here in ((0, part, order), (part, rows, 0)):
            if start == stop:
                continue
            some = jax.tree.map(lambda leaf, rows=slice(start, stop): leaf[rows], (given.images, prepared["images"], given.keys))
            *views, batch_stats = _two_views(network, params, batch_stats, *some, prepared["noise"], order_here)
            logits.append(views[0][0].logits)
            kl = losses.trades_regularizer(views[0][0].logits, views[1][0].logits)
            pairs = [losses.taylor_divergence(*pair, reading=reading) for pair in zip(*views, strict=True)]
            values.append((kl, *(sum(terms) / len(pairs) for terms in zip(*pairs, strict=True))))
        logits = jnp.concatenate(logits)
        terms = {
            "cross_entropy": jnp.mean(losses.cross_entropy(logits, given.targets)),
            "kl": jnp.mean(jnp.concatenate([v[0] for v in values])),
        }
        total = terms["cross_entropy"] + beta * terms["kl"]
        for name, place, eta in (("first", 1, etas[0]), ("second", 2, etas[1]))[:order]:
            terms[name] = jnp.mean(values[0][place])
            total += eta * terms[name]
        return Loss(total, batch_stats, logits, terms)

    return Objective(prepare, loss, ascent, ("cross_entropy", "kl", "first", "second")[: 2 + order])


def _two_views(
    network: Network, params: dict, batch_stats: dict, clean: Array, adversarial: Array, keys: Any, noise: list[dict], order: int
) -> tuple[list[losses.Derivatives], list[losses.Derivatives], dict]:
    """Returns the derivatives of both views for each draw of the weights' noise, and the statistics after the first draw's passes."""
    views: tuple[list, list] = ([], [])
    for draw, direction in enumerate(noise if order else [params]):
        for view, images in zip(views, (clean, adversarial), strict=True):

            def logits(w, images=images, before=batch_stats):
                output, after = network.train(w, before, images, keys)
                return output.logits, after

            *found, after = losses.taylor_derivatives(logits, params, direction, order=order, has_aux=True)
            view.append(losses.Derivatives(*found))
            batch_stats = after if draw == 0 else batch_stats
    return *views, batch_stats


def inner_maximum(network: Network, params: dict, batch_stats: dict, given: Given, threat: Any, *, steps: int, step_size: Scalar) -> Array:
    """Returns x' that climbs KL(f(x) || f(x')) from x + 0.001 N(0, I), which is not clipped, on the network in evaluation mode."""
    fooled = models.logits_fn(network.attacked, params, batch_stats)
    noise = jax.vmap(lambda key: jax.random.normal(key, given.images.shape[1:], given.images.dtype))(given.attack_keys)
    start = given.images + START * noise
    return attacks.pgd(None, fooled, given.images, given.labels, threat, steps=steps, step_size=step_size, objective="kl", start=start)


def rat_released(
    *,
    threat: str = "linf:8/255",
    step_size: Setting = 2 / 255,
    steps: Setting = 10,
    beta: Setting = 6.0,
    alpha: Setting = 0.2,
    confusion: Setting = 0.8,
    sigma: Setting = 1e-4,
) -> Objective:
    """What the paper's released code trains in place of Algorithm 1's Taylor terms; see losses.heuristic.

    (1 - alpha) CE + alpha first + alpha / 2 second + beta KL, where x' is made on weights whose convolutions got noise of 1e-4. Forward
    passes as in `trades`.

    Args:
        threat: norm and radius (the released code knows L-inf only).
        step_size: of the inner maximisation.
        steps: of the inner maximisation.
        beta: weight of the KL term.
        alpha: weight of the made-up terms, taken from the cross-entropy.
        confusion: share that made-up labels take from the label; 0.8 with 10 classes, 0.98 with 100.
        sigma: standard deviation of the noise in the attacked weights, on parameters with "conv" in their name.
    """
    ball = _ball(threat, step_size=step_size, steps=steps)
    _check(beta=beta, alpha=alpha, sigma=sigma)
    if not 0 <= (-1 if as_number(confusion) is None else as_number(confusion)) <= 1:
        raise InputError(f"config.objective.confusion must be a number in [0, 1], got {confusion!r}.")

    def prepare(network: Network, params: dict, batch_stats: dict, given: Given) -> dict:
        convolutions = tuple(name for name in params if "conv" in name)
        if not convolutions:
            raise InputError("the objective 'rat_released' puts noise on parameters with 'conv' in their names; this network has none.")
        noise = losses.weight_noise(given.key, params, stddev=sigma, groups=convolutions)
        attacked = jax.tree.map(jnp.add, params, noise)
        return {"images": inner_maximum(network, attacked, batch_stats, given, ball, steps=steps, step_size=step_size)}

    def loss(network: Network, params: dict, batch_stats: dict, given: Given, prepared: dict, alpha: Scalar = alpha) -> Loss:
        clean, batch_stats = network.train(params, batch_stats, given.images, given.keys)
        fooled, batch_stats = network.train(params, batch_stats, prepared["images"], given.keys)
        gradients = [
            losses.head_gradient(view.features, view.logits, given.labels, axis_name=network.axis_name) for view in (clean, fooled)
        ]
        first, second = losses.released_heuristic(clean.logits, fooled.logits, *gradients, given.labels, confusion=confusion)
        terms = {
            "cross_entropy": jnp.mean(losses.cross_entropy(clean.logits, given.targets)),
            "kl": jnp.mean(losses.trades_regularizer(clean.logits, fooled.logits)),
            "first": jnp.mean(first),
            "second": jnp.mean(second),
        }
        value = (1 - alpha) * terms["cross_entropy"] + alpha * (terms["first"] + terms["second"] / 2) + beta * terms["kl"]
        return Loss(value, batch_stats, clean.logits, terms)

    return Objective(prepare, loss, functools.partial(loss, alpha=0.0), ("cross_entropy", "kl", "first", "second"))


def _ball(threat: str, *, step_size: Setting, steps: Setting) -> ThreatModel:
    """Returns the threat model of the attack in training, after checking its options, before anything is traced."""
    if not 0 < (as_number(step_size) or 0) < math.inf:
        raise InputError(f"config.objective.step_size must be a number above 0, in units of [0, 1] pixels, got {step_size!r}.")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"config.objective.steps must be a whole number of at least 1, got {steps!r}.")
    return threats.parse(threat)


def _check(**weights: Setting) -> None:
    for name, value in weights.items():
        number = as_number(value)
        if number is None or not 0 <= number < math.inf:
            raise InputError(f"config.objective.{name} must be a number of at least 0, got {value!r}.")


TABLE: dict[str, Callable[..., Objective]] = {"madry": madry, "trades": trades, "rat": rat, "rat_released": rat_released}
