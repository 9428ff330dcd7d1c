"""Streams of images with labels one step late."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import lookup
from metalearn.validate import ConfigError


def draw(task, split="train", num=6, data=None):
    return jax.device_get(task.sample(data or task.data, jax.random.key(3), split, num))


def test_streams_show_each_class_so_often_and_splits_share_no_class():
    task = lookup.build("tasks", "omniglot_stream", dataset="digits", train="classes:0-4", test="classes:5-9",
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
    task = lookup.build("tasks", "omniglot_stream", dataset="digits", train="classes:0-4", test="classes:5-9",
                        image_size=0, ways=3, shots=2, rare_ways=0, rare_shots=0, rotate=False, task_seed=0)
    assert len({tuple(y) for y in draw(task, num=20).y_BT}) > 5
    jit = jax.jit(task.sample, static_argnums=(2, 3))(task.data, jax.random.key(3), "train", 6)
    np.testing.assert_array_equal(jit.y_BT, draw(task).y_BT)
    assert jnp.isfinite(jit.x_BTX).all()


@pytest.mark.parametrize("field,value", [("ways", 9), ("rare_ways", 3), ("shots", 0), ("shots", 500),
                                         ("test", "classes:4-8")])
def test_bad_input_is_one_clear_line(field, value):
    good = dict(dataset="digits", train="classes:0-4", test="classes:5-9", image_size=0, ways=3, shots=2, rare_ways=0,
                rare_shots=0, rotate=True, task_seed=0)
    with pytest.raises(ConfigError, match=field):
        lookup.build("tasks", "omniglot_stream", **good | {field: value})
