"""Minari's format: what is written comes back, and other programs can read it; with the real package."""

import sys

import jax
import numpy as np
import pytest

from metalearn import collect, lookup
from metalearn.rl import behaviours, store
from metalearn.rl.behaviours import task_ids
from metalearn.runtime import config
from metalearn.validate import ConfigError

pytestmark = pytest.mark.usefixtures("data_only")

ENV = dict(name="velocity", length=8)
NAME = "minari:metalearn/velocity-v0"


@pytest.fixture()
def here(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return minari


@pytest.fixture(scope="module")
def logs():
    return behaviours.collect(lookup.build("envs", "velocity", length=8), "history", task_ids(2, 1), 4, 0, 0)


def save(logs):
    ids = task_ids(2, 1).tolist()
    return store.save(NAME, *logs, {"env": ENV, "behaviour": "history", "quality": "mixed", "task_ids": ids})


def test_round_trip(here, logs):
    save(logs)
    param_BX, steps, header = store.load(NAME)
    np.testing.assert_array_equal(param_BX, logs[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), steps, logs[1])
    assert header["env"] == ENV and header["steps"] == 8
    task = lookup.build("tasks", "offline", env=ENV, data=NAME, cache="", behaviour="history", quality="mixed", sac={},
                        train_tasks=2, test_tasks=1, episodes=4, task_seed=0, data_seed=0, history=2, window=4,
                        start_frac=0.5, prompt_span=4, prompt_top=0, conditioning="return", scale=1.0)
    assert task.data["test"]["logs"].rew_BT.shape == (1, 4, 8)
    with pytest.raises(ConfigError, match="nothing was overwritten"):
        save(logs)


def test_padding_is_made_again(here, logs):
    """Episodes of different lengths: what is behind the end stays zero and masked."""
    param_BX, steps = logs
    mask = np.array(steps.mask_BT)
    mask[0, 0, 5:] = 0
    blank = lambda a: np.asarray(a) * mask.reshape(*mask.shape, *[1] * (np.ndim(a) - 3)).astype(np.asarray(a).dtype)
    short = jax.tree.map(blank, steps).replace(mask_BT=mask)
    store.save("minari:metalearn/short-v0", param_BX, short, {"env": ENV})
    found = store.load("minari:metalearn/short-v0")[1]
    np.testing.assert_array_equal(found.mask_BT, mask)
    np.testing.assert_array_equal(found.obs_BTS, short.obs_BTS)
    np.testing.assert_allclose(found.rtg_BT[0, 0, 0], np.asarray(short.rew_BT)[0, 0].sum(), rtol=1e-5)


def test_other_programs_read_it(here, logs):
    save(logs)
    dataset = here.load_dataset("metalearn/velocity-v0")
    assert dataset.total_episodes == 12 and dataset.total_steps == 96
    episode = next(dataset.iterate_episodes())
    assert episode.observations.shape == (9, 2) and episode.actions.shape == (8, 1)
    np.testing.assert_allclose(episode.rewards, logs[1].rew_BT[0, 0], rtol=1e-6)


def test_foreign_and_absent_datasets_are_refused(here, logs):
    save(logs)
    here.load_dataset("metalearn/velocity-v0").storage.update_metadata({"metalearn_header": json_of(steps=8)})
    with pytest.raises(ConfigError, match="was collected in"):
        lookup.build("tasks", "offline", env=ENV, data=NAME, cache="", behaviour="history", quality="mixed", sac={},
                     train_tasks=2, test_tasks=1, episodes=4, task_seed=0, data_seed=0, history=2, window=4,
                     start_frac=0.5, prompt_span=4, prompt_top=0, conditioning="return", scale=1.0)
    with pytest.raises(ConfigError, match="no such dataset"):
        store.load("minari:metalearn/absent-v0")
    with pytest.raises(ConfigError, match="is no name for Minari"):
        store.save("minari:no name", *logs, {})


def json_of(**header) -> str:
    import json
    return json.dumps(header)


def test_without_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ConfigError, match=r'data=minari:a/b-v0: needs Minari: pip install "metalearn-jax\[minari\]"'):
        store.load("minari:a/b-v0")
    settings = config.load("configs/metadt.py:smoke", ("task.train_tasks=2", "task.test_tasks=1", "task.episodes=2"))
    with pytest.raises(ConfigError, match="--out=minari:a/b-v0: needs Minari"):
        collect.run(settings, "minari:a/b-v0")
