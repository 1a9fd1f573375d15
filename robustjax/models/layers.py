"""What every network here is made of: the common base class, convolution, batch norm, pooling and dropout.

The form of a network: a subclass of `Classifier` that sets `head` and defines `trunk(x, keys) -> (features, blocks)`.

Written so that any derivative works (jvp of jvp, jvp of grad) and none is slow: XLA's own max pooling has a gradient that
is 27 times slower on CPU than the one used here, and no rule for some higher derivatives.
"""

import functools
import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from robustjax.core.check import InputError
from robustjax.core.numerics import lift
from robustjax.core.types import ArrayLike, Keys
from robustjax.models import initial, normalize


class Spec(NamedTuple):
    """What a network is built for; hashable, so that it is part of the program and not of the weights."""

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str
    remat: bool = False


def make_spec(
    name: str,
    *,
    num_classes: numbers.Integral,
    image_shape: Sequence[numbers.Integral],
    mean: normalize.Constant,
    std: normalize.Constant,
    dtype: str,
    remat: bool = False,
) -> Spec:
    """Checks what all networks have in common; see `registry.make` for the arguments and errors."""
    shape = tuple(image_shape)
    if len(shape) != 3 or not all(isinstance(n, numbers.Integral) and n > 0 for n in shape):
        raise InputError(f"image_shape must be (height, width, channels), three positive integers, got {shape}.")
    if num_classes < 2:
        raise InputError(f"num_classes must be at least 2, got {num_classes}.")
    if dtype not in ("float32", "bfloat16"):
        raise InputError(f"dtype of a network must be 'float32' or 'bfloat16', got {dtype!r}.")
    shape = (int(shape[0]), int(shape[1]), int(shape[2]))
    return Spec(name, int(num_classes), shape, *normalize.constants(mean, std, channels=shape[2]), dtype, remat)


class Classifier(nnx.Module):
    """A network that takes images in [0, 1] and normalises them itself.

    Subclasses set `head` (nnx.Linear) and define `trunk`, which passes every block through `run`. Parameters are float32; with
    spec.dtype 'bfloat16' convolutions and hidden linear layers compute in bfloat16, while batch norm, pooled features and the head
    (whose cost is nil) stay float32.
    Parameters cast to float64 make the whole network compute in float64.
    """

    head: nnx.Linear

    def __init__(self, spec: Spec, *, smallest: int):
        """Keeps `spec`, after checking that images have at least `smallest` pixels on a side."""
        if min(spec.image_shape[:2]) < smallest:
            raise InputError(
                f"images of {spec.image_shape} (h, w, c) are too small for {spec.name}, which halves them down from at least "
                f"{smallest}x{smallest}; resize them or take another model."
            )
        self.spec = spec

    def trunk(self, x: Array, keys: Keys | None) -> tuple[Array, tuple[Array, ...]]:
        """Normalised images -> (features (b, d), the feature maps (b, h, w, c) that end each block)."""
        raise NotImplementedError

    def run(self, block: Callable, *inputs: Any) -> Array:
        """Returns block(*inputs); with spec.remat, derivatives compute the block again instead of keeping what is inside it.

        XLA on CPU merges the second computation with the first, so that nothing is saved there; see tests/models/test_remat.py.

        Args:
            block: a module, or a function whose modules are among `inputs`. Batch statistics move as without rematerialisation.
            *inputs: arrays, modules or None.
        """
        if not self.spec.remat:
            return block(*inputs)
        if isinstance(block, nnx.Module):
            block, inputs = type(block).__call__, (block, *inputs)
        return nnx.remat(block)(*inputs)

    def embed(self, images: ArrayLike, keys: Keys | None = None) -> tuple[Float[Array, "b d"], tuple[Float[Array, "b h w c"], ...]]:
        """Returns the features and the feature maps that end each block.

        Args:
            images: float (b, h, w, c) in [0, 1].
            keys: one key per example; read by dropout in training mode only.

        Raises:
            InputError: for images that are not floats, or whose size or channels are not what the network was built for.
        """
        if images.ndim != 4 or images.shape[1:] != self.spec.image_shape:
            raise InputError(
                f"images of shape {images.shape} do not fit this {self.spec.name}, which was built for (b, h, w, c) = "
                f"(b, {', '.join(map(str, self.spec.image_shape))})."
            )
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise InputError(f"images are {images.dtype}, a network takes floats in [0, 1]; divide uint8 images by 255.")
        # The parameters decide: bfloat16 or NumPy float64 images do not change what is computed.
        images = jnp.asarray(images, lift(self.head.kernel[...]).dtype)
        return self.trunk(normalize.normalize(images, mean=self.spec.mean, std=self.spec.std), keys)

    def features(self, images: ArrayLike) -> Float[Array, "b d"]:
        """Returns what the head reads, float32; see `embed`."""
        return self.embed(images)[0]

    def __call__(self, images: ArrayLike) -> Float[Array, "b k"]:
        """Returns the logits, float32; see `embed`."""
        return self.head(self.features(images))


def compute_dtype(spec: Spec) -> Any:
    """The dtype to hand to layers: None leaves it to the parameters, so that parameters cast to float64 are honoured."""
    return jnp.bfloat16 if spec.dtype == "bfloat16" else None


def conv(
    inputs: int,
    outputs: int,
    size: int,
    *,
    spec: Spec,
    rngs: nnx.Rngs,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    use_bias: bool = False,
    kernel_init: Callable = initial.he_fan_out,
    bias_init: Callable = nnx.initializers.zeros,
) -> nnx.Conv:
    """A square convolution, padded by `size // 2` on every side unless said otherwise; groups=inputs makes it depthwise.

    Padding is symmetric as in torch: 'SAME' would pad a strided convolution on the right only, which is another function.
    """
    padding = size // 2 if padding is None else padding
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
        dtype=compute_dtype(spec),
        rngs=rngs,
    )


def linear(
    inputs: int,
    outputs: int,
    *,
    rngs: nnx.Rngs,
    dtype: Any = None,
    kernel_init: Callable = initial.torch_default,
    bias_init: Callable = nnx.initializers.zeros,
) -> nnx.Linear:
    """A linear layer; heads leave `dtype` alone, so that logits are not rounded to bfloat16."""
    return nnx.Linear(inputs, outputs, dtype=dtype, kernel_init=kernel_init, bias_init=bias_init, rngs=rngs)


class BatchNorm(nnx.BatchNorm):
    """Batch norm over all axes but the last: statistics in at least float32, result in the dtype of the input.

    Running statistics move by 0.1 towards the batch's (torch's momentum 0.1 is 0.9 here), epsilon is 1e-5. The running variance
    follows the batch's biased one (torch stores the unbiased one, larger by n / (n - 1) with n values a channel).
    The variance is the mean square of what is left after the mean is taken away: E[x^2] - E[x]^2 loses all digits in float32
    where the mean is a thousand times the deviation. That costs one more pass, and one more all-reduce a layer on several devices.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        super().__init__(channels, momentum=0.9, epsilon=1e-5, use_fast_variance=False, rngs=rngs)

    def __call__(self, x: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
        """Normalises x, by the batch in training mode and by the running statistics otherwise."""
        # Cast here, not by flax: its mixed-precision path rounds the statistics' arithmetic. Standard promotion, since flax asks for
        # the common type of float64 and float32, which strict promotion refuses to name.
        with jax.numpy_dtype_promotion("standard"):
            return super().__call__(lift(x)).astype(x.dtype)


class Dropout(nnx.Module):
    """Drops single values with probability `rate`, by a key of the example: results do not depend on the batch.

    Holds no random state. `index` tells the dropout layers of one network apart.
    """

    def __init__(self, rate: float | int, *, index: int):
        if not 0 <= rate < 1:
            raise InputError(f"dropout is a probability, at least 0 and below 1, got {rate}.")
        self.rate = float(rate)
        self.index = index
        self.deterministic = True

    def __call__(self, x: Float[Array, "b *rest"], keys: Keys | None) -> Float[Array, "b *rest"]:
        """Returns x with values dropped and the rest divided by 1 - rate; x itself in evaluation mode."""
        if self.deterministic or self.rate == 0:
            return x
        if keys is None:
            raise InputError("this network has dropout: training mode needs `key`, one key or one per example.")
        keep = 1 - self.rate
        kept = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, self.index), keep, x.shape[1:]))(keys)
        return jnp.where(kept, x / keep, 0)


def max_pool(x: Float[Array, "b h w c"], *, size: int, stride: int, padding: int = 0) -> Float[Array, "b i j c"]:
    """Max pooling as maxima of strided slices, along rows and then along columns.

    Args:
        x: feature maps, at least 0 where `padding` is used (it pads with zeros).
        size: of the window.
        stride: of the window; what does not fill a window at the far end is left out, as in torch.
        padding: rows and columns added on every side.

    Equal values share the gradient. (torch gives it to the first of them; both are subgradients.)
    """
    if padding:
        x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    for axis in (1, 2):
        windows = (x.shape[axis] - size) // stride + 1
        slices = [jax.lax.slice_in_dim(x, i, i + (windows - 1) * stride + 1, stride, axis) for i in range(size)]
        x = functools.reduce(jnp.maximum, slices)
    return x


def global_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """The mean over all pixels, in at least float32."""
    return jnp.mean(lift(x), axis=(1, 2))
