"""First and second derivatives along a line: equal to nested jvp and to differences, through everything that networks are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import models
from robustjax.core import jets


def nested(function, primals, direction):
    """The same by jvp of jvp, which carries the first derivative twice."""

    def first(w):
        return jax.jvp(function, (w,), (direction,))

    (value, once), (_, twice) = jax.jvp(first, (primals,), (direction,))
    return value, once, twice


def loop(x):
    return jax.lax.fori_loop(0, 3, lambda i, y: jnp.sin(y) * x, x)


CASES = {
    "products": lambda w: w["a"] * w["b"] * w["a"] + w["a"] / w["b"],
    "matrix": lambda w: jnp.tanh(w["a"] @ w["b"].T) @ w["a"],
    "kinks": lambda w: jax.nn.relu(w["a"]) + jnp.clip(w["b"], -0.3, 0.4) * w["a"] + jnp.maximum(w["a"], w["b"]),
    "soft": lambda w: jax.nn.log_softmax(w["a"]) * jax.nn.softplus(w["b"]),
    "one moves": lambda w: jnp.exp(w["a"]) * jax.lax.stop_gradient(w["b"]),
    "nothing moves": lambda w: jnp.ones((2, 3)) + 0 * jax.lax.stop_gradient(w["a"]),
    "straight": lambda w: 2 * w["a"] - w["b"],
    "loop": lambda w: loop(w["a"]),
    "branch": lambda w: jax.lax.cond(w["a"][0, 0] > 0, jnp.sin, jnp.cos, w["b"]),
    "checkpoint": lambda w: jax.checkpoint(lambda x: jnp.sin(x) * w["b"])(w["a"]),
    "complex": lambda w: jnp.abs(jnp.fft.fft(w["a"])) ** 2 + w["b"],
    "jit": lambda w: jax.jit(lambda x: x**3)(w["a"]) + w["b"],
}


@pytest.fixture
def line():
    keys = jax.random.split(jax.random.key(0), 4)
    w, u = ({name: jax.random.normal(key, (3, 3)) for name, key in zip("ab", pair, strict=True)} for pair in (keys[:2], keys[2:]))
    return w, u


@pytest.mark.parametrize("case", [case for case in CASES if case != "nothing moves"])
def test_equals_nested_jvp(line, case):
    # Kills: a product rule without its factor 2; the 1/2 of Taylor's formula; a lost cross term; custom rules that are not used.
    wanted = nested(CASES[case], *line)
    for wrap in (lambda f: f, jax.jit):
        found = wrap(lambda w, u: jets.second_order(CASES[case], w, u))(*line)
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def test_checkpoints_stay_and_jits_are_entered():
    # Kills: primitives that jax has renamed, which would be differentiated as a whole: more memory, more convolutions, the same numbers.
    def function(w):
        return jax.checkpoint(lambda x: jnp.sin(jnp.sin(x)))(jax.jit(jnp.exp)(w))

    written = str(jax.make_jaxpr(lambda w: jets.second_order(function, w, w))(jnp.ones(3)))
    names = {equation.primitive.name for equation in jax.make_jaxpr(function)(jnp.ones(3)).eqns}
    assert names == {"jit", "checkpoint"} or names == {"pjit", "remat2"} or names == {"jit", "remat2"}
    assert written.count("checkpoint[") + written.count("remat2[") == 1 and "jit[" not in written


def test_derivatives_of_constants_are_zeros():
    # Kills: None where an array is promised.
    w = {"a": jnp.ones((2, 3))}
    value, first, second = jets.second_order(CASES["nothing moves"], w, w)
    np.testing.assert_array_equal(value, 1)
    np.testing.assert_array_equal(first, 0)
    np.testing.assert_array_equal(second, 0)


def test_gradient_through_it_equals_that_through_nested_jvp(line):
    # Kills: derivatives that are constants for a gradient; a gradient with respect to the direction that is lost.
    w, u = line

    def loss(form):
        return lambda w, u: sum(jnp.sum(jnp.sin(part)) for part in form(CASES["matrix"], w, u))

    for ours, theirs in zip(*(jax.grad(loss(form), (0, 1))(w, u) for form in (jets.second_order, nested)), strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, theirs)


@pytest.fixture(scope="module")
def network():
    apply, params, stats = models.split(models.make("wide_resnet", num_classes=4, image_shape=(8, 8, 1), depth=10, width=1))
    images = jax.random.uniform(jax.random.key(0), (4, 8, 8, 1))
    direction = {
        name: 0.1 * jax.random.normal(jax.random.fold_in(jax.random.key(1), i), params[name].shape) for i, name in enumerate(params)
    }
    return lambda w: apply(w, stats, images, True)[0].logits, params, direction


def test_second_order_takes_13_convolutions_for_a_plain_steps_3(network):
    # Kills: carrying the first derivative twice, which takes 16. Counted in what XLA compiles, gradient included; what is near the image and
    # at the top needs fewer, so 2.54 and 4.08 of 3 and 13 thirds here.
    function, params, direction = network

    def plain(w):
        return (function(w),)

    def first(w):
        return jax.jvp(function, (w,), (direction,))

    def counted(form):
        gradient = jax.grad(lambda w: sum(jnp.sum(jnp.square(part)) for part in form(w)))
        return jax.jit(gradient).lower(params).compile().as_text().count(" convolution(")

    counts = [counted(form) for form in (plain, first, lambda w: jets.second_order(function, w, direction))]
    assert counts[1] <= 8 / 3 * counts[0] and counts[2] <= 13 / 3 * counts[0]
