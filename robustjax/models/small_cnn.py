"""A small network for digits and for training on CPUs."""

import itertools

from flax import nnx
from jaxtyping import Array

from robustjax.core.check import InputError
from robustjax.core.types import Keys
from robustjax.models import layers


class ConvBlock(nnx.Module):
    """Convolution, batch norm and relu, `convs` times."""

    def __init__(self, inputs: int, outputs: int, *, convs: int, spec: layers.Spec, rngs: nnx.Rngs):
        sizes = [inputs] + [outputs] * (convs - 1)
        self.convs = nnx.List([layers.conv(size, outputs, 3, spec=spec, rngs=rngs) for size in sizes])
        self.norms = nnx.List([layers.BatchNorm(outputs, rngs=rngs) for _ in sizes])

    def __call__(self, x: Array) -> Array:
        """(b, h, w, inputs) -> (b, h, w, outputs)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nnx.relu(norm(conv(x)))
        return x


class SmallCNN(layers.Classifier):
    """Three blocks of `width`, 2 `width` and 4 `width` channels with 2x2 max pooling between, global average pooling, linear head.

    Parameters for c channels, k classes and one convolution a block: 9 (c w + 10 w^2) + 14 w + (4 w + 1) k. With width 16, one
    channel and 10 classes that is 24,058; with width 32, three channels and 10 classes 94,762.
    Convolutions start as He normal (fan_out), the head as torch's default with bias 0. `embedding` is as in `resnet.ResNet`: relu and a
    linear layer of that size before the head, which starts as the head does.
    """

    def __init__(self, spec: layers.Spec, rngs: nnx.Rngs, *, width: int = 16, convs: int = 1, embedding: int = 0):
        super().__init__(spec, smallest=4)
        if width < 1 or convs < 1:
            raise InputError(f"small_cnn needs width and convs of at least 1, got width={width}, convs={convs}.")
        if embedding < 0:
            raise InputError(f"embedding is the size of a layer before the head, 0 for none, got {embedding}.")
        channels = (spec.image_shape[2], width, 2 * width, 4 * width)
        self.blocks = nnx.List([ConvBlock(a, b, convs=convs, spec=spec, rngs=rngs) for a, b in itertools.pairwise(channels)])
        self.embeds = embedding > 0
        if self.embeds:
            self.embedding = layers.linear(4 * width, embedding, rngs=rngs)
        self.head = layers.linear(embedding or 4 * width, spec.num_classes, rngs=rngs)

    def trunk(self, x: Array, keys: Keys | None) -> tuple[Array, tuple[Array, ...]]:
        """See `Classifier.trunk`; blocks are the outputs of the three blocks, before pooling."""
        maps = []
        for i, block in enumerate(self.blocks):
            x = self.run(block, layers.max_pool(x, size=2, stride=2) if i else x)
            maps.append(x)
        pooled = layers.global_pool(x)
        return self.embedding(nnx.relu(pooled)) if self.embeds else pooled, tuple(maps)
