"""The fast adaptive boundary attack: step onto the linearised decision boundary, leaning towards the clean image, and keep the nearest."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from robustjax.attacks.doors import check_count, check_finite, check_targets, enter
from robustjax.attacks.hyperplane import to_hyperplane
from robustjax.attacks.network import forward
from robustjax.attacks.plan import Context, Outcome, Plan, Rows, ranked_targets, run_plan
from robustjax.core.check import InputError
from robustjax.core.numerics import image_norm, lift, safe_norm
from robustjax.core.rng import stream
from robustjax.core.types import ArrayLike, Keys, KeysLike, LogitsFn, ThreatModel

ALPHA_MAX = 0.1  # largest share of the clean image's projection in a step
ETA = 1.05  # how far a step overshoots the hyperplane
BETA = 0.9  # what is left of the perturbation after a step that fooled the network
SMALLEST = 1e-8  # least distance to a boundary, for alpha
CHUNK = 5  # steps in one compiled program: each is longer than one of PGD, and so is compiling it
CLASSES_AT_ONCE = 10  # gradients held by the untargeted form


class _Config(NamedTuple):
    """What a compiled program depends on."""

    norm: str
    targeted: bool
    random: bool  # restarts from number 1 on begin at random


class _State(NamedTuple):
    """One row an example."""

    keys: Keys
    clean: Array
    labels: Array
    targets: Array
    eps: Array
    images: Array  # where the next gradient is taken
    nearest: Array  # misclassified image closest to the clean one; the clean image before there is one
    distance: Array  # its distance; inf before; NaN from the moment that the network returned NaN


def make_plan(norm: str, *, num_classes: int, steps: int = 100, restarts: int = 1, num_targets: int = 0, random_start: bool = True) -> Plan:
    """Returns FAB as a plan: one step is one iteration, that is one gradient (untargeted: all of them) and one forward pass.

    `outcome.loss` is minus the distance of the nearest misclassified image, -inf before there is one, and `start_loss` is always
    -inf, since nothing has been found at the start: where it is not finite, it cannot show whether the loss rises.

    Args:
        norm: 'linf', 'l2' or 'l1'.
        num_classes: k.
        steps: iterations of a run.
        restarts: runs per target class. The first begins at the clean image.
        num_targets: classes to aim at, at most k - 1 of them; 0: at whichever class is nearest in each step.
        random_start: whether the further restarts begin at random.

    Raises:
        InputError: for steps or restarts below 1, or restarts that would all be the same.
    """
    check_count("steps", steps)
    check_count("restarts", restarts)
    if restarts > 1 and not random_start:
        raise InputError(f"restarts={restarts} without random starts would run the same attack {restarts} times; set random_start=True.")
    config = _Config(norm, num_targets > 0, random_start and restarts > 1)
    return Plan("fab", _begin, _step, _outcome, config, steps, restarts, min(num_targets, num_classes - 1), CHUNK)


def fab(
    keys: KeysLike,
    logits_fn: LogitsFn,
    images: ArrayLike,
    labels: ArrayLike,
    threat: ThreatModel,
    *,
    steps: int = 100,
    restarts: int = 1,
    targets: str | ArrayLike | None = None,
    num_targets: int = 9,
    random_start: bool = True,
    randomized: bool = False,
) -> Float[Array, "b h w c"]:
    """Looks for the nearest misclassified image; returns it where it is within the threat model, else the clean image.

    At the iterate x, f = z_j - z_y and its gradient w span the linearised boundary f + <w, . - x> = 0. With d_1 and d_2 the least
    changes that bring x and the clean image x_0 onto it within the box, and alpha = min(|d_1| / (|d_1| + |d_2|), 0.1),

        x <- clip((1 - alpha) (x + 1.05 d_1) + alpha (x_0 + 1.05 d_2)).

    Where the network is then wrong, whichever class it names, x is kept if it is nearer than before, and x <- x_0 + 0.9 (x - x_0).
    The untargeted form takes the class j whose linearised boundary is nearest: |f| / (dual norm of w) is least; it needs k - 1
    gradients in each step. The targeted form stays with one class and needs one.

    As in the official code (AutoAttack's): the first restart begins at the clean image, others at x_0 + eps / 2 * t / |t|, t
    uniform in the cube ('linf') or normal, so with no limit on eps these begin at corners of the box; only the points after a
    step are judged; an example that one run broke within eps sits out the later ones, so with no limit on eps only the first
    target counts (for the least norm over several targets, call once a target). Unlike there: the point at which a run begins
    is judged too; and a point that is still right but that no step can move (in float32 it may lie on the boundary to the last
    digit) is moved back as well.

    Args:
        keys: one typed key per example (`core.example_keys`); the first restart draws nothing.
        logits_fn: images -> logits (b, k) in evaluation mode, see `pgd`; where `randomized`, (images, keys) -> logits.
        images: (b, h, w, c) in [0, 1], at least float32 internally. Misclassified ones come back as they are.
        labels: (b,) integers.
        threat: norm and radius in units of [0, 1] pixels; a huge radius (1e9) asks for the least norm whatever it is.
        steps: iterations of each run.
        restarts: runs per target class (or in all, untargeted).
        targets: None: untargeted. 'ranked': the `num_targets` classes that are likeliest on the clean image, one after the
            other. Or (b, t) integers, other than the labels.
        num_targets: for 'ranked'; k - 1 where there are fewer classes.
        random_start: whether restarts after the first begin at random; False is for a single restart.
        randomized: whether the network draws.

    Returns:
        Images in the ball and the box: misclassified or clean.

    Raises:
        InputError: for bad shapes, dtypes, ranges or options, or (when not traced) a network that returns NaN.

    References:
        Croce and Hein, Minimally distorted adversarial examples with a fast adaptive boundary attack, ICML 2020, Algorithm 1;
        targeted form: Croce and Hein, Reliable evaluation of adversarial robustness, ICML 2020, section 5.

    >>> def logits_fn(x):
    ...     return jnp.stack([x.sum((1, 2, 3)), 1 - x.sum((1, 2, 3))], axis=1)
    >>> key, grey = jax.random.key(0), jnp.full((1, 2, 1, 1), 0.375)
    >>> fab(stream(key[None], 0), logits_fn, grey, jnp.array([0]), ThreatModel("linf", 1e9), steps=20).round(2).ravel()
    Array([0.25, 0.25], dtype=float32)
    """
    entered = enter(keys, logits_fn, images, labels, threat, randomized=randomized, unbounded=True)
    images = jax.lax.stop_gradient(entered.images)
    if isinstance(targets, str):
        targets = _rank(targets, num_targets, entered.network, images, entered.labels, stream(entered.keys, 0))
    elif targets is not None:
        targets = check_targets(targets, entered.labels, entered.num_classes)
    plan = make_plan(
        threat.norm,
        num_classes=entered.num_classes,
        steps=steps,
        restarts=restarts,
        num_targets=0 if targets is None else targets.shape[1],
        random_start=random_start,
    )
    outcome, _ = run_plan(plan, stream(entered.keys, 1), entered.network, images, entered.labels, float(threat.eps), targets=targets)
    check_finite(outcome.loss)
    return outcome.images


def _rank(name: str, num_targets: int, network: Any, images: Array, labels: Int[Array, " b"], keys: Keys) -> Int[Array, "b t"]:
    """Returns the classes that are likeliest on the clean images, other than the labels."""
    if name != "ranked":
        raise InputError(f"targets must be None, 'ranked' or class numbers (b, t), got {name!r}.")
    check_count("num_targets", num_targets)
    logits = lift(forward(network, images, keys))
    return ranked_targets(logits, labels, min(num_targets, logits.shape[1] - 1))


def _begin(context: Context, rows: Rows, config: _Config) -> _State:
    clean = rows.images
    row = clean[:, 0, 0, 0]  # for its place: what a loop carries must vary over a mesh as the images do
    eps = jnp.ones_like(row) * context.eps
    images = clean if rows.start is None else rows.start
    if config.random:
        drawn = _draw(stream(rows.keys, 0), clean, eps, norm=config.norm)
        images = jnp.where((rows.restart > 0)[:, None, None, None], drawn, images)
    return _State(stream(rows.keys, 1), clean, rows.labels, rows.targets, eps, images, clean, jnp.full_like(row, jnp.inf))


def _draw(keys: Keys, clean: Float[Array, "b h w c"], eps: Float[Array, " b"], *, norm: str) -> Float[Array, "b h w c"]:
    """Draws points at distance eps / 2, which clipping to the box may bring nearer."""
    law = functools.partial(jax.random.uniform, minval=-1, maxval=1) if norm == "linf" else jax.random.normal
    t = jax.vmap(lambda key: law(key, shape=clean.shape[1:], dtype=clean.dtype))(keys)
    return jnp.clip(clean + t * (0.5 * eps / image_norm(t, norm))[:, None, None, None], 0, 1)


def _step(context: Context, i: Int[Array, " b"], state: _State, config: _Config) -> _State:
    """One iteration of Algorithm 1."""
    x, clean = state.images, state.clean
    linearise = _towards_target if config.targeted else _towards_nearest
    linear = linearise(context, _draws(state.keys, 2 * i), state, config.norm)
    logits, difference, gradient = jax.lax.stop_gradient(linear)
    wrong = _is_wrong(logits, state.labels)
    state = _keep(state, x, wrong & (i == 0), jnp.isnan(logits).any(-1) | jnp.isnan(difference), config.norm)

    before, (x, size) = x, _move(x, clean, difference, gradient, config.norm)

    logits = jax.lax.stop_gradient(lift(context.network(x, _draws(state.keys, 2 * i + 1))))
    wrong = _is_wrong(logits, state.labels)
    state = _keep(state, x, wrong, jnp.isnan(logits).any(-1) | jnp.isnan(size), config.norm)
    stays = (difference == 0) | jnp.all(x == before, (1, 2, 3))
    return state._replace(images=jnp.where((wrong | stays)[:, None, None, None], clean + BETA * (x - clean), x))


def _draws(keys: Keys, number: Int[Array, " b"]) -> Keys:
    """Returns the keys of each example's forward pass `number`, for networks that draw."""
    return jax.vmap(jax.random.fold_in)(keys, number)


def _is_wrong(logits: Float[Array, "b k"], labels: Int[Array, " b"]) -> Bool[Array, " b"]:
    return jnp.argmax(logits, -1).astype(labels.dtype) != labels


def _keep(state: _State, x: Array, wrong: Array, lost: Array, norm: str) -> _State:
    """Notes a point where the network is wrong and it is nearer than those before; and where the network returned NaN."""
    distance = image_norm(x - state.clean, norm)
    nearer = wrong & (distance < state.distance) & ~lost
    nearest = jnp.where(nearer[:, None, None, None], x, state.nearest)
    return state._replace(nearest=nearest, distance=jnp.where(lost, jnp.nan, jnp.where(nearer, distance, state.distance)))


def _move(
    x: Float[Array, "b h w c"], clean: Float[Array, "b h w c"], difference: Float[Array, " b"], gradient: Float[Array, "b d"], norm: str
) -> tuple[Float[Array, "b h w c"], Float[Array, " b"]]:
    """Returns the next iterate and the distance of this one to the linearised boundary, NaN where the gradient is."""
    rows = jnp.stack([x, clean]).reshape(2, x.shape[0], -1)
    # <w, x_0 - x> rather than <w, x_0> - b, which would lose digits.
    excess = jnp.stack([difference, difference + jnp.sum(gradient * (rows[1] - rows[0]), -1)])
    change = to_hyperplane(rows, gradient[None], excess, norm=norm)
    size = _norm(change, norm)
    guarded = jnp.maximum(size, SMALLEST)
    alpha = jnp.minimum(guarded[0] / (guarded[0] + guarded[1]), ALPHA_MAX)[:, None]
    moved = (1 - alpha) * (rows[0] + ETA * change[0]) + alpha * (rows[1] + ETA * change[1])
    return jnp.clip(moved, 0, 1).reshape(x.shape), size[0]


def _norm(rows: Float[Array, "... d"], norm: str) -> Float[Array, "..."]:
    if norm == "l2":
        return safe_norm(rows, axis=-1)
    return jnp.max(jnp.abs(rows), -1) if norm == "linf" else jnp.sum(jnp.abs(rows), -1)


def _towards_target(context: Context, keys: Keys, state: _State, norm: str) -> tuple[Array, Array, Array]:
    """Returns the logits, z_target - z_label and its gradient (b, d)."""
    del norm

    def objective(x):
        logits = lift(context.network(x, keys))
        target, label = (jnp.take_along_axis(logits, c[:, None], axis=1)[:, 0] for c in (state.targets, state.labels))
        difference = (target - label).astype(x.dtype)
        return jnp.sum(difference), (logits, difference)

    gradient, (logits, difference) = jax.grad(objective, has_aux=True)(state.images)
    return logits, difference, gradient.reshape(gradient.shape[0], -1)


def _towards_nearest(context: Context, keys: Keys, state: _State, norm: str) -> tuple[Array, Array, Array]:
    """Returns the logits, z_j - z_label for the class j whose linearised boundary is nearest, and its gradient (b, d)."""
    x, labels = state.images, state.labels
    logits, pull = jax.vjp(lambda x: lift(context.network(x, keys)), x)
    k, own = logits.shape[1], jnp.take_along_axis(logits, labels[:, None], axis=1)
    dual = {"linf": "l1", "l2": "l2", "l1": "linf"}[norm]
    one_hot = functools.partial(jax.nn.one_hot, num_classes=k, dtype=logits.dtype)

    def look(number, best):
        # The other classes, counted from the label's on; where a group is not full, its last ones come twice.
        steps = 1 + jnp.minimum(number * group + jnp.arange(group, dtype=labels.dtype), k - 2)
        classes = (labels[None] + steps[:, None]) % k
        away = one_hot(classes) - one_hot(labels)[None]
        (gradients,) = jax.vmap(pull)(away)
        gradients = gradients.reshape(*classes.shape, -1)
        difference = (jnp.take_along_axis(logits, classes.T, axis=1) - own).T.astype(x.dtype)
        distance = jnp.abs(difference) / (1e-12 + _norm(gradients, dual))
        nearest = jnp.argmin(distance, 0)[None]
        found = tuple(jnp.take_along_axis(values, nearest, 0)[0] for values in (distance, difference))
        found = (*found, jnp.take_along_axis(gradients, nearest[..., None], 0)[0])
        if best is None:
            return found
        closer = ~(found[0] >= best[0])  # also where it is NaN, which must show
        return tuple(jnp.where(closer if new.ndim == 1 else closer[:, None], new, old) for new, old in zip(found, best, strict=True))

    groups = -(-(k - 1) // CLASSES_AT_ONCE)
    group = -(-(k - 1) // groups)
    best = look(jnp.int32(0), None)
    if groups > 1:
        best = jax.lax.fori_loop(jnp.int32(1), jnp.int32(groups), look, best)
    return logits, *best[1:]


def _outcome(state: _State) -> Outcome:
    success = state.distance <= state.eps
    images = jnp.where(success[:, None, None, None], state.nearest, state.clean)
    return Outcome(images, success, -state.distance, jnp.full_like(state.distance, -jnp.inf))
