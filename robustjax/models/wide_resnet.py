"""Wide residual networks: Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, in the form that AugMix released and
SPIDER, ESP and PixMix train."""

from collections.abc import Callable

from flax import nnx
from jaxtyping import Array

from robustjax.core.check import InputError
from robustjax.core.types import Keys
from robustjax.models import initial, layers


class PreActivationBlock(nnx.Module):
    """x + conv(dropout(relu(bn(conv(relu(bn(x))))))).

    Where shapes differ, the shortcut is a 1x1 convolution without batch norm that reads relu(bn(x)), not x.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        *,
        spec: layers.Spec,
        rngs: nnx.Rngs,
        dropout: float | int = 0.0,
        index: int = 0,
        kernel_init: Callable = initial.he_fan_out,
    ):
        options = {"spec": spec, "rngs": rngs, "kernel_init": kernel_init}
        self.bn1 = layers.BatchNorm(inputs, rngs=rngs)
        self.conv1 = layers.conv(inputs, outputs, 3, stride=stride, **options)
        self.bn2 = layers.BatchNorm(outputs, rngs=rngs)
        self.dropout = layers.Dropout(dropout, index=index)
        self.conv2 = layers.conv(outputs, outputs, 3, **options)
        self.projects = inputs != outputs or stride != 1
        if self.projects:
            self.shortcut_conv = layers.conv(inputs, outputs, 1, stride=stride, **options)

    def __call__(self, x: Array, keys: Keys | None) -> Array:
        """(b, h, w, inputs) -> (b, h / stride, w / stride, outputs)."""
        active = nnx.relu(self.bn1(x))
        out = self.conv2(self.dropout(nnx.relu(self.bn2(self.conv1(active))), keys))
        return out + (self.shortcut_conv(active) if self.projects else x)


class WideResNet(layers.Classifier):
    """WRN-depth-width: three groups of (depth - 4) / 6 blocks with 16, 32 and 64 times `width` channels, then bn, relu, pool, head.

    WRN-40-2 for 10 classes has 2,243,546 parameters, WRN-34-10 has 46,160,474. It starts as AugMix's and TRADES's released code do:
    convolutions He normal (fan_out), batch norm 1 and 0, head torch's default kernel with bias 0.
    """

    def __init__(self, spec: layers.Spec, rngs: nnx.Rngs, *, depth: int = 40, width: int = 2, dropout: float | int = 0.0):
        if depth < 10 or (depth - 4) % 6 or width < 1:
            raise InputError(f"wide_resnet needs depth = 6 n + 4 (10, 16, 28, 40, ...) and width >= 1, got depth={depth}, width={width}.")
        super().__init__(spec, smallest=4)
        per_group, channels = (depth - 4) // 6, 16
        self.conv1 = layers.conv(spec.image_shape[2], channels, 3, spec=spec, rngs=rngs)
        self.blocks = nnx.List([])
        for index in range(3 * per_group):
            group, place = divmod(index, per_group)
            outputs, stride = 16 * width * 2**group, 2 if group and not place else 1
            self.blocks.append(PreActivationBlock(channels, outputs, stride, dropout=dropout, index=index, spec=spec, rngs=rngs))
            channels = outputs
        self.per_group = per_group
        self.bn1 = layers.BatchNorm(channels, rngs=rngs)
        self.head = layers.linear(channels, spec.num_classes, rngs=rngs)

    def trunk(self, x: Array, keys: Keys | None) -> tuple[Array, tuple[Array, ...]]:
        """See `Classifier.trunk`; blocks are the outputs of the three groups, before the last batch norm and relu."""
        x = self.conv1(x)
        maps = []
        for i, block in enumerate(self.blocks):
            x = self.run(block, x, keys)
            if (i + 1) % self.per_group == 0:
                maps.append(x)
        return layers.global_pool(nnx.relu(self.bn1(x))), tuple(maps)
