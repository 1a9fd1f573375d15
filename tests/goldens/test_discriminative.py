"""The discriminative loss against the released code and the paper's equations (see data/losses_metrics/README.md, disc_loss.npz)."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import losses
from tests.goldens import mlp, reference

CASES = (
    "all_present",
    "all_present_dd1",
    "absent_classes",
    "single_sample",
    "single_sample_dv0",
    "wrong_side",
    "inactive",
    "momentum099",
    "momentum09",
)


def close(found, wanted, tolerance, name):
    """Relative, entry by entry but for what is lost beside the largest one."""
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max(), err_msg=name)


@jax.jit
def measured(inputs, y, state, weights, options):
    """Returns (compact, noisy, margin, norm, total), their gradients, and the centroids."""

    def terms(inputs):
        views = inputs["dq"], inputs["dq_noisy"]
        found = losses.discriminative_loss(*views, y, state, inputs["dW"].T, inputs["db"], **weights, **options)
        stacked = jnp.stack([found.compact, found.noisy, found.margin, found.norm, found.total])
        return stacked, (stacked, found.state)

    grads, (values, after) = jax.jacrev(terms, has_aux=True)(inputs)
    return values, grads, after


def weighted(rows):
    """Returns what is stored under each name, of rows of terms or of their gradients, released and printed."""
    released, printed = (np.asarray(part) for part in rows)
    return {
        "official.compact": (released[0] + released[1]) / 2,
        "official.margin": released[2],
        "official.reg": released[3],
        "official.total": released[4],
        "paper.total_eq13": printed[4],
    }


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, (1e-6, 1e-5)), (np.float64, (1e-9, 1e-9))])
@pytest.mark.parametrize("case", CASES)
def test_terms_gradients_and_states(case, dtype, tolerance):
    # Kills: means over examples; the norm or the margin of the other centroid; a gradient that is stopped in the centroid, or scaled by
    # 1 - momentum at a class's first appearance; absent classes that move; a squared margin; classes of the batch as the only rivals;
    # NaN where an example is its class's centroid; a state that is not handed on; either weighting of the two attractions.
    data = reference.load("losses_metrics/disc_loss.npz")
    batches = sorted({found[1] for key in data if (found := re.match(rf"{case}\.(t\d)\.", key))})
    assert batches == (["t0", "t1", "t2"] if case.startswith("momentum") else ["t0"])
    with mlp.precision(dtype):
        delta_v, delta_d, momentum, alpha, beta, gamma = np.asarray(data[f"{case}.hyper"], dtype)
        options = dict(delta_v=delta_v, delta_d=delta_d, momentum=momentum, beta=beta, gamma=gamma)
        weightings = dict(alpha=alpha / 2, lam=alpha / 2), dict(alpha=alpha, lam=dtype(1))
        state = losses.no_centroids(*data[f"{case}.W"].shape, dtype=dtype)
        for t in batches:
            part = f"{case}.{t}"
            close(state.centroids, data[f"{part}.state_before"], tolerance[0], f"{part}.state_before")
            np.testing.assert_array_equal(state.seen, data[f"{part}.init_before"])
            stored = {"dq": f"{part}.q", "dq_noisy": f"{part}.q_noisy", "dW": f"{case}.W", "db": f"{case}.b"}
            inputs = {name: jnp.asarray(data[key], dtype) for name, key in stored.items()}
            y = data[f"{part}.y"].astype(np.int32)
            update = losses.update_centroids(state, inputs["dq"], y, momentum=momentum)
            found = [measured(inputs, y, state, weights, options) for weights in weightings]
            values, grads, (state, _) = zip(*found, strict=True)
            assert values[0].dtype == dtype
            for name, value in weighted(values).items():
                close(value, data[f"{part}.{name}"], tolerance[0], f"{part}.{name}")
            for key in inputs:
                for name, grad in weighted(grad[key] for grad in grads).items():
                    close(grad, data[f"{part}.{name}.{key}"], tolerance[1], f"{part}.{name}.{key}")
            close(values[0][0], data[f"{part}.paper.compact_eq8"], tolerance[0], part)
            close(values[0][1], data[f"{part}.paper.noisy_eq12"], tolerance[0], part)
            close(values[0][3], data[f"{part}.paper.reg_momentum_centroid"], tolerance[0], part)
            norm = losses.centroid_norm(update.batch, update.present)
            close(norm, data[f"{part}.paper.reg_batch_centroid"], tolerance[0], part)
            present = data[f"{part}.present"]
            np.testing.assert_array_equal(np.flatnonzero(update.present), present)
            close(update.batch[present], data[f"{part}.centroid_batch"], tolerance[0], part)
            close(update.momentum[present], data[f"{part}.centroid_momentum"], tolerance[0], part)
            close(state.centroids, data[f"{part}.state_after"], tolerance[0], part)
            np.testing.assert_array_equal(state.seen, data[f"{part}.init_after"])
