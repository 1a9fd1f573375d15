"""Result files: whole or absent, and only whole ones count."""

import json
import os

import pytest

from robustjax.core.check import InputError
from robustjax.io import results

WHOLE = {"name": "clean", "metrics": {"error": 0.1}, "n": 10, "seconds": 1.0, "run": {}, "environment": {}}


def test_round_trip_and_no_leftovers(tmp_path):
    # Kills: writing in place; a temporary file left behind.
    path = tmp_path / "deep" / "clean.json"
    results.write_json(path, WHOLE)
    results.write_json(path, WHOLE)
    assert results.read(path) == WHOLE
    assert os.listdir(path.parent) == ["clean.json"]


@pytest.mark.parametrize("missing", sorted(results.FIELDS))
def test_a_result_that_lacks_a_field_does_not_count(tmp_path, missing):
    # Kills: a reader that takes whatever is there.
    path = tmp_path / "x.json"
    results.write_json(path, {k: v for k, v in WHOLE.items() if k != missing})
    assert results.read(path) is None


def test_half_a_file_does_not_count(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(WHOLE)[:-5])
    assert results.read(path) is None and results.read(tmp_path / "absent.json") is None


def test_failed_write_keeps_the_old_file(tmp_path):
    # Kills: opening the target itself for writing. A value that JSON cannot hold fails in the middle.
    path = tmp_path / "x.json"
    results.write_json(path, WHOLE)
    with pytest.raises(TypeError):
        results.write_json(path, {"name": "x", "metrics": object()})
    assert results.read(path) == WHOLE and os.listdir(tmp_path) == ["x.json"]


def test_unwritable_folder_says_so(tmp_path):
    # A file where the folder should be: fails for root too.
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write .*nothing else is lost"):
        results.write_json(tmp_path / "file" / "x.json", WHOLE)


def test_hash_sees_every_value():
    # Kills: hashing the keys only, or an unsorted dump.
    assert results.config_hash({"a": 1, "b": {"c": 2}}) != results.config_hash({"a": 1, "b": {"c": 3}})


@pytest.mark.parametrize(
    ("stored", "said"),
    [({"seed": 1, "limit": 5}, "limit 5"), ({"seed": 2}, "seed 2"), ({}, "no seed"), ({"seed": 1, "limit": None}, "limit None")],
)
def test_every_setting_that_differs_is_named(tmp_path, stored, said):
    # Kills: keys of the stored manifest alone passed over, so that nothing is named.
    results.write_json(tmp_path / "about.json", stored)
    with pytest.raises(InputError, match=rf"was begun with other settings \({said}\)"):
        results.check_folder(tmp_path, "about.json", {"seed": 1})
