"""The velocity point mass by hand: motor lag, drag, reward."""

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.envs import velocity


def test_one_step_by_hand():
    env = velocity.make(length=10)
    state, obs_S, rew, _ = env.step(jax.random.key(0), jnp.array([1.0, 0.2]), jnp.array([0.6]), jnp.array([1.5]))
    motor = 0.2 + 0.5 * 0.4
    v = 1.0 + 0.05 * (8 * motor - 2 * 1.0)
    np.testing.assert_allclose(obs_S, [v, motor], rtol=1e-6)
    np.testing.assert_allclose(rew, -abs(v - 1.5) - 0.05 * 0.36, rtol=1e-5)


def test_the_fastest_task_can_be_reached():
    env = velocity.make(length=200)
    state = jnp.zeros(2)
    for _ in range(200):
        state, *_ = env.step(jax.random.key(0), state, jnp.ones(1), jnp.array([3.0]))
    assert state[0] > 3.0
