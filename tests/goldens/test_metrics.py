"""Boundary thickness, flatness and input curvature against official functions (see data/losses_metrics/README.md, metrics.npz)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import metrics
from tests.goldens import mlp, reference

PRECISION = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def golden(prefix):
    """Returns the arrays whose names begin so; images as (n, h, w, c)."""
    data = reference.load("losses_metrics/metrics.npz")
    arrays = {name.removeprefix(prefix): data[name] for name in data if name.startswith(prefix)}
    return {name: np.moveaxis(a, -3, -1) if a.shape[-3:] == (1, 4, 4) else a for name, a in arrays.items()}


def weights(data, dtype):
    return {name: jnp.asarray(data[name], dtype) for name in mlp.NAMES}


def tanh_logits(params, images):
    return mlp.logits(params, images, act="tanh")


def softplus_loss(params, images, labels):
    return metrics.nll(mlp.logits(params, images, act="softplus"), labels)


def tanh_loss(params, images, labels):
    return metrics.nll(mlp.logits(params, images, act="tanh"), labels)


def relu_mean_loss(images, labels, params):
    return jnp.mean(metrics.nll(mlp.logits(params, images, act="relu"), labels))


def near(gaps, *edges):
    """Returns for each example how many points float32 may put on the other side of an edge."""
    # Gaps are off by the 5e-6 below; a gap over 1 - 1e-6 may round to 1.
    return sum(abs(gaps - edge) < 5e-6 for edge in edges).sum(1)


@PRECISION
@pytest.mark.parametrize("kind", ["pgd", "random"])
def test_boundary_thickness(kind, dtype):
    # Kills: points without an end or count / (points - 1); inclusive bounds; squared distance; logits for probabilities;
    # absolute gaps; classes swapped; a gap of a class with itself that rounding moves off 0; the label in place of the predicted class, which differ on the last example.
    data = golden("bt.")
    x_i, x_j, predicted, label, target = (data[n] for n in ("x_i", f"x_j_{kind}", "pred", "label", "target"))
    distance = data[f"{kind}.distance"]
    with mlp.precision(dtype):
        logits_fn = jax.tree_util.Partial(tanh_logits, weights(data, dtype))
        ends = x_i.astype(dtype), x_j.astype(dtype)
        gaps = np.asarray(metrics.segment_gaps(logits_fn, *ends, predicted, target))
        assert gaps.dtype == dtype
        # A gap moves by half of what its logits do, which are off by a few units of float32 at 10, as machines sum in other orders.
        np.testing.assert_allclose(gaps, data[f"{kind}.g_ij_128"], rtol=0, atol=5e-6 if dtype is np.float32 else 1e-12)
        for beta in (0.75, 1):
            slack = distance / 128 * near(data[f"{kind}.g_ij_128"], 0, beta) if dtype is np.float32 else 0
            for class_i, name in ((predicted, "official"), (label, "true_label_i")):
                mine = metrics.boundary_thickness(logits_fn, *ends, class_i, target, alpha=0, beta=beta)
                assert mine.dtype == dtype
                rows = slice(None) if name == "official" or dtype is np.float64 else predicted == label  # gaps are stored for one
                error = abs(np.asarray(mine, np.float64) - data[f"{kind}.a0_b{beta}.{name}"])
                assert (error <= slack + (1e-6 if dtype is np.float32 else 1e-12))[rows].all()
                assert name != "official" or mine[-1] == 0  # predicted as the target


def test_boundary_thickness_on_a_fine_grid():
    # Kills: a number of points that is ignored or rounded to the size of the pieces.
    data = golden("bt.")
    with jax.enable_x64(True):
        logits_fn = jax.tree_util.Partial(tanh_logits, weights(data, np.float64))
        # 20001 points in the graph: pieces of 626 points.
        fine = jax.jit(lambda x_i, x_j: metrics.segment_gaps(logits_fn, x_i, x_j, data["pred"], data["target"], points=20001))
        gaps = fine(data["x_i"], data["x_j_pgd"])
        for beta in (0.75, 1):
            mine = metrics.thickness_of_gaps(gaps, data["x_i"], data["x_j_pgd"], alpha=0, beta=beta)
            np.testing.assert_allclose(mine, data[f"pgd.a0_b{beta}.grid20001"], rtol=1e-9, atol=1e-12)


@PRECISION
def test_loss_at_a_distance_in_weight_space(dtype):
    # Kills: norms for each filter or leaf (the stored control), directions not normalised, weights without biases, a relative
    # radius, a sum over examples.
    data = golden("flat.")
    tolerance = 1e-9 if dtype is np.float64 else 1e-5
    with mlp.precision(dtype):
        params = weights(data, dtype)
        loss = jax.tree_util.Partial(relu_mean_loss, jnp.asarray(data["x"], dtype), jnp.asarray(data["y"]))
        names, shapes = zip(*((name, data[name].shape) for name in params), strict=True)
        cuts = np.cumsum([np.prod(shape) for shape in shapes])[:-1]
        losses = np.zeros_like(data["loss"])
        for j, raw in enumerate(data["raw_directions"]):
            flat = np.split(raw, cuts)
            direction = {n: jnp.asarray(part.reshape(shape), dtype) for n, part, shape in zip(names, flat, shapes, strict=True)}
            for i, radius in enumerate(data["radii"]):
                value = metrics.loss_at_distance(loss, params, direction, radius=radius)
                assert value.dtype == dtype
                losses[i, j] = value
    np.testing.assert_allclose(losses, data["loss"], rtol=tolerance)
    np.testing.assert_allclose(losses.mean(1), data["mean_loss"], rtol=tolerance)
    np.testing.assert_allclose(losses[0], data["base_loss"], rtol=tolerance)
    assert (abs(losses / data["loss_filterwise_control"] - 1)[1:] > 1e-4).all()


@pytest.mark.parametrize(("activation", "dtype"), [("tanh", np.float64), ("softplus", np.float64), ("tanh", np.float32)])
def test_input_curvature(activation, dtype):
    # Kills: unit directions; one division by t; a squared t forgotten; the norm not squared; t ignored; the gradient of another
    # example; the mean over examples. float32 loses 1e-16 / t of the gradient's digits: 1e-5 of the result.
    data = golden(f"curv.{activation}.")
    eps = data["eps"]
    n, b = eps.shape[:2]
    many = lambda a: np.tile(a, (n, *[1] * (a.ndim - 1)))  # noqa: E731
    rtol = 1e-9 if dtype is np.float64 else 5e-5
    with mlp.precision(dtype):
        loss_fn = jax.tree_util.Partial(tanh_loss if activation == "tanh" else softplus_loss, weights(data, dtype))
        images, labels = many(data["x"].astype(dtype)), many(data["y"])

        def curvature(directions, t):
            found = metrics.directional_curvature(loss_fn, images[: len(directions)], labels[: len(directions)], directions, t=t)
            assert found.dtype == dtype
            return np.asarray(found).reshape(-1, b)

        directions = eps.reshape(n * b, *eps.shape[2:]).astype(dtype)
        np.testing.assert_allclose(curvature(directions, float(data["t"])).mean(0), data["estimate_eq21_K20"], rtol=rtol)
        np.testing.assert_allclose(curvature(directions, None).mean(0), data["estimate_exactH_same_eps"], rtol=rtol)
        if dtype is np.float64:
            np.testing.assert_allclose(curvature(directions, 1e-4).mean(0), data["estimate_eq21_K20_t1e-4"], rtol=rtol)
        # Over all unit vectors of the pixels the squares add up to the eigenvalues', exactly.
        units = np.repeat(np.eye(16, dtype=dtype), b, axis=0).reshape(16 * b, 4, 4, 1)
        np.testing.assert_allclose(curvature(units, None).sum(0), data["sum_sq_eigenvalues"], rtol=rtol)
