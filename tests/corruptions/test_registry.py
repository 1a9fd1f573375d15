"""What the doors refuse, what they warn of, and what a severity may be."""

import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import corruptions
from robustjax.core import InputError, example_keys

GOOD = {"name": "gaussian_noise", "severity": 3}


def keys(n=2):
    return example_keys(jax.random.key(0), jnp.arange(n))


def images(*shape, fill=0.5, dtype=np.float32):
    return np.full(shape or (2, 32, 32, 3), fill, dtype)


def bare(door):
    """Returns a door without the checks of annotations that the tests switch on: users have none."""
    return inspect.unwrap(door)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": "gausian_noise"}, "did you mean 'gaussian_noise'"),
        ({"benchmark": "cifar10_c"}, "unknown benchmark 'cifar10_c'; did you mean 'cifar_c'"),
        ({"severity": None}, "severity of 'gaussian_noise' must be an integer from 1 to 5, got None"),
        ({"severity": 0}, "must be from 1 to 5, got 0"),
        ({"severity": 6}, "must be from 1 to 5, got 6"),
        ({"severity": np.int64(6)}, "must be from 1 to 5, got 6"),
        ({"severity": 2.0}, "must be an integer from 1 to 5, got 2.0"),
        ({"severity": True}, "must be an integer from 1 to 5, got True"),
        ({"severity": np.array([1, 2])}, "must be an integer from 1 to 5"),
        ({"std": 0.1}, "unknown option of the corruption 'gaussian_noise': 'std'"),
        ({"images": images(32, 32, 3)}, "unbatched"),
        ({"images": images(fill=128, dtype=np.uint8)}, "divide by 255"),
        ({"images": images(fill=-1.5)}, "must lie in"),
        ({"images": images(fill=np.nan)}, "NaN"),
        ({"images": images(2, 15, 32, 3)}, "at least 16x16 pixels to be corrupted, got 15x32"),
        ({"images": images(2, 32, 32, 2), "name": "brightness"}, "1 or 3 channels to be corrupted, got 2"),
        ({"keys": keys(3)}, r"must have shape \(2,\)"),
        ({"keys": jax.random.key(0)}, "single key"),
        ({"keys": None}, "keys must be typed PRNG keys, got NoneType"),
        ({"name": 3, "benchmark": "sensor"}, "name must be a string, got 3"),
        ({"name": ["noise"]}, "name must be a string"),
        ({"benchmark": ["cifar_c"]}, r"benchmark must be a string, got \['cifar_c'\]"),
    ],
)
def test_bad_input_gets_one_line(change, message):
    # Kills: each check removed, one by one; messages of many lines; what is no string split or looked up.
    arguments = {"keys": keys(), "images": images(), **GOOD, **change}
    with pytest.raises(InputError, match=message) as error:
        bare(corruptions.corrupt)(arguments.pop("keys"), arguments.pop("images"), **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, draws, message",
    [
        ("gaussian_noise", {"counts": images()}, r"draws must hold 'normal' \(2, 32, 32, 3\); got 'counts'"),
        ("gaussian_noise", {"normal": images(1, 32, 32, 3)}, "draws must hold 'normal'"),
        ("impulse_noise", {"hit": images()}, "'hit' .*'salt'"),
        ("shot_noise", None, "draws must hold 'normal'"),
        ("contrast", {"normal": images()}, "'contrast' is not random"),
    ],
)
def test_draws_that_do_not_fit(name, draws, message):
    # Kills: draws of one image broadcast over the batch; draws of another corruption; draws that are ignored in silence.
    with pytest.raises(InputError, match=message):
        corruptions.apply(images(), draws, name=name, severity=1)


FROST = {"index": [0, 4], "top": [0, 67], "left": [148, 100]}  # the last of our pictures has 99 x 132 pixels once made smaller
OCCLUSION = {"patch_rows": [[0, 31], [5, 6]], "patch_columns": [[0, 31], [5, 6]]}


@pytest.mark.parametrize(
    "benchmark, name, draws, change, message",
    [
        ("cifar_c", "gaussian_noise", {"normal": images()}, {"normal": images(fill=np.nan)}, r"draws\['normal'\] hold NaN or infinite"),
        ("cifar_c", "gaussian_noise", {"normal": images()}, {"normal": images(fill=-np.inf)}, "hold NaN or infinite"),
        ("cifar_c", "gaussian_noise", {"normal": images()}, {"normal": None}, "must be an array of numbers, got NoneType"),
        ("cifar_c", "gaussian_noise", {"normal": images()}, {"normal": "a"}, "must be an array of numbers, got str"),
        ("cifar_c", "gaussian_noise", {"normal": images()}, {"normal": [[1.0], [1.0, 2.0]]}, "must be an array of numbers, got list"),
        ("cifar_c", "gaussian_noise", {"normal": images()}, {"normal": keys()}, "must be an array of numbers, got key"),
        ("cifar_c", "shot_noise", {"counts": images(fill=0)}, {"counts": images(fill=-3)}, "from 0 to inf, got -3"),
        ("cifar_c", "shot_noise", {"counts": images(fill=0)}, {"counts": images(fill=1.5)}, "must be whole numbers from 0 to inf, got 1.5"),
        ("cifar_c", "frost", FROST, {"index": [0, 5]}, r"draws\['index'\] must be whole numbers from 0 to 4, got 5"),
        ("cifar_c", "frost", FROST, {"index": [-1, 4]}, "got -1"),
        ("cifar_c", "frost", FROST, {"top": [0, 68]}, "from 0 to 67, got 68"),  # in the first one it would lie inside
        ("cifar_c", "frost", FROST, {"left": [149, 0]}, "from 0 to 148, got 149"),
        ("cifar_c", "frost", FROST, {"left": [-5, 0]}, "got -5"),
        ("cifar_c", "frost", FROST, {"top": [0, 1, 2]}, "draws must hold"),
        ("mnist_c", "zigzag", {"row": [0, 26], "rise": [-5, 4]}, {"rise": [-6, 0]}, "from -5 to 4, got -6"),
        ("mnist_c", "zigzag", {"row": [0, 26], "rise": [-5, 4]}, {"rise": [0, 5]}, "from -5 to 4, got 5"),
        ("mnist_c", "zigzag", {"row": [0, 26], "rise": [-5, 4]}, {"row": [27, 0]}, "from 0 to 26, got 27"),
        ("mnist_c", "dotted_line", {"row": [[0, 26]] * 2}, {"row": [[0, 27]] * 2}, "from 0 to 26, got 27"),
        ("mnist_c", "glass_blur", {"move": images(2, 2, 28, 28, fill=3)}, {"move": images(2, 2, 28, 28, fill=7)}, "from 0 to 3, got 7"),
        ("mnist_c", "glass_blur", {"move": images(2, 2, 28, 28, fill=0)}, {"move": images(2, 2, 28, 28, fill=-1)}, "got -1"),
        ("mnist_c", "rotate", {"sign": [-1, 1]}, {"sign": [0, 1]}, "from -1 to 1 in steps of 2, got 0"),
        ("mnist_c", "shear", {"sign": [-1, 1]}, {"sign": [np.nan, 1]}, "NaN"),
        ("mnist_c", "translate", {"sign": [[-1, 1]] * 2}, {"sign": [[3, 1]] * 2}, "got 3"),
        ("sensor", "occlusion", OCCLUSION, {"patch_rows": [[0, 99], [0, 0]]}, "from 0 to 31, got 99"),
        ("sensor", "down_up+occlusion", OCCLUSION, {"patch_columns": [[0, -1], [0, 0]]}, "from 0 to 31, got -1"),
        ("sensor", "stripes", {"stripe_columns": [[0, 31]] * 2}, {"stripe_columns": [[0, 32]] * 2}, "from 0 to 31, got 32"),
    ],
)
def test_draws_out_of_range(benchmark, name, draws, change, message):
    # Kills: each range removed or wrong at an end; places of one photograph taken for another's; numbers cut to whole ones in silence;
    # a chain that forgets its parts' ranges; errors of jax's own; values asked for where they are traced.
    size = 28 if benchmark == "mnist_c" else 32
    options = (
        {"occlusion": {"patches": 2, "size": 8}, "stripes": {"stripes": 2}}.get(name.split("+")[-1], {}) if benchmark == "sensor" else {}
    )
    severity = 3 if benchmark == "cifar_c" else None
    batch = images(2, size, size, 1 if benchmark == "mnist_c" else 3)
    call = lambda given: corruptions.apply(batch, given, name=name, severity=severity, benchmark=benchmark, **options)  # noqa: E731
    draws = {key: np.asarray(value) for key, value in draws.items()}
    with pytest.raises(InputError, match=message) as error:
        call({**draws, **change})
    assert "\n" not in str(error.value)
    np.testing.assert_array_equal(jax.jit(call)(draws), call(draws))
    assert jax.jit(lambda: call(draws))().shape == batch.shape


def test_draws_are_a_dict():
    # Kills: the truth value of an array, asked of draws given without their name.
    with pytest.raises(InputError, match="draws must be a dict of arrays by name, as `draw` returns, got ndarray"):
        corruptions.apply(images(), images(), **GOOD)


@pytest.mark.parametrize("name", sorted(corruptions.NAMES["cifar_c"]))
@pytest.mark.parametrize("level", [-5e-7, 1 + 5e-7])
def test_rounding_that_the_check_lets_pass_stays_in_the_box(name, level):
    # Kills: -5e-7 cut down to the next level, -1/255; counts of photons from a negative rate.
    out = corruptions.corrupt(keys(), images(fill=level), name=name, severity=1)
    assert out.min() >= 0 and out.max() <= 1
    np.testing.assert_array_equal(out, corruptions.corrupt(keys(), images(fill=round(level)), name=name, severity=1))


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_gradients_reach_pixels_on_the_faces_of_the_box(level):
    # Kills: a clip of the images, whose gradient at 0 and 1 is a half.
    gradient = jax.grad(lambda x: corruptions.corrupt(keys(), x, name="impulse_noise", severity=1, quantize=False).sum())(
        jnp.asarray(images(fill=level))
    )
    assert set(np.unique(gradient)) == {0.0, 1.0}


@pytest.mark.parametrize(
    "shape, message",
    [
        ((32, 32, 3), r"shape must be \(b, h, w, c\) .* got \(32, 32, 3\)"),
        (None, r"shape must be \(b, h, w, c\) .* got None"),
        ((2.0, 32, 32, 3), r"shape must be \(b, h, w, c\) .* whole numbers, got \(2.0, "),
        ((0, 32, 32, 3), r"shape must be \(b, h, w, c\)"),
        (np.ones((4, 4), int), r"shape must be \(b, h, w, c\)"),
    ],
)
def test_draw_wants_a_shape_of_images(shape, message):
    # Kills: a shape without batch axis, whose rows would be taken for images; sides that are no whole numbers; the length of None.
    with pytest.raises(InputError, match=message) as error:
        bare(corruptions.draw)(keys(), shape, **GOOD)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "shape, change",
    [
        ((2, 8, 8, 3), {}),
        ((2, 32, 32, 2), {}),
        ((2, 32, 24, 3), {"name": "lines", "benchmark": "cifar_cbar"}),
        ((2, 28, 28, 3), {"name": "shear", "benchmark": "mnist_c", "severity": None}),
    ],
)
def test_draw_refuses_what_apply_refuses(shape, change):
    # Kills: a door that checks less than the other; shapes that are refused where they serve.
    settings = GOOD | change
    with pytest.raises(InputError) as of_draw:
        corruptions.draw(keys(), shape, **settings)
    with pytest.raises(InputError) as of_apply:
        corruptions.apply(images(*shape), {}, **settings)
    assert str(of_draw.value) == str(of_apply.value)
    assert bare(corruptions.draw)(keys(), np.array([2, 16, 20, 3]), **GOOD)["normal"].shape == (2, 16, 20, 3)


def test_warns_only_where_another_benchmark_fits_better():
    # Kills: a warning for every size but 32; none at all; one for the benchmark that is already the nearest; nearness by difference.
    # 130 pixels: nearer to 224 by ratio, to 64 by difference.
    cases = (
        (64, "cifar_c", "tiny_imagenet_c"),
        (224, "cifar_c", "imagenet_c"),
        (32, "imagenet_c", "cifar_c"),
        (130, "tiny_imagenet_c", "imagenet_c"),
    )
    for size, benchmark, nearer in cases:
        with pytest.warns(UserWarning, match=f"{nearer} .* is nearer"):
            corruptions.apply(images(1, size, size, 1), None, name="contrast", severity=1, benchmark=benchmark)
    with pytest.warns(UserWarning, match="mnist_c were made for 28x28 .* tiny_imagenet_c .* is nearer"):
        corruptions.apply(images(1, 64, 64, 1), None, name="stripe", benchmark="mnist_c")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size, benchmark in ((16, "cifar_c"), (28, "cifar_c"), (64, "tiny_imagenet_c"), (96, "tiny_imagenet_c"), (299, "imagenet_c")):
            corruptions.apply(images(1, size, size, 1), None, name="contrast", severity=1, benchmark=benchmark)


def test_traced_severity_is_clipped():
    # Kills: severity 0 that wraps around to 5.
    at = jax.jit(lambda severity: corruptions.apply(_ramp(), None, name="contrast", severity=severity))
    for traced, plain in ((-3, 1), (0, 1), (1, 1), (4, 4), (9, 5)):
        expected = corruptions.apply(_ramp(), None, name="contrast", severity=plain)
        np.testing.assert_array_equal(at(jnp.asarray(traced)), expected)


def _ramp():
    return jnp.broadcast_to(jnp.linspace(0, 1, 32)[None, :, None, None], (1, 32, 32, 3))


def test_names_are_those_of_the_constants():
    # Kills: an entry without constants or constants without an entry, in any benchmark.
    from robustjax.corruptions.constants import CONSTANTS
    from robustjax.corruptions.registry import TABLE

    for benchmark, constants in CONSTANTS.items():
        assert set(TABLE.get(benchmark, ())) <= set(constants), benchmark
        assert set(corruptions.NAMES.get(benchmark, ())) <= set(constants)


def test_the_options_are_named():
    # Kills: an option that the docstring of the door does not mention.
    from robustjax.corruptions import registry

    for benchmark, table in registry.TABLE.items():
        for entry in table.values() if benchmark != "sensor" else ():
            for option in set(registry._options_of(entry)) - set(registry._OURS):
                assert f"`{option}`" in corruptions.corrupt.__doc__, option
