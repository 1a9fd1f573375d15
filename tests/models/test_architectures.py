"""The networks are the published ones: parameter counts, outputs and gradients as in torch, initial laws, and options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from robustjax import models
from robustjax.core import InputError
from robustjax.models import initial, layers, normalize
from tests.goldens import reference


def count(name, **options):
    """Parameters, without drawing any."""
    abstract = nnx.eval_shape(lambda: models.make(name, **options))
    return sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(nnx.state(abstract, nnx.Param)))


@pytest.mark.parametrize(
    ("expected", "name", "shape", "options"),
    [
        (2_243_546, "wide_resnet", (32, 32, 3), {}),
        (11_173_962, "resnet18", (32, 32, 3), {}),
        (11_181_642, "resnet18", (64, 64, 3), {"stem": "imagenet"}),
        (312_202, "mnist_cnn", (28, 28, 1), {}),
        (24_058, "small_cnn", (16, 16, 1), {}),
        (94_762, "small_cnn", (32, 32, 3), {"width": 32}),
        (46_160_474, "wide_resnet", (32, 32, 3), {"depth": 34, "width": 10}),
        (11_172_170, "preact_resnet18", (32, 32, 3), {}),
        (14_728_266, "vgg16_bn", (32, 32, 3), {}),
        (14_728_266, "vgg16_bn", (64, 64, 3), {}),
        (2_296_922, "mobilenet_v2", (32, 32, 3), {}),
        (4_214_842, "mobilenet_v3_large", (224, 224, 3), {}),
        (5_483_032, "mobilenet_v3_large", (32, 32, 3), {"num_classes": 1000}),
        (1_528_106, "mobilenet_v3_small", (400, 500, 3), {}),
        (2_542_856, "mobilenet_v3_small", (32, 32, 3), {"num_classes": 1000}),
        (11_235_786, "resnet18", (32, 32, 3), {"embedding": 128}),
        (563_930, "wide_resnet", (32, 32, 3), {"depth": 40, "width": 1}),
        (36_479_194, "wide_resnet", (32, 32, 3), {"depth": 28, "width": 10}),
        (1_059_298, "densenet_40_12", (32, 32, 3), {}),
        (769_162, "densenet_bc_100_12", (32, 32, 3), {}),
        (1_409_674, "allconv", (32, 32, 3), {}),
        (23_520_842, "resnet50", (32, 32, 3), {}),
        (23_528_522, "resnet50", (224, 224, 3), {"stem": "imagenet"}),
        (25_557_032, "resnet50", (224, 224, 3), {"stem": "imagenet", "num_classes": 1000}),
    ],
)
def test_parameter_counts(expected, name, shape, options):
    # Kills: a bias or a batch norm too many or too few, another width, a projection where none is.
    assert count(name, **{"num_classes": 10, "image_shape": shape, **options}) == expected


CASES = reference.load("models/forward.json")["cases"] if reference.HERE.joinpath("models/forward.json").is_file() else []


def draw(arrays):
    """The arrays that the reference was computed with; the law is in its provenance."""
    rng, drawn = np.random.default_rng(0), {}
    for name in sorted(arrays):
        z = rng.standard_normal(arrays[name].shape)
        if name.endswith("kernel"):
            z = z * (2 / np.prod(z.shape[:-1])) ** 0.5
        else:
            z = 1 + 0.3 * np.tanh(z) if name.endswith(("scale", "var")) else 0.3 * z
        drawn[name] = jnp.asarray(z)
    return drawn


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['name']}-{case['image_shape'][0]}")
def test_same_function_and_gradient_as_torch(case):
    # Kills: 'SAME' padding of strided convolutions; a shortcut that reads x instead of relu(bn(x)), or the other way round; another
    # order of bn, relu and conv; unbiased variance in normalising; another epsilon; pooling that keeps odd rows; a missing last relu.
    with jax.enable_x64(True):
        model = models.make(case["name"], num_classes=5, image_shape=case["image_shape"], mean=0.4, std=0.25, **case["options"])
        apply, params, batch_stats = models.split(model)
        params, batch_stats = draw(params), draw(batch_stats)
        images = np.random.default_rng(1).uniform(size=(3, *case["image_shape"]))
        labels = jnp.eye(3, 5)

        def loss(params, train):
            logits = apply(params, batch_stats, images, train, key=jax.random.key(0))[0].logits
            return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), axis=1)), logits

        _, logits = jax.jit(loss, static_argnums=1)(params, False)
        np.testing.assert_allclose(logits, case["eval"]["logits"], rtol=1e-9, atol=1e-9)
        gradient, logits = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)(params, True)
        np.testing.assert_allclose(logits, case["train"]["logits"], rtol=1e-9, atol=1e-9)
        norm = np.sqrt(sum(np.sum(np.square(value)) for value in gradient.values()))
        np.testing.assert_allclose(norm, case["train"]["gradient_norm"], rtol=1e-9)


def test_the_reference_is_there():
    # Kills: an empty table above, which would test nothing. The file is part of the repository.
    assert len(CASES) == 8


def test_initial_laws():
    # Kills: fan_in for fan_out; truncated or uniform for normal; a bound of sqrt(3 / n); chunks that repeat; a cut that is off.
    shape = (3, 3, 64, 256)  # above two chunks
    z = np.asarray(initial.he_fan_out(jax.random.key(0), shape))
    np.testing.assert_allclose([z.mean(), z.std()], [0, (2 / (9 * 256)) ** 0.5], atol=4e-4)
    np.testing.assert_allclose(np.mean((z / z.std()) ** 4), 3, atol=0.1)
    flat = z.reshape(-1)
    assert len(np.unique(flat[: initial.CHUNK].round(12))) > 0.5 * initial.CHUNK
    assert not np.array_equal(flat[: initial.CHUNK], flat[initial.CHUNK : 2 * initial.CHUNK])
    np.testing.assert_allclose(np.std(initial.he_fan_in(jax.random.key(1), shape)), (2 / (9 * 64)) ** 0.5, rtol=0.02)
    u = np.asarray(initial.torch_default(jax.random.key(2), (400, 100)))
    assert 0.0499 < u.max() <= 0.05 and -0.05 <= u.min() < -0.0499
    np.testing.assert_allclose(u.std(), 0.05 / 3**0.5, rtol=0.02)
    b = np.asarray(initial.uniform(0.5)(jax.random.key(3), (1000,)))
    assert 0.48 < b.max() <= 0.5 and -0.5 <= b.min() < -0.48


def test_each_network_starts_as_its_released_code_does():
    # Kills: swapped initial laws: WRN's head bias is 0, torchvision's is not; mnist_cnn's head is 0 and its convolutions are fan_in.
    options = {"num_classes": 10, "image_shape": (32, 32, 3)}
    wrn = models.split(models.make("wide_resnet", depth=10, width=2, **options))[1]
    assert not wrn["head.bias"].any() and 0.08 < jnp.max(jnp.abs(wrn["head.kernel"])) <= 128**-0.5
    np.testing.assert_allclose(jnp.std(wrn["blocks.2.conv1.kernel"]), (2 / (9 * 128)) ** 0.5, rtol=0.03)
    resnet = models.split(models.make("resnet18", width=8, **options))[1]
    assert resnet["head.bias"].any() and jnp.max(jnp.abs(resnet["head.bias"])) <= 64**-0.5
    neck = models.split(models.make("resnet50", width=8, blocks=(1, 1), **options))[1]
    assert neck["head.bias"].any() and jnp.all(neck["blocks.1.bn3.scale"] == 1)  # not torchvision's zero_init_residual
    np.testing.assert_allclose(jnp.std(neck["blocks.1.conv3.kernel"]), (2 / 64) ** 0.5, rtol=0.1)
    dense = models.split(models.make("densenet_bc_100_12", depth=10, growth=24, **options))[1]
    assert not dense["head.bias"].any() and 0.08 < jnp.max(jnp.abs(dense["head.kernel"])) <= len(dense["head.kernel"]) ** -0.5
    np.testing.assert_allclose(jnp.std(dense["blocks.0.conv1.kernel"]), (2 / 96) ** 0.5, rtol=0.05)
    allconv = models.split(models.make("allconv", width=16, **options))[1]
    assert not allconv["head.bias"].any() and 0.12 < jnp.max(jnp.abs(allconv["blocks.2.convs.1.bias"])) <= 32**-0.5
    np.testing.assert_allclose(jnp.std(allconv["blocks.1.convs.0.kernel"]), (2 / (9 * 32)) ** 0.5, rtol=0.05)
    mnist = models.split(models.make("mnist_cnn", num_classes=10, image_shape=(28, 28, 1)))[1]
    assert not mnist["head.kernel"].any() and mnist["hidden1.bias"].any() and not mnist["convs.2.bias"].any()
    np.testing.assert_allclose(jnp.std(mnist["convs.2.kernel"]), (2 / (9 * 32)) ** 0.5, rtol=0.05)


@pytest.mark.parametrize(
    ("name", "small", "kernel", "fan_in", "bias"),
    [
        ("preact_resnet18", {"width": 8, "blocks": (1, 1)}, "blocks.1.shortcut_conv.kernel", 8, "head.bias"),
        ("preact_resnet18", {"width": 8, "blocks": (1, 1)}, "blocks.1.conv2.kernel", 144, "head.bias"),
        ("vgg16_bn", {"width": 8, "groups": (1, 1)}, "blocks.1.convs.0.kernel", 72, "blocks.1.convs.0.bias"),
        ("mobilenet_v2", {"width": 2, "blocks": (1, 1)}, "blocks.1.conv2.kernel", 9, "head.bias"),
    ],
)
def test_networks_that_start_as_torch_does(name, small, kernel, fan_in, bias):
    # Kills: He normal for torch's default; fan_in of a depthwise convolution times its channels; a bias of 0, or with another bound.
    params = models.split(models.make(name, num_classes=10, image_shape=(8, 8, 3), **small))[1]
    largest = jnp.max(jnp.abs(params[kernel]))
    assert 0.93 * fan_in**-0.5 < largest <= fan_in**-0.5
    np.testing.assert_allclose(jnp.std(params[kernel]), fan_in**-0.5 / 3**0.5, rtol=0.15)
    inputs = fan_in if bias != "head.bias" else params["head.kernel"].shape[0]
    assert 0.5 * inputs**-0.5 < jnp.max(jnp.abs(params[bias])) <= inputs**-0.5


@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1)])
def test_max_pool_is_flax_s_with_its_gradient(size, stride, padding):
    # Kills: windows off by one, odd rows kept, a gradient to the wrong pixel, padding on one side.
    x = jax.random.uniform(jax.random.key(0), (2, 9, 12, 3))
    cotangent = jax.random.normal(jax.random.key(1), layers.max_pool(x, size=size, stride=stride, padding=padding).shape)
    ours = jax.vjp(lambda x: layers.max_pool(x, size=size, stride=stride, padding=padding), x)
    flax = jax.vjp(lambda x: nnx.max_pool(x, (size, size), (stride, stride), [(padding, padding)] * 2), x)
    np.testing.assert_array_equal(ours[0], flax[0])
    np.testing.assert_allclose(ours[1](cotangent)[0], flax[1](cotangent)[0], rtol=1e-6)


def test_normalisation_by_channel():
    # Kills: mean and std swapped, or applied along another axis; multiplication by std.
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 3, 3, 3)), jnp.float32)
    mean, std = normalize.constants((0.1, 0.2, 0.3), 0.5, channels=3)
    done = normalize.normalize(images, mean=mean, std=std)
    np.testing.assert_allclose(done[..., 1], (images[..., 1] - 0.2) / 0.5, rtol=1e-6)
    np.testing.assert_allclose(done[..., 2], (images[..., 2] - 0.3) / 0.5, rtol=1e-6)


def test_numbers_of_numpy_are_numbers():
    # Kills: isinstance(n, int) of sizes read off an array; a mean of np.float32 taken for a sequence; other numbers kept as they are.
    size = np.array([8, 8, 1])
    model = models.make(
        "small_cnn", num_classes=np.int64(3), image_shape=tuple(size), mean=np.float32(0.5), std=np.array([0.25], np.float32), width=4
    )
    plain = models.make("small_cnn", num_classes=3, image_shape=(8, 8, 1), mean=0.5, std=0.25, width=4)
    assert model.spec == plain.spec and {type(n) for n in (model.spec.num_classes, *model.spec.image_shape)} == {int}
    np.testing.assert_array_equal(model(jnp.full((1, 8, 8, 1), 0.3)), plain(jnp.full((1, 8, 8, 1), 0.3)))


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("unknown model 'resnet_18'; did you mean 'resnet18'", {"name": "resnet_18"}),
        ("unknown option.*'dept'; did you mean 'depth'", {"name": "wide_resnet", "dept": 40}),
        (r"depth = 6 n \+ 4.*depth=41", {"name": "wide_resnet", "depth": 41}),
        ("dropout is a probability.*got 1", {"name": "wide_resnet", "depth": 10, "dropout": 1}),
        ("stem must be 'cifar' or 'imagenet', got 'tiny'", {"name": "resnet18", "stem": "tiny"}),
        (r"\(8, 8, 3\).*too small for resnet18.*32x32", {"name": "resnet18", "stem": "imagenet", "image_shape": (8, 8, 3)}),
        (r"mnist_cnn is a network for grey images.*\(28, 28, 3\)", {"name": "mnist_cnn", "image_shape": (28, 28, 3)}),
        (r"\(28, 28, 3\).*too small for vgg16_bn.*32x32", {"name": "vgg16_bn", "image_shape": (28, 28, 3)}),
        (r"vgg16_bn needs a width and groups of at least 1.*groups=\(2, 0\)", {"name": "vgg16_bn", "groups": (2, 0)}),
        (r"preact_resnet18 needs a width and blocks.*width=0", {"name": "preact_resnet18", "width": 0}),
        (r"mobilenet_v2 needs a width above 0.*width=-1", {"name": "mobilenet_v2", "width": -1}),
        (r"one to 7 blocks of at least 1.*blocks=\(\)", {"name": "mobilenet_v2", "blocks": ()}),
        (r"mobilenet_v3_small needs a width above 0.*width=0", {"name": "mobilenet_v3_small", "width": 0}),
        (r"at most \(1, 2, 3, 4, 2, 3\).*blocks=\(2,\)", {"name": "mobilenet_v3_large", "blocks": (2,)}),
        (r"\(28, 28, 3\).*too small for mobilenet_v3_small.*32x32", {"name": "mobilenet_v3_small", "image_shape": (28, 28, 3)}),
        ("embedding is the size of a layer.*got -1", {"name": "resnet18", "embedding": -1}),
        ("embedding is the size of a layer.*got -1", {"embedding": -1}),
        (r"densenet_40_12 needs depth = 3 n \+ 4 \(without bottleneck\).*depth=41", {"name": "densenet_40_12", "depth": 41}),
        (r"densenet_bc_100_12 needs depth = 6 n \+ 4 \(with bottleneck\).*depth=13", {"name": "densenet_bc_100_12", "depth": 13}),
        (r"n >= 1, and growth >= 1, got depth=4, growth=12", {"name": "densenet_40_12", "depth": 4}),
        (r"n >= 1, and growth >= 1, got depth=40, growth=0", {"name": "densenet_40_12", "growth": 0}),
        ("reduction is the share of channels.*got 1.5", {"name": "densenet_bc_100_12", "reduction": 1.5}),
        ("allconv needs a width of at least 1, got 0", {"name": "allconv", "width": 0}),
        (r"\(11, 32, 3\).*too small for allconv.*12x12", {"name": "allconv", "image_shape": (11, 32, 3)}),
        ("image_shape must be", {"image_shape": (32, 32)}),
        ("num_classes must be at least 2, got 1", {"num_classes": 1}),
        ("mean has 2 values, the images have 3 channels", {"mean": (0.5, 0.5)}),
        ("std must be finite and above 0", {"std": 0.0}),
        ("dtype of a network must be 'float32' or 'bfloat16', got 'float16'", {"dtype": "float16"}),
        ("width and convs of at least 1", {"width": 0}),
    ],
)
def test_bad_requests_get_one_clear_line(message, options):
    # Kills: a check left out, or one that names another thing.
    with pytest.raises(InputError, match=message) as error:
        models.make(**{"name": "small_cnn", "num_classes": 10, "image_shape": (32, 32, 3), **options})
    assert "\n" not in str(error.value)
