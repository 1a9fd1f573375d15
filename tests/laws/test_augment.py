"""Laws of every augmentation in the table. A new entry is tested by being listed in OPTIONS."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from robustjax import augment
from robustjax.core import example_keys
from robustjax.models.image_to_image import convolution, first, last

B, K = 8, 5
OPTIONS = {
    "none": {},
    "crop": {"pad": 2},
    "flip": {},
    "crop_flip": {"pad": 2},
    "color_jitter": {"brightness": 0.4, "contrast": 0.3, "saturation": 0.5, "hue": 0.2},
    "rotation": {"degrees": 30.0},
    "perspective": {"distortion_scale": 0.7, "p": 0.8},
    "spider": {"tau": 6.0, "xi": 0.2},
    "esp": {"epsilon": 2.0, "tau": 1.5, "xi": 0.3},
    "no_ls": {"tau": 6.0},
    "std_ls": {"alpha": 0.2},
    "l2_sphere": {"radius": 3.0},
    "l2_ball": {"tau": 3.0},
    "gaussian_noise": {"std": 0.3},
    "uniform_noise": {"amplitude": 0.3},
    "cutout": {"size": 3},
    "mixup": {"alpha": 0.8},
    "cutmix": {"alpha": 1.0},
    "augmix": {"severity": 3.0, "alpha": 1.0},
    "pixmix": {"beta": 3.0, "severity": 3.0, "mixers": 50},
    "deepaugment": {
        "layers": ((first, convolution, last),),
        "distortions": ("negate_filters", "flip_signal", "drop_weights"),
        "group_size": 1,
    },
}


def network(channels=3):
    """Returns params for the layers of 'deepaugment', of four maps."""
    rng = np.random.default_rng(1)
    sizes = ((4 * channels, 4), (4, 4), (4, 4 * channels))
    return [{"kernel": np.float32(rng.normal(size=(3, 3, *size)) / 9), "bias": np.float32(rng.normal(size=size[1:]) / 9)} for size in sizes]


OPTIONS["deepaugment"]["params"] = (network(),)
STATIC = {"pad", "size", "mixers", "layers", "params", "distortions", "group_size"}
PARTNERS = {"mixup", "cutmix"}  # take other examples of the batch
EVERY = pytest.mark.parametrize("name", augment.TABLE)
INDEPENDENT = pytest.mark.parametrize("name", [name for name in augment.TABLE if name not in PARTNERS])
# Their programs take long to compile: most of their laws are of the slow half, and so is how entries like others compose.
LONG = {"augmix", "pixmix", "deepaugment"}
LIKE_OTHERS = {"crop", "flip", "no_ls", "l2_sphere", "l2_ball", "gaussian_noise", "uniform_noise", "color_jitter", "perspective"}


def shortly(names, slow=LONG):
    """Returns the parametrisation by names, those in `slow` marked so."""
    return pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names])


def keys(ids=None):
    return example_keys(jax.random.key(7), jnp.arange(B) if ids is None else jnp.asarray(ids))


def batch(dtype=np.float32):
    """Images inside the box, on its faces, and on few levels; hard and mixed targets."""
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(B, 6, 6, 3))
    images[2:4] = images[2:4].round()
    images[4:6] = rng.choice([0, 0.5, 1], size=images[4:6].shape)
    targets = np.eye(K)[rng.integers(K, size=B)]
    targets[::2] = 0.7 * targets[::2] + 0.3 * np.eye(K)[rng.integers(K, size=B // 2)]
    return jnp.asarray(images, dtype), jnp.asarray(targets, np.float64 if dtype is np.float64 else np.float32)


@functools.cache
def bound(name, **options):
    """Returns the entry with its options, jitted; the same function each time, so that laws share what was compiled."""
    return jax.jit(lambda keys, images, targets: augment.TABLE[name](keys, images, targets, **{**OPTIONS[name], **options}))


def assert_close(a, b, atol=1e-6):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=atol)


def test_every_entry_is_covered_and_declares_options_that_exist():
    # Kills: an entry that no law sees; a strength that names nothing.
    assert set(OPTIONS) == set(augment.TABLE)
    assert all(set(strength) <= set(OPTIONS[name]) for name, strength in augment.STRENGTH.items())


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        pytest.param(dtype, name, marks=pytest.mark.slow) if dtype is not np.float32 and name in LONG | LIKE_OTHERS else (dtype, name)
        for dtype in (np.float32, np.float64, jnp.bfloat16)
        for name in augment.TABLE
    ],
)
def test_shape_dtype_range_and_distributions(dtype, name):
    # Kills: sums in bfloat16; float64 lost; pixels out of the box by rounding; targets that do not sum to 1.
    with jax.enable_x64(dtype is np.float64):
        images, targets = batch(dtype)
        out, soft = map(np.asarray, bound(name)(keys(), images, targets))
    assert out.shape == images.shape and soft.shape == targets.shape
    # bfloat16 images come back as they are, or lifted where something was computed.
    assert out.dtype in ((jnp.bfloat16, np.float32) if dtype is jnp.bfloat16 else (dtype,))
    assert soft.dtype == targets.dtype
    assert out.min() >= 0 and out.max() <= 1
    assert soft.min() >= 0
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-5)


@EVERY
def test_one_channel_is_kept(name):
    # Kills: an entry that takes grey images for colour, adds channels or drops the axis. Nothing is compiled.
    given = jax.ShapeDtypeStruct((B, 8, 8, 1), jnp.float32), jax.ShapeDtypeStruct((B, K), jnp.float32)
    options = OPTIONS[name] | ({"params": (network(channels=1),)} if name == "deepaugment" else {})
    assert jax.eval_shape(lambda images, targets: augment.TABLE[name](keys(), images, targets, **options), *given) == given


@shortly(augment.TABLE, LONG | LIKE_OTHERS)
def test_jit_equals_eager_and_is_traced_once(name):
    # Kills: Python branches on values; options that recompile when they change; state kept between calls.
    images, targets = batch()
    static = {k: v for k, v in OPTIONS[name].items() if k in STATIC}
    traces = []

    @jax.jit
    def jitted(keys, images, targets, options):
        traces.append(1)
        return augment.TABLE[name](keys, images, targets, **options, **static)

    for scale in (1.0, 0.5):
        options = {k: jnp.float32(scale * v) for k, v in OPTIONS[name].items() if k not in STATIC}
        assert_close(jitted(keys(), images, targets, options), augment.TABLE[name](keys(), images, targets, **options, **static))
    assert len(traces) == 1


@EVERY
def test_key_decides_everything(name):
    # Kills: a global seed; an ignored key; one draw for the whole batch.
    images, targets = batch()
    run = bound(name)
    first = run(keys(), images, targets)
    for x, y in zip(first, run(keys(), images, targets), strict=True):
        np.testing.assert_array_equal(x, y)
    if name not in ("none", "std_ls"):  # the two that draw nothing
        other, _ = run(keys(np.arange(B) + 100), images, targets)
        assert not np.array_equal(other, first[0])
    if name not in {"none", "std_ls", *PARTNERS}:
        same = jnp.broadcast_to(images[:1], images.shape)
        moved = np.asarray(run(keys(), same, targets)[0])
        assert len({image.tobytes() for image in moved}) > 1


@INDEPENDENT
@pytest.mark.parametrize("ids", [[3], [7, 6, 5, 4, 3, 2, 1, 0]], ids=str)
def test_splitting_and_permuting_the_batch_does_the_same_to_the_result(name, ids):
    # Kills: draws that depend on the place or the batch size; statistics over the batch.
    images, targets = batch()
    run, ids = bound(name), np.array(ids)
    whole = run(keys(), images, targets)
    assert_close(run(keys(ids), images[ids], targets[ids]), [x[ids] for x in whole])


@pytest.mark.parametrize("ids", [[3], [6, 1, 0]], ids=str)
def test_raw_draws_do_not_depend_on_the_batch_at_all(ids):
    # Kills: a draw of the whole batch with one key; unsafe generators.
    ids = np.array(ids)
    draws = {
        "uniform": lambda k: augment.uniform_radius(k, tau=1.0),
        "truncated": lambda k: augment.truncated_normal_radius(k, mean=1.0, stddev=0.5, low=0.0, high=2.0),
        "crop": lambda k: augment.random_crop(k, jnp.broadcast_to(batch()[0][:1], (k.shape[0], 6, 6, 3)), pad=2),
        "flip": lambda k: augment.random_flip(k, jnp.broadcast_to(batch()[0][:1], (k.shape[0], 6, 6, 3))),
    }
    for draw in draws.values():
        np.testing.assert_array_equal(jax.jit(draw)(keys(ids)), jax.jit(draw)(keys())[ids])


@pytest.mark.parametrize("name", augment.STRENGTH)
def test_strength_zero_changes_nothing(name):
    # Kills: an offset; 0/0; labels softened where nothing moved.
    images, targets = batch()
    out, soft = bound(name, **{option: 0 for option in augment.STRENGTH[name]})(keys(), images, targets)
    np.testing.assert_array_equal(out, images)
    np.testing.assert_array_equal(soft, targets)


@shortly([name for name in augment.TABLE if name not in PARTNERS], LONG | LIKE_OTHERS)
def test_composes_with_vmap_and_grad(name):
    # Kills: shapes that are only right without another batch axis; gradients that are NaN at faces of the box.
    images, targets = batch()
    run = bound(name)
    halves = lambda x: x.reshape(2, B // 2, *x.shape[1:])  # noqa: E731
    mapped = jax.vmap(run)(halves(keys()), halves(images), halves(targets))
    assert_close([x.reshape(y.shape) for x, y in zip(mapped, (images, targets), strict=True)], run(keys(), images, targets))
    gradient = jax.grad(lambda x: sum(jnp.sum(y**2) for y in run(keys(), x, targets)))(images)
    assert jnp.isfinite(gradient).all() and jnp.any(gradient != 0)


@shortly([name for name in augment.TABLE if name not in PARTNERS])
@pytest.mark.parametrize("check_vma", [False, True])
def test_eight_devices_equal_one(name, check_vma):
    # Kills: collectives or shapes that assume the whole batch; a loop that starts from constants, which jax's default check refuses.
    images, targets = batch()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    run = bound(name)
    sharded = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=check_vma))
    assert_close(sharded(keys(), images, targets), run(keys(), images, targets))


@shortly(augment.TABLE)
def test_rows_on_eight_devices_are_taken_as_they_are(name):
    # Kills: images[0], which cannot be cut out of rows that lie on a mesh of the kind jax makes by default.
    images, targets = batch()
    rows = NamedSharding(jax.make_mesh((8,), ("data",)), P("data"))
    given = (jax.device_put(x, rows) for x in (keys(), images, targets))
    assert_close(augment.TABLE[name](*given, **OPTIONS[name]), bound(name)(keys(), images, targets))
