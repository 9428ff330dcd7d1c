"""Every environment of the listing that runs on the device keeps the contract; Point-Robot pays by its formula."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import lookup
from metalearn.rl import rollout
from metalearn.rl.behaviours import draw_tasks
from metalearn.validate import ConfigError

FIELDS = {
    "point_robot": dict(length=20, goal_range=1.0),
    "darkroom": dict(length=16, size=5),
    "velocity": dict(length=30),
    "cartpole_param": dict(length=40, spread=1.0, tilt=0.3, rewired=True),
}
SIMULATED = {"mujoco", "metaworld"}  # stateful, on the host, behind an extra: each has a test file of its own


def test_every_environment_of_the_listing_is_held_to_a_contract():
    assert set(lookup.names("envs")) == FIELDS.keys() | SIMULATED
    for name in SIMULATED:
        assert (pathlib.Path(__file__).parent / f"test_envs_{name}.py").is_file(), name


@pytest.fixture(scope="module", params=sorted(FIELDS))
def env(request):
    return lookup.build("envs", request.param, **FIELDS[request.param])


@pytest.fixture(scope="module")
def played(env):
    """(param_BX, {policy: Trajectories}) of eight tasks."""
    param_BX = draw_tasks(env, 0, jnp.arange(8))
    keys = jax.random.split(jax.random.key(3), 8)
    go = jax.jit(lambda p: {f.__name__: rollout.run(env, f(env), p, p, keys) for f in (
        rollout.expert, rollout.zero_action, rollout.uniform)})
    return param_BX, go(param_BX)


def test_shapes_time_and_returns(env, played):
    param_BX, runs = played
    for steps in runs.values():
        assert steps.obs_BTS.shape == (8, env.length, env.facts["obs_size"])
        assert steps.act_BTA.shape == (8, env.length, env.facts["act_size"])
        np.testing.assert_array_equal(steps.obs_BTS[:, 1:], steps.next_BTS[:, :-1])
        np.testing.assert_allclose(steps.rtg_BT[:, 3], np.asarray(steps.rew_BT[:, 3:]).sum(1), rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(steps.time_BT[0], np.arange(env.length))
        assert np.asarray(steps.truncated_BT)[:, -1].all() and not np.asarray(steps.truncated_BT)[:, :-1].any()
        assert np.isfinite(np.asarray(steps.obs_BTS)).all()
    assert param_BX.shape[1] == len(env.spread_X)


def test_the_expert_beats_chance_and_tasks_differ(env, played):
    param_BX, runs = played
    total = {name: np.asarray(s.rtg_BT[:, 0]).mean() for name, s in runs.items()}
    assert total["expert"] > max(total["zero_action"], total["uniform"]) + 0.1 * abs(total["zero_action"])
    assert len(np.unique(np.asarray(param_BX), axis=0)) > 1
    other = draw_tasks(env, 0, jnp.array([1, 0]))
    np.testing.assert_array_equal(other[1], param_BX[0])  # a task is a function of its id alone


def test_parameters_change_what_happens(env, played):
    """The same actions from the same start lead elsewhere, or pay otherwise, in two tasks: parameters are not dead."""
    param_BX, runs = played
    actions = runs["uniform"].act_BTA[0]
    replay = lambda memory, time, obs, rew, key: (memory, jnp.broadcast_to(actions[time], (8, actions.shape[-1])))
    steps = rollout.run(env, replay, (), param_BX, jax.random.split(jax.random.key(0), 8))
    what = steps.rew_BT if env.facts["rewards_differ"] else steps.obs_BTS.sum(-1)
    if env.facts["name"] != "darkroom":  # where most walks meet no goal at all
        assert np.ptp(np.asarray(what), axis=0).max() > 0.05


def test_an_environment_does_not_depend_on_its_neighbours(env):
    param_BX = draw_tasks(env, 0, jnp.arange(3))
    state, obs_S = env.reset(jax.random.key(1), param_BX[2])
    act_A = jnp.full(env.facts["act_size"], 0.3)
    alone = env.step(jax.random.key(2), state, act_A, param_BX[2])
    batch = lambda a: jnp.broadcast_to(a, (3, *a.shape))
    together = jax.vmap(env.step, in_axes=(None, 0, None, 0))(jax.random.key(2), batch(state), act_A, param_BX)
    np.testing.assert_allclose(alone[1], together[1][2], rtol=1e-5)
    np.testing.assert_allclose(alone[2], together[2][2], rtol=1e-5)


def test_point_robot_by_hand():
    env = lookup.build("envs", "point_robot", length=20, goal_range=1.0)
    state, _ = env.reset(jax.random.key(0), jnp.array([0.3, 0.4]))
    state, obs_S, rew, done = env.step(jax.random.key(0), state, jnp.array([5.0, -0.5]), jnp.array([0.3, 0.4]))
    np.testing.assert_allclose(obs_S, [0.1, -0.05], rtol=1e-6)  # clipped to 1, then a stride of 0.1
    np.testing.assert_allclose(rew, -np.hypot(0.2, 0.45), rtol=1e-6)
    assert not done


def test_refusals():
    with pytest.raises(ConfigError, match="size=4"):
        lookup.build("envs", "darkroom", length=5, size=4)
    with pytest.raises(ConfigError, match="nearest: point_robot"):
        lookup.build("envs", "point_robt", length=5)
    with pytest.raises(ConfigError, match="length"):
        lookup.build("envs", "velocity", length=0)
