"""MuJoCo robots: rewards and observations against the simulator stepped by hand; skipped without the extra `rl`."""

import sys

import numpy as np
import pytest

from metalearn import lookup
from metalearn.rl.behaviours import draw_tasks
from metalearn.validate import ConfigError

ROBOTS = {"cheetah_vel": (20, 6, 1), "cheetah_dir": (20, 6, 1), "ant_dir": (27, 8, 2), "hopper_param": (11, 3, 41),
          "walker_param": (17, 6, 65)}


@pytest.mark.parametrize("robot", sorted(ROBOTS))
def test_rewards_and_observations_by_hand(robot):
    mujoco = pytest.importorskip("mujoco")
    env = lookup.build("envs", "mujoco", robot=robot, length=5, observe_x=True)
    obs_size, act_size, num_params = ROBOTS[robot]
    param_BX = np.asarray(draw_tasks(env, 0, np.arange(3)))
    assert param_BX.shape == (3, num_params)
    obs_BS, advance = env.host(param_BX, np.arange(3))
    assert obs_BS.shape == (3, obs_size) and env.facts["act_size"] == act_size
    act_BA = np.full((3, act_size), 0.3)
    again, step = env.host(param_BX, np.arange(3))
    np.testing.assert_array_equal(again, obs_BS)
    next_BS, rew_B, terminated_B, _ = advance(act_BA)
    assert not terminated_B.any() and np.isfinite(next_BS).all()
    np.testing.assert_array_equal(step(act_BA)[1], rew_B)  # the same seed and actions, the same bits

    # one environment again, on bare MuJoCo
    from metalearn.envs.mujoco import PHYSICS, ROBOTS as built, _load, _vary
    _, model = _load(robot)
    if robot.endswith("param"):
        model = _vary(mujoco, model, [np.shape(getattr(model, n)) for n, _ in PHYSICS], param_BX[0])
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    if robot.endswith("param"):
        data.qpos[:] += rng.uniform(-0.005, 0.005, model.nq)
        data.qvel[:] = rng.uniform(-0.005, 0.005, model.nv)
    else:
        data.qpos[:] += rng.uniform(-0.1, 0.1, model.nq)
        data.qvel[:] = 0.1 * rng.standard_normal(model.nv)
    mujoco.mj_forward(model, data)
    x, place = data.qpos[0], data.body("torso").xpos[:2].copy()
    data.ctrl[:] = 0.3
    for _ in range(built[robot][1]):
        mujoco.mj_step(model, data)
    dt, effort, p = model.opt.timestep * built[robot][1], 0.09 * act_size, param_BX[0]
    v = (data.qpos[0] - x) / dt
    if robot == "ant_dir":
        mujoco.mj_rnePostConstraint(model, data)
        contact = np.square(np.clip(data.cfrc_ext, -1, 1)).sum()
        mujoco.mj_kinematics(model, data)
        way = (data.body("torso").xpos[:2] - place) / dt
        want = way @ p - 0.5 * effort - 0.0005 * contact + 1
        np.testing.assert_allclose(np.hypot(*p), 1, rtol=1e-5)
    else:
        want = {"cheetah_vel": -abs(v - p[0]) - 0.05 * effort, "cheetah_dir": p[0] * v - 0.05 * effort}.get(
            robot, v + 1 - 0.001 * effort)
    np.testing.assert_allclose(rew_B[0], want, rtol=1e-3, atol=1e-4)
    first = 2 if robot == "ant_dir" else 1
    np.testing.assert_allclose(next_BS[0, :model.nq - first], data.qpos[first:], rtol=1e-5, atol=1e-5)


def test_parameters_change_the_physics():
    """Two tasks and the same actions: other trajectories. (An old port ran, but its parameters were dead.)"""
    pytest.importorskip("mujoco")
    env = lookup.build("envs", "mujoco", robot="hopper_param", length=5, observe_x=True)
    param_BX = np.asarray(draw_tasks(env, 0, np.arange(2)))
    for param, same in ((param_BX, False), (param_BX[[0, 0]], True)):
        _, advance = env.host(param, np.arange(2))
        rng = np.random.default_rng(1)
        for _ in range(10):
            obs_BS, *_ = advance(np.repeat(rng.uniform(-1, 1, (1, 3)), 2, 0))
        # resets differ by 0.005 between two environments, and by that alone where the task is the same
        assert (np.abs(obs_BS[0] - obs_BS[1]).max() < 0.2) == same


def test_the_walker_s_feet_grip_as_in_the_original():
    pytest.importorskip("mujoco")
    from metalearn.envs.mujoco import _load
    _, model = _load("walker_param")
    assert [model.geom(name).friction[0] for name in ("foot_geom", "foot_left_geom")] == [0.9, 1.9]


def test_a_missing_extra_names_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ConfigError, match=r'pip install "metalearn-jax\[rl\]"'):
        lookup.build("envs", "mujoco", robot="cheetah_vel", length=5, observe_x=True)
    with pytest.raises(ConfigError, match="nearest: cheetah_vel"):
        lookup.build("envs", "mujoco", robot="cheetah_velo", length=5, observe_x=True)
