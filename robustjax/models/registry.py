"""Names to networks."""

import numbers
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx

from robustjax.core import registry
from robustjax.models import layers, normalize
from robustjax.models.allconv import AllConvNet
from robustjax.models.densenet import DenseNet, DenseNetBC
from robustjax.models.mnist_cnn import MnistCNN
from robustjax.models.mobilenet_v2 import MobileNetV2
from robustjax.models.mobilenet_v3 import MobileNetV3Large, MobileNetV3Small
from robustjax.models.preact_resnet import PreActResNet
from robustjax.models.resnet import ResNet, ResNet50
from robustjax.models.small_cnn import SmallCNN
from robustjax.models.vgg import VGG
from robustjax.models.wide_resnet import WideResNet

TABLE = {
    "allconv": AllConvNet,
    "densenet_40_12": DenseNet,
    "densenet_bc_100_12": DenseNetBC,
    "mnist_cnn": MnistCNN,
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v3_large": MobileNetV3Large,
    "mobilenet_v3_small": MobileNetV3Small,
    "preact_resnet18": PreActResNet,
    "resnet18": ResNet,
    "resnet50": ResNet50,
    "small_cnn": SmallCNN,
    "vgg16_bn": VGG,
    "wide_resnet": WideResNet,
}


def make(
    name: str,
    *,
    num_classes: numbers.Integral,
    image_shape: Sequence[numbers.Integral],
    mean: normalize.Constant = 0.5,
    std: normalize.Constant = 0.5,
    seed: int = 0,
    dtype: str = "float32",
    remat: bool = False,
    **options: Any,
) -> layers.Classifier:
    """Makes a network, in evaluation mode, with its initial parameters.

    Args:
        name: 'small_cnn' (options width, convs, embedding), 'mnist_cnn' (dropout), 'resnet18' or 'resnet50' (stem, width, blocks,
            embedding), 'preact_resnet18' (width, blocks), 'wide_resnet' (depth, width, dropout), 'vgg16_bn' (width, groups),
            'mobilenet_v2' (width, blocks), 'mobilenet_v3_small' or 'mobilenet_v3_large' (width, blocks, dropout), 'densenet_40_12' or
            'densenet_bc_100_12' (depth, growth, bottleneck, reduction), 'allconv' (width, dropout).
        num_classes: at least 2.
        image_shape: (height, width, channels) of the images it will be given.
        mean: taken off the images first, in units of [0, 1] pixels: one number, or one a channel.
        std: divides them then. The defaults bring [0, 1] to [-1, 1], as in AugMix's released code.
        seed: the initial parameters depend on it, on the name, the sizes and the options, and on nothing else.
        dtype: 'float32', or 'bfloat16' for what convolutions compute in; parameters, statistics and logits stay float32.
        remat: whether derivatives compute every block again instead of keeping what is inside it: less memory on accelerators and
            more time, the same parameters and, to rounding, the same values.
        **options: of the network.

    Raises:
        InputError: for an unknown name or option, with the nearest known one; for values that no network can be made with.

    >>> make("small_cnn", num_classes=10, image_shape=(16, 16, 1), width=4)(jax.numpy.zeros((2, 16, 16, 1))).shape
    (2, 10)
    """
    build = registry.make(TABLE, name, kind="model", **options)
    spec = layers.make_spec(name, num_classes=num_classes, image_shape=image_shape, mean=mean, std=std, dtype=dtype, remat=remat)
    # The kind of key is named: a process-wide default of another kind would give other parameters.
    model = build(spec, nnx.Rngs(params=jax.random.key(seed, impl="threefry2x32")))
    # NNX layers start in training mode, where calling the network would move its statistics.
    model.eval()
    return model
