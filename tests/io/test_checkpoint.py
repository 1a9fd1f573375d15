"""Checkpoints: what is kept, what comes back, and what is noticed when files are damaged."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robustjax.core.check import InputError
from robustjax.io import checkpoint
from robustjax.io.checkpoint import Checkpoints, DamagedCheckpoint

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9))


def state(value: float, size: int = 4) -> dict:
    params = {"conv.kernel": jnp.full((3, size), value), "head.bias": jnp.arange(5.0) + value}
    return {"step": jnp.int32(7), "params": params, "opt_state": OPTIMIZER.init(params), "ema": {}}


@pytest.fixture
def saved(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step, accuracy in ((1, 0.1), (2, 0.9), (3, 0.5), (4, 0.6), (5, 0.7)):
        checkpoints.save(step, state(float(step)), {"config": {"x": 1}}, validation_accuracy=accuracy)
    checkpoints.wait()
    yield checkpoints
    checkpoints.close()


def test_states_of_older_versions_may_lack_what_is_empty(saved):
    # Kills: a good checkpoint taken for a damaged one, because an empty dict was added to the state since.
    like = jax.eval_shape(lambda: {**state(0.0), "sums": {"terms": {}}})
    restored, _ = saved.restore(5, like=like)
    assert jax.tree.structure(restored) == jax.tree.structure(like)
    np.testing.assert_array_equal(restored["params"]["conv.kernel"], 5.0)


def test_the_best_and_the_last_two_are_kept(saved, tmp_path):
    # Kills: keeping the last ones only; forgetting the metrics when another process opens the folder.
    assert saved.steps() == [2, 4, 5] and saved.best()[0] == 2
    fresh = Checkpoints(tmp_path)
    fresh.save(6, state(6.0), {"config": {}}, validation_accuracy=0.2)
    fresh.wait()
    assert fresh.steps() == [2, 5, 6] and fresh.best()[0] == 2
    fresh.close()


def test_later_of_equals_is_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, state(0.0), {}, validation_accuracy=0.5)
    checkpoints.wait()
    assert checkpoints.best()[0] == 2
    checkpoints.close()


def test_state_comes_back_with_and_without_a_target(saved, tmp_path):
    # Kills: restoring by leaf order; needing the optimiser for evaluation.
    like = jax.eval_shape(lambda: state(0.0))
    restored, meta = saved.restore(4, like=like)
    assert jax.tree.structure(restored) == jax.tree.structure(like) and meta["config"] == {"x": 1}
    jax.tree.map(np.testing.assert_array_equal, restored, state(4.0))
    reader = Checkpoints(tmp_path, read_only=True)
    bare, _ = reader.restore(2)
    jax.tree.map(np.testing.assert_array_equal, bare["params"], state(2.0)["params"])


def test_another_shape_names_the_array(saved):
    # Kills: taking a whole checkpoint of another network for a damaged one.
    with pytest.raises(InputError, match=r"2 arrays differ, first .*conv.kernel.*stored \(3, 4\), expected \(3, 6\)") as caught:
        saved.restore(5, like=jax.eval_shape(lambda: state(0.0, size=6)))
    assert not isinstance(caught.value, DamagedCheckpoint)


def _payload(folder):
    """Returns the files that hold a checkpoint's arrays, the largest first."""
    return sorted((folder / "state").rglob("d/*"), key=lambda file: -file.stat().st_size)


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_damaged_files_are_noticed_and_set_aside(saved, tmp_path, damage):
    # Kills: taking what tensorstore gives for a lost block.
    for file in _payload(saved.folder / "5"):
        if damage == "missing":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DamagedCheckpoint, match="checkpoint 5 in .* cannot be read"):
        Checkpoints(tmp_path, read_only=True).restore(5)
    assert saved.set_aside(5).is_dir() and saved.steps() == [2, 4]


def test_checksums_see_a_changed_value(saved, tmp_path, monkeypatch):
    # Kills: comparing shapes only. The reader is made to return another value than was written.
    monkeypatch.setattr(checkpoint, "checksums", lambda tree: {"x": 1})
    with pytest.raises(DamagedCheckpoint, match="differs from its checksums"):
        Checkpoints(tmp_path, read_only=True).restore(5)


def test_checksums_go_by_name_and_value():
    a = checkpoint.checksums({"a": jnp.zeros(2), "b": jnp.ones(2)})
    assert a != checkpoint.checksums({"a": jnp.ones(2), "b": jnp.zeros(2)})
    assert a == checkpoint.checksums({"b": jnp.ones(2), "a": jnp.zeros(2)})


def test_no_checkpoints_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="no checkpoints in .* Train first"):
        Checkpoints(tmp_path, read_only=True)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="no complete checkpoint"):
        Checkpoints(tmp_path, read_only=True).best()


def test_full_disk_is_one_line(saved, monkeypatch):
    # Kills: Orbax's own traceback. The disk says no when the arrays are written.
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved._manager, "save", full)
    with pytest.raises(InputError, match="could not write a checkpoint to .*No space left on device.*same command again"):
        saved.save(9, state(0.0), {}, validation_accuracy=0.0)
