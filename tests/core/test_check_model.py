"""check_logits_fn: a model with a disease gets one line that names it, healthy ones get none; tests name the mutants they kill."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.core import check
from robustjax.core.check import InputError
from tests.goldens import reference, reference_networks

GOOD = np.random.default_rng(0).uniform(size=(5, 4, 4, 3)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(48, 5)).astype(np.float32)


def linear(images):
    return images.reshape(len(images), -1) @ WEIGHTS.astype(images.dtype)


def train_mode(images):
    return linear((images - images.mean(0, keepdims=True)) / (images.std(0, keepdims=True) + 0.1))


def random_logits():
    rng = np.random.default_rng(2)
    return lambda images: (
        linear(images)
        + jax.pure_callback(lambda: rng.normal(size=5).astype(np.float32), jax.ShapeDtypeStruct((5,), jnp.float32)).reshape(1, 5)
    )


def called_back(images):
    """Returns what jax computes but cannot differentiate."""
    return jax.pure_callback(lambda x: np.asarray(linear(x)), jax.ShapeDtypeStruct((len(images), 5), jnp.float32), images)


def hidden_on_some(images):
    """Hides the gradient on images whose first pixel is bright: 2 of the 5 in GOOD."""
    bright = images[:, :1, :1, :1] > 0.5
    return linear(jnp.where(bright, jax.lax.stop_gradient(images), images))


def rounded_on_some(images):
    """Rounds images whose first pixel is bright."""
    return linear(jnp.where(images[:, :1, :1, :1] > 0.5, jnp.round(7 * images) / 7, images))


def noisy(images, keys):
    return linear(images) + jax.vmap(lambda key: jax.random.normal(key, (5,)))(keys)


BRIGHT = int((GOOD[:, 0, 0, 0] > 0.5).sum())
GOOD[0, 1, 1] = 0.5 / 7 - 5e-6  # a nudge carries these over the edge of a rounded level
ZERO = "input gradient of exactly zero on 5 of 5 images"
ROUNDED = ZERO + ", and outputs stay as they are when pixels move by 1e-05: inputs or features are rounded"
SATURATED = "gradient of cross-entropy is lost to rounding on 5 of 5 images, that of the margin is not: saturated logits (a large scale"


@pytest.mark.parametrize(
    ("model", "warnings"),
    [
        (linear, []),
        (jax.jit(linear), []),
        (lambda x: jax.nn.relu(linear(x) + 3) @ WEIGHTS[:5], []),
        (lambda x: linear(x.astype(jnp.bfloat16)), []),
        (lambda x: jax.nn.log_softmax(linear(x)), []),
        (lambda x: jax.nn.softmax(linear(x)), ["softmax probabilities"]),
        (train_mode, ["batch norm in train mode"]),
        (random_logits(), ["outputs are random"]),
        (lambda x: linear(jnp.round(7 * x) / 7), [ROUNDED]),
        (lambda x: jnp.sign(linear(x) + 0.5) @ WEIGHTS[:5], [ROUNDED]),
        (lambda x: 5 * jax.nn.one_hot(jnp.argmax(linear(x), 1), 5), [ROUNDED]),
        (lambda x: linear(jax.lax.stop_gradient(x)), [ZERO + " although its outputs move with the pixels: stop_gradient"]),
        (hidden_on_some, [f"exactly zero on {BRIGHT} of 5 images although"]),
        (rounded_on_some, [f"exactly zero on {BRIGHT} of 5 images, and outputs stay"]),
        (lambda x: 1e4 * linear(x), [SATURATED]),
        (lambda x: 40 * linear(x), ["lost to rounding on 2 of 5 images"]),
        (lambda x: 1e-15 * linear(x), ["gradient vanishes (norm under 1e-12) on 5 of 5 images"]),
        (lambda x: linear(x) + linear(jnp.sqrt(0 * x)), ["NaN or infinite input gradients on 5 of 5 images"]),
        (lambda x: 0 * linear(x) + 1, ["outputs are the same whatever the image"]),
        (called_back, ["logits_fn cannot be differentiated (Pure callbacks do not support"]),
    ],
    ids=[
        *("linear", "jitted", "relu", "bfloat16", "log-softmax", "softmax", "train mode", "random", "inputs of 3 bits", "signs", "one-hot"),
        *("stop_gradient", "stop_gradient on some", "rounded on some", "temperature", "scale", "faint", "infinite", "constant", "callback"),
    ],
)
def test_models_that_mislead(model, warnings):
    # Kills: each symptom left out, or found where there is none; the wrong cause; a line too many.
    with jax.debug_nans(False):  # as users run it
        got = check.check_logits_fn(model, GOOD, np.zeros(5, int))
    assert len(got) == len(warnings), got
    assert all(part in line and "\n" not in line for part, line in zip(warnings, got, strict=True)), got


def test_a_model_that_is_only_called_is_not_differentiated():
    # Kills: gradients looked at all the same, everything else left out with them.
    assert check.check_logits_fn(called_back, GOOD, gradients=False) == []
    assert "batch norm in train mode" in check.check_logits_fn(train_mode, GOOD, gradients=False)[0]


@pytest.mark.parametrize(
    ("model", "warnings"),
    [
        (linear, []),
        (train_mode, ["batch norm in train mode"]),
        (lambda x: linear(jnp.round(7 * x) / 7), ["exactly zero on 1 of 1 images"]),
        (lambda x: 5 * jax.nn.one_hot(jnp.argmax(linear(x) * 0 + jnp.arange(5.0)[None], 1), 5), ["exactly zero on 1 of 1 images, and"]),
    ],
    ids=["linear", "train mode", "inputs of 3 bits", "one-hot"],
)
def test_one_image_is_enough(model, warnings):
    # Kills: symptoms that a single image hides.
    got = check.check_logits_fn(model, GOOD[:1])
    assert len(got) == len(warnings) and all(part in line for part, line in zip(warnings, got, strict=True)), got


@pytest.mark.parametrize(
    ("model", "warnings"),
    [
        (noisy, []),
        (lambda x, keys: noisy(x, keys) + random_noise(), ["two calls with the same keys: the model draws from elsewhere too"]),
        (lambda x, keys: linear(x), ["outputs do not change with the keys"]),
        (lambda x, keys: noisy(train_mode(x).reshape(-1, 1, 1, 5).repeat(10, 3)[:, :, :, :48], keys), ["batch norm in train mode"]),
        (lambda x, keys: jnp.round(noisy(x, keys)), [ZERO]),
    ],
    ids=["healthy", "another generator", "keys not used", "train mode", "rounded"],
)
def test_randomized_models(model, warnings):
    # Kills: keys not passed; the same keys for both calls; other keys where the batch or the gradient is looked at.
    got = check.check_logits_fn(model, GOOD, randomized=True)
    assert len(got) == len(warnings) and all(part in line for part, line in zip(warnings, got, strict=True)), got


GLOBAL = np.random.default_rng(3)


def random_noise():
    return jnp.asarray(GLOBAL.normal(size=(1, 5)), jnp.float32)


def classes(n, k=4):
    """Returns pictures of k classes that differ in brightness and pattern, labels, and a classifier by the nearest mean."""
    rng = np.random.default_rng(4)
    means = np.clip(rng.uniform(0.3, 0.7, (k, 1, 1, 1)) + rng.normal(size=(k, 4, 4, 3)) * 0.1, 0, 1)
    labels = rng.permutation(np.arange(n) % k)
    images = np.clip(means[labels] + 0.05 * rng.normal(size=(n, 4, 4, 3)), 0, 1).astype(np.float32)

    def nearest(transform=lambda x: x):
        flat = jnp.asarray(transform(means).reshape(k, -1), jnp.float32)
        scale = 5 / jnp.square(flat).sum(1).max()
        return lambda x: scale * (2 * x.reshape(len(x), -1) @ flat.T - jnp.square(flat).sum(1)[None])

    return images, labels, nearest


MEAN, STD = 0.5, 0.12
BETTER_IF = "accuracy on 64 clean images is .*%, and (9.|100)% if they are {}.*put it inside logits_fn"


@pytest.mark.parametrize(
    ("disease", "message"),
    [
        ("none", None),
        ("normalisation outside", BETTER_IF.format("normalised by mean and standard deviation")),
        ("levels of 255 expected", BETTER_IF.format("given as levels from 0 to 255")),
        ("labels turned by one", "and (9.|100)% with classes renamed: the labels are in another order"),
        ("untrained", "no better than guessing among 40 classes"),
        ("five outputs for ten classes", "accuracy on 64 clean images is ..?%, no better than guessing among 10 classes"),
        ("one class for all", "accuracy on 64 clean images is 25%, no better than guessing among 4 classes"),
        ("four in five right", None),
        ("half right", None),
        ("one class only, another always", "accuracy on 64 clean images is 0%, no better than guessing among 4 classes"),
        ("refuses other ranges", None),
    ],
)
def test_accuracy_tells_what_is_wrong_around_the_model(disease, message):
    # Kills: each cause left out or given for another; a constant model taken for renamed labels; healthy weak models flagged; a model
    # that refuses other ranges taken down by the check.
    images, labels, nearest = classes(70, {"untrained": 40, "five outputs for ten classes": 10}.get(disease, 4))
    model = nearest()
    if disease == "normalisation outside":
        model = nearest(lambda x: (x - MEAN) / STD)
    elif disease == "levels of 255 expected":
        model = nearest(lambda x: 255 * x)
    elif disease == "labels turned by one":
        labels = (labels + 1) % 4
    elif disease == "untrained":
        labels = np.random.default_rng(5).integers(0, 40, 70)
    elif disease == "five outputs for ten classes":
        # Outputs 5 to 9 for pairs of classes, 0 to 4 for none: half the labels could be told by other names.
        model = lambda x: jnp.pad(10 + nearest()(x).reshape(-1, 5, 2).max(2), ((0, 0), (5, 0)))  # noqa: E731
    elif disease == "one class for all":
        model = lambda x: 0.01 * nearest()(x) + 10 * jax.nn.one_hot(jnp.ones(len(x), int), 4)  # noqa: E731
        labels = np.arange(70) % 4
    elif disease in ("four in five right", "refuses other ranges", "half right"):
        kept = np.arange(70) % 4 > 0 if disease != "half right" else np.arange(70) % 3 == 0
        labels = np.where(kept, labels, np.random.default_rng(5).integers(0, 4, 70))
    elif disease == "one class only, another always":
        model = lambda x: 0.01 * nearest()(x) + 10 * jax.nn.one_hot(jnp.ones(len(x), int), 4)  # noqa: E731
        labels = np.full(70, 2)
    if disease == "refuses other ranges":
        model = lambda x: nearest()(check.check_images(x))  # noqa: E731
    elif disease == "none":
        sizes, whole = [], nearest()
        model = lambda x: sizes.append(len(x)) or whole(x)  # noqa: E731
    got = check.check_logits_fn(model, images, labels)
    if message is None:
        assert got == []
        assert disease != "none" or sizes.count(64) == 1  # accurate: other inputs need not be tried
    else:
        assert len(got) == 1 and re.search(message, got[0]), got
    assert check.check_logits_fn(model, images[:31], labels[:31]) == []  # too few to say


def test_trained_networks_are_healthy():
    # Kills: thresholds that a network of confident logits (up to 22 apart in float32) trips.
    stored = reference.load("attacks/digits_images.npz")
    network = reference_networks.logits_fn(reference.load("attacks/digits_cnn_params.npz"))
    assert check.check_logits_fn(network, stored["x"], stored["y"]) == []
    assert "another order" in check.check_logits_fn(network, stored["x"], 9 - stored["y"])[0]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (lambda x: (linear(x), x), {}, "must return one array of logits (b, k), got tuple"),
        (lambda x: linear(x)[0], {}, "must return logits (b, k) with k > 1, got (5,) for 5 images"),
        (lambda x: linear(x)[:, :1], {}, "with k > 1, got (5, 1)"),
        (lambda x: linear(x).argmax(-1, keepdims=True).repeat(2, 1), {}, "must return floats, got int32"),
        (lambda x: linear(x)[:, :3], {"dlr": True}, "DLR objective compares four classes and the model has 3"),
        (lambda x: linear(x)[:, :3], {"labels": np.full(5, 3)}, "labels must lie in [0, 2], got 3"),
        (linear, {"labels": np.zeros(4, int)}, "labels must have shape (5,), one for each image, got (4,)"),
        (lambda x: linear(x).at[1].set(jnp.nan), {}, "NaN or infinite values for 1 of 5 images"),
        (lambda x, keys: linear(x) / 0, {"randomized": True}, "NaN or infinite values for 5 of 5 images"),
    ],
)
def test_models_that_cannot_be_used(model, options, message):
    # Kills: an error from deep inside an attack in place of this line.
    labels = options.pop("labels", None)
    with jax.debug_nans(False), pytest.raises(InputError) as error:
        check.check_logits_fn(model, GOOD, labels, **options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_traced_models_are_checked_for_shape_only():
    # Kills: values read from tracers.
    found = []
    jax.jit(lambda x: found.extend(check.check_logits_fn(lambda y: jax.nn.softmax(linear(y)), x)) or x)(GOOD)
    jax.jit(lambda w: found.extend(check.check_logits_fn(lambda y: w * linear(y), GOOD)) or w)(1.0)
    assert found == []
    with pytest.raises(InputError, match="with k > 1"):
        jax.jit(lambda x: check.check_logits_fn(lambda y: linear(y)[0], x) or x)(GOOD)
