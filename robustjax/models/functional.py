"""A Flax NNX network as pure functions of plain arrays: the only file that knows nnx.split and nnx.merge.

    apply, params, batch_stats = split(models.make("small_cnn", num_classes=10, image_shape=(16, 16, 1)))
    output, batch_stats = apply(params, batch_stats, images, train=True)
    logits = logits_fn(apply, params, batch_stats)(images)

`params` and `batch_stats` are flat dicts, {"blocks.0.conv1.kernel": array}: optimisers, checkpoints and messages need no adapter.
Any nnx.Module with `features(images)` and `head` will do; one that derives from `layers.Classifier` also has `blocks` and dropout.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key

from robustjax.core.check import InputError
from robustjax.core.numerics import lift
from robustjax.core.rng import example_keys
from robustjax.core.types import ArrayLike
from robustjax.models import layers

Arrays = dict[str, Any]
"""Names to arrays; Any, because transformations put their own leaves there."""


class Output(NamedTuple):
    """What a forward pass gives, float32 (float64 if the parameters are)."""

    features: Float[Array, "b d"]
    logits: Float[Array, "b k"]
    blocks: tuple[Float[Array, "b _"], ...] = ()  # mean over the pixels of each block's output, where asked for


@runtime_checkable
class Apply(Protocol):
    """A network without its arrays; see `split`."""

    def __call__(
        self,
        params: Arrays,
        batch_stats: Arrays,
        images: ArrayLike,
        train: bool,
        *,
        axis_name: str | None = None,
        key: Any = None,
        blocks: bool = False,
    ) -> tuple[Output, Arrays]:
        """Returns the output and the new batch statistics."""
        ...


def split(model: nnx.Module) -> tuple[Apply, Arrays, Arrays]:
    """Splits a network into what it computes and what it holds.

    `apply(params, batch_stats, images, train, *, axis_name=None, key=None, blocks=False) -> (Output, batch_stats)`:
        params, batch_stats: as returned here or of the same names and shapes (any order); checked on every trace.
        images: float (b, h, w, c) in [0, 1].
        train: True normalises by the statistics of this batch, returns moved running statistics and drops out; False uses the
            running statistics, returns them unchanged, and treats every image by itself.
        axis_name: the mapped axis over whose devices batch statistics are averaged, in training mode.
        key: for dropout in training mode: one typed key per example, or one key for the rows of this call (in a mapped step, that
            would be the same draws on every device: give keys per example there). Ignored by networks without dropout.
        blocks: whether to return the globally pooled outputs of the blocks.

    Args:
        model: its parameters (nnx.Param) and running statistics (nnx.BatchStat) are returned and not changed by `apply`.

    Returns:
        (apply, params, batch_stats); `apply` holds structure only, no array, so it can be kept, and closed over, for free.

    Raises:
        InputError: if the model holds other state, as nnx.Dropout does: its key would be frozen into the program. By `apply`: for
            names or shapes that are not the model's, images that do not fit, dropout in training mode without a key.
    """
    graphdef, *states, rest = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
    if jax.tree.leaves(rest):
        names = ", ".join(".".join(map(str, path)) for path, _ in nnx.to_flat_state(rest))
        raise InputError(
            f"a network may hold parameters and batch statistics only, this one also has {names}; for dropout use layers.Dropout."
        )
    params, batch_stats = map(_flat, states)
    shapes = [{name: np.shape(array) for name, array in arrays.items()} for arrays in (params, batch_stats)]
    treedefs = [jax.tree.structure(nnx.as_pure(state)) for state in states]

    def apply(params, batch_stats, images, train, *, axis_name=None, key=None, blocks=False):
        module = nnx.merge(
            graphdef,
            _nested("params", params, shapes[0], treedefs[0]),
            _nested("batch_stats", batch_stats, shapes[1], treedefs[1]),
        )
        # Both set every layer that has such an attribute; the network itself never knows a mesh axis.
        module.train(axis_name=axis_name) if train else module.eval()
        if isinstance(module, layers.Classifier):
            features, maps = module.embed(images, _row_keys(key, images.shape[0]) if train else None)
        elif blocks:
            raise InputError(f"{type(module).__name__} has no blocks to return; derive it from layers.Classifier.")
        else:
            features, maps = module.features(images), ()
        pooled = tuple(map(layers.global_pool, maps)) if blocks else ()
        return Output(lift(features), lift(module.head(features)), pooled), _flat(nnx.state(module, nnx.BatchStat))

    return apply, params, batch_stats


def logits_fn(apply: Apply, params: Arrays, batch_stats: Arrays) -> jax.tree_util.Partial:
    """Returns images -> logits in evaluation mode, float32, as attacks and metrics take it.

    The result is a pytree whose leaves are the arrays and whose function is one and the same object for the same `apply`: what
    is compiled for it serves new weights too.

    Args:
        apply: from `split`; keep it, since another one means another program.
        params: of the network.
        batch_stats: of the network.
    """
    return jax.tree_util.Partial(_evaluation(apply), params, batch_stats)


@functools.lru_cache(maxsize=64)
def _evaluation(apply: Apply) -> Callable:
    def logits(params, batch_stats, images):
        return apply(params, batch_stats, images, False)[0].logits

    return logits


def _flat(state: nnx.State) -> Arrays:
    return {".".join(map(str, path)): variable[...] for path, variable in nnx.to_flat_state(state)}


def _nested(kind: str, arrays: Any, shapes: dict[str, tuple[int, ...]], treedef: Any) -> Any:
    # nnx.merge goes by the order of leaves and checks neither names nor shapes: a tree with other keys would give a wrong
    # network in silence. It is rebuilt by name here, so the order of the dict does not matter.
    if not isinstance(arrays, Mapping):
        raise InputError(f"{kind} must be a flat dict of names to arrays, as models.functional.split gives, got {type(arrays).__name__}.")
    wrong = {}
    for name in sorted(shapes.keys() | arrays.keys()):
        if name not in arrays:
            wrong[name] = "is missing"
        elif name not in shapes:
            wrong[name] = "is not one of its names"
        elif np.shape(arrays[name]) != shapes[name]:
            wrong[name] = f"has shape {np.shape(arrays[name])} where {shapes[name]} is expected"
    if wrong:
        first, what = next(iter(wrong.items()))
        raise InputError(f"{kind} do not fit this network: {len(wrong)} of {len(shapes)} wrong, first {first!r}, which {what}.")
    return jax.tree.unflatten(treedef, [arrays[name] for name in shapes])


def _row_keys(key: Any, size: int) -> Key[Array, " b"] | None:
    if key is None:
        return None
    if not jnp.issubdtype(getattr(key, "dtype", None), jax.dtypes.prng_key) or key.shape not in ((), (size,)):
        raise InputError(f"key must be one typed key (jax.random.key) or one for each of the {size} images, got {jax.typeof(key)}.")
    return key if key.shape else example_keys(key, jnp.arange(size))
