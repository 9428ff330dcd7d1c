"""Frozen episodes: number i depends on the protocol and on nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn.measure.frozen import Frozen
from metalearn.types import Episodes, TaskDist


def sample(data, key, split, num):
    """Labels that depend on how many are drawn with one key."""
    y_BT = jax.random.randint(key, (num, 3), 0, 1000)
    return Episodes(jnp.zeros((num, 3, 1)), y_BT, jnp.ones((num, 3)), jnp.zeros(num, jnp.int32), y_BT)


TASK = TaskDist({}, sample, ("test", "other"), spec=None, facts={"sha256": "a"})


def labels(**changes):
    fields = dict(task=TASK, split="test", episodes=24, chunk=8, seed=0, block=4) | changes
    return np.concatenate([np.asarray(batch.y_BT) for batch in Frozen(**fields)])


@pytest.mark.parametrize("block", [1, 4, 8])
def test_number_i_does_not_depend_on_the_chunk_or_on_how_many_there_are(block):
    whole = labels(block=block)
    for changes in (dict(chunk=2), dict(chunk=24), dict(chunk=block), dict(episodes=8)):
        if max(changes.get("chunk", 8), block) % min(changes.get("chunk", 8), block) == 0:
            part = labels(block=block, **changes)
            np.testing.assert_array_equal(part, whole[:len(part)])
    np.testing.assert_array_equal(labels(block=block, episodes=10, chunk=2), whole[:10])
    assert len(np.unique(whole, axis=0)) == 24, "no episode comes twice"


def test_seed_split_and_block_are_the_protocol():
    for changes in (dict(seed=1), dict(split="other"), dict(block=8)):
        assert not np.array_equal(labels(**changes), labels()), changes


def test_batches_have_the_size_of_the_chunk():
    assert [len(b.task_B) for b in Frozen(TASK, "test", 24, 2, 0, 8)] == [2] * 12
    assert [len(b.task_B) for b in Frozen(TASK, "test", 24, 8, 0, 2)] == [8] * 3


def test_the_hash_is_that_of_the_episodes_whatever_the_chunk():
    a, b = Frozen(TASK, "test", 8, 8, 0, 4), Frozen(TASK, "test", 8, 2, 0, 4)
    assert a.digest == b.digest != Frozen(TASK, "test", 8, 8, 1, 4).digest


def test_two_datasets_with_the_same_labels_share_no_inputs_hash():
    a, b = (Frozen(dataclasses.replace(TASK, facts={"sha256": s}), "test", 8, 8, 0) for s in "ab")
    assert a.digest == b.digest and a.inputs_digest != b.inputs_digest


def test_data_are_placed_once_and_are_an_argument_of_the_program(monkeypatch):
    """Two sets of one task share the copy on the device; a task with other data draws by the same program."""
    placed, traced = [], []
    put = jax.device_put
    monkeypatch.setattr(jax, "device_put", lambda data: placed.append(data) or put(data))

    def add(data, key, split, num):
        traced.append(split)
        batch = sample(data, key, split, num)
        return batch.replace(y_BT=batch.y_BT + data["level"])

    task = dataclasses.replace(TASK, sample=add, data={"level": np.int32(0)})
    for _ in range(2):
        assert [len(b.task_B) for split in task.splits for b in Frozen(task, split, 8, 4, 0)] == [4] * 4
    assert placed == [task.data] and traced == ["test", "other"]
    higher = dataclasses.replace(task, data={"level": np.int32(5)})
    np.testing.assert_array_equal(labels(task=higher, block=1, chunk=4, episodes=8) - 5,
                                  labels(task=task, block=1, chunk=4, episodes=8))
    assert traced == ["test", "other"]
