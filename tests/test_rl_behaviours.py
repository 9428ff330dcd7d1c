"""Behaviours: what the scripts promise about skill, setting off the wrong way, and determinism."""

import jax
import numpy as np
import pytest

from metalearn import lookup
from metalearn.rl import behaviours
from metalearn.rl.behaviours import task_ids
from metalearn.validate import ConfigError

POINT = lookup.build("envs", "point_robot", length=20, goal_range=1.0)


@pytest.fixture(scope="module")
def found():
    names = ("history", "explore", "expert", "search")
    return {name: behaviours.collect(POINT, name, np.arange(12), 20, 0, 0) for name in names}


def test_same_seed_same_data(found):
    again = behaviours.collect(POINT, "history", np.arange(12), 20, 0, 0)
    jax.tree.map(np.testing.assert_array_equal, again, found["history"])
    other = behaviours.collect(POINT, "history", np.arange(12), 20, 0, 1)
    np.testing.assert_array_equal(other[0], found["history"][0])  # the tasks have a seed of their own
    assert np.abs(other[1].act_BTA - found["history"][1].act_BTA).max() > 0.1


def test_histories_get_better_and_set_off_the_wrong_way(found):
    goal_BX, steps = found["history"]
    return_BE = steps.rtg_BT[..., 0]
    assert return_BE[:, 10:].mean() > return_BE[:, :10].mean() + 2
    first = steps.next_BTS[:, :, 2] @ goal_BX[:, :, None]  # progress towards the goal after three steps
    assert 0.1 < (first < 0).mean() < 0.5
    straight = found["expert"][1].next_BTS[:, :, 2] @ goal_BX[:, :, None]
    assert (straight < 0).mean() < 0.1


def test_order_of_behaviours(found):
    mean = {name: steps.rtg_BT[..., 0].mean() for name, (_, steps) in found.items()}
    assert mean["expert"] > mean["explore"] > mean["search"] > mean["history"]
    assert all(np.abs(steps.act_BTA).max() <= 1 for _, steps in found.values())


def test_qualities_hold_the_skill(found):
    """Expert histories beat medium ones, those the first third of mixed ones; mixed is what it was."""
    found_by = {q: behaviours.collect(POINT, "history", np.arange(12), 20, 0, 0, q)[1].rtg_BT[..., 0]
            for q in behaviours.QUALITIES}
    np.testing.assert_array_equal(found_by["mixed"], found["history"][1].rtg_BT[..., 0])
    assert found_by["expert"].mean() > found_by["medium"].mean() + 2
    assert found_by["medium"].mean() > found_by["mixed"][:, :7].mean() + 1
    np.testing.assert_allclose(behaviours.skills("mixed", 4), [0.125, 0.375, 0.625, 0.875])


AGENT = dict(steps=20, random_steps=5, every=10, hidden=8, batch=8, lr=1e-3, temperature=0.1)


@pytest.mark.parametrize("behaviour", ["search", "random", "sac"])
def test_logs_of_a_task_do_not_change_with_the_other_tasks(behaviour):
    """A draw is a function of (seed, task id, episode): more training tasks leave the test tasks' logs as they are."""
    env = lookup.build("envs", "velocity", length=6)  # whose resets are random too
    few, many = (behaviours.collect(env, behaviour, task_ids(train, 2), 3, 0, 0, "mixed", AGENT) for train in (2, 5))
    for a, b in ((a[-2:], b[-2:]) for a, b in zip(jax.tree.leaves(few), jax.tree.leaves(many), strict=True)):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.abs(few[1].act_BTA[-1] - few[1].act_BTA[-2]).max() > 1e-2
    assert np.abs(few[1].obs_BTS[-1, 0, 0] - few[1].obs_BTS[-1, 1, 0]).max() > 1e-4  # episodes begin differently


def test_refusals():
    with pytest.raises(ConfigError, match="nearest: history"):
        behaviours.collect(POINT, "historie", np.arange(2), 2, 0, 0)
