"""SPIDER and ESP as wholes: image, distance and label belong together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robustjax import augment
from robustjax.core import InputError, example_keys

B, K = 256, 10


def keys(n=B, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(n))


def pictures(seed=0):
    """Half grey, half black and white: in the second half about every other pixel cannot move the way it is pushed."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(size=(B, 6, 6, 3))
    images[B // 2 :] = images[B // 2 :].round()
    return jnp.asarray(images, jnp.float32)


LABELS = jnp.arange(B) % K
METHODS = {
    "spider": (augment.spider, {"tau": 6.0, "xi": 0.3}, (1.5, 4.5)),
    "esp": (augment.esp, {"epsilon": 3.0, "tau": 2.5, "xi": 0.4}, (3.0, 2.5)),
}
JITTED = {name: jax.jit(function, static_argnames="num_classes") for name, (function, _, _) in METHODS.items()}
EACH = pytest.mark.parametrize("method", METHODS)


def run(method, images=None, labels=LABELS, seed=0, **options):
    _, defaults, _ = METHODS[method]
    return JITTED[method](keys(seed=seed), pictures() if images is None else images, labels, num_classes=K, **{**defaults, **options})


@EACH
def test_size_is_the_distance_and_the_label_follows_it(method):
    # Kills: the label of the drawn radius where the box ended sooner; size of the direction; clipping instead of rescaling;
    # thresholds or floor of the other method.
    _, options, (start, width) = METHODS[method]
    images = pictures()
    out = run(method)
    distance = np.linalg.norm(np.asarray(out.images - images, np.float64).reshape(B, -1), axis=1)
    np.testing.assert_allclose(out.size, distance, rtol=1e-5)
    s = np.minimum(1, np.exp(-np.log(1 / (1 / K + options["xi"])) / width * (distance - start)))
    expected = np.where(np.arange(K) == np.asarray(LABELS)[:, None], s[:, None], (1 - s[:, None]) / (K - 1))
    np.testing.assert_allclose(out.targets, expected, atol=1e-5)
    assert 0.2 < np.mean(s < 0.999) < 0.95  # both branches are met


@EACH
def test_sizes_have_the_papers_laws(method):
    # Kills: no radius; a direction key used for the radius; another law; tau as sigma. Grey images: everything is in reach.
    out = run(method, images=jnp.full((B, 8, 8, 3), 0.5), seed=1)
    law = scipy.stats.uniform(0, 6) if method == "spider" else scipy.stats.truncnorm(-2, 2, loc=3, scale=1.25)
    assert scipy.stats.kstest(np.asarray(out.size), law.cdf).pvalue > 1e-4
    first = np.asarray(out.images)[:, 0, 0, 0] - 0.5
    assert scipy.stats.spearmanr(first / out.size, out.size).pvalue > 1e-4


@EACH
def test_unreachable_radius_is_labelled_by_what_was_reached(method):
    # Kills: reading the drawn radius: all labels would be soft, though no image moved beyond the threshold.
    corner = jnp.ones((B, 2, 2, 1))  # reaches at most 2
    options = {"tau": 400.0} if method == "spider" else {"epsilon": 30.0, "tau": 20.0}
    out = run(method, images=corner, **options)
    assert out.size.max() <= 2
    np.testing.assert_array_equal(out.targets, np.eye(K)[LABELS])


@EACH
def test_tau_zero_keeps_labels_hard(method):
    # Kills: 0/0 in the curve; in ESP a size that rounding lifts above epsilon, where a curve of width 0 falls at once.
    images = pictures()
    out = run(method, images=images, tau=0.0)
    np.testing.assert_array_equal(out.targets, np.eye(K)[LABELS])
    if method == "spider":
        np.testing.assert_array_equal(out.images, images)
        np.testing.assert_array_equal(out.size, 0)
    else:
        np.testing.assert_allclose(out.size, 3.0, rtol=1e-6)


@EACH
def test_upper_xi_keeps_labels_hard_and_mixtures_are_taken(method):
    # Kills: a decay where 1/C + xi = 1; targets (b, k) refused or hardened.
    out = run(method, xi=1 - 1 / K)
    np.testing.assert_array_equal(out.targets, np.eye(K)[LABELS])
    np.testing.assert_array_equal(run(method, labels=jax.nn.one_hot(LABELS, K)).targets, run(method).targets)
    two = 0.5 * (jax.nn.one_hot(LABELS, K) + jax.nn.one_hot(K - 1 - LABELS, K))
    np.testing.assert_allclose(
        run(method, labels=two).targets, 0.5 * (run(method).targets + run(method, labels=K - 1 - LABELS).targets), atol=1e-6
    )


def test_esp_sigma_is_half_of_tau_unless_given():
    # Kills: an ignored sigma; another default. Sigma 0 gives the one size epsilon.
    np.testing.assert_array_equal(run("esp", sigma=1.25).size, run("esp").size)
    assert np.std(run("esp", sigma=0.3).size) < 0.35
    np.testing.assert_allclose(run("esp", images=jnp.full((B, 6, 6, 3), 0.5), sigma=0.0).size, 3.0, rtol=1e-6)


@EACH
def test_schedules_do_not_recompile(method):
    # Kills: a Python branch on tau, xi or epsilon.
    function, options, _ = METHODS[method]
    traces = []

    @jax.jit
    def step(options):
        traces.append(1)
        return function(keys(8), jnp.full((8, 4, 4, 1), 0.5), LABELS[:8], num_classes=K, **options)

    for scale in (1.0, 0.5, 0.0):
        assert jnp.isfinite(step({name: jnp.float32(scale * value) for name, value in options.items()}).targets).all()
    assert len(traces) == 1


NORMALISED = (np.full((2, 4, 4, 3), 0.5) - 0.47) / 0.2 - 1.5


@EACH
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tau": -1}, "tau is a size .* must be finite and >= 0, got -1"),
        ({"xi": -0.1}, r"xi must lie in \[0, 1 - 1/C\] = \[0, 0.9\] for 10 classes, got -0.1"),
        ({"xi": 0.95}, r"xi must lie in \[0, 1 - 1/C\]"),
        ({"labels": np.array([0, 10])}, r"labels must lie in \[0, 9\], got 10 at position 1"),
        ({"labels": np.array([-1, 0])}, "got -1 at position 0"),
        ({"num_classes": 1, "labels": np.array([0, 0])}, "num_classes must be at least 2"),
        ({"images": np.full((2, 4, 4, 3), 1.5)}, r"images must lie in \[0, 1\]"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8)}, "divide by 255"),
        ({"images": np.full((2, 4, 4, 3), np.nan)}, "NaN"),
        ({"images": np.zeros((4, 4, 3))}, "unbatched"),
        ({"images": NORMALISED}, "scaled to|normalised"),
        ({"labels": np.array([0, 1, 2])}, "labels must be one for each of the 2 images, got 3"),
        ({"labels": np.eye(K, dtype=np.float32)[:1]}, "labels must be one for each of the 2 images, got 1"),
        ({"keys": None}, "keys must be typed PRNG keys, got NoneType"),
        ({"keys": jax.random.key(0)}, "keys must be one key an example, got a single key"),
        ({"keys": jax.random.key_data(keys(2))}, r"keys must be typed PRNG keys, got uint32 of shape \(2, 2\)"),
        ({"keys": keys(3)}, r"keys must have shape \(2,\), one for each example, got \(3,\)"),
    ],
)
def test_bad_input_gets_one_line(method, change, message):
    # Kills: each check left out.
    function, options, _ = METHODS[method]
    good = {"keys": keys(2), "images": np.full((2, 4, 4, 3), 0.5), "labels": np.array([0, 9]), "num_classes": K, **options}
    with pytest.raises(InputError, match=message) as error:
        function(**{**good, **change})
    assert "\n" not in str(error.value)


@EACH
def test_numpy_in_double_precision(method):
    # Kills: int64 labels or float64 images that meet int32 or float32 inside; float64 lost.
    function, options, _ = METHODS[method]
    images = np.random.default_rng(0).uniform(size=(8, 4, 4, 3))
    with jax.enable_x64():
        out = function(keys(8), images, np.arange(8, dtype=np.int64), num_classes=K, **options)
        assert {x.dtype for x in out} == {np.dtype("float64")}
        distance = np.linalg.norm((np.asarray(out.images) - images).reshape(8, -1), axis=1)
        np.testing.assert_allclose(out.size, distance, rtol=1e-12)


@pytest.mark.parametrize("kinds", [(float, np.float32), (np.float32, float), (np.float32, jnp.float32)])
def test_tau_may_be_epsilon_in_another_precision(kinds):
    # Kills: 0.1 compared with float32(0.1) = 0.100000001, which are one number to the images.
    for value in (0.1, 0.7):  # rounded up and down in float32
        tau, epsilon = kinds[0](value), kinds[1](value)
        out = augment.esp(keys(4), np.full((4, 2, 2, 1), 0.5), np.arange(4), epsilon=epsilon, tau=tau, xi=0.1, num_classes=K)
        assert jnp.isfinite(out.images).all()


def test_esp_refuses_tau_above_epsilon():
    # Kills: negative sizes, which turn the direction round.
    with pytest.raises(InputError, match=r"tau must not exceed epsilon .* got tau 3, epsilon 2"):
        augment.esp(keys(1), jnp.zeros((1, 2, 2, 1)), jnp.array([0]), epsilon=2, tau=3, xi=0.1, num_classes=2)
    with pytest.raises(InputError, match="sigma is a size"):
        augment.esp(keys(1), jnp.zeros((1, 2, 2, 1)), jnp.array([0]), epsilon=2, tau=1, xi=0.1, num_classes=2, sigma=-1)
