"""Threats written as text: what is read, what is refused, and names that never stand for two radii."""

import pytest

from robustjax.core import threats
from robustjax.core.check import InputError
from robustjax.core.types import ThreatModel


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8/255", "a threat is written norm:eps, e.g. linf:8/255 or l2:0.5, got '8/255'"),
        (("linf", 0.1), "a threat is written norm:eps"),
        ("l3:1", "norm must be 'linf', 'l2' or 'l1', got 'l3'"),
        ("linf:8", "8 levels are written linf:8/255"),
        ("linf: 0.1, 8", "8 levels are written linf:8/255"),
        ("l2:-1", "a radius is a number of at least 0 or a fraction, e.g. 0.5 or 8/255, got '-1'"),
        ("l2:1/0", "got '1/0' in 'l2:1/0'"),
        ("l2:inf", "got 'inf'"),
        ("l2:nan", "got 'nan'"),
        ("l2:0.5,", "got ''"),
        ("l2:0.5,0.25", "radii must be in rising order, each once"),
        ("l2:0.5,0.5", "radii must be in rising order, each once"),
    ],
)
def test_what_is_no_threat_is_one_line(text, message):
    # Kills: float()'s own error; an L-inf radius of 8; radii below 0, infinite or out of order.
    with pytest.raises(InputError) as caught:
        threats.parse_curve(text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_one_threat_is_one_radius_above_zero():
    # Kills: a curve taken for its first radius; an attack of radius 0.
    for text in ("linf:0", "linf:0.1,0.2"):
        with pytest.raises(InputError, match="with one radius above 0"):
            threats.parse(text)
    assert threats.parse(" l2 : 128/255") == ThreatModel("l2", 128 / 255)


def test_other_radii_have_other_names():
    # Kills: rounding in names: results of 0.0313 under the name of 8/255, or of 1/3 under 0.333.
    radii = [k / 255 for k in range(1, 256)] + [0.031, 0.0313, 0.03137, 0.0313725, 1 / 7, 0.1 + 0.2, 0.3, 2.0, 12.0]
    names = {threats.name_of(ThreatModel("l2", eps)): eps for eps in radii}
    assert len(names) == len(set(radii)) and all("/" not in name for name in names)
    assert [threats.parse(f"l2:{threats.fraction(eps)}").eps for eps in radii] == radii
