"""Names to functions: literal tables, one a package, and one way to look things up in them."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from robustjax.core.check import InputError


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Returns the error for an unknown name, with the nearest known one.

    >>> unknown("model", "resnet_18", ["resnet18", "small_cnn"])
    InputError("unknown model 'resnet_18'; did you mean 'resnet18'? Known: resnet18, small_cnn.")
    """
    known = sorted(map(str, known))
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return InputError(f"unknown {kind} {name!r}{hint} Known: {', '.join(known) or 'none'}.")


def option_names(function: Callable) -> list[str]:
    """Returns the names of the keyword-only parameters of `function`, which are its options.

    >>> option_names(lambda x, *, tau, xi=0.3: x)
    ['tau', 'xi']
    """
    # A class is asked for its __init__: the metaclass of nnx modules hides it behind (*args, **kwargs).
    signature = inspect.signature(function.__init__ if isinstance(function, type) else function)
    return [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]


def make(table: Mapping[str, Callable], name: str, *, kind: str = "name", **options: Any) -> Callable:
    """Binds options to the entry of `table` called `name`.

    Args:
        table: names to functions whose options are keyword-only.
        name: which entry.
        kind: what the table holds, for messages: 'augmentation', 'model', ...
        **options: bound to the entry; the caller passes the rest when it calls the result.

    Returns:
        functools.partial of the entry.

    Raises:
        InputError: for an unknown name or option, with the nearest known one.

    >>> make({"scale": lambda x, *, by: x * by}, "scale", by=3)(2)
    6
    """
    if name not in table:
        raise unknown(kind, name, table)
    known = option_names(table[name])
    for option in options:
        if option not in known:
            raise unknown(f"option of the {kind} {name!r}:", option, known)
    return functools.partial(table[name], **options)
