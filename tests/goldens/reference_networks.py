"""The networks of the attack references, rebuilt from their stored arrays."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np


def plain_cnn(params: Mapping[str, jax.Array], images: jax.Array) -> jax.Array:
    """3x3 convolutions (stride 1, zero padding 1, bias, ReLU, 2x2 average pooling), then dense layers with ReLU between them."""
    x = images
    for i in range(1, 1 + sum(name.endswith("kernel_HWIO") for name in params)):
        dims = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            x, params[f"conv{i}_kernel_HWIO"], (1, 1), ((1, 1), (1, 1)), dimension_numbers=dims, precision="highest"
        )
        x = jax.nn.relu(x + params[f"conv{i}_bias"][None, None, None])
        b, h, w, c = x.shape
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
    x = x.reshape(x.shape[0], -1)
    layers = sum(name.endswith("kernel_IO") for name in params)
    for i in range(1, 1 + layers):
        x = jnp.dot(x, params[f"dense{i}_kernel_IO"], precision="highest") + params[f"dense{i}_bias"][None]
        x = jax.nn.relu(x) if i < layers else x
    return x


def logits_fn(arrays: Mapping[str, np.ndarray], dtype=np.float32) -> jax.tree_util.Partial:
    """Returns images (b, h, w, c) in [0, 1] -> logits of the plain CNN with these arrays, computed in `dtype`."""
    return jax.tree_util.Partial(plain_cnn, {name: jnp.asarray(arrays[name], dtype) for name in arrays})
