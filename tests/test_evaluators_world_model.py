"""The world-model evaluator: a model that knows the reward has no error, a code that is the task has R^2 one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import lookup
from metalearn.evaluators import world_model
from metalearn.measure import frozen
from metalearn.types import Learner
from metalearn.validate import ConfigError

TASK = dict(env=dict(name="velocity", length=10), data="", cache="", behaviour="history", quality="mixed", sac={},
            train_tasks=8, test_tasks=6, episodes=6,
            task_seed=0, data_seed=0, history=2, window=5, start_frac=0.0, prompt_span=0, prompt_top=0,
            conditioning="return", scale=10.0)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return lookup.build("tasks", "offline", **TASK).collect(str(tmp_path_factory.mktemp("data")))


def evaluate(task, knows: float, chunk: int = 256, traced=None):
    def predict(params, carry, batch):
        if traced is not None:
            traced.append(batch)
        now = jax.tree.map(lambda a: a[:, 2:], batch.body)
        code_BTC = jnp.broadcast_to(batch.param_BX[:, None], (*now.rew_BT.shape, 1)) * knows
        return {"rew_BT": now.rew_BT + 0.5 * (1 - knows), "code_BTC": code_BTC}
    learner = Learner(None, None, predict, lambda length: 0)
    fields = dict(splits=("train", "validation", "test"), windows=256, chunk=chunk, seed=0)
    return lookup.build("evaluators", "world_model", task, learner, **fields).run((), ())


def test_known_errors_and_codes(task):
    right, wrong = evaluate(task, 1.0)["headline"], evaluate(task, 0.0)["headline"]
    assert right["test_mse"] == 0 and right["probe_r2"] > 0.99
    np.testing.assert_allclose(wrong["test_mse"], 0.25, rtol=1e-5)
    assert wrong["probe_r2"] < 0.1 and wrong["episodes_sha256"] == right["episodes_sha256"]
    with pytest.raises(ConfigError, match="splits=tests"):
        lookup.build("evaluators", "world_model", task, None, splits=("tests",), windows=8, chunk=8, seed=0)


def test_an_unpredictable_first_step_hides_the_rest(task):
    """Off by 1 where the context is not whole (two steps of history), by .1 after: that error has its own name."""
    def predict(params, carry, batch):
        now = jax.tree.map(lambda a: a[:, 2:], batch.body)
        return {"rew_BT": now.rew_BT + jnp.where(now.time_BT < 2, 1.0, 0.1), "code_BTC": now.rew_BT[..., None]}
    fields = dict(splits=("test",), windows=256, chunk=256, seed=0)
    result = lookup.build("evaluators", "world_model", task, Learner(None, None, predict, lambda length: 0),
                          **fields).run((), ())
    np.testing.assert_allclose(result["headline"]["test_mse_informed"], 0.01, rtol=1e-4)
    assert result["headline"]["test_mse"] > 0.05
    assert [row[2:] for row in result["tables"][0]["rows"]][1] == ["from 2 on", "0.01000 ± 0.00000"]


def test_the_chunk_is_memory_and_nothing_else(task):
    """One program for all splits, too; the variance of the reward and the probe would tell other windows."""
    traced = []
    whole, parts = evaluate(task, 0.5), evaluate(task, 0.5, chunk=64, traced=traced)
    assert parts["headline"] == pytest.approx(whole["headline"]) and len(traced) == 1
    assert parts["headline"]["episodes_sha256"] == parts["facts"]["episodes_sha256"]


def test_windows_are_hashed_by_what_they_hold(task):
    """Task, steps and rewards: another seed, other logs with the same shapes."""
    part = task.data["test"]
    other = part | {"logs": part["logs"].replace(rew_BT=part["logs"].rew_BT + 1)}
    digest = lambda task, seed=0: frozen.Frozen(task, "test", 8, 8, seed).digest
    changed = digest(dataclasses.replace(task, data=task.data | {"test": other}))
    assert len({digest(task), digest(task, 1), changed}) == 3


def test_the_interval_counts_tasks_and_not_windows():
    """Every window twice: no narrower; by hand, Student's t over the means of three tasks."""
    values_BT, ids_B = np.array([[1.0, 9.0], [3.0, 3.0], [8.0, 8.0]]), np.array([5, 6, 7])
    mask_BT = np.array([[True, False], [True, True], [True, True]])
    half = world_model.task_interval(values_BT, mask_BT, ids_B)
    np.testing.assert_allclose(half, 4.302653 * np.std([1.0, 3.0, 8.0], ddof=1) / 3**0.5, rtol=1e-5)
    np.testing.assert_allclose(world_model.task_interval(
        np.repeat(values_BT, 2, 0), np.repeat(mask_BT, 2, 0), np.repeat(ids_B, 2)), half)
