"""types: static threat models, and tuples that pass through jax; tests name the mutants they kill."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from robustjax.core import Batch, LogitsFn, Perturbed, ThreatModel
from robustjax.core.check import InputError


def test_threat_model_is_static():
    # Kills: a mutable or unhashable threat, which would compile an attack anew at each call.
    traces = []

    def attack(x, threat):
        traces.append(threat)
        return x * threat.eps

    jitted = jax.jit(attack, static_argnames="threat")
    for _ in range(2):
        assert jitted(jnp.float32(2), threat=ThreatModel("linf", 0.5)) == 1
    assert traces == [ThreatModel("linf", 0.5)]
    with pytest.raises(AttributeError):
        traces[0].eps = 1.0


@pytest.mark.parametrize("eps", [0, 0.0, 8 / 255, np.float32(0.5), np.array(0.5), jnp.float32(0.5), jnp.int32(1)])
def test_eps_may_be_any_number(eps):
    # Kills: an array kept as it is, which cannot be hashed.
    threat = ThreatModel("l2", eps)
    assert threat.eps == float(eps) and type(threat.eps) is float
    assert hash(threat) == hash(ThreatModel("l2", float(eps)))
    assert jax.jit(lambda x: x * ThreatModel("l2", eps).eps)(2.0) == 2 * threat.eps


def test_a_traced_radius_says_so():
    # Kills: a TracerBoolConversionError from a comparison.
    with pytest.raises(InputError, match="eps is traced: inside jit the radius must be a Python number"):
        jax.jit(lambda eps: ThreatModel("l2", eps).eps)(0.5)


@pytest.mark.parametrize(
    ("norm", "eps", "message"),
    [
        ("Linf", 1.0, "norm must be 'linf', 'l2' or 'l1', got 'Linf'"),
        ("l2", -1.0, "must be finite and >= 0, got -1.0"),
        ("l2", float("nan"), "must be finite and >= 0, got nan"),
        ("l1", float("inf"), "must be finite and >= 0, got inf"),
        ("linf", "8/255", "must be finite and >= 0, got '8/255'"),
        ("linf", None, "must be finite and >= 0, got None"),
        ("linf", np.ones(2), "must be finite and >= 0, got array"),
    ],
)
def test_wrong_threats_say_so(norm, eps, message):
    # Kills: `eps < 0` alone, which NaN passes; a TypeError for what is no number.
    with pytest.raises(InputError) as error:
        ThreatModel(norm, eps)
    assert message in str(error.value)


def test_tuples_pass_through_transformations():
    # Kills: dataclasses with checked fields, which jax rebuilds with batched and abstract leaves.
    value = Perturbed(jnp.ones((4, 2, 2, 1)), jnp.ones((4, 3)), jnp.ones(4))
    assert isinstance(jax.vmap(lambda p: p)(value), Perturbed)
    assert isinstance(jax.eval_shape(lambda p: p, value), Perturbed)
    batch = Batch(jnp.ones((4, 2, 2, 1)), jnp.arange(4), jnp.arange(4), jnp.ones(4, bool))
    assert isinstance(jax.tree.map(jnp.shape, jax.jit(lambda b: b)(batch)), Batch)


@pytest.mark.parametrize("model", [lambda x: x, jax.jit(lambda x: x), Partial(lambda w, x: x, 1.0)], ids=["plain", "jit", "Partial"])
def test_any_callable_is_a_logits_fn(model):
    assert isinstance(model, LogitsFn)
