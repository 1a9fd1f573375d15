"""8-bit edges and distances against plain loops and closed forms; the corruption goldens compare them with OpenCV itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from robustjax.imaging import edges


def pictures(smooth=1.2, shape=(6, 19, 26), contrast=120):
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(3).normal(size=shape), (0, smooth, smooth))
    return np.clip(128 + contrast * noise / noise.std(), 0, 255).astype(np.int32)


def canny_by_loops(picture, low, high):
    h, w = picture.shape
    padded = np.pad(picture.astype(int), 1, mode="edge")
    dx = scipy.ndimage.sobel(padded, axis=1, mode="nearest")[1:-1, 1:-1]
    dy = scipy.ndimage.sobel(padded, axis=0, mode="nearest")[1:-1, 1:-1]
    size = np.pad(abs(dx) + abs(dy), 1)  # nothing beyond the border
    thin = np.zeros((h, w), bool)
    for i, j in np.ndindex(h, w):
        angle = np.degrees(np.arctan2(abs(dy[i, j]), abs(dx[i, j])))
        m = size[i + 1, j + 1]
        if angle < 22.5:
            peak = m > size[i + 1, j] and m >= size[i + 1, j + 2]
        elif angle > 67.5:
            peak = m > size[i, j + 1] and m >= size[i + 2, j + 1]
        else:
            s = -1 if dx[i, j] * dy[i, j] < 0 else 1
            peak = m > size[i, j + 1 - s] and m > size[i + 2, j + 1 + s]
        thin[i, j] = peak and m > low
    regions, _ = scipy.ndimage.label(thin, np.ones((3, 3)))
    strong = np.unique(regions[thin & (size[1:-1, 1:-1] > high)])
    return thin & np.isin(regions, strong)


@pytest.mark.parametrize(("low", "high"), [(50, 150), (100, 400)])
def test_canny(low, high):
    # Kills: thresholds that include equality or are swapped; sectors or diagonals swapped; ties kept or lost on the wrong side;
    # hysteresis that stops early, leaks into pixels that are not thin or only runs along rows; a border of zeros or mirrors.
    images = pictures()
    got = np.asarray(jax.jit(lambda x: edges.canny_opencv(x, low=low, high=high))(jnp.asarray(images)))
    expected = np.stack([canny_by_loops(image, low, high) for image in images])
    assert 0.05 < expected.mean() < 0.4
    np.testing.assert_array_equal(got, expected)


def test_canny_follows_a_long_weak_edge():
    # Kills: hysteresis with a fixed number of rounds; a batch that stops with its first picture.
    step = np.zeros((2, 60, 20), np.int32)
    step[:, :, 10:] = 20  # magnitude 80
    step[0, :3, 10:] = 255
    got = np.asarray(edges.canny_opencv(jnp.asarray(step), low=50, high=150))
    assert got[0, 10:].any(axis=1).all() and not got[1].any()
    for low, high in ((80, 150), (50, 80)):  # to be at a threshold is not to be above it
        got = np.asarray(edges.canny_opencv(jnp.asarray(step), low=low, high=high))
        assert got[0, 10:].any() == (low < 80) and not got[1].any()


def chamfer(dy, dx):
    """Returns the length of the shortest way of steps of 1, 1.4 (diagonal) and 2.1969 (knight's), in fixed point."""
    long, short = np.maximum(dy, dx), np.minimum(dy, dx)
    flat, steep = short * 143976 + (long - 2 * short) * 65536, (long - short) * 143976 + (2 * short - long) * 91750
    return np.where(long >= 2 * short, flat, steep)


@pytest.mark.parametrize("limit", [1, 2, 20, 33])
def test_distance_is_the_chamfer_distance(limit):
    # Kills: a wrong cost; a missing move; too few steps of one kind; ways that wrap around the border; no limit.
    rng = np.random.default_rng(0)
    marked = rng.random((4, 40, 50)) < np.array([0.1, 0.01, 0.001, 0]).reshape(4, 1, 1)
    marked[2, 39, 49] = True
    got = np.asarray(edges.distance(jnp.asarray(marked), limit=limit))
    rows, columns = np.indices(marked.shape[1:])
    for picture, distance in zip(marked, got, strict=True):
        expected = np.full(picture.shape, limit * 65536)
        for y, x in np.argwhere(picture):
            expected = np.minimum(expected, chamfer(abs(rows - y), abs(columns - x)))
        np.testing.assert_array_equal(distance, expected)


def test_small_filters_are_scipys():
    # Kills: an edge that is repeated; a flipped kernel; sums that wrap at 256 or are not cut.
    images = pictures()
    kernel = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    sums = np.stack([scipy.ndimage.correlate(image, np.ones((3, 3), int), mode="mirror") for image in images])
    np.testing.assert_array_equal(edges.box_sum(jnp.asarray(images)), sums)
    filtered = np.stack([scipy.ndimage.correlate(image, kernel, mode="mirror") for image in images])
    assert filtered.min() < 0 and filtered.max() > 255
    np.testing.assert_array_equal(edges.filter_levels(jnp.asarray(images), kernel), np.clip(filtered, 0, 255))


def test_equalize():
    # Kills: the smallest level counted; truncation for rounding; a count that misses the padding or includes it; one level alone
    # that divides by 0 or becomes 0; statistics over the batch.
    images = pictures(contrast=30)
    images[1] = 77
    images[2] = np.arange(images[2].size).reshape(images[2].shape) % 2 * 9 + 5
    got = np.asarray(edges.equalize(jnp.asarray(images), levels=256))
    for image, spread in zip(images, got, strict=True):
        first = (image == image.min()).sum()
        if first == image.size:
            np.testing.assert_array_equal(spread, image)
            continue
        below = np.array([(image <= level).sum() - first for level in range(256)])
        table = np.rint(below.astype(np.float32) * (np.float32(255) / np.float32(image.size - first)))
        np.testing.assert_array_equal(spread, table[image])
