"""Crops on the host: random ones follow their law and nothing but their draw, the centre is the one everybody evaluates on."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from robustjax import data
from robustjax.core import InputError
from robustjax.data import crops, encoded, image_folder
from robustjax.data.copies import ExtendedSource
from robustjax.data.crops import Draw
from tests.data import writing

L = math.log(4 / 3)


def largest_gap(values, distribution) -> float:
    """Returns Kolmogorov's distance between draws and a distribution function, times the root of their number."""
    values = np.sort(values)
    steps = np.arange(len(values) + 1) / len(values)
    expected = np.array([distribution(value) for value in values])
    return float(np.sqrt(len(values)) * max(np.max(steps[1:] - expected), np.max(expected - steps[:-1])))


def test_areas_ratios_and_places_follow_their_law():
    # Kills: sides for areas, a ratio that is uniform itself, width for height, places off the middle. In a square of side s, a crop of area
    # a s^2 and log ratio x fits if a <= exp(-|x|); those that do not are drawn again, so (a, x) is uniform under that curve.
    side, number = 10_000, 4000
    boxes = [crops.random_box(side, side, Draw(3, i // 50, i)) for i in range(number)]
    wide, high = (np.array([b.right - b.left for b in boxes]), np.array([b.bottom - b.top for b in boxes]))
    total = 1 - 3 / 4 - 0.08 * L

    def area(a):
        if a <= 3 / 4:
            return (a - 0.08) * L / total
        return (-a * math.log(a) + a - 3 / 4 - 0.08 * L) / total

    def log_ratio(x):
        half = (1 - math.exp(-abs(x)) - 0.08 * abs(x)) / total
        return (1 + math.copysign(half, x)) / 2

    assert area(1) == pytest.approx(1) and log_ratio(L) == pytest.approx(1)
    assert largest_gap(wide * high / side**2, area) < 1.63  # one in a hundred; the draws are always the same
    assert largest_gap(np.log(wide / high), log_ratio) < 1.63
    for left, extent in (([b.left for b in boxes], wide), ([b.top for b in boxes], high)):
        assert largest_gap((np.array(left) + 0.5) / (side - extent + 1), lambda u: u) < 1.63


@pytest.mark.parametrize(("width", "height"), [(500, 375), (333, 500), (7, 9), (1, 1), (1000, 10), (3, 900)])
def test_crops_lie_inside(width, height):
    # Kills: height for width, a border that is off by one, an empty crop.
    boxes = [crops.random_box(width, height, Draw(0, 0, i)) for i in range(300)]
    assert all(0 <= b.left < b.right <= width and 0 <= b.top < b.bottom <= height for b in boxes)
    if min(width, height) > 300:  # no less than rounding allows
        shares = [(b.right - b.left) * (b.bottom - b.top) / (width * height) for b in boxes]
        ratios = [(b.right - b.left) / (b.bottom - b.top) for b in boxes]
        assert 0.075 < min(shares) < 0.2 and 0.8 < max(shares) <= 1 and 0.73 < min(ratios) < 0.8 and 1.25 < max(ratios) < 1.36
        assert {b.left for b in boxes} > {0} and max(b.right for b in boxes) > width - 5


def test_what_cannot_fit_is_centred_with_a_ratio_in_the_range():
    # By hand: nothing of at least 8% of the area and these ratios fits, so the largest part with a ratio of 4/3, or 3/4, is taken.
    assert crops.random_box(1000, 10, Draw(0, 0, 0)) == (493, 0, 506, 10)
    assert crops.random_box(3, 900, Draw(0, 0, 0)) == (0, 448, 3, 452)


def test_a_draw_alone_decides():
    # Kills: seed, step or example left out; a generator that goes on.
    first = crops.random_box(500, 375, Draw(1, 2, 3))
    others = [crops.random_box(500, 375, draw) for draw in (Draw(1, 2, 4), Draw(1, 3, 3), Draw(2, 2, 3), Draw(3, 2, 1))]
    assert crops.random_box(500, 375, Draw(1, 2, 3)) == first and len({first, *others}) == 5
    # Written down once: a crop must stay what it is over versions of NumPy, or runs cannot be resumed.
    assert tuple(first) == FIRST


FIRST = (27, 63, 335, 344)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (375, 520), (300, 402), (402, 300), (224, 224), (100, 90), (257, 256)])
def test_evaluation_is_on_the_usual_centre(height, width):
    # Resize(256) and CenterCrop(224) of torchvision on Pillow's images, written out: the longer side is cut down to an integer (520x375
    # to 354), the offset rounded, a half to the even one (343 to 60). Kills: the part of an unresized image, bicubic, a centre that is off by one.
    file = writing.jpeg(height, width)
    got = image_folder.decode(file, shape=(224, 224, 3), resize="random_resized")
    image = Image.open(io.BytesIO(file))
    size = (256, int(256 * height / width)) if width <= height else (int(256 * width / height), 256)
    image = image.resize(size, Image.Resampling.BILINEAR)
    top, left = round((size[1] - 224) / 2.0), round((size[0] - 224) / 2.0)
    np.testing.assert_array_equal(got, np.asarray(image)[top : top + 224, left : left + 224])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_training_is_on_the_drawn_part(mode):
    # Kills: a part of another image or colour order; colours of CMYK and grey lost; a resize before the cut.
    file, draw = writing.jpeg(90, 130, mode=mode), Draw(4, 5, 6)
    got = image_folder.decode(file, shape=(32, 32, 3), resize="random_resized", draw=draw)
    part = Image.open(io.BytesIO(file)).convert("RGB").crop(crops.random_box(130, 90, draw))
    np.testing.assert_array_equal(got, np.asarray(part.resize((32, 32), Image.Resampling.BILINEAR)))
    grey = image_folder.decode(file, shape=(32, 32, 1), resize="random_resized", draw=draw)
    assert grey.shape == (32, 32, 1)


def test_large_files_are_decoded_coarsely_and_look_the_same():
    # Kills: a box in pixels of the other resolution; an evaluation that depends on the decoder's shortcut.
    file = writing.jpeg(640, 900)
    coarser = 0
    for i in range(20):
        draw = Draw(0, 0, i)
        got = image_folder.decode(file, shape=(48, 48, 3), resize="random_resized", draw=draw).astype(float)
        whole = Image.open(io.BytesIO(file)).crop(crops.random_box(900, 640, draw)).resize((48, 48), Image.Resampling.BILINEAR)
        difference = np.abs(got - np.asarray(whole, float))
        coarser += difference.max() > 0
        assert np.sqrt(np.mean(difference**2)) < 5
    assert coarser > 10


@pytest.mark.parametrize("draw", [None, Draw(0, 1, 2)])
def test_turned_photographs_are_cut_upright(draw):
    # Kills: a box for the file's own height and width; large files, too, which are not decoded coarsely then.
    for height, width in ((60, 90), (500, 700)):
        file = writing.jpeg(height, width, exif=6)
        upright = writing.encode(np.rot90(np.asarray(Image.open(io.BytesIO(file))), -1))
        turned, expected = (image_folder.decode(f, shape=(32, 32, 3), resize="random_resized", draw=draw) for f in (file, upright))
        np.testing.assert_array_equal(turned, expected)


def test_files_and_prepared_sets_are_cut_alike():
    # The other decoder: no EXIF there, as TFDS has none.
    file = writing.jpeg(70, 50)
    for draw in (None, Draw(0, 0, 9)):
        ours = encoded.decode(file, channels=3, fit=lambda image, prepare, d: crops.cut(image, prepare, d, size=24), draw=draw)
        np.testing.assert_array_equal(ours, image_folder.decode(file, shape=(24, 24, 3), resize="random_resized", draw=draw))


def test_copies_are_cut_too_each_for_itself():
    # Kills: copies trained on uncut, with the crop of their original, or with another's label.
    class Cropped(data.ArraySource):
        cropped = True
        resident = False

        def fetch_train(self, indices, *, seed, step):
            return self.fetch(indices)[0] + np.uint8(step), self.labels[indices]

    images, copies = writing.images(4, (16, 16, 3)), writing.images(4, (16, 16, 3), seed=1)
    source = ExtendedSource(Cropped(images // 2, np.arange(4)), [copies], np.arange(4, dtype=np.int32))
    assert source.cropped and not source.resident
    got, labels = source.fetch_train(np.array([6, 1, 2]), seed=0, step=3)
    box = crops.random_box(16, 16, Draw(0, 3, 6))
    expected = Image.fromarray(copies[2]).crop(box).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(got[0], np.asarray(expected))
    np.testing.assert_array_equal(got[1:], images[[1, 2]] // 2 + 3)
    assert labels.tolist() == [2, 1, 2]
    np.testing.assert_array_equal(source.fetch(np.array([6]))[0], copies[[2]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": "random"}, "option crop of NAME must be 'none' or 'random_resized', got 'random'"),
        ({"crop": "random_resized", "size": 0}, "option crop of NAME cuts out squares: it needs the option size"),
        (
            {"crop": "random_resized", "size": (224, 224)},
            "cuts out squares: it needs the option size, one number|must be a number of pixels",
        ),
    ],
)
@pytest.mark.parametrize("name", ["image_folder", "imagenet2012"])
def test_options_that_cannot_be_are_refused_before_the_folder_is_looked_for(name, options, message):
    if name == "image_folder" and options.get("size") == 0:
        message = "option size of image_folder must be"
    with pytest.raises(InputError, match=message.replace("NAME", name)):
        data.make(name, dir="nowhere", **{"size": 8, **options})
