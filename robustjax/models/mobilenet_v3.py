"""Inverted residual networks with squeeze-and-excitation: Howard et al., "Searching for MobileNetV3", ICCV 2019, as torchvision has
them: for images of ImageNet's size, halved five times."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
from flax import nnx
from jaxtyping import Array

from robustjax.core.check import InputError
from robustjax.core.numerics import lift
from robustjax.core.types import Keys
from robustjax.models import layers


class Row(NamedTuple):
    """One block of the paper's Tables 1 and 2, channels before the width multiplier."""

    size: int  # of the depthwise convolution
    inner: int
    outputs: int
    squeezes: bool
    hard_swish: bool  # else relu
    stride: int


LARGE = (
    (Row(3, 16, 16, False, False, 1),),
    (Row(3, 64, 24, False, False, 2), Row(3, 72, 24, False, False, 1)),
    (Row(5, 72, 40, True, False, 2), Row(5, 120, 40, True, False, 1), Row(5, 120, 40, True, False, 1)),
    (Row(3, 240, 80, False, True, 2), Row(3, 200, 80, False, True, 1), *2 * (Row(3, 184, 80, False, True, 1),)),
    (Row(3, 480, 112, True, True, 1), Row(3, 672, 112, True, True, 1)),
    (Row(5, 672, 160, True, True, 2), *2 * (Row(5, 960, 160, True, True, 1),)),
)
SMALL = (
    (Row(3, 16, 16, True, False, 2),),
    (Row(3, 72, 24, False, False, 2), Row(3, 88, 24, False, False, 1)),
    (Row(5, 96, 40, True, True, 2), *2 * (Row(5, 240, 40, True, True, 1),)),
    (Row(5, 120, 48, True, True, 1), Row(5, 144, 48, True, True, 1)),
    (Row(5, 288, 96, True, True, 2), *2 * (Row(5, 576, 96, True, True, 1),)),
)
"""Groups of blocks that end with the same number of channels."""


class SqueezeExcitation(nnx.Module):
    """x times hard_sigmoid(conv1x1(relu(conv1x1(mean of x over its pixels)))), a factor a channel."""

    def __init__(self, channels: int, *, spec: layers.Spec, rngs: nnx.Rngs):
        squeezed = scaled(channels // 4, 1)
        self.conv1 = layers.conv(channels, squeezed, 1, spec=spec, rngs=rngs, use_bias=True)
        self.conv2 = layers.conv(squeezed, channels, 1, spec=spec, rngs=rngs, use_bias=True)

    def __call__(self, x: Array) -> Array:
        """(b, h, w, channels) -> the same shape."""
        pooled = layers.global_pool(x).astype(x.dtype)[:, None, None, :]
        return x * jax.nn.hard_sigmoid(self.conv2(nnx.relu(self.conv1(pooled))))


class InvertedResidual(nnx.Module):
    """[x +] bn(conv1x1(squeeze(act(bn(depthwise(act(bn(conv1x1(x)))))))), linear at the end.

    x is added where stride is 1 and channels stay; the first convolution is there only where it widens.
    """

    def __init__(self, inputs: int, outputs: int, *, inner: int, row: Row, spec: layers.Spec, rngs: nnx.Rngs):
        options = {"spec": spec, "rngs": rngs}
        self.activation = jax.nn.hard_swish if row.hard_swish else nnx.relu
        self.widens, self.adds = inner != inputs, row.stride == 1 and inputs == outputs
        if self.widens:
            self.conv1 = layers.conv(inputs, inner, 1, **options)
            self.bn1 = batch_norm(inner, rngs=rngs)
        self.conv2 = layers.conv(inner, inner, row.size, stride=row.stride, groups=inner, **options)
        self.bn2 = batch_norm(inner, rngs=rngs)
        self.squeeze = SqueezeExcitation(inner, **options) if row.squeezes else None
        self.conv3 = layers.conv(inner, outputs, 1, **options)
        self.bn3 = batch_norm(outputs, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(b, h, w, inputs) -> (b, h / stride, w / stride, outputs)."""
        out = self.activation(self.bn1(self.conv1(x))) if self.widens else x
        out = self.activation(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(self.squeeze(out) if self.squeeze else out))
        return x + out if self.adds else out


class MobileNetV3(layers.Classifier):
    """A 3x3 convolution of stride 2, groups of inverted residuals, a 1x1 convolution to 6 times the channels, pool, a hidden layer,
    dropout, head; features are what the head reads, the hidden layer's.

    `width` multiplies channels, to multiples of 8. `blocks` takes so many first blocks of each group; fewer groups leave out the last
    ones. Batch norm has epsilon 1e-3 and its running statistics move by 0.01. Convolutions start as He normal (fan_out, which for a
    depthwise one counts all channels, as in torch), the linear layers as N(0, 0.01^2), all biases 0.
    """

    groups: tuple[tuple[Row, ...], ...]
    hidden_size: int

    def __init__(
        self,
        spec: layers.Spec,
        rngs: nnx.Rngs,
        *,
        width: float | int = 1.0,
        blocks: Sequence[int] | None = None,
        dropout: float | int = 0.2,
    ):
        sizes = [len(group) for group in self.groups]
        counts = sizes if blocks is None else list(blocks)
        fits = 1 <= len(counts) <= len(sizes) and all(1 <= n <= most for n, most in zip(counts, sizes, strict=False))
        if not 0 < width < math.inf or not fits:
            raise InputError(
                f"{spec.name} needs a width above 0 and one to {len(sizes)} blocks of at least 1 and at most {tuple(sizes)}, "
                f"got width={width}, blocks={tuple(counts)}."
            )
        rows = [group[:count] for group, count in zip(self.groups, counts, strict=False)]
        super().__init__(spec, smallest=2 * math.prod(row.stride for group in rows for row in group))
        channels = scaled(16, width)
        self.conv1 = layers.conv(spec.image_shape[2], channels, 3, stride=2, spec=spec, rngs=rngs)
        self.bn1 = batch_norm(channels, rngs=rngs)
        self.blocks, ends = nnx.List([]), []
        for group in rows:
            for row in group:
                outputs, inner = scaled(row.outputs, width), scaled(row.inner, width)
                self.blocks.append(InvertedResidual(channels, outputs, inner=inner, row=row, spec=spec, rngs=rngs))
                channels = outputs
            ends.append(len(self.blocks) - 1)
        self.ends, hidden, normal = tuple(ends), scaled(self.hidden_size, width), nnx.initializers.normal(0.01)
        self.conv2 = layers.conv(channels, 6 * channels, 1, spec=spec, rngs=rngs)
        self.bn2 = batch_norm(6 * channels, rngs=rngs)
        self.hidden = layers.linear(6 * channels, hidden, rngs=rngs, dtype=layers.compute_dtype(spec), kernel_init=normal)
        self.dropout = layers.Dropout(dropout, index=0)
        self.head = layers.linear(hidden, spec.num_classes, rngs=rngs, kernel_init=normal)

    def trunk(self, x: Array, keys: Keys | None) -> tuple[Array, tuple[Array, ...]]:
        """See `Classifier.trunk`; blocks are the outputs of the groups."""
        x = jax.nn.hard_swish(self.bn1(self.conv1(x)))
        maps = []
        for i, block in enumerate(self.blocks):
            x = self.run(block, x)
            if i in self.ends:
                maps.append(x)
        x = layers.global_pool(jax.nn.hard_swish(self.bn2(self.conv2(x))))
        return self.dropout(lift(jax.nn.hard_swish(self.hidden(x))), keys), tuple(maps)


class MobileNetV3Large(MobileNetV3):
    """15 blocks in six groups, features of 1280: 4,214,842 parameters for 10 classes, 5,483,032 for 1000."""

    groups, hidden_size = LARGE, 1280


class MobileNetV3Small(MobileNetV3):
    """11 blocks in five groups, features of 1024: 1,528,106 parameters for 10 classes, 2,542,856 for 1000."""

    groups, hidden_size = SMALL, 1024


def batch_norm(channels: int, *, rngs: nnx.Rngs) -> layers.BatchNorm:
    """Batch norm with the settings of MobileNetV3: epsilon 1e-3, torch's momentum 0.01."""
    norm = layers.BatchNorm(channels, rngs=rngs)
    norm.momentum, norm.epsilon = 0.99, 1e-3
    return norm


def scaled(channels: int, width: float | int) -> int:
    """Channels times `width`, to the nearest multiple of 8 (upwards from the middle), at least 8 and at least nine tenths.

    >>> scaled(16, 1), scaled(16, 0.25), scaled(36, 0.75), scaled(11, 1)
    (16, 8, 32, 16)
    """
    wanted = channels * width
    nearest = max(8, int(wanted + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * wanted else nearest + 8
