"""ESP's Theorem 1: from which imbalance on the larger class wins, by closed form, by quadrature and by drawing."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from robustjax import theory
from robustjax.core import InputError

EPSILON, TAU, XI = 1.0, 0.9, 0.05


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def threshold(x, *, x_2=1.4, **options):
    """The thresholds at places x (b, m), for centres at the origin and at x_2 on the first axis."""
    x = np.asarray(x, np.float64)
    b, m = x.shape
    x = np.resize(x, (max(b, 4), m))  # one program for all that ask for few places
    centre = np.zeros(m)
    centre[0] = x_2
    both = theory.imbalance_threshold(x, np.zeros(m), centre, **{"epsilon": EPSILON, "tau": TAU, "xi": XI, **options})
    return theory.ImbalanceThreshold(*(np.asarray(value)[:b] for value in both))


def confidence(z):
    return np.exp(np.log(0.5 + XI) / TAU * np.maximum(z - EPSILON, 0))


def sizes(rng, n):
    return EPSILON + TAU / 2 * scipy.special.ndtri(rng.uniform(*scipy.special.ndtr([-2, 2]), n))


def directions(rng, n, m):
    v = rng.standard_normal((n, m))
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def in_ball(rng, n, m, radius):
    return radius * rng.uniform(size=(n, 1)) ** (1 / m) * directions(rng, n, m)


@pytest.mark.parametrize("dim", [2, 3072])
def test_clusters_without_extent_in_closed_form(dim):
    # Kills: S_n with another power; the classes swapped; 2 s - 1 left out or s alone; tau for sigma; overflow in 3072 dimensions.
    x = np.zeros((3, dim))
    x[:, 0], x[:, 1] = [0.7, 0.69, 0.705], [0.8, 0.9, 1.0]
    r_1, r_2 = np.linalg.norm(x, axis=1), np.linalg.norm(x - 1.4 * np.eye(1, dim), axis=1)
    law = scipy.stats.norm(EPSILON, TAU / 2)
    expected = np.exp(law.logpdf(r_1) - law.logpdf(r_2) + (dim - 1) * (np.log(r_2) - np.log(r_1)))
    hard, smoothed = threshold(x)
    np.testing.assert_allclose(hard, expected, rtol=1e-10)
    np.testing.assert_allclose(smoothed, expected * (2 * confidence(r_1) - 1) / (2 * confidence(r_2) - 1), rtol=1e-10)


@pytest.mark.parametrize("dim", [2, 3, 10])
@pytest.mark.parametrize("spread", [0.25, 1.3])
def test_clusters_of_some_extent_by_quadrature(dim, spread):
    # Kills: too few nodes, kinks inside of an interval, a share of the sphere that is wrong, a centre of 0 divided by.
    x = np.random.default_rng(dim).uniform(-0.6, 1.0, (4, dim)) / np.sqrt(dim)
    x[0] = 0
    hard, smoothed = threshold(x, spread=spread)

    def integral(r, weight):
        def share(k):
            if r == 0:
                return float(k <= spread)
            half = (dim - 1) / 2
            return scipy.special.betainc(half, half, np.clip((1 - (r * r + k * k - spread**2) / (2 * r * k)) / 2, 0, 1))

        edges = np.unique(np.clip([EPSILON - TAU, EPSILON, EPSILON + TAU, abs(r - spread), r + spread], EPSILON - TAU, EPSILON + TAU))
        f = lambda k: np.exp(-0.5 * ((k - EPSILON) / (TAU / 2)) ** 2) * share(k) * weight(k)  # noqa: E731
        return sum(scipy.integrate.quad(f, a, b, epsabs=1e-14, epsrel=1e-12, limit=200)[0] for a, b in itertools.pairwise(edges))

    for i, place in enumerate(x):
        r = np.linalg.norm(place), np.linalg.norm(place - 1.4 * np.eye(1, dim)[0])
        for value, weight in ((hard[i], lambda k: 1.0), (smoothed[i], lambda k: 2 * confidence(k) - 1)):
            w_1, w_2 = (integral(distance, weight) for distance in r)
            expected = np.inf if w_2 == 0 else w_1 / w_2
            if max(w_1, w_2) == 0:
                assert np.isnan(value)
            else:
                np.testing.assert_allclose(value, expected, rtol=1e-9)


@pytest.mark.parametrize("place", [(0.3, 0.5), (1.1, -0.4)], ids=["near class 1", "near class 2"])
def test_labels_are_even_at_the_threshold(place):
    # Kills: a factor of 2 in either threshold; n and n' swapped; thresholds turned over; the spread of only one cluster. The data set of
    # Eq. 1, perturbed forwards: the average label of what falls near x is 1/2 at M = n' and n, less below, more above.
    rng, n, spread, near = np.random.default_rng(1), 1_000_000, 0.25, 0.08
    size = sizes(rng, 2 * n).reshape(2, n)
    points = (in_ball(rng, 2 * n, 2, spread) + size.reshape(-1, 1) * directions(rng, 2 * n, 2)).reshape(2, n, 2)
    points[1, :, 0] += 1.4
    hit = ((points - np.asarray(place)) ** 2).sum(2) < near**2
    assert hit.sum() > 5_000

    def evenness(M, smooth):
        """Returns the mean of label 2 minus 1/2, weighted by the sizes of the classes, in standard errors."""
        s = confidence(size) if smooth else np.ones_like(size)
        excess = np.concatenate([-(s[0][hit[0]] - 0.5), M * (s[1][hit[1]] - 0.5)])
        return excess.sum() / np.sqrt((excess**2).sum())

    for value, smooth in zip(threshold([place], spread=spread), (False, True), strict=True):
        M = float(value[0])
        assert abs(evenness(M, smooth)) < 4.5
        assert evenness(2 * M, smooth) > 4.5 and evenness(M / 2, smooth) < -4.5


@pytest.mark.parametrize("dim", [2, 3])
def test_densities_by_drawing_backwards(dim):
    # Kills: a share of the sphere for the plane only; a density of sizes without truncation; factors of 2. x - δ must lie in the cluster.
    rng, n, spread = np.random.default_rng(dim), 400_000, 0.7
    x = np.zeros((1, dim))
    x[0, 0], x[0, 1] = 0.5, 0.4
    size = sizes(rng, n)
    back = x - size[:, None] * directions(rng, n, dim)
    inside = [np.linalg.norm(back - centre * np.eye(1, dim), axis=1) < spread for centre in (0, 1.4)]
    for value, weight in zip(threshold(x, spread=spread), (np.ones(n), 2 * confidence(size) - 1), strict=True):
        (a, b), errors = zip(*((f.mean(), f.std() / np.sqrt(n) / f.mean()) for f in (weight * i for i in inside)), strict=True)

        def holds(M, a=a, b=b, errors=errors):
            return abs(M * b / a - 1) < 4.5 * np.hypot(*errors)

        assert holds(float(value[0])) and not holds(2 * float(value[0])) and not holds(float(value[0]) / 2)


@pytest.mark.parametrize("spread", [0.0, 0.25])
def test_theorem_1_on_the_side_of_the_smaller_class(spread):
    # Kills: hard and smoothed swapped; s of the other class; "for any x", which is false: nearer to the larger class it is the other way.
    x = np.random.default_rng(0).uniform((-0.6, -1.4), (2, 1.4), (20_000, 2))
    with jax.debug_nans(False):
        hard, smoothed = threshold(x, spread=spread)
    known = np.isfinite(hard) & np.isfinite(smoothed) & (hard > 0)
    nearer_1 = x[:, 0] < 0.7

    def holds(hard, smoothed):
        return (smoothed >= hard * (1 - 1e-9))[known & nearer_1].all() and (smoothed <= hard * (1 + 1e-9))[known & ~nearer_1].all()

    assert known.sum() > 10_000 and holds(hard, smoothed)
    assert not holds(hard, 2 * smoothed) and not holds(hard, smoothed / 2) and not holds(smoothed, hard)
    # As printed, for any x:
    assert (smoothed < 0.9 * hard)[known].any()
    # In the middle the classes are alike, and labels that stay hard (ξ = 1/2) change nothing.
    np.testing.assert_allclose(threshold([[0.7, 0.6]], spread=spread), 1, rtol=1e-9)
    hard, same = threshold([[0.2, 0.6]], spread=spread, xi=0.5)
    np.testing.assert_allclose(hard, same, rtol=1e-12)


def threshold_of(x, **options):
    return theory.imbalance_threshold(x, jnp.zeros(2), jnp.array([1.4, 0.0]), epsilon=EPSILON, tau=TAU, xi=XI, **options)


def test_small_clusters_are_like_points_and_narrow_laws_are_seen():
    # Kills: a jump between the two ways to compute; nodes too far apart for a small sigma.
    x = [[0.3, 0.5], [0.9, 0.8]]
    for a, b in zip(threshold(x), threshold(x, spread=1e-3), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)
    # A law that is all at ε: the share of that circle which lies in the cluster.
    r = [np.linalg.norm(np.asarray(x) - centre, axis=1) for centre in ((0, 0), (1.4, 0))]
    arc_1, arc_2 = (np.arccos((distance**2 + EPSILON**2 - 0.5**2) / (2 * distance * EPSILON)) for distance in r)
    np.testing.assert_allclose(threshold(x, sigma=1e-4, spread=0.5).hard, arc_1 / arc_2, rtol=1e-6)


@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_places_that_one_or_no_class_reaches(spread):
    # Kills: 0/0 in silence; infinity for 0; a division that spoils the other places.
    with jax.debug_nans(False):
        hard, smoothed = threshold([[-1.5, 0.0], [2.9, 0.0], [0.0, 9.0], [0.7, 0.5]], spread=spread)
    np.testing.assert_allclose(hard, [np.inf, 0, np.nan, 1], rtol=1e-9)
    np.testing.assert_allclose(smoothed, [np.inf, 0, np.nan, 1], rtol=1e-9)


def test_labels_of_a_half_never_win():
    # Kills: a division by 2 s - 1 = 0: with ξ = 0 the farthest images of class 2 have no preference. Sizes up to 2, exactly in floats.
    hard, smoothed = threshold([[0.5, 0.0]], x_2=2.5, epsilon=1.0, tau=1.0, xi=0.0)
    assert np.isfinite(hard[0]) and smoothed[0] > 1e12


def test_jit_dtype():
    # Kills: values read while tracing; float64 inside of float32, or the other way.
    x = np.array([[0.3, 0.5], [0.9, 0.8], [0.1, 0.2], [0.0, 1.0]])
    for spread in (0.0, 0.25):
        eager = threshold_of(x, spread=spread)
        for a, b in zip(eager, jax.jit(lambda x, spread=spread: threshold_of(x, spread=spread))(x), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
        centres = np.zeros(2, np.float32), np.array([1.4, 0], np.float32)
        single = theory.imbalance_threshold(x.astype(np.float32), *centres, epsilon=EPSILON, tau=TAU, xi=XI, spread=spread)
        for a, b in zip(eager, single, strict=True):
            assert a.dtype == np.float64 and b.dtype == np.float32
            np.testing.assert_allclose(a, b, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 1.1}, "tau must be at most epsilon"),
        ({"tau": 0.0}, "tau must be one finite number above 0"),
        ({"sigma": -1.0}, "sigma must be one finite number above 0"),
        ({"xi": 0.6}, r"xi must lie in \[0, 1/2\]"),
        ({"spread": -0.1}, "spread is the radius"),
        ({"x_2": 0.0}, "the same point"),
        ({"x": np.ones((2, 1))}, "m >= 2"),
        ({"x": np.ones(2)}, "m >= 2"),
        ({"x_1": np.ones(3)}, r"centres \(m,\)"),
    ],
)
def test_refusals(options, message):
    # Kills: a check left out; a message over more than one line.
    options = {"x": np.ones((1, 2)), "x_1": np.zeros(2), "epsilon": 1.0, "tau": 0.5, "xi": 0.1, **options}
    x, x_1, x_2 = options.pop("x"), options.pop("x_1"), np.array([options.pop("x_2", 1.4), 0.0])
    with pytest.raises(InputError, match=message) as error:
        theory.imbalance_threshold(x, x_1, x_2, **options)
    assert "\n" not in str(error.value)
