"""The all-convolutional network: Springenberg, Dosovitskiy, Brox and Riedmiller, "Striving for Simplicity: The All Convolutional Net",
ICLR 2015 workshop, in the form that AugMix released: batch norm, gelu, max pooling for the strides of 2, and a linear head."""

from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array

from robustjax.core.check import InputError
from robustjax.core.types import Keys
from robustjax.models import initial, layers


class ConvGroup(nnx.Module):
    """Convolution with bias, batch norm and gelu, once for each row (inputs, outputs, size, padding) of `convs`."""

    def __init__(self, convs: Sequence[tuple[int, int, int, int]], *, spec: layers.Spec, rngs: nnx.Rngs):
        self.convs, self.norms = nnx.List([]), nnx.List([])
        for inputs, outputs, size, padding in convs:
            bias_init = initial.uniform((size * size * inputs) ** -0.5)
            self.convs.append(layers.conv(inputs, outputs, size, padding=padding, use_bias=True, bias_init=bias_init, spec=spec, rngs=rngs))
            self.norms.append(layers.BatchNorm(outputs, rngs=rngs))

    def __call__(self, x: Array) -> Array:
        """(b, h, w, inputs of the first) -> (b, i, j, outputs of the last)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = gelu(norm(conv(x)))
        return x


class AllConvNet(layers.Classifier):
    """Two groups of three 3x3 convolutions, each with 2x2 max pooling and dropout behind it; then 3x3, 1x1 and 1x1; pool, head.

    The first group has `width` channels, the others twice as many: 1,409,674 parameters for 10 classes. The last 3x3 convolution is
    not padded and the 1x1 ones are, so that maps of h / 4 pixels a side become h / 4 + 2, of which the released code pools the first
    h / 4 (an 8x8 window for images of 32x32, which is all that it takes); so does this. It starts as that code does: convolutions He
    normal (fan_out) with torch's default biases, batch norm 1 and 0, head torch's default kernel with bias 0.
    """

    def __init__(self, spec: layers.Spec, rngs: nnx.Rngs, *, width: int = 96, dropout: float | int = 0.5):
        if width < 1:
            raise InputError(f"allconv needs a width of at least 1, got {width}.")
        super().__init__(spec, smallest=12)
        narrow, wide = width, 2 * width
        groups = (
            ((spec.image_shape[2], narrow, 3, 1), (narrow, narrow, 3, 1), (narrow, narrow, 3, 1)),
            ((narrow, wide, 3, 1), (wide, wide, 3, 1), (wide, wide, 3, 1)),
            ((wide, wide, 3, 0), (wide, wide, 1, 1), (wide, wide, 1, 1)),
        )
        self.blocks = nnx.List([ConvGroup(convs, spec=spec, rngs=rngs) for convs in groups])
        self.dropout1, self.dropout2 = (layers.Dropout(dropout, index=index) for index in range(2))
        self.head = layers.linear(wide, spec.num_classes, rngs=rngs)

    def trunk(self, x: Array, keys: Keys | None) -> tuple[Array, tuple[Array, ...]]:
        """See `Classifier.trunk`; blocks are the outputs of the groups, of the first two after pooling."""
        first = layers.max_pool(self.run(self.blocks[0], x), size=2, stride=2)
        second = layers.max_pool(self.run(self.blocks[1], self.dropout1(first, keys)), size=2, stride=2)
        third = self.run(self.blocks[2], self.dropout2(second, keys))
        return layers.global_pool(third[:, :-2, :-2]), (first, second, third)


def gelu(x: Array) -> Array:
    """x sigmoid(1.702 x), the approximation of the Gaussian error linear unit that the released code uses."""
    return x * jax.nn.sigmoid(1.702 * x)
