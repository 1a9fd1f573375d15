"""JPEG there and back, to the byte what libjpeg-turbo and so Pillow compute; no bit stream is written, which loses nothing.

An image becomes luma and two halved chroma planes, 8x8 blocks of them cosine transforms, and these are rounded to multiples of
the entries of a table: all loss that matters. A float transform would round a tie or two a block the other way, and one
coefficient moves 64 pixels by many levels. So integers are used throughout, or float32 where all values are whole and below 2^24.

For speed a transform works on the eight values x[0] ... x[7] as on whole arrays: blocks lie as [column, row, block]. Values
between passes fit 16 bits. Arrays are stacked, so that they are computed once and kept, in such an order that the next pass
does not take the stack apart again: XLA then would compute each value for each of its eight uses.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

_BLOCK = 8
_BITS = 13  # of the transform's constants
_EXTRA = 2  # bits kept between its two passes
_LARGEST = 19  # 2^19 / q as a whole number divides all that is divided here

# The example tables of the standard, ITU T.81 annex K.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = np.full((_BLOCK, _BLOCK), 99)
_CHROMA[:4, :4] = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))

# RGB to YCbCr and back, in units of 2^-16; half a unit of the 16 bits rounds, just less for Cb and Cr. Luma and chroma are both
# counted from 128.
_UNIT = 2.0**-16
_TO_YCC = ((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))
_TO_YCC_HALF = (32768, 32767, 32767)
_TO_RGB = ((0, 91881), (-22554, -46802), (116130, 0))


def quantization_tables(quality: int) -> np.ndarray:
    """Returns the tables (2, 8, 8) of luma and chroma for a quality from 1 to 100, as libjpeg scales them.

    >>> quantization_tables(50)[0, 0]
    array([16, 11, 10, 16, 24, 40, 51, 61])
    """
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((np.stack([_LUMA, _CHROMA]) * scale + 50) // 100, 1, 255)


def jpeg(images: Float[Array, "b h w c"], tables: Int[Array, "2 8 8"], *, quantize: bool) -> Float[Array, "b h w c"]:
    """Encodes as JPEG and decodes: 4:2:0 chroma, islow transforms and triangle upsampling, the defaults of libjpeg.

    Args:
        images: in [0, 1], with 3 channels, or 1, which then is the luma. Rounded to 8-bit levels first.
        tables: of luma and chroma, from 1 to 255; see `quantization_tables`.
        quantize: the decoded bytes. Without, the same coefficients are decoded in floats, within about 2 levels of them, and the
            gradient is that of all steps but their rounding (straight through): halving the chroma and back.
    """
    h, w, channels = images.shape[1:]
    levels = jnp.floor(images * 255 + 0.5).astype(jnp.float32)
    if channels == 3:
        luma, chroma = _planes(levels)
    else:
        luma, chroma = _extend(levels[..., 0] - 128, h + -h % _BLOCK, w + -w % _BLOCK).astype(jnp.int16), None
    coefficients, sizes = _encode(luma, chroma, tables)
    if quantize:
        return _colours(*_decode(coefficients, sizes, h, w), h, w, images.dtype)
    decoded = _colours(*_decode_in_floats(coefficients.astype(images.dtype), sizes, h, w), h, w, images.dtype)
    through = _halved_chroma(images) if channels == 3 else images
    return jnp.clip(through + jax.lax.stop_gradient(decoded - through), 0, 1)


def _planes(levels: Float[Array, "b h w 3"]) -> tuple[Int[Array, "b h2 w2"], Int[Array, "b 2 h3 w3"]]:
    """Returns luma and halved chroma, both of whole blocks, minus 128: borders are repeated where libjpeg does so."""
    b, h, w, _ = levels.shape
    height, width = h + -h % 16, w + -w % 16
    # To the right pixels are repeated, downwards halved rows.
    levels = _extend(levels, h + h % 2, width)
    ycc = _stack([jnp.floor(plane) for plane in _ycc(levels, _TO_YCC_HALF)], axis=1).reshape(3 * b, -1, width)
    chroma = jnp.stack([_halve(ycc[k::3]) for k in (1, 2)], axis=1).reshape(2 * b, -1, width // 2)
    return _extend(ycc[::3], height, width), _extend(chroma, height // 2, width // 2).reshape(b, 2, height // 2, width // 2)


def _ycc(levels: Float[Array, "b h w 3"], half: tuple[int, ...]) -> list[Float[Array, "b h w"]]:
    red, green, blue = (levels[..., k] for k in range(3))
    # All sums are whole and below 2^24, so exact in float32.
    offsets = (half[0] - (128 << 16), *half[1:])
    return [(r * red + g * green + b * blue + offset) * _UNIT for (r, g, b), offset in zip(_TO_YCC, offsets, strict=True)]


def _halve(plane: Int[Array, "b h w"]) -> Int[Array, "b h2 w2"]:
    """Returns the means of 2x2 pixels; halves and more are rounded down and up in turn, by column."""
    plane = plane.reshape(len(plane), -1, 2, plane.shape[2] // 2, 2).astype(jnp.int32)
    total = plane[:, :, 0, :, 0] + plane[:, :, 0, :, 1] + plane[:, :, 1, :, 0] + plane[:, :, 1, :, 1]
    return ((total + 1 + jax.lax.broadcasted_iota(jnp.int32, (1, 1, total.shape[2]), 2) % 2) >> 2).astype(jnp.int16)


def _extend(planes: Array, height: int, width: int) -> Array:
    """Repeats the last row and column of (b, h, w, ...) up to a size."""
    pads = [(0, 0), (0, height - planes.shape[1]), (0, width - planes.shape[2])] + [(0, 0)] * (planes.ndim - 3)
    return jnp.pad(planes, pads, mode="edge") if any(map(any, pads)) else planes


def _stack(parts: list[Array], axis: int = 0) -> Int[Array, "..."]:
    return jnp.stack([part.astype(jnp.int16) for part in parts], axis)


# The transform. Its odd outputs are products of the differences x[j] - x[7 - j], its even ones of the sums: islow's factors
# (Loeffler, Ligtenberg and Moschytz, "Practical Fast 1-D DCT Algorithms with 11 Multiplications", ICASSP 1989), multiplied out.


def _factors() -> tuple[np.ndarray, np.ndarray]:
    """Returns integers: (4 odd outputs, 4 differences), and (outputs 2 and 6, both differences of sums)."""
    fix = lambda x: int(x * 2**_BITS + 0.5)  # noqa: E731
    d = np.eye(4, dtype=int)
    turned = (d.sum(0)) * fix(1.175875602)
    outer, inner = (d[0] + d[3]) * fix(0.899976223), (d[1] + d[2]) * fix(2.562915447)
    even, uneven = (d[1] + d[3]) * fix(1.961570560) - turned, (d[0] + d[2]) * fix(0.390180644) - turned
    odd = np.stack(
        [
            d[0] * fix(1.501321110) - outer - uneven,
            d[1] * fix(3.072711026) - inner - even,
            d[2] * fix(2.053119869) - inner - uneven,
            d[3] * fix(0.298631336) - outer - even,
        ]
    )
    middle = fix(0.541196100)
    return odd, np.array([[middle + fix(0.765366865), middle], [middle, middle - fix(1.847759065)]])


_ODD, _EVEN = _factors()


def _descale(x: Int[Array, "..."], bits: int) -> Int[Array, "..."]:
    return (x + (1 << (bits - 1))) >> bits


def _forward(x: list[Array], bits: int, axis: int, finish: Callable = lambda k, out: out) -> Int[Array, "..."]:
    """Returns the 8 outputs of a 1-D transform, scaled by sqrt(8) 2^(13 - bits), each passed through `finish`."""
    x = [value.astype(jnp.int32) for value in x]
    sums, differences = [x[j] + x[7 - j] for j in range(4)], [x[j] - x[7 - j] for j in range(4)]
    outer, inner = sums[0] - sums[3], sums[1] - sums[2]
    outputs = []
    for k in range(_BLOCK):
        if k % 2:
            out = sum(int(_ODD[k // 2, j]) * differences[j] for j in range(4))
        elif k % 4:
            out = int(_EVEN[k // 4, 0]) * outer + int(_EVEN[k // 4, 1]) * inner
        else:
            out = (sums[0] + sums[3] + (1 if k == 0 else -1) * (sums[1] + sums[2])) << _BITS
        outputs.append(finish(k, _descale(out, bits)))
    return _stack(outputs, axis)


def _inverse(x: list[Array], bits: int) -> Int[Array, "..."]:
    """Returns the 8 values whose transform is x, scaled by sqrt(8) 2^(13 - bits)."""
    x = [value.astype(jnp.int32) for value in x]
    ends = [(x[0] + x[4]) << _BITS, (x[0] - x[4]) << _BITS]
    turned = [int(_EVEN[0, j]) * x[2] + int(_EVEN[1, j]) * x[6] for j in range(2)]
    even = [ends[0] + turned[0], ends[1] + turned[1], ends[1] - turned[1], ends[0] - turned[0]]
    odd = [sum(int(_ODD[k, j]) * x[2 * k + 1] for k in range(4)) for j in range(4)]
    values = [even[j] + odd[j] for j in range(4)] + [even[j] - odd[j] for j in reversed(range(4))]
    return _stack([_descale(value, bits) for value in values])


def _reciprocal(table: Int[Array, "..."]) -> Int[Array, "..."]:
    """Returns r such that n r >> 19 is n // table for n below 2^11, without overflow."""
    return (2**_LARGEST + table - 1) // table


def _to_blocks(plane: Int[Array, "b h w"]) -> Int[Array, "8 8 b h8 w8"]:
    b, h, w = plane.shape
    return plane.reshape(b, h // _BLOCK, _BLOCK, w // _BLOCK, _BLOCK).transpose(4, 2, 0, 1, 3)


def _encode(luma: Array, chroma: Array | None, tables: Int[Array, "2 8 8"]) -> tuple[Int[Array, "64 n"], list]:
    """Returns the rounded coefficients, [column * 8 + row, block], luma's blocks first, and the shapes of planes of blocks."""
    planes = [luma] if chroma is None else [luma, chroma.reshape(-1, *chroma.shape[2:])]
    blocks = [_to_blocks(plane) for plane in planes]
    rows = [_forward(list(x), _BITS - _EXTRA, axis=0).reshape(_BLOCK, _BLOCK, -1) for x in blocks]
    n = rows[0].shape[2]
    rows = jnp.concatenate(rows, axis=2) if chroma is not None else rows[0]
    is_luma = jnp.arange(rows.shape[2]) < n
    reciprocals = _reciprocal(tables)

    def quantize(k, out):
        # `out` is 8 times the coefficient; halves round away from 0.
        entry, reciprocal = (jnp.where(is_luma[None], t[0, k][:, None], t[1, k][:, None]) for t in (tables, reciprocals))
        sign = out >> 31
        size = ((((out ^ sign) - sign) + 4 * entry) >> 3) * reciprocal >> _LARGEST
        return ((size ^ sign) - sign) * entry

    coefficients = _forward([rows[:, u] for u in range(_BLOCK)], _BITS + _EXTRA, axis=1, finish=quantize)
    return coefficients.reshape(_BLOCK * _BLOCK, -1), [x.shape[2:] for x in blocks]


def _decode(coefficients: Int[Array, "64 n"], sizes: list, h: int, w: int) -> tuple[Array, Array | None]:
    """Returns luma (b, h, w) and chroma (b, h, 2, w), whole levels minus 128."""
    columns = _inverse([coefficients[u::_BLOCK] for u in range(_BLOCK)], _BITS - _EXTRA)
    blocks = _inverse([columns[:, v] for v in range(_BLOCK)], _BITS + _EXTRA + 3).reshape(_BLOCK * _BLOCK, -1)
    return _from_blocks(blocks, sizes, h, w)


def _decode_in_floats(coefficients: Float[Array, "64 n"], sizes: list, h: int, w: int) -> tuple[Array, Array | None]:
    k, j = np.arange(_BLOCK)[:, None], np.arange(_BLOCK)
    basis = np.cos(np.pi * k * (2 * j + 1) / 16) * np.where(k == 0, np.sqrt(1 / 8), 1 / 2)
    basis = jnp.asarray(basis, coefficients.dtype)
    coefficients = coefficients.reshape(_BLOCK, _BLOCK, -1)
    blocks = jnp.einsum("kun,kv,ul->vln", coefficients, basis, basis, precision=jax.lax.Precision.HIGHEST)
    return _from_blocks(blocks.reshape(_BLOCK * _BLOCK, -1), sizes, h, w)


def _from_blocks(blocks: Array, sizes: list, h: int, w: int) -> tuple[Array, Array | None]:
    blocks = jnp.clip(blocks, -128, 127)
    b, h8, w8 = sizes[0]
    n = b * h8 * w8
    luma = blocks[:, :n].reshape(_BLOCK, _BLOCK, b, h8, w8)
    # Even and odd rows stacked: the plane is laid out here, not by its users one value at a time.
    halves = [luma[:, u::2].transpose(2, 3, 1, 4, 0).reshape(b, h8 * 4, w8 * _BLOCK) for u in range(2)]
    luma = jnp.stack(halves, axis=2).reshape(b, h8 * _BLOCK, w8 * _BLOCK)[:, :h, :w]
    if len(sizes) == 1:
        return luma, None
    _, h8, w8 = sizes[1]
    chroma = blocks[:, n:].reshape(_BLOCK, _BLOCK, b, 2, h8, w8).transpose(2, 4, 1, 3, 5, 0)
    chroma = chroma.reshape(b, h8 * _BLOCK, 2, w8 * _BLOCK)
    return luma, _upsample(chroma[:, : (h + 1) // 2, :, : (w + 1) // 2])[:, :h, :, :w]


def _upsample(chroma: Array) -> Array:
    """Doubles axes 1 and 3, weights 9, 3, 3 and 1 sixteenths; whole numbers are rounded, halves up and down in turn."""
    exact = jnp.issubdtype(chroma.dtype, jnp.integer)
    kept = jnp.int16 if exact else chroma.dtype
    wide = jnp.int32 if exact else chroma.dtype

    def near_and_far(x, axis):
        last = x.shape[axis] - 1
        before = jnp.concatenate([jax.lax.slice_in_dim(x, 0, 1, axis=axis), jax.lax.slice_in_dim(x, 0, last, axis=axis)], axis)
        after = jnp.concatenate([jax.lax.slice_in_dim(x, 1, None, axis=axis), jax.lax.slice_in_dim(x, last, None, axis=axis)], axis)
        return 3 * x + before, 3 * x + after

    b, h, _, w = chroma.shape
    rows = jnp.stack([x.astype(kept) for x in near_and_far(chroma.astype(wide), 1)], axis=2).reshape(b, 2 * h, 2, w)
    left, right = near_and_far(rows.astype(wide), 3)
    left, right = ((left + 8) >> 4, (right + 7) >> 4) if exact else (left / 16, right / 16)
    return jnp.stack([left.astype(kept), right.astype(kept)], axis=4).reshape(b, 2 * h, 2, 2 * w)


def _colours(luma: Array, chroma: Array | None, h: int, w: int, dtype) -> Float[Array, "b h w c"]:
    """Returns RGB or grey images in [0, 1]; rounds where the planes are whole."""
    exact = jnp.issubdtype(luma.dtype, jnp.integer)
    wide = jnp.float32 if exact else luma.dtype
    luma = luma.astype(wide)
    if chroma is None:
        channels = [luma]
    else:
        blue, red = (chroma[:, :, k].astype(wide) for k in range(2))
        shares = [(b * blue + r * red + (32768 if exact else 0)) * _UNIT for b, r in _TO_RGB]
        channels = [luma + (jnp.floor(share) if exact else share) for share in shares]
    levels = jnp.stack(channels, axis=-1)
    # Clipped where bytes are; in floats by the caller, whose gradient this would cut.
    return (jnp.clip(levels, -128, 127) + 128).astype(dtype) / 255 if exact else (levels + 128).astype(dtype) / 255


def _halved_chroma(images: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Halves the chroma and doubles it again, in floats: what is left of JPEG where no coefficient is rounded."""
    b, h, w, _ = images.shape
    luma, *chroma = _ycc(_extend(images * 255, h + h % 2, w + w % 2), (0, 0, 0))
    halves = [plane.reshape(b, (h + 1) // 2, 2, (w + 1) // 2, 2).mean(axis=(2, 4)) for plane in chroma]
    chroma = _upsample(jnp.stack(halves, axis=2))
    return _colours(luma[:, :h, :w], chroma[:, :h, :, :w], h, w, images.dtype)
