"""Behaviours: what the scripts promise about skill, setting off the wrong way, and determinism."""

import jax
import numpy as np
import pytest

from metalearn import lookup
from metalearn.rl import behaviours
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
    held = {q: behaviours.collect(POINT, "history", np.arange(12), 20, 0, 0, q)[1].rtg_BT[..., 0]
            for q in behaviours.QUALITIES}
    np.testing.assert_array_equal(held["mixed"], found["history"][1].rtg_BT[..., 0])
    assert held["expert"].mean() > held["medium"].mean() + 2
    assert held["medium"].mean() > held["mixed"][:, :7].mean() + 1
    np.testing.assert_allclose(behaviours.skills("mixed", 4), [0.125, 0.375, 0.625, 0.875])


def test_refusals():
    with pytest.raises(ConfigError, match="nearest: history"):
        behaviours.collect(POINT, "historie", np.arange(2), 2, 0, 0)
