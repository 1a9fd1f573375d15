"""Frost: the exact recipe on a user's own photographs, and how near our own ice comes to the published statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import corruptions
from robustjax.core import example_keys
from robustjax.core.check import InputError
from robustjax.corruptions import frost
from robustjax.corruptions.constants import CONSTANTS
from robustjax.corruptions.frost import scale_picture
from robustjax.imaging.ice import ice_pictures
from tests.goldens import official, reference

SIZES = ((600, 900), (315, 560), (315, 560), (350, 527), (495, 660))
MADE_FOR = {"cifar_c": (32, 0.2), "tiny_imagenet_c": (64, 0.3), "imagenet_c": (224, 1)}

# What OpenCV 4.8.1 makes of PATTERN with resize(fx=0.3, fy=0.3, INTER_LINEAR).
PATTERN = np.fromfunction(lambda i, j: (7 * i * i + 5 * j * j + 3 * i * j) % 256, (21, 31)).astype(np.uint8)
SCALED = [
    [22, 129, 89, 154, 90, 163, 192, 155, 149],
    [166, 115, 66, 129, 176, 97, 89, 149, 105],
    [174, 148, 161, 72, 181, 179, 96, 83, 180],
    [110, 82, 128, 73, 193, 210, 154, 174, 55],
    [123, 108, 202, 109, 85, 170, 112, 166, 73],
    [35, 53, 180, 121, 130, 214, 224, 76, 74],
]


def photographs():
    """Returns smooth pictures of the published sizes, each with a level of its own."""
    random = np.random.RandomState(0)
    pictures = []
    for i, (h, w) in enumerate(SIZES):
        coarse = random.randint(0, 120, (h // 15 + 1, w // 15 + 1, 3)) + 30 * i
        pictures.append(np.kron(coarse, np.ones((15, 15, 1), int))[:h, :w].astype(np.uint8))
    return pictures


def test_scaling_is_opencvs():
    # Kills: rounding in floats; weights of full precision; corners or edges aligned instead of centres; a size rounded up; h for w.
    picture = np.stack([PATTERN, PATTERN, 255 - PATTERN], axis=-1)
    np.testing.assert_array_equal(scale_picture(picture, 0.3)[..., 0], SCALED)
    np.testing.assert_array_equal(scale_picture(picture, 0.2), picture[2::5, 2::5])
    np.testing.assert_array_equal(scale_picture(picture, 1), picture)


def test_photographs_are_prepared_once_if_they_cannot_change(monkeypatch):
    # Kills: work that is done again in each call; what was made of other pictures, or of the same ones before they were written to,
    # through a view as well; of another benchmark's size; of others in their order.
    scaled = []
    monkeypatch.setattr(frost, "scale_picture", lambda picture, scale: scaled.append(scale) or scale_picture(picture, scale))
    dark, bright = (np.full((200, 200, 3), level, np.uint8) for level in (10, 90))
    writeable = bright.copy()
    view = writeable[:]
    for picture in (dark, bright, view):
        picture.flags.writeable = False

    def made(*pictures, scale=0.2):
        return frost.check_frost((1, 16, 16, 3), scale=scale, frost_images=list(pictures))["frost_images"]

    first = made(dark, bright)
    assert made(dark, bright) is first and len(scaled) == 2
    order = made(bright, dark)
    assert order.levels[0] == 90 and first.levels[0] == 10
    assert made(dark, bright, scale=0.3).heights[0] == 60 and made(dark).starts.shape == (1,)
    jaxs = jnp.asarray(bright)
    assert made(jaxs) is made(jaxs)
    for picture in (writeable, view):
        writeable[:] = 90
        assert made(picture).levels[0] == 90
        writeable[:] = 30
        assert made(picture).levels[0] == 30


@pytest.mark.parametrize("benchmark", MADE_FOR)
def test_recipe_on_ones_own_photographs(benchmark):
    # Kills: another photograph or place than the official draws choose, rows and columns swapped, BGR, weights swapped, a clip or a
    # truncation of the ice before it is added, a scale of another benchmark, photographs that run into each other.
    size, scale = MADE_FOR[benchmark]
    pictures = photographs()
    images = np.random.RandomState(1).randint(0, 256, (6, size, size, 3)).astype(np.uint8)
    for severity in (1, 4, 5) if size == 32 else (4,):
        weight, ice_weight = CONSTANTS[benchmark]["frost"][severity - 1]
        state, draws, expected = np.random.RandomState(size + severity), [], []
        for image in images:
            index = state.randint(5)
            picture = scale_picture(pictures[index], scale)
            top, left = (state.randint(0, side - size) for side in picture.shape[:2])
            draws.append((index, top, left))
            expected.append(np.clip(weight * image + ice_weight * picture[top : top + size, left : left + size], 0, 255).astype(np.uint8))
        draws = dict(zip(("index", "top", "left"), np.array(draws).T, strict=True))
        assert len(set(draws["index"])) > 2
        options = {"name": "frost", "severity": severity, "benchmark": benchmark, "frost_images": pictures}
        official.assert_bytes(images / 255, draws, np.stack(expected), **options)


def test_own_draws_choose_every_photograph_and_place():
    # Kills: a photograph or a place that is never or too often chosen; places of one photograph used for another's size.
    pictures = [np.full((h, w, 3), 40 * (i + 1), np.uint8) for i, (h, w) in enumerate(SIZES)]
    keys = example_keys(jax.random.key(0), jnp.arange(2000))
    draws = corruptions.draw(keys, (2000, 32, 32, 3), name="frost", severity=1)
    assert all(is_uniform(np.asarray(draws[name])) for name in ("photo", "row", "column"))
    # A picture whose levels are its own coordinates tells where it was cut.
    h, w = 40, 50
    rows, columns = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
    coordinates = np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)
    black = np.zeros((2000, 32, 32, 3), np.float32)
    options = {"name": "frost", "severity": 1, "benchmark": "imagenet_c", "quantize": False}
    with pytest.warns(UserWarning, match="nearer"):
        corner = np.rint(np.asarray(corruptions.apply(black, draws, frost_images=[coordinates], **options))[:, 0, 0] * 255 / 0.4)
        level = np.asarray(corruptions.apply(black, draws, frost_images=pictures, **options))[:, 0, 0, 0]
    assert set(corner[:, 0]) == set(range(h - 32)) and set(corner[:, 1]) == set(range(w - 32))
    counts = np.unique(np.rint(level * 255 / 0.4), return_counts=True)[1]
    assert len(counts) == 5 and abs(counts - 400).max() < 5 * np.sqrt(400 * 0.8)


def is_uniform(values):
    return abs(values.mean() - 0.5) < 5 / np.sqrt(12 * len(values)) and 0 <= values.min() < 0.01 and 0.99 < values.max() < 1


@pytest.mark.parametrize("severity", range(1, 6))
def test_our_own_ice_is_near_the_published_statistics(severity):
    # Kills: ice of another colour, contrast or coarseness; weights of another severity; pictures that are not made smaller.
    images = official.cifar_pictures() / 255
    stats = reference.load("corruptions/cifar_c_stats.npz")
    runs = []
    for seed in range(4):
        keys = example_keys(jax.random.key(seed), jnp.arange(len(images)))
        got = corruptions.corrupt(keys, images.astype(np.float32), name="frost", severity=severity)
        runs.append(official.statistics(images * 255, np.rint(np.asarray(got, np.float64) * 255)))
    ratio = {stat: np.mean([run[stat] for run in runs], axis=0) / stats[f"frost/{stat}"][severity - 1] for stat in runs[0]}
    print(f"severity {severity}: L2 {ratio['l2_mean']:.3f}, spectrum {np.round(ratio['psd'], 2)} of the published")
    assert abs(ratio["l2_mean"] - 1) < 0.1 and abs(ratio["mac"] - 1) < 0.1
    assert abs(ratio["mean"] - 1).max() < 0.03 and abs(ratio["std"] - 1).max() < 0.03
    assert abs(ratio["psd"] - 1).max() < 0.25


def test_ice_pictures():
    # Kills: pictures that differ from run to run, or may be written to; seams where they are tiled; ice without lines in it.
    again = ice_pictures.__wrapped__()
    for picture, same, size in zip(ice_pictures(), again, SIZES, strict=True):
        np.testing.assert_array_equal(picture, same)
        assert picture.shape == (*size, 3) and picture.dtype == np.uint8 and not picture.flags.writeable
        levels = picture.mean(axis=-1)
        for axis in (0, 1):
            steps = abs(np.diff(levels, axis=axis, append=levels.take([0], axis)))
            assert steps.take(-1, axis).mean() < 1.3 * steps.mean()
        assert np.ptp(levels) > 100


@pytest.mark.parametrize("shape", [(2, 700, 40, 3), (2, 64, 700, 1)])
def test_images_larger_than_our_ice(shape):
    # Kills: a place beyond the picture, which would be moved back without a word; the same place for every image.
    images = np.full(shape, 0.25, np.float32)
    keys = example_keys(jax.random.key(0), jnp.arange(2))
    got = np.asarray(corruptions.corrupt(keys, images, name="frost", severity=3, benchmark="imagenet_c"))
    assert got.shape == shape and got.std(axis=(1, 2)).min() > 0.01 and not np.allclose(got[0], got[1], atol=0.05)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (np.zeros((5, 300, 300, 3), np.uint8), "must be a list or tuple of photographs.*got ndarray"),
        ([], "got an empty one"),
        ([[[1], [2, 3]]], r"frost_images\[0\] must be uint8 \(h, w, 3\), RGB, got rows of different lengths"),
        ([np.zeros((300, 300, 3), np.float32)], r"frost_images\[0\] must be uint8 \(h, w, 3\), RGB, got float32 of shape \(300, 300, 3\)"),
        ([np.zeros((300, 300, 4), np.uint8)], "must be uint8"),
        (
            [np.zeros((300, 300, 3), np.uint8), np.zeros((300, 157, 3), np.uint8)],
            r"frost_images\[1\] has 300x157 pixels, 60x31 after scaling by 0.2: smaller than the images' 32x32",
        ),
    ],
)
def test_photographs_that_cannot_be_used(pictures, message):
    # Kills: an error of NumPy's or XLA's instead of ours; a photograph that is enlarged, or cut beyond its border, in silence.
    with pytest.raises(InputError, match=message):
        corruptions.corrupt(
            example_keys(jax.random.key(0), jnp.arange(1)),
            np.zeros((1, 32, 32, 3), np.float32),
            name="frost",
            severity=1,
            frost_images=pictures,
        )
