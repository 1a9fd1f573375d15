"""SPIDER's Theorem 1: the best classifier between two points, its thickness, and where smoothed labels make it thicker."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special

from robustjax import theory
from robustjax.core import InputError

TAU, CLASSES, FLOOR = 4.0, 10, 0.3


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def spider(r):
    """SPIDER's confidence: 1 up to tau/4, FLOOR at tau."""
    return jnp.minimum(jnp.exp(jnp.log(FLOOR) * (r - TAU / 4) / (3 * TAU / 4)), 1)


def linear(r):
    """Falls from the first step on, to 1/c."""
    return jnp.maximum(1 - 0.1 * r, 1 / CLASSES)


def margin(t, d, dim, confidence=None):
    """Returns g_ij(x(t)) by the paper's last formula of appendix B.1, for a flat density of the norm."""
    w = scipy.special.expit((dim - 1) * (np.log1p(-t) - np.log(t)))
    if confidence is None:
        return 2 * w - 1
    gamma_i, gamma_j = ((CLASSES * np.asarray(confidence(jnp.asarray(r))) - 1) / (CLASSES - 1) for r in (d * t, d * (1 - t)))
    return gamma_i * w - gamma_j * (1 - w)


@pytest.mark.parametrize("smooth", [False, True], ids=["hard", "smoothed"])
def test_the_optimum_is_the_average_label_of_what_falls_on_the_segment(smooth):
    # Kills: n for n - 1 in the sphere's surface; the points swapped; confidences of the other point; c for c - 1 among the rest.
    rng, n, width = np.random.default_rng(0), 1_500_000, 0.02
    norm, angle = rng.uniform(0, 1.2, (2, n)), rng.uniform(0, 2 * np.pi, (2, n))  # two points at distance 1 in the plane
    along = norm * np.cos(angle)
    # The first row starts at x_i towards x_j, the second at x_j towards x_i.
    hit = (abs(norm * np.sin(angle)) < width) & (along > 0.15) & (along < 0.85)
    t = np.concatenate([along[0][hit[0]], 1 - along[1][hit[1]]])
    confidence = (lambda r: jnp.maximum(1 - r, 0.4)) if smooth else None
    s = np.asarray(confidence(jnp.asarray(norm[hit]))) if smooth else np.ones(t.size)
    from_i = np.arange(t.size) < hit[0].sum()
    label = np.where(from_i, s, (1 - s) / (CLASSES - 1)), np.where(from_i, (1 - s) / (CLASSES - 1), s)

    def holds(predict):
        out = predict(t)
        for low in np.arange(0.15, 0.85, 0.1):
            here = (t >= low) & (t < low + 0.1)
            for y, p in zip(label, out, strict=True):
                error = y[here] - np.asarray(p)[here]
                if abs(error.mean()) > 4.5 * error.std() / np.sqrt(here.sum()) + 1e-3:
                    return False
        return True

    def optimum(t, dim=2, factor=1.0):
        return [factor * p for p in theory.optimum_on_segment(t, 1.0, dim=dim, num_classes=CLASSES, confidence=confidence)]

    assert t.size > 10_000 and holds(optimum)
    assert not holds(lambda t: optimum(t, dim=3)) and not holds(lambda t: optimum(t)[::-1])
    assert not holds(lambda t: optimum(t, factor=2)) and not holds(lambda t: optimum(t, factor=0.5))


@pytest.mark.parametrize("smooth", [False, True], ids=["hard", "smoothed"])
@pytest.mark.parametrize("dim", [1, 3, 3072])
def test_lemma_1(dim, smooth):
    # Kills: a g_ij that is not odd about the middle or rises anywhere; probabilities that are none.
    t = np.sort(np.random.default_rng(dim).uniform(0, 1, 10_000))
    optimum = theory.optimum_on_segment(t, 3.0, dim=dim, num_classes=CLASSES, confidence=spider if smooth else None)
    g = np.asarray(optimum.class_i - optimum.class_j)
    other = theory.optimum_on_segment(1 - t, 3.0, dim=dim, num_classes=CLASSES, confidence=spider if smooth else None)
    np.testing.assert_allclose(other.class_j - other.class_i, g, atol=1e-9)
    np.testing.assert_allclose(g, margin(t, 3.0, dim, spider if smooth else None), atol=1e-9)
    assert (np.diff(g) <= 1e-12).all()
    rest = (1 - np.asarray(optimum.class_i + optimum.class_j)) / (CLASSES - 2)
    assert min(np.min(p) for p in optimum) >= 0 and rest.min() >= -1e-12
    ends = theory.optimum_on_segment(np.array([0.0, 0.5, 1.0]), 3.0, dim=dim, num_classes=CLASSES)
    np.testing.assert_allclose(ends.class_i, [1, 0.5, 0] if dim > 1 else [0.5] * 3)


def test_lemma_2_holds_for_what_falls_at_once_and_not_for_a_confidence_that_waits():
    # Kills: a claim that |g_LS| <= |g| for every falling s: with s = 1 near x_i it is g_LS that is larger, by what the proof drops.
    t = np.random.default_rng(0).uniform(0, 0.5, 10_000)

    def excess(confidence):
        g = [theory.optimum_on_segment(t, TAU, dim=3, num_classes=CLASSES, confidence=s) for s in (None, confidence)]
        return np.asarray((g[1].class_i - g[1].class_j) - (g[0].class_i - g[0].class_j))

    assert excess(linear).max() <= 1e-12 and excess(linear).min() < -0.05
    assert excess(spider).max() > 0.02
    # What it exceeds by is at most the dropped weight of the farther point.
    assert (excess(spider) <= scipy.special.expit(2 * (np.log(t) - np.log1p(-t))) + 1e-12).all()


@pytest.mark.parametrize("dim", [2, 3, 3072])
def test_thickness_with_hard_labels_in_closed_form(dim):
    # Kills: a factor of 2; alpha's side left out or counted with alpha = 0; n for n - 1; a precision lost at t = 1/2.
    d = np.array([0.5, 2.0, 3.9])
    u = lambda level: np.tanh(np.arctanh(level) / (dim - 1))  # noqa: E731
    for alpha, beta in ((0.0, 0.75), (-0.4, 0.9)):
        expected = d / 2 * (u(beta) + u(-alpha))
        hard = theory.thickness_of_optimum(d, dim=dim, num_classes=CLASSES, confidence=spider, alpha=alpha, beta=beta).hard
        np.testing.assert_allclose(hard, expected, rtol=1e-11)
    single = theory.thickness_of_optimum(d.astype(np.float32), dim=dim, num_classes=CLASSES, confidence=linear, alpha=alpha, beta=beta)
    assert single.hard.dtype == single.smoothed.dtype == np.float32
    np.testing.assert_allclose(single.hard, expected, rtol=1e-5)


@pytest.mark.parametrize("dim", [3, 3072])
def test_thickness_with_smoothed_labels_by_the_roots_of_the_papers_formula(dim):
    # Kills: s for (c s - 1)/(c - 1), a precision lost in the bisection, levels that meet the wrong side.
    d = np.array([1.7, 3.0, 3.9])
    smoothed = theory.thickness_of_optimum(d, dim=dim, num_classes=CLASSES, confidence=spider, alpha=-0.3, beta=0.6).smoothed
    for distance, value in zip(d, smoothed, strict=True):

        def root(level, distance=distance):
            return scipy.optimize.brentq(lambda t: float(margin(t, distance, dim, spider)) - level, 1e-9, 1 - 1e-9, xtol=1e-15)

        assert value == pytest.approx(distance * (root(-0.3) - root(0.6)), rel=1e-8)


@pytest.mark.parametrize(("dim", "window"), [(3, 0.5), (3072, 1e-3)])
def test_thickness_by_drawing_points_of_the_segment(dim, window):
    # Kills: a factor of 2; a fraction for a length; alpha and beta swapped; the confidence of the other point.
    d, alpha, beta = 3.0, -0.3, 0.6
    t = np.random.default_rng(dim).uniform(0.5 - window, 0.5 + window, 40_000)
    both = theory.thickness_of_optimum(np.full(3, d), dim=dim, num_classes=CLASSES, confidence=spider, alpha=alpha, beta=beta)
    for (value, *_), confidence in zip(both, (None, spider), strict=True):
        g = margin(t, d, dim, confidence)
        share = ((alpha < g) & (g < beta)).mean()
        # The set is an interval within the window, or the smoothed one may fill it.
        assert g.min() < alpha and g.max() > beta

        def holds(thickness, share=share):
            error = np.sqrt(share * (1 - share) / t.size)
            return abs(float(thickness) / (2 * window * d) - share) < 4.5 * error

        assert holds(value) and not holds(2 * value) and not holds(value / 2)


@pytest.mark.parametrize(("dim", "alpha", "beta"), [(2, 0.0, 0.75), (3, -0.5, 0.3), (3072, -1.0, 1.0), (3072, 0.0, 0.75)])
def test_theorem_1_where_its_condition_holds(dim, alpha, beta):
    # Kills: hard and smoothed swapped; a smoothed thickness of half the length or less. 10,000 distances, one law of labels.
    d = np.random.default_rng(0).uniform(0.1, 15, 10_000)
    hard, smoothed = theory.thickness_of_optimum(d, dim=dim, num_classes=CLASSES, confidence=linear, alpha=alpha, beta=beta)

    def holds(hard, smoothed):
        return (np.asarray(hard) <= np.asarray(smoothed) * (1 + 1e-10)).all()

    assert holds(hard, smoothed) and not holds(hard, smoothed / (2 if dim < 9 or beta == 1 else 1e4))
    assert (smoothed <= d * (1 + 1e-12)).all()
    if dim == 2:
        # (1 - s(r)) / r is constant up to r = 9: equality, q(d t) = q(d (1 - t)).
        np.testing.assert_allclose(hard[d < 9], smoothed[d < 9], rtol=1e-9)
        assert not holds(2 * hard, smoothed) and not holds(hard, smoothed / 2)


def test_theorem_1_fails_where_its_condition_does():
    # Kills: a thickness that is made to obey the theorem. SPIDER's own confidence, in few dimensions and, in a narrow window, in many.
    call = lambda d, dim: theory.thickness_of_optimum(np.asarray(d), dim=dim, num_classes=CLASSES, confidence=spider)  # noqa: E731
    plane, cifar = call([TAU] * 3, 2), call([1.9, 2.0006, 3.0], 3072)
    assert plane.smoothed[0] < 0.9 * plane.hard[0]
    ratio = np.asarray(cifar.smoothed / cifar.hard)
    assert ratio[0] == pytest.approx(1, abs=1e-12) and 1 - 2e-4 < ratio[1] < 1 - 5e-5 and ratio[2] > 1.5


def test_bounds_of_one_and_zero_are_strict():
    # Kills: g rounded to 1 and left out, or counted where it is 1 exactly; g = 0 counted for alpha = 0.
    d = np.full(3, 3.0)
    saturated = theory.thickness_of_optimum(d, dim=3072, num_classes=CLASSES, confidence=spider, beta=1.0)
    assert (saturated.hard == 1.5).all() and (saturated.smoothed == 1.5).all()
    # Norms up to tau = 2 only, at distance 3: g = 1 where x_j's images do not come, at t < 1 - 2/3, with hard labels.
    short = lambda r: jnp.where(r <= 2, 0.0, -jnp.inf)  # noqa: E731
    cut = theory.thickness_of_optimum(d, dim=3, num_classes=CLASSES, confidence=spider, log_density=short, beta=1.0)
    np.testing.assert_allclose(cut.hard, 3 * (1 / 2 - 1 / 3), rtol=1e-12)
    np.testing.assert_allclose(cut.smoothed, 3 * (1 / 2 - 1 / 3), rtol=1e-12)  # s = 1 at those t < 1/3, so g_LS = 1 too
    # One dimension: densities do not differ, g = 0 along the whole segment.
    flat = theory.thickness_of_optimum(d, dim=1, num_classes=CLASSES, confidence=spider)
    whole = theory.thickness_of_optimum(d, dim=1, num_classes=CLASSES, confidence=spider, alpha=-0.1)
    assert (flat.hard == 0).all() and (whole.hard == 3).all()


def test_density_of_the_norm():
    # Kills: a density left out or its ratio turned over. In one dimension exp(-r/2) gives g = tanh((d_j - d_i)/4) = tanh(d u/4).
    laplace = lambda r: -r / 2  # noqa: E731
    d = np.array([5.0, 7.0, 9.0])
    hard = theory.thickness_of_optimum(d, dim=1, num_classes=CLASSES, confidence=linear, log_density=laplace).hard
    np.testing.assert_allclose(hard, 2 * np.arctanh(0.75), rtol=1e-11)
    optimum = theory.optimum_on_segment(0.3, 5.0, dim=1, num_classes=2, log_density=laplace)
    np.testing.assert_allclose(optimum.class_i - optimum.class_j, np.tanh(0.4 * 5 / 4), rtol=1e-11)


def test_jit_equals_eager():
    # Kills: values read while tracing.
    call = lambda d: theory.thickness_of_optimum(d, dim=50, num_classes=CLASSES, confidence=spider)  # noqa: E731
    d = np.array([1.0, 2.0, 3.0])
    for a, b in zip(jax.jit(call)(d), call(d), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.1}, "-1 <= alpha <= 0 < beta <= 1"),
        ({"beta": 0.0}, "-1 <= alpha <= 0 < beta <= 1"),
        ({"beta": 1.5}, "-1 <= alpha <= 0 < beta <= 1"),
        ({"dim": 0}, "dim must be a whole number"),
        ({"num_classes": 1}, "num_classes must be at least 2"),
        ({"distance": np.array([1.0, 0.0])}, "distance must be one finite number above 0"),
        ({"distance": np.ones((2, 2))}, "scalar or have shape"),
        ({"confidence": lambda r: r}, r"values \(k,\) in \[1/c, 1\]"),
        ({"confidence": lambda r: jnp.minimum(0.5 + r / 10, 1)}, "never increase"),
        ({"confidence": lambda r: jnp.ones(())}, r"got shape \(\)"),
        ({"log_density": lambda r: jnp.where(r < 1, 0.0, -jnp.inf)}, "no perturbed image reaches the middle"),
    ],
)
def test_refusals(options, message):
    # Kills: a check left out; a message over more than one line.
    options = {"distance": 2.0, "dim": 3, "num_classes": CLASSES, "confidence": linear, **options}
    with pytest.raises(InputError, match=message) as error:
        theory.thickness_of_optimum(options.pop("distance"), **options)
    assert "\n" not in str(error.value)


def test_refusals_of_places():
    # Kills: places beyond the segment; distances of another shape.
    with pytest.raises(InputError, match=r"t must lie in \[0, 1\]"):
        theory.optimum_on_segment(1.5, 1.0, dim=2, num_classes=2)
    with pytest.raises(InputError, match="the shape of t"):
        theory.optimum_on_segment(np.ones(3), np.ones(2), dim=2, num_classes=2)
