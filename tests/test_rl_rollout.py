"""Rollout: episodes that end, returns-to-go by brute force, and lock-step simulators beside the scan."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from metalearn import lookup
from metalearn.rl import rollout


def test_padding_after_the_end():
    """An environment that terminates after the first step past 0.25: later steps are zero, masked and unpaid."""
    env = lookup.build("envs", "point_robot", length=6, goal_range=1.0)

    def step(key, state, act_A, goal_X):
        state, obs_S, rew, _ = env.step(key, state, act_A, goal_X)
        return state, obs_S, rew, state[0] > 0.25

    ends = dataclasses.replace(env, step=step)
    right = lambda memory, time, obs, rew, key: (memory, jnp.ones((2, 2)) * jnp.array([[1.0], [0.1]]))
    goal_BX = jnp.ones((2, 2))
    steps = rollout.run(ends, right, (), goal_BX, jax.random.split(jax.random.key(0), 2))
    assert np.asarray(steps.mask_BT).sum(1).tolist() == [3, 6]
    assert np.asarray(steps.terminated_BT).sum(1).tolist() == [1, 0] and bool(steps.terminated_BT[0, 2])
    assert np.asarray(steps.truncated_BT).sum(1).tolist() == [0, 1] and bool(steps.truncated_BT[1, 5])
    assert not np.asarray(steps.obs_BTS)[0, 3:].any() and not np.asarray(steps.rew_BT)[0, 3:].any()
    rew_T = -np.hypot(*(1 - 0.1 * np.arange(1, 4)[:, None] * np.ones((1, 2))).T)
    np.testing.assert_allclose(steps.rtg_BT[0, :3], np.cumsum(rew_T[::-1])[::-1], rtol=1e-5)


def test_a_host_environment_gives_the_same_record():
    """The same dynamics as a stateful simulator outside JAX, stepped in lock-step."""
    env = lookup.build("envs", "point_robot", length=5, goal_range=1.0)

    def host(goal_BX, seed_B):
        position = np.zeros((len(goal_BX), 2), np.float32)

        def advance(act_BA):
            nonlocal position
            position = position + 0.1 * np.clip(act_BA, -1, 1)
            far_B = np.linalg.norm(position - goal_BX, axis=1)
            return position, -far_B, np.zeros(len(goal_BX), bool), far_B < 0.2

        return position, advance

    outside = dataclasses.replace(env, reset=None, step=None, host=host)
    goal_BX = jnp.array([[0.5, -0.2], [0.1, 0.9]])
    keys = jax.random.split(jax.random.key(0), 2)
    a, b = (rollout.run(e, rollout.expert(e), goal_BX, goal_BX, keys) for e in (env, outside))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), a, b)
    _, won_B = rollout.run_host(outside, rollout.expert(outside), goal_BX, goal_BX, keys)
    assert won_B.tolist() == [True, False]  # five steps of a tenth: within reach is the first goal alone
