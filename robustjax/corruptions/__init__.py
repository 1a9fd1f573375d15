"""The common-corruption benchmarks, compiled and batched: CIFAR-10-C and its kin, C-bar, MNIST-C, faults of cameras.

    keys = core.example_keys(jax.random.key(0), ids)
    pale = corruptions.corrupt(keys, images, name="contrast", severity=3)          # images float (b, h, w, c) in [0, 1]
    for name in corruptions.NAMES["cifar_c"]: ...
    lined = corruptions.corrupt(keys, images, name="lines", severity=3, benchmark="cifar_cbar")
    faulty = corruptions.corrupt(keys, images, name="noise+occlusion", benchmark="sensor", std=0.1, patches=3, size=8)

`corrupt` is `apply` after `draw`, so recorded draws can be replayed: `draw_<name>` says what each corruption draws (unit normals and
uniforms), `<name>` what they mean and which draws of the published code it takes as well. Results are truncated to 8 bits as the
published files are (`quantize=False`: floats before that). Sums and means over severities are not here but in `metrics`.
"""

from robustjax.corruptions.options import check_benchmark, check_options, corruptible
from robustjax.corruptions.registry import NAMES, apply, corrupt, draw
from robustjax.corruptions.shapes import nearest

__all__ = ["NAMES", "apply", "check_benchmark", "check_options", "corrupt", "corruptible", "draw", "nearest"]
