"""Damaged checkpoints: every file of the newest step flipped, cut or gone, and what comes back is never wrong."""

import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn.runtime.checkpoint import CheckpointError, Checkpoints
from metalearn.types import TrainState
from metalearn.validate import ConfigError

# Orbax's threads outlive a read that failed
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def state(step):
    rng = np.random.default_rng(step)
    params = {"dense": {"kernel": rng.normal(size=(3, 2)).astype(np.float32)},
              "half": jnp.asarray(rng.normal(size=4), jnp.bfloat16)}
    return TrainState(np.int32(step), params, (np.float32(step), {"mask": np.arange(3) > step}), ())


def same(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(str(path))
    for step in (2, 4):
        checkpoints.save(step, state(step), {"config": {"a": [1]}})
    return path


@pytest.fixture
def copy(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    return tmp_path / "run"


def files_of(path):
    return sorted(p for p in path.rglob("*") if p.is_file())


def test_round_trip_to_the_bit(saved):
    checkpoints = Checkpoints(str(saved))
    assert checkpoints.steps() == [2, 4]
    for step in (2, 4, None):
        found, meta = checkpoints.restore(jax.eval_shape(lambda: state(0)), step)
        assert same(found, state(step or 4)) and meta["step"] == (step or 4) and meta["config"] == {"a": [1]}
    assert checkpoints.meta()["step"] == 4


def test_a_part_restores_from_the_whole(saved):
    found, _ = Checkpoints(str(saved)).restore({"params": {"half": state(0).params["half"]}})
    assert same(found, {"params": {"half": state(4).params["half"]}})


def damage(path, how):
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(data[:len(data) // 2])
    else:
        place = min(len(data) - 1, int(how * len(data)))
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1:])


@pytest.mark.parametrize("how", ["gone", "empty", "cut", 0.02, 0.5, 0.99])
def test_any_damaged_file_falls_back_or_changes_nothing(copy, capfd, how):
    fell = 0
    for path in files_of(copy / "4"):
        whole = path.read_bytes()
        if not whole and how != "gone":
            continue
        damage(path, how)
        found, meta = Checkpoints(str(copy)).restore(state(0))
        assert meta["step"] in (2, 4) and same(found, state(meta["step"])), path
        fell += meta["step"] == 2
        assert ("checkpoint 4" in capfd.readouterr().err) == (meta["step"] == 2), path
        path.write_bytes(whole)
    assert fell >= 2  # the arrays and their hashes at the least


def test_every_bit_of_the_hashes_counts(copy):
    path = copy / "4" / "meta" / "metadata"
    whole = path.read_bytes()
    for place in range(0, len(whole), max(len(whole) // 40, 1)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
        found, meta = Checkpoints(str(copy)).restore(state(0))
        assert same(found, state(meta["step"])), place


@pytest.mark.parametrize("remove", ["4/state", "4/meta", "4/state/d"])
def test_a_missing_folder_falls_back(copy, remove):
    shutil.rmtree(copy / remove)
    found, meta = Checkpoints(str(copy)).restore(state(0))
    assert same(found, state(meta["step"])) and meta["step"] == 2
    assert Checkpoints(str(copy)).meta()["step"] == (2 if remove == "4/meta" else 4)


def test_all_bad_lists_every_step(copy):
    for step in ("2", "4"):
        (copy / step / "meta" / "metadata").write_text("{}")
    with pytest.raises(CheckpointError, match="step 4: meta.*; step 2: meta") as error:
        Checkpoints(str(copy)).restore(state(0))
    assert "\n" not in str(error.value)


def test_a_named_step_does_not_fall_back(copy):
    (copy / "4" / "meta" / "metadata").write_text("{}")
    with pytest.raises(CheckpointError, match="step 4") as error:
        Checkpoints(str(copy)).restore(state(0), 4)
    assert "step 2" not in str(error.value)


def test_nothing_there(tmp_path, saved):
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        Checkpoints(str(tmp_path / "none")).restore(state(0))
    with pytest.raises(FileNotFoundError, match="no checkpoint of step 3"):
        Checkpoints(str(saved)).restore(state(0), 3)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("change, leaf, found", [
    ({"dense": {"kernel": np.zeros((3, 5), np.float32)}}, "params/dense/kernel", r"float32\[3, 2\]"),
    ({"half": np.zeros(4, np.float32)}, "params/half", r"bfloat16\[4\]"),
    ({"more": np.zeros(1)}, "params/more", "absent"),
])
def test_another_model_is_named_by_its_leaf(saved, change, leaf, found):
    template = state(0).replace(params=state(0).params | change)
    with pytest.raises(ConfigError, match=found) as error:
        Checkpoints(str(saved)).restore(template)
    assert error.value.value == leaf


def test_keep_and_saving_a_step_again(copy):
    checkpoints = Checkpoints(str(copy), keep=2)
    checkpoints.save(4, state(14), {})
    assert checkpoints.steps() == [2, 4] and same(checkpoints.restore(state(0))[0], state(14))
    checkpoints.save(6, state(6), {})
    assert checkpoints.steps() == [4, 6]


def test_after_a_fall_back_saving_goes_on(copy):
    for path in files_of(copy / "4"):
        path.write_bytes(b"")
    checkpoints = Checkpoints(str(copy))
    assert checkpoints.restore(state(0))[1]["step"] == 2
    checkpoints.save(3, state(3), {})  # stopped by a signal before the damaged step is reached again
    assert Checkpoints(str(copy)).restore(state(0))[1]["step"] == 3
    checkpoints = Checkpoints(str(copy))
    checkpoints.save(4, state(4), {})
    assert same(Checkpoints(str(copy)).restore(state(0))[0], state(4))


def test_a_half_written_step_is_not_seen(copy):
    shutil.copytree(copy / "4", copy / "6.orbax-checkpoint-tmp-1")
    assert Checkpoints(str(copy)).steps() == [2, 4]
