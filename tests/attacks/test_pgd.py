"""PGD where the answer is known. Each test names the mutants it kills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.tree_util import Partial

from robustjax.attacks import pgd as pgd_function
from robustjax.attacks.objectives import OBJECTIVES, cross_entropy, evaluate
from robustjax.attacks.pgd import _check_options
from robustjax.core import InputError, ThreatModel, example_keys, loops
from robustjax.core.numerics import image_norm

SHAPE = (6, 3, 3, 2)
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0.3, 0.7, SHAPE).astype(np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2], np.int32)
WEIGHT = RNG.normal(size=(18, 3)).astype(np.float32)


def linear(weight, images):
    return images.reshape(images.shape[0], -1) @ weight


def rippled(weight, images):
    """Logits with many maxima, so that what an attack finds depends on where it starts."""
    flat = images.reshape(images.shape[0], -1)
    return jnp.sin(9 * flat) @ weight


def keys(n=6, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(n))


def attack(logits_fn=None, norm="linf", eps=0.1, *, images=IMAGES, labels=LABELS, **options):
    logits_fn = Partial(linear, jnp.asarray(WEIGHT)) if logits_fn is None else logits_fn
    options = {"steps": 5, "step_size": 0.05, "random_start": False, **options}
    return pgd_function(options.pop("keys", None), logits_fn, images, labels, ThreatModel(norm, eps), **options)


TWO = np.stack([WEIGHT[:, 0], -WEIGHT[:, 0]], 1)  # two classes: the gradient keeps its direction, so the optimum is in closed form
TWO_LABELS = np.array([0, 1, 0, 1, 0, 1], np.int32)
UPHILL = np.where(TWO_LABELS == 0, -1, 1)[:, None, None, None] * WEIGHT[:, 0].reshape(1, 3, 3, 2)


def still(images):
    """Logits without a gradient, so that an attack stays where it starts."""
    return jnp.zeros((images.shape[0], 3))


@pytest.mark.filterwarnings("ignore:step_size 1 is over the radius")
@pytest.mark.parametrize("objective", ["ce", "cw"])
@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_linear_network_is_taken_to_its_optimum(norm, random_start, objective):
    # Kills: descent, a projection to another radius or norm, steps or projection forgotten, the box forgotten (linf, eps 0.5).
    eps = {"linf": 0.5, "l2": 0.2, "l1": 0.2}[norm]  # the box binds in linf only: there PGD's clip still gives the optimum
    largest = np.abs(UPHILL).reshape(1 * 6, -1).argmax(1)
    vertex = np.zeros((6, 18), np.float32)
    vertex[np.arange(6), largest] = 1
    direction = {
        "linf": np.sign(UPHILL),
        "l2": UPHILL / np.linalg.norm(UPHILL[0]),
        "l1": np.sign(UPHILL) * vertex.reshape(SHAPE),
    }[norm]
    step = {"linf": 0.1, "l2": 0.1, "l1": 1.0}[norm]
    fn = Partial(linear, jnp.asarray(TWO))
    x = attack(fn, norm, eps, labels=TWO_LABELS, keys=keys(), steps=30, step_size=step, random_start=random_start, objective=objective)
    np.testing.assert_allclose(x, np.clip(IMAGES + eps * direction, 0, 1), atol=2e-3 if norm == "l2" else 1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_step_has_its_absolute_length(norm):
    # Kills: a step relative to eps, a radius that acts where it should not, more steps than asked for.
    for steps in (1, 2):
        x = attack(Partial(linear, jnp.asarray(TWO)), norm, 1.0, labels=TWO_LABELS, steps=steps, step_size=0.03)
        np.testing.assert_allclose(image_norm(x - IMAGES, norm), steps * 0.03, rtol=1e-4)


WIDE = np.concatenate([WEIGHT, RNG.normal(size=(18, 2)).astype(np.float32)], axis=1)  # five classes, for the DLR


@pytest.mark.parametrize("objective", sorted(set(OBJECTIVES) - {"kl"}))
def test_targets_are_reached(objective):
    # Kills: targets ignored, ascent to them, labels used in their place or label and target swapped; success of the untargeted kind.
    fn, targets = Partial(linear, jnp.asarray(WIDE)), (LABELS + 1) % 3
    x = attack(fn, eps=0.5, targets=targets, objective=objective, steps=20)
    both = "targets" in OBJECTIVES[objective].reads
    given = (jnp.asarray(LABELS), jnp.asarray(targets)) if both else (jnp.asarray(targets),)
    before, after = ((1 if both else -1) * evaluate(objective, fn(jnp.asarray(v)), *given) for v in (IMAGES, x))
    assert (after > before + 0.05).all()
    if objective in ("ce", "cw"):  # the others need not rise above a third class, or are content with a small spread of the logits
        np.testing.assert_array_equal(jnp.argmax(fn(x), 1), targets)


@pytest.mark.parametrize("objective", ["dlr", "kl"])
def test_other_objectives_are_climbed(objective):
    # Kills: the objective's other sign; KL from logits that move with the iterate, which never leaves; labels in place of the logits.
    fn = Partial(linear, jnp.asarray(WIDE))
    start = attack(still, eps=0.1, keys=keys(), steps=1, random_start=True, objective="ce")
    x = attack(fn, eps=0.1, keys=keys(), random_start=True, objective=objective)
    clean, before, after = (fn(jnp.asarray(v)) for v in (IMAGES, start, x))
    before, after = (evaluate(objective, z, jnp.asarray(LABELS), clean_logits=clean) for z in (before, after))
    assert (after > before).all() and after.mean() > 1.5 * abs(before).mean()


def test_one_step_of_the_radius_is_fgsm():
    # Kills: another sign, a step before or after the one.
    fn = Partial(linear, jnp.asarray(WEIGHT))
    gradient = jax.grad(lambda x: cross_entropy(fn(x), jnp.asarray(LABELS)).sum())(jnp.asarray(IMAGES))
    x = attack(eps=0.1, steps=1, step_size=0.1)
    np.testing.assert_allclose(x, np.clip(IMAGES + 0.1 * np.sign(gradient), 0, 1), atol=1e-6)


def noisy(images, keys):
    """Logits whose classes 0 and 1 change places by a coin that is tossed for each image in each call."""
    coins = jax.vmap(jax.random.bernoulli)(keys)
    logits = linear(WEIGHT, images)
    return jnp.where(coins[:, None], logits, logits[:, jnp.array([1, 0, 2])])


def test_a_network_that_draws_gets_fresh_keys():
    # Kills: one draw for the whole attack, for all restarts or all examples (each step then goes one way, 0.1 from the image); keys of
    # the random start given to the network; results that depend on the batch.
    images, labels = np.repeat(IMAGES[:1], 24, 0), np.zeros(24, np.int32)
    options = {"images": images, "labels": labels, "randomized": True, "step_size": 0.01, "steps": 8}
    x = attack(noisy, keys=keys(24), **options)
    moved = np.asarray(x - images).reshape(24, 18) / 0.01
    agree = np.sign(WEIGHT[:, 0]) != np.sign(WEIGHT[:, 1])
    assert len(np.unique(moved.round(1), axis=0)) > 5 and (np.abs(moved).min(1) < 7.5).sum() > 12 and agree.any()
    few = attack(noisy, keys=keys(24)[:5], **{**options, "images": images[:5], "labels": labels[:5]})
    np.testing.assert_allclose(few, x[:5], atol=1e-6)
    traced = jax.jit(lambda keys: attack(noisy, keys=keys, random_start=True, restarts=2, objective="kl", **options))(keys(24))
    alone = attack(noisy, keys=keys(24), random_start=True, restarts=2, objective="kl", **options)
    np.testing.assert_allclose(traced, alone, atol=1e-5)


def test_start_is_used_and_brought_into_ball_and_box():
    # Kills: `start` ignored, or not projected, or followed by a random start.
    start = IMAGES + RNG.normal(size=SHAPE).astype(np.float32)
    x = attack(still, eps=0.4, steps=1, start=start, random_start=True)
    np.testing.assert_allclose(x, np.clip(np.clip(start, IMAGES - 0.4, IMAGES + 0.4), 0, 1), atol=1e-6)


def test_best_is_the_best_of_all_iterates():
    # Kills: the last iterate returned, the starting point or the last point left out, a smallest loss, one choice for the batch.
    fn = Partial(rippled, jnp.asarray(WEIGHT))
    options = {"eps": 0.4, "step_size": 0.25, "random_start": True}  # steps so long that they overshoot
    iterates = [attack(still, keys=keys(), steps=1, **options), *(attack(fn, keys=keys(), steps=t, **options) for t in range(1, 7))]
    losses = np.stack([cross_entropy(fn(x), jnp.asarray(LABELS)) for x in iterates])
    for steps in (1, 6):
        best = attack(fn, keys=keys(), steps=steps, best=True, **options)
        np.testing.assert_allclose(cross_entropy(fn(best), jnp.asarray(LABELS)), losses[: steps + 1].max(0), rtol=1e-5)
    # Else this test could not fail: the last one, and an earlier one, must be the best somewhere.
    assert (losses[1] > losses[0] + 1e-3).any() and (losses[0] > losses[1] + 1e-3).any() and (losses.max(0) > losses[-1] + 1e-3).any()


def barely(images):
    """Up the loss from barely wrong between two classes to barely right among three."""
    s = images.sum((1, 2, 3))
    return jnp.stack([0 * s, 0.05 - 0.2 * s, 5.6 * s - 3], axis=1)


def test_more_steps_never_help_the_network():
    # Kills: a larger loss preferred to a success; the last success, or the first, for the one of largest loss.
    dark = {"images": np.zeros((1, 1, 1, 1), np.float32), "labels": np.zeros(1, np.int32), "eps": 0.5, "step_size": 0.1}
    assert jnp.argmax(barely(attack(barely, **dark)), 1) == 0
    np.testing.assert_allclose(attack(barely, **dark, best=True), 0.2, atol=1e-6)  # of the points 0, 0.1, ..., those to 0.2 succeed


@pytest.mark.parametrize(("steps", "eps", "best"), [(3, 0.08, False), (3, 0.08, True), (1, 0.12, False)])
def test_restarts_keep_the_first_success_else_the_largest_loss(steps, eps, best):
    # Kills: the last restart kept, the largest loss kept although an earlier run succeeded, the same draw in every restart, restarts
    # chosen for the whole batch, work lost when broken examples leave the batch.
    fn = Partial(rippled, jnp.asarray(WEIGHT))
    images = np.tile(IMAGES, (3, 1, 1, 1))
    labels = np.asarray(jnp.argmax(fn(images), 1), np.int32)
    options = {"images": images, "labels": labels, "eps": eps, "steps": steps, "step_size": eps / 6, "random_start": True, "best": best}

    def outcome(x):
        logits = fn(jnp.asarray(x))
        return np.asarray(jnp.argmax(logits, 1) != labels), np.asarray(cross_entropy(logits, jnp.asarray(labels)))

    runs = [attack(fn, keys=keys(18), restarts=r, **options) for r in (1, 2, 4)]
    (won1, loss1), (won2, loss2), (won4, loss4) = map(outcome, runs)
    for (won, loss, x), (won_, loss_, x_) in [
        ((won1, loss1, runs[0]), (won2, loss2, runs[1])),
        ((won2, loss2, runs[1]), (won4, loss4, runs[2])),
    ]:
        np.testing.assert_array_equal(np.asarray(x)[won], np.asarray(x_)[won])  # a success is final
        assert won_[won].all() and (loss_[~won & ~won_] >= loss[~won & ~won_] - 1e-6).all()
    assert won1.any() and won4.sum() > won1.sum() and not won4.all() and (loss4[~won4] > loss1[~won4] + 1e-4).any()
    # In a trace, where nothing can leave the batch, the outcome is the same.
    traced = jax.jit(lambda keys: attack(fn, keys=keys, restarts=4, **options))(keys(18))
    np.testing.assert_allclose(traced, runs[2], atol=1e-5)


@pytest.mark.parametrize("check_vma", [False, True])
def test_a_long_attack_runs_on_a_mesh(check_vma):
    # Kills: a loop, which attacks of many steps become, that starts from constants: jax's default check refuses it.
    fn, threat = Partial(rippled, jnp.asarray(WEIGHT)), ThreatModel("linf", 0.1)

    def run(keys, images, labels):
        return pgd_function(keys, fn, images, labels, threat, steps=loops.UNROLL + 1, step_size=0.01, best=True, restarts=2)

    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    split = PartitionSpec("data")
    sharded = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(split,) * 3, out_specs=split, check_vma=check_vma))
    np.testing.assert_allclose(sharded(keys(), IMAGES, LABELS), run(keys(), IMAGES, LABELS), atol=1e-5)


@pytest.mark.parametrize(("norm", "kind"), [("linf", AxisType.Explicit), ("l2", AxisType.Auto)])
def test_rows_on_two_devices_are_taken_as_they_are(norm, kind):
    # Kills: images[0], or examples that a restart broke, which cannot be cut out of rows that lie on a mesh of the kind jax makes by
    # default; a choice between restarts in which shapes or places do not fit.
    rows = NamedSharding(jax.make_mesh((2,), ("data",), axis_types=(kind,)), PartitionSpec("data"))
    fn, options = Partial(rippled, jnp.asarray(WEIGHT)), {"norm": norm, "eps": 0.3, "random_start": True, "restarts": 3}
    options |= {"labels": np.asarray(jnp.argmax(fn(IMAGES), 1), np.int32), "objective": "ce" if norm == "l2" else "kl"}
    given = {"images": jax.device_put(IMAGES, rows), "labels": jax.device_put(options["labels"], rows)}
    x = attack(fn, **(options | given), keys=jax.device_put(keys(), rows))
    np.testing.assert_allclose(x, attack(fn, **options, keys=keys()), atol=1e-5)


def test_a_known_step_size_may_be_closed_over():
    # Kills: a comparison of a constant of jax inside a trace, which is staged and has no truth value.
    step_size = jnp.float32(0.05)
    traced = jax.jit(lambda x: attack(images=x, step_size=step_size))(IMAGES)
    np.testing.assert_allclose(traced, attack(), atol=1e-6)


def test_labels_are_not_needed_beside_targets():
    # Kills: labels checked or read where the aim is a target; a traceback of jax where neither is there.
    np.testing.assert_array_equal(attack(labels=None, targets=LABELS), attack(labels=LABELS + 7, targets=LABELS))
    for left in ({"labels": None, "targets": LABELS}, {}):
        with pytest.raises(InputError, match="'logit_difference' compares label and target: give (labels|targets)"):
            attack(objective="logit_difference", **left)
    with pytest.raises(InputError, match="got None, which will do only where targets are given"):
        attack(labels=None)


def test_a_network_without_gradient_leaves_the_images():
    # Kills: 0/0 in the norm of the gradient, in each norm.
    for norm in ("linf", "l2", "l1"):
        x = attack(lambda x: jnp.zeros((x.shape[0], 3)), norm, best=True)
        np.testing.assert_array_equal(x, IMAGES)


@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_nan_is_refused(norm, best):
    # Kills: a NaN that loses every comparison, so that best=True returns the clean image and the network counts as robust.
    def fn(x):
        return linear(WEIGHT, x) + jnp.where(jnp.arange(6) == 2, jnp.nan, 0.0)[:, None]

    with jax.debug_nans(False), pytest.raises(InputError, match=r"NaN .* on 1 of 6 images, first at position 2"):
        attack(fn, norm, best=best)
    with jax.debug_nans(False):  # in a trace nobody can be told, so the image itself must show it
        x = jax.jit(lambda x: attack(fn, norm, images=x, best=best))(IMAGES)
    np.testing.assert_array_equal(np.isnan(x).all((1, 2, 3)), np.arange(6) == 2)


def test_plain_callables_and_changed_weights():
    # Kills: callables that must be hashable; a network changed in place that is attacked with its old weights.
    class Model:
        __hash__ = None

        def __init__(self):
            self.weight = jnp.asarray(WEIGHT)

        def __call__(self, x):
            return linear(self.weight, x)

    model, expected = Model(), attack()
    np.testing.assert_allclose(attack(model), expected, atol=1e-6)
    np.testing.assert_allclose(attack(lambda x: linear(WEIGHT, x)), expected, atol=1e-6)
    model.weight = -model.weight
    moved = attack(model)
    np.testing.assert_allclose(moved, attack(Partial(linear, jnp.asarray(-WEIGHT))), atol=1e-6)
    assert np.abs(moved - expected).max() > 0.05
    # The same function object both times, which reads a model that training changes in place.
    reader = lambda x: model(x)  # noqa: E731
    np.testing.assert_allclose(attack(reader), moved, atol=1e-6)
    model.weight = -model.weight
    np.testing.assert_allclose(attack(reader), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": IMAGES[0]}, "unbatched"),
        ({"images": (IMAGES * 255).astype(np.uint8)}, "255"),
        ({"images": IMAGES * 2 - 1}, "normalised|-1, 1"),
        ({"labels": LABELS + 1}, r"labels must lie in \[0, 2\]"),
        ({"labels": LABELS[:5]}, "one for each image"),
        ({"targets": LABELS - 1}, r"targets must lie in .*-1"),
        ({"targets": LABELS[:5]}, "targets must have shape"),
        ({"targets": (LABELS + (np.arange(6) > 3)) % 3}, "differ from the labels; on 4 of 6 images they do not, first at 0"),
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"step_size": 0.0}, "step_size"),
        ({"step_size": float("nan")}, "step_size"),
        ({"objective": "cv"}, "did you mean 'cw'"),
        ({"objective": "kl"}, "no gradient at the image"),
        ({"objective": "kl", "targets": (LABELS + 1) % 3}, "reaches for no class"),
        ({"restarts": 0}, "restarts"),
        ({"restarts": 2}, "run the same attack 2 times"),
        ({"start": IMAGES[:2]}, "start must be"),
        ({"start": np.full(SHAPE, np.nan, np.float32)}, "start holds NaN"),
        ({"random_start": True}, "keys must be"),
        ({"random_start": True, "keys": jax.random.key(0)}, "one key an example"),
        ({"random_start": True, "keys": keys(5)}, r"shape \(6,\)"),
    ],
)
def test_bad_input_says_so(options, message):
    # Kills: any of these let through, to end in a traceback of jax or in a number.
    with jax.debug_nans(False), pytest.raises(InputError, match=message):
        attack(**options)


def test_odd_but_legal_options_get_a_line():
    # Kills: a step across the ball in silence, or refused; a message for FGSM or radius 0; DLR of three classes.
    with pytest.warns(UserWarning, match=r"step_size 0.2 is over the radius 0.1"):
        attack(eps=0.1, step_size=0.2)
    with pytest.warns(UserWarning, match=r"'dlr' compares 4 classes and the network has 3"):
        x = attack(objective="dlr")
    np.testing.assert_array_equal(x, attack(objective="cw"))
    attack(eps=0.1, step_size=jnp.float32(0.1))
    attack(eps=0.0, step_size=0.1)


def test_a_radius_is_no_threat_model():
    # Kills: 'float has no attribute norm'. The signature is checked before in tests, hence the inner function.
    with pytest.raises(InputError, match="ThreatModel"):
        _check_options(8 / 255, 5, 0.1, "ce", True, 1)


@pytest.mark.parametrize("step_size", ["0.1", None, [0.1], np.inf, 0, jnp.float32(-1)])
def test_what_is_no_step_size_says_so(step_size):
    # Kills: a TypeError of NumPy in place of our line. The signature is checked before in tests, hence the inner function.
    with pytest.raises(InputError, match="step_size .* must be finite and > 0, got"):
        _check_options(ThreatModel("linf", 0.1), 5, step_size, "ce", True, 1)
