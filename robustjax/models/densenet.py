"""Densely connected networks: Huang, Liu, van der Maaten and Weinberger, "Densely Connected Convolutional Networks", CVPR 2017, in the
form that AugMix released for CIFAR: a first convolution to twice the growth, and transitions that compress only where told to."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from robustjax.core.check import InputError
from robustjax.core.types import Keys
from robustjax.models import layers

STAGES = 3


class DenseLayer(nnx.Module):
    """(x, conv3x3(relu(bn(x)))), joined along the channels.

    With `bottleneck`, a 1x1 convolution to four times `growth`, batch norm and relu come before the 3x3 one.
    """

    def __init__(self, inputs: int, growth: int, *, bottleneck: bool, spec: layers.Spec, rngs: nnx.Rngs):
        self.bn1 = layers.BatchNorm(inputs, rngs=rngs)
        self.narrows = bottleneck
        if bottleneck:
            self.conv1 = layers.conv(inputs, 4 * growth, 1, spec=spec, rngs=rngs)
            self.bn2 = layers.BatchNorm(4 * growth, rngs=rngs)
            self.conv2 = layers.conv(4 * growth, growth, 3, spec=spec, rngs=rngs)
        else:
            self.conv1 = layers.conv(inputs, growth, 3, spec=spec, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(b, h, w, inputs) -> (b, h, w, inputs + growth)."""
        out = self.conv1(nnx.relu(self.bn1(x)))
        if self.narrows:
            out = self.conv2(nnx.relu(self.bn2(out)))
        return jnp.concatenate([x, out], axis=-1)


class Transition(nnx.Module):
    """conv1x1 of the means of relu(bn(x)) over 2x2 pixels; an odd last row or column is left out, as in torch.

    The released code takes the means after the convolution: the same function, since both are linear, at four times its cost.
    """

    def __init__(self, inputs: int, outputs: int, *, spec: layers.Spec, rngs: nnx.Rngs):
        self.bn1 = layers.BatchNorm(inputs, rngs=rngs)
        self.conv1 = layers.conv(inputs, outputs, 1, spec=spec, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(b, h, w, inputs) -> (b, h / 2, w / 2, outputs)."""
        x = nnx.relu(self.bn1(x))
        b, h, w, c = x.shape
        return self.conv1(jnp.mean(x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c), axis=(2, 4)))


class DenseNet(layers.Classifier):
    """A 3x3 convolution, three dense blocks with a transition between each two, then bn, relu, pool, head.

    A block has (depth - 4) / 3 layers, half as many with `bottleneck`; each adds `growth` channels to all that came before it. A
    transition keeps the share `reduction` of its channels, rounded down. DenseNet-40 (growth 12) has 1,059,298 parameters for 10
    classes. It starts as AugMix's code does: convolutions He normal (fan_out), batch norm 1 and 0, head torch's default kernel with
    bias 0.
    """

    def __init__(
        self,
        spec: layers.Spec,
        rngs: nnx.Rngs,
        *,
        depth: int = 40,
        growth: int = 12,
        bottleneck: bool = False,
        reduction: float | int = 1.0,
    ):
        per_layer = 2 if bottleneck else 1
        count, rest = divmod(depth - 4, STAGES * per_layer)
        if count < 1 or rest or growth < 1:
            steps = f"{STAGES * per_layer} n + 4 ({'with' if bottleneck else 'without'} bottleneck)"
            raise InputError(f"{spec.name} needs depth = {steps}, n >= 1, and growth >= 1, got depth={depth}, growth={growth}.")
        if not 0 < reduction <= 1 or int((2 + count) * growth * reduction) < 1:
            raise InputError(f"reduction is the share of channels that a transition keeps, one or more, and at most 1, got {reduction}.")
        super().__init__(spec, smallest=2 ** (STAGES - 1))
        self.per_stage, channels, options = count, 2 * growth, {"spec": spec, "rngs": rngs}
        self.conv1 = layers.conv(spec.image_shape[2], channels, 3, **options)
        self.blocks, self.transitions = nnx.List([]), nnx.List([])
        for stage in range(STAGES):
            for _ in range(count):
                self.blocks.append(DenseLayer(channels, growth, bottleneck=bottleneck, **options))
                channels += growth
            if stage < STAGES - 1:
                kept = int(channels * reduction)
                self.transitions.append(Transition(channels, kept, **options))
                channels = kept
        self.bn1 = layers.BatchNorm(channels, rngs=rngs)
        self.head = layers.linear(channels, spec.num_classes, rngs=rngs)

    def trunk(self, x: Array, keys: Keys | None) -> tuple[Array, tuple[Array, ...]]:
        """See `Classifier.trunk`; blocks are the outputs of the three dense blocks, before transition or last batch norm."""
        x = self.conv1(x)
        maps: list[Array] = []
        for i, block in enumerate(self.blocks):
            if i and i % self.per_stage == 0:
                x = self.run(self.transitions[i // self.per_stage - 1], x)
            x = self.run(block, x)
            if (i + 1) % self.per_stage == 0:
                maps.append(x)
        return layers.global_pool(nnx.relu(self.bn1(x))), tuple(maps)


class DenseNetBC(DenseNet):
    """DenseNet with bottlenecks and transitions that halve the channels; DenseNet-BC-100 (growth 12) has 769,162 parameters for 10 classes."""

    def __init__(
        self,
        spec: layers.Spec,
        rngs: nnx.Rngs,
        *,
        depth: int = 100,
        growth: int = 12,
        bottleneck: bool = True,
        reduction: float | int = 0.5,
    ):
        super().__init__(spec, rngs, depth=depth, growth=growth, bottleneck=bottleneck, reduction=reduction)
