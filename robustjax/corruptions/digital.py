"""Digital processing: contrast, resolution, compression and saturation."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from robustjax.corruptions.severity import pick
from robustjax.imaging.color import hsv_to_rgb, rgb_to_hsv, room_for_square
from robustjax.imaging.jpeg import jpeg, quantization_tables
from robustjax.imaging.resample import batch_first, batch_last, box_weights


def contrast(images: Float[Array, "b h w c"], *, constants: tuple, severity: Int[Array, ""]) -> Float[Array, "b h w c"]:
    """clip((x - m) c + m, 0, 1), m the mean of the image over its pixels, for each channel. Differentiable (through m as well).

    Args:
        images: in [0, 1].
        constants: gain c for each severity.
        severity: which of them.
    """
    # One axis after the other: summed at once, a single 32x32 image's float32 mean comes out 4e-6 off.
    mean = jnp.mean(jnp.mean(images, axis=2, keepdims=True), axis=1, keepdims=True)
    return jnp.clip((images - mean) * pick(constants, severity, images.dtype) + mean, 0, 1)


def pixelate(images: Float[Array, "b h w c"], *, constants: tuple, severity: Int[Array, ""], quantize: bool) -> Float[Array, "b h w c"]:
    """Box-filter resize to int(size * factor) pixels along each axis and back.

    Args:
        images: in [0, 1].
        constants: factor for each severity.
        severity: which of them.
        quantize: round to 8-bit levels where the published code (Pillow) does: on entry, after the horizontal and after the
            vertical pass, so the result is made of levels k / 255. Without, this is a linear map, differentiable, and nowhere
            more than 1.5 levels away.
    """

    def at(factor):
        def resize(planes):
            for axis in (1, 0):
                planes = _box_down(planes, int(planes.shape[axis] * factor), axis, quantize)
            for axis, size in enumerate(images.shape[1:3]):  # going up only copies
                planes = jnp.take(planes, box_weights(planes.shape[axis], size).argmax(1), axis=axis, mode="clip")
            return planes

        return resize

    planes = batch_last(images)
    if quantize:
        planes = jnp.floor(planes * 255 + 0.5)
    branch = jnp.clip(severity - 1, 0, len(constants) - 1)
    result = batch_first(jax.lax.switch(branch, [at(factor) for factor in constants], planes), images.shape[-1])
    return result / 255 if quantize else jnp.clip(result, 0, 1)


def _box_down(planes: Float[Array, "h w k"], size: int, axis: int, rounded: bool) -> Float[Array, "h2 w2 k"]:
    """Resizes one axis of `batch_last` planes to fewer pixels, each the mean of its few neighbours."""
    weights = box_weights(planes.shape[axis], size)
    taps = int((weights > 0).sum(1).max())
    first = np.minimum((weights > 0).argmax(1), planes.shape[axis] - taps)
    weights = np.take_along_axis(weights, first[:, None] + np.arange(taps), axis=1)

    def means(rows):
        shape = [-1 if axis == i else 1 for i in range(3)]
        factors = [jnp.asarray(weights[rows, t].reshape(shape), planes.dtype) for t in range(taps)]
        total = sum(factors[t] * jnp.take(planes, first[rows] + t, axis=axis, mode="clip") for t in range(taps))
        return jnp.floor(total + 0.5) if rounded else total

    # In two halves put together: XLA computes one whole anew for each use in the pass that follows.
    return jnp.concatenate([means(slice(size // 2)), means(slice(size // 2, None))], axis)


def jpeg_compression(
    images: Float[Array, "b h w c"], *, constants: tuple, severity: Int[Array, ""], quantize: bool
) -> Float[Array, "b h w c"]:
    """JPEG encoding and decoding, to the byte as Pillow's; one channel is a grey JPEG.

    Args:
        images: in [0, 1], with 1 or 3 channels; rounded to 8-bit levels first, as published.
        constants: quality for each severity.
        severity: which of them.
        quantize: decoded to bytes. Without, the rounded coefficients, which are what JPEG is, are decoded in floats. The gradient
            then passes that rounding straight through: what it sees is chroma halved and doubled again, clipped to [0, 1].
    """
    tables = pick(np.stack([quantization_tables(quality) for quality in constants]), severity, jnp.float32)
    return jpeg(images, tables.astype(jnp.int32), quantize=quantize)


def saturate(images: Float[Array, "b h w 3"], *, constants: tuple, severity: Int[Array, ""]) -> Float[Array, "b h w 3"]:
    """Saturation of HSV becomes clip(g S + o, 0, 1); hue and value stay.

    So a channel x of a pixel with largest channel V and smallest m becomes V - clip(g (V - m) + o V, 0, V) (V - x) / (V - m),
    which is what is computed; float64 goes through HSV as the published code does, whose rounding decides to which side of a whole
    level truncation falls. An accident of that code: grey has hue 0, so an offset o > 0 tints it red. The gradient is exact where
    no two channels of a pixel are equal.

    Args:
        images: in [0, 1].
        constants: (gain g, offset o) for each severity.
        severity: which of them.
    """
    gain, offset = pick(constants, severity, images.dtype)
    if images.dtype == jnp.float64:
        hsv = rgb_to_hsv(images)
        saturation = jnp.clip(hsv[..., 1] * gain + offset, 0, 1)
        return jnp.clip(hsv_to_rgb(jnp.stack([hsv[..., 0], saturation, hsv[..., 2]], axis=-1)), 0, 1)
    red, green, blue = (images[..., k : k + 1] for k in range(3))
    value = jnp.maximum(jnp.maximum(red, green), blue)
    spread = value - jnp.minimum(jnp.minimum(red, green), blue)
    grey = spread == 0
    depth = jnp.clip(gain * spread + offset * value, 0, value)
    red_stays = jnp.asarray([0, 1, 1], images.dtype).reshape(1, 1, 1, 3)
    room = room_for_square(spread)
    share = jnp.where(grey, red_stays, (value - images) * room / jnp.where(grey, 1, spread * room))
    return jnp.clip(value - depth * share, 0, 1)
