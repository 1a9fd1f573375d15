"""check: each mistake gets one line that names its cause, good input passes untouched; tests name the mutants they kill."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.core import check, example_keys
from robustjax.core.check import InputError

GOOD = np.random.default_rng(0).uniform(size=(5, 4, 4, 3)).astype(np.float32)
MEAN, STD = 0.47, 0.25


def refused(function, *arguments, **options):
    """Returns the message, which must be one line."""
    with pytest.raises(InputError) as error:
        function(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (GOOD[0], "images are unbatched: expected (b, h, w, c), got (4, 4, 3); add an axis with images[None]."),
        (GOOD[..., 0, 0], "images must have shape (b, h, w, c), got (5, 4)."),
        (GOOD[:0], "images are empty: their shape is (0, 4, 4, 3); at least one example is needed."),
        ((255 * GOOD).astype(np.uint8), "images must be floats in [0, 1], got uint8; divide by 255."),
        ((255 * GOOD).astype(np.int32), "images must be floats in [0, 1], got int32; convert them to float32 in [0, 1]."),
        (np.where(GOOD > 0.5, np.nan, GOOD), "images hold NaN or infinite values; look at what made them."),
        (np.where(GOOD > 0.5, np.inf, GOOD), "images hold NaN or infinite values; look at what made them."),
        ((GOOD - MEAN) / STD, "they look normalised by mean and standard deviation: normalisation belongs inside the model."),
        ((GOOD / 2 - MEAN) / STD, "they look normalised by mean and standard deviation"),
        (2 * GOOD - 1, "they look scaled to [-1, 1]: pass (x + 1) / 2 and put that scaling inside the model."),
        (255 * GOOD, "they look like levels of 255: divide by 255."),
        (GOOD * 1.1, "; rescale or clip them."),
        (GOOD - 2e-6 - GOOD.min(), "images must lie in [0, 1], got values from -2e-06"),
    ],
    ids=[
        "rank3",
        "rank2",
        "empty",
        "uint8",
        "int32",
        "nan",
        "inf",
        "normalised",
        "normalised and dark",
        "minus one to one",
        "255",
        "a little",
        "tolerance",
    ],
)
def test_images(images, message):
    # Kills: each condition left out, or its message given for another cause.
    for wrap in (lambda x: x, jnp.asarray):
        with jax.debug_nans(False):
            given = wrap(images)
        assert message in refused(check.check_images, given)
    assert refused(check.check_images, images, name="mixers").startswith("mixers ")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_good_images_pass_untouched(dtype):
    # Kills: a cast; bounds without tolerance for rounding.
    images = jnp.asarray(GOOD, dtype).at[0, 0, 0, 0].set(1.0)
    assert check.check_images(images) is images
    rounded = np.where(GOOD > 0.5, np.float32(1 + 5e-7), np.float32(-5e-7))
    np.testing.assert_array_equal(check.check_images(rounded), rounded)


def test_traced_images_are_checked_for_shape_only():
    # Kills: values read from tracers; shapes not looked at under jit.
    assert jax.jit(check.check_images)(GOOD * 300).shape == GOOD.shape
    assert "unbatched" in refused(jax.jit(check.check_images), GOOD[0])
    assert "unbatched" in refused(jax.eval_shape, check.check_images, jax.ShapeDtypeStruct((2, 2, 1), jnp.float32))


def test_constants_are_checked_while_something_else_is_traced():
    # Kills: NumPy images taken for traced ones, or a comparison that jit stages and bool() cannot read.
    def model(scale):
        return scale * check.check_images(GOOD).sum() + check.check_labels([1], num_classes=2)[0].astype(jnp.float32)

    assert jax.jit(model)(1.0) > 1
    assert "divide by 255" in refused(jax.jit(lambda s: s * check.check_images(GOOD * 255)), 1.0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3, 1, 5], "labels must lie in [0, 2], got 3 at position 1 and 2 of 4 out of range."),
        ([0, -1], "got -1 at position 1 and 1 of 2 out of range (-1 often marks unlabelled examples: leave them out)."),
        (np.eye(3), "labels must be class numbers (b,), got (3, 3); use argmax over the last axis for one-hot rows."),
        ([0.0, 1.0], "labels must be integers of shape (b,), got float32 of shape (2,)."),
        (1, "labels must be integers of shape (b,), got int32 of shape ()."),
    ],
)
def test_labels(labels, message):
    # Kills: an upper bound of num_classes itself, which one_hot turns into zeros in silence; negative labels, which index from the end.
    assert message in refused(check.check_labels, np.asarray(labels), num_classes=3)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "int32"])
def test_good_labels_become_int32(dtype):
    got = check.check_labels(np.array([0, 2, 1], dtype), num_classes=3)
    assert got.dtype == jnp.int32 and got.tolist() == [0, 2, 1]
    assert jax.jit(lambda x: check.check_labels(x, num_classes=2))(np.array([7])).dtype == jnp.int32


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.zeros(3), "logits must be floats of shape (b, k), got float32 of shape (3,)."),
        (np.zeros((3, 2), int), "logits must be floats of shape (b, k), got int32 of shape (3, 2)."),
    ],
)
def test_logits(logits, message):
    # Kills: either condition left out.
    assert message in refused(check.check_logits, logits)
    assert "p_logits must" in refused(check.check_logits, logits, name="p_logits")
    assert check.check_logits(np.zeros((3, 2), jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.eye(3, dtype=int), "targets must be float distributions (b, 3), got int32; use jax.nn.one_hot for labels."),
        (np.eye(2), "targets must have shape (b, 3), got (2, 2)."),
        (np.array([[0, 0, 1], [0.5, 0.6, 0]]), "row 1 holds values from 0 to 0.6 and sums to 1.1"),
        (np.array([[1.2, -0.2, 0]]), "row 0 holds values from -0.2 to 1.2 and sums to 1;"),
        (np.array([[np.nan, 0.5, 0.5]]), "row 0 holds values from nan"),
        (np.array([[0, 0, 1], [np.inf, 0, 0]]), "row 1 holds values from 0 to inf"),
    ],
)
def test_targets(targets, message):
    # Kills: sums alone checked; negative masses; NaN, for which comparisons are false.
    assert message in refused(check.check_targets, targets, num_classes=3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("k", [3, 1000])
def test_good_targets_pass(dtype, k):
    # Kills: a tolerance tighter than the rounding of the dtype: three thirds are 1.002 in bfloat16.
    rows = np.random.default_rng(0).dirichlet(np.ones(k), 20)
    rows[0] = 1 / k
    targets = jnp.asarray(rows, dtype)
    assert check.check_targets(targets, num_classes=k) is targets


def test_the_tolerance_of_targets_does_not_grow_with_the_classes():
    # Kills: a tolerance per value, under which 1000 classes may miss 1% of their mass.
    assert "sums to 0.998" in refused(check.check_targets, np.full((1, 1000), 0.998e-3), num_classes=1000)


def test_keys():
    # Kills: raw keys, whose leading axis passes for the batch; one key for all examples.
    keys = example_keys(jax.random.key(0), jnp.arange(3))
    assert check.check_keys(keys, 3) is keys
    assert "keys must have shape (4,), one for each example, got (3,)." in refused(check.check_keys, keys, 4)
    assert check.check_keys(keys) is keys
    assert "keys must have shape (b,), one for each example, got (3, 2)." in refused(check.check_keys, jax.vmap(jax.random.split)(keys))
    keys = example_keys(jax.random.key(0), jnp.arange(3))
    assert "got a single key; use core.example_keys(key, ids)" in refused(check.check_keys, jax.random.key(0), 3)
    assert "typed PRNG keys, got uint32 of shape (3, 2); use core.example_keys" in refused(check.check_keys, jax.random.key_data(keys), 3)
    assert "got int" in refused(check.check_keys, 0, 3)
    assert jax.jit(lambda k: check.check_keys(k, 3))(keys).shape == (3,)


def test_is_concrete():
    seen = []
    for transform in (jax.jit, jax.grad, jax.vmap):
        transform(lambda x: (seen.append(check.is_concrete({"a": 1.0}, [x])), x)[1])(jnp.ones(2) if transform is jax.vmap else 1.0)
    assert seen == [False] * 3 and check.is_concrete({"a": 1.0}, jnp.ones(2), None, "x")
