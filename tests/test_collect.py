"""The collect program: one command makes a file that a config can name; nothing is overwritten."""

import numpy as np
import pytest

from metalearn import collect, config, trajectories
from metalearn.validate import ConfigError

SMALL = ("task.train_tasks=3", "task.test_tasks=2", "task.episodes=4")


def test_collect_and_use(tmp_path):
    settings = config.load("configs/metadt.py:smoke", SMALL)
    out = str(tmp_path / "point.npz")
    numbers = collect.run(settings, out)
    assert numbers["tasks"] == 5 and numbers["steps"] == 5 * 4 * 20
    param_BX, logs, header = trajectories.load(out)
    assert header["env"]["name"] == "point_robot" and header["train_tasks"] == 3
    np.testing.assert_allclose(header["mean_return"], logs.rtg_BT[..., 0].mean(1), atol=1e-3)
    with pytest.raises(ConfigError, match="nothing was overwritten"):
        collect.run(settings, out)


def test_agents_that_learn(tmp_path):
    """Behaviour `sac`: its settings are in the file, and a config with others does not take it for its own."""
    few = ("task.sac.steps=40", "task.sac.random_steps=10", "task.sac.every=20", "task.sac.hidden=8")
    settings = config.load("configs/metadt.py:smoke", (*SMALL, "task.behaviour=sac", *few))
    out = str(tmp_path / "sac.npz")
    assert collect.run(settings, out)["steps"] == 5 * 4 * 20
    assert trajectories.load(out)[2]["sac"]["steps"] == 40
    with pytest.raises(ConfigError, match="config.task.sac.every=15"):
        collect.run(config.load("configs/metadt.py:smoke", (*SMALL, "task.behaviour=sac", *few, "task.sac.every=15")),
                    str(tmp_path / "other.npz"))
    assert len(list(tmp_path.iterdir())) == 1


def test_only_offline_tasks(tmp_path):
    with pytest.raises(ConfigError, match="config.task.name=projected"):
        collect.run(config.load("configs/gpicl.py:smoke"), str(tmp_path / "a.npz"))
    settings = config.load("configs/metadt.py:smoke", ("task.behaviour=ppo",))
    with pytest.raises(ConfigError, match="config.task.behaviour=ppo"):
        collect.run(settings, str(tmp_path / "a.npz"))
    assert not list(tmp_path.iterdir())
