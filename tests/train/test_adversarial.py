"""Objectives of adversarial training against their formulas, written out; training mode, batch norm and relu included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import attacks, augment, losses, models
from robustjax.core import example_keys, parallel
from robustjax.core.check import InputError
from robustjax.train import adversarial, build, state, step
from robustjax.train.objectives import Given, Network
from tests import tiny

SHAPE, CLASSES, ROWS = (8, 8, 1), 3, 16
QUICK = {"threat": "linf:0.1", "step_size": 0.05, "steps": 2}


@pytest.fixture(scope="module")
def small():
    """A network with batch norm and relu, its weights, and examples with adversarial images and weights' noise of our own."""
    apply, params, stats = models.split(models.make("small_cnn", num_classes=CLASSES, image_shape=SHAPE, width=4))
    rng = np.random.default_rng(0)
    params = {name: value + 0.1 * rng.normal(size=value.shape).astype(np.float32) for name, value in params.items()}
    labels = jnp.asarray(rng.integers(0, CLASSES, ROWS), jnp.int32)
    keys = example_keys(jax.random.key(0), jnp.arange(ROWS))
    images = rng.uniform(size=(ROWS, *SHAPE)).astype(np.float32)
    moved = np.clip(images + rng.uniform(-0.1, 0.1, images.shape), 0, 1).astype(np.float32)
    noise = {name: 0.1 * rng.normal(size=value.shape).astype(np.float32) for name, value in params.items()}
    attack_keys = example_keys(jax.random.key(2), jnp.arange(ROWS))
    given = Given(jnp.asarray(images), jax.nn.one_hot(labels, CLASSES), labels, keys, attack_keys, jax.random.key(1))
    return Network(apply, apply, None), params, stats, given, {"images": jnp.asarray(moved), "noise": [noise]}


def loss_of(objective, small, kind="loss"):
    """Returns params -> Loss."""
    network, _, stats, given, prepared = small
    return jax.jit(lambda w: getattr(objective, kind)(network, w, stats, given, prepared))


def kl(p, q):
    return jnp.sum(jax.nn.softmax(p) * (jax.nn.log_softmax(p) - jax.nn.log_softmax(q)), axis=1)


def by_hand(small, *, joined=False):
    """Returns params -> (CE + 6 KL, statistics): two passes, each view by itself; or the wrong one, of both views together."""
    network, _, stats, given, prepared = small

    def trades(w):
        if joined:
            both, after = network.apply(w, stats, jnp.concatenate([given.images, prepared["images"]]), True)
            clean, fooled = jnp.split(both.logits, 2)
        else:
            (clean, after), (fooled, _) = (network.apply(w, stats, x, True) for x in (given.images, prepared["images"]))
            _, after = network.apply(w, after, prepared["images"], True)
            clean, fooled = clean.logits, fooled.logits
        ce = -jnp.mean(jnp.sum(given.targets * jax.nn.log_softmax(clean), axis=1))
        return ce + 6 * jnp.mean(kl(clean, fooled)), after

    return jax.jit(trades)


def close(a, b, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def test_trades_is_two_passes_each_with_its_own_statistics(small):
    # Kills: one pass over both views together, which is another loss, gradient and statistics; a gradient through one view only.
    params = small[1]
    objective = adversarial.trades(**QUICK)
    found, grads = jax.value_and_grad(lambda w: loss_of(objective, small)(w).value)(params)
    (wanted, after), right = jax.value_and_grad(by_hand(small), has_aux=True)(params)
    close((found, grads), (wanted, right), atol=2e-5)
    close(loss_of(objective, small)(params).batch_stats, after)
    (joined, mixed), wrong = jax.value_and_grad(by_hand(small, joined=True), has_aux=True)(params)
    assert abs(joined - wanted) > 1e-3 and abs(wrong["head.kernel"] - right["head.kernel"]).max() > 1e-3
    assert max(abs(mixed[name] - after[name]).max() for name in after) > 1e-3


def test_without_noise_the_terms_are_exactly_zero(small):
    # Kills: terms that do not vanish with u; a zeroth term that differs with the order.
    params, prepared = small[1], small[4]
    still = (*small[:4], {**prepared, "noise": [jax.tree.map(jnp.zeros_like, prepared["noise"][0])]})
    found = loss_of(adversarial.rat(**QUICK, order=2, sigma=0.0), still)(params)
    assert float(found.terms["first"]) == 0.0 and float(found.terms["second"]) == 0.0
    np.testing.assert_allclose(found.value, loss_of(adversarial.trades(**QUICK), small)(params).value, rtol=1e-5)


def lifted(tree):
    """Returns the arrays of a tree in float64."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def test_terms_and_gradient_against_central_differences(small):
    # Kills: derivatives that hold the batch statistics constant; relu's or batch norm's second derivative; eta for eta / 2; a gradient that
    # stops in the derivatives. Training mode, batch norm, relu and max pooling, in float64: no kink lies within the steps.
    with jax.enable_x64(True):
        exact = (small[0], *lifted(small[1:]))
        network, params, stats, given, prepared = exact
        objective = adversarial.rat(**QUICK, order=2, eta=0.2)

        @jax.jit
        def logits(w):
            return [network.apply(w, stats, x, True)[0].logits for x in (given.images, prepared["images"])]

        @jax.jit
        def value(w):
            return loss_of(objective, exact)(w).value

        def moved(direction, t):
            return jax.tree.map(lambda a, b: a + t * b, params, direction)

        h = 1e-4
        here, up, down = (logits(moved(prepared["noise"][0], t)) for t in (0.0, h, -h))
        first = kl(*((a - b) / (2 * h) for a, b in zip(up, down, strict=True)))
        second = kl(*((a - 2 * c + b) / h**2 for a, b, c in zip(up, down, here, strict=True)))
        terms = loss_of(objective, exact)(params).terms
        np.testing.assert_allclose(terms["first"], jnp.mean(first), rtol=1e-5)
        np.testing.assert_allclose(terms["second"], jnp.mean(second), rtol=1e-3)
        wanted = by_hand(exact)(params)[0] + 0.2 * terms["first"] + 0.1 * terms["second"]
        np.testing.assert_allclose(value(params), wanted, rtol=1e-10)
        grads = jax.jit(jax.grad(value))(params)
        rng = np.random.default_rng(1)
        direction = {name: rng.normal(size=leaf.shape) for name, leaf in params.items()}
        slope = sum(float(jnp.sum(grads[name] * direction[name])) for name in grads)
        np.testing.assert_allclose(slope, (value(moved(direction, 1e-6)) - value(moved(direction, -1e-6))) / 2e-6, rtol=1e-5)


def test_part_of_the_batch_and_several_draws(small):
    # Kills: terms divided by the whole batch; plain rows left out of CE and KL; statistics of the other part; the first draw counted twice.
    network, params, stats, given, prepared = small
    noise = [prepared["noise"][0], jax.tree.map(jnp.negative, jax.tree.map(jnp.sin, prepared["noise"][0]))]

    def terms(objective, rows=slice(None), noise=noise):
        part = Given(
            *(jax.random.clone(leaf)[rows] if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf[rows] for leaf in given[:5]),
            given.key,
        )
        some = {"images": prepared["images"][rows], "noise": noise}
        return jax.jit(lambda w: objective.loss(network, w, stats, part, some).terms)(params)

    one = adversarial.rat(**QUICK, order=1)
    upper, lower = terms(one, slice(0, 4), noise[:1]), terms(one, slice(4, ROWS), noise[:1])
    found = terms(adversarial.rat(**QUICK, order=1, taylor_fraction=0.25), noise=noise[:1])
    np.testing.assert_allclose(found["first"], upper["first"], rtol=1e-5)
    for name in ("cross_entropy", "kl"):
        np.testing.assert_allclose(found[name], 0.25 * upper[name] + 0.75 * lower[name], rtol=1e-5)
    each = [terms(one, noise=[draw])["first"] for draw in noise]
    np.testing.assert_allclose(terms(one)["first"], sum(each) / 2, rtol=1e-5)
    assert abs(each[0] - each[1]) > 1e-3 * each[0]


def test_attacked_is_the_network_with_this_steps_noise(small):
    # Kills: x' made on w; another draw for x' than for the terms; noise that grows with the draws; statistics of the batch in the attack.
    network, params, stats, given, _ = small

    def again():
        return given._replace(attack_keys=jax.random.clone(given.attack_keys), key=jax.random.clone(given.key))

    found = jax.jit(adversarial.rat(**QUICK, sigma=0.5, draws=2).prepare, static_argnums=0)(network, params, stats, again())
    noise = found["noise"]
    assert len(noise) == 2 and all(abs(np.std(np.concatenate([np.ravel(x) for x in u.values()])) - 0.5) < 0.05 for u in noise)
    at = adversarial.inner_maximum(
        network, jax.tree.map(jnp.add, params, noise[0]), stats, again(), adversarial.threats.parse("linf:0.1"), steps=2, step_size=0.05
    )
    np.testing.assert_allclose(found["images"], at, atol=1e-6)
    plain = jax.jit(adversarial.trades(**QUICK).prepare, static_argnums=0)(network, params, stats, again())
    assert plain["noise"] == [] and abs(plain["images"] - found["images"]).max() > 0.01
    assert abs(found["images"] - given.images).max() <= 0.1 + 1e-6


def test_images_of_each_objective_are_made_as_it_says(small):
    # Kills: clean images for Madry's, or a start without noise; a TRADES attack from x itself, where the gradient is 0, or from farther
    # away; noise of the heuristic on other parameters than convolutions, or of another size.
    network, params, stats, given, _ = small
    ball = adversarial.threats.parse("linf:0.1")

    def keys():
        return jax.random.clone(given.attack_keys)

    def images(objective):
        fresh = given._replace(attack_keys=keys(), key=jax.random.clone(given.key))
        return jax.jit(objective.prepare, static_argnums=0)(network, params, stats, fresh)["images"]

    def made(weights, own_keys, **options):
        fooled = models.logits_fn(network.attacked, weights, stats)
        return attacks.pgd(own_keys, fooled, given.images, given.labels, ball, steps=2, step_size=0.05, **options)

    found = images(adversarial.madry(**QUICK))
    np.testing.assert_allclose(found, made(params, keys()), atol=1e-6)
    assert abs(found - given.images).max() > 0.05
    noise = jnp.stack([jax.random.normal(key, SHAPE) for key in keys()])
    start = given.images + 0.001 * noise
    np.testing.assert_allclose(images(adversarial.trades(**QUICK)), made(params, None, objective="kl", start=start), atol=1e-6)
    drawn = losses.weight_noise(jax.random.clone(given.key), params, stddev=0.5)
    moved = {name: value + drawn[name] if "conv" in name else value for name, value in params.items()}
    released = images(adversarial.rat_released(**QUICK, sigma=0.5))
    np.testing.assert_allclose(released, made(moved, None, objective="kl", start=start), atol=1e-6)
    assert any("conv" in name for name in params) and abs(released - made(params, None, objective="kl", start=start)).max() > 0.01


def test_madry_and_the_released_heuristic_are_their_formulas(small):
    # Kills: clean images in Madry's loss; cross-entropy not reduced by alpha; the second term without its half; AWP that climbs them.
    network, params, stats, given, prepared = small
    clean, fooled = (network.apply(params, stats, x, True)[0] for x in (given.images, prepared["images"]))
    madry = loss_of(adversarial.madry(**QUICK), small)(params)
    np.testing.assert_allclose(madry.value, jnp.mean(losses.cross_entropy(fooled.logits, given.labels)), rtol=1e-5)
    objective = adversarial.rat_released(**QUICK, alpha=0.3, beta=2.0)
    gradients = [losses.head_gradient(view.features, view.logits, given.labels) for view in (clean, fooled)]
    first, second = (jnp.mean(term) for term in losses.released_heuristic(clean.logits, fooled.logits, *gradients, given.labels))
    base = jnp.mean(losses.cross_entropy(clean.logits, given.labels)), 2 * jnp.mean(kl(clean.logits, fooled.logits))
    np.testing.assert_allclose(loss_of(objective, small)(params).value, 0.7 * base[0] + base[1] + 0.3 * first + 0.15 * second, rtol=1e-5)
    np.testing.assert_allclose(loss_of(objective, small, "ascent")(params).value, sum(base), rtol=1e-5)


@pytest.mark.parametrize("order", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_weight_perturbation_in_a_step(order):
    # Kills: the optimiser at the unperturbed weights; a perturbation that stays; one before the end of the warm-up; Taylor terms climbed.
    named = {"name": "rat", "order": order} if order else {"name": "trades"}
    experiment = build.build(tiny.config(objective={**named, **QUICK, "steps": 1}, optimizer__weight_decay=0.1))
    objective, optimizer = experiment.objective, experiment.optimizer
    mesh = parallel.data_mesh(jax.devices()[:1])
    source = experiment.dataset.train
    data = parallel.replicate((jax.random.key(0), jnp.asarray(source.images), jnp.asarray(source.labels)), mesh)
    network = Network(experiment.apply, experiment.apply, None)
    options = {"num_classes": 3, "awp": step.WeightPerturbation(gamma=0.3, warmup_steps=1)}
    one = step.resident(step.make_step(experiment.apply, augment.compose([]), objective, optimizer, **options))
    function = parallel.data_parallel(one, mesh, donate=False)

    @jax.jit
    def by_hand(current, ids, gamma):
        step_key = jax.random.fold_in(jax.random.key(0), current.step)
        streams = [jax.vmap(jax.random.fold_in, (0, None))(example_keys(step_key, ids), i) for i in (1, 2)]
        labels = jnp.asarray(source.labels)[ids]
        images = jnp.asarray(source.images)[ids].astype(jnp.float32) / 255
        given = Given(images, jax.nn.one_hot(labels, 3), labels, *streams, jax.random.fold_in(step_key, 2**32 - 1))
        params, stats = current.params, current.batch_stats
        prepared = objective.prepare(network, params, stats, given)
        upwards = jax.grad(lambda w: objective.ascent(network, w, stats, given, prepared).value)(params)
        moved = losses.adversarial_weight_perturbation(params, upwards, gamma=gamma)
        grads = jax.grad(lambda w: objective.loss(network, w, stats, given, prepared).value)(moved)
        change, _ = optimizer.update(grads, current.opt_state, moved)
        return jax.tree.map(lambda a, b: a + b, params, change)

    current = build.initial_state(experiment)
    for i, gamma in enumerate((0.0, 0.3)):
        ids = jnp.asarray(experiment.order(i))
        wanted, without = by_hand(current, ids, gamma), by_hand(current, ids, 0.0)
        current = function(current, data, ids[:, None])[0]
        close(current.params, wanted, atol=1e-5)
    assert max(abs(without[name] - wanted[name]).max() for name in wanted) > 1e-3


def test_devices_agree():
    # Kills: another draw of the weights' noise on each device; statistics of a device's own rows; terms of one device. In L2: the signs of
    # L-inf steps flip where rounding decides.
    objective = {"name": "rat", "order": 2, "threat": "l2:0.5", "step_size": 0.2, "steps": 2, "sigma": 0.1}
    experiment = build.build(tiny.config(objective=objective, augment=(), augment_options={}))
    source = experiment.dataset.train
    found = []
    for devices in (1, 8):
        mesh = parallel.data_mesh(jax.devices()[:devices])
        function = parallel.data_parallel(step.resident(experiment.step), mesh)
        data = parallel.replicate((jax.random.key(0), jnp.asarray(source.images), jnp.asarray(source.labels)), mesh)
        fresh = parallel.replicate(build.initial_state(experiment), mesh)
        found.append(jax.device_get(function(fresh, data, parallel.shard_rows(experiment.order(0)[:, None], mesh))[0]))
    close(found[0].params, found[1].params, atol=1e-5)
    close(found[0].batch_stats, found[1].batch_stats, atol=1e-5)
    close(found[0].sums.terms, found[1].sums.terms, rtol=1e-2)
    assert found[0].sums.terms["second"] > 0 and set(found[0].sums.terms) == {"cross_entropy", "kl", "first", "second"}


def test_fresh_state_holds_the_sums_of_the_terms():
    # Kills: a first log line without the terms, or a state that changes its structure in the first step.
    sums = state.zero_sums(("kl",))
    assert set(sums.terms) == {"kl"} and int(sums.bad_step) == -1


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"name": "rat", "order": 0}, "order must be 1 or 2"),
        ({"name": "rat", "order": 2.0}, "order must be 1 or 2"),
        ({"name": "rat", "eta": "0.2"}, "objective.eta must be a number of at least 0"),
        ({"name": "trades", "beta": -6.0}, "objective.beta must be a number of at least 0"),
        ({"name": "trades", "steps": 0}, "objective.steps must be a whole number of at least 1"),
        ({"name": "rat_released", "confusion": "a"}, r"objective.confusion must be a number in \[0, 1\]"),
        ({"name": "rat", "draws": 0}, "draws must be a whole number of at least 1"),
        ({"name": "rat", "taylor_fraction": 0.0}, r"taylor_fraction must be a number in \(0, 1\]"),
        ({"name": "rat", "reading": "kl_logit"}, "unknown reading of the Taylor terms 'kl_logit'; did you mean 'kl_logits'"),
        ({"name": "rat", "groups": ("conv9",)}, "no parameter is called 'conv9'"),
        ({"name": "rat", "groups": (3,)}, "objective.groups must be names of parameters"),
        ({"name": "rat", "reading": ("squared",)}, "unknown reading of the Taylor terms"),
        ({"name": "trade"}, "unknown objective 'trade'; did you mean 'trades'"),
        ({"name": "trades", "betta": 6.0}, "unknown option of the objective 'trades': 'betta'; did you mean 'beta'"),
        ({"name": "madry", "threat": "8/255"}, "a threat is written norm:eps"),
        ({"name": "classification", "beta": 6.0}, "'beta' beside 'classification'"),
    ],
)
def test_objectives_that_cannot_be_are_refused_in_one_line(objective, message):
    with pytest.raises(InputError, match=message):
        build.build(tiny.config(objective=objective))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer__swa_epoch": 3}, "swa_epoch = 3 lies behind the last of the 2 epochs"),
        ({"optimizer__swa_epoch": 1, "optimizer__ema": 0.9}, "two ways of averaging"),
        (
            {"selection": {"data": "cbar", "attack": {"norm": "linf", "eps": 0.1, "step_size": 0.1, "steps": 1}}},
            "attacks clean validation images",
        ),
        (
            {"selection": {"data": "clean", "attack": {"norm": "linf", "eps": 8.0, "step_size": 2.0, "steps": 1}}},
            "selection.attack.eps is in units",
        ),
        ({"awp": {"gamma": 0.1, "warmup_epochs": 2.0, "loss": "base"}}, "warmup_epochs = 2 leaves none of the 2 epochs"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(changes, message):
    with pytest.raises(InputError, match=message):
        build.build(tiny.config(**changes))
