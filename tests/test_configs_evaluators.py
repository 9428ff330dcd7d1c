"""Cost of an update: memory by segment, not by episode, when learning online."""

import jax
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
