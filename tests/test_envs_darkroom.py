"""Darkroom by hand: moves, walls, the paying cell. (The contract of all environments is in test_envs_point_robot.)"""

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.envs import darkroom


def test_moves_walls_and_reward():
    env = darkroom.make(length=4, size=5)
    goal_X = jnp.array([0.5, 0.0])  # one cell to the right of the middle
    state, _ = env.reset(jax.random.key(0), goal_X)
    right, up = 2.0 * jax.nn.one_hot(3, 5) - 1, 2.0 * jax.nn.one_hot(1, 5) - 1
    pays = []
    for act_A in (right, right, right, up):
        state, obs_S, rew, _ = env.step(jax.random.key(0), state, act_A, goal_X)
        pays.append(float(rew))
    assert pays == [1.0, 0.0, 0.0, 0.0]
    np.testing.assert_allclose(obs_S, [1.0, 0.5])  # two cells to the wall, not three


def test_goals_are_cells():
    env = darkroom.make(length=4, size=5)
    goals = jax.vmap(env.draw)(jax.random.split(jax.random.key(0), 64)) * 2
    np.testing.assert_array_equal(goals, np.round(goals))
    assert len(np.unique(np.asarray(goals), axis=0)) > 15
