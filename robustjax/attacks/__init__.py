"""Adversarial attacks on `logits_fn`: images (b, h, w, c) in [0, 1] -> logits (b, k). They return images in the ball and the box.

    pgd         projected gradient steps of a set size: FGSM, PGD-k and, on the margin, CW-k
    apgd        the same with a step size that finds itself: cross-entropy, DLR, targeted DLR
    fab         looks for the nearest image that is misclassified
    square      random search; reads outputs only
    autoattack  these in the official cascade, on a whole data set: the number to report (an AttackResult)
    transfer    images made for one network, tried on another (an AttackResult)
    preset      the papers' attacks by name, with the numbers that they print

All serve 'linf', 'l2' and 'l1'. By themselves they are driven from Python in compiled chunks; inside jit, grad or shard_map all
but autoattack and transfer become part of the graph.

    threat = core.ThreatModel("linf", 8 / 255)
    keys = core.example_keys(key, ids)
    logits_fn = jax.tree_util.Partial(fn, weights)  # new weights reuse the compiled attack
    adversarial = pgd(keys, logits_fn, images, labels, threat, steps=20, step_size=2 / 255)

A long evaluation hands out its state and, after it was killed, goes on from there inside the attack, to identical flags:

    def keep(state):  # every few hundred steps
        np.savez("new.npz", **state)
        os.replace("new.npz", "state.npz")

    state = np.load("state.npz") if os.path.exists("state.npz") else None
    result = autoattack(keys, logits_fn, images, labels, threat, state=state, on_state=keep)
    print(result.robust.mean())

What makes that number too high is looked for before by `core.check.check_logits_fn`, and afterwards by `attacks.audit`.
"""

from robustjax.attacks.apgd import apgd
from robustjax.attacks.autoattack import autoattack
from robustjax.attacks.fab import fab
from robustjax.attacks.pgd import pgd
from robustjax.attacks.presets import PRESETS, preset
from robustjax.attacks.registry import TABLE
from robustjax.attacks.square import square
from robustjax.attacks.transfer import transfer

__all__ = ["PRESETS", "TABLE", "apgd", "autoattack", "fab", "pgd", "preset", "square", "transfer"]
