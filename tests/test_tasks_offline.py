"""Offline tasks: windows by brute force, splits that share nothing, prompts, and every refusal."""

import concurrent.futures
import importlib
import time

import jax
import numpy as np
import pytest

from metalearn import lookup
from metalearn.rl import behaviours, store
from metalearn.rl.behaviours import draw_tasks, task_ids
from metalearn.types import Prompted
from metalearn.validate import ConfigError

FIELDS = dict(env=dict(name="velocity", length=12), data="", cache="", behaviour="history",
              quality="mixed", sac={}, train_tasks=4, test_tasks=3, episodes=10, task_seed=0, data_seed=0,
              history=3, window=5, start_frac=0.25, prompt_span=6, prompt_top=0,
              conditioning="return", scale=10.0)

SAC = dict(steps=40, random_steps=10, every=20, hidden=8, batch=8, lr=1e-3, temperature=0.1)


def build(**changes):
    return lookup.build("tasks", "offline", **(FIELDS | changes))


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return build().collect(str(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def batch(task):
    return jax.device_get(jax.jit(task.sample, static_argnums=(2, 3))(task.data, jax.random.key(0), "train", 64))


def test_windows_are_cut_out_of_episodes(task, batch):
    """Every window is found in its task's logs, at the steps that it names, with zeros outside."""
    logs = task.data["train"]["logs"]
    for body in (batch.body, batch.prompt):
        steps = body.rew_BT.shape[1]
        for b in range(64):
            on = body.mask_BT[b] > 0
            t = body.time_BT[b][on]
            assert len(t) and (np.diff(t) == 1).all()
            same = [e for e in range(logs.rew_BT.shape[1])
                    if np.array_equal(logs.obs_BTS[batch.task_B[b], e, t], body.obs_BTS[b][on])]
            assert len(same) == 1
            np.testing.assert_array_equal(logs.rew_BT[batch.task_B[b], same[0], t], body.rew_BT[b][on])
            np.testing.assert_allclose(body.rtg_BT[b][on], [logs.rew_BT[batch.task_B[b], same[0], s:].sum() for s in t],
                                       rtol=1e-4, atol=1e-3)
            assert not body.obs_BTS[b][~on].any() and not body.rew_BT[b][~on].any() and len(on) == steps


def test_first_steps_and_history(batch):
    first_B = batch.body.time_BT[np.arange(64), np.argmax(batch.body.mask_BT, 1)]
    at_zero_B = (batch.body.mask_BT[:, :3].sum(1) == 0) & (first_B == 0)
    assert 0.2 < at_zero_B.mean() < 0.6  # a quarter by choice, a twelfth by chance
    assert batch.body.mask_BT[:, 3].all()  # the window's first step is always inside
    assert (batch.body.time_BT[:, 3] <= 10).all() and (batch.body.time_BT[:, 3] == 10).any()


def test_splits_share_nothing(task):
    ids = {name: set(task.data[name]["id_B"].tolist()) for name in task.splits}
    assert not ids["train"] & ids["test"] and ids["train"] == ids["validation"]
    train, validation = (task.data[n]["logs"].obs_BTS for n in ("train", "validation"))
    assert train.shape[1] == 9 and validation.shape[1] == 1
    assert not any(np.array_equal(train[0, e], validation[0, 0]) for e in range(9))
    drawn = jax.jit(task.sample, static_argnums=(2, 3))(task.data, jax.random.key(0), "test", 32)
    assert set(np.asarray(drawn.task_B)) <= ids["test"]
    np.testing.assert_array_equal(drawn.param_BX, draw_tasks(task.spec.env, 0, drawn.task_B))


def test_statistics_are_of_training_episodes_alone(task):
    obs = task.data["train"]["logs"].obs_BTS
    np.testing.assert_allclose(task.spec.statistics.obs_mean_S, obs.mean((0, 1, 2)), rtol=1e-5)
    assert task.spec.statistics.best_return_B.shape == (4,)


def test_best_prompts_and_ranks(tmp_path):
    task = build(prompt_top=2, conditioning="rank").collect(str(tmp_path))
    part = task.data["train"]
    return_BE = part["logs"].rtg_BT[..., 0]
    assert part["best_BP"].shape == (4, 2)
    np.testing.assert_array_equal(part["best_BP"][:, 0], return_BE.argmax(1))
    np.testing.assert_array_equal(part["rank_BE"].argmax(1), return_BE.argmax(1))
    assert part["rank_BE"].min() == 0 and part["rank_BE"].max() == 1
    batch = jax.jit(task.sample, static_argnums=(2, 3))(task.data, jax.random.key(1), "train", 8)
    assert isinstance(batch, Prompted)
    rank = np.asarray(batch.conditioning_BT)
    assert ((rank >= 0) & (rank <= 1)).all() and all(len(np.unique(r[m > 0])) == 1 for r, m in zip(
        rank, np.asarray(batch.body.mask_BT), strict=True))


def test_a_file_gives_the_same_tasks(tmp_path, task):
    env = task.spec.env
    ids = task_ids(4, 3)
    param_BX, logs = behaviours.collect(env, "history", ids, 10, 0, 0)
    path = str(tmp_path / "d.npz")
    header = {"env": FIELDS["env"], "behaviour": "history", "task_ids": ids.tolist()}
    store.save(path, param_BX, logs, header)
    other = build(data=path)
    jax.tree.map(np.testing.assert_array_equal, other.data, task.data)
    with pytest.raises(ConfigError, match="data=.*was collected in"):
        build(data=path, env=dict(name="velocity", length=13), window=3)
    with pytest.raises(ConfigError, match="holds 7 tasks"):
        build(data=path, train_tasks=5)
    with pytest.raises(ConfigError, match="no such file"):
        build(data=str(tmp_path / "no.npz"))


def test_an_environment_with_a_list_of_tools_finds_its_data_again(tmp_path, monkeypatch):
    """Headers are JSON, where a config's tuple is a list."""
    real = lookup.build("envs", "velocity", length=12)
    monkeypatch.setattr("metalearn.lookup.build", lambda kind, name, *args, **kw: (
        real if name == "toy" else importlib.import_module(f"metalearn.{kind}.{name}").make(*args, **kw)))
    toy = dict(env=dict(name="toy", tools=("a", "b")), cache=str(tmp_path))
    first, again = build(**toy).collect("unused"), build(**toy).collect("unused")
    jax.tree.map(np.testing.assert_array_equal, first.data, again.data)
    file, = tmp_path.glob("*.npz")
    named = build(**(toy | dict(data=str(file))))
    assert named.facts["sha256"] == first.facts["sha256"] and named.collect is None
    other = build(**(toy | dict(env=dict(name="toy", tools=("a", "c"))))).collect("unused")
    assert len(list(tmp_path.glob("*.npz"))) == 2 and other.facts["sha256"] == first.facts["sha256"]  # same simulator


def test_building_collects_nothing_and_collecting_happens_once(tmp_path, monkeypatch):
    calls = []
    collect = behaviours.collect
    monkeypatch.setattr(behaviours, "collect", lambda *a: (calls.append(a), collect(*a))[1])
    task = build()
    assert task.data is None and not calls and not list(tmp_path.iterdir())
    first = task.collect(str(tmp_path))
    other_windows = build(window=4, conditioning="rank", scale=2.0).collect(str(tmp_path))
    assert len(calls) == 1 and first.facts["sha256"] == other_windows.facts["sha256"]
    np.testing.assert_array_equal(first.data["train"]["logs"].obs_BTS, other_windows.data["train"]["logs"].obs_BTS)
    for changes in (dict(data_seed=1), dict(task_seed=1), dict(episodes=11), dict(test_tasks=2), dict(quality="expert"),
                    dict(env=dict(name="velocity", length=13))):
        build(**changes).collect(str(tmp_path))
    assert len(calls) == 7  # each of these is other data


def test_of_two_at_once_one_collects_and_the_other_waits(tmp_path, monkeypatch):
    calls, collect = [], behaviours.collect

    def slow(*arguments):
        calls.append(arguments)
        time.sleep(0.5)  # long enough for the other to arrive
        return collect(*arguments)

    monkeypatch.setattr(behaviours, "collect", slow)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:  # the lock is an open file's: threads will do
        first, second = pool.map(lambda _: build().collect(str(tmp_path)), range(2))
    assert len(calls) == 1 and first.facts["sha256"] == second.facts["sha256"]
    assert len(list(tmp_path.glob("*.npz"))) == 1


@pytest.mark.parametrize("changes, text", [
    (dict(window=13), "window=13: must be at most 12, the shortest trajectory"),
    (dict(prompt_span=13), "prompt_span=13: must be at most 12"),
    (dict(behaviour="sarsa"), "behaviour=sarsa: must be one of"),
    (dict(quality="good"), "quality=good: must be one of"),
    (dict(behaviour="random", quality="expert"), "quality=expert: must be mixed with behaviour=random"),
    (dict(behaviour="sac"), "sac.steps=.missing.: this field must be given"),
    (dict(behaviour="sac", sac=SAC | dict(every=7)), "sac.every=7: must divide steps=40"),
    (dict(env=dict(length=3)), "env.name"),
    (dict(env=dict(name="velocity", length=12, goal=1)), "env.goal=1: unknown field"),
    (dict(episodes=1), "episodes=1"), (dict(start_frac=1.5), "start_frac"), (dict(conditioning="rnk"), "nearest: rank"),
    (dict(prompt_top=11), "prompt_top=11"), (dict(scale=0.0), "scale"), (dict(history=0), "history")])
def test_refusals(changes, text):
    with pytest.raises(ConfigError, match=text):
        build(**changes)
