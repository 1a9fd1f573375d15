"""Pre-activation residual networks: He, Zhang, Ren and Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016, in the form
that adversarial training uses (RAT, and AWP's released code)."""

from collections.abc import Sequence

from flax import nnx
from jaxtyping import Array

from robustjax.core.check import InputError
from robustjax.core.types import Keys
from robustjax.models import initial, layers
from robustjax.models.wide_resnet import PreActivationBlock


class PreActResNet(layers.Classifier):
    """A 3x3 convolution, stages of pre-activation blocks that double the width, then bn, relu, pool, head; (2, 2, 2, 2) has 18 layers.

    PreActResNet-18 for 10 classes has 11,172,170 parameters. Some released copies lack the last batch norm and relu, and have 1,024
    fewer. All kernels and the head's bias start as torch's defaults, U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)), batch norm 1 and 0: the
    released code sets no other law.
    """

    def __init__(self, spec: layers.Spec, rngs: nnx.Rngs, *, width: int = 64, blocks: Sequence[int] = (2, 2, 2, 2)):
        if width < 1 or not blocks or min(blocks) < 1:
            raise InputError(f"preact_resnet18 needs a width and blocks of at least 1, got width={width}, blocks={tuple(blocks)}.")
        super().__init__(spec, smallest=2 ** (len(blocks) - 1))
        kernel_init = initial.torch_default
        self.conv1 = layers.conv(spec.image_shape[2], width, 3, spec=spec, rngs=rngs, kernel_init=kernel_init)
        self.blocks, channels, ends = nnx.List([]), width, []
        for stage, count in enumerate(blocks):
            for i in range(count):
                outputs, stride = width * 2**stage, 2 if stage and not i else 1
                self.blocks.append(PreActivationBlock(channels, outputs, stride, spec=spec, rngs=rngs, kernel_init=kernel_init))
                channels = outputs
            ends.append(len(self.blocks) - 1)
        self.ends = tuple(ends)
        self.bn1 = layers.BatchNorm(channels, rngs=rngs)
        self.head = layers.linear(channels, spec.num_classes, rngs=rngs, bias_init=initial.uniform(channels**-0.5))

    def trunk(self, x: Array, keys: Keys | None) -> tuple[Array, tuple[Array, ...]]:
        """See `Classifier.trunk`; blocks are the outputs of the stages, before the last batch norm and relu."""
        x = self.conv1(x)
        maps = []
        for i, block in enumerate(self.blocks):
            x = self.run(block, x, keys)
            if i in self.ends:
                maps.append(x)
        return layers.global_pool(nnx.relu(self.bn1(x))), tuple(maps)
