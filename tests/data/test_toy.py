"""Points of the plane."""

import numpy as np
import pytest

from robustjax.core.check import InputError
from robustjax.data import toy


def test_arms_are_spirals_and_turned_copies_of_each_other():
    # Kills: arms that are mirrored or meet, labels by halves, angles in degrees, a square that is not centred.
    data = toy.spirals(classes=3, points=50, turns=1.5, radius=0.4)
    assert data.points.shape == (150, 2) and data.points.dtype == np.float32
    np.testing.assert_array_equal(data.labels, np.tile([0, 1, 2], 50))
    arms = [(data.points[data.labels == k].astype(np.float64) - 0.5) @ [1, 1j] for k in range(3)]
    for k in (1, 2):
        np.testing.assert_allclose(arms[k], arms[0] * np.exp(2j * np.pi * k / 3), atol=1e-6)
    radius, angle = np.abs(arms[0]), np.unwrap(np.angle(arms[0]))
    np.testing.assert_allclose([radius[0], radius[-1]], [0.1, 0.4], atol=1e-6)
    np.testing.assert_allclose(np.diff(angle) / np.diff(radius), 2 * np.pi * 1.5 / 0.4, rtol=1e-3)
    steps = np.abs(np.diff(arms[0]))
    assert steps.max() < 1.35 * steps.min()


def test_noise_is_gaussian_seeded_and_inside_of_the_square():
    # Kills: a seed that is ignored, one draw for both coordinates, noise that is uniform or of another size, points outside.
    plain, moved = toy.spirals(points=4000), toy.spirals(points=4000, noise=0.02)
    noise = (moved.points - plain.points) / 0.02
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(np.cov(noise.T), np.eye(2), atol=0.06)
    np.testing.assert_allclose((np.abs(noise) < 1).mean(), 0.683, atol=0.02)
    np.testing.assert_array_equal(moved.points, toy.spirals(points=4000, noise=0.02).points)
    assert not np.array_equal(moved.points, toy.spirals(points=4000, noise=0.02, seed=1).points)
    wild = toy.spirals(noise=1.0).points
    assert wild.min() == 0 and wild.max() == 1
    np.testing.assert_allclose(toy.spirals(points=2, noise=0.1).points[0], [0.47841987, 0.59018749], atol=1e-6)  # pins the words


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1}, "option classes of the spirals must be an integer and at least 2, got 1"),
        ({"points": 1}, "option points .* at least 2, got 1"),
        ({"turns": 0.0}, "option turns .* above 0, got 0.0"),
        ({"radius": 0.6}, "option radius .* at most 0.5, got 0.6"),
        ({"noise": -1.0}, "option noise .* at least 0, got -1.0"),
        ({"noise": float("nan")}, "option noise"),
    ],
)
def test_bad_options_are_one_clear_line(options, message):
    with pytest.raises(InputError, match=message):
        toy.spirals(**options)
