"""Copy and repeat-copy: what episodes ask, by hand."""

import jax
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
    assert e.x_BTX.shape[1] == task.spec.length and len({int(m.sum()) for m in e.mask_BT}) > 2
    for x, y, mask in zip(e.x_BTX, e.y_BT, e.mask_BT, strict=True):
        n = int(np.flatnonzero(x[:, -1])[0])
        times = round(float(x[n, -1] * repeats))
        said = np.flatnonzero(mask)
        assert said[0] == n + 1 and len(said) == n * times
        np.testing.assert_array_equal(y[said], np.tile(x[:n, :-1], (times, 1)))
        assert not x[n + 1:].any()


def test_copy_level_is_data_and_the_exact_split_has_room_for_twice():
    task = lookup.build("tasks", "copy", bits=2, max_length=3, repeats=1, exact=False, task_seed=0)
    e = draw(task, "exact", data=task.data | {"difficulty": np.int32(6)})
    assert (e.mask_BT.sum(1) == 6).all()


@pytest.mark.parametrize("field,value", [("max_length", 0), ("bits", 0), ("repeats", 0), ("task_seed", -1)])
def test_bad_input_is_one_clear_line(field, value):
    good = dict(bits=2, max_length=3, repeats=1, exact=False, task_seed=0)
    with pytest.raises(ConfigError, match=field):
        lookup.build("tasks", "copy", **good | {field: value})
