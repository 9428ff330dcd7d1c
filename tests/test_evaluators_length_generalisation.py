"""By length, past the training length."""

import jax.numpy as jnp
import pytest

from metalearn import lookup
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


def test_says_where_a_curriculum_stands():
    task = lookup.build("tasks", "copy", **TASK)
    climber = Learner(None, None, knows_up_to(6).predict, None,
                      batch_schedule=lambda data, carry: (data | {"level": carry["level"]}, 0))
    evaluator = lookup.build("evaluators", "length_generalisation", task, climber, lengths=(1,), solved_bits=0.15,
                             episodes=4, seed=1)
    assert evaluator.run((), {"level": jnp.array(2)})["headline"]["level"] == 2


def test_refuses_lengths_past_twice_the_training_length():
    task = lookup.build("tasks", "copy", **TASK)
    with pytest.raises(ConfigError, match="lengths"):
        lookup.build("evaluators", "length_generalisation", task, None, lengths=(7,), solved_bits=0.15, episodes=8,
                     seed=1)
