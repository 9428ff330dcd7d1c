"""Copy, associative recall, gated recall and Omniglot online: what their episodes say, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import lookup
from metalearn.validate import ConfigError


def draw(task, split="train", num=6, data=None):
    return jax.device_get(task.sample(data or task.data, jax.random.key(3), split, num))


@pytest.mark.parametrize("repeats", [1, 3])
def test_copy_asks_for_the_rows_that_were_shown_so_often(repeats):
    task = lookup.build("tasks", "copy", bits=3, max_length=4, repeats=repeats, exact=False, task_seed=0)
    e = draw(task, num=20)
    assert e.x_BTX.shape[1] == task.facts["length"] and len({int(m.sum()) for m in e.mask_BT}) > 2
    for x, y, mask in zip(e.x_BTX, e.y_BT, e.mask_BT, strict=True):
        n = int(np.flatnonzero(x[:, -1])[0])
        times = round(float(x[n, -1] * repeats))
        said = np.flatnonzero(mask)
        assert said[0] == n + 1 and len(said) == n * times
        np.testing.assert_array_equal(y[said], np.tile(x[:n, :-1], (times, 1)))
        assert not x[n + 1:].any()


def test_copy_level_is_data_and_the_exact_split_has_room_for_twice():
    task = lookup.build("tasks", "copy", bits=2, max_length=3, repeats=1, exact=False, task_seed=0)
    e = draw(task, "exact", data=task.data | {"level": np.array([6], np.int32)})
    assert (e.mask_BT.sum(1) == 6).all()


def test_associative_recall_asks_for_the_next_item():
    task = lookup.build("tasks", "associative_recall", bits=4, rows=2, max_items=4, task_seed=0)
    e = draw(task, num=20)
    for x, y, mask in zip(e.x_BTX, e.y_BT, e.mask_BT, strict=True):
        starts, query = np.flatnonzero(x[:, -2]), int(np.flatnonzero(x[:, -1])[0])
        items = [x[s + 1:s + 3, :-2] for s in starts]
        asked = x[query + 1:query + 3, :-2]
        answers = [items[i + 1] for i in range(len(items) - 1) if (items[i] == asked).all()]
        said = np.flatnonzero(mask)
        assert said[0] == query + 3 and any((y[said] == a).all() for a in answers)


def test_gated_recall_marks_the_symbol_and_balances_the_rare_ones():
    task = lookup.build("tasks", "gated_recall", symbols=8, length=5, rare_frac=0.1, task_seed=0)
    train, balanced = draw(task, num=2000), draw(task, "balanced", num=2000)
    assert (train.x_BTX[:, 0, :8].argmax(-1) == train.y_BT[:, -1]).all()
    assert (train.x_BTX[:, 0, 8] == 1).all() and not train.x_BTX[:, 1:, 8].any()
    assert abs((train.y_BT[:, 0] >= 4).mean() - 0.1) < 0.03 and abs((balanced.y_BT[:, 0] >= 4).mean() - 0.5) < 0.05
    assert not set(train.task_B) & set(balanced.task_B)


def test_streams_show_each_class_so_often_and_splits_share_no_class():
    task = lookup.build("tasks", "omniglot_stream", pool="digits", train="classes:0-4", test="classes:5-9",
                        image_size=0, ways=4, shots=3, rare_ways=1, rare_shots=1, rotate=True, task_seed=0)
    e = draw(task)
    assert (np.apply_along_axis(np.bincount, 1, e.y_BT) == [3, 3, 3, 1]).all()
    assert all(len(set(rows)) == 10 for rows in e.index_BT)
    part = task.data["train"]
    for x_TX, rows, y_T in zip(e.x_BTX, e.index_BT, e.y_BT, strict=True):
        classes = np.searchsorted(part["start_V"], rows, side="right") - 1
        assert len({(c, y) for c, y in zip(classes, y_T, strict=True)}) == 4
        for x, row in zip(x_TX, rows, strict=True):
            assert any(np.allclose(np.rot90(part["x_NHW"][row], i).ravel(), x) for i in range(4))


def test_order_of_labels_differs_between_episodes():
    task = lookup.build("tasks", "omniglot_stream", pool="digits", train="classes:0-4", test="classes:5-9",
                        image_size=0, ways=3, shots=2, rare_ways=0, rare_shots=0, rotate=False, task_seed=0)
    assert len({tuple(y) for y in draw(task, num=20).y_BT}) > 5
    jit = jax.jit(task.sample, static_argnums=(2, 3))(task.data, jax.random.key(3), "train", 6)
    np.testing.assert_array_equal(jit.y_BT, draw(task).y_BT)
    assert jnp.isfinite(jit.x_BTX).all()


@pytest.mark.parametrize("name,field,changes", [
    ("copy", "max_length", dict(max_length=0)), ("copy", "bits", dict(bits=0)),
    ("gated_recall", "symbols", dict(symbols=5)), ("gated_recall", "rare_frac", dict(rare_frac=2.0)),
])
def test_bad_input(name, field, changes):
    good = {"copy": dict(bits=2, max_length=3, repeats=1, exact=False, task_seed=0),
            "gated_recall": dict(symbols=8, length=5, rare_frac=0.1, task_seed=0)}[name]
    with pytest.raises(ConfigError, match=field):
        lookup.build("tasks", name, **good | changes)
