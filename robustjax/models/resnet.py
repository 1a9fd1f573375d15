"""Residual networks of basic and of bottleneck blocks: He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR
2016; ResNet-50 in torchvision's form ("v1.5"), whose stride is that of the 3x3 convolution."""

from collections.abc import Sequence

from flax import nnx
from jaxtyping import Array

from robustjax.core.check import InputError
from robustjax.core.types import Keys
from robustjax.models import initial, layers


class _Block(nnx.Module):
    """What blocks share: the shortcut."""

    def join(self, inputs: int, outputs: int, stride: int, *, spec: layers.Spec, rngs: nnx.Rngs) -> None:
        """Makes the shortcut's 1x1 convolution and batch norm, where shapes differ."""
        self.projects = inputs != outputs or stride != 1
        if self.projects:
            self.shortcut_conv = layers.conv(inputs, outputs, 1, stride=stride, spec=spec, rngs=rngs)
            self.shortcut_bn = layers.BatchNorm(outputs, rngs=rngs)

    def joined(self, x: Array, out: Array) -> Array:
        """Returns relu(out + shortcut(x))."""
        return nnx.relu(out + (self.shortcut_bn(self.shortcut_conv(x)) if self.projects else x))


class BasicBlock(_Block):
    """relu(x + bn(conv(relu(bn(conv(x)))))), with a 1x1 convolution and batch norm on the shortcut where shapes differ."""

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int, *, spec: layers.Spec, rngs: nnx.Rngs):
        outputs = self.expansion * channels
        self.conv1 = layers.conv(inputs, outputs, 3, stride=stride, spec=spec, rngs=rngs)
        self.bn1 = layers.BatchNorm(outputs, rngs=rngs)
        self.conv2 = layers.conv(outputs, outputs, 3, spec=spec, rngs=rngs)
        self.bn2 = layers.BatchNorm(outputs, rngs=rngs)
        self.join(inputs, outputs, stride, spec=spec, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(b, h, w, inputs) -> (b, h / stride, w / stride, outputs)."""
        out = self.bn2(self.conv2(nnx.relu(self.bn1(self.conv1(x)))))
        return self.joined(x, out)


class Bottleneck(_Block):
    """relu(x + bn(conv1x1(relu(bn(conv3x3(relu(bn(conv1x1(x))))))))), four times as wide outside as inside.

    The 3x3 convolution has the stride; shortcut as in `BasicBlock`.
    """

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int, *, spec: layers.Spec, rngs: nnx.Rngs):
        outputs = self.expansion * channels
        self.conv1 = layers.conv(inputs, channels, 1, spec=spec, rngs=rngs)
        self.bn1 = layers.BatchNorm(channels, rngs=rngs)
        self.conv2 = layers.conv(channels, channels, 3, stride=stride, spec=spec, rngs=rngs)
        self.bn2 = layers.BatchNorm(channels, rngs=rngs)
        self.conv3 = layers.conv(channels, outputs, 1, spec=spec, rngs=rngs)
        self.bn3 = layers.BatchNorm(outputs, rngs=rngs)
        self.join(inputs, outputs, stride, spec=spec, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(b, h, w, inputs) -> (b, h / stride, w / stride, outputs)."""
        out = nnx.relu(self.bn2(self.conv2(nnx.relu(self.bn1(self.conv1(x))))))
        out = self.bn3(self.conv3(out))
        return self.joined(x, out)


class ResNet(layers.Classifier):
    """A residual network; blocks=(2, 2, 2, 2) is ResNet-18, (3, 4, 6, 3) is ResNet-34.

    The ImageNet stem is torchvision's (7x7 convolution and 3x3 max pooling, both of stride 2), the CIFAR stem one 3x3 convolution.
    ResNet-18 for 10 classes has 11,173,962 parameters with the CIFAR stem and 11,181,642 with the ImageNet stem. It starts as
    torchvision's: convolutions He normal (fan_out), batch norm 1 and 0, head torch's default with its random bias.

    `embedding` above 0 puts relu and a linear layer of that size between pooling and head, without activation behind it: features are
    then its output. (With 128 it is the network of the discriminative-loss paper, Appendix H.1: 11,235,786 parameters with the CIFAR
    stem.)
    """

    block: type[BasicBlock] | type[Bottleneck] = BasicBlock

    def __init__(
        self,
        spec: layers.Spec,
        rngs: nnx.Rngs,
        *,
        stem: str = "cifar",
        width: int = 64,
        blocks: Sequence[int] = (2, 2, 2, 2),
        embedding: int = 0,
    ):
        if stem not in ("cifar", "imagenet"):
            raise InputError(f"stem must be 'cifar' or 'imagenet', got {stem!r}.")
        if width < 1 or not blocks or min(blocks) < 1:
            raise InputError(f"a residual network needs a width and blocks of at least 1, got width={width}, blocks={tuple(blocks)}.")
        if embedding < 0:
            raise InputError(f"embedding is the size of a layer before the head, 0 for none, got {embedding}.")
        self.stem = stem
        super().__init__(spec, smallest=2 ** (len(blocks) - 1) * (4 if stem == "imagenet" else 1))
        size, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.conv1 = layers.conv(spec.image_shape[2], width, size, stride=stride, spec=spec, rngs=rngs)
        self.bn1 = layers.BatchNorm(width, rngs=rngs)
        self.blocks, channels, ends = nnx.List([]), width, []
        for stage, count in enumerate(blocks):
            for i in range(count):
                inner = width * 2**stage
                self.blocks.append(self.block(channels, inner, 2 if stage and not i else 1, spec=spec, rngs=rngs))
                channels = self.block.expansion * inner
            ends.append(len(self.blocks) - 1)
        self.ends = tuple(ends)
        self.embeds = embedding > 0
        if self.embeds:
            self.embedding = layers.linear(channels, embedding, rngs=rngs, bias_init=initial.uniform(channels**-0.5))
            channels = embedding
        self.head = layers.linear(channels, spec.num_classes, rngs=rngs, bias_init=initial.uniform(channels**-0.5))

    def trunk(self, x: Array, keys: Keys | None) -> tuple[Array, tuple[Array, ...]]:
        """See `Classifier.trunk`; blocks are the outputs of the stages, four in ResNet-18."""
        x = nnx.relu(self.bn1(self.conv1(x)))
        if self.stem == "imagenet":
            x = layers.max_pool(x, size=3, stride=2, padding=1)
        maps = []
        for i, block in enumerate(self.blocks):
            x = self.run(block, x)
            if i in self.ends:
                maps.append(x)
        pooled = layers.global_pool(x)
        return self.embedding(nnx.relu(pooled)) if self.embeds else pooled, tuple(maps)


class ResNet50(ResNet):
    """ResNet of bottleneck blocks; blocks=(3, 4, 23, 3) is ResNet-101.

    For 1000 classes it has 25,557,032 parameters with the ImageNet stem, for 10 classes 23,528,522, and 23,520,842 with the CIFAR stem.
    """

    block = Bottleneck

    def __init__(
        self,
        spec: layers.Spec,
        rngs: nnx.Rngs,
        *,
        stem: str = "cifar",
        width: int = 64,
        blocks: Sequence[int] = (3, 4, 6, 3),
        embedding: int = 0,
    ):
        super().__init__(spec, rngs, stem=stem, width=width, blocks=blocks, embedding=embedding)
