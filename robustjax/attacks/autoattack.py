"""AutoAttack: a fixed cascade of attacks without settings of its own, each on the examples that the ones before left robust."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from robustjax.attacks import snapshot
from robustjax.attacks.doors import MANY, check_classes, check_count, check_threat, rounding, warn_of
from robustjax.attacks.driver import Data, Driver
from robustjax.attacks.network import as_network, count_classes
from robustjax.attacks.queue import Queue
from robustjax.attacks.versions import Stage, plan_stages
from robustjax.core.check import InputError, check_images, check_keys
from robustjax.core.numerics import lift
from robustjax.core.types import ArrayLike, AttackResult, KeysLike, LogitsFn, ThreatModel

SNAPSHOT_STEPS = 200  # between two calls of `on_state` within a stage
_SLICE = 512  # images of the host looked at together


def autoattack(
    keys: KeysLike,
    logits_fn: LogitsFn,
    images: ArrayLike,
    labels: ArrayLike,
    threat: ThreatModel,
    *,
    version: str = "standard",
    attacks: Sequence[Any] | None = None,
    batch_size: int = 256,
    state: Any = None,
    on_state: Callable[[dict[str, np.ndarray]], None] | None = None,
    randomized: bool = False,
    on_progress: Callable[[int, int, str], None] | None = None,
    devices: Sequence[jax.Device] | None = None,
    check: bool = True,
) -> AttackResult:
    """Measures robustness: runs the cascade of a version on a data set, each attack on whom the ones before did not break.

    The data set stays on the host (NumPy arrays are best) and may be larger than the devices' memory. Examples that are wrong
    on their clean image are not robust and are not attacked. Broken examples make room for others at once; flags do not depend on
    batch size, order or devices (to rounding). When memory runs out, the batch is halved, with a warning. A driver on the host:
    not for use inside jit. The versions, with the official parameters:

    - 'standard': apgd-ce, apgd-t (9 targets), fab-t (9 targets), square (5,000 queries). In L1 apgd-ce has 5 restarts, apgd-t 5
      targets, and both begin in larger balls.
    - 'plus': apgd-ce, apgd-dlr and fab with 5 restarts, square, apgd-t and fab-t with 9 targets.
    - 'rand': apgd-ce and apgd-dlr with gradients averaged over 20 draws, for networks that draw.
    - 'fast': the first two of 'standard', which give nearly its number in a fraction of the time. This is not AutoAttack, and
      `versions.label` does not call it so.
    - 'custom': the `attacks` given, with the parameters of one restart and 9 targets.

    Targeted attacks aim at min(9, k - 1) classes; under 4 classes, where the DLR does not exist, they climb the margin, with a
    warning.

    Args:
        keys: one typed key per example (`core.example_keys`).
        logits_fn: images -> logits (b, k), in evaluation mode: examples must not influence each other; where `randomized`,
            (images, keys) -> logits. A `jax.tree_util.Partial(fn, weights)` reuses compiled programs for new weights.
        images: (n, h, w, c) in [0, 1].
        labels: (n,).
        threat: norm and radius in units of [0, 1] pixels.
        version: see above.
        attacks: for 'custom' names of attacks, or pairs (name, options) such as ('square', {'queries': 1000}). Options: steps,
            restarts, eot and large_radii of the apgds; steps, restarts and random_start of the fabs; num_targets of the targeted
            ones; queries and p_init of square.
        batch_size: rows on all devices together, rounded up to a multiple of their number; on CPU at most 32 a device.
        state: what `on_state` was handed, to go on from there (a dict, or what `numpy.load` returns) and end with identical
            flags and images.
        on_state: called with the whole state, a flat dict of arrays for `numpy.savez(path, **state)`, about every 200 steps and
            after every stage.
        randomized: whether the network draws, by one key per example.
        on_progress: called between chunks of steps with the runs of the stage that are over, their number, and a line.
        devices: to use; None: all of this process.
        check: whether to look first, on up to 64 images, for what makes the number misleading (`core.check.check_logits_fn`:
            outputs that are probabilities, gradients that are zero, ...); each finding is a warning.

    Returns:
        The images (NumPy; the clean one where nothing broke it), `robust` (n,), and per stage, 'clean' first, a dict of `robust`
        (n,) after it, `robust_accuracy`, `seconds`, `examples` that entered it, and their `loss` and `start_loss` (n,): the
        objective at its largest and at the first point, NaN where not measured.

    Raises:
        InputError: for whatever does not fit, NaN logits with their positions, a state of another evaluation (the message names
            what differs), a network that classifies a found image otherwise when asked again.

    References:
        Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-Free Attacks, ICML
        2020; for L1 Croce and Hein, Mind the Box, ICML 2021.
    """
    check_threat(threat)
    check_count("batch_size", batch_size)
    data = _on_host(keys, images)
    network = as_network(logits_fn, randomized=randomized)
    one = jax.random.wrap_key_data(data.keys[:1], impl=data.impl)
    num_classes = count_classes(network, jnp.asarray(data.images[:1]), one)
    data = data._replace(labels=np.asarray(check_classes(labels, num_classes, len(data.images))))
    stages = plan_stages(version, attacks, threat.norm, data.images.shape[1:], num_classes, randomized=randomized)
    driver = Driver(network, data, threat.eps, batch_size=batch_size, devices=devices)
    identity = {}
    if state is not None or on_state is not None:
        where = f"{driver.mesh.size} x {driver.mesh.devices.flat[0].device_kind}"
        ball, cascade = (threat.norm, threat.eps), (stages, randomized)
        settings = {"eps or norm": ball, "version, attacks or options": cascade, "batch_size": batch_size}
        identity = snapshot.identify(network, data, devices=where, **settings)
    evaluation = _Evaluation(driver, stages, threat, randomized, identity, on_state, on_progress)
    if state is not None:
        evaluation.restore(snapshot.opened(state, identity))
    elif check:
        evaluation.classify()  # before, since it says where logits are NaN
        few = min(batch_size, MANY)
        warn_of(logits_fn, data.images[:few], data.labels[:few], randomized=randomized)
    return evaluation.run()


def _on_host(keys: KeysLike, images: ArrayLike) -> Data:
    """Returns the data set as NumPy arrays, after looking at it slice by slice: it may not fit on a device."""
    if getattr(images, "ndim", 0) != 4 or 0 in images.shape:
        check_images(images)
    for first in range(0, len(images), _SLICE):
        check_images(images[first : first + _SLICE])
    keys = check_keys(keys, len(images))
    images = np.asarray(images, lift(jnp.asarray(images[:1])).dtype)
    return Data(np.asarray(jax.random.key_data(keys)), images, np.zeros(len(images), np.int32), jax.random.key_impl(keys))


class _Evaluation:
    """A cascade under way."""

    def __init__(self, driver, stages, threat, randomized, identity, on_state, on_progress):
        self.driver, self.stages, self.threat, self.randomized = driver, stages, threat, randomized
        self.identity, self.on_state, self.on_progress = identity, on_state, on_progress
        self.robust: Bool[np.ndarray, " n"] | None = None  # None before the clean images were classified
        self.targets: Int[np.ndarray, "n t"] | None = None
        self.images: Float[np.ndarray, "n h w c"] = driver.data.images.copy()
        self.done: dict[str, dict] = {}
        self.saved: dict[str, np.ndarray] = {}  # of the stage that was interrupted
        self.seconds = 0.0  # that the stage took before this process

    def run(self) -> AttackResult:
        """Does what is left to do."""
        if self.robust is None:
            self.classify()
        for number, stage in enumerate(self.stages):
            if stage.name not in self.done:
                self._attack(number, stage)
        return AttackResult(self.images, self.robust, self.done)

    def classify(self) -> None:
        """Finds out who is right to begin with."""
        began = time.perf_counter()
        n = len(self.images)
        most = max((stage.plan.num_targets for stage in self.stages), default=0)
        look = self.driver.look(self.images, np.arange(n), num_targets=most)
        self.robust, self.targets = ~look.wrong, look.targets
        self._finish("clean", began, n, {})

    def _attack(self, number: int, stage: Stage) -> None:
        began, total = time.perf_counter(), int(self.robust.sum()) * stage.plan.runs
        queue, steps = Queue(self.robust, stage.plan.runs), 0

        def after_chunk(done: int, pack: Callable[[], dict]) -> None:
            nonlocal steps
            steps += done
            if self.on_state is not None and steps >= SNAPSHOT_STEPS:
                steps = 0
                self._hand_over(pack(), (self.robust & queue.broken) | self._broken(), self.seconds + time.perf_counter() - began)
            if self.on_progress is not None:
                left = int((self.robust & ~queue.broken).sum())
                self.on_progress(total - queue.remaining(), total, f"{stage.name}: {left} of {len(self.robust)} robust")

        self.driver.run(
            stage.plan,
            queue,
            salt=number + 1,
            targets=self.targets,
            images=self.images,
            saved=self.saved or None,
            after_chunk=after_chunk,
        )
        entered, self.saved = int(self.robust.sum()), {}
        self._verify(np.flatnonzero(queue.broken))
        self.robust = self.robust & ~queue.broken
        dtype = self.images.dtype
        self._finish(stage.name, began, entered, {"loss": queue.loss.astype(dtype), "start_loss": queue.start_loss.astype(dtype)})

    def _broken(self) -> Bool[np.ndarray, " n"]:
        """Returns which examples earlier stages broke."""
        return self.done["clean"]["robust"] & ~self.robust

    def _finish(self, name: str, began: float, examples: int, losses: dict) -> None:
        seconds = self.seconds + time.perf_counter() - began
        accuracy = {"robust": self.robust.copy(), "robust_accuracy": float(self.robust.mean())}
        self.done[name] = accuracy | {"seconds": seconds, "examples": examples} | losses
        self.seconds = 0.0
        if self.on_state is not None:
            self._hand_over({}, self._broken(), 0.0)

    def _verify(self, broken: Integer[np.ndarray, " m"]) -> None:
        """Checks that what a stage found lies in ball and box, and that the network still gets it wrong."""
        norm, eps = self.threat.norm, self.threat.eps
        slack = rounding(norm, eps, self.images[0].size)
        for first in range(0, len(broken), _SLICE):
            rows = broken[first : first + _SLICE]
            found = self.images[rows].astype(np.float64)
            size = np.linalg.norm(
                (found - self.driver.data.images[rows]).reshape(len(rows), -1), {"linf": np.inf, "l2": 2, "l1": 1}[norm], axis=1
            )
            if not ((size <= eps + slack).all() and found.min() >= 0 and found.max() <= 1):
                raise AssertionError(
                    f"an attack left the {norm} ball of {eps:g} or the box: norm up to {size.max():.9g}, pixels from {found.min():.9g} to "
                    f"{found.max():.9g}; this is an error of robustjax, please report it."
                )
        if self.randomized or not len(broken):
            return
        look = self.driver.look(self.images, broken)
        # Another program may round otherwise, more so with the short mantissas of accelerators' convolutions.
        close = 1e-3 if jax.default_backend() == "cpu" else 2e-2
        right = ~look.wrong & (look.margin < -close * np.maximum(1, look.largest))
        if right.any():
            raise InputError(
                f"logits_fn classifies {right.sum()} of {len(broken)} adversarial images correctly when asked again, first at position "
                f"{broken[right.argmax()]}: its outputs are random, or depend on the rest of the batch (batch norm in train mode?)."
            )

    def _hand_over(self, running: dict, broken: Bool[np.ndarray, " n"], seconds: float) -> None:
        state = {"robust": self.robust.copy(), "targets": self.targets, "rows": np.array(self.driver.rows), "seconds": np.array(seconds)}
        state |= {"broken": np.flatnonzero(broken), "images": self.images[broken]}
        for name, entry in self.done.items():
            state |= {f"done/{name}/{key}": np.array(value) for key, value in entry.items()}
        self.on_state(snapshot.signed(state | {f"running/{key}": value for key, value in running.items()}, self.identity))

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Becomes what was handed over."""
        self.robust, self.targets, self.seconds = np.array(state["robust"]), state["targets"], float(state["seconds"])
        self.driver.rows = int(state["rows"])
        self.images[state["broken"]] = state["images"]
        for name in ("clean", *(stage.name for stage in self.stages)):
            if entry := snapshot.under(f"done/{name}/", state):
                self.done[name] = {key: value if value.ndim else value.item() for key, value in entry.items()}
        self.saved = snapshot.under("running/", state)
