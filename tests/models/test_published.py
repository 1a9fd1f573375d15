"""DeepAugment's published networks with torch's weights: the same outputs as in torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import augment
from robustjax.core import InputError, example_keys
from robustjax.models import image_to_image, published
from tests.goldens import reference

GOLDEN = reference.load("models/deepaugment_networks.json")
CASES = {case["name"]: case for case in GOLDEN["cases"]}


def state(name):
    """The state dict that the reference was computed with; the law is in its provenance."""
    rng, drawn = np.random.default_rng(0), {}
    for array, shape in CASES[name]["state"]:
        z = rng.standard_normal(shape)
        drawn[array] = 0.6 * z / np.sqrt(np.prod(shape[1:])) if z.ndim > 1 else 0.1 * z
        if "_mean" in array:
            shift = 255 * np.array([0.4488, 0.4371, 0.4040])
            drawn[array] = np.eye(3).reshape(3, 3, 1, 1) if z.ndim > 1 else shift if array.startswith("add") else -shift
    return drawn


def saved(folder, name, **changes):
    path = folder / "weights.npz"
    np.savez(path, **(state(name) | changes))
    return path


def run(layers, params, images):
    for layer, own in zip(layers, params, strict=True):
        images = layer(own, images)
    return images


@pytest.mark.parametrize("name", published.NAMES)
def test_same_outputs_as_torch_with_its_weights(name, tmp_path):
    # Kills: a kernel not transposed, or a transposed convolution's the wrong way round; padding on other sides, by other values or behind the
    # activation; windows put together in another order; a skip connection forgotten; values of 8 bits for those in [0, 1].
    case, network = CASES[name], published.load(name, saved(tmp_path, name))
    layers = [published.enlarged_images if layer is published.averaged_images else layer for layer in network.layers]
    images = np.random.default_rng(1).uniform(size=(1, 3, *case["image_shape"][:2])).transpose(0, 2, 3, 1).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        found = jax.jit(lambda params, images: run(layers, params, images))(network.params, images)
    expected = np.reshape(case["output"], case["output_shape"])
    np.testing.assert_allclose(found[0], expected, atol=2e-6)
    assert jax.tree.structure(published.like(name).params) == jax.tree.structure(network.params)
    assert [a.shape for a in jax.tree.leaves(published.like(name).params)] == [a.shape for a in jax.tree.leaves(network.params)]
    # What is made of images of any size is of that size.
    odd = jax.ShapeDtypeStruct((2, 10, 13, 3), np.float32)
    assert jax.eval_shape(lambda images: image_to_image.apply(network.layers, network.params, images), odd).shape == (2, 10, 13, 3)


def test_the_image_is_the_average_of_the_enlarged_one():
    # Kills: one pixel out of sixteen; windows of other pixels.
    maps = jax.random.uniform(jax.random.key(0), (1, 8, 12, 2))
    params = [{"kernel": jnp.ones((1, 1, 2, 3)), "bias": jnp.zeros(3)}]
    large, small = published.enlarged_images(params, maps), published.averaged_images(params, maps)
    np.testing.assert_allclose(small[0, 1, 2], large[0, 4:8, 8:12].mean((0, 1)), rtol=1e-5)


def test_they_are_distorted_like_others(tmp_path):
    # Kills: layers that the kernel does not take; an image that comes back as it is.
    network = published.load("cae", saved(tmp_path, "cae"))
    images = np.random.default_rng(1).uniform(size=(2, 12, 12, 3)).astype(np.float32)
    keys = lambda: example_keys(jax.random.key(0), np.arange(2))  # noqa: E731
    out = augment.deepaugment(keys(), images, *network, distortions=("negate_signal",), group_size=2)
    plain = image_to_image.apply(network.layers, network.params, images)
    assert out.shape == images.shape and np.isfinite(out).all() and float(abs(out - plain).max()) > 1e-3


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("edsr", {"sub_mean.bias": np.zeros(3)}, "is of an EDSR for other images: its sub_mean is not that of 8-bit RGB images"),
        ("edsr", {"head.0.weight": np.zeros((32, 3, 3, 3))}, "1 of another shape, first 'head.0.weight'"),
        ("cae", {"e_conv_4.0.weight": np.zeros((1, 1, 1, 1))}, "1 not of this model: 'e_conv_4.0.weight'"),
    ],
)
def test_other_files_are_refused(name, change, message, tmp_path):
    # Kills: weights of another range of values, or of another network, taken for these.
    with pytest.raises(InputError, match=message):
        published.load(name, saved(tmp_path, name, **change))


def test_other_names_and_images_are_refused():
    # Kills: the checks left out.
    with pytest.raises(InputError, match="unknown published network 'cea'; did you mean 'cae'"):
        published.like("cea")
    for name, shape in (("cae", (1, 32, 32, 1)), ("cae", (1, 8, 32, 3)), ("edsr", (1, 32, 32, 1))):
        network = published.like(name)
        with pytest.raises(InputError, match="takes images of three channels"):
            jax.eval_shape(network.layers[0], network.params[0], jax.ShapeDtypeStruct(shape, np.float32))
