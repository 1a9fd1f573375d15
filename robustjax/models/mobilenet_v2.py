"""Inverted residual networks: Sandler, Howard, Zhu, Zhmoginov and Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
CVPR 2018, in the form that CIFAR is trained with: three strides of 2 instead of five."""

import math
from collections.abc import Sequence

from flax import nnx
from jaxtyping import Array

from robustjax.core.check import InputError
from robustjax.core.types import Keys
from robustjax.models import initial, layers

GROUPS = ((1, 16, 1), (6, 24, 1), (6, 32, 2), (6, 64, 2), (6, 96, 1), (6, 160, 2), (6, 320, 1))
"""Expansion, channels and first stride of each group of blocks."""


class InvertedResidual(nnx.Module):
    """shortcut(x) + bn(conv1x1(relu(bn(depthwise3x3(relu(bn(conv1x1(x)))))))), wide inside and linear at the end.

    The shortcut is there only for stride 1: x itself, or a 1x1 convolution and batch norm where the number of channels changes (the
    paper has none there).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, expansion: int, spec: layers.Spec, rngs: nnx.Rngs):
        inner, options = expansion * inputs, {"spec": spec, "rngs": rngs, "kernel_init": initial.torch_default}
        self.conv1 = layers.conv(inputs, inner, 1, **options)
        self.bn1 = layers.BatchNorm(inner, rngs=rngs)
        self.conv2 = layers.conv(inner, inner, 3, stride=stride, groups=inner, **options)
        self.bn2 = layers.BatchNorm(inner, rngs=rngs)
        self.conv3 = layers.conv(inner, outputs, 1, **options)
        self.bn3 = layers.BatchNorm(outputs, rngs=rngs)
        self.adds, self.projects = stride == 1, stride == 1 and inputs != outputs
        if self.projects:
            self.shortcut_conv = layers.conv(inputs, outputs, 1, **options)
            self.shortcut_bn = layers.BatchNorm(outputs, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(b, h, w, inputs) -> (b, h / stride, w / stride, outputs)."""
        out = nnx.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(nnx.relu(self.bn2(self.conv2(out)))))
        if not self.adds:
            return out
        return out + (self.shortcut_bn(self.shortcut_conv(x)) if self.projects else x)


class MobileNetV2(layers.Classifier):
    """A 3x3 convolution to 32 channels, seven groups of inverted residuals, a 1x1 convolution to 1280, pool, head.

    `width` multiplies all channels but the images' (rounded to the nearest, at least 1; the paper rounds to multiples of 8 and never
    narrows the 1280). `blocks` counts the blocks of each group; fewer than seven leave out the last groups.
    For 10 classes it has 2,296,922 parameters. All kernels and the head's bias start as torch's defaults,
    U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)), where fan_in of a depthwise convolution is 9; batch norm 1 and 0, as in the common CIFAR code.
    """

    def __init__(self, spec: layers.Spec, rngs: nnx.Rngs, *, width: float | int = 1.0, blocks: Sequence[int] = (1, 2, 3, 4, 3, 3, 1)):
        if not 0 < width < math.inf or not 1 <= len(blocks) <= len(GROUPS) or min(blocks) < 1:
            raise InputError(
                f"mobilenet_v2 needs a width above 0 and one to {len(GROUPS)} blocks of at least 1, "
                f"got width={width}, blocks={tuple(blocks)}."
            )
        groups = GROUPS[: len(blocks)]
        super().__init__(spec, smallest=math.prod(stride for _, _, stride in groups))
        options = {"spec": spec, "rngs": rngs, "kernel_init": initial.torch_default}
        channels = scaled(32, width)
        self.conv1 = layers.conv(spec.image_shape[2], channels, 3, **options)
        self.bn1 = layers.BatchNorm(channels, rngs=rngs)
        self.blocks, ends = nnx.List([]), []
        for (expansion, outputs, stride), count in zip(groups, blocks, strict=True):
            for i in range(count):
                size = scaled(outputs, width)
                self.blocks.append(InvertedResidual(channels, size, 1 if i else stride, expansion=expansion, spec=spec, rngs=rngs))
                channels = size
            ends.append(len(self.blocks) - 1)
        self.ends, last = tuple(ends), scaled(1280, width)
        self.conv2 = layers.conv(channels, last, 1, **options)
        self.bn2 = layers.BatchNorm(last, rngs=rngs)
        self.head = layers.linear(last, spec.num_classes, rngs=rngs, bias_init=initial.uniform(last**-0.5))

    def trunk(self, x: Array, keys: Keys | None) -> tuple[Array, tuple[Array, ...]]:
        """See `Classifier.trunk`; blocks are the outputs of the groups, seven in MobileNetV2."""
        x = nnx.relu(self.bn1(self.conv1(x)))
        maps = []
        for i, block in enumerate(self.blocks):
            x = self.run(block, x)
            if i in self.ends:
                maps.append(x)
        return layers.global_pool(nnx.relu(self.bn2(self.conv2(x)))), tuple(maps)


def scaled(channels: int, width: float | int) -> int:
    """Channels times `width`, to the nearest integer, at least 1.

    >>> scaled(24, 0.25), scaled(16, 0.01)
    (6, 1)
    """
    return max(1, round(channels * width))
