"""A point mass with a hidden target speed: the fast stand-in for Cheetah-Vel.

Observation: speed and the state of a lagging motor; starts at rest, with a little noise. Reward
-|v - v*| - 0.05 a^2. Parameters: v*, uniform in [0.075, 3] as for the half cheetah.
"""

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.types import Env
from metalearn.validate import positive

GAIN, DRAG, LAG, DT = 8.0, 2.0, 0.5, 0.05
SLOWEST, FASTEST = 0.075, 3.0


def make(*, length: int) -> Env:
    """Episodes of `length` steps of 0.05 s."""
    positive(length=length)

    def draw(key):
        return jax.random.uniform(key, (1,), minval=SLOWEST, maxval=FASTEST)

    def reset(key, target_X):
        state = 0.05 * jax.random.normal(key, (2,))
        return state, state

    def step(key, state, act_A, target_X):
        a = jnp.clip(act_A[0], -1, 1)
        v, motor = state
        motor = motor + LAG * (a - motor)
        v = v + DT * (GAIN * motor - DRAG * v)
        state = jnp.stack([v, motor])
        return state, state, -jnp.abs(v - target_X[0]) - 0.05 * a * a, jnp.zeros((), bool)

    def expert(obs_S, time, target_X):
        steady_X = target_X * DRAG / GAIN
        return jnp.clip(steady_X + 1.5 * (target_X - obs_S[:1]) - 0.3 * (obs_S[1:] - steady_X), -1, 1)

    facts = {"name": "velocity", "version": 1, "obs_size": 2, "act_size": 1, "rewards_differ": True}
    return Env(draw, reset, step, expert, np.full(1, 1.0, np.float32), length, facts)
