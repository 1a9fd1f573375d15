"""The discriminative loss: its propositions, many devices as one, doors; the numbers are in tests/goldens. Each test names its mutants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from robustjax import losses
from robustjax.core import parallel
from robustjax.core.check import InputError

K, D, N = 4, 3, 16
Y = np.array([0, 0, 1, 0, 1, 1, 1, 3, 0, 0, 3, 1, 0, 0, 0, 3], np.int32)  # class 2 is absent; the first device of four has none of 3


def setting(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    draws = {"inputs": (N, 5), "noise": (N, 5), "embed": (5, D), "kernel": (D, K), "bias": (K,), "stored": (K, D)}
    arrays = {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in draws.items()}
    state = losses.CentroidState(arrays.pop("stored"), jnp.array([True, False, True, False]))
    return state, arrays


def loss_of(params, state, inputs, noise, y, axis_name=None):
    views = (jnp.tanh(x @ params["embed"]) for x in (inputs, inputs + noise))
    options = dict(momentum=0.9, delta_v=0.3, delta_d=2.0, gamma=0.1, axis_name=axis_name)
    terms = losses.discriminative_loss(*views, y, state, params["kernel"], params["bias"], **options)
    return terms.total, terms


GRADIENT = jax.jit(jax.value_and_grad(loss_of, has_aux=True))


def test_many_devices_are_one():
    # Kills: classes counted or averaged per device; centroids of one device's rows; gradients that pmean makes n times too large or too
    # small, in the features and in the head, which only one of the terms reads. Momentum, absent and new classes are in the batch.
    with jax.enable_x64(True):
        state, arrays = setting(dtype=np.float64)
        inputs, noise = arrays.pop("inputs"), arrays.pop("noise")
        (_, terms), grads = GRADIENT(arrays, state, inputs, noise, Y)

        def on_each(params, state, *rows):
            (_, terms), grads = jax.value_and_grad(loss_of, has_aux=True)(params, state, *rows, axis_name="data")
            return jax.tree.map(lambda leaf: leaf[None], terms), jax.lax.pmean(grads, "data")

        mesh = parallel.data_mesh(jax.devices()[:4])
        specs = dict(in_specs=(P(), P(), *[P("data")] * 3), out_specs=(P("data"), P()))
        mapped = jax.jit(jax.shard_map(on_each, mesh=mesh, check_vma=False, **specs))
        found, mapped_grads = mapped(arrays, state, inputs, noise, jnp.asarray(Y))
        for i in range(4):
            jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-12), found, terms)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-13), mapped_grads, grads)
        assert min(abs(np.asarray(grad)).max() for grad in jax.tree.leaves(grads)) > 0.01


def test_momentum_shrinks_the_gradient():
    # Kills: Proposition 4.1 (momentum 0.75: factor 1/4, exact in binary) of the norm and the margin; a past that has a gradient; the
    # shrunken gradient at a class's first appearance.
    state, arrays = setting()
    q = arrays["inputs"][:, :D]

    def of(centroids, present):
        # No hinge is closed and no rival changes: the margin is linear in the centroids.
        return losses.class_margin(centroids, present, arrays["kernel"][:, [0, 3]], arrays["bias"][:2], delta_d=100.0)

    def term(q, which, seen):
        # A past that is the batch's mean: the two kinds of centroid are equal, so that their gradients can be compared.
        past = losses.update_centroids(losses.no_centroids(2, D), jax.lax.stop_gradient(q), Y % 2, momentum=0.0).batch
        update = losses.update_centroids(losses.CentroidState(past, seen), q, Y % 2, momentum=0.75)
        return of(getattr(update, which), update.present) + losses.centroid_norm(getattr(update, which), update.present)

    grad = jax.jit(jax.grad(term), static_argnums=1)
    naive, moving = grad(q, "batch", jnp.ones(2, bool)), grad(q, "momentum", jnp.ones(2, bool))
    assert abs(naive).max() > 0.01
    np.testing.assert_allclose(moving, naive / 4, rtol=1e-5)
    np.testing.assert_allclose(grad(q, "momentum", jnp.zeros(2, bool)), naive, rtol=1e-5)

    def of_past(centroids):
        update = losses.update_centroids(state._replace(centroids=centroids), q, Y, momentum=0.75)
        return jnp.sum(update.momentum) + jnp.sum(update.state.centroids)

    assert not jax.grad(of_past)(state.centroids).any()
    assert not jax.grad(lambda q: jnp.sum(losses.update_centroids(state, q, Y, momentum=0.75).state.centroids))(q).any()


def clustered(seed, delta_v, delta_d):
    """Returns features and a head with both losses at 0: clusters of radius delta_v whose centroids are delta_d off every boundary."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(D, K))
    centers = kernel.T / np.linalg.norm(kernel.T, axis=1, keepdims=True)
    kernel = centers.T  # unit rows: class c has the largest logit at its own center
    distances = [(kernel[:, c] - kernel[:, i]) @ centers[c] / np.linalg.norm(kernel[:, c] - kernel[:, i]) for c, i in PAIRS]
    centers *= 1.001 * delta_d / min(distances)
    offsets = rng.normal(size=(10, D))
    offsets *= 0.999 * delta_v / np.linalg.norm(offsets, axis=1, keepdims=True)
    features = (centers[:, None] + np.concatenate([offsets, -offsets])[None]).reshape(-1, D)  # in pairs: their mean is the center
    return features.astype(np.float32), np.repeat(np.arange(K, dtype=np.int32), 20), kernel.astype(np.float32)


PAIRS = [(c, i) for c in range(K) for i in range(K) if c != i]


@pytest.mark.parametrize(("delta_v", "delta_d"), [(0.5, 1.2), (0.5, 5.0), (2.0, 3.0)])
def test_zero_loss_gives_compact_and_separate_classes(delta_v, delta_d):
    # Kills: hinges on the wrong side; a distance not divided by the norm. Proposition 5.1 (with 2 delta_v, where the paper prints
    # 2 delta_m) and both parts of Proposition 5.2, measured with NumPy; that clusters a little larger cost something.
    q, y, kernel = clustered(0, delta_v, delta_d)
    update = losses.update_centroids(losses.no_centroids(K, D), q, y, momentum=0.9)
    bias = jnp.zeros(K)
    assert not losses.compactness(q, y, update.momentum, delta_v=delta_v).any()
    assert losses.compactness(q, y, update.momentum, delta_v=0.99 * delta_v).all()
    assert losses.class_margin(update.batch, update.present, kernel, bias, delta_d=delta_d) == 0
    assert losses.class_margin(update.batch, update.present, kernel, bias, delta_d=1.01 * delta_d) > 0
    apart = np.linalg.norm(q[:, None] - q[None], axis=-1)
    same = y[:, None] == y[None]
    assert apart[same].max() <= 2 * delta_v
    normals = np.stack([kernel[:, c] - kernel[:, i] for c, i in PAIRS])
    own = np.array([(q[y == c] @ n).min() / np.linalg.norm(n) for (c, _), n in zip(PAIRS, normals, strict=True)])
    assert own.min() >= delta_d - delta_v
    if delta_d > 2 * delta_v:
        assert apart[~same].min() > 2 * delta_v >= apart[same].max()
        assert apart[~same].min() >= 2 * delta_d - 2 * delta_v


def test_margin_by_hand():
    # Kills: the mean or the sum over rivals for the max; a rival that must be present; an unsigned distance; the bias left out; absent
    # classes that are averaged over; a squared hinge.
    centroids = jnp.array([[2.0, 0.0], [-1.0, 0.5], [7.0, 7.0]])
    kernel, bias = jnp.array([[1.0, -1.0, 0.0], [0.0, 0.0, 2.0]]), jnp.array([0.0, 1.0, 0.5])
    # Class 0: (z_1 - z_0) / 2 = (-1 - 2) / 2 and (z_2 - z_0) / sqrt(5) = (0.5 - 2) / sqrt(5), the nearer one; class 1: z = (-1, 2, 1.5).
    wanted = (1 - 1.5 / np.sqrt(5) + 1 - 0.5 / np.sqrt(5)) / 2
    found = losses.class_margin(centroids, jnp.array([True, True, False]), kernel, bias, delta_d=1.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    # Class 2 is on the wrong side of nothing; class 0 in the place of class 1 is.
    swapped = losses.class_margin(centroids[jnp.array([1, 0, 2])], jnp.array([True, False, False]), kernel, bias, delta_d=1.0)
    np.testing.assert_allclose(swapped, 1 + 3 / 2, rtol=1e-6)


def test_degenerate_points_have_finite_gradients():
    # Kills: NaN where a feature is its centroid, a centroid is 0, two classes share a kernel (a head that starts at 0), or no class is
    # present.
    state, arrays = setting()
    inputs = jnp.zeros((N, 5))
    params = {"embed": arrays["embed"], "kernel": jnp.zeros((D, K)), "bias": jnp.zeros(K)}
    empty = losses.no_centroids(K, D)
    (_, terms), grads = GRADIENT(params, empty, inputs, inputs, Y)
    assert all(not leaf.any() for leaf in jax.tree.leaves(grads))
    assert terms.margin == 2.0 and terms.compact == terms.norm == 0.0
    nobody = jnp.zeros(K, bool)
    for f in (
        lambda m: losses.centroid_norm(m, nobody),
        lambda m: losses.class_margin(m, nobody, arrays["kernel"], arrays["bias"], delta_d=1.0),
        lambda m: losses.class_balanced_mean(jnp.sum(m, axis=1), jnp.arange(K), nobody),
    ):
        value, grad = jax.jit(jax.value_and_grad(f))(state.centroids)
        assert value == 0 and not grad.any()


def test_examples_share_by_class_and_dtypes_are_lifted():
    # Kills: a mean over examples; a result that depends on their order; losses in bfloat16; a label that is out of range but traced and
    # counts for the last class or for nothing.
    state, arrays = setting()
    params = {name: arrays[name] for name in ("embed", "kernel", "bias")}
    (_, terms), _ = GRADIENT(params, state, arrays["inputs"], arrays["noise"], Y)
    order = np.random.default_rng(1).permutation(N)
    (_, shuffled), _ = GRADIENT(params, state, arrays["inputs"][order], arrays["noise"][order], Y[order])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), terms, shuffled)
    values = jnp.arange(N, dtype=jnp.float32)
    present = jnp.array([True, True, False, True])
    wanted = np.mean([np.arange(N)[c == Y].mean() for c in (0, 1, 3)])
    np.testing.assert_allclose(losses.class_balanced_mean(values, Y, present), wanted, rtol=1e-6)
    half = losses.compactness(jnp.ones((2, D), jnp.bfloat16), jnp.array([0, 1]), jnp.zeros((K, D)), delta_v=0.5)
    np.testing.assert_allclose(half, (np.sqrt(3) - 0.5) ** 2, rtol=1e-6)
    with jax.debug_nans(False):
        lost = jax.jit(lambda y: losses.compactness(jnp.ones((3, D)), y, state.centroids, delta_v=0.5))(jnp.array([-1, 0, K]))
    np.testing.assert_array_equal(np.isnan(lost), [True, False, True])


def test_stability():
    # Kills: a mean over features; a half; the square for the distance; a gradient that is stopped in one view; NaN where views agree.
    q, noisy = (jnp.asarray(a, jnp.float32) for a in np.random.default_rng(0).normal(size=(2, N, D)))
    np.testing.assert_allclose(
        losses.stability(q, noisy), [np.sqrt(np.sum((a - b) ** 2)) for a, b in zip(q, noisy, strict=True)], rtol=1e-5
    )
    grads = jax.grad(lambda *views: jnp.sum(losses.stability(*views)), argnums=(0, 1))(q, noisy)
    np.testing.assert_allclose(grads[0], (q - noisy) / np.linalg.norm(q - noisy, axis=1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(grads[0], -grads[1])
    assert not jax.grad(lambda a: jnp.sum(losses.stability(a, q)))(q).any()


Q, M = np.ones((2, D), np.float32), np.ones((K, D), np.float32)
TWO, ALL = np.array([0, 1], np.int32), np.ones(K, bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.compactness(Q, TWO, M[:, :2], delta_v=0.5), "must have shapes (n, d) and (k, d), got (2, 3) and (4, 2)"),
        (lambda: losses.compactness(Q, TWO[:1], M, delta_v=0.5), "one label for each row of features, got 1 for 2"),
        (lambda: losses.compactness(Q, TWO + 3, M, delta_v=0.5), "labels must lie in [0, 3], got 4 at position 1"),
        (lambda: losses.compactness(Q, TWO, M, delta_v=-0.5), "delta_v must be finite and at least 0, got -0.5"),
        (lambda: losses.class_margin(M, ALL, M, np.ones(K), delta_d=1.0), "(d, k) and (k,) with k > 1, got (4, 3), (4, 3) and (4,)"),
        (lambda: losses.class_margin(M, ALL, M.T, np.ones(K), delta_d=np.inf), "delta_d must be finite and at least 0, got inf"),
        (lambda: losses.centroid_norm(M, np.ones(K)), "present be bool (k,), got (4, 3) and float"),
        (lambda: losses.class_balanced_mean(Q, TWO, ALL), "values must be floats (2,), one for each label"),
        (lambda: losses.class_balanced_mean(Q[:, 0], TWO, np.ones(K)), "present must be bool (k,)"),
        (lambda: losses.update_centroids(losses.no_centroids(K, D), Q, TWO, momentum=1.5), "momentum must lie in [0, 1], got 1.5"),
        (lambda: losses.update_centroids(losses.no_centroids(K, 2), Q, TWO, momentum=0.5), "got (2, 3) and (4, 2)"),
        (lambda: losses.stability(Q, Q[:1]), "features of one shape (n, d), got (2, 3) and (1, 3)"),
    ],
)
def test_bad_input_says_so(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("label", [K, -1])
def test_a_traced_label_of_no_class_is_seen(label):
    # Kills: an example that is left out of every sum without a word, and a class that is absent for it.
    kernel, state = jnp.asarray(np.random.default_rng(0).normal(size=(D, K)), jnp.float32), losses.no_centroids(K, D)
    found = jax.jit(lambda labels: losses.discriminative_loss(Q, Q, labels, state, kernel, jnp.zeros(K)))
    assert np.isfinite(found(TWO).total)
    with jax.debug_nans(False):
        ours = found(jnp.array([0, label]))
    assert np.isnan([ours.total, ours.compact, ours.noisy, ours.margin, ours.norm]).all()


def test_a_weight_of_zero_takes_a_term_out():
    # Kills: 0 times infinity.
    kernel, state = jnp.asarray(np.random.default_rng(0).normal(size=(D, K)), jnp.float32), losses.no_centroids(K, D)
    features = jnp.array([[1e25] * D, [-1e25] * D], jnp.float32)
    ours = losses.discriminative_loss(features, features, np.zeros(2, np.int32), state, kernel, jnp.zeros(K), alpha=0, lam=0.0)
    assert np.isinf(ours.compact) and np.isfinite(ours.total)


def test_values_of_classes_left_out_may_be_anything():
    # Kills: a mask that multiplies, which makes NaN of what it should leave out.
    values, present = jnp.array([jnp.inf, 1.0, 3.0]), jnp.array([False, True])
    assert float(losses.class_balanced_mean(values, jnp.array([0, 1, 1]), present)) == 2.0
