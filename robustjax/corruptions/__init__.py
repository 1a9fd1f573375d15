"""Common corruptions of images, as in CIFAR-10-C and its kin, compiled and batched.

    keys = core.example_keys(jax.random.key(0), ids)
    pale = corruptions.corrupt(keys, images, name="contrast", severity=3)          # images float (b, h, w, c) in [0, 1]
    for name in corruptions.NAMES["cifar_c"]: ...

`corrupt` is `apply` after `draw`, so recorded draws can be replayed. Results are truncated to 8 bits as the published files are
(`quantize=False`: floats before that). Sums and means over severities are not here but in `metrics`.
"""

from robustjax.corruptions.registry import NAMES, apply, corrupt, draw, nearest

__all__ = ["NAMES", "apply", "corrupt", "draw", "nearest"]
