"""Errors of reference networks, by which mean corruption errors are normalised; kept in reference/corruption_errors.json."""

import json
from collections.abc import Iterable
from importlib import resources
from typing import NamedTuple

from robustjax.core.check import InputError
from robustjax.core.registry import unknown
from robustjax.metrics.corruption_error import CLEAN


class Reference(NamedTuple):
    """A reference network's top-1 errors under every corruption of a benchmark (mean over severities), and under 'clean'."""

    name: str
    label: str
    source: str
    errors: dict[str, float]


def corruption_reference(wanted: str, *, benchmark: str, names: Iterable[str] | None = None) -> Reference | None:
    """Looks up the errors that mean_corruption_error divides by; to be called before anything is measured.

    Three things that are easily confused with 'alexnet', and give other numbers: the mean over all 19 corruptions that the
    authors' test script loops over (the 4 extra ones do not belong to mCE); AlexNet's errors on a subset of 5000 images, by which
    some leaderboards divide; and corruptions computed in memory, since the published ImageNet-C files went through JPEG of
    quality 85 after the corruption, as the reference's errors did.

    Args:
        wanted: 'auto' (the reference made for `benchmark`; none where papers take the plain mean: CIFAR, MNIST, Tiny-ImageNet,
            C-bar), 'none', or a reference's name: 'alexnet'.
        benchmark: what is measured, e.g. 'imagenet_c'.
        names: the corruptions that will be measured; refused unless they are the reference's.

    Returns:
        Reference, or None for the plain mean.

    Raises:
        InputError: for an unknown reference, one of another benchmark, or one of other corruptions.

    >>> corruption_reference("auto", benchmark="imagenet_c").errors["fog"]
    0.819324
    >>> corruption_reference("auto", benchmark="cifar_c") is None
    True
    """
    table = json.loads((resources.files("robustjax") / "reference" / "corruption_errors.json").read_text())
    made_for = {entry["benchmark"]: name for name, entry in table.items()}
    name = made_for.get(benchmark, "none") if wanted == "auto" else wanted
    if name == "none":
        return None
    if name not in table:
        raise unknown("reference of the mean corruption error", name, ["auto", "none", *table])
    entry = table[name]
    if entry["benchmark"] != benchmark:
        raise InputError(f"the reference {name!r} has errors on {entry['benchmark']}, not on {benchmark}; take 'none' for the plain mean.")
    differ = sorted(set(entry["errors"]) ^ set(entry["errors"] if names is None else names))
    if differ:
        raise InputError(f"the reference {name!r} and {benchmark} as measured here differ in {', '.join(differ)}; take 'none'.")
    return Reference(name, entry["label"], entry["source"], {CLEAN: entry["clean_error"], **entry["errors"]})
