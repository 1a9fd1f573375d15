"""Confidence curves and soft labels at their edges; their values are in tests/goldens/test_smoothing.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import augment
from robustjax.core import InputError


def test_edges_of_the_curve():
    # Kills: 0/0 at width 0; log 0; a curve above 1 before start; a floor that stops the decay; a floor of 1 + rounding that grows.
    size = jnp.array([0.0, 1.0, 2.0, 4.0])
    curve = augment.exponential_confidence
    np.testing.assert_allclose(curve(size, start=1.0, width=0.0, floor=0.5), [1, 1, 0.5, 0.5])
    np.testing.assert_allclose(curve(size, start=0, width=0, floor=0.5)[0], 1)
    np.testing.assert_allclose(curve(size, start=1.0, width=1.0, floor=0.5), [1, 1, 0.5, 0.125], rtol=1e-6)
    np.testing.assert_array_equal(curve(size, start=1.0, width=1.0, floor=1.0), 1)
    np.testing.assert_array_equal(curve(size, start=1.0, width=1.0, floor=jnp.float32(1 + 1e-7)), 1)
    np.testing.assert_array_equal(jax.jit(curve)(size, start=1.0, width=1.0, floor=0.0)[2] >= 0, True)


def test_whole_numbers_are_sizes_and_confidences_too():
    # Kills: start, width and floor cut to integers, under which every label is hard or lost; a product of int and float.
    curve = {"start": 0.5, "width": 2.0, "floor": 0.25}
    whole = np.array([0, 1, 3])
    found = augment.exponential_confidence(whole, **curve)
    np.testing.assert_array_equal(found, augment.exponential_confidence(whole.astype(np.float32), **curve))
    assert found.dtype == jnp.float32 and 0 < found[2] < found[1] < 1
    targets = augment.soft_targets(jnp.array([1, 0]), np.array([0, 1]), num_classes=3)
    np.testing.assert_allclose(targets, [[1, 0, 0], [0.5, 0, 0.5]])


def test_gradients_of_the_curve_are_finite():
    # Kills: exp of a large positive number in the branch not taken; division by width 0.
    def total(size, start, width, floor):
        return augment.exponential_confidence(size, start=start, width=width, floor=floor).sum()

    for width in (0.0, 1e-3, 2.0):
        grads = jax.grad(total, argnums=(0, 1, 2, 3))(jnp.array([0.0, 5.0, 900.0]), 500.0, width, 0.1)
        assert all(bool(jnp.isfinite(g).all()) for g in grads)


def test_labels_and_targets_agree_and_mixtures_mix():
    # Kills: one-hot of the wrong class; soft labels softened by another rule than hard ones.
    confidence = jnp.array([1.0, 0.25, 0.6])
    labels = jnp.array([2, 0, 3])
    hard = augment.soft_targets(confidence, labels, num_classes=4)
    np.testing.assert_allclose(hard[1], [0.25, 0.25, 0.25, 0.25])
    np.testing.assert_allclose(hard[2], [0.4 / 3] * 3 + [0.6], rtol=1e-6)
    one_hot = np.eye(4, dtype=np.float32)[labels]
    np.testing.assert_array_equal(augment.soft_targets(confidence, one_hot, num_classes=4), hard)
    mixed = augment.soft_targets(confidence, 0.3 * one_hot + 0.7 * one_hot[:, ::-1], num_classes=4)
    np.testing.assert_allclose(mixed, 0.3 * hard + 0.7 * augment.soft_targets(confidence, 3 - labels, num_classes=4), atol=1e-6)
    np.testing.assert_allclose(mixed.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: augment.soft_targets(jnp.ones(2), np.array([0, 4]), num_classes=4), r"labels must lie in \[0, 3\], got 4 at position 1"),
        (lambda: augment.soft_targets(jnp.ones(2), np.array([-1, 0]), num_classes=4), "got -1 at position 0"),
        (lambda: augment.soft_targets(jnp.ones(1), np.array([[0.5, 0.2]]), num_classes=2), "targets must be distributions: row 0"),
        (lambda: augment.soft_targets(jnp.ones(3), np.array([0, 1]), num_classes=2), "one number for each label"),
        (lambda: augment.soft_targets(jnp.array([1.5]), np.array([0]), num_classes=2), r"confidence must lie in \[0, 1\]"),
        (lambda: augment.soft_targets(jnp.ones(1), np.array([0]), num_classes=1), "num_classes must be at least 2"),
        (lambda: augment.exponential_confidence(jnp.ones(1), start=0, width=-1, floor=0.5), "width must be >= 0, got -1"),
        (lambda: augment.exponential_confidence(jnp.ones(1), start=0, width=1, floor=0), "floor is the confidence"),
        (lambda: augment.xi_from_ratio(0.5, num_classes=10), "gamma must be >= 1, got 0.5"),
    ],
)
def test_bad_input_gets_one_line(call, message):
    # Kills: each check left out.
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
