"""Associative recall: what episodes ask, by hand."""

import jax
import numpy as np
import pytest

from metalearn import lookup
from metalearn.validate import ConfigError


def draw(task, split="train", num=6, data=None):
    return jax.device_get(task.sample(data or task.data, jax.random.key(3), split, num))


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


@pytest.mark.parametrize("field,value", [("max_items", 1), ("bits", 0), ("rows", 0), ("task_seed", -1)])
def test_bad_input_is_one_clear_line(field, value):
    good = dict(bits=2, rows=2, max_items=3, task_seed=0)
    with pytest.raises(ConfigError, match=field):
        lookup.build("tasks", "associative_recall", **good | {field: value})
