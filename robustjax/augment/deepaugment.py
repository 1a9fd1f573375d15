"""DeepAugment: images seen through an image-to-image network that is distorted at random, for each image anew."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from robustjax.augment.rows import moved
from robustjax.core import check, functions, numerics, registry, rng
from robustjax.core.check import InputError
from robustjax.core.types import ArrayLike, KeysLike

Images = Float[Array, "b h w c"]

_SHARE = (0.05, 0.5)  # least and largest part of filters, weights or values that is changed


class Draws(NamedTuple):
    """What chance decides of one image. One distortion acts, so one set of numbers will do for all."""

    kind: Int[Array, ""]
    place: Int[Array, ""]
    strength: Float[Array, ""]  # U(0, 1)
    which: Int[Array, ""]  # 1, 2 or 3
    values: Float[Array, " n"]  # U(0, 1)


Change = Callable[[Draws, Array], Array]


def _draw(key: Key[Array, ""], kinds: int, places: int, count: int) -> Draws:
    kind, place, strength, which, values = jax.random.split(key, 5)
    return Draws(
        jax.random.randint(kind, (), 0, kinds, jnp.int32),
        jax.random.randint(place, (), 0, places, jnp.int32),
        jax.random.uniform(strength, (), jnp.float32),
        jax.random.randint(which, (), 1, 4, jnp.int32),
        jax.random.uniform(values, (count,), jnp.float32),
    )


def _share(draws: Draws) -> Float[Array, ""]:
    return _SHARE[0] + (_SHARE[1] - _SHARE[0]) * draws.strength


def _values(draws: Draws, shape: Sequence[int]) -> Array:
    return draws.values[: math.prod(shape)].reshape(shape)


def _ranks(draws: Draws, count: int, least: int) -> tuple[Int[Array, " n"], Int[Array, ""]]:
    """Returns a random order of 0 .. count - 1 as the place of each, and how many of the first ones are meant."""
    values, number = _values(draws, (count,)), jnp.arange(count)
    # Comparing all pairs compiles in a fraction of the time of sorting. Of equal values the one of lower number comes first.
    earlier = (values[None] < values[:, None]) | ((values[None] == values[:, None]) & (number[None] < number[:, None]))
    many = jnp.ceil(_share(draws) * count).astype(jnp.int32)
    return earlier.sum(1, dtype=jnp.int32), jnp.clip(many, min(least, count), count)


def _chosen(draws: Draws, array: Array) -> Bool[Array, "..."]:
    ranks, many = _ranks(draws, array.shape[-1], 1)
    return _last_axis(ranks < many, array)


def _last_axis(values: Array, like: Array) -> Array:
    return values.reshape((1,) * (like.ndim - 1) + (-1,))


def _zero_some(draws: Draws, array: Array) -> Array:
    return jnp.where(_chosen(draws, array), 0, array)


def _negate_some(draws: Draws, array: Array) -> Array:
    return jnp.where(_chosen(draws, array), -array, array)


def _swap_some(draws: Draws, array: Array) -> Array:
    """Moves some entries of the last axis round in one circle, so that none of those stays where it was."""
    ranks, many = _ranks(draws, array.shape[-1], 2)
    following = jnp.where(ranks < many, jnp.mod(ranks + 1, many), ranks)
    return array[..., jnp.argmax(ranks[None] == following[:, None], axis=1)]


def _factors(draws: Draws, shape: Sequence[int], dtype: Any) -> Array:
    return (1 + 2 * draws.strength * (2 * _values(draws, shape) - 1)).astype(dtype)


def _scale_each(draws: Draws, kernel: Array) -> Array:
    return _factors(draws, kernel.shape, kernel.dtype) * kernel


def _scale_channels(draws: Draws, maps: Array) -> Array:
    return _last_axis(_factors(draws, maps.shape[-1:], maps.dtype), maps) * maps


def _drop_some(draws: Draws, kernel: Array) -> Array:
    return jnp.where(_values(draws, kernel.shape) < _share(draws), 0, kernel)


def _drop_signal(draws: Draws, maps: Array) -> Array:
    return jnp.where(_values(draws, (1, *maps.shape[1:])) < _share(draws), 0, maps)


def _transpose(draws: Draws, kernel: Array) -> Array:
    return jnp.swapaxes(kernel, 0, 1) if kernel.shape[0] == kernel.shape[1] else kernel


def _flip(draws: Draws, array: Array, axes: tuple[int, int] = (0, 1)) -> Array:
    """Mirrors along one of the axes, or both."""
    for bit, axis in enumerate(axes, 1):
        array = jnp.where(draws.which & bit > 0, jnp.flip(array, axis), array)
    return array


def _activate(draws: Draws, maps: Array) -> Array:
    return jnp.select([draws.which == 1, draws.which == 2], [jax.nn.gelu(maps), jnp.tanh(maps)], jnp.sin(maps))


# Of all arrays of a layer, along their last axis, which is that of outputs. Those with equally many change alike: a filter and its bias.
FILTERS: dict[str, Change] = {"zero_filters": _zero_some, "negate_filters": _negate_some, "swap_filters": _swap_some}
# Of each array with at least two axes, of which the first two are height and width.
KERNELS: dict[str, Change] = {
    "scale_weights": _scale_each,
    "drop_weights": _drop_some,
    "transpose_kernels": _transpose,
    "flip_kernels": _flip,
}
# Of what a layer returns.
SIGNALS: dict[str, Change] = {
    "negate_signal": lambda draws, maps: -maps,
    "scale_channels": _scale_channels,
    "drop_signal": _drop_signal,
    "swap_channels": _swap_some,
    "flip_signal": functools.partial(_flip, axes=(1, 2)),
    "change_activation": _activate,
}
ALL = (*FILTERS, *KERNELS, *SIGNALS)


def deepaugment(
    keys: KeysLike,
    images: ArrayLike,
    layers: Sequence[Callable[[Any, Array], Array]],
    params: Sequence[Any],
    *,
    distortions: Sequence[str] = ALL,
    group_size: Any = 1,
) -> Images:
    """Passes each image through the network with one distortion, drawn for this image, of one layer, drawn too.

        zero_filters, negate_filters   some filters of the layer, with their biases
        swap_filters                   some filters change places
        scale_weights                  each weight times 1 + 2 a r with a ~ U(0, 1) for all and r ~ U(-1, 1) for each
        drop_weights                   some weights are 0
        transpose_kernels              height and width exchanged, where they are equal
        flip_kernels                   mirrored in height, in width or in both
        negate_signal, scale_channels, drop_signal, swap_channels, flip_signal    the same, of what the layer returns
        change_activation              gelu, tanh or sin on top of what the layer returns

    'Some' is a part drawn from U(0.05, 0.5), at least one filter (two to be swapped). The last layer is spared: its outputs are the image.

    The method is the paper's, the distortions of this kind; its own code has two long lists of them, tied to two networks, and keeps
    one network distorted for some 20 images.

    Args:
        keys: one PRNG key for each image.
        images: float (b, h, w, c) in [0, 1].
        layers: functions (params, maps (b, h, w, c)) -> maps, that treat images singly; see models.image_to_image. A layer may return
            (maps, others), which the next one gets: others are carried along and not distorted. Functions without state that outlive
            the call reuse compiled programs.
        params: a pytree of arrays for each layer. The last axis of its float arrays is that of the layer's outputs, those with more than
            one axis are kernels. Layers without kernels are not distorted.
        distortions: names from `ALL`, which are equally probable. 'flip_signal' mirrors the image: leave it out where that changes the class,
            as of digits.
        group_size: consecutive images that share a distortion, that of the first one's key: faster inside a training step. The number of
            images must be a multiple of it, and an image's result then depends on which batch it is in.

    Returns:
        Like `images`, at least float32, in [0, 1]; cut back where the network returns something larger.

    Raises:
        InputError: for unknown distortions, layers and params that do not belong together, a network that does not return images, or
            another number of keys or images.

    References:
        Hendrycks et al., "The Many Faces of Robustness", ICCV 2021, section 4.
    """
    images = numerics.lift(check.check_images(images))
    keys = check.check_keys(keys, images.shape[0])
    distortions = tuple(distortions)
    for name in distortions:
        if name not in ALL:
            raise registry.unknown("distortion", name, ALL)
    if not distortions:
        raise InputError(f"deepaugment needs at least one distortion out of {', '.join(ALL)}.")
    if len(layers) != len(params) or not layers:
        raise InputError(f"deepaugment needs params for each of at least one layer, got {len(layers)} layers and {len(params)} params.")
    if not isinstance(group_size, int) or isinstance(group_size, bool) or group_size < 1 or images.shape[0] % group_size:
        raise InputError(f"group_size must be a whole number that divides the {images.shape[0]} images, got {group_size!r}.")
    places = tuple(at for at, own in enumerate(params[: max(len(params) - 1, 1)]) if any(map(_is_kernel, jax.tree.leaves(own))))
    if not places:
        raise InputError(
            "none of the layers before the last one has a kernel, a float array of at least two axes; there is nothing to distort."
        )
    partials = tuple(map(functions.as_partial, layers))
    _check_network(partials, params, jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype))
    return _deepaugment(keys, images, partials, list(params), distortions=distortions, places=places, group_size=group_size)


def _check_network(layers: Sequence[Any], params: Sequence[Any], images: jax.ShapeDtypeStruct) -> None:
    maps = images
    for at, (layer, own) in enumerate(zip(layers, params, strict=True)):
        maps = functions.output_of(layer, own, maps)
        # Only the image itself comes out at the end.
        for part in maps if isinstance(maps, tuple) and at < len(layers) - 1 else (maps,):
            shape, dtype = getattr(part, "shape", None), getattr(part, "dtype", None)
            if shape is None or len(shape) != 4 or shape[0] != 1 or not jnp.issubdtype(dtype, jnp.floating):
                raise InputError(f"layer {at} must return float maps (b, h, w, c), it returns {dtype} {shape} for one image.")
    if maps.shape[1] < images.shape[1] or maps.shape[2] < images.shape[2] or maps.shape[3] != images.shape[3]:
        raise InputError(f"the network returns {maps.shape[1:]} for images {images.shape[1:]}; they must be images of at least that size.")


def _is_kernel(leaf: Any) -> bool:
    return jnp.ndim(leaf) > 1 and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


@functools.partial(jax.jit, static_argnames=("distortions", "places", "group_size"))
def _deepaugment(
    keys: Key[Array, " b"],
    images: Images,
    layers: tuple,
    params: list,
    *,
    distortions: tuple[str, ...],
    places: tuple[int, ...],
    group_size: int,
) -> Images:
    count = _most_values(layers, params, jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype), places)

    def one(layers: tuple, params: list, key: Key[Array, ""], images: Images) -> Images:
        draws = _draw(key, len(distortions), len(places), count)
        maps = images
        for at, (layer, own) in enumerate(zip(layers, params, strict=True)):
            if at not in places:
                maps = layer(own, maps)
                continue
            here = draws.place == places.index(at)
            acts = {name: here & (draws.kind == i) for i, name in enumerate(distortions)}
            maps = _on_signal(functools.partial(_changed, SIGNALS, draws, acts), layer(_weights(draws, acts, own), maps))
        return jnp.clip(maps[:, : images.shape[1], : images.shape[2]], 0, 1).astype(images.dtype)

    def all_groups(images: Images, keys: Key[Array, " b"], layers: tuple, params: list) -> Images:
        groups = images.reshape(-1, group_size, *images.shape[1:])
        return jax.vmap(functools.partial(one, layers, params))(_of_groups(keys, group_size), groups).reshape(images.shape)

    return moved(all_groups, images, keys, layers, params)


def _of_groups(keys: Key[Array, " b"], group_size: int) -> Key[Array, " n"]:
    """Returns the first key of each group."""
    return rng.on_data(lambda data: data[::group_size], keys)


def kept_or_distorted(
    keys: KeysLike,
    images: ArrayLike,
    layers: Sequence[Sequence[Callable[[Any, Array], Array]]],
    params: Sequence[Sequence[Any]],
    *,
    distortions: Sequence[str] = ALL,
    group_size: Any = 1,
) -> Images:
    """Leaves each group of images as it is, or passes it through one of several networks: each is equally probable.

    All networks see all images, since which one is wanted is known on the device only.

    Args:
        keys, images: as in `deepaugment`.
        layers, params: of each network.
        distortions, group_size: see `deepaugment`.

    Raises:
        InputError: as `deepaugment`.
    """
    if not layers or len(layers) != len(params):
        raise InputError(f"layers and params must be those of one network or several, got {len(layers)} and {len(params)}.")
    options = {"distortions": distortions, "group_size": group_size}
    images = numerics.lift(check.check_images(images))
    keys = check.check_keys(keys, images.shape[0])
    made = [
        deepaugment(rng.stream(keys, 1 + at), images, *network, **options) for at, network in enumerate(zip(layers, params, strict=True))
    ]
    return _one_of(rng.stream(keys, 0), images, made, group_size=group_size)


@functools.partial(jax.jit, static_argnames="group_size")
def _one_of(keys: Key[Array, " b"], images: Images, made: list[Images], *, group_size: int) -> Images:
    def chosen(images: Images, keys: Key[Array, " b"], made: list[Images]) -> Images:
        which = jax.vmap(lambda key: jax.random.randint(key, (), 0, 1 + len(made), jnp.int32))(_of_groups(keys, group_size))
        which = jnp.repeat(which, group_size)[:, None, None, None]
        for at, other in enumerate(made, 1):
            images = jnp.where(which == at, other, images)
        return images

    return moved(chosen, images, keys, made)


def _on_signal(change: Callable[[Array], Array], maps: Any) -> Any:
    """Changes the maps that a layer returns, not what it carries along."""
    return (change(maps[0]), *maps[1:]) if isinstance(maps, tuple) else change(maps)


def _most_values(layers: Sequence[Any], params: Sequence[Any], images: jax.ShapeDtypeStruct, places: Sequence[int]) -> int:
    """Returns how many values the largest kernel, or what a layer returns for one image, has."""
    sizes, maps = [], images
    for at, (layer, own) in enumerate(zip(layers, params, strict=True)):
        maps = functions.output_of(layer, own, maps)
        if at in places:
            sizes += [math.prod(jax.tree.leaves(maps)[0].shape), *(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(own))]
    return max(sizes)


def _weights(draws: Draws, acts: dict[str, Bool[Array, ""]], params: Any) -> Any:
    def changed(leaf: Any) -> Any:
        if not jnp.ndim(leaf) or not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            return leaf
        return _changed(FILTERS | KERNELS if _is_kernel(leaf) else FILTERS, draws, acts, leaf)

    return jax.tree.map(changed, params)


def _changed(table: dict[str, Change], draws: Draws, acts: dict[str, Bool[Array, ""]], array: Array) -> Array:
    """Returns the array after the distortion that acts, if it is one of the table's."""
    new = array
    for name, here in acts.items():
        if name in table:
            new = jnp.where(here, table[name](draws, array), new)
    return new
