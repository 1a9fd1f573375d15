"""Attacks on a trained network: per example, stage by stage, taken up inside an attack, transferred, by radius."""

import importlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import data
from robustjax.attacks.versions import VERSIONS
from robustjax.core import parallel
from robustjax.core.check import InputError
from robustjax.evaluate import attacked, report, run, states
from robustjax.evaluate.load import evaluation_data, load, load_surrogate
from robustjax.evaluate.suites import Item
from robustjax.io import results
from robustjax.train import loop
from tests import tiny

AUTOATTACK = importlib.import_module("robustjax.attacks.autoattack")  # the function hides its module
N = 24


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    """A short cascade in place of the official ones, which are tested in tests/attacks; a snapshot after every chunk."""
    cascade = (("apgd-ce", {"steps": 3}, {}), ("apgd-t", {"steps": 3, "num_targets": 2}, {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VERSIONS, "fast", cascade)
        patch.setattr(AUTOATTACK, "SNAPSHOT_STEPS", 1)
        patch.setattr(states, "EVERY", 0.0)
        patch.setattr(states, "SHARE", 0)
        yield


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run on digits that is mostly right."""
    folder = tmp_path_factory.mktemp("digits")
    data = {"data__name": "digits", "data__options": {}, "data__limit_train": 640, "data__limit_test": N}
    loop.train(tiny.config(**data, epochs=4, optimizer__lr=0.05, model__options={"width": 8}), folder, quiet=True)
    return folder


def evaluate(workdir, suite="autoattack", threats=("linf:0.03",), **options):
    """Returns results without 'clean'; of the short cascade."""
    version = "fast" if suite == "autoattack" else ""
    return run.evaluate(workdir, suite=suite, threats=threats, attack_version=version, quiet=True, **options)[1:]


def folder(workdir):
    (found,) = (workdir / "evaluation").iterdir()
    return found


def flags(path):
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def copy_of(workdir, tmp_path, name="copy"):
    """Returns the run without its results."""
    made = tmp_path / name
    shutil.copytree(workdir, made, ignore=shutil.ignore_patterns("evaluation"))
    return made


@pytest.fixture(scope="module")
def whole(workdir):
    """The result of the cascade without an interruption, and its flags and images."""
    (result,) = evaluate(workdir, save_adversarial=True)
    return result, flags(folder(workdir) / "apgd_fast" / "linf_0.03.npz")


def test_flags_images_and_numbers_agree(workdir, whole):
    # Kills: examples that are wrong to begin with attacked or counted robust; images that are not those of the flags; stages in a
    # wrong order; accuracy over the attacked only; padding counted; labels or ids of others.
    result, found = whole
    assert result["name"] == "apgd_fast/linf_0.03" and result["n"] == N
    columns = ["clean", "apgd-ce", "apgd-t"]
    assert [name for name in found if name in columns] == columns
    loaded = load(workdir)
    images, labels = evaluation_data(loaded.meta).test.fetch(found["ids"])
    images = np.asarray(jnp.asarray(images, jnp.float32) / 255)
    np.testing.assert_array_equal(labels, found["labels"])
    right = [np.asarray(loaded.logits_fn(jnp.asarray(x))).argmax(1) == labels for x in (images, found["adversarial"])]
    np.testing.assert_array_equal(right[0], found["clean"])
    np.testing.assert_array_equal(right[1] & right[0], found["apgd-t"])
    moved = abs(found["adversarial"] - images).max((1, 2, 3))
    assert moved.max() <= 0.03 + 1e-6 and not moved[~found["clean"]].any() and (moved > 0).any()
    accuracies = [found[name].mean() for name in columns]
    assert result["metrics"]["clean_accuracy"] == accuracies[0] and result["metrics"]["accuracy"] == accuracies[-1]
    assert [(stage["name"], stage["robust_accuracy"]) for stage in result["stages"]] == list(zip(columns[1:], accuracies[1:], strict=True))
    assert [stage["examples"] for stage in result["stages"]] == [found[name].sum() for name in columns[:2]]
    assert 0 < accuracies[-1] < accuracies[0]
    assert (
        result["peak_memory_bytes"] > 1e6 and result["images_per_second"] > 0 and set(result["warnings"]) == {"before", "during", "after"}
    )
    assert not any(found[f"suspicious_{sign}"].any() for sign in ("only_square", "loss_flat", "cross_entropy_lost"))


class Killed(Exception):
    """Stands for a kill."""


def killed_after(count, monkeypatch):
    """Lets the evaluation die when a state has been handed over `count` times; returns how often it was."""
    handed = []
    real = states.StateFile.__call__

    def call(self, state):
        real(self, state)
        handed.append(state)
        if len(handed) == count:
            raise Killed

    monkeypatch.setattr(states.StateFile, "__call__", call)
    return handed


def test_killed_inside_an_attack_it_goes_on_and_ends_the_same(workdir, whole, tmp_path, monkeypatch):
    # Kills: an attack begun anew; a state that is saved and not read; seconds of the first part lost; a state left behind.
    copy = copy_of(workdir, tmp_path)
    handed = killed_after(4, monkeypatch)
    with pytest.raises(Killed):
        evaluate(copy, save_adversarial=True)
    state = folder(copy) / "apgd_fast" / "linf_0.03.state.npz"
    assert state.exists() and not state.with_name("linf_0.03.json").exists()
    (result,) = evaluate(copy, save_adversarial=True)
    assert not state.exists() and not list(state.parent.glob(".*"))
    after = flags(state.with_name("linf_0.03.npz"))
    for name, values in whole[1].items():
        np.testing.assert_array_equal(after[name], values)
    total = len(handed)
    handed.clear()
    monkeypatch.undo()
    assert result["metrics"] == whole[0]["metrics"] and total > 5
    assert sum(stage["seconds"] for stage in result["stages"]) <= result["seconds"] + 1e-6


def test_a_state_that_does_not_fit_is_not_thrown_away(workdir, tmp_path, monkeypatch):
    # Kills: hours of work deleted in silence; a state of another radius or network taken up; a traceback for half a file.
    copy = copy_of(workdir, tmp_path)
    killed_after(3, monkeypatch)
    with pytest.raises(Killed):
        evaluate(copy)
    monkeypatch.undo()
    state = folder(copy) / "apgd_fast" / "linf_0.03.state.npz"
    other = state.with_name("linf_0.02.state.npz")
    shutil.copy(state, other)
    with pytest.raises(
        InputError, match=r"linf_0\.02\.state\.npz holds a measurement .* differs in: eps or norm.* give --restart"
    ) as caught:
        evaluate(copy, threats=("linf:0.02",))
    assert "\n" not in str(caught.value) and other.exists()
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"linf_0\.03\.state\.npz holds .* it is damaged .* give --restart") as caught:
        evaluate(copy)
    assert "\n" not in str(caught.value) and state.exists()
    (result,) = evaluate(copy, restart=True)
    assert result["metrics"]["accuracy"] < 1 and not state.exists() and other.exists()


def test_pgd_goes_on_after_the_batches_that_are_done(workdir, tmp_path, monkeypatch, capsys):
    # Kills: batches done twice; what the first ones found lost; a state of another network taken up; draws that depend on the batch;
    # warnings that are lost; attacks on examples that are wrong to begin with. It goes on with another batch size, on fewer devices.
    asked = {"suite": "cw", "threats": (), "save_adversarial": True}
    (expected,) = evaluate(workdir, **asked)
    copy = copy_of(workdir, tmp_path)
    killed_after(1, monkeypatch)
    with pytest.raises(Killed):
        evaluate(copy, **asked)
    monkeypatch.undo()
    state = folder(copy) / "attack" / "cw_l2.state.npz"
    stored = flags(state)
    states.write_npz(state, stored | {"identity": np.array("another")})
    with pytest.raises(
        InputError, match=r"it is of another network, of other data or settings, or of another version\. To begin it anew, give --restart"
    ):
        evaluate(copy, **asked)
    states.write_npz(state, stored)
    left = int((~stored["done"]).sum())
    batches = []
    pgd = attacked.attacks.pgd
    monkeypatch.setattr(
        attacked.attacks, "pgd", lambda keys, fn, images, *rest, **more: batches.append(1) or pgd(keys, fn, images, *rest, **more)
    )
    two = parallel.data_mesh(jax.local_devices()[:2])
    monkeypatch.setattr(attacked.parallel, "data_mesh", lambda devices: two)
    monkeypatch.setattr(attacked, "audit", lambda result, **more: [f"odd: {list(result.stages)}"])
    monkeypatch.setattr(run.check, "check_logits_fn", lambda *arguments: ["looks odd"])
    (result,) = evaluate(copy, **asked, batch_size=2)
    assert result["warnings"] == {"before": ["looks odd"], "during": [], "after": ["odd: ['clean', 'cw2']"]}
    assert "warning: attack/cw_l2: odd" in capsys.readouterr().err and results.read(folder(copy) / "attack" / "cw_l2.json") == result
    assert result["metrics"] == expected["metrics"] and len(batches) == -(-left // 2) > 1 and not state.exists()
    assert result["run"]["item"]["options"]["objective"] == "cw" and result["stages"][0]["name"] == "cw2"
    before, after = (flags(folder(where) / "attack" / "cw_l2.npz") for where in (workdir, copy))
    np.testing.assert_allclose(after["adversarial"], before["adversarial"], atol=1e-5)
    wrong = ~after["clean"]
    images = evaluation_data(load(workdir).meta).test.fetch(after["ids"][wrong])[0] / 255
    np.testing.assert_allclose(after["adversarial"][wrong], images, atol=1e-6)
    assert wrong.any()


def test_accuracy_by_radius(workdir):
    # Kills: radius 0 attacked; the last iterate in place of the best; images that are not made where only the number is there.
    made = evaluate(workdir, "clean", (), curves=("linf:0,0.02,0.04",))
    assert [result["name"] for result in made] == ["curve/linf_0.02", "curve/linf_0.04"]
    assert made[0]["run"]["item"]["options"] == {"norm": "linf", "eps": 0.02, "steps": 20, "step_size": 0.005, "best": True}
    assert made[0]["metrics"]["clean_accuracy"] > made[0]["metrics"]["accuracy"] > made[1]["metrics"]["accuracy"]
    path = folder(workdir) / "curve" / "linf_0.04.npz"
    assert "adversarial" not in flags(path)
    (again,) = evaluate(workdir, "clean", (), curves=("linf:0.04",), save_adversarial=True)
    assert flags(path)["adversarial"].shape == (N, 16, 16, 1) and again["metrics"] == made[1]["metrics"]


def test_attacks_from_a_surrogate_are_judged_on_this_network(workdir, tmp_path, monkeypatch):
    # Kills: networks exchanged; attacks on the surrogate's own accuracy; a surrogate on other data let in; one that nobody looked at,
    # or that is not told from another with its configuration and step.
    # An earlier checkpoint of the same run: another network, and no other program to compile.
    surrogate = copy_of(workdir, tmp_path, "other")
    first, *later = sorted((surrogate / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    for path in later:
        shutil.rmtree(path)
    looked = []
    monkeypatch.setattr(run.check, "check_logits_fn", lambda fn, *batch: looked.append(fn) or ["looks odd"])
    made = evaluate(workdir, "transfer", ("linf:0.04",), surrogates=(surrogate,), save_adversarial=True)
    monkeypatch.undo()
    before = [result["warnings"]["before"] for result in made]
    assert before == [["looks odd", "surrogate other: looks odd"]] * 2 and len(looked) == 2
    jax.tree.map(np.testing.assert_array_equal, looked, [load(where).logits_fn for where in (workdir, surrogate)])
    for result in made:
        del result["warnings"]
    assert [result["name"] for result in made] == ["transfer/other/pgd20_linf_0.04", "transfer/other/cw20_linf_0.04"]
    options = made[1]["run"]["item"]["options"]
    assert (options["surrogate"], options["objective"], options["checkpoint_step"]) == ("other", "cw", int(first.name))
    assert options["weights"] == load(surrogate).weights != made[1]["run"]["weights"] == load(workdir).weights
    found = flags(folder(workdir) / "transfer" / "other" / "cw20_linf_0.04.npz")
    right = np.asarray(load(workdir).logits_fn(jnp.asarray(found["adversarial"]))).argmax(1) == found["labels"]
    np.testing.assert_array_equal(right & found["clean"], found["cw20"])
    # The surrogate's own answers to the very same images.
    theirs = np.asarray(load(surrogate).logits_fn(jnp.asarray(found["adversarial"]))).argmax(1) == found["labels"]
    attacked_there = found["clean"] & found["surrogate"]
    assert not (attacked_there & ~theirs).any() and made[1]["metrics"]["surrogate_accuracy"] == found["surrogate"][found["clean"]].mean()
    clean = run.evaluate(workdir, suite="clean", quiet=True)
    text = report.markdown(report.collect([(workdir, [*clean, *made])]))
    row = " | ".join(f"{100 * result['metrics'][name]:.2f}" for result in made for name in ("accuracy", "surrogate_accuracy"))
    assert (
        "| PGD-20, L-inf 0.04, from other | that network itself | CW-20, L-inf 0.04, from other |" in text
        and f"| baseline | {row} |" in text
    )
    (white,) = evaluate(workdir, "clean", (), curves=("linf:0.04",))
    assert white["metrics"]["accuracy"] < made[0]["metrics"]["accuracy"] < made[0]["metrics"]["clean_accuracy"]
    meta = load(workdir).meta
    meta["config"]["data"] |= {"name": "fake", "options": {"size": 16}}
    with pytest.raises(
        InputError, match=r"was trained on digits, 10 classes of images \(16, 16, 1\), the network to attack on fake \(size 16\), 10"
    ):
        load_surrogate(surrogate, meta)


def test_the_report_shows_stages_and_curves_and_names_things_as_they_are(workdir, whole, tmp_path):
    # Kills: two of AutoAttack's attacks called AutoAttack; columns of one stage under another; doubts that stay in the JSON.
    found = run.evaluate(
        workdir, suite="autoattack,cw", threats=("linf:0.03",), attack_version="fast", curves=("linf:0,0.02,0.04",), quiet=True
    )
    result = next(r for r in found if r["name"].startswith("apgd_fast"))
    result["warnings"]["after"] = ["something is odd"]
    found[-1]["metrics"]["accuracy"] = found[0]["metrics"]["accuracy"]
    made = report.collect([(workdir, found)])
    text = report.markdown(made, details=True)
    values = [result["metrics"]["clean_accuracy"], *(stage["robust_accuracy"] for stage in result["stages"])]
    row = " | ".join(["baseline", *(f"{100 * value:.2f}" for value in values)])
    assert (
        f"#### APGD-CE + APGD-T, L-inf 0.03: accuracy % after each stage\n\n| method | clean | APGD-CE | APGD-T |\n|---|---|---|---|\n| {row} |"
        in text
    )
    assert "AutoAttack" not in text and "| CW L2 error % |" in text and "| method | 0 | 0.02 | 0.04 |" in text
    assert "Warning, baseline: apgd_fast/linf_0.03: something is odd" in text
    assert re.search(r"Warning, baseline: curve/linf: robust accuracy rises from .* at radius 0.02 to .* at 0.04", text)
    assert not re.search(r"curve/linf: robust accuracy rises from .* at radius 0 to", text)
    paths = report.write(made, tmp_path)
    assert report.markdown(results.read_json(paths[0]), details=True) == paths[1].read_text() == text
    assert paths[2].stat().st_size > 20_000


class Unsaved(states.StateFile):
    """A state that no file keeps."""

    def __init__(self):
        super().__init__("absent.state.npz")

    def __call__(self, state):
        pass


IMAGES = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 1)).astype(np.uint8)
WEIGHTS = jnp.asarray(np.random.default_rng(1).normal(size=(16, 3)), jnp.float32)


def linear(weights, images):
    return images.reshape(len(images), -1) @ weights


def masked(weights, images):
    return linear(weights, jax.lax.stop_gradient(images))


LABELS = np.asarray(linear(WEIGHTS, IMAGES / np.float32(255))).argmax(1).astype(np.int32)


def measured(item, network=linear, surrogate=linear, batch_size=64):
    """Measures a made-up network that is always right without an attack."""
    networks = {"other": jax.tree_util.Partial(surrogate, WEIGHTS)} if item.kind == "transfer" else {}
    source = data.ArraySource(IMAGES, LABELS)
    subject = attacked.Subject(
        jax.tree_util.Partial(network, WEIGHTS), source, np.arange(64), batch_size, surrogates=networks, keep_images=True
    )
    return attacked.measure(subject, item, jax.random.key(0), identity={}, saved=Unsaved(), tell=lambda *shown: None)


def asked(kind, norm="linf", **options):
    return Item(f"{kind}/x", kind, {"norm": norm, "eps": 0.02, "steps": 2, "step_size": 0.01} | options)


@pytest.mark.parametrize(
    ("item", "network", "surrogate", "flat"),
    [
        (asked("attack"), linear, linear, False),
        (asked("attack"), masked, linear, True),
        (asked("attack", "l2", eps=0.2, step_size=0.1, objective="cw"), masked, linear, True),
        (asked("curve", best=True), masked, linear, True),
        (asked("transfer", surrogate="other"), linear, masked, True),
        (asked("transfer", surrogate="other"), masked, linear, False),
    ],
    ids=["healthy", "pgd", "cw", "curve", "surrogate", "defender"],
)
def test_an_attack_that_gets_no_gradient_is_said(item, network, surrogate, flat):
    # Kills: the loss at the end compared with that on the clean image, which a random start alone moves; with that of another network
    # than the attack sees.
    found = measured(item, network, surrogate)
    assert any("the loss never rose on" in line for line in found.warnings) == flat
    robust = found.arrays["cw2" if item.options.get("objective") == "cw" else "pgd2"]
    assert found.metrics["clean_accuracy"] == 1.0 and robust.mean() > 0.2
    np.testing.assert_array_equal(found.arrays["suspicious_loss_flat"], robust & flat)


def test_a_network_that_is_sure_is_not_called_masked():
    # Kills: cross-entropy, 0 in float32 on both ends of a healthy attack, taken for a loss that does not rise.
    found = measured(asked("attack", objective="cw"), network=sure)
    assert found.metrics["accuracy"] > 0.5 and not found.warnings and not found.arrays["suspicious_loss_flat"].any()


def sure(weights, images):
    return 300 * linear(weights, images)


@pytest.mark.parametrize("kind", ["attack", "transfer"])
def test_batches_lie_on_all_devices_and_shrink_where_memory_runs_out(kind, monkeypatch, recwarn):
    # Kills: one device at work of eight; an evaluation that dies of its batch size, silently takes another, or halves without end;
    # examples of a lost batch left out; results that depend on any of it.
    item = asked(kind, surrogate="other") if kind == "transfer" else asked(kind)
    pgd, seen, limit = attacked.attacks.pgd, [], 64

    def limited(keys, network, images, *rest, **more):
        seen.append((len(images), len(images.sharding.device_set), len(jax.tree.leaves(network)[0].sharding.device_set)))
        if len(images) > limit:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.\nmore lines")
        return pgd(keys, network, images, *rest, **more)

    monkeypatch.setattr(attacked.attacks, "pgd", limited)
    whole = measured(item)
    assert seen == [(64, 8, 8)] and not recwarn.list
    limit = 24
    seen.clear()
    found = measured(item, batch_size=59)
    assert seen == [(rows, 8, 8) for rows in (64, 32, 16, 16, 16, 16)]
    said = "out of memory with batches of {}: going on with {}; batch_size={} avoids this."
    assert [str(warning.message) for warning in recwarn.list] == [said.format(64, 32, 32), said.format(32, 16, 16)]
    assert found.metrics == whole.metrics and 0 < whole.metrics["accuracy"] < 1
    for name, values in whole.arrays.items():
        np.testing.assert_allclose(found.arrays[name], values, atol=1e-6)
    limit = 0
    with pytest.raises(InputError, match="out of memory with one image at a time .RESOURCE_EXHAUSTED"), pytest.warns(UserWarning):
        measured(item, batch_size=16)


def test_states_are_saved_seldom_enough(tmp_path, monkeypatch):
    # Kills: a saving after each step; the newest state lost when an error ends the block; a share of the time that grows with the state.
    now = [0.0]
    monkeypatch.setattr(states.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(states, "EVERY", 30.0)
    monkeypatch.setattr(states, "SHARE", 20)
    written = []

    def write(path, arrays, **more):
        written.append(int(arrays["x"]))
        now[0] += 2.0  # a slow disk

    monkeypatch.setattr(states, "write_npz", write)
    with pytest.raises(Killed), states.StateFile(tmp_path / "a.npz") as saved:
        for moment in (10, 29, 31, 60, 72, 74, 80):
            now[0] = max(now[0], moment)
            saved({"x": np.array(moment)})
        raise Killed
    assert written == [31, 74, 80]
