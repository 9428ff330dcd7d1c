"""Soft actor-critic: it learns, its densities integrate to one, tasks share nothing, a simulator gives the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import lookup
from metalearn.rl import behaviours, sac

FEW = dict(steps=40, random_steps=10, every=20, hidden=8, batch=8, lr=1e-3, temperature=0.1)
POINT = lookup.build("envs", "point_robot", length=10, goal_range=1.0)


def outside(env):
    """Point-Robot behind `host`, stepping in numpy, so that the lock-step path is checked against the scanned one."""
    def host(param_BX, seed_B):
        place = np.zeros((len(param_BX), 2), np.float32)

        def advance(act_BA):
            place[:] += 0.1 * np.clip(act_BA, -1, 1)
            rew_B = -np.linalg.norm(place - param_BX, axis=1)
            return place.copy(), rew_B.astype(np.float32), *np.zeros((2, len(place)), bool)
        return place.copy(), advance

    return dataclasses.replace(env, host=host, reset=None, step=None)


def test_the_density_of_actions_integrates_to_one():
    """Over a grid of what tanh squashes: exp(log density) against the histogram of draws."""
    actor = sac._layers(jax.random.key(0), 2, 8, 8, 2)
    act_N, log_N = jax.vmap(lambda k: sac._draw_action(actor, jnp.array([0.3, -0.2]), k))(
        jax.random.split(jax.random.key(1), 40_000))
    count, edges = np.histogram(np.asarray(act_N[:, 0]), bins=20, range=(-0.95, 0.95), density=False)
    empirical = count / len(act_N) / np.diff(edges)
    bins = np.digitize(np.asarray(act_N[:, 0]), edges) - 1
    stated = np.array([np.exp(np.asarray(log_N)[bins == b]).mean() for b in range(20)])
    np.testing.assert_allclose(stated, empirical, rtol=0.12, atol=0.01)


def test_tasks_share_nothing_and_seeds_decide():
    param_BX = np.array([[0.5, 0.5], [-0.5, 0.0], [0.0, 0.9]], np.float32)
    ids = np.arange(3)
    ladder = sac.learn(POINT, param_BX, ids, 0, **FEW)
    assert ladder[0][0].shape == (3, 3, 2, 8)  # checkpoints, tasks, weights
    other = sac.learn(POINT, np.array([[0.5, 0.5], [0.9, 0.9], [0.0, 0.9]], np.float32), ids, 0, **FEW)
    same = [np.allclose(ladder[0][0][-1, b], other[0][0][-1, b], atol=1e-6) for b in range(3)]
    assert same == [True, False, True]
    assert np.abs(np.asarray(ladder[0][0][0] - ladder[0][0][-1])).max() > 1e-3
    fresh = sac.learn(POINT, param_BX, ids, 1, **FEW)
    assert np.abs(np.asarray(ladder[0][0][0] - fresh[0][0][0])).max() > 1e-2


def test_a_simulator_outside_jax_gives_the_same_agents():
    param_BX = np.array([[0.5, 0.5], [-0.5, 0.0]], np.float32)
    inside = sac.learn(POINT, param_BX, np.arange(2), 3, **FEW)
    lock_step = sac.learn(outside(POINT), param_BX, np.arange(2), 3, **FEW)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), inside, lock_step)


def test_collected_episodes():
    agent = FEW | dict(steps=60)
    param_BX, steps = behaviours.collect(POINT, "sac", np.arange(2), 3, 0, 0, "mixed", agent)
    assert steps.rew_BT.shape == (2, 3, 10) and np.abs(steps.act_BTA).max() <= 1
    far_BET = np.linalg.norm(steps.next_BTS - param_BX[:, None, None], axis=-1)
    np.testing.assert_allclose(steps.rew_BT, -far_BET, rtol=1e-5)
    medium = behaviours.collect(POINT, "sac", np.arange(2), 3, 0, 0, "medium", agent)[1]
    assert np.abs(medium.act_BTA - steps.act_BTA).max() > 1e-3


@pytest.mark.slow
def test_it_learns_point_robot():
    """Four tasks, 2,000 steps each: the last agents cut the distance to half of what the first had."""
    env = lookup.build("envs", "point_robot", length=20, goal_range=1.0)
    agent = dict(steps=2000, random_steps=100, every=200, hidden=64, batch=64, lr=3e-4, temperature=0.2)
    steps = behaviours.collect(env, "sac", np.arange(4), 11, 0, 0, "mixed", agent)[1]
    return_BE = steps.rtg_BT[..., 0]
    assert return_BE[:, -2:].mean() > 0.65 * return_BE[:, :2].mean()
