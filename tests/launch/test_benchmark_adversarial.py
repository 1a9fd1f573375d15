"""The benchmark of adversarial training's step: a small run, refusals, what it counts, its table."""

import copy
import json

import pytest

from robustjax.evaluate import report
from tests.launch import commands

# One loop of 3 rounds with a convolution and a computation that is called twice and has one of cuDNN's; and one more, in the entry.
PROGRAM = """HloModule jit_step, is_scheduled=true

%twice (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  ROOT %cudnn-conv.1 = (f32[2]{0}, u8[0]{0}) custom-call(%p, %p), custom_call_target="__cudnn$convForward", metadata={op_name="conv"}
}

%body.1 (q: (s32[], f32[2])) -> (s32[], f32[2]) {
  %convolution_fusion = f32[2]{0} fusion(%q), kind=kCustom, calls=%twice, metadata={op_name="convolution(x)"}
  %call = f32[2]{0} call(%q), to_apply=%twice
  ROOT %conv.2 = f32[2]{0} convolution(%q, %call), window={size=3x3}, metadata={op_name="jit(f)/conv_general_dilated"}
}

%condition (r: (s32[], f32[2])) -> pred[] {
  ROOT %custom = pred[] custom-call(%r), custom_call_target="convert_something"
}

ENTRY %main.7 (x: f32[2]) -> f32[2] {
  %while.5 = (s32[], f32[2]{0}) while(%x), condition=%condition, body=%body.1, metadata={op_name="w"}, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %conv.3 = f32[2]{0} convolution(%while.5, %x), window={size=3x3}
}
"""


@pytest.fixture
def timing(monkeypatch):
    monkeypatch.syspath_prepend(commands.ROOT / "launch")
    import timing

    return timing


def test_convolutions_are_counted_as_often_as_they_are_computed(timing):
    # Kills: each counted once; names and origins taken for instructions; a loop of unknown length taken for one round.
    assert timing.convolutions(PROGRAM) == 3 * (1 + 1 + 1) + 1
    assert timing.convolutions(PROGRAM.replace("known_trip_count", "unknown")) is None


def test_pairs_are_ratios_of_the_second_to_the_first(timing, monkeypatch):
    # Kills: ratios upside down, or of medians; the order of the two.
    ticks = iter([0, 1, 1, 3, 10, 12, 12, 20, 30, 34, 34, 38])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(ticks))
    called = []
    found = timing.paired(lambda: called.append("a"), lambda: called.append("b"), 3)
    assert found == {"seconds": [2, 4], "ratio_median": 2, "ratio_range": [1, 4]} and called == ["a", "b"] * 3


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Returns the numbers of a small run."""
    out = tmp_path_factory.mktemp("benchmark") / "new" / "out.json"
    small = ("--networks=small", "--methods=rat2", "--batch=4", "--steps=1", "--pairs=3")
    done = commands.run("benchmark_adversarial", *small, f"--out={out}")
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


def test_a_step_computes_what_the_formulas_need_and_no_more(measured):
    # Kills: a forward pass too many in TRADES's step or in the Taylor terms, as nested jvp has them; another step or loss; numbers of one
    # method under the name of another. 3 layers, 1 step: 3 for the attack, and for both views 3, or 13, of a layer, less in the first.
    (found,) = measured["measured"]
    trades, rat = found["methods"]
    assert (found["convolutions_of_the_network"], found["batch"], [trades["name"], rat["name"]]) == (3, 4, ["trades", "rat2"])
    assert trades["convolutions"] == trades["floor_convolutions"] == 3 * 3 + 2 * (3 + 3 + 2) == 25
    assert rat["convolutions"] == rat["floor_convolutions"] == 3 * 3 + 2 * (13 + 13 + 3) == 67
    assert rat["convolutions_times_trades"] == rat["floor_times_trades"] == 67 / 25


def test_seconds_and_memory_are_those_of_the_method(measured):
    # Kills: ratios upside down; a state that was donated and used again; bytes of other programs; options that were asked for nothing.
    trades, rat = measured["measured"][0]["methods"]
    for row in (trades, rat):
        low, high = row["times_trades_range"]
        assert 0 < low <= row["times_trades"] <= high and row["seconds"] > 0 and row["finite"]
        assert row["peak_bytes"] is None and row["compiler_options"] == {}
    assert rat["temporary_times_trades"] == rat["temporary_bytes"] / trades["temporary_bytes"] > 1.2
    assert measured["environment"]["backend"] == "cpu" and (measured["pgd_steps"], measured["pairs"]) == (1, 3)


def test_table(measured):
    # Kills: a column without its head; the paper's ratios beside other methods; a note without what it is about, or missing.
    text = report.markdown(measured)
    heads, _, trades, rat = (line.split(" | ") for line in text.split("\n\n")[0].splitlines())
    assert len(heads) == len(trades) == len(rat) == 12
    assert trades[0] == "| small_cnn (width 16), batch 4" and trades[5].strip() == "" and trades[6:8] == ["25", "1.00"]
    assert rat[1] == "RAT, first and second order" and rat[5:9] == ["1.42", "67", "2.68", "2.68"] and rat[11] == "2.05 |"
    assert "towards 2.11 for the first order and 3.22 for both" in text and "cse_barrier" not in text and "Warning" not in text

    changed = copy.deepcopy(measured)
    row = changed["measured"][0]["methods"][1]
    row |= {
        "finite": False,
        "peak_bytes": 2_000_000,
        "convolutions": None,
        "convolutions_times_trades": None,
        "compiler_options": {"a": "b"},
    }
    text = report.markdown(changed)
    heads, _, trades, rat = (line.split(" | ") for line in text.split("\n\n")[0].splitlines())
    assert len(heads) == len(trades) == len(rat) == 14 and rat[12] == "2.0" and rat[6:8] == ["", ""]
    assert rat[1] == "RAT, first and second order \\*" and "\n\\* Compiled without XLA's pass cse_barrier_expander" in text
    assert "Warning: losses that were not finite in rat2 of small." in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--networks=smal"], "unknown network 'smal'; did you mean 'small'"),
        (["--methods=trades,rat3"], "unknown method 'rat3'; did you mean 'rat"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, message):
    # Kills: a traceback; programs that are compiled for nothing.
    done = commands.run("benchmark_adversarial", *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr and message in done.stderr
