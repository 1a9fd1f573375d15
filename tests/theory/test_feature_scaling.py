"""Proposition 5.3 of the discriminative-loss paper and its corollary, on networks with relu and without."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import losses, metrics, theory
from robustjax.core import InputError

SIZES = {"first": (5, 6), "embedding": (6, 4), "head": (4, 3)}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 5)).astype(np.float32)
PARAMS = {f"{name}.kernel": jnp.asarray(RNG.normal(size=size), jnp.float32) for name, size in SIZES.items()}
PARAMS |= {f"{name}.bias": jnp.asarray(RNG.normal(size=size[1]), jnp.float32) for name, size in SIZES.items()}


def features(params, act):
    hidden = jnp.tanh(X @ params["first.kernel"] + params["first.bias"][None])
    return act(hidden @ params["embedding.kernel"] + params["embedding.bias"][None])


def logits(params, act):
    return features(params, act) @ params["head.kernel"] + params["head.bias"][None]


@functools.partial(jax.jit, static_argnames="act")
def measured(params, y, act):
    """Returns the logits, the classes' margins and dispersions, and the losses that ask for one of the two alone."""
    q, head = features(params, act), (params["head.kernel"], params["head.bias"])
    update = losses.update_centroids(losses.no_centroids(3, 4), q, y, momentum=0.9)
    compact = jnp.mean(losses.compactness(q, y, update.momentum, delta_v=0.0))
    margin = losses.class_margin(update.batch, update.present, *head, delta_d=50.0)
    return logits(params, act), metrics.class_margins(q, y, *head), metrics.class_dispersion(q, y, 3), compact, margin


@pytest.mark.parametrize("act", [jax.nn.relu, jnp.positive], ids=["relu", "linear"])
@pytest.mark.parametrize("nu", [0.1, 2.5])
def test_predictions_stay_and_geometry_scales(act, nu):
    # Kills: a head whose bias stays or whose kernel moves; a bias of the layer that stays; nu for 1 / nu.
    y = jnp.argmax(logits(PARAMS, act), axis=1)  # all are right, so that margins have something to gain
    before, after = (measured(params, y, act) for params in (PARAMS, theory.rescale_features(PARAMS, nu)))
    np.testing.assert_array_equal(before[0].argmax(1), after[0].argmax(1))
    for was, now in zip(before[:3], after[:3], strict=True):
        np.testing.assert_allclose(now, nu * was, rtol=1e-4, atol=1e-5)
    assert before[1].min() > 0 and before[2].max() > 0  # as the proposition assumes
    # Each constraint alone is had for nothing, and the other one pays.
    assert (after[3] < before[3]) == (nu < 1) and (after[4] < before[4]) == (nu > 1)
    assert before[3] != after[3] and before[4] != after[4]


def test_opposite_directions():
    # Kills: Corollary 5.1 (a step that is not (nu - 1) u); parameters that move and should not.
    def step(nu):
        moved = theory.rescale_features(PARAMS, nu)
        return np.concatenate([np.ravel(moved[key] - PARAMS[key]) for key in sorted(PARAMS)])

    there, back = step(3.0), step(1 / 2)
    np.testing.assert_allclose(there / 2, back / -0.5, rtol=1e-5)
    np.testing.assert_allclose(there @ back, -np.linalg.norm(there) * np.linalg.norm(back), rtol=1e-5)
    moved = theory.rescale_features(PARAMS, 3.0)
    still = [key for key in PARAMS if (moved[key] == PARAMS[key]).all()]
    assert sorted(still) == ["first.bias", "first.kernel", "head.kernel"]
    traced = jax.jit(theory.rescale_features)(PARAMS, 3.0)
    jax.tree.map(np.testing.assert_array_equal, traced, moved)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.rescale_features(PARAMS, 0.0), "nu must be one finite number above 0, got 0.0"),
        (lambda: theory.rescale_features(PARAMS, 2.0, layer="embed"), "no parameter belongs to 'embed'; there are embedding, first, head."),
        (lambda: theory.rescale_features(PARAMS, 2.0, head="fc"), "no parameter belongs to 'fc'"),
    ],
)
def test_bad_input_says_so(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert message in str(error.value)
