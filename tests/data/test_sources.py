"""The sets that need no folder, sources in memory, and names."""

import subprocess
import sys

import numpy as np
import pytest

from robustjax import data
from robustjax.core import InputError


def test_digits_are_the_same_for_everyone():
    # Kills: another split, another resize, values scaled by 16 in place of 255 / 16, splits swapped or overlapping.
    digits = data.make("digits")
    assert (len(digits.train), len(digits.test), digits.image_shape, digits.num_classes) == (1437, 360, (16, 16, 1), 10)
    assert digits.provenance == "scikit-learn digits, 8x8 bicubic to 16x16" and digits.class_names[3] == "3"
    np.testing.assert_array_equal(np.bincount(digits.test.labels), [36, 37, 35, 37, 36, 36, 36, 36, 35, 36])
    # Of pixels only what every version of Pillow's bicubic gives: full range, and the mean.
    assert digits.train.images.max() == 255 and digits.train.images.min() == 0
    np.testing.assert_allclose([digits.train.images.mean(), digits.test.images.mean()], [79.10, 78.44], atol=0.02)


def test_digits_at_their_own_size_are_untouched():
    # Kills: resizing that shifts or filters at size 8, a lost or repeated example, a split that is not by class.
    from sklearn.datasets import load_digits

    raw = load_digits()
    small = data.make("digits", size=8)
    assert small.provenance == "scikit-learn digits, 8x8"
    ours = np.concatenate([small.train.images, small.test.images])[..., 0]
    labels = np.concatenate([small.train.labels, small.test.labels])
    rows = np.concatenate([np.round(ours * (16 / 255)).reshape(-1, 64), labels[:, None]], axis=1)
    theirs = np.concatenate([raw.images.reshape(-1, 64), raw.target[:, None]], axis=1)
    np.testing.assert_array_equal(np.sort(rows.view([("", float)] * 65).ravel()), np.sort(theirs.view([("", float)] * 65).ravel()))
    shares = np.bincount(raw.target) * (360 / 1797)
    assert np.all(np.abs(np.bincount(small.test.labels) - shares) < 1)


def test_a_package_without_the_digits_is_named(monkeypatch):
    # Kills: a traceback of NumPy where scikit-learn keeps its file elsewhere.
    monkeypatch.setattr("robustjax.data.digits._FILE", "sklearn/nowhere.csv")
    with pytest.raises(InputError, match=r"scikit-learn \d.* has no file sklearn/nowhere.csv; pip install"):
        data.make("digits")


def test_fake_is_learnable_seeded_and_split():
    # Kills: patterns that differ between train and test, noise that is the same in both, an ignored seed, option or channel.
    fake = data.make("fake", num_classes=4, size=10, channels=1, train=40, test=24)
    assert (fake.train.images.shape, fake.test.images.shape, fake.num_classes) == ((40, 10, 10, 1), (24, 10, 10, 1), 4)
    means = np.stack([fake.train.images[fake.train.labels == k].mean(0) for k in range(4)])
    distance = ((fake.test.images[:, None].astype(float) - means) ** 2).sum((2, 3, 4))
    np.testing.assert_array_equal(distance.argmin(1), fake.test.labels)
    assert not np.array_equal(fake.train.images[:24], fake.test.images)
    assert not np.array_equal(fake.train.images, data.make("fake", num_classes=4, size=10, channels=1, train=40, seed=1).train.images)
    np.testing.assert_array_equal(data.make("fake", train=2).train.images[0, 0, 0], [134, 176, 200])  # pins the bytes


def test_array_source_fetches_by_id():
    # Kills: ids ignored or sorted, labels left in another dtype, negative ids that wrap round.
    source = data.ArraySource(np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1), np.arange(5) * 2)
    images, labels = source.fetch(np.array([3, 0, 3]))
    assert source.resident and images.ravel().tolist() == [3, 0, 3] and labels.tolist() == [6, 0, 6] and labels.dtype == np.int32
    for ids, message in (([-1], "0 to 4, but id -1"), ([5], "0 to 4, but id 5"), ([0.5], "vector of integers")):
        with pytest.raises(InputError, match=message):
            source.fetch(np.array(ids))


PIXELS = np.zeros((2, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.ArraySource(PIXELS / 255, np.zeros(2, int)), "must be uint8"),
        (lambda: data.ArraySource(PIXELS[0], np.zeros(2, int)), r"must be uint8 \(n, h, w, c\), got uint8 \(4, 4, 3\)"),
        (lambda: data.ArraySource(PIXELS, np.zeros(3, int)), "must be 2 integers, one for each image"),
        (lambda: data.ArraySource(PIXELS, np.zeros(2)), "must be 2 integers"),
        (lambda: data.ArraySource(PIXELS, np.array([0, -1])), "example 1 of the split has label -1, which marks an unlabelled split"),
        (lambda: data.ArraySource(PIXELS, np.array([-7, 0])), "example 0 of the split has label -7; labels must be at least 0"),
        (lambda: data.ArraySource(PIXELS[:0], np.zeros(0, int)), "is empty"),
        (lambda: data.make("digit"), "did you mean 'digits'.*'tfds:digit'"),
        (lambda: data.make("fashion_mnist"), "Any other set that TFDS has prepared: 'tfds:fashion_mnist'"),
        (lambda: data.make("digits", sise=8), "unknown option of the data set 'digits': 'sise'; did you mean 'size'"),
        (lambda: data.make("digits", size=7), "at least 8 pixels.*got 7"),
        (lambda: data.make("fake", train=0), "option train .* at least 1, got 0"),
        (lambda: data.make("fake", channels=2), "channels .* must be 1 or 3, got 2"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    # Kills: a check dropped, a message that does not name what was wrong.
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_importing_and_digits_load_nothing_heavy():
    # Kills: tfds, grain, sklearn or Pillow imported at the top; TensorFlow imported by anything. A process of its own, as pytest has
    # loaded much already.
    code = (
        "import sys; from robustjax import data\n"
        "heavy = {'tensorflow_datasets', 'grain', 'sklearn', 'PIL', 'rich'} & set(sys.modules); assert not heavy, heavy\n"
        "data.make('digits', dir='/nowhere'); assert 'tensorflow' not in sys.modules and 'tensorflow_datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
