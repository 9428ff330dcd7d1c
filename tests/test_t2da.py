"""Published trajectory files: goals found again from rewards, and pickles that hold anything but arrays refused."""

import importlib.util
import os
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

from metalearn.envs import point_robot
from metalearn.rl import rollout, store
from metalearn.validate import ConfigError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_spec = importlib.util.spec_from_file_location("t2da", os.path.join(ROOT, "launch", "t2da.py"))
public = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(public)

ENV = point_robot.make(length=20, goal_range=1.0)


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
        flat = lambda a, task=task: a[task].reshape(80, *a.shape[3:])
        arrays = {"observations": flat(logs.obs_BTS).astype(np.float64), "actions": flat(logs.act_BTA),
                  "next_observations": flat(logs.next_BTS).astype(np.float64), "terminals": np.zeros(80, bool),
                  "rewards": flat(logs.rew_BT).astype(np.float64)}
        (folder / f"dataset_task_{task}.pkl").write_bytes(pickle.dumps(arrays))
    return folder, goal_BX, logs


def test_everything_comes_back(published):
    folder, goal_BX, logs = published
    found_BX, found = public.read(str(folder), ENV)
    np.testing.assert_allclose(found_BX, goal_BX, atol=1e-4)
    for name, leaf in vars(logs).items():
        np.testing.assert_allclose(getattr(found, name), leaf, atol=1e-5, err_msg=name)


def test_a_file_for_training(published, tmp_path, monkeypatch, capsys):
    out = str(tmp_path / "public.npz")
    monkeypatch.setattr(sys, "argv", ["t2da.py", str(published[0]), out])
    assert public.main() == 0
    param_BX, logs, header = store.load(out)
    assert logs.rew_BT.shape == (3, 4, 20) and param_BX.shape == (3, 2)
    assert header["behaviour"] == "public" and header["task_ids"] == [0, 1, 2]
    assert public.main() == 2 and "nothing was overwritten" in capsys.readouterr().err


class Runs:
    def __reduce__(self):
        return subprocess.getoutput, ("touch seen",)


@pytest.mark.parametrize("content, said", [
    (pickle.dumps(Runs()), "it names subprocess.getoutput"),
    (b"cut short", "must be a pickled dict of the arrays"),
    (pickle.dumps({"observations": np.zeros(3)}), "must be a pickled dict of the arrays"),
    (pickle.dumps({k: np.zeros(7) for k in public.ARRAYS}), "not whole episodes of 20 steps in the plane"),
    (pickle.dumps({k: np.ones(20) if k == "rewards" else np.zeros((20, 2)) for k in public.ARRAYS}),
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
