"""What attacks climb, and how they see the network. Each test names the mutants it kills."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks.network import as_partial, count_classes
from robustjax.attacks.objectives import OBJECTIVES, cross_entropy, dlr, evaluate, for_classes, margin
from robustjax.core import InputError
from robustjax.core.numerics import lift

LOGITS = jnp.array([[2.0, 1.0, -1.0], [0.0, 0.5, 3.0]])
LABELS = jnp.array([0, 1], jnp.int32)
GLOBAL = {"scale": 1.0}


def linear(weight, x):
    return x @ weight


def test_values_and_gradients():
    # Kills: a margin over all classes (never below 0), its sign, a cut at zero, cross-entropy of the wrong class.
    np.testing.assert_allclose(margin(LOGITS, LABELS), [-1.0, 2.5])
    np.testing.assert_allclose(cross_entropy(LOGITS, LABELS), jax.nn.logsumexp(LOGITS, 1) - jnp.array([2.0, 0.5]), rtol=1e-6)
    np.testing.assert_array_equal(jax.grad(lambda z: margin(z, LABELS).sum())(LOGITS), [[-1, 1, 0], [0, -1, 1]])


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_larger_is_more_wrong_and_saturation_is_finite(name):
    # Kills: an objective of the other sign in the table, or one that reads what another one does; log(softmax); bfloat16 arithmetic.
    rising = jnp.array([[5.0, 2.0, 1.0, 0.0], [3.0, 2.0, 1.0, 0.0], [1.0, 3.0, 2.0, 0.0]])
    zeros = jnp.zeros(3, jnp.int32)
    values = evaluate(name, rising, zeros, zeros + 1, jnp.array([[9.0, 2.0, 1.0, 0.0]] * 3))
    assert values[0] < values[1] < values[2]
    saturated = jnp.array([[1e4, -1e4, 0.0, 1.0], [-1e4, 1e4, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    value, gradient = jax.value_and_grad(lambda z: evaluate(name, z, zeros, zeros + 1, saturated[::-1]).sum())(saturated)
    assert jnp.isfinite(value) and jnp.isfinite(gradient).all()
    assert evaluate(name, saturated.astype(jnp.bfloat16), zeros, zeros + 1, saturated).dtype == jnp.float32


def test_ratio_does_not_see_scale_or_shift_and_divergence_is_that_from_the_clean_logits():
    # Kills: a denominator that is not a difference of logits; KL in the other direction; KL between logits and labels.
    logits = jnp.array([[2.0, 1.0, -1.0, 0.5], [0.0, 0.5, 3.0, -2.0]])
    np.testing.assert_allclose(dlr(7 * logits + 3, LABELS), dlr(logits, LABELS), rtol=1e-5)
    np.testing.assert_allclose(dlr(logits, LABELS), [-1 / 1.5, 2.5 / 3], rtol=1e-5)
    p, q = jax.nn.softmax(logits), jax.nn.softmax(logits[::-1])
    np.testing.assert_allclose(evaluate("kl", logits[::-1], clean_logits=logits), (p * jnp.log(p / q)).sum(1), rtol=1e-5)


def test_few_classes_fall_back_in_one_line():
    # Kills: DLR of three classes, whose third largest is the smallest; a fallback in silence; a message for four classes.
    assert [for_classes(name, 4) for name in OBJECTIVES] == list(OBJECTIVES)
    for name, instead in (("dlr", "cw"), ("dlr_targeted", "logit_difference")):
        with pytest.warns(UserWarning, match=f"{name!r} compares 4 classes and the network has 3: climbing {instead!r}"):
            assert for_classes(name, 3) == instead
    assert for_classes("ce", 2) == "ce"
    with pytest.raises(InputError, match="did you mean 'dlr'"):
        for_classes("dlrr", 10)


def test_only_functions_are_found_again():
    # Kills: objects cached by identity, whose weights may have changed; functions compiled anew in each call.
    class Model:
        __hash__ = None

        def __call__(self, x):
            return x

    def same(fn):
        return jax.tree.structure(as_partial(fn)) == jax.tree.structure(as_partial(fn))

    function = functools.partial(jnp.add, 1.0)
    assert same(jnp.sin) and same(lambda x: x) and same(function) and same(jax.tree_util.Partial(jnp.add, LOGITS))
    assert not same(Model()) and not same(Model().__call__)
    # Functions that read an object which may change: by closing over it, by another function, bound as an argument, as a global.
    model = Model()
    reader = lambda x: model(x)  # noqa: E731
    assert not same(reader) and not same(lambda x: (0, reader)[1](x)) and not same(functools.partial(reader))
    assert not same(functools.partial(lambda m, x: m(x), model)) and not same(lambda x: GLOBAL["scale"] * x)
    # Arrays, numbers and tuples of them stay; so do functions of other files, and one that closes over itself.
    weights = (LOGITS, np.ones(2), 3.0, "same")

    def itself(x, n=1):
        return itself(weights[0] @ x, n - 1) if n else jax.nn.relu(lift(x))

    assert same(itself) and same(lambda x: linear(LABELS, x))


@pytest.mark.parametrize(
    ("logits_fn", "message"),
    [
        (lambda x: x, "k > 1"),
        (lambda x: (x[:, 0, 0], x), "return its logits only"),
        (lambda x: x.sum((1, 2)), "k > 1"),
        (lambda x: jnp.zeros((1, 4)), "for 2 images"),
        (lambda x: jnp.zeros((2, 4), jnp.int32), "int32"),
    ],
)
def test_a_network_of_the_wrong_shape_says_so(logits_fn, message):
    # Kills: features, auxiliary outputs or predicted classes taken for logits.
    with pytest.raises(InputError, match=message):
        count_classes(as_partial(logits_fn), jnp.zeros((2, 3, 3, 1)))
