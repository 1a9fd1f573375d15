"""Plain deep networks: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, in
the form with batch norm and one linear layer that CIFAR is trained with."""

from collections.abc import Sequence

from flax import nnx
from jaxtyping import Array

from robustjax.core.check import InputError
from robustjax.core.types import Keys
from robustjax.models import initial, layers


class ConvGroup(nnx.Module):
    """Convolution with bias, batch norm and relu, `convs` times, then 2x2 max pooling."""

    def __init__(self, inputs: int, outputs: int, *, convs: int, spec: layers.Spec, rngs: nnx.Rngs):
        sizes = [inputs] + [outputs] * (convs - 1)
        self.convs = nnx.List(
            [
                layers.conv(
                    size,
                    outputs,
                    3,
                    spec=spec,
                    rngs=rngs,
                    use_bias=True,
                    kernel_init=initial.torch_default,
                    bias_init=initial.uniform((9 * size) ** -0.5),
                )
                for size in sizes
            ]
        )
        self.norms = nnx.List([layers.BatchNorm(outputs, rngs=rngs) for _ in sizes])

    def __call__(self, x: Array) -> Array:
        """(b, h, w, inputs) -> (b, h / 2, w / 2, outputs)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nnx.relu(norm(conv(x)))
        return layers.max_pool(x, size=2, stride=2)


class VGG(layers.Classifier):
    """Groups of 3x3 convolutions, each max-pooled, of 1, 2, 4, 8 and 8 times `width` channels; global average pooling, linear head.

    `groups` counts the convolutions of each group: (2, 2, 3, 3, 3) is VGG16, (2, 2, 4, 4, 4) VGG19; fewer groups take smaller images.
    Five groups halve an image five times, so images below 32x32 are refused; of larger ones the last maps are averaged.
    VGG16 with batch norm for 10 classes has 14,728,266 parameters, whatever the size of the images. All kernels and biases start as
    torch's defaults, U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)), batch norm 1 and 0, as in the common CIFAR code. (A bias before batch
    norm changes nothing in training mode, and has a gradient of 0 there but for rounding.)
    """

    def __init__(self, spec: layers.Spec, rngs: nnx.Rngs, *, width: int = 64, groups: Sequence[int] = (2, 2, 3, 3, 3)):
        if width < 1 or not groups or min(groups) < 1:
            raise InputError(f"vgg16_bn needs a width and groups of at least 1, got width={width}, groups={tuple(groups)}.")
        super().__init__(spec, smallest=2 ** len(groups))
        self.blocks, channels = nnx.List([]), spec.image_shape[2]
        for i, convs in enumerate(groups):
            outputs = width * 2 ** min(i, 3)
            self.blocks.append(ConvGroup(channels, outputs, convs=convs, spec=spec, rngs=rngs))
            channels = outputs
        self.head = layers.linear(channels, spec.num_classes, rngs=rngs, bias_init=initial.uniform(channels**-0.5))

    def trunk(self, x: Array, keys: Keys | None) -> tuple[Array, tuple[Array, ...]]:
        """See `Classifier.trunk`; blocks are the outputs of the groups, after pooling."""
        maps = []
        for block in self.blocks:
            x = self.run(block, x)
            maps.append(x)
        return layers.global_pool(x), tuple(maps)
