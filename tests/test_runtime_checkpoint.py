"""Damaged checkpoints: every file of the newest step flipped, cut or gone, and what comes back is never wrong."""

import json
import os
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import GOLDEN

from metalearn.runtime import checkpoint
from metalearn.runtime.checkpoint import CheckpointError, Checkpoints
from metalearn.types import TrainState
from metalearn.validate import ConfigError

pytestmark = pytest.mark.usefixtures("data_only")


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


def golden_state():
    params = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3) / 7, "half": jnp.arange(4, dtype=jnp.bfloat16) / 2}
    return TrainState(np.int32(3), params, (np.uint8([1, 2]), {"mask": np.array([True, False])}),
                      {"seen": np.float32(9)})


def test_a_checkpoint_written_long_ago_is_read(tmp_path):
    """tests/golden/checkpoint is of the first version that had it: later ones read it, or say how to convert it."""
    shutil.copytree(GOLDEN / "checkpoint", tmp_path / "old")  # nothing may touch the golden one
    found, meta = Checkpoints(str(tmp_path / "old")).restore(golden_state())
    assert same(found, golden_state()) and meta["step"] == 3 and meta["config"] == {"seed": 0}
    assert set(Checkpoints(str(tmp_path / "old")).verify(3).values()) == {""}


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


def test_a_part_is_read_without_the_rest(copy, monkeypatch):
    """Evaluating reads no optimiser state: a damaged one does not keep it from the parameters."""
    read = []
    original = Checkpoints._read
    monkeypatch.setattr(Checkpoints, "_read", lambda self, step, leaves: read.extend(leaves) or original(self, step,
                                                                                                         leaves))
    Checkpoints(str(copy)).restore({"params": state(0).params})
    assert sorted(read) == ["params/dense/kernel", "params/half"]


def test_a_step_copied_under_another_number_is_not_that_step(copy, capfd):
    shutil.copytree(copy / "2", copy / "6")
    found, meta = Checkpoints(str(copy)).restore(state(0))
    assert meta["step"] == 4 and same(found, state(4))
    assert "is a copy of step 2" in capfd.readouterr().err and Checkpoints(str(copy)).meta()["step"] == 4


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("leaf", ["half", "kernel"])
def test_parameters_that_are_not_finite_are_neither_saved_nor_restored(copy, value, leaf, capfd):
    broken = state(6)
    if leaf == "half":
        broken.params["half"] = broken.params["half"].at[1].set(value)
    else:
        broken.params["dense"]["kernel"][1, 1] = value
    checkpoints = Checkpoints(str(copy))
    with pytest.raises(CheckpointError, match="step 6 was not saved: parameters are not finite .params/"):
        checkpoints.save(6, broken, {})
    checkpoints.save(6, broken, {}, force=True)
    assert checkpoints.steps() == [4, 6] and checkpoints.restore(state(0))[1]["step"] == 4
    assert "checkpoint 6" in capfd.readouterr().err


def test_a_disk_that_takes_nothing_more_leaves_earlier_steps_and_no_rubbish(copy, monkeypatch):
    import orbax.checkpoint as ocp

    checkpoints = Checkpoints(str(copy))
    checkpoints.save(6, state(6), {})

    def full(self, step, *rest, **kw):
        (copy / f"{step}.orbax-checkpoint-tmp-0" / "state").mkdir(parents=True)
        raise ValueError("RESOURCE_EXHAUSTED: [Errno 28] No space left on device:\n a page of it")

    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "save", full)
        with pytest.raises(CheckpointError, match="step 8 could not be saved.*No space left.*as they were") as error:
            checkpoints.save(8, state(8), {})
    assert "\n" not in str(error.value) and sorted(os.listdir(copy)) == ["4", "6"]
    with monkeypatch.context() as patch:  # known beforehand, so that Orbax is not asked
        patch.setattr(ocp.CheckpointManager, "save", None)
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 10**4, 10**4))
        with pytest.raises(CheckpointError, match="step 8 could not be saved.*: it needs .* bytes, 10,000 are free"):
            checkpoints.save(8, state(8), {})
    checkpoints.save(8, state(8), {})  # there is room again
    assert checkpoints.steps() == [6, 8]


def test_written_behind_it_is_a_step_when_all_of_it_is_there_and_what_it_was_when_saved(copy, monkeypatch):
    import orbax.checkpoint as ocp

    manager, go = ocp.CheckpointManager.save, threading.Event()
    monkeypatch.setattr(ocp.CheckpointManager, "save", lambda *args, **kw: go.wait(30) and manager(*args, **kw))
    mine = state(6)
    with Checkpoints(str(copy)) as checkpoints:
        checkpoints.save(6, mine, {}, wait=False)
        mine.params["dense"]["kernel"][:] = 0  # as an update does, whose buffers are given to the next
        assert checkpoints.steps() == [2, 4]
        go.set()
    assert checkpoints.steps() == [4, 6] and same(checkpoints.restore(state(0))[0], state(6))


def test_what_goes_wrong_behind_is_said_by_the_next_save_or_at_the_end(copy):
    broken, checkpoints = state(6), Checkpoints(str(copy))
    broken.params["dense"]["kernel"][0] = np.nan
    checkpoints.save(6, broken, {}, wait=False)
    with pytest.raises(CheckpointError, match="step 6 was not saved"):
        checkpoints.save(8, state(8), {}, wait=False)
    with pytest.raises(CheckpointError, match="step 6 was not saved"), checkpoints:
        checkpoints.save(6, broken, {}, wait=False)
    with pytest.raises(KeyError), checkpoints:  # the first error is the one that ends a run
        checkpoints.save(6, broken, {}, wait=False)
        raise KeyError
    assert checkpoints.steps() == [2, 4]


def hashed(copy, change):
    """The newest step's meta/metadata changed, and its hash made to fit, as someone with bad intentions would."""
    path = copy / "4" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    del meta["sha256"]
    meta = change(meta) or meta
    path.write_text(json.dumps(meta | {"sha256": checkpoint._hash_json(meta)}))


@pytest.mark.parametrize("change", [
    lambda meta: meta.pop("leaves") and None,
    lambda meta: meta | {"leaves": [1]},
    lambda meta: meta["leaves"].update({"params/half": 3}),
    lambda meta: meta["leaves"]["params/half"].update(shape="x"),
    lambda meta: meta["leaves"]["params/half"].update(shape=[-1]),
    lambda meta: meta["leaves"]["params/half"].update(dtype="object"),
    lambda meta: meta["leaves"]["params/half"].update(sha256=None),
    lambda meta: meta | {"step": 10**30},
    lambda meta: meta | {"step": "4"}])
def test_a_step_that_lists_nonsense_is_not_taken(copy, change):
    hashed(copy, change)
    assert Checkpoints(str(copy)).restore(state(0))[1]["step"] == 2


def test_a_small_file_does_not_ask_for_large_arrays(copy, monkeypatch):
    """A model of 2**40 bytes by the config and by the checkpoint, whose files are a few kB: nothing is allocated."""
    hashed(copy, lambda meta: meta["leaves"]["params/half"].update(shape=[2**39]))
    template = {"params": {"half": jax.ShapeDtypeStruct((2**39,), jnp.bfloat16)}}
    with pytest.raises(CheckpointError, match="1,099,511,627,776 bytes of arrays out of"):
        Checkpoints(str(copy)).restore(template, 4)


def test_a_chunk_that_is_larger_than_its_array_is_not_read(copy):
    """A file of a few kB whose one chunk says that it is 2 TB, where the model and the hashes say 8 bytes."""
    import tensorstore as ts

    base = {"driver": "file", "path": f"{copy}/4/state/"}
    database = ts.KvStore.open({"driver": "ocdbt", "base": base}).result()
    array = json.loads(database.read("params/half/.zarray").result().value)
    database.write("params/half/.zarray", json.dumps(array | {"chunks": [2**40]})).result()
    with pytest.raises(CheckpointError, match=r"params/half is not stored as \[4\], but as \[4\] in \[1099511627776\]"):
        Checkpoints(str(copy)).restore(state(0), 4)


def test_metadata_without_end_are_not_read(copy, monkeypatch):
    monkeypatch.setattr(checkpoint, "META_BYTES", 100)
    with pytest.raises(CheckpointError, match="larger than 100 bytes"):
        Checkpoints(str(copy)).restore(state(0))


@pytest.mark.parametrize("text", ["[" * 100000, "nan", "{", '{"sha256": 1}'])
def test_metadata_that_are_no_json_of_ours(copy, text):
    (copy / "4" / "meta" / "metadata").write_text(text)
    assert Checkpoints(str(copy)).restore(state(0))[1]["step"] == 2


def test_verify_names_each_leaf(copy):
    checkpoints = Checkpoints(str(copy))
    assert set(checkpoints.verify(4).values()) == {""} and "params/dense/kernel" in checkpoints.verify(4)
    hashed(copy, lambda meta: meta["leaves"]["params/half"].update(sha256="0"))
    assert {k: v for k, v in checkpoints.verify(4).items() if v} == {"params/half": "other bits"}
    shutil.rmtree(copy / "4" / "state")
    assert all(checkpoints.verify(4).values())
    (copy / "4" / "meta" / "metadata").write_text("{}")
    assert "SHA-256" in checkpoints.verify(4)["meta"]
