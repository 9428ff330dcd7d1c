"""Published trajectory files: goals found again from rewards, and pickles that hold anything but arrays refused."""

import os
import pickle
import subprocess

import jax
import numpy as np
import pytest

from metalearn import collect
from metalearn.envs import darkroom, point_robot
from metalearn.rl import public, rollout, store
from metalearn.runtime import config
from metalearn.validate import ConfigError

ENV = point_robot.make(length=6, goal_range=1.0)


@pytest.fixture
def published(tmp_path):
    """(folder, goals, trajectories (B, E, T, ...)) of three tasks of four episodes, as others would write them."""
    goal_BX = np.asarray(jax.vmap(ENV.draw)(jax.random.split(jax.random.key(0), 3)))
    keys = rollout.episode_keys(jax.random.key(1), np.repeat(np.arange(3), 4), np.tile(np.arange(4), 3))
    logs = rollout.run(ENV, rollout.uniform(ENV), None, np.repeat(goal_BX, 4, 0), keys)
    logs = jax.tree.map(lambda a: np.asarray(a).reshape(3, 4, *a.shape[1:]), logs)
    folder = tmp_path / "published"
    folder.mkdir()
    for task in range(3):
        flat = lambda a, task=task: a[task].reshape(24, *a.shape[3:])
        arrays = {"observations": flat(logs.obs_BTS).astype(np.float64), "actions": flat(logs.act_BTA),
                  "next_observations": flat(logs.next_BTS).astype(np.float64), "terminals": np.zeros(24, bool),
                  "rewards": flat(logs.rew_BT).astype(np.float64)}
        (folder / f"dataset_task_{task}.pkl").write_bytes(pickle.dumps(arrays))
    return folder, goal_BX, logs


def test_everything_comes_back(published):
    folder, goal_BX, logs = published
    found_BX, found = public.read(str(folder), ENV)
    np.testing.assert_allclose(found_BX, goal_BX, atol=1e-4)
    for name, leaf in vars(logs).items():
        np.testing.assert_allclose(getattr(found, name), leaf, atol=1e-5, err_msg=name)


def test_a_file_for_training(published, tmp_path):
    folder, _, _ = published
    settings = config.load("configs/metadt.py:smoke", ("task.env.length=6",))
    numbers = collect.run(settings, str(tmp_path / "public.npz"), str(folder))
    assert numbers["tasks"] == 3 and numbers["episodes"] == 4 and numbers["steps"] == 72
    header = store.load(str(tmp_path / "public.npz"))[2]
    assert header["behaviour"] == "public" and header["task_ids"] == [0, 1, 2]


class Runs:
    def __reduce__(self):
        return subprocess.getoutput, ("touch seen",)


@pytest.mark.parametrize("content, said", [
    (pickle.dumps(Runs()), "it names subprocess.getoutput"),
    (b"cut short", "must be a pickled dict of the arrays"),
    (pickle.dumps({"observations": np.zeros(3)}), "must be a pickled dict of the arrays"),
    (pickle.dumps({k: np.zeros(7) for k in public.ARRAYS}), "not whole episodes of 6 steps in the plane"),
    (pickle.dumps({k: np.ones(6) if k == "rewards" else np.zeros((6, 2)) for k in public.ARRAYS}),
     "not distances to one goal"),
])
def test_other_files_are_refused(published, content, said, tmp_path, monkeypatch):
    folder, _, _ = published
    monkeypatch.chdir(tmp_path)
    (folder / "dataset_task_1.pkl").write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        public.read(str(folder), ENV)
    assert not os.path.exists("seen")


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="must be a folder with dataset_task_0.pkl"):
        public.read(str(tmp_path), ENV)
    with pytest.raises(ConfigError, match="is read for point_robot alone"):
        public.read(str(tmp_path), darkroom.make(length=5, size=3))
