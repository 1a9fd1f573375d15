"""The two-layer networks of the reference data (see data/losses_metrics/README.md): h = act(W x + b) twice, then logits."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np

ACTIVATIONS = {"tanh": jnp.tanh, "softplus": jax.nn.softplus, "relu": jax.nn.relu}
NAMES = ("W1", "b1", "W2", "b2", "W3", "b3")  # the order of flat vectors


def precision(dtype):
    """Returns a context in which arrays of `dtype` stay so."""
    return jax.enable_x64(True) if dtype is np.float64 else contextlib.nullcontext()


def params(data, prefix: str, dtype) -> dict:
    """Returns the weights stored under `prefix`."""
    return {name: jnp.asarray(data[f"{prefix}.{name}"], dtype) for name in NAMES}


def logits(params: dict, x, *, act: str):
    """Returns the logits of rows x (n, d), or of images (n, h, w, c) flattened as the reference data are."""
    x = x if x.ndim == 2 else jnp.transpose(x, (0, 3, 1, 2)).reshape(x.shape[0], -1)
    act = ACTIVATIONS[act]
    for i in (1, 2):
        x = act(x @ params[f"W{i}"].T + params[f"b{i}"][None])
    return x @ params["W3"].T + params["b3"][None]


def unflatten(vector, like: dict) -> dict:
    """Returns a flat vector as a dict of arrays."""
    found, at = {}, 0
    for name in NAMES:
        found[name] = jnp.asarray(vector[at : at + like[name].size], like[name].dtype).reshape(like[name].shape)
        at += like[name].size
    assert at == len(vector)
    return found


def flatten(tree: dict) -> np.ndarray:
    """Returns a dict of arrays as a flat vector."""
    return np.concatenate([np.asarray(tree[name]).ravel() for name in NAMES])
