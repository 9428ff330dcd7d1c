"""Cartpole-Param: one reward, other physics in every task; the small stand-in for Hopper- and Walker-Param.

The frictionless cart and pole of Barto, Sutton & Anderson (1983) under a continuous push, Euler steps of 0.02 s, no
termination: a pole that falls swings on. Observation: x, dx, sin and cos of the angle, its speed. Reward
cos(angle) - 0.1 min(x^2, 4) - 0.01 a^2. Parameters (5): log2-multipliers of cart mass, pole mass, pole length and
motor strength, and the sign with which the motor is wired.
"""

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.types import Env
from metalearn.validate import positive

GRAVITY, CART, POLE, HALF_LENGTH, PUSH, DT = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02


def make(*, length: int, spread: float, tilt: float, rewired: bool) -> Env:
    """Multipliers 2^U(-spread, spread); the pole starts within `tilt` radians of upright; `rewired`: every other motor
    pushes the wrong way, so that acting before the physics is known costs."""
    positive(length=length, spread=spread, tilt=tilt)

    def draw(key):
        key_size, key_sign = jax.random.split(key)
        size_X = jax.random.uniform(key_size, (4,), minval=-spread, maxval=spread)
        sign = jnp.where(jax.random.bernoulli(key_sign), 1.0, -1.0) if rewired else jnp.ones(())
        return jnp.append(size_X, sign)

    def see(state):
        x, dx, angle, turn = state
        return jnp.stack([x, dx, jnp.sin(angle), jnp.cos(angle), turn])

    def reset(key, param_X):
        state = jax.random.uniform(key, (4,), minval=-1, maxval=1) * jnp.array([0.05, 0.05, tilt, 0.05])
        return state, see(state)

    def step(key, state, act_A, param_X):
        cart, pole, half, push = _physics(param_X)
        x, dx, angle, turn = state
        a = jnp.clip(act_A[0], -1, 1)
        sin, cos = jnp.sin(angle), jnp.cos(angle)
        pulled = (push * a + pole * half * turn**2 * sin) / (cart + pole)
        turned = (GRAVITY * sin - cos * pulled) / (half * (4 / 3 - pole * cos**2 / (cart + pole)))
        moved = pulled - pole * half * turned * cos / (cart + pole)
        state = jnp.stack([x + DT * dx, dx + DT * moved, angle + DT * turn, turn + DT * turned])
        reward = jnp.cos(state[2]) - 0.1 * jnp.minimum(state[0] ** 2, 4.0) - 0.01 * a * a
        return state, see(state), reward, jnp.zeros((), bool)

    def expert(obs_S, time, param_X):
        """Feedback linearisation about upright: the angle follows a small lean against the drift."""
        cart, pole, half, push = _physics(param_X)
        angle = jnp.arctan2(obs_S[2], obs_S[3])
        lean = -jnp.clip(0.08 * obs_S[0] + 0.12 * obs_S[1], -0.2, 0.2)
        stiff = 2.5 * (GRAVITY / half) ** 0.5
        want = -(stiff**2) * (angle - lean) - 1.6 * stiff * obs_S[4]
        force = (cart + pole) * (GRAVITY * jnp.sin(angle) - want * half * (4 / 3 - pole / (cart + pole)))
        return jnp.clip(force / push, -1, 1)[None]

    facts = {"name": "cartpole_param", "version": 1, "obs_size": 5, "act_size": 1, "rewards_differ": False}
    return Env(draw, reset, step, expert, np.array([2.0 * spread] * 4 + [1.0], np.float32), length, facts)


def _physics(param_X):
    """(cart mass, pole mass, half length, push) of one task."""
    m = 2.0**param_X[:4]
    return CART * m[0], POLE * m[1], HALF_LENGTH * m[2], PUSH * m[3] * jnp.where(param_X[4] < 0, -1.0, 1.0)
