"""The operations of AugMix against Pillow itself, and against what the official code made with it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from PIL import Image, ImageEnhance, ImageOps

from robustjax.core import example_keys
from robustjax.imaging import pil
from tests.goldens import reference

apply_op = jax.jit(pil.apply_op)


def by_pillow(picture: np.ndarray, name: str, level: float) -> np.ndarray:
    """Applies one operation with Pillow; the level's number as AugMix's code works it out."""
    image = Image.fromarray(picture.squeeze())
    v, sign = abs(level), np.sign(level)
    across, down = (sign * int(v * (side / 3) / 10) for side in image.size)
    lean = sign * float(v) * 0.3 / 10
    affine = {
        "shear_x": (1, lean, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, lean, 1, 0),
        "translate_x": (1, 0, across, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, down),
    }
    if name in affine:
        out = image.transform(image.size, Image.Transform.AFFINE, affine[name], resample=Image.Resampling.BILINEAR)
    elif name in ("color", "contrast", "brightness", "sharpness"):
        out = getattr(ImageEnhance, name.capitalize())(image).enhance(v * 1.8 / 10 + 0.1)
    else:
        out = {
            "autocontrast": lambda: ImageOps.autocontrast(image),
            "equalize": lambda: ImageOps.equalize(image),
            "posterize": lambda: ImageOps.posterize(image, 4 - int(v * 4 / 10)),
            "solarize": lambda: ImageOps.solarize(image, 256 - int(v * 256 / 10)),
            "rotate": lambda: image.rotate(sign * int(v * 30 / 10), resample=Image.Resampling.BILINEAR),
        }[name]()
    return np.asarray(out).reshape(picture.shape)


def pictures(shape: tuple[int, ...], count: int) -> np.ndarray:
    """Returns uint8 pictures of very different histograms: noise, low contrast, few levels, one level, ramps."""
    rng = np.random.default_rng(0)
    found = rng.integers(0, 256, (count, *shape), np.uint8)
    found[1::5] = 90 + found[1::5] // 5
    found[2::5] = found[2::5] // 64 * 70
    found[3::10] = found[3::10, :1, :1]
    found[4::5] = np.linspace(20, 250, shape[0] * shape[1]).reshape(1, *shape[:2], 1)
    return found


def applied(images: np.ndarray, names: list[str], level: np.ndarray, dtype: type) -> np.ndarray:
    """Returns the operations' results as levels, after checking that they are on the grid."""
    with jax.enable_x64(dtype is np.float64):
        index = jnp.asarray([pil.OPS.index(name) for name in names], jnp.int32)
        out = np.asarray(apply_op(jnp.asarray(images / dtype(255), dtype), index, jnp.asarray(level, dtype)))
    assert out.dtype == dtype
    levels = np.round(out * 255)
    np.testing.assert_allclose(out, levels / 255, rtol=0, atol=2 * np.finfo(dtype).eps)
    return levels.astype(int)


def assert_same(ours: np.ndarray, theirs: np.ndarray, names: list[str], dtype: type) -> None:
    """Everything to the bit in float64; in float32 warps may be one level off, seldom but where results are whole by themselves."""
    differ = np.abs(ours - theirs.astype(int))
    for name in set(names):
        of_name = differ[[one == name for one in names]]
        warped = dtype is np.float32 and name in ("rotate", "shear_x", "shear_y")
        assert of_name.max() <= (1 if warped else 0), name
        assert (of_name > 0).mean() <= (0.01 if warped else 0), name


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_golden_results_of_the_official_code(dtype):
    # Kills: another formula of a level; signs turned round; rounding for cutting off; a border that is not black.
    stored = reference.load("losses_metrics/augment.npz")
    names = [str(name) for name in stored["ops.name"]]
    images = np.broadcast_to(stored["ops.image"], stored["ops.output"].shape)
    assert set(names) == set(pil.OPS)
    ours = applied(images, names, stored["ops.sampled_level"] * stored["ops.sign"], dtype)
    assert_same(ours, stored["ops.output"], names, dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(17, 20, 3), (26, 33, 1), (5, 8, 3)], ids=str)
def test_pillow_agrees_on_random_pictures_and_levels(shape, dtype):
    # Kills: height taken for width in shifts and centres; channels or images that share a table; one level, few levels or few pixels
    # not treated as Pillow does; grey that has a hue; edges smoothed; truncation at negative differences; clipping left out.
    # In pictures of 340 pixels equalising would go beyond 255, in those of 40 it does nothing.
    rounds = 12
    names = [name for name in pil.OPS for _ in range(rounds)]
    images = pictures(shape, len(names))
    level = np.random.default_rng(1).uniform(0.1, 9.9, len(names)) * np.resize([1, -1], len(names))
    level = level.astype(np.float32).astype(np.float64)  # Pillow gets the very same
    level = np.where(np.char.equal(names, "posterize"), np.clip(level, -7.4, 7.4), level)  # Pillow refuses to keep no bits
    theirs = np.stack([by_pillow(*one) for one in zip(images, names, level.tolist(), strict=True)])
    assert_same(applied(images, names, level, dtype), theirs, names, dtype)


def test_operations_alone_are_what_they_are_among_others():
    # Kills: a kernel that leaves clipping to those behind it, which do not run when no image needs them.
    images = pictures((17, 20, 3), 156)
    level = np.resize([3.0, -7.0], len(images))
    for name in ("equalize", "rotate"):
        theirs = np.stack([by_pillow(*one) for one in zip(images, [name] * len(images), level, strict=True)])
        assert_same(applied(images, [name] * len(images), level, np.float32), theirs, [name] * len(images), np.float32)


def test_posterize_to_no_bits_is_black():
    # Kills: a shift past the integer's width.
    assert not applied(pictures((4, 5, 3), 1), ["posterize"], np.array([10.0]), np.float32).any()


def test_autocontrast_loses_what_float64_loses_for_every_range():
    # Kills: a table that names the wrong whole result, or stops short of the last ones.
    low, high = np.triu_indices(256, 1)
    entries = np.clip(np.arange(256)[None], low[:, None], high[:, None])
    table = np.asarray(jax.jit(pil.autocontrast)(jnp.asarray(entries[:, None, :, None], jnp.int32)))[:, 0, :, 0]
    scale = (255.0 / (high - low))[:, None]
    expected = np.trunc(entries * scale + -low[:, None] * scale)
    np.testing.assert_array_equal(table, expected)
    between = (np.arange(256)[None] >= low[:, None]) & (np.arange(256)[None] <= high[:, None])
    assert (expected < (entries - low[:, None]) * 255 // (high - low)[:, None])[between].sum() > 1e4  # it does happen


def keys(ids):
    return example_keys(jax.random.key(3), jnp.asarray(ids))


def test_law_of_level_and_operation():
    # Kills: another range; a sign tied to the size; one draw a batch; operations that are not asked for, or not equally likely.
    n = 4000
    level = np.asarray(jax.jit(functools.partial(pil.sample_level, severity=3.0))(keys(np.arange(n))))
    assert scipy.stats.kstest(np.abs(level), scipy.stats.uniform(0.1, 2.9).cdf).pvalue > 1e-4
    assert scipy.stats.binomtest(int((level < 0).sum()), n).pvalue > 1e-4
    assert abs(scipy.stats.spearmanr(np.abs(level), level < 0).statistic) < 5 / np.sqrt(n)
    op = np.asarray(jax.jit(pil.sample_op)(keys(np.arange(n))))
    assert scipy.stats.chisquare(np.bincount(op, minlength=9)).pvalue > 1e-4 and op.max() == 8
    assert {pil.OPS[i] for i in pil.sample_op(keys(np.arange(200)), ops=("equalize", "sharpness"))} == {"equalize", "sharpness"}
    np.testing.assert_array_equal(pil.sample_level(keys([9, 2]), severity=3.0), level[[9, 2]])


def batch():
    names = list(pil.OPS)[:8]
    images = jnp.asarray(pictures((8, 8, 3), 8) / 255, jnp.float32)
    return images, jnp.asarray([3, 0, 9, 1, 5, 11, 4, 12], jnp.int32), jnp.linspace(-6, 9, len(names))


def test_batches_vmap_devices_and_gradients():
    # Kills: kernels that read other rows; a skipped kernel that was needed; a branch that the types of shard_map or vmap refuse, or rows
    # that lie on an explicit mesh; NaN.
    images, index, level = batch()
    whole = np.asarray(apply_op(images, index, level))
    some = np.array([6, 0, 3])
    np.testing.assert_array_equal(apply_op(images[some], index[some], level[some]), whole[some])
    halves = [x.reshape(2, 4, *x.shape[1:]) for x in (images, index, level)]
    np.testing.assert_array_equal(jax.jit(jax.vmap(pil.apply_op))(*halves).reshape(whole.shape), whole)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    np.testing.assert_array_equal(
        jax.jit(jax.shard_map(pil.apply_op, mesh=mesh, in_specs=P("data"), out_specs=P("data")))(images, index, level), whole
    )
    rows = NamedSharding(jax.make_mesh((8,), ("data",)), P("data"))
    np.testing.assert_array_equal(apply_op(*(jax.device_put(x, rows) for x in (images, index, level))), whole)
    assert not jax.jit(jax.grad(lambda x: apply_op(x, index, level).sum()))(images).any()
    assert str(jax.make_jaxpr(pil.apply_op)(images, index, level)).count("cond[") == 4  # what is not needed is not run
