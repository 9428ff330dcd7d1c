"""Point-Robot: a point finds a hidden goal in the square from nothing but its distance to it.

Observation: position; starts at the origin. Each step moves it by at most 0.1 along each axis, and the reward is minus
the distance to the goal after the move. Parameters: the goal (2).
"""

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.types import Env
from metalearn.validate import positive

STRIDE = 0.1


def make(*, length: int, goal_range: float) -> Env:
    """Goals uniform in [-goal_range, goal_range]^2, episodes of `length` steps (published: 1 and 20)."""
    positive(length=length, goal_range=goal_range)

    def draw(key):
        return jax.random.uniform(key, (2,), minval=-goal_range, maxval=goal_range)

    def reset(key, goal_X):
        return jnp.zeros(2), jnp.zeros(2)

    def step(key, state, act_A, goal_X):
        state = state + STRIDE * jnp.clip(act_A, -1, 1)
        return state, state, -jnp.linalg.norm(state - goal_X), jnp.zeros((), bool)

    def expert(obs_S, time, goal_X):
        return jnp.clip((goal_X - obs_S) / STRIDE, -1, 1)

    facts = {"name": "point_robot", "version": 1, "obs_size": 2, "act_size": 2, "rewards_differ": True}
    return Env(draw, reset, step, expert, np.full(2, 1.2 * goal_range, np.float32), length, facts)
