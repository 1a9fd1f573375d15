"""Input curvature. Each test names the mutants it kills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import metrics
from robustjax.core import InputError, example_keys

SIDE = 3
PIXELS = SIDE * SIDE


def quadratic(hessians, images, labels):
    """1/2 x^T H_y x: finite differences of its gradient are exact, and each label has its own eigenvalues."""
    x = images.reshape(len(images), -1)
    return 0.5 * jnp.einsum("bi,bij,bj->b", x, hessians[labels], x, precision="highest")


def sine(images, labels):
    """A loss whose third derivative is not zero, so that t shows; by example."""
    return jnp.sum(jnp.sin(3 * images), axis=(1, 2, 3)) * (1 + labels.astype(images.dtype))


def setting(b=6, classes=3):
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(classes, PIXELS, PIXELS))
    hessians = (raw + np.swapaxes(raw, 1, 2)).astype(np.float32)
    images = rng.uniform(size=(b, SIDE, SIDE, 1)).astype(np.float32)
    return hessians, jax.tree_util.Partial(quadratic, jnp.asarray(hessians)), images, rng.integers(0, classes, b).astype(np.int32)


def keys(n, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(n))


@pytest.mark.parametrize("t", [1e-2, 0.5, None])
@pytest.mark.parametrize("std", [1.0, 0.2])
def test_quadratic_along_a_direction(t, std):
    # Kills: labels not passed, unit directions, a missing square of t, std to another power, d^T H d in place of ||H d||^2.
    hessians, loss_fn, images, labels = setting()
    d = np.random.default_rng(1).normal(size=images.shape).astype(np.float32)
    expected = np.einsum("bij,bj->bi", hessians[labels], d.reshape(len(d), -1))
    mine = metrics.directional_curvature(loss_fn, images, labels, d, t=t, std=std)
    np.testing.assert_allclose(mine, std**4 * (expected**2).sum(1), rtol=2e-3 if t == 1e-2 else 1e-4)  # rounding / t


def test_std_is_the_loss_of_normalised_images():
    # Kills: std applied to the direction or to the gradient only, or not to the step.
    _, _, images, labels = setting()
    d = np.random.default_rng(1).normal(size=images.shape).astype(np.float32)
    mine = metrics.directional_curvature(sine, images, labels, d, t=0.1, std=0.25)
    normalised = jax.tree_util.Partial(lambda z, y: sine(0.25 * z, y))
    z = images / 0.25
    gradient = jax.grad(lambda z: normalised(z, labels).sum())
    expected = jnp.sum((gradient(z + np.float32(0.1) * d) - gradient(z)) ** 2, axis=(1, 2, 3)) / 0.01
    np.testing.assert_allclose(mine, expected, rtol=1e-3)


def test_mean_over_directions_is_the_sum_of_squared_eigenvalues():
    # Kills: unit directions, one direction a batch, the same one in each draw, a sum for the mean.
    hessians, loss_fn, images, labels = setting(64)
    eigenvalues = np.linalg.eigvalsh(hessians[labels])
    truth, variance = (eigenvalues**2).sum(1), 2 * (eigenvalues**4).sum(1)
    mine = np.asarray(metrics.input_curvature(keys(64), loss_fn, images, labels, t=None), np.float64)
    score = (mine - truth) / np.sqrt(variance / 20)
    assert abs(score.mean()) < 4 / np.sqrt(64)
    assert 0.6 < score.std() < 1.5  # 20 independent draws for each of 64 examples
    close = metrics.input_curvature(keys(64), loss_fn, images, labels)
    np.testing.assert_allclose(close, mine, rtol=2e-3)  # same keys, same directions; t hardly matters to a quadratic


def test_draws_belong_to_the_example():
    # Kills: draws by place, by batch or by the number of draws; a traced loop that differs from the driven one; a step in the graph.
    _, loss_fn, images, labels = setting(40)
    call = lambda keys, x, y, t: metrics.input_curvature(keys, loss_fn, x, y, t=t, draws=3)  # noqa: E731
    mine = np.asarray(call(keys(40), images, labels, 0.1))
    np.testing.assert_allclose(jax.jit(call)(keys(40), images, labels, 0.1), mine, rtol=1e-4)
    order = np.array([3, 0, 39])
    some = call(example_keys(jax.random.key(0), order), images[order], labels[order], 0.1)
    np.testing.assert_allclose(some, mine[order], rtol=1e-4)
    one = [np.asarray(metrics.input_curvature(keys(40), loss_fn, images, labels, t=0.1, draws=n)) * n for n in (1, 2)]
    assert (one[0] < one[1]).all() and (one[1] < 3 * mine).all()


def test_nothing_is_compiled_again_for_another_step_or_new_weights():
    # Kills: a static t or std, weights baked into the program.
    traces = []

    def counted(hessians, images, labels):
        traces.append(1)
        return quadratic(hessians, images, labels)

    hessians, _, images, labels = setting()
    counts = []
    for scale, t, std in ((1, 1e-2, 1), (2, np.float32(0.1), 0.5), (3, 1, 0.2)):
        loss_fn = jax.tree_util.Partial(counted, jnp.asarray(scale * hessians))
        metrics.input_curvature(keys(6), loss_fn, images, labels, t=t, std=std, draws=2)
        counts.append(len(traces))
    assert counts[0] == counts[1] == counts[2]


BAD = {
    "t": (dict(t=0), "t must be one finite number > 0, got 0; None computes second derivatives"),
    "std": (dict(std=-1.0), "std must be one finite number > 0"),
    "draws": (dict(draws=0), "draws is the number of random directions an example, an integer >= 1, got 0"),
    "keys": (dict(keys=jax.random.key(0)), "keys must be one key an example"),
    "labels": (dict(labels=np.zeros(5, np.int32)), "labels must have one row for each of 6 images"),
    "mean loss": (dict(loss_fn=lambda x, y: jnp.mean(x)), "loss_fn must return one float for each of 6 images"),
    "images": (dict(images=np.full((6, SIDE, SIDE, 1), 255.0, np.float32)), "divide by 255"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_inputs_are_refused_in_one_line(case):
    # Kills: each check dropped.
    changes, message = BAD[case]
    _, loss_fn, images, labels = setting()
    with pytest.raises(InputError) as error:
        metrics.input_curvature(**(dict(keys=keys(6), loss_fn=loss_fn, images=images, labels=labels) | changes))
    assert message in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputError, match="direction must have the shape of the images"):
        metrics.directional_curvature(loss_fn, images, labels, images[:1])
