"""Flatness in the space of weights. Each test names the mutants it kills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from robustjax import metrics
from robustjax.core import InputError, example_keys

KERNEL, BIAS = (2, 3), (3,)
P = 9


def keys(n, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(n))


def quadratic(hessian, gradient, params):
    w = ravel_pytree(params)[0]
    return jnp.dot(gradient, w, precision="highest") + 0.5 * jnp.dot(w, jnp.dot(hessian, w, precision="highest"), precision="highest")


def setting(seed=0):
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(P, P))
    hessian, gradient = raw @ raw.T - np.eye(P), rng.normal(size=P)
    params, direction = ({"b": rng.normal(size=BIAS), "w": rng.normal(size=KERNEL)} for _ in range(2))
    loss = jax.tree_util.Partial(quadratic, *(jnp.asarray(a, jnp.float32) for a in (hessian, gradient)))
    return hessian, gradient, loss, *jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (params, direction))


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0], np.float64)


@pytest.mark.parametrize("radius", [0, 0.5, np.float64(3)])
def test_quadratic_at_a_distance(radius):
    # Kills: norms for each leaf, a direction not normalised, its sign, the radius squared or relative to params.
    hessian, gradient, loss, params, direction = setting()
    w = flat(params) + radius * flat(direction) / np.linalg.norm(flat(direction))
    mine = metrics.loss_at_distance(loss, params, direction, radius=radius)
    np.testing.assert_allclose(mine, gradient @ w + w @ hessian @ w / 2, rtol=1e-4)
    longer = jax.tree.map(lambda d: 7 * d, direction)
    np.testing.assert_allclose(metrics.loss_at_distance(loss, params, longer, radius=radius), mine, rtol=1e-5)


def test_derivative_along_the_ray():
    # Kills: a radius or parameters without gradient; a norm that is not the whole tree's.
    hessian, gradient, loss, params, direction = setting()
    slope = jax.grad(lambda r: metrics.loss_at_distance(loss, params, direction, radius=r))(0.0)
    u = flat(direction) / np.linalg.norm(flat(direction))
    np.testing.assert_allclose(slope, u @ (gradient + hessian @ flat(params)), rtol=1e-4)


def test_filters_by_hand():
    # Kills: filters along another axis, one norm a leaf, biases that move, division by the filter of params.
    rng = np.random.default_rng(0)
    w, d = rng.normal(size=(2, 3, 3, 4, 5)).astype(np.float32)
    w[..., 2] = 0
    d[..., 3] = 0
    expected = np.zeros_like(d)
    for j in (0, 1, 4):
        expected[..., j] = d[..., j] / np.linalg.norm(d[..., j]) * np.linalg.norm(w[..., j])
    mine = metrics.filter_normalize({"b": np.ones(5, np.float32), "w": d}, {"b": np.ones(5, np.float32), "w": w})
    np.testing.assert_allclose(mine["w"], expected, rtol=1e-5, atol=1e-7)
    assert not mine["b"].any()

    _, _, loss, params, direction = setting()
    moved = jax.tree.map(lambda p, e: p + 2 * e, params, metrics.filter_normalize(direction, params))
    np.testing.assert_allclose(metrics.loss_at_distance(loss, params, direction, radius=2, scaling="filter"), loss(moved), rtol=1e-5)


def test_mean_over_gaussian_directions():
    # Kills: uniform directions of a cube, one direction for all keys, draws by place, other directions at another radius.
    hessian, gradient, loss, params, _ = setting()
    n, radius = 400, 2.0
    losses = np.asarray(metrics.weight_space_loss(keys(n), loss, params, radius=radius), np.float64)
    base = gradient @ flat(params) + flat(params) @ hessian @ flat(params) / 2
    # For u uniform on the sphere E u u^T = I / P.
    assert abs(losses.mean() - base - radius**2 * np.trace(hessian) / (2 * P)) < 4 * losses.std() / np.sqrt(n)
    assert len(np.unique(losses)) == n
    some = example_keys(jax.random.key(0), np.array([7, 300]))
    np.testing.assert_allclose(metrics.weight_space_loss(some, loss, params, radius=radius), losses[[7, 300]], rtol=1e-5)
    # Each is a loss at that distance, in the direction of its key; also inside of jit.
    directions = [metrics.gaussian_direction(example_keys(jax.random.key(0), np.array([j]))[0], params) for j in (0, 1)]
    for r, scaling in ((radius, "tree"), (0.3, "filter")):
        expected = [metrics.loss_at_distance(loss, params, d, radius=r, scaling=scaling) for d in directions]
        np.testing.assert_allclose(metrics.weight_space_loss(keys(2), loss, params, radius=r, scaling=scaling), expected, rtol=1e-5)
    traced = jax.jit(lambda k, p, r: metrics.weight_space_loss(k, loss, p, radius=r, scaling="filter"))
    np.testing.assert_allclose(traced(keys(2), params, 0.3), expected, rtol=1e-5)


def test_gaussian_directions_have_the_law_of_their_name():
    # Kills: a wrong variance, leaves that share their draws, directions already normalised.
    tree = {"a": jnp.zeros(3), "b": jnp.zeros((1, 3))}
    draws = jax.vmap(lambda key: metrics.gaussian_direction(key, tree))(keys(4000))
    draws = np.concatenate([np.asarray(leaf, np.float64).reshape(4000, 3) for leaf in jax.tree.leaves(draws)], axis=1)
    np.testing.assert_allclose(draws.mean(0), 0, atol=5 / np.sqrt(4000))
    np.testing.assert_allclose(np.cov(draws.T), np.eye(6), atol=7.5 / np.sqrt(4000))


def test_nothing_is_compiled_again_for_radii_draws_or_data():
    # Kills: a static radius, one program for each draw, radii of Python and NumPy apart, data baked into the program.
    traces = []

    def counted(hessian, gradient, params):
        traces.append(1)
        return quadratic(hessian, gradient, params)

    _, _, loss, params, direction = setting()
    counts = []
    for radius, scale in ((1, 1), (2.5, 1), (np.float32(30), 2), (jnp.float32(5), 3)):
        data = [scale * a for a in loss.args]
        metrics.weight_space_loss(keys(5), jax.tree_util.Partial(counted, *data), params, radius=radius)
        metrics.loss_at_distance(jax.tree_util.Partial(counted, *data), params, direction, radius=radius)
        counts.append(len(traces))
    assert len(set(counts)) == 1
    # A plain function too, as long as it is the same one and what it reads is fixed: arrays, as this count is, but no list.
    count = np.zeros(1)

    def plain(params):
        count[0] += 1
        return quadratic(*loss.args, params)

    counts = [metrics.weight_space_loss(keys(5), plain, params, radius=r) is not None and count[0] for r in (1.0, 2.0, 3.0)]
    assert len(set(counts)) == 1


def network_loss(sign, x, y, params):
    hidden = jnp.tanh(jnp.dot(x, params["w1"], precision="highest") + params["b1"][None])
    log_p = jax.nn.log_softmax(jnp.dot(hidden, params["w2"], precision="highest"))
    return -sign * jnp.mean(jnp.sum(log_p * y, axis=1))


def network(sign=1.0, dtype=np.float64):
    rng = np.random.default_rng(3)
    params = {"w1": rng.normal(size=(3, 4)), "b1": rng.normal(size=4), "w2": rng.normal(size=(4, 3))}
    x, y = rng.normal(size=(20, 3)), np.eye(3)[rng.integers(0, 3, 20)]
    loss = jax.tree_util.Partial(network_loss, *(jnp.asarray(a, dtype) for a in (sign, x, y)))
    return loss, jax.tree.map(lambda a: jnp.asarray(a, dtype), params)


def dense(loss, params):
    w, unravel = ravel_pytree(params)
    return np.asarray(jax.jit(jax.hessian(lambda w: loss(unravel(w))))(w), np.float64)


def test_eigenvalue_and_trace_of_a_network():
    # Kills: the largest magnitude or the smallest eigenvalue, Gauss-Newton for the Hessian, alpha or beta of the wrong step, a
    # missing previous vector, v^T v or ||H v||^2 for v^T H v, Gaussian v (whose diagonal part varies too).
    with jax.enable_x64(True):
        loss, params = network()
        hessian = dense(loss, params)
        top = np.linalg.eigvalsh(hessian)[-1]
        np.testing.assert_allclose(metrics.hessian_top_eigenvalue(jax.random.key(0), loss, params), top, rtol=1e-6)
        assert metrics.hessian_top_eigenvalue(jax.random.key(0), loss, params, steps=4) < top * (1 - 1e-6)
        bottom = metrics.hessian_top_eigenvalue(jax.random.key(0), network(sign=-1.0)[0], params)
        np.testing.assert_allclose(bottom, -np.linalg.eigvalsh(hessian)[0], rtol=1e-5)
        draws = np.asarray(metrics.hessian_trace(keys(400), loss, params))
        off = hessian - np.diag(np.diag(hessian))
        assert abs(draws.mean() - np.trace(hessian)) < 4 * np.sqrt(2 * (off**2).sum() / 400)
        assert 0.7 < draws.var() / (2 * (off**2).sum()) < 1.4


def scaled_squares(diagonal, params):
    return jnp.sum(diagonal * params**2) / 2


def test_lanczos_beyond_the_number_of_parameters():
    # Kills: a breakdown that divides by 0, one whose zero vectors put 0 among the eigenvalues of a negative Hessian; a traced loop
    # that differs from the driven one.
    call = lambda d: metrics.hessian_top_eigenvalue(  # noqa: E731
        jax.random.key(0), jax.tree_util.Partial(scaled_squares, d), jnp.ones(3), steps=6
    )
    traced = jax.jit(call)
    for diagonal in ([-1.0, -2.0, -5.0], [3.0, 3.0, 3.0], [0.0, 0.0, 0.0], [0.0, -1e-20, 1e10]):
        d = jnp.array(diagonal)
        np.testing.assert_allclose(call(d), d.max(), rtol=1e-5)
        np.testing.assert_allclose(traced(d), d.max(), rtol=1e-5)
        # A diagonal Hessian has its trace in each draw.
        traces = metrics.hessian_trace(keys(2), jax.tree_util.Partial(scaled_squares, d), jnp.ones(3))
        np.testing.assert_allclose(traces, d.sum(), rtol=1e-6)


def test_bfloat16_parameters_are_lifted():
    # Kills: steps that vanish next to weights of eight bits.
    params = {"w": jnp.ones((4, 4), jnp.bfloat16)}
    loss = metrics.loss_at_distance(lambda p: jnp.sum(p["w"] - 1), params, params, radius=1e-3)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, 16 * 1e-3 / 4, rtol=1e-2)


BAD = {
    "negative": (dict(radius=-1.0), "one finite number >= 0, got -1.0"),
    "nan": (dict(radius=float("nan")), "one finite number >= 0"),
    "scaling": (dict(scaling="layer"), "scaling must be 'tree' (one norm over all parameters) or 'filter'"),
    "vector loss": (dict(loss_of_params=lambda p: p["b"]), "loss_of_params must return one float, got float32 of shape (3,)"),
    "structure": (dict(direction={"w": jnp.ones(KERNEL)}), "direction must be a tree like params: its names"),
    "shape": (dict(direction={"w": jnp.ones(KERNEL), "b": jnp.ones(2)}), "got an array of shape (2,) where params have (3,)"),
    "zero": (dict(direction={"w": jnp.zeros(KERNEL), "b": jnp.zeros(3)}), "direction is zero everywhere"),
    "integers": (dict(params={"w": jnp.ones(KERNEL, jnp.int32), "b": jnp.ones(3)}), "params must hold floats, got int32"),
    "nothing": (dict(params={}), "params hold no arrays"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_inputs_are_refused_in_one_line(case):
    # Kills: each check dropped.
    changes, message = BAD[case]
    _, _, loss, params, direction = setting()
    with pytest.raises(InputError) as error:
        metrics.loss_at_distance(**(dict(loss_of_params=loss, params=params, direction=direction, radius=1.0) | changes))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_bad_keys_and_steps_are_refused():
    # Kills: a single key taken for many, no draws at all, no steps.
    _, _, loss, params, _ = setting()
    with pytest.raises(InputError, match="one key an example, got a single key"):
        metrics.weight_space_loss(jax.random.key(0), loss, params, radius=1.0)
    with pytest.raises(InputError, match="at least one draw"):
        metrics.hessian_trace(keys(0), loss, params)
    with pytest.raises(InputError, match="needs one typed key"):
        metrics.gaussian_direction(keys(2), params)
    with pytest.raises(InputError, match="an integer >= 1, got 0"):
        metrics.hessian_top_eigenvalue(jax.random.key(0), loss, params, steps=0)
