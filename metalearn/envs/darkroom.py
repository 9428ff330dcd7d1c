"""Darkroom: a grid in the dark with one hidden cell that pays.

Observation: the cell, each axis scaled to [-1, 1]; starts in the middle. An action is five scores (stay, up, down,
right, left), the largest is done. Reward 1 for every step that ends in the goal cell. Parameters: the goal (2), as
observations are.
"""

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.types import Env
from metalearn.validate import positive, require

MOVES = np.array([[0, 0], [0, 1], [0, -1], [1, 0], [-1, 0]], np.float32)


def make(*, length: int, size: int) -> Env:
    """A size x size grid, episodes of `length` steps."""
    positive(length=length)
    require(size >= 3 and size % 2 == 1, "size", size, "must be odd and at least 3, so that there is a middle")
    half = size // 2

    def draw(key):
        return jax.random.randint(key, (2,), -half, half + 1) / half

    def reset(key, goal_X):
        return jnp.zeros(2), jnp.zeros(2)

    def step(key, state, act_A, goal_X):
        state = jnp.clip(state + jnp.asarray(MOVES)[jnp.argmax(act_A)], -half, half)
        reward = jnp.all(state == jnp.round(goal_X * half)).astype(jnp.float32)
        return state, state / half, reward, jnp.zeros((), bool)

    def expert(obs_S, time, goal_X):
        way = jnp.round((goal_X - obs_S) * half)
        sign = jnp.sign(way)
        first = jnp.where(way[0] != 0, jnp.where(sign[0] > 0, 3, 4), jnp.where(sign[1] > 0, 1, 2))
        return 2.0 * jax.nn.one_hot(jnp.where(jnp.all(way == 0), 0, first), 5) - 1.0

    facts = {"name": "darkroom", "version": 1, "obs_size": 2, "act_size": 5, "rewards_differ": True}
    return Env(draw, reset, step, expert, np.full(2, 0.6, np.float32), length, facts)
