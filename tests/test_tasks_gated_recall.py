"""Gated recall: the marked symbol, and how often it is rare."""

import jax
import pytest

from metalearn import lookup
from metalearn.validate import ConfigError


def draw(task, split="train", num=6, data=None):
    return jax.device_get(task.sample(data or task.data, jax.random.key(3), split, num))


def test_gated_recall_marks_the_symbol_and_balances_the_rare_ones():
    task = lookup.build("tasks", "gated_recall", symbols=8, length=5, rare_frac=0.1, task_seed=0)
    train, balanced = draw(task, num=2000), draw(task, "balanced", num=2000)
    assert (train.x_BTX[:, 0, :8].argmax(-1) == train.y_BT[:, -1]).all()
    assert (train.x_BTX[:, 0, 8] == 1).all() and not train.x_BTX[:, 1:, 8].any()
    assert abs((train.y_BT[:, 0] >= 4).mean() - 0.1) < 0.03 and abs((balanced.y_BT[:, 0] >= 4).mean() - 0.5) < 0.05
    assert not set(train.task_B) & set(balanced.task_B)


@pytest.mark.parametrize("field,value", [("symbols", 5), ("rare_frac", 2.0), ("length", 1), ("task_seed", -1)])
def test_bad_input_is_one_clear_line(field, value):
    good = dict(symbols=8, length=5, rare_frac=0.1, task_seed=0)
    with pytest.raises(ConfigError, match=field):
        lookup.build("tasks", "gated_recall", **good | {field: value})
