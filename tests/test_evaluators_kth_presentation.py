"""Accuracy by presentation."""

import math

import jax
import jax.numpy as jnp
import pytest

from metalearn import lookup
from metalearn.types import Episodes, EpisodeSpec, Learner, TaskDist


def remembers(params, carry, batch):
    """Right from the second presentation of a class on, wrong at the first."""
    one_BTV = jax.nn.one_hot(batch.y_BT, 3)
    seen_BT = jnp.take_along_axis(jnp.cumsum(one_BTV, 1), batch.y_BT[..., None], -1)[..., 0] > 1
    return jnp.where(seen_BT[..., None], one_BTV, 1 - one_BTV)


@pytest.fixture(scope="module")
def task():
    return lookup.build("tasks", "omniglot_stream", dataset="digits", train="classes:0-4", test="classes:5-9",
                        image_size=0, ways=3, shots=4, rare_ways=1, rare_shots=1, rotate=False, task_seed=0)


def test_presentations_and_rare_classes_are_counted_apart(task):
    evaluator = lookup.build("evaluators", "kth_presentation", task, Learner(None, None, remembers, None), split="test",
                             upto=4, episodes=8, chunk=4, seed=1, targets={"other": {"1": 0.5}})
    result = evaluator.run((), ())
    head = result["headline"]
    assert head["instance_1"] == 0 and head["instance_2"] == 1 and head["instance_4"] == 1
    assert head["common_accuracy"] == pytest.approx(0.75) and head["rare_accuracy"] == 0  # a rare class comes once
    assert result["tables"][0]["rows"][1] == ["other", "0.500", "", "", ""]
    assert head == evaluator.run((), ())["headline"]


def test_the_chunk_is_memory_and_nothing_else(task):
    """With a learner that is right now and then, so that other episodes would give other numbers."""
    guesses = Learner(None, None, lambda params, carry, batch: batch.x_BTX[..., 18:21], None)
    a, b = (lookup.build("evaluators", "kth_presentation", task, guesses, split="test", upto=4, episodes=8, chunk=chunk,
                         seed=1, targets={}).run((), ())["headline"] for chunk in (2, 8))
    assert a == pytest.approx(b) and 0 < a["common_accuracy"] < 1 and a["inputs_sha256"] != a["episodes_sha256"]


def test_an_episode_without_a_second_presentation_has_no_accuracy_there():
    def sample(data, key, split, num):
        y_BT = jnp.array([[0, 0], [0, 1]])[jax.random.randint(key, (num,), 0, 2)]
        return Episodes(jnp.zeros((num, 2, 1)), y_BT, jnp.ones((num, 2)), jnp.arange(num), y_BT)

    task = TaskDist({}, sample, ("test",), EpisodeSpec(length=2, features=1, targets="classes", outputs=3), {})
    evaluator = lookup.build("evaluators", "kth_presentation", task, Learner(None, None, remembers, None), split="test",
                             upto=3, episodes=8, chunk=4, seed=1, targets={})
    head = evaluator.run((), ())["headline"]
    assert head["instance_2"] == 1 and head["instance_2_ci95"] == 0, "the others do not count, and not as 0"
    assert math.isnan(head["instance_3_ci95"])
