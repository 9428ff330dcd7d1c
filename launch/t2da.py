#!/usr/bin/env python3
"""Makes a trajectory file of Point-Robot data as the authors of T2DA (arXiv 2504.15046) publish them.

  .venv/bin/python launch/t2da.py DIR runs/public/t2da.npz

DIR is a folder of `dataset_task_N.pkl`, datasets/PointRobot-v0 of their repository: 50 tasks of 200 episodes. Each file
is a pickled dict of arrays (steps, ...): observations, next_observations, actions, rewards. Only arrays are unpickled,
nothing else that a pickle can name; the library itself reads no pickles, which is why this stands here. The goals are
not in the files: rewards are distances to them, so that |s'|^2 - r^2 = 2 s' g - |g|^2 is linear in what is sought, and
a residual tells data of another environment.
"""

import io
import os
import pickle
import re
import sys

import numpy as np

from metalearn.rl import recipe as recipe_lib, rollout, store
from metalearn.runtime import config as config_lib
from metalearn.types import Env, Trajectories
from metalearn.validate import ConfigError, require

ARRAYS = ("observations", "next_observations", "actions", "rewards")
ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype"), ("numpy.core.multiarray", "_reconstruct"),
           ("numpy._core.multiarray", "_reconstruct")}


class _Arrays(pickle.Unpickler):
    """Unpickles numpy arrays in plain containers alone."""

    def find_class(self, module: str, name: str):
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return np.empty(0).__reduce__()[0] if name == "_reconstruct" else getattr(np, name)


def read(folder: str, env: Env) -> tuple[np.ndarray, Trajectories]:
    """(goals (B, 2), Trajectories with axes (B, E, T, ...)), tasks in the order of their numbers.

    Raises ConfigError where the folder has no such files, or they are not of this environment.
    """
    field = "DIR"
    names = os.listdir(folder) if os.path.isdir(folder) else []
    numbered = sorted((int(found[1]), name) for name in names
                      if (found := re.fullmatch(r"dataset_task_(\d+)\.pkl", name)))
    require(bool(numbered), field, folder, "must be a folder with dataset_task_0.pkl, dataset_task_1.pkl, ...")
    goals, tasks = [], []
    for _, name in numbered:
        path = os.path.join(folder, name)
        arrays = _load(path)
        steps = len(arrays["rewards"])
        shapes = [arrays[k].shape for k in ARRAYS]
        require(shapes == [(steps, 2)] * 3 + [(steps,)] and steps % env.length == 0, field, path,
                f"has arrays of shapes {shapes}, not whole episodes of {env.length} steps in the plane")
        goals.append(_goal(arrays["next_observations"], arrays["rewards"], path))
        tasks.append({k: v.reshape(-1, env.length, *v.shape[1:]) for k, v in arrays.items()})
    episodes = [len(task["rewards"]) for task in tasks]
    require(len(set(episodes)) == 1, field, folder, f"has tasks of {min(episodes)} to {max(episodes)} episodes")
    obs, following, act, rew = (np.stack([task[k] for task in tasks]).astype(np.float32) for k in ARRAYS)
    B, E, T = rew.shape
    flat = lambda a: a.reshape(B * E, *a.shape[2:])
    logs = rollout.assemble(flat(obs), flat(act), flat(rew), flat(following), np.zeros((B * E, T)),
                            np.ones((B * E, T)))
    whole = {name: np.asarray(leaf).reshape(B, E, *leaf.shape[1:]) for name, leaf in vars(logs).items()}
    return np.stack(goals).astype(np.float32), Trajectories(**whole)


def _load(path: str) -> dict[str, np.ndarray]:
    with open(path, "rb") as file:
        content = file.read()
    try:
        found = _Arrays(io.BytesIO(content)).load()
        return {name: np.asarray(found[name]) for name in ARRAYS}
    except Exception as error:  # a damaged pickle can raise anything
        raise ConfigError("DIR", path, f"must be a pickled dict of the arrays {', '.join(ARRAYS)} "
                          f"({type(error).__name__}: {error})") from None


def _goal(next_NS: np.ndarray, rew_N: np.ndarray, path: str) -> np.ndarray:
    """The point whose distances the rewards are."""
    known_NX = np.concatenate([2 * next_NS, -np.ones((len(next_NS), 1))], 1)
    *goal_S, _ = np.linalg.lstsq(known_NX, (next_NS**2).sum(1) - rew_N**2, rcond=None)[0]
    gap = np.abs(np.linalg.norm(next_NS - goal_S, axis=1) + rew_N).max()
    require(bool(gap < 1e-3), "DIR", path, f"its rewards are not distances to one goal (off by up to {gap:.2g})")
    return np.asarray(goal_S)


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__.split("\n\n")[1].strip(), file=sys.stderr)
        return 2
    folder, out = sys.argv[1:]
    try:
        store.refuse(out)
        task = config_lib.load("configs/metadt.py:point", []).task.to_dict()
        recipe = recipe_lib.Recipe(**{k: task[k] for k in recipe_lib.FIELDS})
        goals_BX, logs = read(folder, recipe.built)
        header = recipe.header() | {"behaviour": "public", "quality": "public", "episodes": logs.rew_BT.shape[1],
                                    "task_ids": list(range(len(goals_BX)))}
        sha = store.save(out, goals_BX, logs, header)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{out}: {len(goals_BX)} tasks, {logs.rew_BT.shape[1]} episodes each, mean return "
          f"{logs.rtg_BT[..., 0].mean():.2f}, SHA-256 {sha}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
