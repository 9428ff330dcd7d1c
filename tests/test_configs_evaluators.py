"""Cost of an update: memory by segment, not by episode, when learning online. Squared error where it counts."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import lookup
from metalearn.validate import ConfigError

FEEDBACK = dict(context="none", time_remaining=False, hidden=0, heads=(), gamma=1.0, clip=0.0, gate=False,
                trace=0.0, aux=0.0, adapter="none")
NETWORK = dict(name="lstm", hidden=32)


def temp_bytes(rule, length):
    task = lookup.build("tasks", "gated_recall", symbols=4, length=length, rare_frac=0.5, task_seed=0)
    learner = lookup.build("learners", "memnet", task.spec, network=NETWORK, networks=(), inputs="x",
                           label_scale=1.0, rule=rule, segment=4, feedback=FEEDBACK,
                           curriculum=dict(initial_difficulty=0, bits=0.1), unroll=1, remat=False)
    batch = task.sample(task.data, jax.random.key(0), "train", 4)
    params, carry = jax.jit(learner.init)(jax.random.key(0), batch)
    evaluator = lookup.build("evaluators", "update_cost", task, learner, batch=4, repeats=1, positions=4)
    return evaluator.run(params, carry)["headline"]["temp_bytes"]


def test_online_memory_does_not_grow_with_the_episode_and_full_backpropagation_does():
    online = [temp_bytes("synthetic", length) for length in (8, 40)]
    whole = [temp_bytes("bptt", length) for length in (8, 40)]
    assert online[1] < 1.5 * online[0], online
    assert whole[1] > 3 * whole[0], whole


def test_bad_input():
    with pytest.raises(ConfigError, match="repeats"):
        lookup.build("evaluators", "update_cost", None, None, batch=4, repeats=0, positions=4)


def test_squared_error_is_that_of_the_queries_alone():
    task = lookup.build("tasks", "sinusoid", shots=3, queries=2, amplitude=(0.1, 5.0), phase=(0.0, 3.0),
                        x_range=(-5.0, 5.0), noise=0.0, num_tasks=0, task_seed=0)
    # right at queries but for 2, and far off where nothing is asked
    off = types.SimpleNamespace(predict=lambda params, carry, batch: batch.y_BT + jnp.where(
        batch.mask_BT[..., None] > 0, 2.0, 100.0))
    evaluator = lookup.build("evaluators", "squared_error", task, off, split="test", episodes=8, chunk=4, seed=1)
    found = evaluator.run({}, None)["headline"]
    np.testing.assert_allclose([found["error"], found["ci95"]], [4.0, 0.0], atol=1e-4)
    assert 0.1 < found["error_of_zero"] < 25
    recall = lookup.build("tasks", "gated_recall", symbols=4, length=4, rare_frac=0.5, task_seed=0)
    with pytest.raises(ConfigError, match="real targets"):
        lookup.build("evaluators", "squared_error", recall, off, split="balanced", episodes=8, chunk=4, seed=1)
