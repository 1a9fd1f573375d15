"""The MNIST network of Rony et al., "Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks and
Defenses", CVPR 2019, which ESP trains; its layers are those of Carlini and Wagner, "Towards Evaluating the Robustness of Neural
Networks", S&P 2017."""

from flax import nnx
from jaxtyping import Array

from robustjax.core.check import InputError
from robustjax.core.numerics import lift
from robustjax.core.types import Keys
from robustjax.models import initial, layers


class MnistCNN(layers.Classifier):
    """Two pairs of unpadded 3x3 convolutions (32, 32 and 64, 64 channels), each pair max-pooled, then 200, 200 and the classes.

    One dropout, after the first hidden layer; no batch norm. Features are the last 200 activations. On 28x28x1 with 10 classes
    it has 312,202 parameters. It starts as the authors' code does: convolutions He normal (fan_in) with bias 0, hidden layers torch's
    default, and the head at zero, so that all logits are 0 before the first step.
    """

    def __init__(self, spec: layers.Spec, rngs: nnx.Rngs, *, dropout: float | int = 0.5):
        super().__init__(spec, smallest=16)
        if spec.image_shape[2] != 1:
            raise InputError(
                f"mnist_cnn is a network for grey images, (h, w, 1), got image_shape {spec.image_shape}; take small_cnn for colour."
            )
        sizes = ((1, 32), (32, 32), (32, 64), (64, 64))
        self.convs = nnx.List(
            [layers.conv(a, b, 3, spec=spec, rngs=rngs, padding=0, use_bias=True, kernel_init=initial.he_fan_in) for a, b in sizes]
        )
        height, width = (((side - 4) // 2 - 4) // 2 for side in spec.image_shape[:2])
        inputs, dtype = 64 * height * width, layers.compute_dtype(spec)
        self.hidden1 = layers.linear(inputs, 200, rngs=rngs, dtype=dtype, bias_init=initial.uniform(inputs**-0.5))
        self.dropout = layers.Dropout(dropout, index=0)
        self.hidden2 = layers.linear(200, 200, rngs=rngs, dtype=dtype, bias_init=initial.uniform(200**-0.5))
        self.head = layers.linear(200, spec.num_classes, rngs=rngs, kernel_init=nnx.initializers.zeros)

    def trunk(self, x: Array, keys: Keys | None) -> tuple[Array, tuple[Array, ...]]:
        """See `Classifier.trunk`; blocks are the outputs of the two pairs of convolutions, after pooling."""
        maps = []
        for first, second in ((0, 1), (2, 3)):
            x = self.run(_pair, self.convs[first], self.convs[second], x)
            maps.append(x)
        x = self.dropout(nnx.relu(self.hidden1(x.reshape(x.shape[0], -1))), keys)
        return lift(nnx.relu(self.hidden2(x))), tuple(maps)


def _pair(first: nnx.Conv, second: nnx.Conv, x: Array) -> Array:
    return layers.max_pool(nnx.relu(second(nnx.relu(first(x)))), size=2, stride=2)
