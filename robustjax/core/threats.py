"""Threat models as text: 'linf:8/255' in configurations and on the command line, 'linf_8_255' in names of results."""

import itertools
import math
from typing import Any

from robustjax.core.check import InputError
from robustjax.core.types import ThreatModel


def parse(text: Any) -> ThreatModel:
    """Reads 'norm:eps', where eps is a number or a fraction.

    Raises:
        InputError: for anything else, a radius that is not above 0, or an L-inf radius over 1.

    >>> parse("linf:8/255")
    ThreatModel(norm='linf', eps=0.03137254901960784)
    """
    threat, *more = parse_curve(text)
    if more or threat.eps == 0:
        raise InputError(f"a threat is written norm:eps with one radius above 0, e.g. linf:8/255, got {text!r}.")
    return threat


def parse_curve(text: Any) -> list[ThreatModel]:
    """Reads 'norm:eps,eps,...', radii in rising order; the first may be 0.

    >>> [threat.eps for threat in parse_curve("l2:0,0.25,1/2")]
    [0.0, 0.25, 0.5]
    """
    norm, colon, radii = text.partition(":") if isinstance(text, str) else ("", "", "")
    if not colon:
        raise InputError(f"a threat is written norm:eps, e.g. linf:8/255 or l2:0.5, got {text!r}.")
    threats = [ThreatModel(norm.strip(), _number(radius, text)) for radius in radii.split(",")]
    if norm == "linf" and threats[-1].eps > 1:
        raise InputError(f"an L-inf radius is in units of [0, 1] pixels and at most 1, got {text!r}; 8 levels are written linf:8/255.")
    if any(b.eps <= a.eps for a, b in itertools.pairwise(threats)):
        raise InputError(f"radii must be in rising order, each once, got {text!r}.")
    return threats


def _number(radius: str, text: str) -> float:
    above, slash, below = radius.partition("/")
    try:
        value = float(above) / (float(below) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"a radius is a number of at least 0 or a fraction, e.g. 0.5 or 8/255, got {radius!r} in {text!r}.")
    return value


def name_of(threat: ThreatModel) -> str:
    """Returns a name that can be that of a file; other radii have other names.

    >>> [name_of(ThreatModel("linf", eps)) for eps in (8 / 255, 0.031, 0.5, 1.0)]
    ['linf_8_255', 'linf_0.031', 'linf_0.5', 'linf_1']
    """
    return f"{threat.norm}_{fraction(threat.eps).replace('/', '_')}"


def fraction(eps: float) -> str:
    """Returns a radius as a reader would write it: '8/255' for whole levels, else a decimal number.

    >>> fraction(8 / 255), fraction(0.2), fraction(1 / 7)
    ('8/255', '0.2', '0.14285714285714285')
    """
    levels = round(255 * eps)
    if len(f"{eps:g}") > 5 and levels / 255 == eps:
        return f"{levels}/255"
    return f"{eps:g}" if float(f"{eps:g}") == eps else repr(eps)
