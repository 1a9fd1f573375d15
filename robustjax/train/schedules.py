"""Learning rates and optimisers, from the numbers of a configuration."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from robustjax.core.check import InputError


def learning_rate(schedule: dict, *, lr: float, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """Returns step -> learning rate.

    Args:
        schedule: name 'cosine' (half a period from `lr` to 0 over the run, changed at every step), 'step' (times `factor` at
            each of `boundaries`, in epochs) or 'constant'; `warmup_epochs` of linear growth from 0 go before.
        lr: highest rate.
        steps_per_epoch: of the training split.
        epochs: length of the whole run, warm-up included.

    Raises:
        InputError: if the warm-up is as long as the run, or a boundary lies outside it.
    """
    warmup = round(schedule["warmup_epochs"] * steps_per_epoch)
    total = epochs * steps_per_epoch
    if warmup >= total:
        raise InputError(f"config.schedule.warmup_epochs = {schedule['warmup_epochs']} leaves nothing of the {epochs} epochs.")
    if schedule["name"] == "cosine":
        main = optax.cosine_decay_schedule(lr, total - warmup)
    elif schedule["name"] == "step":
        late = [b for b in schedule["boundaries"] if b >= epochs]
        if late:
            raise InputError(f"config.schedule.boundaries {late} lie behind the last of the {epochs} epochs.")
        # Boundaries count from the start of the run, join_schedules from the end of the warm-up.
        at = {round(b * steps_per_epoch) - warmup: schedule["factor"] for b in schedule["boundaries"]}
        main = optax.piecewise_constant_schedule(lr, at)
    else:
        main = optax.constant_schedule(lr)
    if not warmup:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, lr, warmup), main], [warmup])


def optimizer(settings: dict, rate: optax.Schedule) -> optax.GradientTransformation:
    """Returns gradient clipping, then weight decay added to the gradient of every parameter, then SGD or Adam.

    That is the order of torch's optimisers, which the papers used: the decay is coupled, also for Adam, and includes
    biases and batch-norm parameters.
    """
    parts = []
    if settings["clip_norm"]:
        parts.append(optax.clip_by_global_norm(settings["clip_norm"]))
    if settings["weight_decay"]:
        parts.append(optax.add_decayed_weights(settings["weight_decay"]))
    if settings["name"] == "adam":
        parts.append(optax.adam(rate, b1=settings["momentum"]))
    else:
        parts.append(optax.sgd(rate, momentum=settings["momentum"] or None, nesterov=settings["nesterov"]))
    chain = optax.chain(*parts)

    def update(grads, state, params=None):
        # Optax multiplies integer counts by floats in its schedules and in Adam, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            return chain.update(grads, state, params)

    return optax.GradientTransformation(chain.init, update)


def averaging(settings: dict, *, steps_per_epoch: int) -> Callable | None:
    """Returns (step, averaged, current) -> averaged trees of weights and batch statistics, or None for no averaging.

    `ema`: decay of an exponential mean over steps. `swa_epoch`: stochastic weight averaging, the plain mean of the weights at the end of
    that epoch and of each one after it (before it, the weights themselves): Izmailov et al., UAI 2018, Eq. in section 3.2; used for
    adversarial training by Chen et al., ICLR 2021. Batch statistics are averaged like weights, where the released code computes those of
    the averaged network anew over the training data.

    Args:
        settings: config.optimizer.
        steps_per_epoch: of the training split.

    Raises:
        InputError: if both are asked for.
    """
    decay, first = settings["ema"], settings["swa_epoch"]
    if decay and first:
        raise InputError(f"config.optimizer.ema = {decay} and swa_epoch = {first} are two ways of averaging; set one of them to 0.")
    if not decay and not first:
        return None

    def exponential(step, averaged, current):
        return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, averaged, current)

    def stochastic(step, averaged, current):
        epoch, ends = (step + 1) // steps_per_epoch, (step + 1) % steps_per_epoch == 0
        count = jnp.maximum(epoch - first + 1, 1)

        def mean(old, new):
            moved = old + (new - old) / count.astype(new.dtype)
            return jnp.where(epoch < first, new, jnp.where(ends, moved, old))

        return jax.tree.map(mean, averaged, current)

    return exponential if decay else stochastic
