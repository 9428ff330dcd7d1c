"""Rare beside common labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import lookup
from metalearn.measure import frozen
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


def test_the_episodes_are_the_frozen_ones_however_they_are_drawn():
    """Drawn 16 at a time and scored by hand, with a learner that is right on even tasks."""
    def even(params, carry, batch):
        right = jax.nn.one_hot(batch.y_BT, 4)
        return jnp.where((batch.task_B % 2 == 0)[:, None, None], right, 1 - right)

    task = lookup.build("tasks", "gated_recall", symbols=4, length=3, rare_frac=0.1, task_seed=0)
    head = lookup.build("evaluators", "rare_recall", task, Learner(None, None, even, None), split="balanced",
                        episodes=64, seed=1).run((), ())["headline"]
    drawn = frozen.Frozen(task, "balanced", 64, 16, 1)
    y_B, even_B = (np.concatenate(a) for a in zip(*((b.y_BT[:, -1], b.task_B % 2 == 0) for b in drawn), strict=True))
    assert head["episodes_sha256"] == drawn.digest
    assert head["rare_accuracy"] == pytest.approx(even_B[y_B >= 2].mean())
    assert head["common_accuracy"] == pytest.approx(even_B[y_B < 2].mean())


def test_refuses_tasks_without_rare_labels_and_unknown_splits():
    task = lookup.build("tasks", "gated_recall", symbols=4, length=3, rare_frac=0.1, task_seed=0)
    with pytest.raises(ConfigError, match="split"):
        lookup.build("evaluators", "rare_recall", task, None, split="test", episodes=4, seed=1)
    copy = lookup.build("tasks", "copy", bits=2, max_length=3, repeats=1, exact=False, task_seed=0)
    with pytest.raises(ConfigError, match="rare"):
        lookup.build("evaluators", "rare_recall", copy, None, split="train", episodes=4, seed=1)
