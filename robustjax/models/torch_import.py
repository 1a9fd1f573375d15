"""Weights that torch has trained, under this library's names.

    params, batch_stats = torch_import.load("resnet18.pth", model)                # model from models.make
    params, batch_stats = torch_import.load("resnet18.pth", model, head="skip")   # ImageNet's 1000 classes, to be fine-tuned to others

The names in the file tell which convention it follows (NAMINGS), and every name and shape is checked against the model's. Kernels go
from (outputs, inputs, h, w) to (h, w, inputs, outputs) and from (outputs, inputs) to (inputs, outputs).
Mean and standard deviation are not in such files: make the model with those that its weights were trained with, for torchvision's
ImageNet weights (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225).
"""

import functools
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from robustjax.core import registry
from robustjax.core.check import InputError
from robustjax.models import functional, torch_files

Shapes = Mapping[str, tuple[int, ...]]
Layers = dict[str, str]
"""Torch's names of layers to ours; layers that are not ours are left out."""


class Naming(NamedTuple):
    """One convention of names."""

    about: str
    mark: str  # an array that files of this convention have, and files of the others have not
    layers: Callable[[Shapes], Layers]  # from the names and shapes of all arrays
    unused: str = r"(?!)"  # pattern of arrays that the convention's networks hold and never read


class _Found(NamedTuple):
    name: str  # torch's
    array: np.ndarray  # in our layout


def load(path: str | Path, model: nnx.Module, *, head: str = "error") -> tuple[functional.Arrays, functional.Arrays]:
    """Reads torch's weights for a network of this library.

    Args:
        path: a file that `torch_files.read` can read: '.pt', '.pth' or '.tar' (torch must be installed), '.safetensors' or '.npz'.
        model: from `models.make`; it is not changed.
        head: what becomes of the classifier, that is the head, with the embedding before it. 'error' reads it and refuses another
            shape; 'skip' leaves it at the model's values; 'fit' reads it if its shapes are the model's and leaves it otherwise.

    Returns:
        (params, batch_stats), with the names and dtypes of `functional.split(model)`.

    Raises:
        InputError: if the file cannot be read, follows no known convention, or holds another network than the model.
    """
    _, params, batch_stats = functional.split(model)
    return fit(path, params, batch_stats, head=head)


def fit(
    path: str | Path, params: functional.Arrays, batch_stats: functional.Arrays, *, head: str = "error"
) -> tuple[functional.Arrays, functional.Arrays]:
    """Reads torch's weights in place of a network's arrays; see `load`."""
    if head not in ("error", "skip", "fit"):
        raise registry.unknown("head", head, ("error", "skip", "fit"))
    wanted = {**params, **batch_stats}
    arrays = _arrays(path)
    naming = _naming(arrays, path)
    found, unexpected = _translated(arrays, naming, path)
    if head == "skip" or (head == "fit" and not _fits(found, {name: wanted[name] for name in wanted if _of_classifier(name)})):
        found, wanted = ({name: value for name, value in part.items() if not _of_classifier(name)} for part in (found, wanted))
        _say(f"{path}: the classifier was not read, it keeps its initial values.")
    _check(path, naming.about, found, wanted, unexpected)
    read = {name: jnp.asarray(found[name].array, wanted[name].dtype) for name in wanted}
    return {**params, **{name: read[name] for name in params.keys() & read}}, {name: read[name] for name in batch_stats}


def _arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a file without the prefixes of wrappers and without counts of batches."""
    stored = {name: array for name, array in torch_files.read(path).items() if not name.endswith("num_batches_tracked")}
    arrays = {re.sub(r"^((module|model)\.)+", "", name): array for name, array in stored.items()}
    if len(arrays) < len(stored):
        raise InputError(f"{path} holds several networks whose names differ in 'module.' or 'model.' only; export one of them.")
    return arrays


def _naming(arrays: Mapping[str, np.ndarray], path: str | Path) -> Naming:
    for naming in NAMINGS:
        if naming.mark in arrays:
            return naming
    known = "; ".join(f"{naming.about} ({naming.mark!r})" for naming in NAMINGS)
    raise InputError(f"the names in {path} follow no known convention; it has {_first(sorted(arrays))}, known are {known}.")


def _translated(arrays: Mapping[str, np.ndarray], naming: Naming, path: str | Path) -> tuple[dict[str, _Found], list[str]]:
    """Returns the arrays under our names, and the names of those that have none."""
    layers = naming.layers({name: array.shape for name, array in arrays.items()})
    found, unexpected, unused = {}, [], []
    for name, array in arrays.items():
        layer, _, leaf = name.rpartition(".")
        ours = f"{layers.get(layer)}.{'scale' if leaf == 'weight' and array.ndim == 1 else _LEAVES.get(leaf)}"
        if re.fullmatch(naming.unused, name):
            unused.append(name)
        elif layer not in layers or leaf not in _LEAVES or ours in found:
            unexpected.append(name)
        else:
            found[ours] = _Found(name, array.transpose(_AXES.get(array.ndim, range(array.ndim))))
    if unused:
        _say(f"{path}: left out {len(unused)} arrays that networks of this kind never read: {_first(unused)}.")
    return found, unexpected


_LEAVES = {"weight": "kernel", "bias": "bias", "running_mean": "mean", "running_var": "var"}
_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}
_BACK = {4: (3, 2, 0, 1), 2: (1, 0)}


def _check(path: str | Path, about: str, found: dict[str, _Found], wanted: functional.Arrays, unexpected: list[str]) -> None:
    missing = sorted(wanted.keys() - found.keys())
    unexpected = sorted([*unexpected, *(found[name].name for name in found.keys() - wanted.keys())])
    reshaped = sorted(name for name in wanted.keys() & found.keys() if found[name].array.shape != wanted[name].shape)
    wrong = []
    if reshaped:
        got, expected = (_torch_shape(array.shape) for array in (found[reshaped[0]].array, wanted[reshaped[0]]))
        wrong.append(f"{len(reshaped)} of another shape, first {found[reshaped[0]].name!r}, {got} where {expected} is expected")
    if missing:
        wrong.append(f"{len(missing)} missing, in the names of this library {_first(missing)}")
    if unexpected:
        wrong.append(f"{len(unexpected)} not of this model: {_first(unexpected)}")
    if wrong:
        hint = "Make the model with the options of the one that was saved."
        if not unexpected and all(map(_of_classifier, [*reshaped, *missing])):
            hint = "Only the classifier differs, as for another number of classes: head='skip' leaves it at its initial values."
        raise InputError(f"{path}, whose names are those of {about}, does not fit this model; arrays: {'; '.join(wrong)}. {hint}")


def _fits(found: dict[str, _Found], wanted: functional.Arrays) -> bool:
    return all(name in found and found[name].array.shape == array.shape for name, array in wanted.items())


def _of_classifier(name: str) -> bool:
    return name.startswith(("head.", "embedding."))


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in _BACK.get(len(shape), range(len(shape))))


def _first(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:4])) + (" and more" if len(names) > 4 else "")


def _say(message: str) -> None:
    # On stderr where nobody has set up logging.
    logging.getLogger(__name__).warning(message)


# -- Conventions. A new one is an entry of NAMINGS: rules as below, or a function where order or shapes tell the layers apart. --


def _ruled(shapes: Shapes, *, rules: Mapping[str, str]) -> Layers:
    """Returns the layers whose names match a rule: {pattern: our name}.

    Our name may use the pattern's groups {part} and {block}: the place among all blocks, which the groups stage and place order.
    """
    matched = {}
    for layer in sorted({name.rpartition(".")[0] for name in shapes}):
        for pattern, ours in rules.items():
            if match := re.fullmatch(pattern, layer):
                groups = match.groupdict()
                order = tuple(int(groups[key]) for key in ("stage", "place") if key in groups)
                matched[layer] = ours, order, groups.get("part")
    blocks = sorted({order for _, order, _ in matched.values() if order})
    return {layer: ours.format(part=part, block=blocks.index(order) if order else None) for layer, (ours, order, part) in matched.items()}


_STAGE = r"layer(?P<stage>\d+)\.(?P<place>\d+)\."
_GROUP = r"block(?P<stage>\d+)\.layer\.(?P<place>\d+)\."
_ENDS = {"conv1": "conv1", "bn1": "bn1", "conv2": "conv2", "bn2": "bn2", "fc|linear": "head", "embedding": "embedding"}
_PART = r"(?P<part>(conv|bn)\d)"
_RESIDUAL = {
    **_ENDS,
    "bn": "bn1",
    _STAGE + _PART: "blocks.{block}.{part}",
    _STAGE + r"(shortcut|downsample)\.0": "blocks.{block}.shortcut_conv",
    _STAGE + r"(shortcut|downsample)\.1": "blocks.{block}.shortcut_bn",
}
_WIDE = {**_ENDS, _GROUP + _PART: "blocks.{block}.{part}", _GROUP + "convShortcut": "blocks.{block}.shortcut_conv"}
_DENSE = {
    **_ENDS,
    rf"dense(?P<stage>\d)\.(?P<place>\d+)\.{_PART}": "blocks.{block}.{part}",
    rf"trans1\.{_PART}": "transitions.0.{part}",
    rf"trans2\.{_PART}": "transitions.1.{part}",
}
_INVERTED = {
    **_ENDS,
    r"layers\.(?P<place>\d+)\." + _PART: "blocks.{block}.{part}",
    r"layers\.(?P<place>\d+)\.shortcut\.0": "blocks.{block}.shortcut_conv",
    r"layers\.(?P<place>\d+)\.shortcut\.1": "blocks.{block}.shortcut_bn",
}
# DeepAugment's two networks, see models.published.
_EDSR = {
    r"(?P<part>(sub|add)_mean)": "{part}",
    r"head\.0": "start",
    r"body\.(?P<place>\d+)\.body\.(?P<part>[02])": "blocks.{block}.{part}",
    r"body\.\d+": "blocks_end",
    r"tail\.0\.(?P<part>[02])": "up.{part}",
    r"tail\.1": "last",
}
_CAE = {r"(?P<part>[ed]_(conv|block|up_conv)_[123]\.\d)": "{part}"}


def _convs(shapes: Shapes) -> Layers:
    """Numbered convolutions, each with its batch norm behind it; pooling (and dropout), which have numbers too, end a group."""
    layers = {"classifier": "head"}
    convs = sorted(
        int(name.split(".")[1]) for name, shape in shapes.items() if re.fullmatch(r"features\.\d+\.weight", name) and len(shape) > 1
    )
    group, place, before = 0, 0, -3
    for i in convs:
        group, place = (group + 1, 0) if i - before > 3 else (group, place)
        layers[f"features.{i}"] = f"blocks.{group}.convs.{place}"
        layers[f"features.{i + 1}"] = f"blocks.{group}.norms.{place}"
        place, before = place + 1, i
    return layers


def _mobilenet_v3(shapes: Shapes) -> Layers:
    """Numbered layers throughout: a block's last two convolutions are the depthwise one and the narrowing one, one before widens."""
    last = max(int(name.split(".")[1]) for name in shapes if re.match(r"features\.\d+\.", name))
    layers = {"classifier.0": "hidden", "classifier.3": "head"}
    for i, ours in ((0, "1"), (last, "2")):
        layers |= {f"features.{i}.0": f"conv{ours}", f"features.{i}.1": f"bn{ours}"}
    for block in range(last - 1):
        prefix = rf"features\.{block + 1}\.block\.(\d+)\."
        convs = sorted(int(match[1]) for name in shapes if (match := re.fullmatch(prefix + r"0\.weight", name)))
        for i, place in enumerate(reversed(convs)):
            for leaf, kind in enumerate(("conv", "bn")):
                layers[f"features.{block + 1}.block.{place}.{leaf}"] = f"blocks.{block}.{kind}{3 - i}"
        for name in shapes:
            if match := re.fullmatch(prefix + r"fc([12])\.weight", name):
                layers[name.removesuffix(".weight")] = f"blocks.{block}.squeeze.conv{match[2]}"
    return layers


NAMINGS = (
    Naming("ResNet and PreActResNet", "layer1.0.conv1.weight", functools.partial(_ruled, rules=_RESIDUAL)),
    Naming("WideResNet", "block1.layer.0.conv1.weight", functools.partial(_ruled, rules=_WIDE), unused=r"sub_block1\..*"),
    Naming("AugMix's DenseNet", "dense1.0.conv1.weight", functools.partial(_ruled, rules=_DENSE)),
    Naming("MobileNetV2 for CIFAR", "layers.0.conv3.weight", functools.partial(_ruled, rules=_INVERTED)),
    Naming("torchvision's MobileNetV3", "features.1.block.0.0.weight", _mobilenet_v3),
    Naming("DeepAugment's compressive autoencoder", "e_conv_1.1.weight", functools.partial(_ruled, rules=_CAE)),
    Naming("EDSR", "tail.0.0.weight", functools.partial(_ruled, rules=_EDSR)),
    Naming("VGG with batch norm and AugMix's AllConvNet", "features.0.weight", _convs),
)
