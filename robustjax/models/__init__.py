"""Networks: Flax NNX modules that take images in [0, 1], and their pure-function form.

    model = models.make("wide_resnet", num_classes=10, image_shape=(32, 32, 3), depth=40, width=2)
    apply, params, batch_stats = models.functional.split(model)

Every network has `features(images) -> (b, d)`, `head` (linear) and `model(images) -> logits (b, k)`; mean and standard deviation
are inside. Training, losses and attacks know `apply` or a `logits_fn`, never a module. `torch_import.load` reads weights that torch
has trained.
"""

from robustjax.models import functional, torch_import
from robustjax.models.functional import Apply, Output, logits_fn, split
from robustjax.models.registry import TABLE, make

__all__ = ["TABLE", "Apply", "Output", "functional", "logits_fn", "make", "split", "torch_import"]
