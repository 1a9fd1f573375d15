"""Boundary thickness. Each test names the mutants it kills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import metrics
from robustjax.core import InputError, example_keys

SHAPE = (2, 2, 1)


def linear(weight, images):
    """Two classes whose gap is tanh(weight . (x - 1/2) / 2): the closed form of the segment's gap."""
    z = jnp.sum((images - 0.5) * weight[None], axis=(1, 2, 3))
    return jnp.stack([z, jnp.zeros_like(z)], axis=1)


def model(seed=0, scale=6.0):
    return jax.tree_util.Partial(linear, scale * jnp.asarray(np.random.default_rng(seed).normal(size=SHAPE), jnp.float32))


def pairs(n=6, seed=1):
    x = np.random.default_rng(seed).uniform(size=(2, n, *SHAPE)).astype(np.float32)
    return x[0], x[1]


ZERO, ONE = np.zeros(6, np.int32), np.ones(6, np.int32)


def closed_form(logits_fn, x_i, x_j, alpha, beta):
    """Length of the part of the segment on which 2 atanh(alpha) < z < 2 atanh(beta), z being linear along it."""
    with np.errstate(divide="ignore"):
        low, high = 2 * np.arctanh([alpha, beta])
    z0, z1 = (np.asarray(logits_fn(x), np.float64)[:, 0] for x in (x_i, x_j))
    t = np.sort([(low - z0) / (z1 - z0), (high - z0) / (z1 - z0)], axis=0).clip(0, 1)
    return (t[1] - t[0]) * np.linalg.norm((x_i - x_j).astype(np.float64).reshape(len(x_i), -1), axis=1)


@pytest.mark.parametrize(("alpha", "beta"), [(0, 0.75), (0, 1), (-0.3, 0.1), (-1, 1)])
def test_linear_model_has_its_closed_form(alpha, beta):
    # Kills: logits for probabilities, the gap's sign, alpha or beta ignored, another norm, a distance that is not divided by std.
    x_i, x_j = pairs()
    expected = closed_form(model(), x_i, x_j, alpha, beta)
    assert (alpha, beta) == (-1, 1) or (expected > 0.01).sum() > 1
    mine = metrics.boundary_thickness(model(), x_i, x_j, ZERO, ONE, alpha=alpha, beta=beta, points=2001, std=0.2)
    np.testing.assert_allclose(0.2 * mine, expected, atol=2 * np.sqrt(4) / 2000)
    swapped = metrics.boundary_thickness(model(), x_i, x_j, ONE, ZERO, alpha=-beta, beta=-alpha, points=2001, std=0.2)
    np.testing.assert_allclose(swapped, mine, atol=5 * 2 * np.sqrt(4) / 2000)


def test_points_ends_and_strict_bounds():
    # Kills: a trapezoid rule, points without one end, count / (points - 1), bounds that include their value, |gap|.
    logits_fn = jax.tree_util.Partial(linear, jnp.ones((1, 1, 1)))
    white, black = jnp.ones((1, 1, 1, 1)), jnp.zeros((1, 1, 1, 1))

    def thickness(**options):
        return metrics.boundary_thickness(logits_fn, white, black, ZERO[:1], ONE[:1], **options)[0]

    # Gaps at three points: tanh(1/4), exactly 0, -tanh(1/4).
    np.testing.assert_allclose(thickness(alpha=0, beta=1, points=3), 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(thickness(alpha=-1, beta=0, points=3), 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(thickness(alpha=-0.1, beta=0.1, points=3), 1 / 3, rtol=1e-6)
    assert thickness(alpha=-1, beta=1, points=3) == thickness(alpha=-1, beta=1) == 1
    assert thickness(alpha=0.1, beta=1, points=2) == 0.5  # the two ends alone


@pytest.mark.parametrize("points", [5, 30])  # neither fills its pieces
def test_a_pair_does_not_depend_on_the_others_or_on_the_driver(points):
    # Kills: rows and points mixed up by a repeat, padding counted, traced and host-driven passes that differ, classes of another row.
    x_i, x_j = pairs(40)
    class_i = np.arange(40, dtype=np.int32) % 2
    call = lambda *a: metrics.segment_gaps(model(), *a, points=points)  # noqa: E731
    gaps = np.asarray(call(x_i, x_j, class_i, 1 - class_i))
    assert gaps.shape == (40, points)
    z = np.stack([np.asarray(model()((1 - t) * x_i + t * x_j))[:, 0] for t in np.linspace(0, 1, points, dtype=np.float32)], axis=1)
    np.testing.assert_allclose(gaps, np.where(class_i[:, None] == 0, 1, -1) * np.tanh(z / 2), atol=1e-6)
    np.testing.assert_allclose(jax.jit(call)(x_i, x_j, class_i, 1 - class_i), gaps, atol=1e-6)
    order = np.arange(40)[::-3]
    np.testing.assert_allclose(call(x_i[order], x_j[order], class_i[order], 1 - class_i[order]), gaps[order], atol=1e-6)


def test_nothing_is_compiled_again_for_new_weights_or_bounds():
    # Kills: static alpha, beta or std; weights baked into the program.
    traces = []

    def counted(weight, images):
        traces.append(images.shape)
        return linear(weight, images)

    x_i, x_j = pairs()
    counts = []
    for seed, alpha, beta, std in ((0, 0, 0.75, 1.0), (0, np.float32(0.1), 1, 0.2), (1, -0.5, 0.5, 0.2)):
        logits_fn = jax.tree_util.Partial(counted, model(seed).args[0])
        mine = metrics.boundary_thickness(logits_fn, x_i, x_j, ZERO, ONE, alpha=alpha, beta=beta, std=std)
        counts.append(len(traces))
        np.testing.assert_allclose(mine * std, closed_form(model(seed), x_i, x_j, float(alpha), float(beta)), atol=2 * 2 / 127)
    assert counts[0] == counts[1] == counts[2]


def test_objects_that_change_are_not_out_of_date():
    # Kills: a program found again by the identity of an object whose weights have changed since.
    class Model:
        scale = 1.0

        def __call__(self, images):
            return linear(jnp.full(SHAPE, self.scale), images)

    network, (x_i, x_j) = Model(), pairs(1)
    before = metrics.segment_gaps(lambda x: network(x), x_i, x_j, ZERO[:1], ONE[:1], points=2)
    network.scale = 2.0
    after = metrics.segment_gaps(lambda x: network(x), x_i, x_j, ZERO[:1], ONE[:1], points=2)
    np.testing.assert_allclose(np.arctanh(after), 2 * np.arctanh(before), rtol=1e-4)


def test_a_broken_network_has_no_thickness():
    # Kills: NaN compared, which would pass for a thickness of 0; NaN that spreads to other rows.
    x_i, x_j = pairs(2)
    x_i[1] = 0.5
    with jax.debug_nans(False):
        broken = lambda x: linear(jnp.ones(SHAPE), jnp.where(x == 0.5, jnp.nan, x))  # noqa: E731
        found = metrics.boundary_thickness(broken, x_i, x_j, ZERO[:2], ONE[:2], alpha=-1, beta=1)
        assert np.isfinite(found[0]) and np.isnan(found[1])
        # A class out of range that only shows at run time.
        late = jax.jit(lambda c: metrics.boundary_thickness(model(), x_i, x_j, c, ONE[:2], alpha=-1, beta=1))
        assert np.isnan(late(jnp.array([0, -1]))).tolist() == [False, True] and np.isnan(late(jnp.array([2, 0]))).tolist() == [True, False]


def test_other_classes_are_uniform_and_belong_to_their_keys():
    # Kills: the class itself drawn, one class never drawn, draws shared by a batch, draws by place.
    n, k = 4000, 5
    classes = np.arange(n, dtype=np.int32) % k
    keys = lambda ids: example_keys(jax.random.key(0), ids)  # noqa: E731
    drawn = np.asarray(metrics.other_classes(keys(np.arange(n)), classes, num_classes=k))
    assert drawn.dtype == np.int32
    counts = np.bincount(classes * k + drawn, minlength=k * k).reshape(k, k)
    assert (np.diag(counts) == 0).all()
    # Each of the 20 others with p = 1/4 of 800: five standard deviations.
    assert abs(counts[~np.eye(k, dtype=bool)] - 200).max() < 5 * np.sqrt(800 * 3 / 16)
    some = np.array([7, 3, 100])
    np.testing.assert_array_equal(metrics.other_classes(keys(some), classes[some], num_classes=k), drawn[some])


BAD = {
    "alpha": (dict(alpha=0.75, beta=0.75), "-1 <= alpha < beta <= 1"),
    "beta": (dict(beta=75), "-1 <= alpha < beta <= 1"),
    "nan": (dict(alpha=float("nan")), "-1 <= alpha < beta <= 1"),
    "points": (dict(points=1), "integer >= 2, got 1"),
    "std": (dict(std=0), "std divides distances and must be finite and > 0"),
    "shapes": (dict(x_j=np.zeros((6, 3, 2, 1), np.float32)), "x_i and x_j must have one shape"),
    "range": (dict(x_j=np.full((6, *SHAPE), 2, np.float32)), "x_j must lie in [0, 1]"),
    "class": (dict(class_j=np.full(6, 2)), "class_j must lie in [0, 1], got 2"),
    "classes": (dict(class_i=np.zeros(5, np.int32)), "class_i must have shape (6,)"),
    "model": (dict(logits_fn=lambda x: x[:, 0, 0, 0]), "logits_fn must return logits (b, k)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_inputs_are_refused_in_one_line(case):
    # Kills: each check dropped.
    changes, message = BAD[case]
    x_i, x_j = pairs()
    given = dict(logits_fn=model(), x_i=x_i, x_j=x_j, class_i=ZERO, class_j=ONE, alpha=0, beta=0.75) | changes
    with pytest.raises(InputError) as error:
        metrics.boundary_thickness(**given)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_bad_gaps_and_draws_are_refused():
    # Kills: gaps that broadcast; a draw of the only class.
    x_i, x_j = pairs()
    with pytest.raises(InputError, match=r"gaps must be floats of shape \(6, points\)"):
        metrics.thickness_of_gaps(np.zeros((1, 128), np.float32), x_i, x_j, alpha=0, beta=1)
    with pytest.raises(InputError, match="num_classes must be an integer >= 2"):
        metrics.other_classes(example_keys(jax.random.key(0), np.arange(6)), ZERO, num_classes=1)
    with pytest.raises(InputError, match="one for each example"):
        metrics.other_classes(example_keys(jax.random.key(0), np.arange(5)), ZERO, num_classes=3)
