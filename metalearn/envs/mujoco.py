"""Families of MuJoCo robots, on bare `mujoco` and gymnasium's models: observations, rewards and resets as published.

  robot         parameters            reward per step
  cheetah_vel   v* ~ U[0.075, 3]      -|v - v*| - 0.05 |a|^2
  cheetah_dir   d in {-1, 1}          d v - 0.05 |a|^2
  ant_dir       (cos, sin) of angle   v . d - 0.5 |a|^2 - 0.0005 |clip(contact forces, -1, 1)|^2 + 1
  hopper_param  physics               v + 1 - 0.001 |a|^2
  walker_param  physics               v + 1 - 0.001 |a|^2

v is displacement over the step's time. Nothing terminates. Cheetah-Dir has two tasks in all, as published: test tasks
are training tasks, and a few drawn ones may all have the same direction. Physics parameters are exponents: mass,
inertia and friction are multiplied by 1.5^p, joint damping by 1.3^p, p ~ U(-3, 3), element by element. The simulator is
no part of JAX and keeps its state: environments advance in lock-step on the host (`Env.host`). Needs the extra `rl`.
"""

import copy
import os

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.types import Env
from metalearn.validate import ConfigError, one_of, positive

INSTALL = 'needs MuJoCo: pip install "metalearn-jax[rl]" (or: pip install "gymnasium[mujoco]>=1.2")'
# xml, substeps, physics step (0: as in the xml), reset noise of positions and velocities
ROBOTS = {
    "cheetah_vel": ("half_cheetah.xml", 5, 0.0),
    "cheetah_dir": ("half_cheetah.xml", 5, 0.0),
    "ant_dir": ("ant.xml", 5, 0.0),
    "hopper_param": ("hopper.xml", 4, 0.004),
    "walker_param": ("walker2d.xml", 4, 0.004),  # v5's feet are alike; the original's grip .9 (right) and 1.9 (left)
}
PHYSICS = (("body_mass", 1.5), ("body_inertia", 1.5), ("dof_damping", 1.3), ("geom_friction", 1.5))


def make(*, robot: str, length: int, observe_x: bool) -> Env:
    """Episodes of `length` steps (published: 200); `observe_x`: the cheetah's observation ends in the torso's x, y, z
    as published, else in y, z alone (x drifts by tens of metres and tells nothing)."""
    one_of(ROBOTS, robot=robot)
    positive(length=length)
    mujoco, model = _load(robot)
    xml, substeps, _ = ROBOTS[robot]
    dt = model.opt.timestep * substeps
    cheetah, ant = robot.startswith("cheetah"), robot == "ant_dir"
    sizes = [np.shape(getattr(model, name)) for name, _ in PHYSICS]
    num_physics = int(sum(np.prod(s) for s in sizes))
    torso = model.body("torso").id

    def draw(key):
        if robot == "cheetah_vel":
            return jax.random.uniform(key, (1,), minval=0.075, maxval=3.0)
        if robot == "cheetah_dir":
            return jnp.where(jax.random.bernoulli(key, shape=(1,)), 1.0, -1.0)
        if ant:
            angle = jax.random.uniform(key, (), maxval=2 * jnp.pi)
            return jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        return jax.random.uniform(key, (num_physics,), minval=-3.0, maxval=3.0)

    def see(data) -> np.ndarray:
        if cheetah:
            place = data.xpos[torso] if observe_x else data.xpos[torso][1:]
            return np.concatenate([data.qpos[1:], data.qvel, place])
        if ant:
            return np.concatenate([data.qpos[2:], data.qvel])
        return np.concatenate([data.qpos[1:], np.clip(data.qvel, -10, 10)])

    def pay(data, before, act_A, param_X) -> float:
        speed_2 = (data.xpos[torso][:2] - before) / dt if ant else (data.qpos[:1] - before[:1]) / dt
        effort = float(np.square(act_A).sum())
        if robot == "cheetah_vel":
            return -abs(speed_2[0] - param_X[0]) - 0.05 * effort
        if robot == "cheetah_dir":
            return param_X[0] * speed_2[0] - 0.05 * effort
        if ant:
            mujoco.mj_rnePostConstraint(data.model, data)  # without it cfrc_ext stays zero
            contact = float(np.square(np.clip(data.cfrc_ext, -1, 1)).sum())
            return float(speed_2 @ param_X) - 0.5 * effort - 0.0005 * contact + 1.0
        return float(speed_2[0]) + 1.0 - 0.001 * effort

    def host(param_BX, seed_B):
        models = [_vary(mujoco, model, sizes, p) if robot.endswith("param") else model for p in param_BX]
        datas = [mujoco.MjData(m) for m in models]
        for m, d, seed in zip(models, datas, seed_B, strict=True):
            rng = np.random.default_rng(seed)
            wide = cheetah or ant
            d.qpos[:] = m.qpos0 + rng.uniform(-0.1, 0.1, m.nq) if wide else m.qpos0 + rng.uniform(-0.005, 0.005, m.nq)
            d.qvel[:] = 0.1 * rng.standard_normal(m.nv) if wide else rng.uniform(-0.005, 0.005, m.nv)
            mujoco.mj_forward(m, d)

        def advance(act_BA):
            act_BA, rew = np.clip(np.asarray(act_BA, np.float64), -1, 1), []
            for m, d, act_A, param_X in zip(models, datas, act_BA, param_BX, strict=True):
                before = d.xpos[torso][:2].copy() if ant else d.qpos[:1].copy()
                d.ctrl[:] = act_A
                mujoco.mj_step(m, d, substeps)
                if ant or (cheetah and observe_x):
                    mujoco.mj_kinematics(m, d)  # mj_step leaves xpos of the state before its last substep
                rew.append(pay(d, before, act_A, param_X))
            obs_BS = np.stack([see(d) for d in datas]).astype(np.float32)
            never_B = np.zeros(len(datas), bool)  # nothing terminates, nothing is ever done
            return obs_BS, np.asarray(rew, np.float32), never_B, never_B

        return np.stack([see(d) for d in datas]).astype(np.float32), advance

    facts = {"name": f"mujoco_{robot}", "version": 2 if robot == "walker_param" else 1,
             "mujoco": mujoco.__version__, "act_size": int(model.nu),
             "obs_size": len(see(mujoco.MjData(model))), "rewards_differ": not robot.endswith("param"), "dt": dt}
    if cheetah:  # the fastest first: what `gaits` climbs along
        facts["targets"] = np.linspace(3.0, 0.075, 12) if robot == "cheetah_vel" else np.array([1.0, -1.0])
    spread = {"cheetah_vel": 1.0, "cheetah_dir": 1.0, "ant_dir": 1.0}.get(robot, 3.0)
    size = {"cheetah_vel": 1, "cheetah_dir": 1, "ant_dir": 2}.get(robot, num_physics)
    return Env(draw, None, None, None, np.full(size, spread, np.float32), length, facts, host)


def _load(robot: str):
    """(mujoco, the robot's MjModel); ConfigError with the install command where the extra is missing."""
    try:
        import gymnasium
        import mujoco
    except ImportError as error:
        raise ConfigError("robot", robot, f"{INSTALL}; {error}") from None
    xml, _, timestep = ROBOTS[robot]
    path = os.path.join(os.path.dirname(str(gymnasium.__file__)), "envs", "mujoco", "assets", xml)
    model = mujoco.MjModel.from_xml_path(path)  # pyright: ignore[reportAttributeAccessIssue]: compiled
    if timestep:
        model.opt.timestep = timestep
    return mujoco, model


def _vary(mujoco, model, sizes, param_X):
    """A copy of the model with the physics of one task."""
    model, at = copy.copy(model), 0
    for (name, base), shape in zip(PHYSICS, sizes, strict=True):
        num = int(np.prod(shape))
        getattr(model, name)[:] *= base ** np.asarray(param_X[at:at + num], np.float64).reshape(shape)
        at += num
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model
