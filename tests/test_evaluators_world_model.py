"""The world-model evaluator: a model that knows the reward has no error, a code that is the task has R^2 one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import lookup
from metalearn.evaluators import world_model
from metalearn.types import Learner
from metalearn.validate import ConfigError

TASK = dict(env=dict(name="velocity", length=10), data="", cache="", behaviour="history", quality="mixed", sac={},
            train_tasks=8, test_tasks=6, episodes=6,
            task_seed=0, data_seed=0, history=2, window=5, start_frac=0.0, prompt_span=0, prompt_top=0,
            conditioning="return", scale=10.0)


def evaluate(task, knows: float):
    def predict(params, carry, batch):
        now = jax.tree.map(lambda a: a[:, 2:], batch.body)
        code_BTC = jnp.broadcast_to(batch.param_BX[:, None], (*now.rew_BT.shape, 1)) * knows
        return {"rew_BT": now.rew_BT + 0.5 * (1 - knows), "code_BTC": code_BTC}
    learner = Learner(None, None, predict, lambda length: 0)
    fields = dict(splits=("train", "validation", "test"), windows=256, seed=0)
    return lookup.build("evaluators", "world_model", task, learner, **fields).run((), ())


def test_known_errors_and_codes(tmp_path):
    task = lookup.build("tasks", "offline", **TASK).collect(str(tmp_path))
    right, wrong = evaluate(task, 1.0)["headline"], evaluate(task, 0.0)["headline"]
    assert right["test_mse"] == 0 and right["probe_r2"] > 0.99
    np.testing.assert_allclose(wrong["test_mse"], 0.25, rtol=1e-5)
    assert wrong["probe_r2"] < 0.1 and wrong["episodes_sha256"] == right["episodes_sha256"]
    with pytest.raises(ConfigError, match="splits=tests"):
        lookup.build("evaluators", "world_model", task, None, splits=("tests",), windows=8, seed=0)


def test_the_interval_counts_tasks_and_not_windows():
    """Every window twice: no narrower; by hand, Student's t over the means of three tasks."""
    values_BT, ids_B = np.array([[1.0, 9.0], [3.0, 3.0], [8.0, 8.0]]), np.array([5, 6, 7])
    mask_BT = np.array([[True, False], [True, True], [True, True]])
    half = world_model.task_interval(values_BT, mask_BT, ids_B)
    np.testing.assert_allclose(half, 4.302653 * np.std([1.0, 3.0, 8.0], ddof=1) / 3**0.5, rtol=1e-5)
    np.testing.assert_allclose(world_model.task_interval(
        np.repeat(values_BT, 2, 0), np.repeat(mask_BT, 2, 0), np.repeat(ids_B, 2)), half)
