"""Canny's detector against the same steps made of scipy's filters, and the growing of edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from robustjax.imaging.canny import canny


def reference(image, sigma, low, high):
    blur = lambda x: ndimage.gaussian_filter(x, sigma, mode="constant")  # noqa: E731
    smooth = blur(image) / blur(np.ones_like(image))
    down, right = ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1)
    strength = np.hypot(down, right)
    candidates = np.zeros(image.shape, bool)
    for y in range(1, image.shape[0] - 1):
        for x in range(1, image.shape[1] - 1):
            larger = max(abs(down[y, x]), abs(right[y, x]))
            if strength[y, x] < low or larger == 0:
                continue
            # One pixel along the larger component is a point between two of the eight neighbours.
            step_y, step_x = down[y, x] / larger, right[y, x] / larger
            ahead, behind = (
                ndimage.map_coordinates(strength[y - 1 : y + 2, x - 1 : x + 2], [[1 + sign * step_y], [1 + sign * step_x]], order=1)[0]
                for sign in (1, -1)
            )
            candidates[y, x] = max(ahead, behind) <= strength[y, x]
    labels, _ = ndimage.label(candidates, np.ones((3, 3)))
    return candidates & np.isin(labels, np.unique(labels[candidates & (strength >= high)]))


@pytest.mark.parametrize("settings", [{}, {"sigma": 2, "low": 0.05, "high": 0.3}])
def test_equals_the_same_steps_by_scipy(settings):
    # Kills: zeros for a Gaussian that stops at the border; rows for columns; corners of the wrong diagonal; one neighbour that is
    # never asked; one threshold for both; 4 neighbours for 8; growing that stops early or at every 32nd column; channels mixed.
    rng = np.random.RandomState(0)
    images = np.stack([ndimage.gaussian_filter(rng.rand(21, 70, 2), (s, s, 0)) for s in (0.5, 1, 2)])
    images = (images - images.min()) / np.ptp(images)
    with jax.enable_x64(True):
        got = np.asarray(canny(jnp.asarray(images), **settings))
    arguments = {"sigma": 1, "low": 0.1, "high": 0.2, **settings}
    expected = np.stack([np.stack([reference(image[..., c], **arguments) for c in range(2)], -1) for image in images])
    np.testing.assert_array_equal(got, expected)
    assert 0.02 < got.mean() < 0.4


def test_a_weak_end_of_a_long_edge_is_kept_and_a_weak_edge_alone_is_not():
    # Kills: growing by a fixed number of steps; candidates taken as edges.
    step = np.linspace(0.02, 0.2, 64)  # of an edge along row 20 that grows from left to right
    image = jnp.asarray(np.where(np.arange(64)[:, None] < 20, 0, step)[None, ..., None], jnp.float32)
    rows = np.asarray(canny(image, low=0.1, high=0.35))[0, 18:22].any(0)[1:-1, 0]
    weak = np.asarray(canny(image / 2, low=0.1, high=0.4))
    assert rows[-1] and rows.sum() > 45 and not rows[0] and np.all(np.diff(rows.astype(int)) >= 0)
    assert not weak.any()
