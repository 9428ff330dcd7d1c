"""N-way K-shot episodes: classes and drawings without replacement, disjoint splits, pure functions of the task id."""

import jax
import numpy as np
import pytest

from metalearn.measure import frozen
from metalearn.tasks import fewshot, linear, sinusoid
from metalearn.validate import ConfigError

BASE = dict(dataset="digits", train_split="classes:0-4", val_split="", test_split="classes:5-9", new_dataset="",
            image_size=0, channels=0, flat=False, rotations="none", ways=3, shots=2, queries=3, train_ways=0,
            form="support_query", num_tasks=0, task_seed=0)


def _key(n):
    return jax.random.key(n, impl="threefry2x32")


def _draw(task, split="train", num=16, n=0):
    return jax.device_get(jax.jit(lambda d, k: task.sample(d, k, split, num))(task.data, _key(n)))


@pytest.fixture(scope="module")
def turned():
    task = fewshot.make(**BASE | dict(rotations="all"))
    return task, _draw(task)


def test_every_class_has_its_shots_and_queries(turned):
    _, batch = turned
    for y_T, mask_T, index_T in zip(batch.y_BT, batch.mask_BT, batch.index_BT, strict=True):
        assert np.bincount(y_T[mask_T == 0]).tolist() == [2, 2, 2]
        assert np.bincount(y_T[mask_T == 1]).tolist() == [3, 3, 3]
        assert len(set(index_T)) == len(index_T)


def test_one_label_is_one_class_and_one_turn(turned):
    task, batch = turned
    class_N = task.facts["class_N"]["train"]
    kind_BT = class_N[batch.index_BT % len(class_N)] + 100 * (batch.index_BT // len(class_N))
    for y_T, kind_T in zip(batch.y_BT, kind_BT, strict=True):
        assert [len(set(kind_T[y_T == v])) for v in range(3)] == [1, 1, 1] and len(set(kind_T)) == 3
    assert len(np.unique(kind_BT)) > 10  # of 20


def test_splits_share_no_class():
    from sklearn.datasets import load_digits

    task = fewshot.make(**BASE)
    pixels = load_digits().images / 16.0
    seen = {}
    for split in ("train", "test"):
        x = _draw(task, split).x_BTX * task.inputs.std + task.inputs.mean
        flat = pixels.reshape(len(pixels), -1)
        rows = [int(np.abs(flat - image.reshape(-1)).sum(1).argmin()) for image in x.reshape(-1, 8, 8)[:60]]
        seen[split] = set(load_digits().target[rows])
    assert seen["train"] <= set(range(5)) and seen["test"] <= set(range(5, 10))


def test_a_task_is_a_function_of_its_id():
    task = fewshot.make(**BASE | dict(num_tasks=3))
    batch = _draw(task, num=32)
    assert len(set(batch.task_B)) == 3
    for t in range(3):
        assert len({row.tobytes() for row in batch.index_BT[batch.task_B == t]}) == 1


def test_stream_shows_the_same_tasks():
    pair, stream = (_draw(fewshot.make(**BASE | dict(form=form)), num=4) for form in ("support_query", "stream"))
    assert (stream.mask_BT == 1).all()
    for a, b in zip(pair.index_BT, stream.index_BT, strict=True):
        assert sorted(a) == sorted(b)


def test_choose_is_uniform_and_without_replacement():
    draws = np.asarray(jax.vmap(lambda k: fewshot.choose(k, 5, 3))(jax.random.split(_key(0), 4000)))
    assert all(len(set(row)) == 3 for row in draws)
    for column in draws.T:  # every place is uniform over all five
        assert np.abs(np.bincount(column, minlength=5) / 4000 - 0.2).max() < 0.03


def test_frozen_episodes_do_not_depend_on_the_chunk():
    task = fewshot.make(**BASE)
    a, b = (frozen.Frozen(task, "test", 8, chunk, 1) for chunk in (4, 8))
    assert a.digest == b.digest != frozen.Frozen(task, "test", 8, 4, 2).digest
    assert a.digest != frozen.Frozen(task, "train", 8, 4, 1).digest


def test_regression_tasks_are_what_they_say():
    sines = sinusoid.make(shots=10, queries=10, amplitude=(0.1, 5.0), phase=(0.0, 3.14159), x_range=(-5.0, 5.0),
                          noise=0.0, num_tasks=0, task_seed=0)
    batch = _draw(sines)
    for x, y in zip(batch.x_BTX[..., 0], batch.y_BT[..., 0], strict=True):
        basis = np.stack([np.sin(x), np.cos(x)], 1)  # a sin(x - p) lies in their span
        assert np.abs(basis @ np.linalg.lstsq(basis, y, rcond=None)[0] - y).max() < 1e-4
    lines = linear.make(features=4, shots=5, queries=5, noise=0.0, num_tasks=0, task_seed=0)
    batch = _draw(lines)
    for x, y in zip(batch.x_BTX, batch.y_BT[..., 0], strict=True):
        assert np.abs(x @ np.linalg.lstsq(x, y, rcond=None)[0] - y).max() < 1e-4
    assert set(_draw(lines, "train", 64).task_B).isdisjoint(_draw(lines, "test", 64).task_B)


@pytest.mark.parametrize("change, field", [
    (dict(test_split="classes:0-4"), "test_split"), (dict(val_split="classes:4-8"), "val_split"),
    (dict(new_dataset="digits"), "new_dataset"),
    (dict(train_split="classes:0-3", val_split="classes:4-6", test_split="classes:6-9"), "val_split=classes:4-6")])
def test_training_classes_are_not_tested_as_unseen(change, field):
    with pytest.raises(ConfigError, match=f"{field}.*shares"):
        fewshot.make(**BASE | change)


def test_training_classes_are_tested_under_their_own_name():
    task = fewshot.make(**BASE | dict(test_split="trained"))
    np.testing.assert_array_equal(task.data["test"]["x_NX"], task.data["train"]["x_NX"])
