"""What every attack of the registry must obey; a new entry is tested by being listed. Each test names the mutants it kills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from jax.tree_util import Partial

from robustjax.attacks import TABLE
from robustjax.attacks.objectives import cross_entropy
from robustjax.core import InputError, ThreatModel, example_keys
from robustjax.core.registry import make

# name, norm, options
ENTRIES = [
    ("pgd", "linf", {"steps": 4, "step_size": 0.03}),
    ("pgd", "linf", {"steps": 4, "step_size": 0.03, "objective": "cw", "restarts": 2}),
    ("pgd", "l2", {"steps": 4, "step_size": 0.15, "best": True}),
    ("pgd", "l1", {"steps": 4, "step_size": 0.5}),
    ("apgd", "linf", {"steps": 2}),
    ("apgd", "l2", {"steps": 2}),
    ("apgd", "l1", {"steps": 2, "objective": "dlr_targeted", "num_targets": 1}),
    ("fab", "linf", {"steps": 3}),
    ("fab", "l2", {"steps": 3}),
    ("fab", "l1", {"steps": 3, "targets": "ranked", "num_targets": 1}),
    ("square", "linf", {"queries": 2}),
    ("square", "l2", {"queries": 2}),
    ("square", "l1", {"queries": 2}),
]
EPS = {"linf": 0.06, "l2": 0.3, "l1": 1.0}
# Compiling takes most of the time: the L2 and L1 forms differ in moves that the goldens and their own tests see.
SLOW = [entry for entry in ENTRIES if entry[0] != "pgd" and entry[1] != "linf"]
EACH = pytest.mark.parametrize(
    ("name", "norm", "options"),
    [pytest.param(*entry, id="-".join([*entry[:2], *entry[2]]), marks=pytest.mark.slow if entry in SLOW else ()) for entry in ENTRIES],
)
N, SHAPE, CLASSES = 8, (4, 4, 2), 4


def network(weights, images):
    hidden = jnp.tanh(images.reshape(images.shape[0], -1) @ weights["w1"])
    return hidden @ weights["w2"]


def weights(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {"w1": jnp.asarray(rng.normal(size=(32, 12)), dtype), "w2": jnp.asarray(2 * rng.normal(size=(12, CLASSES)), dtype)}


def images():
    x = np.random.default_rng(1).uniform(size=(N, *SHAPE)).astype(np.float32)
    x[0], x[1], x[2, :2] = 0, 1, 1  # saturated, where the box binds at once
    return x


def keys(ids=range(N), seed=0):
    return example_keys(jax.random.key(seed), jnp.asarray(list(ids)))


def labels(fn):
    """Returns what the network says of the clean images, so that every example is right to begin with."""
    return np.asarray(jnp.argmax(jax.jit(fn.func)(*fn.args, images()), 1), np.int32)


def attack(entry, fn, rows=slice(None), eps=None, keys_=None, x=None):
    name, norm, options = entry
    x = images() if x is None else x
    y = labels(Partial(network, weights()))
    keys_ = keys(np.arange(N)[rows]) if keys_ is None else keys_
    return make(TABLE, name, kind="attack", **options)(keys_, fn, x[rows], y[rows], ThreatModel(norm, EPS[norm] if eps is None else eps))


@jax.jit
def judged(fn, x, y):
    logits = fn(x)
    return jnp.argmax(logits, 1).astype(y.dtype) != y, cross_entropy(logits, y)


def outcome(fn, x, rows=slice(None)):
    return tuple(map(np.asarray, judged(fn, jnp.asarray(x), labels(fn)[rows])))


def over(x, clean, norm, eps):
    """Returns by how much the images leave the ball, and by how much they may; in float64, whose own rounding does not count."""
    moved = np.abs(np.asarray(x, np.float64) - np.asarray(clean, np.float64)).reshape(len(x), -1)
    size = {"linf": moved.max(1), "l2": np.sqrt((moved**2).sum(1)), "l1": moved.sum(1)}[norm]
    return (size - eps).max(), 2e-5 if norm == "l1" else 1e-6 * (1 + eps)


def test_every_entry_is_here():
    # Kills: an attack added to the registry without laws.
    assert {name for name, _, _ in ENTRIES} == set(TABLE)


@EACH
def test_inside_the_ball_and_the_box_and_worse_for_the_network(name, norm, options):
    # Kills: no projection, no clip, another norm's ball, descent, the clean image returned.
    fn = Partial(network, weights())
    x = attack((name, norm, options), fn)
    assert x.shape == (N, *SHAPE) and x.dtype == jnp.float32
    assert x.min() >= 0 and x.max() <= 1
    excess, rounding = over(x, images(), norm, EPS[norm])
    assert excess <= rounding
    loss, clean = outcome(fn, x)[1], outcome(fn, images())[1]
    if name == "fab":  # the nearest misclassified image where it is in the ball, else the clean one
        moved = np.asarray((x != images()).any((1, 2, 3)))
        assert moved.sum() >= N // 2 and outcome(fn, x)[0][moved].all() and (loss > clean)[moved].all()
        return
    assert (loss > clean).sum() >= N - 1 and loss.mean() > 1.2 * clean.mean()


def test_a_start_in_l1_stays_inside_on_colour_images():
    # Kills: a random start projected once, whose rounding errors on 3072 entries add up to more than what is allowed.
    rng = np.random.default_rng(0)
    x, w = rng.uniform(size=(16, 32, 32, 3)).astype(np.float32), jnp.asarray(rng.normal(size=(3072, CLASSES)), jnp.float32)
    fn = Partial(lambda w, x: (x.reshape(len(x), -1) - 0.5) @ w, w)
    y, threat = np.asarray(jnp.argmax(fn(jnp.asarray(x)), 1), np.int32), ThreatModel("l1", 12.0)
    found = make(TABLE, "apgd", steps=1)(keys(range(16)), fn, x, y, threat)
    excess, rounding = over(found, x, "l1", 12.0)
    assert excess <= rounding
    assert np.abs(np.asarray(found) - x).sum() > 0.9 * 16 * 12  # they went to the edge


# Starts far from the image and budgets too small to come back.
MISTAKEN = {"pgd": {"steps": 1, "step_size": 1e-3, "best": True}, "apgd": {"steps": 1}, "fab": {"steps": 1}, "square": {"queries": 1}}


@pytest.mark.parametrize(("name", "options"), MISTAKEN.items(), ids=MISTAKEN)
def test_clean_mistakes_stay_mistakes(name, options):
    # Kills: a point that the network gets right returned for an image that it gets wrong. PGD's last iterate may be one, as its
    # docstring says.
    fn, x = Partial(network, weights()), np.random.default_rng(1).uniform(0.3, 0.7, (64, *SHAPE)).astype(np.float32)
    order = np.argsort(np.asarray(fn.func(*fn.args, jnp.asarray(x))), 1)
    y = order[:, -2].astype(np.int32)  # the second likeliest classes: near to being right
    found = make(TABLE, name, **options)(keys(range(64)), fn, x, y, ThreatModel("linf", 0.24))
    assert (np.argmax(np.asarray(fn.func(*fn.args, found)), 1) != y).all()


@EACH
def test_radius_zero_is_the_identity(name, norm, options):
    # Kills: a random start or a step that escapes the projection; 0/0 at radius 0.
    np.testing.assert_array_equal(attack((name, norm, options), Partial(network, weights()), eps=0.0), images())


@EACH
def test_keys_decide_everything(name, norm, options):
    # Kills: ignored keys, a global seed.
    fn = Partial(network, weights())
    a, b, c = (attack((name, norm, options), fn, keys_=keys(seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    if name == "fab":  # its first run begins at the clean image and draws nothing
        return
    assert np.abs(np.asarray(a) - np.asarray(c)).max() > 1e-3


@EACH
def test_batch_size_and_order_do_not_matter(name, norm, options):
    # Kills: gradients of a mean, norms over the batch, draws by position, a choice made for the whole batch.
    fn = Partial(network, weights())
    won, loss = outcome(fn, attack((name, norm, options), fn))
    for rows in (np.arange(N)[::-1], np.arange(3)):
        won_, loss_ = outcome(fn, attack((name, norm, options), fn, rows), rows)
        np.testing.assert_array_equal(won_, won[rows])
        np.testing.assert_allclose(loss_, loss[rows], rtol=1e-4, atol=1e-5)


@EACH
def test_traced_and_sharded_give_the_same(name, norm, options):
    # Kills: another number of steps or another draw in the graph; what differs between devices of a mesh.
    fn, entry = Partial(network, weights()), (name, norm, options)
    y, threat = labels(fn), ThreatModel(norm, EPS[norm])
    alone = outcome(fn, attack(entry, fn))

    def run(keys, fn, x, y):
        return make(TABLE, name, **options)(keys, fn, x, y, threat)

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split, same = PartitionSpec("data"), PartitionSpec()
    sharded = jax.shard_map(run, mesh=mesh, in_specs=(split, same, split, split), out_specs=split, check_vma=False)
    by_default = jax.shard_map(run, mesh=mesh, in_specs=(split, same, split, split), out_specs=split)
    for way in (jax.jit(sharded), jax.jit(by_default)):
        won, loss = outcome(fn, way(keys(), fn, jnp.asarray(images()), jnp.asarray(y)))
        np.testing.assert_array_equal(won, alone[0])
        np.testing.assert_allclose(loss, alone[1], rtol=1e-4, atol=1e-5)


@EACH
def test_new_weights_radius_and_data_compile_nothing(name, norm, options):
    # Kills: a closure made in each call, weights baked in, a static radius, a Python branch on values.
    traces = []

    def counted(weights, x):
        traces.append(x.shape)
        return network(weights, x)

    before, y = 0, labels(Partial(network, weights()))
    for seed, scale in ((0, 1.0), (1, 1.0), (2, 0.5)):
        fn, threat = Partial(counted, weights(seed)), ThreatModel(norm, scale * EPS[norm])
        make(TABLE, name, **options)(keys(), fn, images() * np.float32(scale), y, threat)
        before = len(traces) if seed == 0 else before
    assert before > 0 and len(traces) == before


@EACH
def test_derivatives_see_a_constant(name, norm, options):
    # Kills: derivatives that go through the attack (and are NaN at zero gradients, or need a loop that cannot be reversed), whether
    # the weights come in a Partial or are closed over.
    w, y = weights(), jnp.asarray(labels(Partial(network, weights())))

    def loss(w, x):
        return cross_entropy(network(w, x), y).mean()

    def trained(w, closed):
        fn = (lambda x: network(w, x)) if closed else Partial(network, w)
        attack_ = make(TABLE, name, **options)
        return loss(w, attack_(keys(), fn, images(), y, ThreatModel(norm, EPS[norm])))

    x = attack((name, norm, options), Partial(network, w))
    expected = jax.grad(loss)(w, x)
    for wrap, closed in ((jax.jit, False), (lambda f, **_: f, True)):
        found = wrap(jax.grad(trained), static_argnums=1)(w, closed)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, expected)


@EACH
def test_dtype_is_kept_or_lifted(name, norm, options):
    # Kills: float64 cut to float32, bfloat16 attacks that lose the steps.
    fn = Partial(network, weights())
    assert attack((name, norm, options), fn, x=images().astype(jnp.bfloat16)).dtype == jnp.float32
    with jax.enable_x64():
        fn = Partial(network, weights(dtype=np.float64))
        assert attack((name, norm, options), fn, x=images().astype(np.float64)).dtype == jnp.float64


@EACH
def test_normalised_images_are_refused(name, norm, options):
    # Kills: a door without checks.
    with pytest.raises(InputError, match="normalis"):
        attack((name, norm, options), Partial(network, weights()), x=images() * 4 - 2)
