"""DeepAugment: each distortion against NumPy, image by image; what they do to trained networks; independence of the batch."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robustjax import augment
from robustjax.core import InputError, example_keys
from robustjax.core.rng import stream
from robustjax.models import image_to_image
from tests.augment.reconstruction import digits, trained

module = importlib.import_module("robustjax.augment.deepaugment")  # the function hides it
N = 104
LAYERS = (image_to_image.first, image_to_image.residual, image_to_image.halve, image_to_image.double, image_to_image.last)


def keys(ids, seed=0):
    return example_keys(jax.random.key(seed), jnp.asarray(ids))


def pictures(n, size=(6, 8)):
    return np.random.default_rng(0).uniform(size=(n, *size, 1)).astype(np.float32)


@functools.cache
def params():
    """Random weights of a network of six maps; no bias and no weight is 0."""

    def convolution(key, inputs, outputs):
        kernel, bias = jax.random.split(jax.random.key(key))
        return {"kernel": jax.random.normal(kernel, (3, 3, inputs, outputs)) / 5, "bias": jax.random.normal(bias, (outputs,)) / 5}

    block = {"first": convolution(1, 6, 6), "second": convolution(2, 6, 6)}
    return [convolution(0, 4, 6), block, convolution(3, 24, 6), convolution(4, 6, 24), convolution(5, 6, 4)]


def draws_of(keys, kinds, places, count):
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(lambda key: module._draw(key, kinds, places, count)))(keys))


def by_definition(name, draws, array, *, kernel=False):
    """Distorts one array in NumPy; `draws` are those of one image."""
    values, strength, n = draws.values, np.float32(draws.strength), array.shape[-1]
    share = np.float32(0.05) + np.float32(0.45) * strength
    order = np.argsort(values[:n], kind="stable")
    least = 2 if name.startswith("swap") else 1
    some = order[: max(least, int(np.ceil(np.float32(share * np.float32(n)))))]
    out, each = array.copy(), values[: array.size].reshape(array.shape)
    axes = {1: (0,), 2: (1,), 3: (0, 1)}[int(draws.which)]
    if name == "zero_filters":
        out[..., some] = 0
    elif name == "negate_filters":
        out[..., some] *= -1
    elif name in ("swap_filters", "swap_channels"):
        out[..., some] = array[..., np.roll(some, -1)]
    elif name == "scale_weights" and kernel:
        out *= 1 + 2 * strength * (2 * each - 1)
    elif name == "scale_channels":
        out *= 1 + 2 * strength * (2 * values[:n] - 1)
    elif name in ("drop_weights", "drop_signal") and (kernel or name == "drop_signal"):
        out[each < share] = 0
    elif name == "transpose_kernels" and kernel:
        out = np.swapaxes(array, 0, 1)
    elif name == "flip_kernels" and kernel:
        out = np.flip(array, axes)
    elif name == "flip_signal":
        out = np.flip(array, [axis + 1 for axis in axes])
    elif name == "negate_signal":
        out = -array
    elif name == "change_activation":
        out = np.asarray({1: jax.nn.gelu, 2: np.tanh, 3: np.sin}[int(draws.which)](array))
    return out


def test_distortions_are_those_of_the_list():
    # Kills: a distortion of another layer, or of two; biases left behind by their filters; the last layer distorted; shares above a half;
    # flips of examples or maps in place of pixels; a distortion that cannot be drawn.
    images = pictures(N)
    out = np.asarray(augment.deepaugment(keys(range(N)), images, LAYERS, params()))
    drawn = draws_of(keys(range(N)), len(module.ALL), len(LAYERS) - 1, max(9 * 24 * 6, 24 * 6))
    assert set(drawn.kind.tolist()) == set(range(len(module.ALL))) and set(drawn.place.tolist()) == set(range(len(LAYERS) - 1))
    arrays, run = jax.tree.map(np.asarray, params()), [jax.jit(layer) for layer in LAYERS]
    for i in range(N):
        draws = module.Draws(*(field[i] for field in drawn))
        name, maps = module.ALL[draws.kind], images[i : i + 1]
        for at, own in enumerate(arrays):
            if at == draws.place and name not in module.SIGNALS:
                own = jax.tree.map(lambda leaf, name=name, draws=draws: by_definition(name, draws, leaf, kernel=leaf.ndim > 1), own)
            maps = np.asarray(run[at](own, maps))
            if at == draws.place and name in module.SIGNALS:
                maps = by_definition(name, draws, maps)
        np.testing.assert_allclose(out[i], np.clip(maps[0, :6, :8], 0, 1), atol=2e-5, err_msg=f"{i}: {name} in layer {draws.place}")


def test_an_image_does_not_depend_on_its_batch():
    # Kills: draws by position; one distortion for the batch; results that differ inside another jit.
    images = pictures(N)
    whole = augment.deepaugment(keys(range(N)), images, LAYERS, params())
    part = [50, 3, 77]
    inside = jax.jit(lambda keys, images: augment.deepaugment(keys, images, LAYERS, params()))
    np.testing.assert_allclose(inside(keys(part), images[part]), np.asarray(whole)[part], atol=1e-5)


def test_groups_share_the_first_ones_distortion():
    # Kills: a group's images mixed up; draws of another member.
    images, ids = pictures(6), np.arange(6)
    grouped = augment.deepaugment(keys(ids), images, LAYERS, params(), distortions=("drop_signal", "drop_weights"), group_size=3)
    single = augment.deepaugment(keys(ids // 3 * 3), images, LAYERS, params(), distortions=("drop_signal", "drop_weights"))
    np.testing.assert_allclose(grouped, single, atol=1e-5)


def test_in_the_step_a_group_stays_or_passes_one_network():
    # Kills: an image that passes both networks, or always one; a network of each image in one group; draws of the choice that are those of
    # the distortion; images of a group in another place.
    n, images = 90, pictures(90)
    others = jax.tree.map(lambda leaf: -leaf, params())
    out = np.asarray(module.kept_or_distorted(keys(range(n)), images, [LAYERS] * 2, [params(), others], group_size=3))
    made = [
        np.asarray(augment.deepaugment(stream(keys(range(n)), 1 + at), images, LAYERS, own, group_size=3))
        for at, own in enumerate((params(), others))
    ]
    fits = np.stack([np.abs(out - one).max((1, 2, 3)) < 1e-5 for one in (images, *made)]).reshape(3, n // 3, 3)
    assert (fits.all(2).sum(0) >= 1).all()
    assert scipy.stats.chisquare(fits.all(2).sum(1)).pvalue > 1e-3
    # Each choice meets several distortions: the two draws are independent.
    kinds = draws_of(stream(keys(range(0, n, 3)), 1), len(module.ALL), len(LAYERS) - 1, 1).kind
    assert len(set(kinds[fits.all(2)[1]].tolist())) > 3


@pytest.mark.parametrize("name", image_to_image.NAMES)
def test_every_distortion_changes_what_a_trained_network_returns(name, tmp_path):
    # Kills: a distortion without effect in one of the networks; values outside [0, 1].
    source, _, validation_ids = digits()
    images = source.fetch(validation_ids)[0].astype(np.float32) / 255
    network, n = trained(name, tmp_path), len(images)
    out = np.asarray(augment.deepaugment(keys(range(n)), images, *network))
    assert np.isfinite(out).all() and out.min() >= 0 and out.max() <= 1
    without = np.asarray(jax.jit(image_to_image.apply, static_argnums=0)(network.layers, network.params, images))
    kinds = draws_of(keys(range(n)), len(module.ALL), len(network.layers) - 1, 1).kind
    changes = np.abs(out - without).mean((1, 2, 3))
    for number, distortion in enumerate(module.ALL):
        assert (changes[kinds == number] > 1 / 255).mean() > 0.75, distortion


def _bare(params, maps):
    return maps


def _pooled(params, maps):
    return maps.mean((1, 2))


def _with_skip(params, maps):
    return image_to_image.first(params, maps), maps


def _skipped(params, maps):
    hidden, images = maps
    return image_to_image.last(params, hidden) - images


def test_what_a_layer_carries_along_is_not_distorted():
    # Kills: a distortion of the long skip connection; one that spares the signal beside it.
    images, layers, own = pictures(8), (_with_skip, _skipped), [params()[0], params()[4]]
    signals = ("negate_signal",)
    out = augment.deepaugment(keys(range(8)), images, layers, own, distortions=signals)
    negated = [jax.tree.map(lambda leaf: -leaf, own[0]), own[1]]
    expected = jax.jit(lambda own, images: _skipped(own[1], _with_skip(own[0], images)))(negated, images)
    np.testing.assert_allclose(out, np.clip(expected, 0, 1), atol=1e-5)
    assert 0.1 < float((np.asarray(out) > 0).mean()) < 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distortions": ("negate_filter",)}, "unknown distortion 'negate_filter'; did you mean 'negate_filters'"),
        ({"distortions": ()}, "needs at least one distortion out of zero_filters"),
        ({"params": [{}]}, "needs params for each of at least one layer, got 5 layers and 1 params"),
        ({"group_size": 2}, "group_size must be a whole number that divides the 3 images, got 2"),
        ({"layers": (_bare, _bare), "params": [{}, {"kernel": jnp.ones((3, 3))}]}, "none of the layers before the last one has a kernel"),
        (
            {"layers": (_pooled,), "params": [jnp.ones((3, 3))]},
            r"layer 0 must return float maps \(b, h, w, c\), it returns float32 \(1, 1\)",
        ),
        ({"layers": LAYERS[:3], "params": params()[:3]}, r"the network returns \(2, 2, 6\) for images \(6, 8, 1\)"),
        ({"keys": jax.random.key(0)}, "keys must be one key an example, got a single key"),
    ],
)
def test_wrong_inputs_are_refused(change, message):
    # Kills: each check left out.
    arguments = {"keys": keys(range(3)), "images": pictures(3), "layers": LAYERS, "params": params(), **change}
    with pytest.raises(InputError, match=message):
        augment.deepaugment(**arguments)
