"""Adversarial attacks on `logits_fn`: images (b, h, w, c) in [0, 1] -> logits (b, k). They return images in the ball and the box.

    threat = core.ThreatModel("linf", 8 / 255)
    logits_fn = jax.tree_util.Partial(fn, weights)  # new weights reuse the compiled attack
    adversarial = pgd(core.example_keys(key, ids), logits_fn, images, labels, threat, steps=20, step_size=2 / 255)

By themselves they are driven from Python in compiled chunks; inside jit, grad or shard_map they become part of the graph.
"""

from robustjax.attacks.apgd import apgd
from robustjax.attacks.fab import fab
from robustjax.attacks.pgd import pgd
from robustjax.attacks.presets import PRESETS, preset
from robustjax.attacks.registry import TABLE
from robustjax.attacks.transfer import transfer

__all__ = ["PRESETS", "TABLE", "apgd", "fab", "pgd", "preset", "transfer"]
