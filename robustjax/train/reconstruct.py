"""Trains image-to-image networks to return the images they are given, for DeepAugment to distort. Killed and called again, it goes on."""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from robustjax.core import example_keys
from robustjax.core.check import InputError
from robustjax.data import Source, TrainOrder, batches
from robustjax.io import log, results
from robustjax.models import image_to_image

_SAVE = 200  # steps; also how often the loss is looked at


class _State(NamedTuple):
    step: Array
    params: list
    moments: Any  # of Adam


def fit(
    network: image_to_image.ImageToImage,
    source: Source,
    ids: np.ndarray,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    crop: int,
    seed: int,
    state: Path,
    title: str,
    quiet: bool = False,
) -> list:
    """Trains on random crops: mean squared error, Adam, cosine decay.

    Args:
        network: where to begin.
        source: of the images.
        ids: (n,) which of them to train on.
        steps: at least 1.
        batch_size: at most n is used.
        lr: largest learning rate.
        crop: side of the crops; images that are smaller are taken whole.
        seed: of order and crops.
        state: file to which the state goes every 200 steps, and from which it goes on.
        title: of the progress line.
        quiet: no progress line.

    Returns:
        The trained params.

    Raises:
        InputError: for a loss that is not finite. A `state` of other shapes is set aside; whether its settings are these is the caller's to know.
    """
    current = _State(jnp.zeros((), jnp.int32), network.params, optax.scale_by_adam().init(network.params))
    if state.exists():
        current = _restored(state, current)
    order = TrainOrder(ids, batch_size=min(batch_size, len(ids)), seed=seed)
    done = int(current.step)
    with log.progress(title, steps, start=done, quiet=quiet) as show:
        for at in range(done, steps):
            chosen = order(at)
            rate = np.float32(lr * 0.5 * (1 + np.cos(np.pi * at / steps)))
            images = source.fetch(chosen)[0]
            current, loss = _step(current, jax.random.key(seed), images, chosen, rate, layers=network.layers, crop=crop)
            if (at + 1) % _SAVE == 0 or at + 1 == steps:
                if not np.isfinite(loss):
                    raise InputError(
                        f"{title}: the loss is {loss} at step {at + 1}; take a lower learning rate than {lr:g}, in a new folder."
                    )
                save(state, current)
                show(at + 1, f"mean squared error {loss:.2g}")
    return current.params


def psnr(network: image_to_image.ImageToImage, source: Source, ids: np.ndarray, *, batch_size: int) -> float:
    """Returns how well images are reconstructed, in dB: the mean over images of -10 log10 of the mean squared error, in units of [0, 1].

    Args:
        network: trained.
        source: of the images.
        ids: (n,) which of them.
        batch_size: images at a time.
    """
    total = 0.0
    for chosen, mask in batches.padded(ids, batch_size):
        errors = _errors(network.params, source.fetch(chosen)[0], layers=network.layers)
        total += float(-10 * np.log10(np.maximum(np.asarray(errors, np.float64)[mask], 1e-10)).sum())
    return total / len(ids)


def save(path: Path, tree: Any) -> None:
    """Writes the arrays of a tree to an npz file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.partial")
    with results.writing(path), open(temporary, "wb") as file:
        np.savez(file, *map(np.asarray, jax.tree.leaves(tree)))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def restore(path: Path, like: Any) -> Any:
    """Reads what `save` wrote of a tree of this structure.

    Raises:
        InputError: if the file cannot be read, or holds other arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = [file[f"arr_{number}"] for number in range(len(file.files))]
    except Exception as error:  # zip, npy and OS each raise their own kinds for a damaged file
        raise InputError(f"{path} cannot be read ({type(error).__name__}); delete it and run the same command again.") from error
    wanted = jax.tree.leaves(like)
    if [(a.shape, a.dtype) for a in found] != [(a.shape, a.dtype) for a in wanted]:
        raise InputError(f"{path} holds another network than the one asked for; choose another folder, or delete it.")
    return jax.tree.unflatten(jax.tree.structure(like), map(jnp.asarray, found))


def _restored(path: Path, fresh: _State) -> _State:
    try:
        return restore(path, fresh)
    except InputError as error:
        log.say(f"warning: {error} Training begins anew.")
        return fresh


def _cropped(key: Array, images: Array, ids: Array, size: int) -> Float[Array, "b s t c"]:
    height, width = (min(size, side) for side in images.shape[1:3])

    def one(key: Array, image: Array) -> Array:
        corner = jax.random.randint(key, (2,), 0, jnp.asarray(image.shape[:2]) - jnp.asarray([height, width]) + 1, jnp.int32)
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], jnp.zeros_like(corner[0])), (height, width, image.shape[2]))

    return jax.vmap(one)(example_keys(key, ids), images).astype(jnp.float32) / 255


def _reconstruct(layers: Sequence[Callable], params: Sequence[Any], images: Array) -> Array:
    # Not clipped: beyond the ends of the range there must be gradients, too.
    maps = images
    for layer, own in zip(layers, params, strict=True):
        maps = layer(own, maps)
    return maps[:, : images.shape[1], : images.shape[2]]


@functools.partial(jax.jit, static_argnames=("layers", "crop"))
def _step(current: _State, key: Array, images: Array, ids: Array, rate: Array, *, layers: tuple, crop: int) -> tuple[_State, Array]:
    images = _cropped(jax.random.fold_in(key, current.step), images, ids, crop)
    loss, gradient = jax.value_and_grad(lambda params: jnp.mean((_reconstruct(layers, params, images) - images) ** 2))(current.params)
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam takes powers of floats by integers
        change, moments = optax.scale_by_adam().update(gradient, current.moments)
    params = jax.tree.map(lambda old, by: old - rate * by, current.params, change)
    return _State(current.step + 1, params, moments), loss


@functools.partial(jax.jit, static_argnames="layers")
def _errors(params: list, images: Array, *, layers: tuple) -> Float[Array, " b"]:
    images = images.astype(jnp.float32) / 255
    return jnp.mean((image_to_image.apply(layers, params, images) - images) ** 2, axis=(1, 2, 3))
