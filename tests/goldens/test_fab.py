"""FAB against the official code: its projections, its least norms, its robust accuracy. Each test names the mutants it kills."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks import fab
from robustjax.attacks.hyperplane import to_hyperplane
from robustjax.attacks.plan import ranked_targets
from robustjax.core import ThreatModel, example_keys
from robustjax.core.numerics import image_norm
from robustjax.metrics import correct
from tests.goldens import reference
from tests.goldens.test_attacks import setting

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


@pytest.mark.parametrize("norm", NORMS)
def test_projections_onto_hyperplanes_in_the_box(norm):
    # Kills: another norm's solution, the box forgotten, a hyperplane out of reach treated as within it, pixels of weight zero that
    # move, a search that ends before it is exact; and in float32 what overflows or loses digits.
    stored = reference.load("attacks/units.npz")
    points, normals, offset = (stored[f"fabproj/{name}"] for name in "twb")
    excess = (normals * points).sum(1) - offset
    project = jax.jit(functools.partial(to_hyperplane, norm=norm))
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 5e-6)):
        with jax.enable_x64(dtype == np.float64):
            change = project(*(jnp.asarray(a, dtype) for a in (points, normals, excess)))
            assert change.dtype == dtype
            np.testing.assert_allclose(change, stored[f"fabproj/{norm}_delta"], atol=tolerance)


def least_norms(data: str, n: int, dtype, norm: str, rank: int | None) -> np.ndarray:
    """Returns what FAB makes of the first n images, each at the class ranked `rank` (the label excluded, from 1) or untargeted."""
    logits_fn, images, labels = setting(data, n, dtype)
    targets = None if rank is None else ranked_targets(logits_fn(jnp.asarray(images)), jnp.asarray(labels), 2)[:, rank - 1 : rank]
    found = fab(example_keys(jax.random.key(0), jnp.arange(n)), logits_fn, images, labels, ThreatModel(norm, 1e9), targets=targets)
    return np.asarray(image_norm(found - images, norm))


def official(data: str, norm: str, rank: int | None) -> np.ndarray:
    stored = reference.load("attacks/digits_fab.npz" if data == "digits" else "attacks/fab_min_norms.npz")
    return stored[f"{data}/{NORMS[norm]}/{'untargeted' if rank is None else f'target_rank{rank + 1}'}/norm"]


def compare(found: np.ndarray, expected: np.ndarray, *, nearer: int = 0) -> None:
    """Compares least norms; so many images may lie up to 1 % nearer than the official ones rather than within 0.5 %."""
    wrong = np.isnan(expected)
    np.testing.assert_array_equal(found[wrong], 0)
    away = found[~wrong] / expected[~wrong] - 1
    assert (np.abs(away) > 5e-3).sum() <= nearer and away.min() > -1e-2 and away.max() <= 5e-3, away
    np.testing.assert_allclose(found[~wrong].mean(), expected[~wrong].mean(), rtol=4e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_least_norms_of_digits_towards_a_class(norm):
    # Kills: a step of another overshoot or share of the clean image, no way back after a success, the last success for the nearest,
    # success as reaching the target, another target, a clean mistake that is moved.
    with jax.enable_x64():
        for rank in (1, 2):
            compare(least_norms("digits", 128, np.float64, norm, rank), official("digits", norm, rank))


@pytest.mark.parametrize("norm", ["linf", *(pytest.param(norm, marks=pytest.mark.slow) for norm in ("l2", "l1"))])
def test_least_norms_of_digits(norm):
    # Kills: another class than the nearest, another dual norm.
    n = 64 if norm == "linf" else 128
    with jax.enable_x64():
        compare(least_norms("digits", n, np.float64, norm, None), official("digits", norm, None)[:n])


def test_least_norms_of_pictures():
    # Kills: what 64 grey pixels do not show: three channels, thousands of pixels.
    compare(least_norms("cifar", 32, np.float32, "linf", 1), official("cifar", "linf", 1))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [None, 1, 2])
@pytest.mark.parametrize("norm", NORMS)
def test_least_norms_of_pictures_in_float64(norm, rank):
    # Kills: in the other norms, towards another class and untargeted what the test above kills in one.
    # Float64, since in float32 rounding decides some steps of 'l1': there 1 of the 17 images that are right to begin with ends up to
    # 2.3 % further away (untargeted), 1 up to 0.8 % further (rank 1) and 3 up to 0.9 % nearer or further (rank 2).
    with jax.enable_x64():
        nearer = 1 if (norm, rank) == ("l1", 2) else 0  # one image ends 0.8 % nearer
        compare(least_norms("cifar", 32, np.float64, norm, rank), official("cifar", norm, rank), nearer=nearer)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), pytest.param("l2", 0.5, marks=pytest.mark.slow)])
def test_robust_accuracy_is_the_official_one(norm, eps):
    # Kills: one target for all, images beyond eps given out, broken ones overwritten by a later target.
    n = 64
    stored = reference.load("attacks/digits_flags.npz")[f"digits/AA_{NORMS[norm]}_fab-t/seed0/robust"][:n]
    logits_fn, images, labels = setting("digits", n, np.float32)
    threat = ThreatModel(norm, eps)
    found = fab(example_keys(jax.random.key(0), jnp.arange(n)), logits_fn, images, labels, threat, targets="ranked")
    assert image_norm(found - images, norm).max() <= eps
    robust = np.asarray(correct(logits_fn(found), labels))
    assert abs(robust.mean() - stored.mean()) <= 0.03
