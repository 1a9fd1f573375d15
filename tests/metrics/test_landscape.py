"""Grids of the loss. Each test names the mutants it kills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from robustjax import metrics
from robustjax.core import InputError, example_keys

SHAPE = (2, 3, 1)
SIZES = {"gradient_sizes": np.array([-0.1, 0, 0.2, 0.4]), "random_sizes": np.array([0, 0.3, 0.9])}


def keys(n, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(n))


def linear(weights, images, labels):
    """w_y . x: the surface is a plane with the slopes |w_y|_1 and w_y . r."""
    return jnp.sum(weights[labels] * images, axis=(1, 2, 3))


def setting(b=5):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, *SHAPE)).astype(np.float32)
    images = rng.uniform(0.2, 0.8, size=(b, *SHAPE)).astype(np.float32)
    return weights, jax.tree_util.Partial(linear, jnp.asarray(weights)), images, rng.integers(0, 3, b).astype(np.int32)


def test_linear_loss_gives_planes():
    # Kills: the gradient for its sign, descent, axes swapped, another label's gradient, clipped images, sizes in other units,
    # random directions that are not signs.
    weights, loss_fn, images, labels = setting()
    grid = np.asarray(metrics.input_landscape(keys(5), loss_fn, images, labels, **SIZES))
    assert grid.shape == (5, 4, 3)
    w = weights[labels].reshape(5, -1)
    base = (w * images.reshape(5, -1)).sum(1)
    first = grid[:, :, :1] - base[:, None, None]
    np.testing.assert_allclose(first[:, :, 0], abs(w).sum(1)[:, None] * SIZES["gradient_sizes"], atol=1e-5)
    second = grid[:, 1] - base[:, None]
    slope = second[:, 2:] / 0.9
    np.testing.assert_allclose(second, slope * SIZES["random_sizes"], atol=1e-5)
    np.testing.assert_allclose(grid, base[:, None, None] + first + second[:, None], atol=1e-5)
    signs = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1)
    assert (abs(w @ signs - slope).min(1) < 1e-5).all()  # w . r for some r of signs


def test_random_signs_are_fair_and_belong_to_the_example():
    # Kills: signs of one kind, one direction a batch, draws by place.
    pick = lambda x, y: x.reshape(len(x), -1)[:, 4]  # noqa: E731
    n, sizes = 600, dict(gradient_sizes=np.zeros(1), random_sizes=np.ones(1))
    half = jnp.full((n, *SHAPE), 0.5)
    labels = jnp.zeros(n, jnp.int32)
    call = lambda keys, x, y: metrics.input_landscape(keys, pick, x, y, **sizes)  # noqa: E731
    signs = np.asarray(call(keys(n), half, labels)).ravel() - 0.5
    assert set(signs) == {-1, 1} and abs(signs.mean()) < 5 / np.sqrt(n)
    some = np.array([5, 2, 599])
    again = call(example_keys(jax.random.key(0), some), half[:3], labels[:3])
    np.testing.assert_array_equal(np.ravel(again) - 0.5, signs[some])


def test_clipping_is_an_option():
    # Kills: an option without effect, directions clipped in place of images.
    _, _, images, labels = setting()
    total = lambda x, y: jnp.sum(x, axis=(1, 2, 3))  # noqa: E731
    sizes = dict(gradient_sizes=np.array([0.0, 1.0]), random_sizes=np.zeros(1))
    free, boxed = (np.asarray(metrics.input_landscape(keys(5), total, images, labels, clip=c, **sizes)) for c in (False, True))
    np.testing.assert_allclose(boxed[:, 1, 0], 6, rtol=1e-6)
    np.testing.assert_allclose(free[:, 1, 0], images.sum((1, 2, 3)) + 6, rtol=1e-6)
    np.testing.assert_array_equal(free[:, 0], boxed[:, 0])


def squares(scale, params):
    return scale * jnp.sum(ravel_pytree(params)[0] ** 2)


@pytest.mark.parametrize("scaling", ["tree", "filter"])
def test_plane_of_weights(scaling):
    # Kills: axes swapped, one direction for both, directions of another length, a plane through zero rather than params.
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda s: jnp.asarray(rng.normal(size=s), jnp.float32), {"w": (4, 5), "b": (5,)}, is_leaf=lambda s: isinstance(s, tuple)
    )
    first, second = np.array([-1.0, 0, 0.5]), np.array([0.0, 2.0])
    traces = []

    def loss(scale, params):
        traces.append(1)
        return squares(scale, params)

    call = lambda scale, a: metrics.weight_landscape(  # noqa: E731
        keys(2), jax.tree_util.Partial(loss, jnp.float32(scale)), params, first_sizes=a, second_sizes=second, scaling=scaling
    )
    grid = np.asarray(call(1.0, first))
    d = [metrics.gaussian_direction(example_keys(jax.random.key(0), np.array([j]))[0], params) for j in (0, 1)]
    if scaling == "filter":
        d = [metrics.filter_normalize(x, params) for x in d]
    w, *d = (np.asarray(ravel_pytree(x)[0], np.float64) for x in (params, *d))
    if scaling == "tree":
        d = [x / np.linalg.norm(x) for x in d]
    expected = [[((w + p * d[0] + q * d[1]) ** 2).sum() for q in second] for p in first]
    np.testing.assert_allclose(grid, expected, rtol=1e-5)
    before = len(traces)
    np.testing.assert_allclose(call(2.0, 2 * first)[1], 2 * grid[1], rtol=1e-5)
    assert len(traces) == before  # neither sizes nor data are in the program


BAD = {
    "sizes": (dict(random_sizes=np.zeros((2, 2))), "random_sizes must be magnitudes of shape (g,)"),
    "none": (dict(gradient_sizes=np.zeros(0)), "gradient_sizes must be magnitudes of shape (g,), at least one"),
    "nan": (dict(random_sizes=np.array([0, np.nan])), "random_sizes must be finite"),
    "keys": (dict(keys=keys(4)), "keys must have shape (5,)"),
    "labels": (dict(labels=np.zeros(4, np.int32)), "labels must have one row for each of 5 images"),
    "loss": (dict(loss_fn=lambda x, y: x), "loss_fn must return one float for each of 5 images"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_inputs_are_refused_in_one_line(case):
    # Kills: each check dropped.
    changes, message = BAD[case]
    _, loss_fn, images, labels = setting()
    with pytest.raises(InputError) as error:
        metrics.input_landscape(**(dict(keys=keys(5), loss_fn=loss_fn, images=images, labels=labels) | SIZES | changes))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_plane_of_weights_needs_two_keys():
    # Kills: further keys that are not read.
    with pytest.raises(InputError, match=r"keys must have shape \(2,\)"):
        metrics.weight_landscape(keys(3), jnp.sum, jnp.ones(4), first_sizes=np.zeros(1), second_sizes=np.zeros(1))
