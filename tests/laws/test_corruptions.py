"""Laws that every corruption keeps, whatever it does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from robustjax import corruptions
from robustjax.core import example_keys
from robustjax.corruptions import registry
from tests.goldens import reference

NAMES = corruptions.NAMES["cifar_c"]
EVERY = pytest.mark.parametrize("name", NAMES)
RANDOM = [name for name in NAMES if registry.TABLE["cifar_c"][name].draw]
EXACT = [name for name in NAMES if not registry.TABLE["cifar_c"][name].draw]


def photographs():
    return (reference.load("corruptions_photos/cifar_c_32.npz")["images"] / 255).astype(np.float32)


def keys(seed=0, n=8):
    return example_keys(jax.random.key(seed), jnp.arange(n))


def corrupted(name, *, images=None, seed=0, severity=3, **options):
    images = photographs() if images is None else images
    return corruptions.corrupt(keys(seed, len(images)), images, name=name, severity=severity, **options)


@EVERY
def test_corrupt_is_apply_after_draw(name):
    # Kills: a corrupt with chance or arithmetic of its own.
    draws = corruptions.draw(keys(), photographs().shape, name=name, severity=3)
    assert bool(draws) == (name in RANDOM)
    np.testing.assert_array_equal(corruptions.apply(photographs(), draws, name=name, severity=3), corrupted(name))


@EVERY
def test_range_levels_and_truncation(name):
    # Kills: rounding for truncation; no clip; results off the 8-bit grid; quantize ignored.
    whole = np.asarray(corrupted(name), np.float64) * 255
    floats = np.asarray(corrupted(name, quantize=False), np.float64) * 255
    assert np.abs(whole - np.rint(whole)).max() < 1e-4
    for levels in (whole, floats):
        assert levels.min() >= 0 and levels.max() <= 255 and levels.shape == (8, 32, 32, 3)
    if name == "pixelate":  # rounds to the nearest, twice
        assert np.abs(floats - whole).max() <= 1.5
    else:
        assert (whole - floats).max() < 1e-3 and (floats - whole).max() < 1
    if name != "impulse_noise":  # which leaves levels as they are
        assert np.abs(floats - np.rint(floats)).max() > 0.1


@EVERY
def test_same_keys_same_result_and_new_keys_new_noise(name):
    # Kills: an ignored key; one draw for the whole batch; a global seed.
    np.testing.assert_array_equal(corrupted(name), corrupted(name))
    same = np.broadcast_to(photographs()[:1], photographs().shape)
    rows = np.asarray(corrupted(name, images=same))
    assert np.array_equal(rows[0], rows[1]) == (name in EXACT)
    assert np.array_equal(corrupted(name), corrupted(name, seed=1)) == (name in EXACT)


@EVERY
def test_jit_and_eager_agree(name):
    # Kills: Python branches on values; dtypes that only exist eagerly. disable_jit: each operation on its own.
    run = jax.jit(lambda k, x, s: corruptions.corrupt(k, x, name=name, severity=s, quantize=False))
    compiled = run(keys(n=2), photographs()[:2], jnp.asarray(3))
    with jax.disable_jit():
        eager = corrupted(name, images=photographs()[:2], quantize=False)
    apart = np.abs(np.asarray(compiled) - np.asarray(eager)) > 1e-6
    assert apart.mean() <= (1e-3 if name == "shot_noise" else 0)  # a photon count may sit on the edge between two


@EVERY
def test_draws_and_results_belong_to_the_example(name):
    # Kills: anything that depends on the batch: its size, its order, statistics over it.
    shape, order = photographs().shape, np.array([5, 2, 7, 0, 1, 6, 3, 4])
    whole = corruptions.draw(keys(), shape, name=name, severity=3)
    for ids in (order, order[:3], order[:1]):
        some = example_keys(jax.random.key(0), jnp.asarray(ids))
        draws = corruptions.draw(some, (len(ids), *shape[1:]), name=name, severity=3)
        assert draws.keys() == whole.keys()
        for key in draws:
            np.testing.assert_array_equal(draws[key], whole[key][ids])
        got = corruptions.apply(photographs()[ids], draws, name=name, severity=3, quantize=False)
        np.testing.assert_allclose(got, corrupted(name, quantize=False)[ids], atol=1e-6)


@EVERY
def test_vmap_over_views(name):
    # Kills: checks that need concrete values; axes counted from the front in the wrong place.
    views = photographs().reshape(2, 4, 32, 32, 3)
    run = jax.vmap(lambda k, x: corruptions.corrupt(k, x, name=name, severity=3, quantize=False))
    got = run(keys().reshape(2, 4), jnp.asarray(views))
    np.testing.assert_allclose(got.reshape(8, 32, 32, 3), corrupted(name, quantize=False), atol=1e-6)


@EVERY
def test_mapped_over_eight_devices(name):
    # Kills: keys or statistics shared over devices; with check_vma, loops whose carry changes its type when mapped.
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("data")
    run = jax.shard_map(
        lambda k, x: corruptions.corrupt(k, x, name=name, severity=3, quantize=False),
        mesh=mesh,
        in_specs=(spec, spec),
        out_specs=spec,
        check_vma=True,
    )
    images = jax.device_put(photographs(), NamedSharding(mesh, spec))
    np.testing.assert_allclose(jax.jit(run)(keys(), images), corrupted(name, quantize=False), atol=1e-6)


@EVERY
def test_one_program_for_all_severities(name, monkeypatch):
    # Kills: a severity that is static, in the compiled function or in a user's own.
    traces = []
    entry = registry.TABLE["cifar_c"][name]

    @functools.wraps(entry.apply)
    def counting(*args, **kwargs):
        traces.append(name)
        return entry.apply(*args, **kwargs)

    monkeypatch.setitem(registry.TABLE["cifar_c"], name, entry._replace(apply=counting))
    images = photographs()[:3, :, :31]  # a shape of its own, so that nothing is compiled yet
    plain = [np.asarray(corrupted(name, images=images, severity=severity)) for severity in range(1, 6)]
    assert len(traces) == 1
    run = jax.jit(lambda s: corrupted(name, images=images, severity=s))
    for severity in range(1, 6):
        np.testing.assert_allclose(run(jnp.asarray(severity)), plain[severity - 1], atol=1.01 / 255)
    assert len(traces) == 1


@EVERY
def test_severity_moves_away_from_the_clean_image(name):
    # Kills: constants in the wrong order; a severity that is off by one or ignored.
    distances = [np.linalg.norm(np.asarray(corrupted(name, severity=s, quantize=False)) - photographs()) for s in range(1, 6)]
    assert np.all(np.diff(distances) > 0.02 * distances[0]), distances


@EVERY
def test_dtypes(name):
    # Kills: float64 that is cut to float32 on the way; bfloat16 arithmetic; draws that change with the precision.
    assert corrupted(name, images=jnp.asarray(photographs(), jnp.bfloat16)).dtype == jnp.float32
    single = np.asarray(corrupted(name, quantize=False))
    with jax.enable_x64(True):
        double = corrupted(name, images=photographs().astype(np.float64), quantize=False)
        assert double.dtype == jnp.float64
    apart = np.abs(np.asarray(double) - single) > 1e-6
    assert apart.mean() <= (1e-3 if name == "shot_noise" else 0)


@EVERY
def test_gradients(name):
    # Kills: NaN at black, white and grey pixels; quantize=False that stops the gradient; a derivative that is not the function's.
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        draws = corruptions.draw(keys(n=2), (2, 32, 32, 3), name=name, severity=4)
        run = lambda x: corruptions.apply(x, draws, name=name, severity=4, quantize=False)  # noqa: E731
        flat = jnp.stack([jnp.zeros((32, 32, 3)), jnp.full((32, 32, 3), 1.0).at[:16].set(0.5)])
        assert jnp.isfinite(jax.grad(lambda x: jnp.sum(run(x) ** 2))(flat)).all()
        # Away from clipping and ties the derivative is the slope; shot noise counts whole photons and has none.
        x, direction = (jnp.asarray(a) for a in (rng.uniform(0.3, 0.6, (2, 32, 32, 3)), rng.normal(size=(2, 32, 32, 3))))
        _, slope = jax.jvp(run, (x,), (direction,))
        step = 1e-7
        differences = (run(x + step * direction) - run(x - step * direction)) / (2 * step)
        if name == "shot_noise":
            assert not slope.any()
        else:
            assert jnp.abs(slope).max() > 0.1
            close = jnp.abs(slope - differences) < 1e-5
            assert close.mean() > 0.999  # a few values meet the clip or a tie within the step
            weights = jnp.asarray(rng.normal(size=x.shape))
            backward = jax.grad(lambda x: jnp.sum(weights * run(x)))(x)
            np.testing.assert_allclose(jnp.sum(backward * direction), jnp.sum(weights * slope), rtol=1e-9)


@pytest.mark.parametrize("name", EXACT)
def test_grey_and_turned_images(name):
    # Kills: one channel treated unlike three equal ones; rows and columns swapped for images that are not square.
    grey = photographs()[:2, :, :24].mean(-1, keepdims=True)
    run = lambda x: np.asarray(corruptions.corrupt(None, x, name=name, severity=5, quantize=False))  # noqa: E731
    assert run(grey).shape == (2, 32, 24, 1)
    np.testing.assert_allclose(run(np.repeat(grey, 3, -1))[..., :1], run(grey), atol=1e-6)
    np.testing.assert_allclose(run(grey.swapaxes(1, 2)).swapaxes(1, 2), run(grey), atol=1e-6)
