"""PGD against torchattacks and foolbox on their stored networks. Each test names the mutants it kills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks import pgd
from robustjax.attacks.objectives import cross_entropy
from robustjax.core import ThreatModel, example_keys
from robustjax.metrics import correct
from tests.goldens import reference, reference_networks

# data, run, norm, eps, step size, objective, the float64 run to compare with, images within 1e-5 of it in float32 by the README
RUNS = [
    ("digits", "pgd20_linf_eps0.1_a0.02", "linf", 0.1, 0.02, "ce", "adv_f64run", 0.875),
    ("digits", "pgd20_l2_eps0.5_a0.1", "l2", 0.5, 0.1, "ce", "adv_foolbox_f64run", 0.6055),
    ("digits", "cw20_linf_eps0.1_a0.02", "linf", 0.1, 0.02, "cw", "adv_f64run", 1.0),
    ("cifar", "pgd20_linf_eps8_a2", "linf", 8 / 255, 2 / 255, "ce", "adv_f64run", 0.9922),
    ("cifar", "pgd20_l2_eps0.5_a1over800", "l2", 0.5, 1 / 800, "ce", "adv_f64run", 1.0),
    ("cifar", "pgd20_l2_eps0.5_a15over255", "l2", 0.5, 15 / 255, "ce", "adv_f64run", 0.9414),
    ("cifar", "cw20_linf_eps8_a2", "linf", 8 / 255, 2 / 255, "cw", "adv_f64run", 0.9805),
]
CASES = pytest.mark.parametrize(("data", "run", "norm", "eps", "alpha", "objective", "double", "near"), RUNS, ids=[r[1] for r in RUNS])
FILES = {
    ("digits", "pgd"): "digits_pgd",
    ("digits", "trajectories"): "digits_trajectories",
    ("digits", "logits"): "digits_logits",
    ("cifar", "pgd"): "pgd_deterministic",
    ("cifar", "trajectories"): "pgd_trajectories",
    ("cifar", "logits"): "logits_check",
}


def load(data: str, what: str):
    return reference.load(f"attacks/{FILES[data, what]}.npz")


def setting(data: str, n: int, dtype):
    """Returns the network, the first n images and their labels."""
    logits_fn = reference_networks.logits_fn(reference.load(f"attacks/{data}_cnn_params.npz"), dtype)
    stored = reference.load(f"attacks/{data}_images.npz")
    images = stored["x"] if data == "digits" else stored["x_uint8"].astype(np.float32) / np.float32(255)
    return logits_fn, images[:n].astype(dtype), stored["y"][:n]


@pytest.mark.parametrize("data", ["digits", "cifar"])
def test_stored_network_is_rebuilt(data):
    # Kills, in the rebuilt network: flipped kernels, max pooling, a wrong flattening order, a relu after the last layer.
    checks = load(data, "logits")
    x, labels = checks[f"{data}_x"], checks[f"{data}_grad_label"][:8]
    with jax.enable_x64():
        logits_fn, _, _ = setting(data, 1, np.float64)
        np.testing.assert_allclose(logits_fn(jnp.asarray(x, jnp.float64)), checks[f"{data}_logits_f64"], atol=1e-10)
        gradient = jax.grad(lambda x: cross_entropy(logits_fn(x), jnp.asarray(labels)).sum())(jnp.asarray(x[:8], jnp.float64))
        np.testing.assert_allclose(gradient, checks[f"{data}_grad_ce_f64"], atol=1e-10)
    logits_fn, _, _ = setting(data, 1, np.float32)
    np.testing.assert_allclose(logits_fn(jnp.asarray(x)), checks[f"{data}_logits_f64"], atol=3e-5)


@CASES
def test_every_step_in_float64(data, run, norm, eps, alpha, objective, double, near):
    # Kills: ascent for descent, a mean loss where the guard of the norm binds, clip before projection, a random start in spite of
    # random_start=False, a margin with kappa, a step relative to eps, `start` ignored.
    steps, stored = load(data, "trajectories"), load(data, "pgd")
    # The stored iterates are torchattacks': in L2 compare where foolbox agrees with them by the stored difference (README: its
    # steps shrink on very confident images), which is all of CIFAR and 10 of these 16 digits.
    same = stored[f"{data}/{run}/maxdiff_foolbox_f64_vs_f64"][:16] < 1e-6
    assert same.sum() >= 10
    with jax.enable_x64():
        logits_fn, images, labels = setting(data, 16, np.float64)
        x = images
        for t in range(1, 21):
            threat = ThreatModel(norm, eps)
            x = pgd(None, logits_fn, images, labels, threat, steps=1, step_size=alpha, objective=objective, random_start=False, start=x)
            if t in (1, 2, 5, 10):
                np.testing.assert_allclose(np.asarray(x)[same], steps[f"{data}/{run}/step{t}"][same], atol=1e-6, err_msg=f"step {t}")
        np.testing.assert_allclose(x, stored[f"{data}/{run}/{double}"][:16], atol=1e-6)


@pytest.mark.parametrize(("data", "run", "norm", "eps", "alpha", "objective", "double", "near"), RUNS[:3], ids=[r[1] for r in RUNS[:3]])
def test_twenty_steps_at_once_in_float64(data, run, norm, eps, alpha, objective, double, near):
    # Kills: a loop that does one step more or less or resets between chunks; steps that depend on the size of the batch.
    stored = load(data, "pgd")
    with jax.enable_x64():
        logits_fn, images, labels = setting(data, 256, np.float64)
        x = pgd(None, logits_fn, images, labels, ThreatModel(norm, eps), steps=20, step_size=alpha, objective=objective, random_start=False)
        assert x.dtype == jnp.float64
        np.testing.assert_allclose(x, stored[f"{data}/{run}/{double}"], atol=1e-6)


def test_twenty_steps_at_once_on_every_stored_picture():
    # Kills: what 16 pictures or single steps do not show: rows past the first, chunks of the loop, three channels.
    stored = reference.load("attacks/pgd_deterministic.npz")["cifar/pgd20_linf_eps8_a2/adv_f64run"]
    with jax.enable_x64():
        logits_fn, images, labels = setting("cifar", len(stored), np.float64)
        threat = ThreatModel("linf", 8 / 255)
        x = pgd(None, logits_fn, images, labels, threat, steps=20, step_size=2 / 255, random_start=False)
        assert len(stored) == 64
        np.testing.assert_allclose(x, stored, atol=1e-6)


@CASES
def test_twenty_steps_in_float32(data, run, norm, eps, alpha, objective, double, near):
    # Kills: float32 arithmetic that loses more than the official code's did (say, a norm of squares that vanish, or half precision).
    stored = load(data, "pgd")
    n = 256 if data == "digits" else 32
    logits_fn, images, labels = setting(data, n, np.float32)
    x = pgd(None, logits_fn, images, labels, ThreatModel(norm, eps), steps=20, step_size=alpha, objective=objective, random_start=False)
    away = np.abs(np.asarray(x) - stored[f"{data}/{run}/{double}"][:n]).max((1, 2, 3))
    assert (away < 1e-5).mean() >= near - 0.1
    robust = np.asarray(correct(logits_fn(jnp.asarray(images)), labels) & correct(logits_fn(x), labels))
    assert (robust != stored[f"{data}/{run}/robust_f32"][:n]).mean() <= 0.01


@pytest.mark.parametrize(
    ("norm", "eps", "alpha", "objective", "official"),
    [
        ("linf", 0.1, 0.02, "ce", ["torchattacks_pgd20_linf_rs", "foolbox_pgd20_linf_rs"]),
        ("l2", 0.5, 0.1, "ce", ["foolbox_pgd20_l2_a0.1_rs", "torchattacks_pgd20_l2_a0.1_rs"]),
        ("linf", 0.1, 0.02, "cw", ["own_cw20_linf_rs"]),
    ],
)
def test_random_starts_leave_the_official_robust_accuracy(norm, eps, alpha, objective, official):
    # Kills: starts outside of the ball, the margin for the cross-entropy, half the steps. The spread is the official seeds'.
    flags = reference.load("attacks/digits_flags.npz")
    seeds = [flags[k].mean() for k in flags.files if k.split("/")[1] in official and k.endswith("robust")]
    logits_fn, images, labels = setting("digits", 256, np.float32)
    clean = correct(logits_fn(jnp.asarray(images)), labels)
    robust = []
    for seed in range(2):
        keys = example_keys(jax.random.key(seed), jnp.arange(256))
        x = pgd(keys, logits_fn, images, labels, ThreatModel(norm, eps), steps=20, step_size=alpha, objective=objective)
        robust.append(float((clean & correct(logits_fn(x), labels)).mean()))
    spread = max(seeds) - min(seeds)
    assert len(seeds) >= 5 and min(seeds) - spread <= np.mean(robust) <= max(seeds) + spread


@pytest.mark.parametrize(
    ("part", "whole"),
    [
        ("digits_pgd", "pgd_deterministic"),
        ("digits_trajectories", "pgd_trajectories"),
        ("digits_logits", "logits_check"),
        ("digits_flags", "robust_flags"),
        ("digits_fab", "fab_min_norms"),
        ("digits_apgd", "apgd_fixed_start"),
    ],
)
def test_the_slice_is_the_full_set_without_cifar(part, whole):
    # Kills: a slice that was edited, or that lost or gained arrays.
    part, whole = reference.load(f"attacks/{part}.npz"), reference.load(f"attacks/{whole}.npz")
    assert sorted(part.files) == sorted(name for name in whole.files if name.startswith("digits"))
    for name in part.files:
        np.testing.assert_array_equal(part[name], whole[name], err_msg=name)
