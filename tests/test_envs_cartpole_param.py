"""Cartpole-Param: the multipliers reach the physics, a rewired motor pushes the other way, energy behaves."""

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.envs import cartpole_param

FIELDS = dict(length=10, spread=1.0, tilt=0.3, rewired=True)


def test_a_rewired_motor_pushes_the_other_way():
    env = cartpole_param.make(**FIELDS)
    right, left = jnp.array([0.0, 0, 0, 0, 1]), jnp.array([0.0, 0, 0, 0, -1])
    upright = jnp.zeros(4)
    a, b = (env.step(jax.random.key(0), upright, jnp.array([0.5]), p)[0] for p in (right, left))
    np.testing.assert_allclose(a, -b, rtol=1e-6)
    assert a[1] > 0


def test_known_acceleration():
    """At rest, upright, all multipliers 1: theta'' = -F / (M + m) / (l (4/3 - m / (M + m))), and the cart from it."""
    env = cartpole_param.make(**FIELDS)
    state, *_ = env.step(jax.random.key(0), jnp.zeros(4), jnp.array([1.0]), jnp.array([0.0, 0, 0, 0, 1]))
    turned = -(10 / 1.1) / (0.5 * (4 / 3 - 0.1 / 1.1))
    np.testing.assert_allclose(state[3], 0.02 * turned, rtol=1e-5)
    np.testing.assert_allclose(state[1], 0.02 * (10 / 1.1 - 0.1 * 0.5 * turned / 1.1), rtol=1e-5)


def test_a_longer_pole_falls_more_slowly():
    env = cartpole_param.make(**FIELDS)
    tilted = jnp.array([0.0, 0.0, 0.2, 0.0])
    turn = lambda size: env.step(jax.random.key(0), tilted, jnp.zeros(1), jnp.array([0.0, 0, size, 0, 1]))[0][3]
    fall = [float(turn(size)) for size in (-1, 1)]
    assert fall[0] > 1.5 * fall[1] > 0
