"""Laws that every corruption of every benchmark keeps, whatever it does. A new entry is tested by being listed in the table."""

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

CBAR = [("cifar_cbar", name) for name in corruptions.NAMES["cifar_cbar"]]
ENTRIES = [
    *[("cifar_c", name) for name in (*corruptions.NAMES["cifar_c"], *corruptions.NAMES["cifar_c_extra"])],
    *CBAR,
    *[("imagenet_cbar", name) for name in corruptions.NAMES["imagenet_cbar"] if ("cifar_cbar", name) not in CBAR],
    *[("mnist_c", name) for name in corruptions.NAMES["mnist_c"]],
    *[("sensor", name) for name in (*corruptions.NAMES["sensor"], "down_up+stripes")],
]
OPTIONS = {
    "noise": {"std": 0.1},
    "occlusion": {"patches": 3, "size": (5, 7)},
    "stripes": {"stripes": 2, "width": 3},
    "down_up+stripes": {"stripes": 2, "width": 3},
}
# Counts, quantised coefficients, 8-bit steps on the way: a rounding error may move a value by a whole step.
STEPS = {
    "canny_edges", "glass_blur", "jpeg_compression", "lines", "motion_blur", "shot_noise", "snow", "spatter", "transverse_chromatic_abberation"
}  # fmt: skip
# Rounding errors that positions, iterated warps or high powers enlarge.
TOLERANCE = {"caustic_refraction": 1e-3, "plasma_noise": 1e-3} | dict.fromkeys(
    ("circular_motion_blur", "inverse_sparkles", "ripple", "sparkles"), 2e-5
)
FLAT = ("shot_noise", "canny_edges")  # whole numbers: the derivative is 0
# Published constants whose distance from the image does not grow: elastic_transform's jitter falls while its waves rise, motion_blur's
# severities 3 and 4 differ by taps of 1e-9, circular_motion_blur grows by 9 %.
NOT_FARTHER = ("elastic_transform", "motion_blur", "circular_motion_blur")
pytestmark = pytest.mark.filterwarnings("ignore:the constants of imagenet_cbar")
EVERY = pytest.mark.parametrize(("benchmark", "name"), ENTRIES, ids=[f"{benchmark}-{name}" for benchmark, name in ENTRIES])


def every_other(first):
    """Returns the parametrisation by entries of a law that is long to compile: those at `first`, `first` + 2, ...; the rest is of the slow half."""
    marked = [(entry, f"{entry[0]}-{entry[1]}", () if i % 2 == first else pytest.mark.slow) for i, entry in enumerate(ENTRIES)]
    return pytest.mark.parametrize(("benchmark", "name"), [pytest.param(*entry, id=id, marks=marks) for entry, id, marks in marked])


def entry_of(benchmark, name):
    return registry._find(name, benchmark)


def photographs(benchmark="cifar_c"):
    images = (reference.load("corruptions_photos/cifar_c_32.npz")["images"] / 255).astype(np.float32)
    return images.mean(-1, keepdims=True)[:, 2:30, 2:30] if benchmark == "mnist_c" else images


def keys(seed=0, n=8):
    return example_keys(jax.random.key(seed), jnp.arange(n))


def settings(benchmark, name, severity=3):
    severe = None if benchmark in ("mnist_c", "sensor") else severity
    return {"name": name, "benchmark": benchmark, "severity": severe, **OPTIONS.get(name, {})}


@functools.cache
def floats(benchmark, name, severity=3, seed=0):
    """Returns the corrupted photographs before truncation, as most laws need them."""
    images = photographs(benchmark)
    return np.asarray(corruptions.corrupt(keys(seed), images, **settings(benchmark, name, severity), quantize=False))


def assert_same(got, expected, name):
    apart = np.abs(np.asarray(got, np.float64) - expected) > TOLERANCE.get(name, 1e-6)
    assert apart.mean() <= (5e-3 if name in STEPS else 0), apart.mean()


@EVERY
def test_range_levels_and_truncation(benchmark, name):
    # Kills: rounding for truncation; no clip; results off the 8-bit grid; quantize ignored; a corrupt that is not apply after draw.
    images, arguments = photographs(benchmark), settings(benchmark, name)
    draws = corruptions.draw(keys(), images.shape, **arguments)
    whole = np.asarray(corruptions.apply(images, draws, **arguments), np.float64) * 255
    np.testing.assert_array_equal(whole, np.asarray(corruptions.corrupt(keys(), images, **arguments), np.float64) * 255)
    before = np.asarray(floats(benchmark, name), np.float64) * 255
    for levels in (whole, before):
        assert levels.min() >= 0 and levels.max() <= 255 and levels.shape == images.shape and np.isfinite(levels).all()
    if benchmark == "sensor":
        np.testing.assert_array_equal(whole, before)
        return
    assert np.abs(whole - np.rint(whole)).max() < 1e-4
    if "quantize" not in registry.option_names(entry_of(benchmark, name).apply):
        assert (whole - before).max() < 1e-3 and (before - whole).max() < 1


@EVERY
def test_same_keys_same_result_and_new_keys_new_noise(benchmark, name):
    # Kills: an ignored key; one draw for the whole batch; a global seed.
    images, arguments = photographs(benchmark), settings(benchmark, name)
    exact = entry_of(benchmark, name).draw is None
    rows = np.asarray(corruptions.corrupt(keys(), np.broadcast_to(images[:1], images.shape), **arguments, quantize=False))
    np.testing.assert_array_equal(rows[0], floats(benchmark, name)[0])
    differ = [not np.array_equal(rows[0], row) for row in rows[1:]]
    assert sum(differ) >= (0 if exact else 3) and not (exact and any(differ))
    assert np.array_equal(floats(benchmark, name, seed=1), floats(benchmark, name)) == exact


@every_other(0)
def test_mapped_over_views_and_eight_devices_of_one_image_each(benchmark, name):
    # Kills: anything that depends on the batch (its size, its order, statistics over it); keys shared over devices; with check_vma,
    # loops whose carry changes its type when mapped; checks that need concrete values; axes counted from the front in the wrong place.
    # vmap and shard_map share one program: compiling takes most of the time here.
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("data")
    order = np.array([5, 2, 7, 0, 1, 6, 3, 4])
    run = jax.vmap(lambda k, x: corruptions.corrupt(k, x, **settings(benchmark, name), quantize=False))
    images = jax.device_put(photographs(benchmark)[order][:, None], NamedSharding(mesh, spec))
    mapped = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(spec, spec), out_specs=spec, check_vma=True))
    got = mapped(example_keys(jax.random.key(0), jnp.asarray(order)).reshape(8, 1), images)
    assert_same(got[:, 0], floats(benchmark, name)[order], name)


@EVERY
def test_one_program_for_all_severities_which_move_away_from_the_image(benchmark, name):
    # Kills: a severity that is static; constants in the wrong order; a severity that is off by one or ignored.
    if benchmark in ("mnist_c", "sensor"):
        assert np.abs(floats(benchmark, name) - photographs(benchmark)).max() > 0.05
        return
    floats(benchmark, name, 1)
    compiled = registry._apply._cache_size()
    results = [floats(benchmark, name, severity) for severity in range(1, 6)]
    assert registry._apply._cache_size() == compiled
    distances = [np.linalg.norm(result - photographs(benchmark)) for result in results]
    assert len(set(distances)) >= (4 if name in NOT_FARTHER else 5), distances
    assert name in NOT_FARTHER or distances[4] > 1.1 * distances[0], distances


@every_other(1)
def test_float64_and_gradients(benchmark, name):
    # Kills: float64 that is cut to float32 on the way; draws that change with the precision; NaN at black, white and grey pixels;
    # quantize=False that stops the gradient.
    with jax.enable_x64(True):
        images = jnp.asarray(photographs(benchmark)[:2], jnp.float64)
        flat = jnp.stack([jnp.zeros(images.shape[1:]), jnp.ones(images.shape[1:]).at[:16].set(0.5)])
        draws = corruptions.draw(keys(n=2), images.shape, **settings(benchmark, name))

        @jax.jit
        @functools.partial(jax.value_and_grad, has_aux=True)
        def run(x):
            result = corruptions.apply(x, draws, **settings(benchmark, name), quantize=False)
            return jnp.sum(result**2), result

        (_, result), gradient = run(images)
        assert result.dtype == jnp.float64
        assert_same(floats(benchmark, name)[:2], np.asarray(result), name)
        assert jnp.isfinite(gradient).all() and bool(jnp.any(gradient != 0)) == (name not in FLAT)
        assert jnp.isfinite(run(flat)[1]).all()


@pytest.mark.parametrize("name", [name for benchmark, name in ENTRIES if benchmark == "cifar_c"])
def test_grey_images_that_are_not_square(name):
    # Kills: rows and columns swapped; a kernel that needs three channels; sizes that only fit 32.
    grey = photographs()[:2, :20, :24].mean(-1, keepdims=True)
    got = np.asarray(corruptions.corrupt(keys(n=2), grey, name=name, severity=2, quantize=False))
    assert got.shape == (2, 20, 24, 1) and np.isfinite(got).all() and got.min() >= 0 and got.max() <= 1
    if entry_of("cifar_c", name).draw is None and not entry_of("cifar_c", name).colour:
        np.testing.assert_allclose(
            corruptions.corrupt(None, np.repeat(grey, 3, -1), name=name, severity=2, quantize=False)[..., :1], got, atol=1e-6
        )


def test_bfloat16_images_are_lifted():
    # Kills: bfloat16 arithmetic.
    images = jnp.asarray(photographs(), jnp.bfloat16)
    assert corruptions.corrupt(keys(), images, name="contrast", severity=1).dtype == jnp.float32
