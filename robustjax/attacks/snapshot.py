"""What an evaluation that was interrupted needs to go on: who it belongs to, by digests, so that nothing else is continued by it."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from robustjax import __version__
from robustjax.attacks.driver import Data
from robustjax.core.check import InputError
from robustjax.core.rng import is_key

_IDENTITY = "identity/"


def digest(*values: Any) -> str:
    """Returns the SHA-256 of arrays (with dtype and shape) and of other values by their text.

    >>> digest(np.zeros(2)) == digest(np.zeros(2)), digest(np.zeros(2)) == digest(np.zeros((2, 1)))
    (True, False)
    """
    state = hashlib.sha256()
    for value in values:
        if is_key(value):
            value = jax.random.key_data(value)
        if isinstance(value, jax.Array | np.ndarray):
            array = np.ascontiguousarray(value)
            state.update(f"{array.dtype} {np.shape(value)} ".encode())
            state.update(array.reshape(-1).view(np.uint8).data)
        else:
            state.update(f"{value!r} ".encode())
    return state.hexdigest()


def identify(network: jax.tree_util.Partial, data: Data, *, devices: str, **settings: Any) -> dict[str, str]:
    """Returns one digest for each thing that an evaluation depends on.

    A network is its program, as traced for one image, and its arrays, whether they are arguments (`Partial`) or closed over.

    Args:
        network: (images, keys) -> logits.
        data: of the evaluation.
        devices: number and kind.
        **settings: whatever else decides the result, by name.
    """
    image = jax.ShapeDtypeStruct((1, *data.images.shape[1:]), data.images.dtype)
    key = jax.eval_shape(
        lambda raw: jax.random.wrap_key_data(raw, impl=data.impl), jax.ShapeDtypeStruct((1, *data.keys.shape[1:]), np.uint32)
    )
    program = jax.make_jaxpr(lambda network, image, key: network(image, key))(network, image, key)
    named = {
        "network code": digest(_text(str(program))),
        "weights": digest(*jax.tree.leaves(network), *_constants(program)),
        "images": digest(data.images),
        "labels": digest(data.labels),
        "keys": digest(data.keys, str(data.impl)),
    }
    named |= {name: digest(_text(repr(value))) for name, value in settings.items()}
    return named | {"devices": devices, "versions": f"robustjax {__version__}, jax {jax.__version__}"}


def _text(text: str) -> str:
    """Returns the text without addresses, which change from process to process.

    >>> _text("<function f at 0x7f01ab>")
    '<function f at >'
    """
    return re.sub(r"0x[0-9a-f]+", "", text)


def _constants(program: Any) -> Iterator[Any]:
    """Yields the arrays that a program and those inside of it close over."""
    yield from getattr(program, "consts", ())
    for equation in getattr(program, "jaxpr", program).eqns:
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from _constants(inner)


def signed(arrays: Mapping[str, np.ndarray], identity: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Returns a state with the digests of what it belongs to; `numpy.savez` holds it."""
    return dict(arrays) | {_IDENTITY + name: np.array(value) for name, value in identity.items()}


def opened(state: Any, identity: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Returns the arrays of a state (a dict, or what `numpy.load` returned) after comparing whom it belongs to.

    Raises:
        InputError: if it is no state, or belongs to another evaluation; the message names what differs.
    """
    try:
        arrays = {name: np.asarray(state[name]) for name in state}
        saved = {name: str(arrays[_IDENTITY + name]) for name in identity}
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise InputError(
            "state is not what on_state was handed; pass that dict, or np.load of the file that np.savez(path, **state) wrote."
        ) from error
    differ = [name for name in identity if saved[name] != identity[name]]
    if differ:
        plain = [f"{name} ({saved[name]}, now {identity[name]})" if name in ("devices", "versions") else name for name in differ]
        raise InputError(
            f"state belongs to another evaluation, which differs in: {', '.join(plain)}; continue that one or begin without state."
        )
    return arrays


def under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays whose names begin so, without that beginning."""
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}
