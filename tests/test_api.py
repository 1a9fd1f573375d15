"""The public names and signatures, as fixed in the design: positional names in order, options keyword-only with their defaults."""

import importlib
import inspect
import re
from typing import NamedTuple

import pytest

# One line a function, as a user would read it. A name without default may have one in the code; further options may follow.
SIGNATURES = """
core.example_keys(key, ids)
core.ThreatModel(norm, eps)
augment.sphere_directions(keys, images)
augment.uniform_radius(keys, *, tau)
augment.truncated_normal_radius(keys, *, mean, stddev, low, high)
augment.rescale_to_box(images, directions, radius)
augment.exponential_confidence(size, *, start, width, floor)
augment.soft_targets(confidence, labels, *, num_classes)
augment.xi_from_ratio(gamma, *, num_classes)
augment.spider(keys, images, labels, *, tau, xi, num_classes)
augment.esp(keys, images, labels, *, epsilon, tau, xi, num_classes, sigma=None)
corruptions.corrupt(keys, images, *, name, severity=None, benchmark='cifar_c', quantize=True, **options)
corruptions.draw(keys, shape, *, name, severity, benchmark, **options)
corruptions.apply(images, draws, *, name, severity, benchmark, quantize=True, **options)
losses.cross_entropy(logits, targets)
losses.kl_divergence(p_logits, q_logits)
losses.trades_regularizer(clean_logits, adversarial_logits)
losses.taylor_derivatives(logits_of_params, params, direction, *, order, has_aux=False)
losses.taylor_regularizer(apply_fn, params, direction, images, adversarial_images, *, order, reading='kl_logits')
losses.adversarial_weight_perturbation(params, grads, *, gamma)
attacks.pgd(keys, logits_fn, images, labels, threat, *, steps, step_size, objective='ce', random_start=True, start=None, restarts=1, best=False, targets=None, randomized=False)
attacks.apgd(keys, logits_fn, images, labels, threat, *, steps=100, restarts=1, objective='ce', num_targets=9, targets=None, start=None, eot=1, return_state=False)
attacks.fab(keys, logits_fn, images, labels, threat, *, steps=100, restarts=1, targets=None, num_targets=9, random_start=True)
attacks.square(keys, logits_fn, images, labels, threat, *, queries=5000, p_init=0.8)
attacks.transfer(keys, attack, surrogate_fn, defender_fn, images, labels, threat)
attacks.preset(name)
attacks.autoattack(keys, logits_fn, images, labels, threat, *, version='standard', attacks=None, batch_size=256, state=None, on_state=None)
metrics.mean_corruption_error(errors, *, clean_error=None, reference=None)
metrics.boundary_thickness(logits_fn, x_i, x_j, class_i, class_j, *, alpha, beta, points=128, std=1.0)
metrics.loss_at_distance(loss_of_params, params, direction, *, radius)
metrics.weight_space_loss(keys, loss_of_params, params, *, radius)
metrics.directional_curvature(loss_fn, images, labels, direction, *, t=1e-2)
metrics.input_curvature(keys, loss_fn, images, labels, *, t=1e-2, draws=20)
theory.ellipsoid_semi_axes(W, x, gamma, *, form='corrected')
theory.parameter_ball_radius(W, X, gamma, *, form='corrected')
theory.parameter_superset_radius(W, X, gamma, *, form='corrected', subset=None)
theory.optimum_on_segment(t, distance, *, dim, num_classes, confidence=None, log_density=None)
theory.thickness_of_optimum(distance, *, dim, num_classes, confidence, log_density=None, alpha=0.0, beta=0.75)
theory.imbalance_threshold(x, x_1, x_2, *, epsilon, tau, xi, sigma=None, spread=0.0)
losses.compactness(features, labels, centroids, *, delta_v)
losses.class_margin(centroids, present, kernel, bias, *, delta_d)
losses.centroid_norm(centroids, present)
losses.class_balanced_mean(values, labels, present, *, axis_name=None)
losses.update_centroids(state, features, labels, *, momentum, axis_name=None)
losses.stability(features, noisy_features)
metrics.class_dispersion(features, labels, k)
metrics.class_margins(features, labels, kernel, bias)
theory.js_divergence_lower_bound(tau)
theory.rescale_features(params, nu)
losses.jsd_consistency(clean, aug1, aug2)
augment.mixup(keys, images, targets, partner_images, partner_targets, *, alpha, lam='example')
augment.cutmix(keys, images, targets, partner_images, partner_targets, *, alpha, lam='example')
augment.deepaugment(keys, images, layers, params, *, distortions)
augment.augmix(keys, images, *, severity=3, width=3, depth=-1, alpha=1.0)
augment.pixmix(keys, images, mixers, *, k=4, beta=3.0, severity=3)
""".strip().splitlines()


class Signature(NamedTuple):
    """What the design fixes of one function."""

    name: str
    positional: list[str]
    options: dict[str, object]  # inspect.Parameter.empty where no default is fixed
    open_ended: bool


def parse(line: str) -> Signature:
    """Reads one line of SIGNATURES."""
    name, inside = line.rstrip(")").split("(", 1)
    parameters = inspect.signature(eval(f"lambda {inside}: 0")).parameters.values()
    return Signature(
        name,
        [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD],
        {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY},
        any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


def differences(fixed: Signature, function) -> list[str]:
    """Returns how the signature and docstring of a function depart from what is fixed."""
    parameters = inspect.signature(function).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    found = [] if positional == fixed.positional else [f"positional {positional}"]
    for name, default in fixed.options.items():
        if name not in options:
            found.append(f"no option {name!r}")
        elif default is not inspect.Parameter.empty and options[name] != default:
            found.append(f"{name}={options[name]!r}")
    found += [
        f"further option {n!r} without default" for n in options.keys() - fixed.options.keys() if options[n] is inspect.Parameter.empty
    ]
    if any(p.kind is p.VAR_KEYWORD for p in parameters) != fixed.open_ended:
        found.append("**options")
    doc = inspect.getdoc(function) or ""
    found += [f"no {section} in the docstring" for section, form in SECTIONS.items() if not re.search(form, doc, re.MULTILINE)]
    return found


# A one-line summary that begins with 'Returns' says it too.
SECTIONS = {"Args": r"^Args:", "Returns": r"^Returns:|\AReturns "}


@pytest.mark.parametrize("line", SIGNATURES, ids=[line.split("(")[0] for line in SIGNATURES])
def test_signature_is_the_one_fixed(line):
    # Kills: a renamed, reordered, dropped or positional option; another default; a submodule that hides the function.
    fixed = parse(line)
    package, name = fixed.name.split(".")
    function = getattr(importlib.import_module(f"robustjax.{package}"), name)
    assert callable(function)
    if inspect.isclass(function):
        assert list(inspect.signature(function).parameters) == fixed.positional and "Args:" in function.__doc__
    else:
        assert differences(fixed, function) == []


def test_the_comparison_sees_every_difference():
    # Kills: defaults, kinds, order or docstrings not compared.
    fixed = parse("x.f(keys, images, *, tau, mode='all')")

    def same(keys, images, *, mode="all", tau=1.0, extra=0):
        """Does.

        Args:
        Returns:
        """

    def short(keys, images, *, tau, mode="all"):
        """Returns nothing.

        Args:
        """

    def swapped(images, keys, *, tau, mode="all"): ...

    def positional(keys, images, tau, *, mode="clean", need, **options): ...

    missing = ["no Args in the docstring", "no Returns in the docstring"]
    assert differences(fixed, same) == differences(fixed, short) == []
    assert differences(fixed, swapped) == ["positional ['images', 'keys']", *missing]
    assert differences(fixed, positional) == [
        "positional ['keys', 'images', 'tau']",
        "no option 'tau'",
        "mode='clean'",
        "further option 'need' without default",
        "**options",
        *missing,
    ]


def test_names_of_the_corruptions():
    # Kills: a benchmark under another name; names that are no tuple of strings.
    from robustjax import corruptions

    assert isinstance(corruptions.NAMES, dict) and "cifar_c" in corruptions.NAMES
    assert all(isinstance(names, tuple) and names and all(isinstance(n, str) for n in names) for names in corruptions.NAMES.values())


def test_calibration_is_public():
    # Kills: the one name whose arguments the design leaves open, lost.
    from robustjax import metrics

    doc = inspect.getdoc(metrics.expected_calibration_error)
    assert all(re.search(form, doc, re.MULTILINE) for form in SECTIONS.values())
