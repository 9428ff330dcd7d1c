"""Meta-World: its reward by hand, goals hidden, experts that succeed; skipped without the extra `metaworld`."""

import sys

import jax
import numpy as np
import pytest

from metalearn import lookup
from metalearn.rl import rollout
from metalearn.rl.behaviours import draw_tasks
from metalearn.validate import ConfigError

FIELDS = dict(tools=("reach",), length=60, reward_version="v2")
KEYS = jax.random.split(jax.random.key(0), 6)


def test_reach_by_hand():
    pytest.importorskip("metaworld")
    env = lookup.build("envs", "metaworld", **FIELDS)
    param_BX = np.asarray(draw_tasks(env, 0, np.arange(2)))
    goal_BX = param_BX[:, 4:]
    many = np.asarray(draw_tasks(env, 1, np.arange(200)))
    assert (np.linalg.norm(many[:, 1:3] - many[:, 4:6], axis=1) > 0.15).all()  # else its reset never ends
    assert ((goal_BX >= [-0.1, 0.8, 0.05]) & (goal_BX <= [0.1, 0.9, 0.3])).all()
    steps = rollout.run(env, rollout.expert(env), param_BX, param_BX, KEYS[:len(param_BX)])
    assert steps.obs_BTS.shape == (2, 60, 39) and not steps.obs_BTS[..., -3:].any()  # the goal is not shown
    assert (steps.rew_BT.max(1) > 9.99).all() and steps.rew_BT.max() <= 10.0
    # the reward grows as the hand comes nearer, and is 10 inside of 5 cm
    distance_BT = np.linalg.norm(steps.next_BTS[..., :3] - goal_BX[:, None], axis=-1)
    b, t = np.nonzero((distance_BT[:, 1:] < distance_BT[:, :-1] - 1e-3) & (steps.rew_BT[:, :-1] < 9.9))
    assert (steps.rew_BT[b, t + 1] > steps.rew_BT[b, t]).mean() > 0.95
    nothing = rollout.run(env, rollout.zero_action(env), param_BX, param_BX, KEYS[:len(param_BX)])
    assert steps.rtg_BT[:, 0].min() > 2 * nothing.rtg_BT[:, 0].max()


def test_several_tools():
    pytest.importorskip("metaworld")
    env = lookup.build("envs", "metaworld", **(FIELDS | dict(tools=("sweep", "door-lock"), length=3)))
    param_BX = np.asarray(draw_tasks(env, 0, np.arange(6)))
    assert set(param_BX[:, 0]) == {0.0, 1.0}
    steps = rollout.run(env, rollout.expert(env), param_BX, param_BX, KEYS[:len(param_BX)])
    assert np.isfinite(steps.rew_BT).all() and steps.act_BTA.shape == (6, 3, 4)


@pytest.mark.parametrize("tool, version", [("door-lock", "v2"), ("reach", "v1"), ("peg-insert-side", "v2")])
def test_success_is_what_the_simulator_says(tool, version):
    """Not a reward of 10: of a locked door it is less, and version 1 goes past it."""
    pytest.importorskip("metaworld")
    env = lookup.build("envs", "metaworld", tools=(tool,), length=200, reward_version=version)
    param_BX = np.asarray(draw_tasks(env, 0, np.arange(3)))
    steps, won_B = rollout.run_host(env, rollout.expert(env), param_BX, param_BX, KEYS[:3])
    _, idle_B = rollout.run_host(env, rollout.zero_action(env), param_BX, param_BX, KEYS[:3])
    assert won_B.all() and not idle_B.any() and env.facts["success"]
    if tool == "door-lock":
        assert ((steps.rew_BT.max(1) > 9.99) != won_B).any()


def test_every_tool_has_its_expert():
    pytest.importorskip("metaworld")
    from metalearn.envs import metaworld
    assert len(metaworld._load(metaworld.TOOLS)[1]) == len(metaworld.TOOLS)


def test_refusals(monkeypatch):
    with pytest.raises(ConfigError, match="nearest: reach"):
        lookup.build("envs", "metaworld", **(FIELDS | dict(tools=("reech",))))
    with pytest.raises(ConfigError, match="length=501"):
        lookup.build("envs", "metaworld", **(FIELDS | dict(length=501)))
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(ConfigError, match=r'pip install "metalearn-jax\[metaworld\]"'):
        lookup.build("envs", "metaworld", **FIELDS)
