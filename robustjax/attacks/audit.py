"""What in the result of an evaluation says that it overstates robustness: a line each, which names the likely cause.

    result = autoattack(keys, logits_fn, images, labels, threat)
    for line in audit(result, correct_again=correct(logits_fn(result.images), labels)):
        print("warning:", line)

`core.check.check_logits_fn` looks at the network before an attack. The signs read here are those of Athalye et al., Obfuscated
Gradients Give a False Sense of Security, ICML 2018, section 3.1, and of Carlini et al., On Evaluating Adversarial Robustness,
2019: black-box attacks that beat white-box ones, losses that do not rise, larger radii that do not help, unbounded attacks that
fail. A healthy evaluation gives no line; no line is no proof of health.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from jaxtyping import Bool

from robustjax.core.check import InputError
from robustjax.core.types import ArrayLike, AttackResult

SHARE = 0.005  # of the examples: up to here, or in a single example, chance and rounding may show the same signs
RISE = 1e-6  # relative to the loss and at least 1: less is rounding in float32; also a cross-entropy (nats) that is as good as 0
GREY = 0.5  # the L-inf radius that turns every image into the same grey
_WHITE = ("apgd", "pgd", "fgsm", "cw", "fab")  # what names of stages that read gradients begin with
_BLACK = "square"


def suspicious(result: AttackResult) -> dict[str, Bool[np.ndarray, " n"]]:
    """Marks examples that an evaluation of a healthy network would not show.

    Args:
        result: of `autoattack`. What stages did not measure (losses of NaN or -inf) is not judged.

    Returns:
        'only_square': broken by Square after all gradient attacks before it had failed.
        'loss_flat': broken by no gradient attack, and in each that measured its loss this never left its first value (true of
        every example where the radius is 0).
        'cross_entropy_lost': the attack on cross-entropy never found one above 1e-6, and a later attack broke the example.
    """
    n = len(result.robust)
    only_square, broken, measured, moved, lost = (np.zeros(n, bool) for _ in range(5))
    before, white_before = None, False
    for name, stage in result.stages.items():
        after = np.asarray(stage["robust"])
        fell = np.zeros(n, bool) if before is None else before & ~after
        if name.startswith(_BLACK):
            only_square |= fell & white_before
        elif name.startswith(_WHITE):
            white_before = True
            broken |= fell
            seen, loss, start = _losses(stage, n)
            measured |= seen
            # Not 'rose': in L1 the first value may be that of a larger ball.
            moved |= seen & (abs(loss - start) > RISE * np.maximum(1, abs(start)))
            if _climbs_cross_entropy(name):
                lost |= seen & (loss <= RISE) & after
        before = after
    return {"only_square": only_square, "loss_flat": measured & ~moved & ~broken, "cross_entropy_lost": lost & broken}


def _losses(stage: Mapping, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns for whom a stage measured the loss, the largest and the first, 0 for others."""
    if "loss" not in stage or "start_loss" not in stage:
        return np.zeros(n, bool), np.zeros(n), np.zeros(n)
    loss, start = (np.asarray(stage[key], np.float64) for key in ("loss", "start_loss"))
    seen = np.isfinite(start) & ~np.isnan(loss)
    return seen, np.where(seen, loss, 0), np.where(seen, start, 0)


def _climbs_cross_entropy(name: str) -> bool:
    return name.partition(" ")[0].endswith("-ce") or name.startswith("pgd")


def _many(count: int, n: int) -> bool:
    return count >= 2 and count > SHARE * n


def audit(result: AttackResult, *, correct_again: ArrayLike | None = None) -> list[str]:
    """Returns warnings about an evaluation whose number is probably too high, or cannot be trusted.

    A sign is reported where two examples at least and more than 0.5% show it.

    Args:
        result: of `autoattack` with a radius above 0.
        correct_again: bool (n,), whether the network is right on `result.images` when asked once more; None: not looked at.

    Returns:
        One line for each sign with its likely cause, see `suspicious`, and for flags that do not hold when asked again.

    Raises:
        InputError: if `correct_again` is no bool (n,).
    """
    n = len(result.robust)
    attacked = int(np.asarray(next(iter(result.stages.values()))["robust"]).sum())
    counts = {sign: int(marks.sum()) for sign, marks in suspicious(result).items()}
    found = []
    if _many(counts["only_square"], n):
        found.append(
            f"Square, which reads no gradients, broke {counts['only_square']} of {n} examples that the gradient attacks had left robust: "
            "the model masks gradients (rounding, steps, stop_gradient, saturation); its true robustness is probably lower still."
        )
    if _many(counts["loss_flat"], attacked):
        found.append(
            f"the loss never rose on {counts['loss_flat']} of {attacked} attacked examples in any gradient attack: zero or masked "
            "gradients (rounding, steps, stop_gradient, saturation); they count as robust only because nothing was tried on them."
        )
    if _many(counts["cross_entropy_lost"], attacked):
        found.append(
            f"cross-entropy stayed at 0 on {counts['cross_entropy_lost']} of {attacked} attacked examples that later attacks broke: "
            "saturated logits (a large scale or a small temperature) hide its gradient; attacks on cross-entropy alone overstate "
            "robustness here."
        )
    if correct_again is not None:
        again = np.asarray(correct_again)
        if again.shape != (n,) or again.dtype != bool:
            raise InputError(f"correct_again must be bool of shape ({n},), one for each example, got {again.dtype} {again.shape}.")
        differ = int((again != np.asarray(result.robust)).sum())
        if _many(differ, n):
            found.append(
                f"asked again, the network answers otherwise on {differ} of {n} final images: its outputs are random (use version='rand' "
                "with randomized=True and more draws, and give a range) or depend on the batch."
            )
    return found


def audit_curve(
    accuracy: Mapping[float, float],
    *,
    n: int,
    norm: str = "linf",
    majority: float | None = None,
    weaker: Mapping[float, float] | None = None,
) -> list[str]:
    """Returns warnings about a curve of robust accuracy against the radius, all of the same examples.

    Args:
        accuracy: radius -> robust accuracy in [0, 1].
        n: number of examples.
        norm: of the radii.
        majority: share of the commonest label. In an L-inf ball of radius 0.5 around every image lies the same grey, which a
            network can call by one name only, so no accuracy there can be larger.
        weaker: the same of an attack that should find less, such as PGD beside AutoAttack.

    Returns:
        One line for accuracy that rises with the radius, that is larger than `majority` at a radius of 0.5 or more, or that is
        larger than under the weaker attack, each by two examples at least and more than 0.5%.

    >>> audit_curve({0.1: 0.4, 0.2: 0.5}, n=100)[0]
    'robust accuracy rises from 40.0% at radius 0.1 to 50.0% at 0.2: the attack misses what lies in the smaller ball too (gradients masked, too few steps, a step size that does not fit).'
    """

    def above(high: float, low: float) -> bool:
        return _many(round(n * (high - low)), n)

    found = []
    radii = sorted(accuracy)
    for small, large in pairwise(radii):
        if above(accuracy[large], accuracy[small]):
            found.append(
                f"robust accuracy rises from {accuracy[small]:.1%} at radius {small:g} to {accuracy[large]:.1%} at {large:g}: the attack "
                "misses what lies in the smaller ball too (gradients masked, too few steps, a step size that does not fit)."
            )
    unbounded = [eps for eps in radii if norm == "linf" and eps >= GREY]
    if majority is not None and unbounded and above(accuracy[unbounded[-1]], majority):
        found.append(
            f"robust accuracy is {accuracy[unbounded[-1]]:.1%} at the L-inf radius {unbounded[-1]:g}, where every image can be turned into "
            f"the same grey and {majority:.1%} is the most there can be: the attack fails (gradients masked, too few steps)."
        )
    for eps in sorted(set(radii) & set(weaker or {})):
        if above(accuracy[eps], weaker[eps]):
            found.append(
                f"at radius {eps:g} the weaker attack leaves {weaker[eps]:.1%} and the stronger one {accuracy[eps]:.1%}: they did not attack "
                "the same model and examples, or the stronger one failed (gradients masked)."
            )
    return found
