"""The two image-to-image networks that DeepAugment was published with, for the weights of its release.

    network = published.load("cae", "model_final.state")
    reconstructed = image_to_image.apply(network.layers, network.params, images)

Both take images of three channels. They are those of the release, with four differences: images whose sides are no multiple of four are
extended by their edge for 'cae'; its binarisation takes the likelier bit, where the release draws one; what 'edsr' makes, four times
as large, is averaged back to the size of the images, where the release starts from images that were made smaller; and 'cae' gets images at
their own size and passes its code on unchanged, where the release first resizes their shorter side to 512 pixels and always distorts the
code in one of nine ways. At 32 pixels 'cae' thus works far from the scale it was trained for.

Hendrycks et al., "The Many Faces of Robustness", ICCV 2021; https://github.com/hendrycks/imagenet-r, folder DeepAugment. 'cae' is by
Alexandru Dinu, after Theis et al., ICLR 2017; 'edsr' is Lim et al.'s baseline of 16 blocks, which enlarges four times.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robustjax.core import registry
from robustjax.core.check import InputError
from robustjax.models import torch_import
from robustjax.models.image_to_image import ImageToImage

Maps = Float[Array, "b _ _ _"]
Params = list[dict]
"""Kernel and bias of each convolution of a layer."""

_MEAN = (0.4488, 0.4371, 0.4040)  # of the images that 'edsr' was trained on
_SCALE = 4  # by which it enlarges
_LEAST = 9  # pixels: the maps of smaller images are smaller than the windows of 'cae'


def load(name: str, path: str | Path) -> ImageToImage:
    """Reads the published weights of a network.

    Args:
        name: 'cae' or 'edsr'.
        path: the release's 'model_final.state' or 'edsr_baseline_x4.pt' (torch must be installed), or its arrays under their names as
            '.safetensors' or '.npz'; see `torch_files.read`.

    Raises:
        InputError: for an unknown name, or a file that cannot be read or holds something else.
    """
    wanted = {}
    for convs in _convolutions(name):
        for conv, shape in convs:
            height, width, inputs, outputs = shape
            sides = (outputs, inputs) if conv in _TRANSPOSED else (inputs, outputs)  # transposed ones are stored the other way round
            wanted |= {f"{conv}.kernel": _like((height, width, *sides)), f"{conv}.bias": _like((outputs,))}
    shifts = ("sub_mean", "add_mean") if name == "edsr" else ()
    for shift in shifts:
        wanted |= {f"{shift}.kernel": _like((1, 1, 3, 3)), f"{shift}.bias": _like((3,))}
    found, _ = torch_import.fit(path, wanted, {})
    for sign, shift in zip((-1, 1), shifts, strict=False):
        bias = sign * 255 * np.array(_MEAN)
        if not (np.allclose(found[f"{shift}.kernel"][0, 0], np.eye(3)) and np.allclose(found[f"{shift}.bias"], bias, rtol=1e-3)):
            raise InputError(f"{path} is of an EDSR for other images: its {shift} is not that of 8-bit RGB images, {bias.round(2)}.")

    def kernel(conv: str) -> Array:
        return jnp.swapaxes(found[f"{conv}.kernel"], 2, 3) if conv in _TRANSPOSED else found[f"{conv}.kernel"]

    params = [[{"kernel": kernel(conv), "bias": found[f"{conv}.bias"]} for conv, _ in convs] for convs in _convolutions(name)]
    return ImageToImage(_layers(name), params)


def like(name: str) -> ImageToImage:
    """Returns the network with the shapes and dtypes of its params in their place."""
    params = [[{"kernel": _like(shape), "bias": _like(shape[3:])} for _, shape in convs] for convs in _convolutions(name)]
    return ImageToImage(_layers(name), params)


def _like(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _convolve(params: dict, maps: Maps, *, pad: Sequence[int] | None = None, stride: int = 1) -> Maps:
    """Convolves, with `pad` zeros before and after (by default as many as keep the size)."""
    kernel, bias = (params[name].astype(maps.dtype) for name in ("kernel", "bias"))
    pad = (kernel.shape[0] // 2,) * 2 if pad is None else tuple(pad)
    maps = jax.lax.conv_general_dilated(maps, kernel, (stride, stride), (pad, pad), dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return maps + bias.reshape(1, 1, 1, -1)


def _block(params: Params, maps: Maps, *, activation: Callable[[Array], Array]) -> Maps:
    return maps + _convolve(params[1], activation(_convolve(params[0], maps)))


# -- cae --


def shrink(params: Params, maps: Maps) -> Maps:
    """Halves height and width: windows of 5 pixels, of which every second is taken."""
    return jax.nn.leaky_relu(_convolve(params[0], maps, pad=(1, 2), stride=2))


def shrink_images(params: Params, images: Maps) -> Maps:
    """Halves images, extended to sides that can be halved twice."""
    if images.shape[3] != 3 or min(images.shape[1:3]) < _LEAST:
        raise InputError(f"the published CAE takes images of three channels and at least {_LEAST} pixels a side, got {images.shape[1:]}.")
    more = ((0, -side % 4) for side in images.shape[1:3])
    return shrink(params, jnp.pad(images, ((0, 0), *more, (0, 0)), mode="edge"))


def leaky_block(params: Params, maps: Maps) -> Maps:
    """Adds a convolution, leaky relu and a convolution."""
    return _block(params, maps, activation=jax.nn.leaky_relu)


def binarize(params: Params, maps: Maps) -> Maps:
    """The code: -1 or 1."""
    code = jnp.tanh(_convolve(params[0], maps))
    return jnp.where(code >= 0, jnp.ones_like(code), -jnp.ones_like(code))


def enlarge(params: Params, maps: Maps) -> Maps:
    """Doubles height and width: each pixel becomes a window of 2x2, by a transposed convolution."""
    # No padding here, and zeros behind the activation: the border is biases alone.
    maps = jnp.pad(jax.nn.leaky_relu(_convolve(params[0], maps, pad=(0, 0))), ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel, bias = (params[1][name].astype(maps.dtype) for name in ("kernel", "bias"))
    b, h, w, _ = maps.shape
    windows = jnp.einsum("bhwc,ijco->bhiwjo", maps, kernel) + bias.reshape(1, 1, 1, 1, 1, -1)
    return windows.reshape(b, 2 * h, 2 * w, -1)


def decode(params: Params, maps: Maps) -> Maps:
    """The last two convolutions, at the size of the images."""
    maps = jax.nn.leaky_relu(_convolve(params[0], maps, pad=(0, 0)))
    return jnp.tanh(_convolve(params[1], jnp.pad(maps, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect"), pad=(0, 0)))


# -- edsr. From the first layer to the end of the blocks, features are carried beside the maps, to be added there. --


def head(params: Params, images: Maps) -> tuple[Maps, Maps]:
    """Images in [0, 1] -> features, twice."""
    if images.shape[3] != 3:
        raise InputError(f"the published EDSR takes images of three channels, got {images.shape[1:]}.")
    features = _convolve(params[0], 255 * (images - _mean(images)))
    return features, features


def block(params: Params, maps: tuple[Maps, Maps]) -> tuple[Maps, Maps]:
    """Adds a convolution, relu and a convolution."""
    return _block(params, maps[0], activation=jax.nn.relu), maps[1]


def body_end(params: Params, maps: tuple[Maps, Maps]) -> Maps:
    """A convolution, and the features of the first layer."""
    return maps[1] + _convolve(params[0], maps[0])


def upsample(params: Params, maps: Maps) -> Maps:
    """Doubles height and width: four neighbouring outputs of a convolution become a window."""
    b, h, w, _ = maps.shape
    windows = _convolve(params[0], maps).reshape(b, h, w, -1, 2, 2)
    return windows.transpose(0, 1, 4, 2, 5, 3).reshape(b, 2 * h, 2 * w, -1)


def enlarged_images(params: Params, maps: Maps) -> Maps:
    """Features -> images in about [0, 1], four times as large as those that came in."""
    images = _convolve(params[0], maps) / 255
    return images + _mean(images)


def averaged_images(params: Params, maps: Maps) -> Maps:
    """`enlarged_images`, averaged back over windows of 4x4 pixels."""
    images = enlarged_images(params, maps)
    b, h, w, c = images.shape
    return images.reshape(b, h // _SCALE, _SCALE, w // _SCALE, _SCALE, c).mean((2, 4))


def _mean(like: Array) -> Array:
    return jnp.asarray(_MEAN, like.dtype).reshape(1, 1, 1, 3)


# -- Layers, each with the names and shapes (h, w, inputs, outputs) of its convolutions; names are those of torch_import. --

_TRANSPOSED = ("d_up_conv_1.3", "d_up_conv_2.3")
_Layer = tuple[Callable, list[tuple[str, tuple[int, int, int, int]]]]


def _cae() -> list[_Layer]:
    def blocks(part: str) -> list[_Layer]:
        return [(leaky_block, [(f"{part}_block_{i}.{place}", (3, 3, 128, 128)) for place in (1, 4)]) for i in (1, 2, 3)]

    return [
        (shrink_images, [("e_conv_1.1", (5, 5, 3, 64))]),
        (shrink, [("e_conv_2.1", (5, 5, 64, 128))]),
        *blocks("e"),
        (binarize, [("e_conv_3.0", (5, 5, 128, 32))]),
        (enlarge, [("d_up_conv_1.0", (3, 3, 32, 64)), ("d_up_conv_1.3", (2, 2, 64, 128))]),
        *blocks("d"),
        (enlarge, [("d_up_conv_2.0", (3, 3, 128, 32)), ("d_up_conv_2.3", (2, 2, 32, 256))]),
        (decode, [("d_up_conv_3.0", (3, 3, 256, 16)), ("d_up_conv_3.3", (3, 3, 16, 3))]),
    ]


def _edsr() -> list[_Layer]:
    same, up = (3, 3, 64, 64), (3, 3, 64, 256)
    return [
        (head, [("start", (3, 3, 3, 64))]),
        *((block, [(f"blocks.{i}.0", same), (f"blocks.{i}.2", same)]) for i in range(16)),
        (body_end, [("blocks_end", same)]),
        (upsample, [("up.0", up)]),
        (upsample, [("up.2", up)]),
        (averaged_images, [("last", (3, 3, 64, 3))]),
    ]


_NETWORKS = {"cae": _cae, "edsr": _edsr}
NAMES = tuple(_NETWORKS)


@functools.cache
def _table(name: str) -> list[_Layer]:
    if name not in _NETWORKS:
        raise registry.unknown("published network", name, _NETWORKS)
    return _NETWORKS[name]()


def _layers(name: str) -> tuple[Any, ...]:
    return tuple(layer for layer, _ in _table(name))


def _convolutions(name: str) -> list[list[tuple[str, tuple[int, int, int, int]]]]:
    return [convs for _, convs in _table(name)]
