"""Sensor corruptions: closed forms, chains in their order, and what is refused."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from robustjax import corruptions
from robustjax.core import InputError, example_keys

SHAPE = (3, 40, 50, 3)
OPTIONS = {
    "noise": {"std": 0.1},
    "occlusion": {"patches": 4, "size": (7, 11)},
    "down_up": {},
    "stripes": {"stripes": 3, "width": 5},
}
CHAINS = ("noise+occlusion", "down_up+occlusion", "down_up+stripes", "stripes+noise+down_up+occlusion")


def keys(n=3, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(n))


def images(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).uniform(0.2, 0.8, shape).astype(np.float32)


def corrupt(name, x=None, **options):
    x = images() if x is None else x
    return np.asarray(corruptions.corrupt(keys(len(x)), x, name=name, benchmark="sensor", **options))


def apply(name, x, draws, **options):
    return np.asarray(corruptions.apply(x, draws, name=name, benchmark="sensor", **options))


def given(name):
    return {option: value for part in name.split("+") for option, value in OPTIONS[part].items()}


@pytest.mark.parametrize("strength, variance, kurtosis", [({"std": 0.08}, 0.08**2, 3), ({"amplitude": 0.3}, 0.3**2 / 3, 1.8)])
def test_noise_has_the_moments_asked_for(strength, variance, kurtosis):
    # Kills: a variance for a standard deviation; amplitude as the whole width; noise of one sign; uniform and Gaussian swapped; one
    # draw for all channels, rows or images.
    x = np.full((8, 64, 64, 3), 0.5, np.float32)
    added = corrupt("noise", x, **strength).astype(np.float64) - 0.5
    n = added.size
    assert abs(added.mean()) < 5 * np.sqrt(variance / n)
    assert abs(added.var() / variance - 1) < 5 * np.sqrt((kurtosis - 1) / n)
    assert abs((added**4).mean() / variance**2 - kurtosis) < 0.15
    assert ("std" in strength) == (abs(added).max() > 0.3)
    np.testing.assert_allclose(np.corrcoef(added.reshape(8, -1)), np.eye(8), atol=0.05)
    for axis in (1, 2, 3):
        assert added.std(axis=axis).min() > 0


def test_noise_is_added_and_clipped():
    # Kills: noise scaled twice or added to a clipped copy; a strength that is compiled in (float32 of 0.1 in float64).
    normal = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    uniform = np.random.default_rng(0).uniform(size=SHAPE).astype(np.float32)
    np.testing.assert_allclose(apply("noise", images(), {"normal": normal}, std=0.3), np.clip(images() + 0.3 * normal, 0, 1), atol=1e-6)
    expected = np.clip(images() + 0.6 * (2 * uniform - 1), 0, 1)
    np.testing.assert_allclose(apply("noise", images(), {"uniform": uniform}, amplitude=0.6), expected, atol=1e-6)
    with jax.enable_x64(True):
        exact = apply("noise", images().astype(np.float64), {"normal": normal}, std=0.1)
        np.testing.assert_allclose(exact, np.clip(images().astype(np.float64) + 0.1 * normal.astype(np.float64), 0, 1), atol=1e-15)
    np.testing.assert_array_equal(corrupt("noise", std=0.0), images())


def test_occlusion_blackens_whole_patches_inside_the_image():
    # Kills: height and width swapped; patches that leave the image or never reach its border; one place for all patches or
    # images; a border of one pixel too many; grey instead of black; pixels changed elsewhere.
    corners = {"patch_rows": np.array([[0, 33], [5, 6], [7, 7]]), "patch_columns": np.array([[0, 39], [3, 20], [8, 8]])}
    expected = images()
    for image, rows, columns in zip(expected, corners["patch_rows"], corners["patch_columns"], strict=True):
        for row, column in zip(rows, columns, strict=True):
            image[row : row + 7, column : column + 11] = 0
    corners = {key: value.astype(np.int32) for key, value in corners.items()}
    np.testing.assert_array_equal(apply("occlusion", images(), corners, patches=2, size=(7, 11)), expected)

    black = corrupt("occlusion", images((64, 20, 24, 1)), patches=1, size=6)[..., 0] == 0
    np.testing.assert_array_equal(black.sum((1, 2)), np.full(64, 36))
    first = np.stack([black.any(2).argmax(1), black.any(1).argmax(1)])
    assert first.min() == 0 and first[0].max() == 14 and first[1].max() == 18
    assert black[:, :, 0].any() and black[:, :, -1].any() and black[:, 0].any() and black[:, -1].any()
    many = corrupt("occlusion", images((64, 100, 125, 1)), size=(18, 18))[..., 0] == 0
    covered = 1 - (1 - 18 * 18 / (100 * 125)) ** 20  # of the middle; less at the border
    assert covered * 0.9 < many.mean() < covered * 1.15 and len(np.unique(many.sum((1, 2)))) > 30


def test_the_paper_s_sizes_are_the_defaults():
    # Kills: other defaults; sizes scaled in silence.
    x = np.ones((2, 400, 500, 1), np.float32)
    draws = corruptions.draw(keys(2), x.shape, name="occlusion", severity=None, benchmark="sensor")
    assert draws["patch_rows"].shape == draws["patch_columns"].shape == (2, 20)
    corner = {key: jnp.zeros((2, 20)) for key in draws}
    assert (apply("occlusion", x, corner)[0, ..., 0] == 0).sum() == 4900 and apply("occlusion", x, corner)[0, 70, 69, 0] == 1
    draws = corruptions.draw(keys(2), x.shape, name="stripes", severity=None, benchmark="sensor")
    assert draws["stripe_columns"].shape == (2, 10)
    black = apply("stripes", x, {"stripe_columns": jnp.ones((2, 10)) * 0.999999}) == 0
    np.testing.assert_array_equal(np.unique(np.nonzero(black)[2]), np.arange(494, 500))


def test_stripes_run_from_top_to_bottom():
    # Kills: horizontal stripes; another width; stripes that leave the image; one place for all.
    columns = np.array([[0, 20, 45], [3, 5, 40], [10, 10, 10]], np.int32)
    expected = images()
    for image, starts in zip(expected, columns, strict=True):
        for start in starts:
            image[:, start : start + 5] = 0
    np.testing.assert_array_equal(apply("stripes", images(), {"stripe_columns": columns}, stripes=3, width=5), expected)
    black = (corrupt("stripes", images((256, 16, 20, 1)), stripes=1, width=4)[..., 0] == 0).all(1)
    np.testing.assert_array_equal(black.sum(1), np.full(256, 4))
    assert set(black.argmax(1)) == set(range(17)) and np.bincount(black.argmax(1)).max() < 36  # 15 are to be expected


@pytest.mark.parametrize("scale, small", [(1 / 3, (16, 13)), (0.5, (25, 20)), (1, (50, 40))])
def test_down_up_is_pillow_s_bilinear(scale, small):
    # Kills: nearest neighbours; no averaging on the way down; sides swapped; rounding up; corners aligned.
    for got, image in zip(corrupt("down_up", scale=scale)[..., 0], images()[..., 0], strict=True):
        resized = Image.fromarray(image).resize(small, Image.Resampling.BILINEAR).resize((50, 40), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(got, np.asarray(resized), atol=2e-6)
    if scale == 1 / 3:
        np.testing.assert_array_equal(corrupt("down_up"), corrupt("down_up", scale=scale))
        assert corruptions.corrupt(None, images((1, 51, 48, 3)), name="down_up", benchmark="sensor").shape == (1, 51, 48, 3)


@pytest.mark.parametrize("name", CHAINS)
def test_chains_are_their_parts_one_after_the_other(name):
    # Kills: another order; a part left out; draws shared between parts; draws that change in company; an option for the wrong part.
    expected = images()
    for part in name.split("+"):
        expected = corrupt(part, expected, **OPTIONS[part])
    np.testing.assert_allclose(corrupt(name, **given(name)), expected, atol=1e-6)
    other = "+".join(reversed(name.split("+")))
    assert not np.allclose(corrupt(other, **given(name)), expected, atol=1e-3)
    draws = corruptions.draw(keys(), SHAPE, name=name, severity=None, benchmark="sensor", **given(name))
    np.testing.assert_array_equal(apply(name, images(), draws, **given(name)), corrupt(name, **given(name)))


def test_draws_of_a_chain_are_independent():
    # Kills: one stream of randomness for two things: places of patches that can be read off the noise.
    options = {"amplitude": 0.1, "patches": 8, "size": 3, "stripes": 8, "width": 2}
    draws = corruptions.draw(keys(), SHAPE, name="noise+occlusion+stripes", severity=None, benchmark="sensor", **options)
    first = np.stack([np.reshape(values, (3, -1))[:, :8] for values in draws.values()])
    assert len(first) == 4 and len(np.unique(first)) == first.size


def test_masks_come_last_so_they_stay_black():
    # Kills: Table 4's printed order taken for the order of work.
    for name in ("noise+occlusion", "down_up+occlusion", "down_up+stripes"):
        mask = name.split("+")[1]
        black = corrupt(mask, **OPTIONS[mask]) == 0
        assert (corrupt(name, **given(name))[black] == 0).all()


def test_one_program_for_all_strengths_and_gradients():
    # Kills: a strength that is compiled in; a mask through which gradients pass; noise that stops them.
    traces = []

    @jax.jit
    def run(x, std):
        traces.append(1)
        return corruptions.corrupt(keys(), x, name="noise+occlusion", benchmark="sensor", std=std, **OPTIONS["occlusion"])

    for std in (0.01, 0.02):
        np.testing.assert_allclose(run(images(), std), corrupt("noise+occlusion", std=std, **OPTIONS["occlusion"]), atol=1e-6)
    assert len(traces) == 1
    gradient = np.asarray(jax.grad(lambda x: run(x, 0.01).sum())(jnp.asarray(images())))
    np.testing.assert_array_equal(gradient == 0, corrupt("occlusion", **OPTIONS["occlusion"]) == 0)
    assert set(np.unique(gradient)) == {0.0, 1.0}


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("noise", {}, "either std= .* or amplitude= .*, got neither"),
        ("noise", {"std": 0.1, "amplitude": 0.1}, "got std and amplitude"),
        ("noise", {"std": -0.1}, "std of noise must be a number, at least 0, .* got -0.1"),
        ("noise", {"amplitude": "0.1"}, "amplitude of noise must be a number, .* got '0.1'"),
        ("noise", {"std": True}, "std of noise must be a number, .* got True"),
        ("noise", {"std": np.nan}, "std of noise must be a number"),
        ("noise", {"std": np.ones(3)}, "std of noise must be a number"),
        ("noise", {"std": 0.1, "severity": 3}, "'noise' has no severities here: leave severity at None, got 3"),
        ("noise", {"std": [[1], [2, 3]]}, r"std of noise must be a number, .* got \[\[1\], \[2, 3\]\]"),
        ("occlusion", {"size": 5, "patches": np.nan}, "patches must be a whole number, at least 1, got nan"),
        ("occlusion", {"size": (5, -np.inf)}, "size must be a whole number, at least 1, got -inf"),
        ("stripes", {"stripes": np.float32("inf")}, "stripes must be a whole number, at least 1, got .*inf"),
        ("stripes", {"width": np.nan}, "width must be a whole number, at least 1, got nan"),
        ("stripes", {"width": [1, [2]]}, "width must be a whole number, at least 1, got "),
        ("occlusion", {}, r"patches of 70x70 pixels are larger than the images, 40x50; .* would be size=\(7, 7\)"),
        ("occlusion", {"size": (40, 51)}, "patches of 40x51 pixels are larger"),
        ("occlusion", {"size": (41, 50)}, "patches of 41x50 pixels are larger"),
        ("occlusion", {"size": 2.5}, "size must be a whole number, at least 1, got 2.5"),
        ("occlusion", {"size": (5, 0)}, "size must be a whole number"),
        ("occlusion", {"size": 5, "patches": 0}, "patches must be a whole number, at least 1, got 0"),
        ("stripes", {"width": 51}, "stripes of width 51 are wider than the images, 40x50; .* would be width=1"),
        ("stripes", {"stripes": True}, "stripes must be a whole number"),
        ("down_up", {"scale": 0.02}, r"scale of down_up must be a number in \(0, 1\] that leaves 40x50 images a pixel, got 0.02"),
        ("down_up", {"scale": 3}, "scale of down_up must be"),
        ("down_up", {"scale": True}, "scale of down_up must be"),
        ("noize+occlusion", {"std": 0.1}, "unknown corruption of sensor: 'noize'; did you mean 'noise'"),
        ("noise+noise", {"std": 0.1}, "each corruption may be in a chain once, got 'noise.noise'"),
        ("noise+stripes", {"std": 0.1, "size": 3}, "unknown option of the corruption 'noise.stripes': 'size'"),
        ("noise+", {"std": 0.1}, "unknown corruption of sensor: ''"),
        ("noise+occlusion", {"size": 3}, "got neither"),
        ("down_up+occlusion", {}, "patches of 70x70 pixels are larger"),
    ],
)
def test_what_is_refused(name, options, message):
    # Kills: each check, dropped, alone and in chains; draws of a chain that are checked by its parts only; errors of int() and NumPy.
    with pytest.raises(InputError, match=message) as error:
        corrupt(name, **options)
    assert "\n" not in str(error.value)


def test_a_strength_of_any_type_runs_in_one_program():
    # Kills: a program for each of float, int and NumPy's types; a strength that loses its digits in float64.
    from robustjax.corruptions import registry

    x = images((2, 17, 19, 1))
    before = registry._apply._cache_size(), registry._draw._cache_size()
    for std in (1.0, 1, np.float32(1), np.float64(1), np.int64(1), jnp.float32(1), jnp.int32(1), jnp.bfloat16(1)):
        np.testing.assert_array_equal(corrupt("noise", x, std=std), corrupt("noise", x, std=1.0))
    assert (registry._apply._cache_size(), registry._draw._cache_size()) == (before[0] + 1, before[1] + 1)


def test_a_traced_strength_is_one_number():
    # Kills: a strength for each image taken for one for each column.
    with pytest.raises(InputError, match="std of noise must be a number"):
        jax.jit(lambda std: corruptions.corrupt(keys(), images(), name="noise", benchmark="sensor", std=std))(jnp.ones(3))


def test_draws_that_do_not_fit():
    # Kills: draws of the other noise; draws that no part of a chain knows; chains outside of 'sensor'.
    with pytest.raises(InputError, match="draws must hold 'normal'"):
        apply("noise", images(), {"uniform": images()}, std=0.1)
    with pytest.raises(InputError, match="unknown draw 'stripe_columns'"):
        apply("noise+occlusion", images(), {"stripe_columns": np.zeros((3, 10))}, **given("noise+occlusion"))
    with pytest.raises(InputError, match="unknown corruption of cifar_c: 'contrast.fog'"):
        corruptions.corrupt(keys(), images(), name="contrast+fog", severity=1)


def test_every_draw_is_declared():
    # Kills: a corruption whose draws its chain would not pass on.
    from robustjax.corruptions import registry, sensor

    assert corruptions.NAMES["sensor"] == tuple(OPTIONS)
    for name, entry in registry.TABLE["sensor"].items():
        drawn = set()
        for options in ({"std": 0.1}, {"amplitude": 0.1}) if name == "noise" else (OPTIONS[name],):
            drawn |= set(corruptions.draw(keys(), SHAPE, name=name, severity=None, benchmark="sensor", **options))
        assert drawn == set(sensor.DRAWS.get(name, ()))
        known = [p.name for p in inspect.signature(entry.apply).parameters.values() if p.kind is p.KEYWORD_ONLY]
        assert known == [p.name for p in inspect.signature(entry.check).parameters.values() if p.kind is p.KEYWORD_ONLY]
