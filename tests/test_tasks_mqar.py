"""Multi-query associative recall: what episodes ask, by hand."""

import jax
import numpy as np
import pytest

from metalearn import lookup
from metalearn.validate import ConfigError

GOOD = dict(keys=8, values=5, max_pairs=4, task_seed=0)


def draw(task, split="train", num=20, data=None):
    return jax.device_get(task.sample(data or task.data, jax.random.key(3), split, num))


@pytest.mark.parametrize("split,most", [("train", 4), ("exact", 8)])
def test_every_key_comes_once_with_a_value_and_once_more_to_be_answered(split, most):
    task = lookup.build("tasks", "mqar", **GOOD)
    e = draw(task, split, data=task.data | {"difficulty": np.int32(most)})
    assert e.x_BTX.shape == (20, 3 * most, 13)
    counts = set()
    for x, y, mask in zip(e.x_BTX, e.y_BT, e.mask_BT, strict=True):
        n = int(mask.sum())
        counts.add(n)
        token = x.argmax(-1)
        assert (x.sum(-1) == (np.arange(3 * most) < 3 * n)).all()
        assert (np.flatnonzero(mask) == 2 * n + np.arange(n)).all()
        said = dict(zip(token[0:2 * n:2].tolist(), (token[1:2 * n:2] - 8).tolist(), strict=True))
        assert len(said) == n and all(0 <= value < 5 for value in said.values())
        asked = token[2 * n:3 * n]
        assert sorted(asked) == sorted(said) and [said[k] for k in asked.tolist()] == y[2 * n:3 * n].tolist()
    assert counts == ({8} if split == "exact" else {1, 2, 3, 4})


def test_the_order_of_questions_is_shuffled():
    e = draw(lookup.build("tasks", "mqar", **GOOD), "exact")
    token = e.x_BTX.argmax(-1)
    assert (token[:, 0:8:2] != token[:, 8:12]).any(1).mean() > 0.5


@pytest.mark.parametrize("field,value", [("max_pairs", 0), ("keys", 7), ("values", 0), ("task_seed", -1)])
def test_bad_input_is_one_clear_line(field, value):
    with pytest.raises(ConfigError, match=field):
        lookup.build("tasks", "mqar", **GOOD | {field: value})
