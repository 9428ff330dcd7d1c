"""By length, past the training length."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import lookup
from metalearn.measure import frozen
from metalearn.types import Learner
from metalearn.validate import ConfigError

TASK = dict(bits=2, max_length=3, repeats=1, exact=False, task_seed=0)


def knows_up_to(longest):
    """Outputs that are right on episodes of at most `longest` rows, and say nothing on longer ones."""
    def predict(params, carry, batch):
        known_B = batch.mask_BT.sum(1) <= longest
        return (2 * batch.y_BT - 1) * 20.0 * known_B[:, None, None]
    return Learner(None, None, predict, None)


def test_longest_solved_is_the_longest_solved():
    task = lookup.build("tasks", "copy", **TASK)
    make = lambda learner: lookup.build("evaluators", "length_generalisation", task, learner, lengths=(1, 2, 4, 5, 6),
                                        solved_bits=0.15, episodes=8, seed=1)
    head = make(knows_up_to(4)).run((), ())["headline"]
    assert head["longest_solved"] == 4
    assert head["bits_by_length"]["5"] == pytest.approx(1.0) and head["right_by_length"]["4"] == 1
    assert make(knows_up_to(0)).run((), ())["headline"]["longest_solved"] == 0


def test_lengths_share_one_program_and_their_episodes_depend_on_nothing_else():
    """Not on the other lengths, nor on how many are drawn at once; with a learner that is right on even tasks."""
    traced = []
    task = lookup.build("tasks", "copy", **TASK)
    counted = dataclasses.replace(task, sample=lambda *a: traced.append("sample") or task.sample(*a))

    def even(params, carry, batch):
        traced.append("predict")
        return (2 * batch.y_BT - 1) * (1 - 2 * (batch.task_B % 2))[:, None, None]

    run = lambda *lengths: lookup.build("evaluators", "length_generalisation", counted, Learner(None, None, even, None),
                                        lengths=lengths, solved_bits=0.15, episodes=16, seed=1).run((), ())["headline"]
    several = run(1, 4, 6)
    assert traced == ["sample", "predict"]
    alone = run(4)
    assert several["right_by_length"]["4"] == alone["right_by_length"]["4"]
    drawn = frozen.Frozen(dataclasses.replace(task, data=task.data | {"difficulty": np.int32(4)}), "exact", 16, 2, 1)
    mask_BT, even_B = (np.concatenate(a) for a in zip(*((b.mask_BT, b.task_B % 2 == 0) for b in drawn), strict=True))
    assert alone["right_by_length"]["4"] == pytest.approx(even_B.mean()) and 0 < even_B.mean() < 1
    assert (mask_BT.sum(1) == 4).all()
    assert alone["episodes_sha256"] == frozen.together({4: drawn})[0] != several["episodes_sha256"]


def test_says_where_a_curriculum_stands():
    task = lookup.build("tasks", "copy", **TASK)
    climber = Learner(None, None, knows_up_to(6).predict, None,
                      batch_schedule=lambda data, carry: (data | {"difficulty": carry["difficulty"]}, 0))
    evaluator = lookup.build("evaluators", "length_generalisation", task, climber, lengths=(1,), solved_bits=0.15,
                             episodes=4, seed=1)
    assert evaluator.run((), {"difficulty": jnp.array(2)})["headline"]["difficulty"] == 2


def test_refuses_no_lengths_and_those_past_twice_the_training_length():
    task = lookup.build("tasks", "copy", **TASK)
    for lengths in ((7,), ()):
        with pytest.raises(ConfigError, match="lengths"):
            lookup.build("evaluators", "length_generalisation", task, None, lengths=lengths, solved_bits=0.15,
                         episodes=8, seed=1)
