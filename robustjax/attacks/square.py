"""Square Attack: a random search that changes one square of the image at a time and asks the network for logits only."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from robustjax.attacks.doors import check_count, check_finite, enter, keep_mistakes
from robustjax.attacks.network import forward
from robustjax.attacks.objectives import margin
from robustjax.attacks.plan import Context, Outcome, Plan, Rows, rows_of
from robustjax.attacks.square_windows import Sides, draw, grid, make_sides, repaint, stripes, transfer_mass
from robustjax.core import loops
from robustjax.core.check import InputError, as_number
from robustjax.core.numerics import lift
from robustjax.core.rng import stream
from robustjax.core.types import ArrayLike, Keys, KeysLike, LogitsFn, ThreatModel

_CLEAN = (1 << 32) - 1  # keys the network's draw on the clean images; the steps count from 1


class _State(NamedTuple):
    """One row an example."""

    keys: Keys
    clean: Float[Array, "b h w c"]
    labels: Int[Array, " b"]
    images: Float[Array, "b h w c"]  # the candidate kept; before step 0 the first one
    loss: Float[Array, " b"]  # max_{j != y} z_j - z_y of it
    start_loss: Float[Array, " b"]
    success: Bool[Array, " b"]  # the network is wrong about it


def square(
    keys: KeysLike,
    logits_fn: LogitsFn,
    images: ArrayLike,
    labels: ArrayLike,
    threat: ThreatModel,
    *,
    queries: int = 5000,
    p_init: float = 0.8,
    randomized: bool = False,
) -> Float[Array, "b h w c"]:
    """Looks for images that the network gets wrong, from its logits alone: no gradient is taken.

    Random search on the margin z_y - max_{j != y} z_j, as in AutoAttack. A candidate differs from the one kept inside a square
    window (L-inf: each channel set to +-eps; L2 and L1: perturbation taken from a second window is put there, in the shape of two
    pyramids), and takes its place where its margin is smaller or at most 0. Windows cover the fraction p of the pixels, which
    starts at `p_init` and is halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 queries, whatever `queries` is. An
    example whose label is no longer the network's first choice is left alone from then on.

    It differs from the official code, which the results do not show, in that every example draws its own window, by its key and
    the number of the query, where one window served the whole batch; and in that an example at margin 0 whose label still comes
    first (a tie) goes on. Kept as it is there: window corners are floor(u (h - side)), so the last position never occurs, and an
    L1 window is multiplied by the number of channels before the projection.

    Runs inside jit, grad and shard_map, or by itself; then it is driven from Python in compiled chunks, between which misclassified
    examples leave the batch. Norm, image size, p_init and queries are static; the radius is not.

    Args:
        keys: one typed key per example (`core.example_keys`).
        logits_fn: images -> logits (b, k), in evaluation mode; see `pgd` for what is compiled again when.
        images: (b, h, w, c) in [0, 1], at least float32 internally: bfloat16 is lifted, float64 kept.
        labels: (b,) integers.
        threat: norm and radius in units of [0, 1] pixels.
        queries: candidates after the first; the network is called queries + 1 times on them, and once on the clean images.
        p_init: fraction of the pixels in a window at the beginning, in (0, 1].
        randomized: whether the network draws: then logits_fn is (images, keys) -> logits, each call with fresh keys. The margin of
            the candidate kept is the one that was measured then.

    Returns:
        Per example the candidate of smallest margin, in the ball and the box: also where the network withstood all of them. An image
        that is wrong to begin with and that no candidate kept so comes back as it was.

    Raises:
        InputError: for bad shapes, dtypes, ranges or options, or (when not traced) a network that returns NaN.

    References:
        Andriushchenko et al., Square Attack, ECCV 2020, Algorithms 1 to 3. Croce and Hein, Mind the box: l1-APGD for sparse
        adversarial attacks on image classifiers, ICML 2021, section 5: the L1 form.

    >>> from robustjax.core import example_keys
    >>> def logits_fn(x):
    ...     return jnp.stack([x.sum((1, 2, 3)), 1 - x.sum((1, 2, 3))], axis=1)
    >>> grey, threat = jnp.full((1, 1, 1, 1), 0.5), ThreatModel("linf", 0.25)
    >>> square(example_keys(jax.random.key(0), [0]), logits_fn, grey, jnp.array([0]), threat, queries=5).ravel()
    Array([0.25], dtype=float32)
    """
    entered = enter(keys, logits_fn, images, labels, threat, randomized=randomized)
    plan = make_plan(threat.norm, shape=entered.images.shape[1:], queries=queries, p_init=p_init)
    clean = jax.lax.stop_gradient(entered.images)
    context = Context(entered.network, jnp.asarray(float(threat.eps), clean.dtype))
    # Not `run_plan`, which takes each run to its end: here a misclassified example needs no further step.
    state = _begin_run(plan, context, entered.keys, clean, entered.labels)
    state = loops.repeat(_step_all, context, state, plan.steps, config=plan.config, done=_is_done, chunk=plan.chunk)
    with jax.debug_nans(False):
        check_finite(state.loss)
    clean_logits = lift(forward(entered.network, clean, stream(entered.keys, jnp.uint32(_CLEAN))))
    return keep_mistakes(state.images, state.success, clean, entered.labels, clean_logits)


def make_plan(norm: str, *, shape: tuple[int, int, int], queries: int = 5000, p_init: float = 0.8) -> Plan:
    """Returns Square Attack on images of shape (h, w, c) as a plan of queries + 1 steps. Its loss is the negative margin.

    Raises:
        InputError: for queries below 1 or p_init outside of (0, 1].
    """
    check_count("queries", queries)
    p = as_number(p_init)
    if p is None or not 0 < p <= 1:
        raise InputError(f"p_init is the fraction of pixels in the first windows and must lie in (0, 1], got {p_init!r}; usual: 0.8.")
    return Plan("square", _begin, _step, _outcome, make_sides(norm, shape, p), steps=int(queries) + 1)


def _begin(context: Context, rows: Rows, config: Sides) -> _State:
    images, keys = rows.start, stream(rows.keys, 0)
    if images is None and config.norm == "linf":
        images = stripes(keys, rows.images, context.eps)
    elif images is None:
        images = grid(keys, rows.images, context.eps, config.norm)
    row = rows.images[:, 0, 0, 0]  # for its place: what a loop carries must vary over a mesh as the images do
    lowest = jnp.full_like(row, -math.inf)
    return _State(rows.keys, rows.images, rows.labels, images, lowest, lowest, jnp.zeros_like(row, bool))


def _step(context: Context, i: Int[Array, " b"], state: _State, config: Sides) -> _State:
    """Measures a candidate, at step 0 the first one, and keeps it where it is better."""
    first, shape = i == 0, state.clean.shape[1:]
    # Streams: 0 began; an odd one for each step's window, an even one for the network.
    window_keys, network_keys = (jax.vmap(jax.random.fold_in)(state.keys, 2 * i + number) for number in (1, 2))
    draws = draw(window_keys, i - 1, config, shape)
    if config.norm == "linf":
        candidate = repaint(state.images, state.clean, context.eps, draws)
    else:
        candidate = transfer_mass(state.images, state.clean, context.eps, draws, config)
    candidate = jnp.where(first[:, None, None, None], state.images, candidate)

    logits = lift(context.network(candidate, network_keys))
    loss = margin(logits, state.labels).astype(state.loss.dtype)
    wrong = jnp.argmax(logits, axis=-1).astype(state.labels.dtype) != state.labels
    goes_on = ~state.success
    lost = jnp.isnan(loss) | jnp.isnan(state.loss)
    kept = goes_on & (first | (loss > state.loss) | (loss >= 0))
    return state._replace(
        images=jnp.where(kept[:, None, None, None], candidate, state.images),
        loss=jnp.where(goes_on & lost, jnp.nan, jnp.where(kept, loss, state.loss)),
        start_loss=jnp.where(first, loss, state.start_loss),
        success=state.success | (kept & wrong & ~lost),
    )


def _outcome(state: _State) -> Outcome:
    return Outcome(state.images, state.success, state.loss, state.start_loss)


@functools.partial(jax.jit, static_argnums=0)
def _begin_run(plan: Plan, context: Context, keys: Keys, images: Array, labels: Array) -> _State:
    rows = rows_of(plan, keys, images, labels, None, jnp.zeros_like(labels, jnp.uint32))
    return plan.begin(context, rows, plan.config)


def _step_all(context: Context, i: Array, state: _State, config: Sides) -> Any:
    return jax.lax.stop_gradient(_step(context, jnp.full_like(state.labels, i), state, config))


def _is_done(state: _State) -> Bool[Array, " b"]:
    return state.success
