"""Rare beside common labels."""

import jax
import jax.numpy as jnp
import pytest

from metalearn import lookup
from metalearn.types import Learner
from metalearn.validate import ConfigError


def oracle(params, carry, batch):
    """Right where the label is common, and nowhere else."""
    right = jax.nn.one_hot(batch.y_BT, 4)
    return jnp.where((batch.y_BT < 2)[..., None], right, 1 - right)


def test_common_and_rare_labels_are_counted_apart():
    task = lookup.build("tasks", "gated_recall", symbols=4, length=3, rare_frac=0.1, task_seed=0)
    learner = Learner(None, None, oracle, None)
    evaluator = lookup.build("evaluators", "rare_recall", task, learner, split="balanced", episodes=64, seed=1)
    head = evaluator.run((), ())["headline"]
    assert head["common_accuracy"] == 1 and head["rare_accuracy"] == 0 and head == evaluator.run((), ())["headline"]


def test_refuses_tasks_without_rare_labels_and_unknown_splits():
    task = lookup.build("tasks", "gated_recall", symbols=4, length=3, rare_frac=0.1, task_seed=0)
    with pytest.raises(ConfigError, match="split"):
        lookup.build("evaluators", "rare_recall", task, None, split="test", episodes=4, seed=1)
    copy = lookup.build("tasks", "copy", bits=2, max_length=3, repeats=1, exact=False, task_seed=0)
    with pytest.raises(ConfigError, match="rare"):
        lookup.build("evaluators", "rare_recall", copy, None, split="train", episodes=4, seed=1)
