"""Gaits: the actions' formula, climbing that never loses, and the order of a task's episodes."""

import dataclasses

import numpy as np
import pytest

from metalearn import lookup
from metalearn.rl import behaviours, gaits
from metalearn.validate import ConfigError


def fake():
    """A runner whose speed is its first action: outside JAX, with the facts that gaits ask for."""
    env = lookup.build("envs", "velocity", length=12)

    def host(param_BX, seed_B):
        def advance(act_BA):
            v_B = np.asarray(act_BA)[:, 0]
            obs_BS = np.stack([v_B, v_B], 1).astype(np.float32)
            return obs_BS, -np.abs(v_B - param_BX[:, 0]), *np.zeros((2, len(v_B)), bool)
        return np.zeros((len(param_BX), 2), np.float32), advance

    facts = dict(env.facts) | {"targets": np.array([0.5, 0.1]), "dt": 0.05}
    return dataclasses.replace(env, host=host, facts=facts)


def test_actions_by_hand():
    gait = {"f": np.array([2.0]), "A": np.array([[0.5, 3.0]]), "phi": np.array([[0.1, 0.0]]),
            "b": np.array([[0.2, 0.9]])}
    want = [0.5 * np.sin(2 * np.pi * 2 * 3 * 0.05 + 0.1) + 0.2, 1.0]  # the second would be 3.75
    np.testing.assert_allclose(gaits.actions(gait, 3, 0.05)[0], want)


def test_later_episodes_are_better():
    param_BX = np.array([[0.1], [0.3], [0.5]], np.float32)
    steps = gaits.collect(fake(), param_BX, np.arange(3), behaviours.skills("mixed", 16), 0, library=64, climbs=20)
    assert steps.rew_BT.shape == (48, 12) and np.abs(steps.act_BTA).max() <= 1
    return_BE = np.asarray(steps.rtg_BT[:, 0]).reshape(3, 16)
    assert return_BE[:, -4:].mean() > return_BE[:, :8].mean() and return_BE[:, -4:].mean() > -2.4  # noise 0.1, 12 steps
    again = gaits.collect(fake(), param_BX, np.arange(3), behaviours.skills("mixed", 16), 0, library=64, climbs=20)
    np.testing.assert_array_equal(steps.act_BTA, again.act_BTA)


def test_logs_of_a_task_do_not_change_with_the_other_tasks():
    skill_E = behaviours.skills("mixed", 4)
    both = gaits.collect(fake(), np.array([[0.1], [0.3]], np.float32), np.array([7, 9]), skill_E, 0, 8, 1)
    alone = gaits.collect(fake(), np.array([[0.3]], np.float32), np.array([9]), skill_E, 0, 8, 1)
    np.testing.assert_allclose(both.act_BTA[4:], alone.act_BTA, atol=1e-6)


def test_gaits_between_two_targets():
    table = {"f": np.array([2.0, 2.0]), "A": np.array([[1.0, 0.5], [0.0, 0.1]])}
    found = gaits.between(np.array([3.0, 1.0]), table, np.array([1.5, 9.0]))
    np.testing.assert_allclose(found["A"], [[0.25, 0.2], [1.0, 0.5]])


def test_only_runners_have_gaits():
    with pytest.raises(ConfigError, match="behaviour=gaits: velocity has no targets"):
        behaviours.check(lookup.build("envs", "velocity", length=3), "gaits", "mixed", None)
