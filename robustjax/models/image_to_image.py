"""Networks from images to images, as plain lists of layers: what DeepAugment distorts.

    network = image_to_image.make("cae", jax.random.key(0), channels=3)
    reconstructed = image_to_image.apply(network.layers, network.params, images)

A layer is a function (params, hidden) -> hidden of feature maps (b, h, w, c), and reads its sizes off its arrays. Images of any size pass:
where a layer halves, sizes are rounded up, and `apply` cuts the result back to the size of the images.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from robustjax.core import check, registry
from robustjax.core.check import InputError
from robustjax.core.numerics import lift
from robustjax.core.types import ArrayLike, KeysLike

Maps = Float[Array, "b _ _ _"]
Layer = Callable[[Any, Maps], Maps]

_GREY = 0.5  # what networks subtract from images and add again


class ImageToImage(NamedTuple):
    """The layers of a network, and the arrays of each."""

    layers: tuple[Layer, ...]
    params: list[dict]


def make(name: str, key: KeysLike, *, channels: Any = 3, width: Any = 32) -> ImageToImage:
    """Returns an untrained network.

    Args:
        name: 'cae': two layers that halve height and width, three residual blocks, two layers that double them, as in compressive
            autoencoders. 'edsr': one that halves, four residual blocks, one convolution, one that doubles, as in super-resolution.
        key: one key, of the random weights.
        channels: of the images, at least 1.
        width: feature maps of the hidden layers, at least 4. A quarter of the resolution has 16 values for each channel where the 'cae' is
            narrowest, so from 16 * channels on nothing need be lost.

    Raises:
        InputError: for an unknown name or another number.

    References:
        Theis et al., "Lossy Image Compression with Compressive Autoencoders", ICLR 2017.
        Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPR Workshops 2017.
    """
    if name not in _NETWORKS:
        raise registry.unknown("image-to-image network", name, _NETWORKS)
    for what, value, least in (("channels", channels, 1), ("width", width, 4)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(f"{what} of an image-to-image network must be a whole number and at least {least}, got {value!r}.")
    return ImageToImage(_NETWORKS[name], _initial(key, name=name, channels=channels, width=width))


def like(name: str, *, channels: Any = 3, width: Any = 32) -> ImageToImage:
    """Returns a network with the shapes and dtypes of its params in their place; see `make`."""
    params = jax.eval_shape(lambda: make(name, jax.random.key(0), channels=channels, width=width).params)
    return ImageToImage(_NETWORKS[name], params)


def apply(layers: Sequence[Layer], params: Sequence[Any], images: ArrayLike) -> Maps:
    """Returns the images that a network makes of images.

    Args:
        layers, params: of the network, in order.
        images: float (b, h, w, c) in [0, 1].

    Returns:
        Like `images`, at least float32, in [0, 1].
    """
    images = lift(check.check_images(images))
    hidden = images
    for layer, own in zip(layers, params, strict=True):
        hidden = layer(own, hidden)
    return jnp.clip(hidden[:, : images.shape[1], : images.shape[2]], 0, 1)


def first(params: dict, images: Maps) -> Maps:
    """Images -> features of half their height and width: 2x2 windows side by side, convolution."""
    return halve(params, images - _GREY)


def halve(params: dict, maps: Maps) -> Maps:
    """Halves height and width, rounding up: 2x2 windows side by side, convolution."""
    b, h, w, c = maps.shape
    maps = jnp.pad(maps, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")
    windows = maps.reshape(b, (h + 1) // 2, 2, (w + 1) // 2, 2, c)
    return convolution(params, windows.transpose(0, 1, 3, 2, 4, 5).reshape(b, (h + 1) // 2, (w + 1) // 2, 4 * c))


def residual(params: dict, maps: Maps) -> Maps:
    """Adds a convolution, relu and a convolution."""
    return maps + convolution(params["second"], jax.nn.relu(convolution(params["first"], maps)))


def convolution(params: dict, maps: Maps) -> Maps:
    """A 3x3 convolution with bias; beyond the border maps go on as they end, since zeros would be seen there."""
    kernel, bias = (params[name].astype(maps.dtype) for name in ("kernel", "bias"))
    maps = jnp.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    maps = jax.lax.conv_general_dilated(maps, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return maps + bias.reshape(1, 1, 1, -1)


def double(params: dict, maps: Maps) -> Maps:
    """Doubles height and width: a convolution whose outputs become 2x2 windows."""
    b, h, w, _ = maps.shape
    windows = convolution(params, maps).reshape(b, h, w, 2, 2, -1)
    return windows.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, -1)


def last(params: dict, maps: Maps) -> Maps:
    """Features -> images of twice their height and width, not clipped."""
    return double(params, maps) + _GREY


_NETWORKS = {
    "cae": (first, halve, residual, residual, residual, double, last),
    "edsr": (first, residual, residual, residual, residual, convolution, last),
}
NAMES = tuple(_NETWORKS)


@functools.partial(jax.jit, static_argnames=("name", "channels", "width"))
def _initial(key: KeysLike, *, name: str, channels: int, width: int) -> list[dict]:
    """Draws the convolutions: He normal (fan_in), bias 0; smaller the last one, and the second of a block, which begins near nothing."""
    # Inputs and outputs; pixels of 2x2 windows count as channels where resolution changes.
    sizes = {first: (4 * channels, width), halve: (4 * width, width), double: (width, 4 * width), last: (width, 4 * channels)}
    sizes = [(layer, *sizes.get(layer, (width, width))) for layer in _NETWORKS[name]]
    # All in one draw, which compiles in a fraction of the time.
    values = jax.random.normal(key, (sum(9 * (1 + (layer is residual)) * i * o for layer, i, o in sizes),), jnp.float32)
    used = 0

    def drawn(inputs: int, outputs: int, gain: float = 1.0) -> dict:
        nonlocal used
        kernel = values[used : used + 9 * inputs * outputs].reshape(3, 3, inputs, outputs)
        used += kernel.size
        return {"kernel": gain * (2 / (9 * inputs)) ** 0.5 * kernel, "bias": jnp.zeros((outputs,), jnp.float32)}

    def params(layer: Layer, inputs: int, outputs: int) -> dict:
        if layer is residual:
            return {"first": drawn(inputs, outputs), "second": drawn(outputs, outputs, 0.1)}
        return drawn(inputs, outputs, 0.3 if layer is last else 1.0)

    return [params(*one) for one in sizes]
